//! What the cluster's store must at least be: the best that any disk, source or earlier run holds. A member that
//! answers with far less, and another `kube-system` or next to nothing, is an imposter.

use crate::report::seen_at;
use rekindle_model::HostId;
use rekindle_model::etcd::DbFacts;
use rekindle_model::finding::Evidence;
use rekindle_model::host::HostFacts;
use rekindle_model::inventory::Inventory;
use rekindle_model::source::{Identity, SourceKind};

/// A store with so few keys holds what an API server writes into an empty one, and little else.
const FEW_KEYS: u64 = 100;

/// A store somewhere.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) revision: i64,
    /// Live keys, where they were counted.
    pub(crate) live_keys: Option<u64>,
    /// UID of `kube-system`, where it was read.
    pub(crate) uid: Option<String>,
    /// When that was created, seconds since the Unix epoch, where it was read.
    created_s: Option<i64>,
    pub(crate) evidence: Evidence,
}

/// This host's own store: as the member answers, else as it lies on the disk.
pub(crate) fn own(host: &HostFacts) -> Option<Store> {
    let (Some(mut live), disk) = (live(host), on_disk(host)) else { return on_disk(host) };
    // A member without quorum may answer its status and nothing else; its disk still tells whose store it is.
    if let Some(disk) = disk.filter(|disk| live.uid.is_none() && disk.uid.is_some()) {
        live.evidence.text = format!("{}; on disk: {}", live.evidence.text, disk.evidence.text);
        (live.uid, live.created_s) = (disk.uid, disk.created_s);
        live.live_keys = live.live_keys.or(disk.live_keys);
    }
    Some(live)
}

fn live(host: &HostFacts) -> Option<Store> {
    let live = host.etcd_live.known()?;
    let revision = live.status.known()?.revision;
    let keys = live.live_keys.known().copied();
    let uid = live.kube_system_uid.known().filter(|uid| !uid.is_empty()).cloned();
    Some(store(&host.id, "etcd status", revision, keys, uid, live.kube_system_created_s))
}

fn on_disk(host: &HostFacts) -> Option<Store> {
    let db = host.etcd_data.known()?.db.known()?;
    let uid = db.kube_system_uid.known().filter(|uid| !uid.is_empty()).cloned();
    let path = host
        .etcd_config
        .known()
        .map_or_else(|| "etcd db".into(), |c| c.data_dir.join("member/snap/db").to_string());
    let keys = rows_read(db).then_some(db.live_keys);
    Some(store(&host.id, &path, db.revision, keys, uid, db.kube_system_created_s))
}

/// Whether the rows were read: without them the keys are not counted, and the revision is a lower bound.
pub(super) fn rows_read(db: &DbFacts) -> bool {
    db.hash_kv != 0 || db.live_keys > 0
}

fn store(
    host: &HostId,
    source: &str,
    revision: i64,
    live_keys: Option<u64>,
    uid: Option<String>,
    created_s: Option<i64>,
) -> Store {
    let keys = live_keys.map_or_else(String::new, |keys| format!(", {keys} live keys"));
    let of = uid
        .as_ref()
        .map_or_else(|| ", kube-system UID not known".into(), |uid| format!(", kube-system UID {uid}"));
    let since = created_s
        .and_then(|s| jiff::Timestamp::from_second(s).ok())
        .map_or_else(String::new, |time| format!(" created {time}"));
    let evidence = seen_at(host, source, format!("revision {revision}{keys}{of}{since}"));
    Store { revision, live_keys, uid, created_s, evidence }
}

