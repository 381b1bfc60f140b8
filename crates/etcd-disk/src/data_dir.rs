//! What is in a member's data dir, read without changing anything; every part on its own, none fails the others.
//!
//! ```text
//! data-dir/member/snap/db, data-dir/member/snap/*.snap, data-dir/member/wal/*.wal (or --wal-dir)
//! ```

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use boltfile::{BoltFile, LockState};

use crate::bucket;
use crate::facts::{Member, StoreFacts, read_facts};
use crate::ids::EtcdId;
use crate::rows::RowKey;
use crate::snapfile::{self, Snap};
use crate::wal::{self, WalFacts};

/// A part of a data dir: not there, read, or not readable and why (with all causes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen<T> {
    /// It does not exist.
    Absent,
    /// What was read.
    Read(T),
    /// Why it could not be read.
    Failed(String),
}

impl<T> Seen<T> {
    /// What was read, if it was.
    pub fn read(&self) -> Option<&T> {
        match self {
            Self::Read(value) => Some(value),
            _ => None,
        }
    }
}

/// A database file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbFacts {
    /// Its size.
    pub bytes: u64,
    /// A running etcd has it open: it changes, so nothing below was read.
    pub locked: bool,
    /// Violations of its structure, all of them counted, the first ones told.
    pub violations: u64,
    /// The first violations.
    pub first_violations: Vec<String>,
    /// The revision an etcd booted from it has.
    pub revision: Option<i64>,
    /// The compact revision; -1: never compacted.
    pub compact_revision: Option<i64>,
    /// Rows of its `key` bucket.
    pub rows: u64,
    /// What its small buckets say.
    pub store: Option<StoreFacts>,
    /// Why they could not be read, or a row that breaks etcd's format.
    pub fault: Option<String>,
}

impl DbFacts {
    /// It was read as a whole and nothing is wrong with it.
    pub fn is_sound(&self) -> bool {
        !self.locked && self.violations == 0 && self.fault.is_none() && self.store.is_some()
    }
}

/// Where the members were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MembersFrom {
    /// The database's `members` bucket.
    Database,
    /// The newest `.snap` file, when the database cannot be read; it may be older than the membership.
    SnapFile,
}

/// What is in a data dir.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDirFacts {
    /// The folder.
    pub data_dir: PathBuf,
    /// The folder exists.
    pub exists: bool,
    /// `member/snap/db`.
    pub db: Seen<DbFacts>,
    /// The write-ahead log.
    pub wal: Seen<WalFacts>,
    /// The `.snap` files with what they say, oldest first.
    pub snaps: Vec<(PathBuf, Seen<Snap>)>,
    /// The members, as far as the folder knows them.
    pub members: Vec<Member>,
    /// Where they were read; `None`: nowhere.
    pub members_from: Option<MembersFrom>,
    /// Whose folder it is (from the log).
    pub member_id: Option<EtcdId>,
    /// The cluster's id (from the log).
    pub cluster_id: Option<EtcdId>,
}

impl DataDirFacts {
    /// The member whose folder it is, if the folder names it.
    pub fn own_member(&self) -> Option<&Member> {
        self.members.iter().find(|member| Some(member.id) == self.member_id)
    }
}

/// Looks at everything in a data dir; `wal_dir` is etcd's `--wal-dir` where it has one. The database is checked as a
/// whole unless a running etcd has it open. Never fails as a whole.
pub fn inspect(data_dir: &Path, wal_dir: Option<&Path>) -> DataDirFacts {
    let snap_dir = data_dir.join("member/snap");
    let own_wal = data_dir.join("member/wal");
    let wal_dir = wal_dir.unwrap_or(&own_wal);
    let db = inspect_db(&snap_dir.join("db"));
    let wal = if wal_dir.exists() { seen(wal::facts(wal_dir)) } else { Seen::Absent };
    let snaps = snap_files(&snap_dir);
    let (members, members_from) = members(&db, &snaps);
    DataDirFacts {
        data_dir: data_dir.to_owned(),
        exists: data_dir.exists(),
        member_id: wal.read().and_then(|facts| facts.member_id),
        cluster_id: wal.read().and_then(|facts| facts.cluster_id),
        db,
        wal,
        snaps,
        members,
        members_from,
    }
}

fn seen<T>(result: crate::Result<T>) -> Seen<T> {
    match result {
        Ok(value) => Seen::Read(value),
        Err(error) => Seen::Failed(with_causes(&error)),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn inspect_db(path: &Path) -> Seen<DbFacts> {
    let bytes = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Seen::Absent,
        Err(e) => return Seen::Failed(format!("{}: {e}", path.display())),
    };
    let mut facts = DbFacts {
        bytes,
        locked: false,
        violations: 0,
        first_violations: Vec::new(),
        revision: None,
        compact_revision: None,
        rows: 0,
        store: None,
        fault: None,
    };
    match boltfile::lock_state(path) {
        Ok(LockState::HeldByAnother) => {
            facts.locked = true;
            return Seen::Read(facts);
        }
        Ok(LockState::Free) => {}
        Err(e) => return Seen::Failed(with_causes(&e)),
    }
    match BoltFile::open(path) {
        Ok(db) => {
            read_db(&db, path, &mut facts);
            Seen::Read(facts)
        }
        Err(e) => Seen::Failed(with_causes(&e)),
    }
}

fn read_db(db: &BoltFile, path: &Path, facts: &mut DbFacts) {
    let mut last_main = 0;
    let mut row_fault = None;
    let report = db.check_rows(&mut |name, key, _| {
        if name == bucket::KEY.as_bytes() {
            facts.rows += 1;
            match RowKey::parse(key) {
                Ok(row) => last_main = row.revision.main,
                Err(fault) => {
                    row_fault.get_or_insert(format!("row {}: {fault}", facts.rows));
                }
            }
        }
        ControlFlow::Continue(())
    });
    facts.violations = report.violations_total;
    facts.first_violations = report.violations.iter().take(10).map(ToString::to_string).collect();
    facts.fault = row_fault;
    match read_facts(db, path) {
        Ok(store) => {
            if facts.violations == 0 && facts.fault.is_none() {
                facts.revision = Some(store.revision(last_main));
                facts.compact_revision = Some(store.compact_revision());
            }
            facts.store = Some(store);
        }
        Err(e) => facts.fault = Some(with_causes(&e)),
    }
}

fn snap_files(snap_dir: &Path) -> Vec<(PathBuf, Seen<Snap>)> {
    let Ok(entries) = std::fs::read_dir(snap_dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "snap"))
        .collect();
    // the names are term and index in fixed-width hex
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), seen(snapfile::read(&path)))).collect()
}

fn members(db: &Seen<DbFacts>, snaps: &[(PathBuf, Seen<Snap>)]) -> (Vec<Member>, Option<MembersFrom>) {
    let store = db.read().and_then(|facts| facts.store.as_ref());
    let snap = snaps.iter().rev().find_map(|(_, snap)| snap.read());
    let in_db = store.map(|store| store.members.clone()).filter(|members| !members.is_empty());
    let in_snap = snap.map(|snap| snap.members.clone()).filter(|members| !members.is_empty());
    // The bucket follows each applied change of membership; a .snap is as old as the last raft snapshot. etcd 3.5
    // starts from the .snap and applies the log to it, which ends at what the bucket says.
    match (in_db, in_snap) {
        (Some(members), _) => (members, Some(MembersFrom::Database)),
        (None, Some(members)) => (members, Some(MembersFrom::SnapFile)),
        (None, None) => (Vec::new(), None),
    }
}
