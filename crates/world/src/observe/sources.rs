//! Every candidate to restore from: what the members themselves hold, and snapshot files.

use super::ask::{LONG, QUICK, within};
use super::identity;
use crate::World;
use crate::host::{FileKind, Host};
use rekindle_model::etcd::{DbFacts, EtcdLive};
use rekindle_model::host::{Component, HostFacts};
use rekindle_model::source::{Identity, SourceCandidate, SourceKind, VaultPoint};
use rekindle_model::{HostPath, Seen};

/// Most files of a folder that are listed.
const MAX_FILES: usize = 200;

/// All candidates: members first, then files, newest first.
pub(super) async fn find(
    world: &World,
    facts: &[HostFacts],
    snapshot: Option<&HostPath>,
    point: Option<&(HostPath, VaultPoint)>,
    taken_ms: i64,
) -> Vec<SourceCandidate> {
    let mut sources = Vec::new();
    for host in facts {
        sources.extend(of_member(world, host, taken_ms).await);
    }
    if let Some(path) = snapshot {
        sources.extend(files(world.local.as_ref(), path, facts).await);
    }
    if let Some((path, point)) = point {
        sources.extend(files(world.local.as_ref(), path, facts).await.into_iter().map(|file| {
            SourceCandidate {
                // its file was made just now
                taken_ms: Seen::Known(point.current_ms),
                point: Some(point.clone()),
                ..file
            }
        }));
    }
    identity::compare(&mut sources, facts);
    sources
}

fn candidate(kind: SourceKind, facts: Seen<DbFacts>, taken_ms: Seen<i64>) -> SourceCandidate {
    SourceCandidate {
        kind,
        facts,
        taken_ms,
        sha256: None,
        copied_db: false,
        identity: Identity::Unknown("not compared".into()),
        point: None,
    }
}

/// What a member holds: what it serves, else its deleted but open db, else its store.
async fn of_member(world: &World, host: &HostFacts, taken_ms: i64) -> Option<SourceCandidate> {
    let live = host.etcd_live.known();
    if let Some(served) = live.and_then(served) {
        return Some(candidate(
            SourceKind::Served(host.id.clone()),
            Seen::Known(served),
            Seen::Known(taken_ms),
        ));
    }
    let process = host.process(Component::Etcd);
    let open =
        process.and_then(|p| Some((p, p.deleted_files.iter().find(|f| f.path.ends_with("member/snap/db"))?)));
    if let Some((process, file)) = open {
        let path = HostPath::from(format!("/proc/{}/fd/{}", process.pid, file.fd));
        let facts = match world.host(&host.id) {
            Some(asked) => inspect(asked.as_ref(), &path, false).await.map(|(facts, _)| facts),
            None => Err("the host is not known".into()),
        };
        let kind = SourceKind::OpenDb(host.id.clone());
        return Some(candidate(kind, seen(facts), Seen::Known(taken_ms)));
    }
    if let (Some(_), Some(config)) = (process, host.etcd_config.known()) {
        return in_use(world, host, &config.data_dir).await;
    }
    let data = host.etcd_data.known().filter(|d| d.has_member)?;
    let facts = match data.db.known() {
        // What an etcd that never got anywhere leaves behind is no source.
        Some(db) if db.live_keys == 0 && db.revision <= 1 => return None,
        Some(db) => Seen::Known(db.clone()),
        None => Seen::Unknown(data.db.why_unknown().unwrap_or_default().to_owned()),
    };
    // etcd commits ten times a second while anything is written, and leases are renewed all the time.
    let when = match (world.host(&host.id), host.etcd_config.known()) {
        (Some(asked), Some(config)) => {
            modified(asked.as_ref(), &config.data_dir.join("member/snap/db")).await
        }
        _ => Seen::Unknown("where its data lies is not known".into()),
    };
    Some(candidate(SourceKind::Store(host.id.clone()), facts, when))
}

/// The store of an etcd that runs and does not answer: without a quorum it applies nothing, so its db holds still and
/// can be read as it lies. What does not verify is no source.
async fn in_use(world: &World, host: &HostFacts, data_dir: &HostPath) -> Option<SourceCandidate> {
    let path = data_dir.join("member/snap/db");
    host.etcd_data.known().filter(|d| d.has_member && d.damage.is_empty())?;
    let asked = world.host(&host.id)?;
    let facts = inspect(asked.as_ref(), &path, false).await.map(|(facts, _)| facts);
    if facts.as_ref().is_ok_and(|db| db.live_keys == 0 && db.revision <= 1) {
        return None;
    }
    let when = modified(asked.as_ref(), &path).await;
    Some(candidate(SourceKind::Store(host.id.clone()), seen(facts), when))
}

