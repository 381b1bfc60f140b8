//! etcd's files on this machine: the requests of the seam mapped onto `etcd-disk`, in one place.

use super::{durable, files, wal_facts};
use crate::fault::{Fault, Outcome};
use crate::host::{HostErrorKind, Reply};
use boltfile::{BoltFile, LockState};
use camino::{Utf8Path, Utf8PathBuf};
use etcd_disk::facts::{AlarmKind, StoreFacts};
use etcd_disk::restore::{DbFrom, NewCluster, NewMember as DiskMember};
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy, Verified, VerifyOptions};
use etcd_disk::{ids::EtcdId, live};
use kube_storage::keys::DEFAULT_PREFIX;
use rekindle_model::etcd::{DbFacts, EtcdDataFacts, EtcdMember};
use rekindle_model::seen::chain;
use rekindle_model::step::NewMember;
use rekindle_model::{MemberId, Seen};

/// Most lines of damage told of one data dir.
const MAX_DAMAGE: usize = 5;

fn fault(error: &etcd_disk::Error) -> Fault {
    let kind = match error {
        etcd_disk::Error::Refused { .. } => HostErrorKind::Refused,
        etcd_disk::Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            HostErrorKind::NotFound
        }
        _ => HostErrorKind::Failed,
    };
    Fault { kind, what: chain(error) }
}

/// Facts of an etcd data dir. Never fails as a whole. `deep` reads the whole db: structure, HashKV, keys.
pub(crate) fn inspect(data_dir: &Utf8Path, wal_dir: Option<&Utf8Path>, deep: bool) -> Outcome<Reply> {
    let found = files::stat(data_dir)?;
    let member = data_dir.join("member");
    let db = member.join("snap/db");
    let wal = wal_dir.map_or_else(|| member.join("wal"), Utf8Path::to_owned);
    let mut facts = EtcdDataFacts {
        exists: found.is_some(),
        is_mount_point: found.is_some_and(|f| f.is_mount_point),
        has_member: files::list(&member).is_ok_and(|names| !names.is_empty()),
        ..EtcdDataFacts::default()
    };
    for (path, what) in [(&db, "the db is missing"), (&wal, "the write-ahead log is missing")] {
        if facts.has_member && !path.exists() {
            facts.damage.push(format!("{path}: {what}"));
        }
    }
    look_at_db(&db, deep, &mut facts);
    facts.wal = match wal_facts::read(&wal) {
        Ok(found) => Seen::Known(found),
        Err(error) => {
            if is_damage(&error) {
                facts.damage.push(chain(&error));
            }
            Seen::Unknown(chain(&error))
        }
    };
    facts.damage.truncate(MAX_DAMAGE);
    Ok(Reply::EtcdData(Box::new(facts)))
}

/// Whether an error says that what was read is broken, and not that it could not be read.
fn is_damage(error: &etcd_disk::Error) -> bool {
    use etcd_disk::Error as E;
    !matches!(
        error,
        E::Io { .. } | E::Worker(_) | E::Refused { .. } | E::Bolt { source: boltfile::Error::Io { .. }, .. }
    )
}

/// Whether a process has a db open.
fn in_use(db: &Utf8Path) -> bool {
    matches!(boltfile::lock_state(db.as_std_path()), Ok(LockState::HeldByAnother))
}

fn look_at_db(path: &Utf8Path, deep: bool, facts: &mut EtcdDataFacts) {
    if !in_use(path) {
        let read = if deep { verified(path, TrailerPolicy::Skip).map(|(db, _)| db) } else { shallow(path) };
        match read {
            Ok(db) => {
                facts.db = Seen::Known(db);
                return;
            }
            // an etcd that started meanwhile wrote to what was being read: that is no damage
            Err(error) if is_damage(&error) && in_use(path) => {}
            Err(error) => {
                if is_damage(&error) {
                    facts.damage.push(chain(&error));
                }
                facts.db = Seen::Unknown(chain(&error));
                return;
            }
        }
    }
    facts.locked = true;
    facts.db = Seen::Unknown(format!("{path}: a running etcd has it open and changes it"));
    if deep {
        facts.damage.extend(damage_in_use(path));
    }
}

