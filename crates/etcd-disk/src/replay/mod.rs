//! A stopped member's own store: its database, and the log entries past it, applied as etcd applies them at its start.
//!
//! etcd commits its database now and then (every 100 ms or 10,000 changes), the log at every write. So the database
//! of a member that was killed lacks the newest writes, and the log has them. [`replay`] writes a new database with
//! them; the member's files are only read.
//!
//! Which entries count: those up to the commit index in the log's last hard state. That index trails: an entry is
//! written together with the commit index *before* it. In a cluster of one voter every entry in the log is
//! committed, and all are applied; else those behind the commit index are not, and are counted.
//!
//! - `tail.rs`: the entries past the database.
//! - `store.rs`: the state they change. `apply.rs`: what each request does to it.
//!
//! Membership in the database is left as it is: what becomes of the store is a new cluster.
//! Source: etcd `server/etcdserver/{server.go,apply,txn}`, `server/storage/mvcc`, `server/lease`.

mod apply;
mod store;
mod tail;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use boltfile::{BoltFile, Writer};

use crate::bucket;
use crate::copy::copy_bucket;
use crate::error::{Error, Result};
use crate::facts::{AlarmKind, StoreFacts, read_facts};
use crate::files;
use crate::hashkv::HashKv;
use crate::rows::{Revision, row_key};
use crate::scan::RowScan;
use crate::snapshot::hex;
use store::Store;
use tail::Tail;

const PAGE_BYTES: u32 = 4096;

/// Why the applied entries count as committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommittedBy {
    /// The commit index of the log's last hard state.
    HardState,
    /// The member is its cluster's only voter: what is in its log is committed.
    SoleVoter,
}

/// A store that was brought up to its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Raft index up to which the database had been applied.
    pub from_index: u64,
    /// Raft index of the last entry applied.
    pub to_index: u64,
    /// Why no more were.
    pub committed_by: CommittedBy,
    /// Entries in the log that may never have been acknowledged, and were left out.
    pub uncommitted: u64,
    /// Membership changes among the applied entries; they are not carried out.
    pub conf_changes: u64,
    /// Requests that changed rows.
    pub changes: u64,
    /// Rows added to those of the database.
    pub rows_added: u64,
    /// Live keys.
    pub live_keys: u64,
    /// The store's revision.
    pub revision: i64,
    /// The store's compact revision; -1: never compacted.
    pub compact_revision: i64,
    /// HashKV.
    pub hash_kv: HashKv,
}

/// Applies the log in `wal_dir` to the database `db` of the same, stopped member, into the new database `out`, which
/// must not exist; not synced: it is made to be read at once. Memory: the live keys and the entries past the database.
///
/// # Errors
/// [`Error::Refused`]: the database is in use, has authentication on or a CORRUPT alarm. [`Error::Replay`]: the log
/// does not follow on the database, or has a request that is not applied natively (changes of users and roles).
/// [`Error::Wal`], [`Error::Bolt`], [`Error::Row`], [`Error::Io`] as elsewhere. `out` is removed on any of them.
pub fn replay(db: &Path, wal_dir: &Path, out: &Path) -> Result<Replayed> {
    let refused = |reason: &str| Err(Error::Refused { path: db.to_owned(), reason: reason.to_owned() });
    let bolt = |source| Error::Bolt { path: db.to_owned(), source };
    if boltfile::lock_state(db).map_err(bolt)? == boltfile::LockState::HeldByAnother {
        return refused("a running etcd has it open; take a snapshot from that etcd instead");
    }
    let source = BoltFile::open(db).map_err(bolt)?;
    let facts = read_facts(&source, db)?;
    if facts.auth_enabled {
        return refused(
            "authentication is on, and its checks are not made natively; let an etcd apply the log",
        );
    }
    if facts.alarms.iter().any(|alarm| alarm.kind == AlarmKind::Corrupt) {
        return refused("it has a CORRUPT alarm, under which etcd applies nothing");
    }
    let tail = Tail::read(wal_dir, &facts)?;
    let mut store = Store::load(&source, db, &facts)?;
    for entry in tail.committed() {
        apply::entry(&mut store, entry).map_err(|reason| Error::Replay {
            path: wal_dir.to_owned(),
            index: entry.index.unwrap_or(0),
            reason,
        })?;
    }
    let io = |source| Error::Io { path: out.to_owned(), action: "create it", source };
    let file = files::create_private(out).map_err(io)?;
    let job = Output { source: &source, db, out, facts: &facts, store: &store, tail: &tail };
    job.write(file).inspect_err(|_| drop(std::fs::remove_file(out)))
}

