//! New members of a new cluster from a snapshot: the database is written once, each member gets it with a log of
//! its own.
//!
//! - `cluster.rs`: who the members will be, and their ids.
//! - `db.rs`: the new database, in one of three [`Form`]s; `exact.rs`: the one that is copied; `rows.rs`: the others' rows.
//! - `snapshot.rs`: no member, but the snapshot of a point in time.
//! - `tail.rs`: the changes replayed behind the snapshot's rows, and what proves them.
//! - `member.rs`: a member's folder around it: `member/snap/{db,*.snap}`, `member/wal`.
//!
//! A founding cluster has voters only; a learner is added to the running cluster afterwards. The members of the
//! snapshot's own cluster, learners or not, are left behind, as etcdutl does.

pub(crate) mod cluster;
mod db;
mod exact;
mod member;
mod rows;
mod snapshot;
mod tail;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use cluster::{NewCluster, NewMember};
pub use db::write_db;
pub use member::{DbFrom, write_member};
pub use snapshot::write_snapshot;

use crate::changes::Changes;
use crate::error::{Error, Result};
use crate::facts::Alarm;
use crate::hashkv::HashKv;
use crate::segment::HashSample;
use crate::snapshot::{GroupFn, SnapshotFile};

/// What becomes of the rows and the revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Every row kept, the revision as it was.
    Exact,
    /// As `etcdutl --bump-revision N --mark-compacted`: every row kept, one more at the raised revision, which etcd
    /// compacts to after its start.
    StockBump {
        /// Added to the newest row's revision.
        bump_revision: u64,
    },
    /// [`Form::Bumped`] to the newest revision plus this: what `etcdutl --bump-revision N --mark-compacted` comes to
    /// once etcd has compacted.
    BumpedBy {
        /// Added to the store's revision.
        revisions: u64,
    },
    /// What etcd has left after such a compaction: the newest row of each live key, the store's revision raised and
    /// everything older answered with `compacted`. Defragmented; nothing to compact after the start.
    Bumped {
        /// The store's new revision, above all that any client has seen.
        to_revision: i64,
    },
}

/// What a restore takes care of beside the rows.
#[derive(Clone, Copy, Default)]
pub struct RestoreOptions<'a> {
    /// The members' `--quota-backend-bytes`; `None` is etcd's default of 2 GiB, looked at only for a NOSPACE alarm.
    pub quota_bytes: Option<u64>,
    /// Restore although the source has a CORRUPT alarm, and clear it.
    pub allow_corrupt_alarm: bool,
    /// Counts live keys by group.
    pub group: Option<GroupFn<'a>>,
    /// Replayed behind the snapshot, up to their point in time.
    pub changes: Option<&'a Changes>,
    /// Restore although a member answered another HashKV for the replayed rows.
    pub allow_disproved: bool,
}

/// The point in time that was reached by replaying changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The snapshot's revision.
    pub from_revision: i64,
    /// The revision restored.
    pub revision: i64,
    /// When it was received, ms since the Unix epoch; `None` if it is the snapshot's.
    pub received_ms: Option<i64>,
    /// When the revision behind it was received: the state restored was surely over by then.
    pub next_received_ms: Option<i64>,
    /// Rows replayed.
    pub rows_added: u64,
    /// The member's answer that equals the HashKV of the rows; `None`: there is none at or behind the point, so nothing
    /// but the snapshot is proved.
    pub proof: Option<HashSample>,
    /// The member's answer that does not; only with [`RestoreOptions::allow_disproved`].
    pub disproof: Option<HashSample>,
    /// Leases made that the snapshot did not have.
    pub leases_added: u64,
    /// Those among them of which no TTL is known; they have 60 s.
    pub short_leases: Vec<i64>,
}

/// A database that was written, and what an etcd booted from it must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredDb {
    /// Its size.
    pub bytes: u64,
    /// The source's trailer was there and fitted.
    pub sha256_checked: bool,
    /// The store's revision.
    pub revision: i64,
    /// The store's compact revision; -1: never compacted.
    pub compact_revision: i64,
    /// HashKV of every member.
    pub hash_kv: HashKv,
    /// Rows written, tombstones included.
    pub rows: u64,
    /// Live keys; the empty key of a raised revision counts.
    pub live_keys: u64,
    /// Live keys by group; empty without [`RestoreOptions::group`].
    pub groups: BTreeMap<String, u64>,
    /// Alarms of the source that the new database does not have.
    pub cleared_alarms: Vec<Alarm>,
    /// What replaying came to; `None` without [`RestoreOptions::changes`].
    pub reached: Option<Reached>,
}

/// Where a member of this machine goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The member's name in the [`NewCluster`].
    pub name: String,
    /// etcd's `--data-dir`: missing or empty.
    pub data_dir: PathBuf,
    /// etcd's `--wal-dir`, if it has one: missing or empty.
    pub wal_dir: Option<PathBuf>,
}

/// Restores members on this machine: the database is written once, into the first target, and copied to the others.
///
/// # Errors
/// As [`write_db`] and [`write_member`]. What was begun is left where it is, except for a database that does not
/// verify.
pub fn restore_members(
    source: &SnapshotFile,
    form: Form,
    cluster: &NewCluster,
    options: &RestoreOptions<'_>,
    targets: &[Target],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RestoredDb> {
    for target in targets {
        member::refuse_occupied(&target.data_dir, target.wal_dir.as_deref())?;
        member::id_of(cluster, &target.name)?;
    }
    let Some((first, others)) = targets.split_first() else {
        return Err(Error::Cluster("no member is to be restored".into()));
    };
    crate::files::create_private_dirs(&first.data_dir)?;
    let new_db = first.data_dir.join(".rekindle-db.tmp");
    remove_leftover(&new_db)?;
    let restored = write_db(source, form, cluster, options, &new_db, progress)?;
    for target in others {
        write_member(
            &target.data_dir,
            target.wal_dir.as_deref(),
            DbFrom::Copy(&new_db),
            &target.name,
            cluster,
        )?;
    }
    write_member(&first.data_dir, first.wal_dir.as_deref(), DbFrom::Move(&new_db), &first.name, cluster)?;
    Ok(restored)
}

/// What a restore that was killed has left under this name.
fn remove_leftover(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { path: path.to_owned(), action: "remove what a killed restore left", source: e })
        }
        _ => Ok(()),
    }
}