/// When a file was last written to.
async fn modified(host: &dyn Host, path: &HostPath) -> Seen<i64> {
    match within(host, QUICK, "stat", host.stat(path)).await {
        Ok(Some(stat)) => Seen::Known(stat.modified_ms),
        Ok(None) => Seen::Unknown(format!("{path}: does not exist")),
        Err(error) => Seen::Unknown(error.what),
    }
}

fn seen<T>(result: Result<T, String>) -> Seen<T> {
    match result {
        Ok(value) => Seen::Known(value),
        Err(why) => Seen::Unknown(why),
    }
}

fn served(live: &EtcdLive) -> Option<DbFacts> {
    let status = live.status.known()?;
    Some(DbFacts {
        size_bytes: u64::try_from(status.db_size_bytes).unwrap_or_default(),
        revision: status.revision,
        live_keys: live.live_keys.known().copied().unwrap_or_default(),
        consistent_index: status.raft_applied_index,
        term: status.raft_term,
        members: live.members.known().cloned().unwrap_or_default(),
        kube_system_uid: live.kube_system_uid.clone(),
        kube_system_created_s: live.kube_system_created_s,
        alarms: live.alarms.known().cloned().unwrap_or_default(),
        ..DbFacts::default()
    })
}

async fn inspect(host: &dyn Host, path: &HostPath, has_trailer: bool) -> Result<(DbFacts, String), String> {
    let asked = host.inspect_snapshot(path, has_trailer);
    within(host, LONG, &format!("verify {path}"), asked).await.map_err(|e| e.what)
}

/// A snapshot file, or those of a folder. Of a folder the newest are verified until one of this cluster does; the
/// older ones are listed.
async fn files(host: &dyn Host, path: &HostPath, facts: &[HostFacts]) -> Vec<SourceCandidate> {
    let kind = || SourceKind::SnapshotFile(path.clone());
    let unusable = |why: String| vec![candidate(kind(), Seen::Unknown(why.clone()), Seen::Unknown(why))];
    let stat = match within(host, QUICK, "stat", host.stat(path)).await {
        Ok(Some(stat)) => stat,
        Ok(None) => return unusable(format!("{path}: does not exist")),
        Err(error) => return unusable(error.what),
    };
    let list = match (stat.kind, within(host, QUICK, "list", host.list(path)).await) {
        (FileKind::File, _) => vec![(stat.modified_ms, stat.size_bytes, path.clone())],
        (_, Ok(names)) => dated(host, path, names).await,
        (_, Err(error)) => return unusable(error.what),
    };
    if list.is_empty() {
        return unusable(format!("{path}: no file in this folder"));
    }
    let mut found = Vec::new();
    let mut taken: Option<HostPath> = None;
    for (modified_ms, size_bytes, path) in list {
        let mut one =
            candidate(SourceKind::SnapshotFile(path.clone()), Seen::default(), Seen::Known(modified_ms));
        if let Some(newer) = &taken {
            one.facts = Seen::Unknown(format!("not verified: {newer} is newer and verified"));
        } else {
            one.copied_db = is_copied_db(size_bytes);
            let verified = inspect(host, &path, !one.copied_db).await;
            one.sha256 = verified.as_ref().ok().map(|(_, sha256)| sha256.clone());
            one.facts = seen(verified.map(|(facts, _)| facts));
            if one.facts.known().is_some() && !identity::of_another_ca(&one, facts) {
                taken = Some(path);
            }
        }
        found.push(one);
    }
    found
}

/// Whether a file of this size is a db as it lies in a data dir: whole sectors, without the 32 bytes of SHA-256 that a
/// snapshot ends with (told apart as in etcdutl, `etcdutl/snapshot/v3_snapshot.go`).
fn is_copied_db(size_bytes: u64) -> bool {
    size_bytes > 0 && size_bytes.is_multiple_of(512)
}

/// Files of a folder with their times and sizes, newest first.
async fn dated(host: &dyn Host, folder: &HostPath, names: Vec<String>) -> Vec<(i64, u64, HostPath)> {
    let mut found = Vec::new();
    for name in names.into_iter().filter(|n| !n.starts_with('.')).take(MAX_FILES) {
        let path = folder.join(&name);
        if let Ok(Some(stat)) = within(host, QUICK, "stat", host.stat(&path)).await
            && stat.kind == FileKind::File
        {
            found.push((stat.modified_ms, stat.size_bytes, path));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    found
}