/// Writing the new database.
struct Output<'a> {
    source: &'a BoltFile,
    db: &'a Path,
    out: &'a Path,
    facts: &'a StoreFacts,
    store: &'a Store<'a>,
    tail: &'a Tail,
}

impl Output<'_> {
    fn write(&self, file: File) -> Result<Replayed> {
        let read = |source| Error::Bolt { path: self.db.to_owned(), source };
        let mut writer = Writer::create(self.out.display().to_string(), file, PAGE_BYTES)
            .map_err(|e| self.write_error(e))?;
        let mut names: BTreeSet<Vec<u8>> = self.source.bucket_names().map_err(read)?.into_iter().collect();
        names
            .extend([bucket::META, bucket::KEY, bucket::LEASE, bucket::ALARM].map(|n| n.as_bytes().to_vec()));
        let mut hash_kv = None;
        for name in names {
            match name.as_slice() {
                b"key" => hash_kv = Some(self.rows(&mut writer)?),
                b"alarm" => self.entries(&mut writer, &name, &self.store.alarm_entries())?,
                b"lease" => self.entries(&mut writer, &name, &self.store.lease_entries())?,
                b"meta" => self.entries(&mut writer, &name, &self.meta()?)?,
                b"cluster" => self.entries(&mut writer, &name, &self.cluster()?)?,
                _ => copy_bucket(self.source, self.db, &mut writer, self.out, &name)?,
            }
        }
        writer.finish().map_err(|e| self.write_error(e))?;
        let revision = self.store.revision();
        let compact_revision = self.store.compact_revision();
        Ok(Replayed {
            from_index: self.tail.applied_index(),
            to_index: self.tail.last_committed().0,
            committed_by: self.tail.committed_by(),
            uncommitted: self.tail.uncommitted(),
            conf_changes: self.tail.conf_changes(),
            changes: self.store.changes(),
            rows_added: self.store.new_rows().len() as u64,
            live_keys: self.store.live_keys(),
            revision,
            compact_revision,
            hash_kv: hash_kv.unwrap_or(HashKv { hash: 0, revision, compact_revision }),
        })
    }

    /// The database's rows, then the new ones: revisions only grow.
    fn rows(&self, writer: &mut Writer) -> Result<HashKv> {
        let read = |source| Error::Bolt { path: self.db.to_owned(), source };
        let mut scan = RowScan::new(self.store.compact_revision(), None, None);
        let mut out = writer.bucket(bucket::KEY.as_bytes()).map_err(|e| self.write_error(e))?;
        let mut put = |key: &[u8], value: &[u8]| {
            scan.row(key, value).map_err(|source| Error::Row {
                path: self.db.to_owned(),
                row: hex(key),
                source,
            })?;
            out.put(key, value).map_err(|e| self.write_error(e))
        };
        if let Some(rows) = self.source.bucket(bucket::KEY.as_bytes()).map_err(read)? {
            let mut cursor = rows.cursor();
            while let Some((key, value)) = cursor.next().map_err(read)? {
                put(key, value)?;
            }
        }
        for (key, value) in self.store.new_rows() {
            put(key, value)?;
        }
        Ok(scan.finish(self.store.revision()).hash_kv)
    }

    fn meta(&self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let mut entries = self.source_entries(bucket::META)?;
        let (index, term) = self.tail.last_committed();
        if index > 0 {
            entries.insert(b"consistent_index".to_vec(), index.to_be_bytes().to_vec());
            entries.insert(b"term".to_vec(), term.to_be_bytes().to_vec());
        }
        let compacted = self.store.compact_revision();
        if compacted > self.facts.compact_revision() {
            let revision = row_key(Revision { main: compacted, sub: 0 });
            entries.insert(b"scheduledCompactRev".to_vec(), revision.to_vec());
        }
        Ok(entries)
    }

    fn cluster(&self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let mut entries = self.source_entries(bucket::CLUSTER)?;
        if let Some(version) = self.store.cluster_version() {
            entries.insert(b"clusterVersion".to_vec(), version.as_bytes().to_vec());
        }
        Ok(entries)
    }

    fn source_entries(&self, name: &'static str) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let mut entries = BTreeMap::new();
        crate::facts::for_each_entry(self.source, self.db, name, 1000, &mut |key, value| {
            entries.insert(key.to_vec(), value.to_vec());
            Ok(())
        })?;
        Ok(entries)
    }

    fn entries(&self, writer: &mut Writer, name: &[u8], entries: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<()> {
        let mut out = writer.bucket(name).map_err(|e| self.write_error(e))?;
        for (key, value) in entries {
            out.put(key, value).map_err(|e| self.write_error(e))?;
        }
        Ok(())
    }

    fn write_error(&self, source: boltfile::Error) -> Error {
        Error::Bolt { path: self.out.to_owned(), source }
    }
}