/// Everything that tells what the cluster's store was, other than this host's own member.
fn others(inventory: &Inventory, host: &HostFacts) -> Vec<Store> {
    let mut stores: Vec<Store> =
        inventory.hosts.iter().filter(|other| other.id != host.id).filter_map(own).collect();
    let files = inventory.sources.iter().filter_map(|source| {
        let SourceKind::SnapshotFile(path) = &source.kind else { return None };
        let facts = source.facts.known()?;
        let uid = facts.kube_system_uid.known().filter(|uid| !uid.is_empty()).cloned();
        // a snapshot of another cluster says nothing of this one, whatever its revision
        let counts = !matches!(source.identity, Identity::Other(_))
            || uid.is_some() && stores.iter().any(|store| store.uid == uid);
        let path = path.to_string();
        let created_s = facts.kube_system_created_s;
        counts.then(|| store(&HostId::local(), &path, facts.revision, Some(facts.live_keys), uid, created_s))
    });
    let files: Vec<Store> = files.collect();
    stores.extend(files);
    // What a process holds open is no file of a stopped member, but it was read as a source.
    let in_use = inventory.sources.iter().filter_map(|source| {
        let (SourceKind::Store(id) | SourceKind::OpenDb(id)) = &source.kind else { return None };
        let facts = source.facts.known().filter(|_| *id != host.id)?;
        let uid = facts.kube_system_uid.known().filter(|uid| !uid.is_empty()).cloned();
        let created_s = facts.kube_system_created_s;
        Some(store(id, &source.kind.to_string(), facts.revision, Some(facts.live_keys), uid, created_s))
    });
    // Last what names its file best: of equals the last one is quoted.
    let mut stores: Vec<Store> = in_use.chain(stores).collect();
    stores.extend(inventory.earlier_runs.iter().map(|run| Store {
        revision: run.last_revision.max(run.raised_to_revision),
        live_keys: None,
        uid: None,
        created_s: None,
        evidence: Evidence {
            source: format!("run {}", run.id),
            text: format!(
                "raised the revision to {} and saw {} at its end",
                run.raised_to_revision, run.last_revision
            ),
        },
    }));
    stores
}

/// Evidence that this host's store is an empty or foreign one in the cluster's place: itself, and what it falls short
/// of. The reference is the highest revision that anything else holds.
pub(crate) fn imposter(inventory: &Inventory, host: &HostFacts) -> Option<Vec<Evidence>> {
    let own = own(host)?;
    let reference = others(inventory, host)
        .into_iter()
        .filter(|other| falls_short(&own, other))
        .max_by_key(|other| (other.revision, other.live_keys))?;
    Some(vec![own.evidence, reference.evidence])
}

fn falls_short(own: &Store, other: &Store) -> bool {
    let far_below = own.revision.saturating_mul(2) < other.revision;
    let few = own.live_keys.is_some_and(|keys| keys <= FEW_KEYS);
    let emptier = match (own.live_keys, other.live_keys) {
        (Some(own), Some(other)) => own.saturating_mul(10) < other,
        (Some(_), None) => few,
        (None, _) => false,
    };
    let same = match (&own.uid, &other.uid) {
        (Some(own), Some(other)) => Some(own == other),
        _ => None,
    };
    // On one cluster's hosts the younger `kube-system` is that of a cluster which began anew, however much it holds.
    let younger = matches!((own.created_s, other.created_s), (Some(own), Some(other)) if own > other);
    match same {
        Some(false) if younger => true,
        // the same kube-system: it lags, or was restored from an old snapshot; that is another matter
        Some(true) => false,
        Some(false) => far_below && (few || emptier),
        None => far_below && emptier,
    }
}

/// The run that restored the cluster that `other` is of to above everything `host`'s store has: that one is of the cluster
/// as it was before.
pub(crate) fn left_behind(inventory: &Inventory, host: &HostFacts, other: &HostFacts) -> Option<Evidence> {
    let (own, other) = (live(host)?, live(other)?);
    let between = |raised: i64| own.revision < raised && raised <= other.revision;
    let run = inventory.earlier_runs.iter().find(|run| between(run.raised_to_revision))?;
    let text = format!(
        "restored the cluster at revision {}; {} is at {}, {} at {}",
        run.raised_to_revision, other.evidence.source, other.revision, own.evidence.source, own.revision
    );
    Some(Evidence { source: format!("run {}", run.id), text })
}

/// The highest revision an earlier run saw, when this host's store of the same cluster is below it.
pub(crate) fn went_backwards(inventory: &Inventory, host: &HostFacts) -> Option<(Evidence, Evidence)> {
    let own = live(host)?;
    let run = inventory.earlier_runs.iter().max_by_key(|run| run.last_revision)?;
    let text = format!("saw revision {} at its end", run.last_revision);
    (own.revision < run.last_revision)
        .then(|| (own.evidence, Evidence { source: format!("run {}", run.id), text }))
}
