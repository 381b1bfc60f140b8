//! The state that log entries change: live keys, leases, alarms, revision; and the rows they add.
//!
//! Source: etcd `server/storage/mvcc/kvstore_txn.go` (rows and sub-revisions), `server/lease/lessor.go`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::path::Path;

use boltfile::{BoltFile, Bucket};
use prost::Message;

use crate::bucket;
use crate::error::{Error, Result};
use crate::facts::{StoreFacts, for_each_entry};
use crate::live::for_each_row;
use crate::proto::{KeyValue, Lease};
use crate::rows::{KvRef, Revision, row_key, tombstone_key};

/// A live key, without its value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Live {
    pub(super) create_revision: i64,
    pub(super) version: i64,
    pub(super) lease: i64,
    pub(super) revision: Revision,
}

pub(super) struct Store<'a> {
    db: &'a Path,
    base: Option<Bucket<'a, std::fs::File>>,
    base_revision: i64,
    live: BTreeMap<Vec<u8>, Live>,
    revision: i64,
    compact_revision: i64,
    /// Changes of the request being applied: the next one's sub revision.
    pending: i64,
    changes: u64,
    new_rows: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the row of a revision above the database's is in `new_rows`.
    new_row_at: HashMap<Revision, usize>,
    leases: BTreeMap<i64, Lease>,
    /// Keys attached to each lease, and the lease each key is attached to.
    lease_keys: HashMap<i64, BTreeSet<Vec<u8>>>,
    key_lease: HashMap<Vec<u8>, i64>,
    /// Alarms as stored.
    alarms: BTreeMap<Vec<u8>, Vec<u8>>,
    cluster_version: Option<String>,
}

impl<'a> Store<'a> {
    pub(super) fn load(source: &'a BoltFile, db: &'a Path, facts: &StoreFacts) -> Result<Self> {
        let bolt = |source| Error::Bolt { path: db.to_owned(), source };
        let mut store = Self {
            db,
            base: source.bucket(bucket::KEY.as_bytes()).map_err(bolt)?,
            base_revision: 0,
            live: BTreeMap::new(),
            revision: 0,
            compact_revision: facts.compact_revision(),
            pending: 0,
            changes: 0,
            new_rows: Vec::new(),
            new_row_at: HashMap::new(),
            leases: BTreeMap::new(),
            lease_keys: HashMap::new(),
            key_lease: HashMap::new(),
            alarms: BTreeMap::new(),
            cluster_version: facts.cluster_version.clone(),
        };
        let mut last = 0;
        for_each_row(source, db, &mut |row, kv| {
            last = row.revision.main;
            store.load_row(row.revision, row.tombstone, kv);
            Ok(())
        })?;
        store.revision = facts.revision(last);
        store.base_revision = store.revision;
        store.load_small_buckets(source)?;
        Ok(store)
    }

    fn load_row(&mut self, revision: Revision, tombstone: bool, kv: &KvRef<'_>) {
        if tombstone {
            self.live.remove(kv.key);
            return;
        }
        let live =
            Live { create_revision: kv.create_revision, version: kv.version, lease: kv.lease, revision };
        match self.live.get_mut(kv.key) {
            Some(known) => *known = live,
            None => {
                self.live.insert(kv.key.to_vec(), live);
            }
        }
    }

    fn load_small_buckets(&mut self, source: &BoltFile) -> Result<()> {
        for_each_entry(source, self.db, bucket::LEASE, usize::MAX, &mut |_, value| {
            let lease = Lease::decode(value).map_err(|e| e.to_string())?;
            self.leases.insert(lease.id, lease);
            Ok(())
        })?;
        for_each_entry(source, self.db, bucket::ALARM, 1000, &mut |key, value| {
            self.alarms.insert(key.to_vec(), value.to_vec());
            Ok(())
        })?;
        // at its start, etcd attaches keys to the leases that still exist
        let attached: Vec<(Vec<u8>, i64)> = self
            .live
            .iter()
            .filter(|(_, live)| self.leases.contains_key(&live.lease))
            .map(|(key, live)| (key.clone(), live.lease))
            .collect();
        for (key, lease) in attached {
            self.attach(&key, lease);
        }
        Ok(())
    }

    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    pub(super) fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn live_keys(&self) -> u64 {
        self.live.len() as u64
    }

    pub(super) fn new_rows(&self) -> &[(Vec<u8>, Vec<u8>)] {
        &self.new_rows
    }

    pub(super) fn cluster_version(&self) -> Option<&str> {
        self.cluster_version.as_deref()
    }

