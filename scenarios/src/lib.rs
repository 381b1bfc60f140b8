//! What the scenarios share: the built binary on loaded hosts, marks in the cluster's data, and questions asked of both.
//!
//! Each file in `tests/` is one scenario of the recovery contract; `cargo xtask test --only s1` runs one.

pub mod expired;

use anyhow::{Context, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use serde_json::Value;
use std::process::Output;
use std::time::Duration;
use testbed::set::{Kind, Set};

/// Where the binary lies on the hosts.
pub const REKINDLE: &str = "/usr/local/bin/rekindle";

/// A loaded cluster whose control-plane hosts have the binary.
pub struct Cluster {
    /// The hosts.
    pub set: Set,
}

/// What one call of the binary gave.
#[derive(Debug)]
pub struct Called {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Called {
    /// From what a process gave.
    #[must_use]
    pub fn new(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails with everything it said unless the exit code is this.
    ///
    /// # Errors
    /// When the exit code is another.
    pub fn expect(self, code: i32) -> Result<Self> {
        if self.code != code {
            bail!("exit code {} instead of {code}\n{}\n{}", self.code, self.stdout, self.stderr);
        }
        Ok(self)
    }

    /// Standard output as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("no JSON: {}", self.stdout))
    }
}

/// The static binary under test.
///
/// # Errors
/// When `REKINDLE_BIN` does not name it.
pub fn binary() -> Result<Utf8PathBuf> {
    let path = std::env::var("REKINDLE_BIN")
        .context("REKINDLE_BIN is not set: run scenarios with `cargo xtask test --only NAME`")?;
    Ok(path.into())
}

/// A new age identity: its file's text, and the recipient that goes with it.
///
/// # Errors
/// When `age-keygen` is not built or fails.
pub fn identity() -> Result<(String, String)> {
    let text = testbed::cmd::sh(testbed::components::age()?.path("age-keygen").as_str(), [""; 0])?;
    let line = text.lines().find_map(|line| line.strip_prefix("# public key: "));
    let recipient = line.context("age-keygen names no public key")?.trim().to_owned();
    Ok((text, recipient))
}

impl Cluster {
    /// A fresh, ready cluster with the binary on its control-plane hosts.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn load(kind: Kind) -> Result<Self> {
        Self::load_with(kind, &binary()?)
    }

    /// [`Cluster::load`] with this binary.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn load_with(kind: Kind, binary: &Utf8Path) -> Result<Self> {
        let set = Set::load(kind)?;
        for host in set.control_planes() {
            host.push(binary, REKINDLE)?;
            host.exec_ok(&["chmod", "755", REKINDLE])?;
        }
        Ok(Self { set })
    }

    /// Calls the binary on a host.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn on(&self, host: &str, args: &[&str]) -> Result<Called> {
        let mut line = vec![REKINDLE];
        line.extend(args);
        Ok(Called::new(&self.set.host(host)?.exec(&line)?))
    }

    /// Calls the binary on this machine (`verb` may be two words), for these hosts over SSH, with a state dir of its own.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn from_outside(&self, verb: &str, hosts: &[&str], args: &[&str]) -> Result<Called> {
        let mut command = testbed::cmd::command(binary()?.as_str(), verb.split(' '));
        for host in hosts {
            command.args(["--host", &format!("root@{host}")]);
        }
        command.args(["--ssh-config", self.set.ssh_config().as_str()]);
        command.args(["--state-dir", self.state_dir().as_str()]).args(args);
        Ok(Called::new(&testbed::cmd::output(&mut command)?))
    }

    /// The state dir of [`Cluster::from_outside`].
    #[must_use]
    pub fn state_dir(&self) -> Utf8PathBuf {
        self.set.dir().join("rekindle-state")
    }

    /// Saves a snapshot on a host, with the binary itself.
    ///
    /// # Errors
    /// When it is not saved.
    pub fn snapshot(&self, host: &str, path: &str) -> Result<()> {
        self.set.host(host)?.exec_ok(&["mkdir", "-p", "/backup"])?;
        self.on(host, &["snapshot", "save", path])?.expect(0).context("snapshot save")?;
        Ok(())
    }

    /// Puts a mark into the cluster's data: a ConfigMap of this name.
    ///
    /// # Errors
    /// When the API server does not take it.
    pub fn mark(&self, name: &str) -> Result<()> {
        self.set.kubectl_ok(&["create", "configmap", name, "-n", "default", "--from-literal", "mark=1"])?;
        Ok(())
    }

    /// Whether the mark is in the cluster's data.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub fn has_mark(&self, name: &str) -> Result<bool> {
        let found = self.set.kubectl_ok(&["get", "configmaps", "-n", "default", "-o", "name"])?;
        Ok(found.lines().any(|line| line == format!("configmap/{name}")))
    }

    /// Runs a shell script on a host: faults are made so.
    ///
    /// # Errors
    /// When it fails.
    pub fn fault(&self, host: &str, script: &str) -> Result<()> {
        self.set.host(host)?.script(script).with_context(|| format!("cannot make the fault on {host}"))?;
        Ok(())
    }

    /// Puts 1 MiB of garbage into `/root/garbage` on a host, for `dd`. Its seed is told, and `REKINDLE_GARBAGE_SEED` makes the
    /// same again.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn garbage(&self, host: &str) -> Result<()> {
        let seed = match std::env::var("REKINDLE_GARBAGE_SEED") {
            Ok(seed) => seed.parse().context("REKINDLE_GARBAGE_SEED is no number")?,
            Err(_) => rand::random(),
        };
        testbed::cmd::note(&format!("garbage on {host}: seed {seed}"));
        let mut bytes = vec![0; 1 << 20];
        StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
        self.set.host(host)?.write("/root/garbage", &bytes)
    }

    /// The cluster works for clients: all ready, leases renewed from now on, a write goes through.
    ///
    /// # Errors
    /// When it does not within three minutes.
    pub fn assert_works(&self, mark: &str) -> Result<()> {
        self.set.wait_ready_since(&testbed::set::now()?, Duration::from_secs(180))?;
        self.mark(mark)?;
        if !self.has_mark(mark)? {
            bail!("the mark {mark} was written but is not there");
        }
        Ok(())
    }
}

