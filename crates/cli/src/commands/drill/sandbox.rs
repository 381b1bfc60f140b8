//! The sandbox: namespaces of their own for the network (loopback only, no route) and for processes, in which
//! `rekindle drill inside` boots what was restored. Made by `unshare` of util-linux, as no safe call makes one.
//!
//! What is inside can't reach production: no webhook, APIService or admission of it answers, and no KMS is configured
//! (`keys.rs` refuses one: its socket is a file, which a network namespace does not hide). It ends with its parent: the
//! inside watches its standard input, and the kernel ends a process namespace with its first process.

use super::report::{Booted, Check, Phase};
use crate::failure::{Doing, Failure};
use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// What comes back is a page of text; more is something else.
const ANSWER_MAX_BYTES: u64 = 16 << 20;

/// What is to be done inside. It names files; it holds no secret.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    /// The network namespace of the parent: the inside must be in another one.
    pub(super) outside: String,
    /// A folder for logs, certificates and the kubeconfig.
    pub(super) folder: Utf8PathBuf,
    /// The restored member's data dir, and its peer URL.
    pub(super) data_dir: Utf8PathBuf,
    pub(super) peer_url: String,
    /// Its revision, and the HashKV there.
    pub(super) revision: i64,
    pub(super) hash: u32,
    pub(super) etcd: Utf8PathBuf,
    /// None: only etcd is booted.
    pub(super) api_server: Option<Utf8PathBuf>,
    pub(super) settings: Settings,
    pub(super) check_commands: Vec<String>,
    pub(super) check_manifests: Vec<Utf8PathBuf>,
}

/// How the API server is told to read what is stored; of the cluster's own where they are known.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Settings {
    /// `--etcd-prefix`
    pub(super) etcd_prefix: String,
    /// Flags of the cluster's API server that decide about what is served: `--feature-gates=...`.
    pub(super) flags: Vec<String>,
    /// `sa.pub` and `sa.key`
    pub(super) service_account: Option<(Utf8PathBuf, Utf8PathBuf)>,
    /// The cluster's CA.
    pub(super) ca: Option<Utf8PathBuf>,
    pub(super) encryption_config: Option<Utf8PathBuf>,
    /// Why there is none.
    pub(super) encryption_missing: String,
}

/// What the inside tells.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) phases: Vec<Phase>,
    pub(super) booted: Option<Booted>,
    pub(super) checks: Vec<Check>,
    /// What kept it from going on.
    pub(super) failure: Option<String>,
}

/// Runs it.
pub(super) async fn run(spec: &Spec) -> Result<Told, Failure> {
    let failed = || "the sandbox can't be made".to_owned();
    let hint =
        "it needs `unshare` (util-linux 2.32 or later) and `ip` (iproute2), and root or user namespaces";
    let own = std::env::current_exe().doing(failed)?;
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--pid", "--fork", "--kill-child", "--"]).arg(own).args(["drill", "inside"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| Failure::new(failed()).because(error).hint(hint))?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Failure::new(failed()));
    };
    let mut line = serde_json::to_vec(spec).doing(failed)?;
    line.push(b'\n');
    // one that can't be started does not read, and says why on stderr
    let _ = stdin.write_all(&line).await;
    let mut answer = Vec::new();
    stdout.take(ANSWER_MAX_BYTES).read_to_end(&mut answer).await.doing(failed)?;
    let status = child.wait().await.doing(failed)?;
    drop(stdin);
    serde_json::from_slice(&answer).map_err(|error| {
        Failure::new(format!("the sandbox ended without a word ({status})")).because(error).hint(hint)
    })
}

/// The network namespace this process is in.
pub(super) fn network_namespace() -> Result<String, Failure> {
    let link = std::fs::read_link("/proc/self/ns/net");
    Ok(link.doing(|| "the network namespace is not known".into())?.to_string_lossy().into_owned())
}