/// The small buckets alone.
fn shallow(path: &Utf8Path) -> etcd_disk::Result<DbFacts> {
    let file = SnapshotFile::open(path.as_std_path(), TrailerPolicy::Skip)?;
    let store = etcd_disk::facts::read_facts(file.bolt(), path.as_std_path())?;
    Ok(DbFacts { size_bytes: file.db_bytes(), ..of_store(&store) })
}

/// Damage of a db that an etcd has open. It changes while it is read, and a page may be met half written; what three
/// passes all find, at the same page, is no such accident.
fn damage_in_use(path: &Utf8Path) -> Vec<String> {
    let mut found: Option<Vec<String>> = None;
    for pass in 0..3 {
        if pass > 0 {
            // Longer than etcd's interval between two commits (100 ms).
            std::thread::sleep(std::time::Duration::from_millis(150));
        }
        let now: Vec<String> = match BoltFile::open(path.as_std_path()) {
            Ok(db) => db.check().violations.iter().map(|v| format!("{path}: {v}")).collect(),
            Err(boltfile::Error::Io { .. }) => return Vec::new(),
            Err(error) => vec![chain(&error)],
        };
        let kept: Vec<String> = match found {
            None => now,
            Some(before) => before.into_iter().filter(|v| now.contains(v)).collect(),
        };
        if kept.is_empty() {
            return kept;
        }
        found = Some(kept);
    }
    found.unwrap_or_default()
}

pub(super) fn id(id: EtcdId) -> MemberId {
    MemberId(id.0)
}

fn of_store(store: &StoreFacts) -> DbFacts {
    let member = |m: &etcd_disk::facts::Member| EtcdMember {
        id: id(m.id),
        name: m.name.clone(),
        peer_urls: m.peer_urls.clone(),
        client_urls: m.client_urls.clone(),
        is_learner: m.is_learner,
    };
    let alarm = |kind: &AlarmKind| match kind {
        AlarmKind::NoSpace => "NOSPACE".to_owned(),
        AlarmKind::Corrupt => "CORRUPT".to_owned(),
        AlarmKind::Other(number) => format!("alarm {number}"),
    };
    DbFacts {
        revision: store.revision(0),
        compact_revision: store.compact_revision(),
        consistent_index: store.consistent_index.unwrap_or_default(),
        term: store.term.unwrap_or_default(),
        members: store.members.iter().map(member).collect(),
        cluster_version: store.cluster_version.clone().unwrap_or_default(),
        storage_version: store.storage_version.clone().unwrap_or_default(),
        alarms: store.alarms.iter().map(|a| alarm(&a.kind)).collect(),
        leases: store.leases,
        ..DbFacts::default()
    }
}

/// Verifies a whole db file: facts, and the SHA-256 (hex) of its db bytes.
fn verified(path: &Utf8Path, policy: TrailerPolicy) -> etcd_disk::Result<(DbFacts, String)> {
    let file = SnapshotFile::open(path.as_std_path(), policy)?;
    let options = VerifyOptions { group: Some(&resource), ..VerifyOptions::default() };
    // Whose data it is needs the newest rows of two keys, found by a pass of its own: beside the verification it
    // costs little.
    let (verified, identity) = std::thread::scope(|scope| {
        let identity = scope.spawn(|| whose(&file, path));
        let verified = file.verify(&options, &mut |_, _| {});
        let ended = |_| Whose::unread("the reading thread ended early");
        (verified, identity.join().unwrap_or_else(ended))
    });
    let Verified { sha256, db_bytes, live_keys, revision, compact_revision, hash_kv, groups, facts, .. } =
        verified?;
    let facts = DbFacts {
        size_bytes: db_bytes,
        revision,
        compact_revision,
        live_keys,
        keys_by_resource: groups,
        hash_kv: hash_kv.hash,
        kube_system_uid: identity.uid,
        kube_system_created_s: identity.created_s,
        ca_sha256: identity.ca_sha256,
        ..of_store(&facts)
    };
    Ok((facts, sha256))
}