    pub(super) fn set_cluster_version(&mut self, version: String) {
        self.cluster_version = Some(version);
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Live> {
        self.live.get(key)
    }

    /// The keys of a request's range: one key, or up to `range_end` (exclusive; a single zero byte: no end).
    pub(super) fn range(&self, key: &[u8], range_end: &[u8]) -> Vec<Vec<u8>> {
        if range_end.is_empty() {
            return self.live.get_key_value(key).map(|(key, _)| key.clone()).into_iter().collect();
        }
        let end = if range_end == [0] { Bound::Unbounded } else { Bound::Excluded(range_end) };
        if matches!(end, Bound::Excluded(end) if end <= key) {
            return Vec::new();
        }
        self.live.range::<[u8], _>((Bound::Included(key), end)).map(|(key, _)| key.clone()).collect()
    }

    /// The value of a live key, from the database or the new rows.
    pub(super) fn value(&self, live: &Live) -> Result<Vec<u8>, String> {
        let stored = if live.revision.main > self.base_revision {
            let row = self.new_row_at.get(&live.revision).and_then(|&at| self.new_rows.get(at));
            row.map(|(_, value)| value.clone())
        } else {
            let base = self.base.as_ref().map(|base| base.get(&row_key(live.revision)));
            base.transpose().map_err(|e| e.to_string())?.flatten()
        };
        let stored =
            stored.ok_or_else(|| format!("the row of revision {} is missing", live.revision.main))?;
        KvRef::parse(&stored).map(|kv| kv.value.to_vec()).map_err(|e| e.to_string())
    }

    /// Writes a key at the revision under way.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8], lease: i64) {
        let revision = Revision { main: self.revision + 1, sub: self.pending };
        let before = self.live.get(key).copied();
        let create_revision = before.map_or(revision.main, |live| live.create_revision);
        let version = before.map_or(0, |live| live.version) + 1;
        let row = KeyValue {
            key: key.to_vec(),
            create_revision,
            mod_revision: revision.main,
            version,
            value: value.to_vec(),
            lease,
        };
        self.new_row_at.insert(revision, self.new_rows.len());
        self.new_rows.push((row_key(revision).to_vec(), row.encode_to_vec()));
        self.live.insert(key.to_vec(), Live { create_revision, version, lease, revision });
        self.pending += 1;
        let attached = self.key_lease.get(key).copied().unwrap_or(0);
        if attached != lease {
            self.detach(key);
            self.attach(key, lease);
        }
    }

    /// Deletes the live keys of a range at the revision under way.
    pub(super) fn delete_range(&mut self, key: &[u8], range_end: &[u8]) {
        for key in self.range(key, range_end) {
            let revision = Revision { main: self.revision + 1, sub: self.pending };
            let row = KeyValue { key: key.clone(), ..KeyValue::default() };
            self.new_rows.push((tombstone_key(revision).to_vec(), row.encode_to_vec()));
            self.live.remove(&key);
            self.detach(&key);
            self.pending += 1;
        }
    }

    /// Ends a request: what it changed happened at one revision.
    pub(super) fn end(&mut self) {
        if self.pending > 0 {
            self.revision += 1;
            self.changes += 1;
            self.pending = 0;
        }
    }

    /// A compaction outside the revisions there are is an error to its client and changes nothing.
    pub(super) fn compact(&mut self, revision: i64) {
        if revision > self.compact_revision && revision <= self.revision {
            self.compact_revision = revision;
        }
    }

    pub(super) fn lease_exists(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    pub(super) fn lease_entries(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.leases.values().map(|l| (l.id.to_be_bytes().to_vec(), l.encode_to_vec())).collect()
    }

    pub(super) fn grant(&mut self, id: i64, ttl: i64) {
        self.leases.insert(id, Lease { id, ttl, remaining_ttl: 0 });
    }

    pub(super) fn checkpoint(&mut self, id: i64, remaining_ttl: i64) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.remaining_ttl = remaining_ttl;
        }
    }

    /// Ends a lease and deletes its keys, in their order.
    pub(super) fn revoke(&mut self, id: i64) {
        if self.leases.remove(&id).is_some() {
            for key in self.lease_keys.remove(&id).unwrap_or_default() {
                self.delete_range(&key, &[]);
            }
        }
    }

    fn attach(&mut self, key: &[u8], lease: i64) {
        if self.leases.contains_key(&lease) {
            self.lease_keys.entry(lease).or_default().insert(key.to_vec());
            self.key_lease.insert(key.to_vec(), lease);
        }
    }

    fn detach(&mut self, key: &[u8]) {
        if let Some(keys) = self.key_lease.remove(key).and_then(|lease| self.lease_keys.get_mut(&lease)) {
            keys.remove(key);
        }
    }

    pub(super) fn alarm_entries(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.alarms.clone()
    }

    pub(super) fn alarms(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.alarms
    }

    pub(super) fn set_alarm(&mut self, stored: Vec<u8>, on: bool) {
        if on {
            self.alarms.insert(stored, Vec::new());
        } else {
            self.alarms.remove(&stored);
        }
    }
}
