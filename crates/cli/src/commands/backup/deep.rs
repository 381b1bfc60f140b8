//! `rekindle backup verify --deep`: the newest state in the vault is restored into a scratch folder, as a disaster would
//! ask for it, and an etcd is booted from it where one is installed.

use super::scratch;
use crate::commands::snapshot::bar;
use crate::connect;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use camino::Utf8Path;
use etcd_disk::changes::{Changes, Point};
use etcd_disk::restore::{Form, NewCluster, RestoreOptions, RestoredDb, Target, restore_members};
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy};
use rekindle_model::etcd::{EtcdEndpoint, HashKv};
use rekindle_vault::history::{History, Item, Timeline};
use rekindle_vault::manifest::Full;
use rekindle_vault::{Identities, Vault};
use schemars::JsonSchema;
use serde::Serialize;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So long an etcd may take to boot from a restored store.
const BOOT_PATIENCE: Duration = Duration::from_secs(120);

/// What a restore for trial came to.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Deep {
    /// Number of the full it began with.
    pub(super) full: u64,
    /// Segments replayed behind it.
    pub(super) segments: u64,
    /// The revision restored.
    pub(super) revision: i64,
    /// HashKV of the restored store.
    pub(super) hash_kv: HashKv,
    /// Version of the etcd that booted from it and answered the same HashKV; none when no `etcd` is in PATH.
    pub(super) booted: Option<String>,
    /// Milliseconds from the first byte fetched to the store restored.
    pub(super) took_ms: u64,
}

/// Restores the end of the newest timeline's last stretch.
pub(super) async fn run(
    vault: &Vault,
    history: &History,
    identities: &Arc<Identities>,
    parent: &Utf8Path,
    output: &Output,
) -> Result<Deep, Failure> {
    let (timeline, full) = newest(history)
        .ok_or_else(|| Failure::new(format!("there is no full backup of {} to restore", vault.cluster())))?;
    let (folder, start) = (scratch(parent)?, Instant::now());
    let fetched = |name: &str| vault.object(name);
    let file = folder.path().join("snapshot.db");
    let name = &full.content.part.name;
    vault
        .fetch(&full.content.part, identities, &file)
        .await
        .doing(|| format!("cannot fetch {}", fetched(name)))?;
    let mut segments = Vec::new();
    for segment in timeline.segments_from(full.content.revision) {
        let (part, path) = (&segment.content.part, folder.path().join(format!("{}.seg", segment.sequence)));
        vault
            .fetch(part, identities, &path)
            .await
            .doing(|| format!("cannot fetch {}", fetched(&part.name)))?;
        segments.push(path);
    }
    let peer = url()?;
    let restored = restore(folder.path(), &file, &segments, &peer, output)?;
    let took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let own = restored.hash_kv;
    let hash_kv = HashKv { hash: own.hash, revision: own.revision, compact_revision: own.compact_revision };
    let booted = match etcd_in_path() {
        Some(etcd) => Some(boot(&etcd, &folder.path().join("etcd"), &peer, hash_kv).await?),
        None => None,
    };
    let (full, segments) = (full.sequence, segments.len() as u64);
    Ok(Deep { full, segments, revision: restored.revision, hash_kv, booted, took_ms })
}

/// The newest full, and its timeline.
fn newest(history: &History) -> Option<(&Timeline, &Item<Full>)> {
    let full = history.newest_full()?;
    history.timelines.iter().find(|t| t.timeline.id == full.content.timeline.id).map(|t| (t, full))
}

fn restore(
    folder: &Path,
    file: &Path,
    segments: &[PathBuf],
    peer: &str,
    output: &Output,
) -> Result<RestoredDb, Failure> {
    let failed = || "the newest backup can't be restored".to_owned();
    let changes = Changes::open(segments, Point::Latest).doing(failed)?;
    let snapshot = SnapshotFile::open(file, TrailerPolicy::Required).doing(failed)?;
    let cluster = NewCluster::from_initial_cluster(&format!("trial={peer}"), "trial").doing(failed)?;
    let options = RestoreOptions {
        changes: (!segments.is_empty()).then_some(&changes),
        // a trial looks at the data; what an alarm means is for a recovery to decide
        allow_corrupt_alarm: true,
        ..RestoreOptions::default()
    };
    let target = Target { name: "trial".into(), data_dir: folder.join("etcd"), wal_dir: None };
    let mut progress = bar(output, "restoring");
    restore_members(&snapshot, Form::Exact, &cluster, &options, &[target], &mut progress).doing(failed)
}

fn etcd_in_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("etcd")).find(|file| file.is_file())
}

/// An address on loopback that is free now.
fn url() -> Result<String, Failure> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    Ok(format!("http://127.0.0.1:{}", port.doing(|| "no free port on loopback".into())?.port()))
}

/// Ends with its guard.
struct Booted(Child);

impl Drop for Booted {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots an etcd on a restored data dir and compares its HashKV; its version.
async fn boot(etcd: &Path, data_dir: &Path, peer: &str, expected: HashKv) -> Result<String, Failure> {
    let (client, failed) = (url()?, || format!("{} does not boot from the restored store", etcd.display()));
    let mut process = Booted(
        Command::new(etcd)
            .args(["--name", "trial", "--log-level", "error", "--data-dir"])
            .arg(data_dir)
            .args(["--initial-cluster", &format!("trial={peer}"), "--initial-advertise-peer-urls", peer])
            .args([
                "--listen-peer-urls",
                peer,
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .doing(failed)?,
    );
    let endpoint = EtcdEndpoint { url: client, cacert: None, cert: None, key: None };
    let (host, start) = (connect::local("/".into()), Instant::now());
    let version = loop {
        match host.etcd_status(&endpoint).await {
            Ok(status) => break status.version,
            Err(error) => {
                let ended = process.0.try_wait().doing(failed)?;
                if ended.is_some() || start.elapsed() > BOOT_PATIENCE {
                    return Err(Failure::new(failed()).because(error));
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let answer = host.etcd_hash_kv(&endpoint, expected.revision).await.doing(failed)?;
    if answer.hash != expected.hash {
        return Err(Failure::new(format!(
            "etcd {version} booted from the restored store answers HashKV {} at revision {}, expected {}",
            answer.hash, answer.revision, expected.hash
        )));
    }
    Ok(version)
}