/// The resource a key is counted under.
fn resource(key: &[u8]) -> &str {
    kube_storage::resource_of(key, DEFAULT_PREFIX)
}

/// Where the cluster CA is stored: controller-manager puts it into every namespace, and the API server, earlier in a
/// cluster's life, tells its client CA (the same one, where kubeadm made it).
const CA_CONFIG_MAPS: [&str; 2] = ["kube-root-ca.crt", "extension-apiserver-authentication"];

/// Whose data a store is.
struct Whose {
    /// UID of `kube-system`.
    uid: Seen<String>,
    /// When that was created, seconds since the Unix epoch.
    created_s: Option<i64>,
    /// Fingerprint of the cluster CA.
    ca_sha256: Seen<String>,
}

impl Whose {
    fn unread(why: &str) -> Self {
        Self { uid: Seen::Unknown(why.into()), created_s: None, ca_sha256: Seen::Unknown(why.into()) }
    }
}

fn whose(file: &SnapshotFile, path: &Utf8Path) -> Whose {
    let namespace = kube_storage::kube_system_key(DEFAULT_PREFIX);
    let config_maps = CA_CONFIG_MAPS.map(|name| format!("{DEFAULT_PREFIX}/configmaps/kube-system/{name}"));
    let keys: Vec<&[u8]> = [&namespace].into_iter().chain(&config_maps).map(|key| key.as_bytes()).collect();
    let found = match live::get_many(file.bolt(), path.as_std_path(), &keys) {
        Ok(found) => found,
        Err(error) => return Whose::unread(&chain(&error)),
    };
    let mut found = found.into_iter();
    let (uid, created_s) = match found.next().flatten() {
        Some(kv) => (
            Seen::from_result(kube_storage::namespace_uid(&kv.value)),
            kube_storage::namespace_created_s(&kv.value),
        ),
        None => (Seen::Unknown(format!("{path}: holds no {namespace}")), None),
    };
    let ca = found.flatten().find_map(|kv| crate::ca::sha256_of_first(&kv.value));
    let unread =
        || Seen::Unknown(format!("{path}: no certificate can be read in {}", config_maps.join(" or ")));
    Whose { uid, created_s, ca_sha256: ca.map_or_else(unread, Seen::Known) }
}

/// Facts of a file with a db: a snapshot (with trailer) or a copied db.
pub(crate) fn inspect_snapshot(path: &Utf8Path, has_trailer: bool) -> Outcome<Reply> {
    let policy = if has_trailer { TrailerPolicy::Required } else { TrailerPolicy::Skip };
    let (facts, sha256) = verified(path, policy).map_err(|e| fault(&e))?;
    Ok(Reply::Db(Box::new(facts), sha256))
}

/// Replays a stopped member's db and WAL into one new db file, which is verified before it gets its name.
pub(crate) fn replay(data_dir: &Utf8Path, wal_dir: Option<&Utf8Path>, to: &Utf8Path) -> Outcome<Reply> {
    let db = data_dir.join("member/snap/db");
    let wal = wal_dir.map_or_else(|| data_dir.join("member/wal"), Utf8Path::to_owned);
    let part = Utf8PathBuf::from(format!("{to}.part"));
    // What a broken-off attempt left: the file must be a new one.
    drop(durable::create(&part, durable::PRIVATE_FILE)?);
    std::fs::remove_file(&part).map_err(|e| Fault::io(format!("remove {part}"), &e))?;
    let copies = copies_if_in_use(&db, &wal, to)?;
    let (db, wal) = copies.as_ref().map_or((&db, &wal), |copies| (&copies.db, &copies.wal));
    let replayed = etcd_disk::replay::replay(db.as_std_path(), wal.as_std_path(), part.as_std_path());
    if let Some(copies) = &copies {
        durable::remove_own_tree(&copies.dir)?;
    }
    replayed.map_err(|e| fault(&e))?;
    let (facts, sha256) = verified(&part, TrailerPolicy::Skip).map_err(|e| fault(&e))?;
    // not synced: it is fetched and verified next, and made anew by a run that was cut off
    std::fs::rename(&part, to).map_err(|e| Fault::io(format!("rename {part} to {to}"), &e))?;
    Ok(Reply::Db(Box::new(facts), sha256))
}