/// Stops kubelet and every control-plane container of a host, as a crash of the runtime would. (The kernel keeps 15
/// characters of a process's name.)
pub const STOP_ALL: &str = "systemctl stop kubelet; for p in etcd kube-apiserver kube-controller kube-scheduler; do \
     pkill -9 -x $p || true; done; sleep 0.5";

/// The findings' codes of a check or run report.
#[must_use]
pub fn codes(report: &Value) -> Vec<String> {
    let findings = report.get("findings").and_then(Value::as_array);
    findings.into_iter().flatten().filter_map(|f| f.get("code")?.as_str().map(str::to_owned)).collect()
}

/// The three control-plane hosts of [`Kind::Kubeadm3`].
pub const THREE: [&str; 3] = ["cp1", "cp2", "cp3"];

impl Cluster {
    /// Saves a snapshot of the etcd of `host` into a folder of this machine and returns the folder.
    ///
    /// # Errors
    /// When it is not saved.
    pub fn snapshot_here(&self, host: &str) -> Result<Utf8PathBuf> {
        self.snapshot(host, "/backup/snap.db")?;
        let folder = self.set.dir().join("backup");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("snap.db"), self.set.host(host)?.read("/backup/snap.db")?)?;
        Ok(folder)
    }

    /// `recover --yes` over SSH for these hosts; the JSON report of a verified recovery.
    ///
    /// # Errors
    /// When the exit code is not 0 or something was not proved.
    pub fn recover_from_outside(&self, hosts: &[&str], args: &[&str]) -> Result<Value> {
        let args = [args, &["--yes", "-o", "json"]].concat();
        let called = self.from_outside("recover", hosts, &args)?.expect(0)?;
        verified(&called)
    }

    /// What stock etcdctl on a host answers, JSON.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn etcdctl(&self, name: &str, words: &[&str]) -> Result<Value> {
        let pki = "/etc/kubernetes/pki/etcd";
        let host = self.set.host(name)?;
        host.push(&testbed::components::etcd_line("3.6")?.etcdctl, "/usr/local/bin/etcdctl")?;
        let mut line = vec![
            "/usr/local/bin/etcdctl".to_owned(),
            "--endpoints=https://127.0.0.1:2379".to_owned(),
            format!("--cacert={pki}/ca.crt"),
            format!("--cert={pki}/healthcheck-client.crt"),
            format!("--key={pki}/healthcheck-client.key"),
        ];
        line.extend(words.iter().map(|word| (*word).to_owned()));
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        Ok(serde_json::from_str(&host.exec_ok(&line)?)?)
    }

    /// Puts a mark into the cluster's data and waits until the member on `host` has applied it. A member may lag behind what
    /// a quorum has taken, and one that is then left alone has only what reached it.
    ///
    /// # Errors
    /// When the API server does not take it, or the member does not get it.
    pub fn mark_reaching(&self, host: &str, name: &str) -> Result<()> {
        self.mark(name)?;
        let key = format!("/registry/configmaps/default/{name}");
        testbed::cmd::wait_for(&format!("{name} in the member on {host}"), Duration::from_secs(30), || {
            let found = self.etcdctl(host, &["get", &key, "--consistency=s", "--keys-only", "-w", "json"])?;
            Ok((found.get("count").and_then(Value::as_i64) == Some(1)).then_some(()))
        })
    }

    /// Live keys and revision of each member, as stock etcdctl on its host tells it.
    ///
    /// # Errors
    /// When a member does not answer.
    pub fn hash_kv(&self, hosts: &[&str]) -> Result<Vec<Value>> {
        hosts
            .iter()
            .map(|name| {
                let value = self.etcdctl(name, &["endpoint", "hashkv", "-w", "json"])?;
                value.pointer("/0/HashKV").cloned().with_context(|| format!("no HashKV in {value}"))
            })
            .collect()
    }
}

/// The report of a call that must have ended verified, with everything it set out to prove proved.
///
/// # Errors
/// When it did not.
pub fn verified(called: &Called) -> Result<Value> {
    let report = called.json()?;
    if report.get("outcome").and_then(Value::as_str) != Some("verified") {
        bail!("the outcome is {:?}\n{}", report.get("outcome"), called.stderr);
    }
    let proofs = report.get("verifications").and_then(Value::as_array).context("no verifications")?;
    if proofs.is_empty() {
        bail!("verified, but nothing was proved");
    }
    match proofs.iter().find(|proof| proof.pointer("/held/known") != Some(&Value::Bool(true))) {
        Some(proof) => bail!("called verified, but not proved: {proof}"),
        None => Ok(report),
    }
}