/// Copies of a store that a running etcd has open.
struct Copies {
    dir: Utf8PathBuf,
    db: Utf8PathBuf,
    wal: Utf8PathBuf,
}

/// Copies a store that a running etcd has open, beside `to`: one without a quorum applies nothing, so its files hold
/// still, and what was copied in a bad moment does not verify.
fn copies_if_in_use(db: &Utf8Path, wal: &Utf8Path, to: &Utf8Path) -> Outcome<Option<Copies>> {
    if !in_use(db) {
        return Ok(None);
    }
    let beside = to.parent().unwrap_or(Utf8Path::new("/"));
    let dir = beside.join("rekindle-copy");
    let copies = Copies { db: dir.join("db"), wal: dir.join("wal"), dir };
    if copies.dir.exists() {
        durable::remove_own_tree(&copies.dir)?;
    }
    let copy = |from: &Utf8Path, to: &Utf8Path| {
        std::fs::copy(from, to).map(|_| ()).map_err(|e| Fault::io(format!("copy {from} to {to}"), &e))
    };
    std::fs::create_dir_all(&copies.wal).map_err(|e| Fault::io(format!("make {}", copies.wal), &e))?;
    copy(db, &copies.db)?;
    for name in files::list(wal)?.iter().filter(|name| name.ends_with(".wal")) {
        copy(&wal.join(name), &copies.wal.join(name))?;
    }
    Ok(Some(copies))
}

/// What `WriteMember` asks for, paths resolved.
pub(crate) struct Member {
    /// The restored db, on this machine.
    pub(crate) db: Utf8PathBuf,
    /// All members of the new cluster.
    pub(crate) members: Vec<NewMember>,
    /// This one's name.
    pub(crate) name: String,
    /// The cluster's token.
    pub(crate) token: String,
    /// Folder that will hold `member/`.
    pub(crate) staging: Utf8PathBuf,
    /// Folder for the WAL when it lies elsewhere.
    pub(crate) wal_staging: Option<Utf8PathBuf>,
}

/// Writes `member/` of a new member. Done already is success; a broken-off attempt is begun anew. The db is moved in
/// when it lies beside the staging folder (it was brought there for this), else copied.
pub(crate) fn write_member(member: &Member) -> Outcome<()> {
    let wal = member.wal_staging.clone().unwrap_or_else(|| member.staging.join("member/wal"));
    let placed = member.staging.join("member/snap/db");
    // The WAL comes last and by a rename: where it is, the member is whole.
    if wal.exists() && placed.exists() {
        return Ok(());
    }
    if !member.db.exists() && placed.exists() {
        durable::rename_new(&placed, &member.db)?;
    }
    if member.staging.join("member").exists() {
        durable::remove_own_tree(&member.staging.join("member"))?;
    }
    let members = member.members.iter();
    let members =
        members.map(|m| DiskMember { name: m.name.clone(), peer_urls: m.peer_urls.clone() }).collect();
    let cluster = NewCluster::new(&member.token, members).map_err(|e| fault(&e))?;
    let beside = member.db.parent().is_some() && member.db.parent() == member.staging.parent();
    let db = member.db.as_std_path();
    let db = if beside { DbFrom::Move(db) } else { DbFrom::Copy(db) };
    let wal_staging = member.wal_staging.as_deref().map(Utf8Path::as_std_path);
    etcd_disk::restore::write_member(member.staging.as_std_path(), wal_staging, db, &member.name, &cluster)
        .map_err(|e| fault(&e))
}
