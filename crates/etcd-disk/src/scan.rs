//! One pass over the rows of the `key` bucket: counts, revisions, the index of live keys, and HashKV.
//!
//! Feed rows in the bucket's order to [`RowScan::row`], then take the results with [`RowScan::finish`].
//! Used by [`crate::snapshot`] to verify and by [`crate::restore`] to choose the rows that survive.
//!
//! One CRC runs over all rows. What it was before and after the newest row of each live key, and at a compact
//! revision, is enough for the HashKV of any compact and any hash revision (`hashkv.rs` says why).

use crate::error::RowFault;
use crate::hashkv::{HashKv, Joiner, append_row, seed};
use crate::live_index::{LiveIndex, RowCrc};
use crate::rows::{KvRef, RowKey};
use crate::snapshot::GroupFn;

/// The running state of a scan. Memory: the live keys.
pub(crate) struct RowScan<'a> {
    rows: u32,
    last_main: i64,
    /// The keys alive after the rows seen so far.
    live: LiveIndex<'a>,
    /// CRC over all rows so far, and their bytes.
    crc: u32,
    bytes: u64,
    asked: Vec<Asked>,
}

/// A HashKV to compute.
struct Asked {
    compact_revision: i64,
    /// `None`: at the end.
    revision: Option<i64>,
    /// Where the rows above the compact revision begin.
    boundary: Option<Boundary>,
    /// CRC and bytes of the rows up to the compact revision without tombstones exactly there.
    plain: Option<(u32, u64)>,
    done: Option<HashKv>,
}

#[derive(Clone, Copy)]
struct Boundary {
    rows: u32,
    crc: u32,
    bytes: u64,
}

/// What a finished scan knows.
pub(crate) struct Scanned<'a> {
    /// Rows, tombstones included.
    pub(crate) rows: u32,
    /// The live keys; rows count from 0.
    pub(crate) live: LiveIndex<'a>,
    /// HashKV at the revision asked for, else at the store's revision.
    pub(crate) hash_kv: HashKv,
    /// The second HashKV, if one was asked for.
    pub(crate) second: Option<HashKv>,
}

impl<'a> RowScan<'a> {
    /// `compact_revision` -1: never compacted. `hash_revision` `None`: the newest.
    pub(crate) fn new(compact_revision: i64, hash_revision: Option<i64>, group: Option<GroupFn<'a>>) -> Self {
        let mut scan = Self::without_hash(group);
        scan.ask(compact_revision, hash_revision);
        scan
    }

    /// A scan for the live keys alone.
    pub(crate) fn without_hash(group: Option<GroupFn<'a>>) -> Self {
        let live = LiveIndex::new(group);
        Self { rows: 0, last_main: 0, live, crc: 0, bytes: 0, asked: Vec::new() }
    }

    /// Asks for one more HashKV, before the first row.
    pub(crate) fn ask(&mut self, compact_revision: i64, revision: Option<i64>) {
        self.asked.push(Asked { compact_revision, revision, boundary: None, plain: None, done: None });
    }

    /// Hashes and counts a row that another scan has chosen, without looking for its key again.
    pub(crate) fn hash_only(&mut self, key: &[u8], value: &[u8]) -> Result<(), RowFault> {
        let row = RowKey::parse(key)?;
        self.hash_row(row, key, value);
        self.count(row)
    }

    /// Takes the next row.
    pub(crate) fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), RowFault> {
        let row = RowKey::parse(key)?;
        let kv = KvRef::parse(value)?;
        let before = self.crc;
        let hashed = !self.asked.is_empty();
        if hashed {
            self.hash_row(row, key, value);
        }
        if row.tombstone {
            self.live.remove(kv.key);
        } else {
            // a bbolt key or value is shorter than 2^31, so their sum fits
            let len = u32::try_from(key.len() + value.len()).unwrap_or(u32::MAX);
            self.live.put(kv.key, self.rows, kv.lease, RowCrc { before, after: self.crc, len });
        }
        self.count(row)
    }

    fn count(&mut self, row: RowKey) -> Result<(), RowFault> {
        self.rows = self.rows.checked_add(1).ok_or(RowFault::TooMany)?;
        self.last_main = row.revision.main;
        Ok(())
    }

    fn hash_row(&mut self, row: RowKey, key: &[u8], value: &[u8]) {
        let main = row.revision.main;
        let mut asked = std::mem::take(&mut self.asked);
        for asked in asked.iter_mut().filter(|asked| asked.done.is_none()) {
            if let Some(revision) = asked.revision.filter(|revision| main > *revision) {
                asked.done = Some(self.fold(asked, revision));
            } else if main > asked.compact_revision {
                asked.boundary.get_or_insert(self.here());
            } else if main == asked.compact_revision {
                let (crc, bytes) = asked.plain.get_or_insert((self.crc, self.bytes));
                if !row.tombstone {
                    *crc = append_row(*crc, key, value);
                    *bytes += (key.len() + value.len()) as u64;
                }
            }
        }
        self.asked = asked;
        self.crc = append_row(self.crc, key, value);
        self.bytes += (key.len() + value.len()) as u64;
    }

    fn here(&self) -> Boundary {
        Boundary { rows: self.rows, crc: self.crc, bytes: self.bytes }
    }

    /// HashKV over the rows seen so far.
    fn fold(&self, asked: &Asked, revision: i64) -> HashKv {
        let mut joiner = Joiner::new();
        let end = self.here();
        let begin = asked.boundary.unwrap_or(end);
        let mut hash = seed();
        if self.live.len() == 0 {
            let (crc, bytes) = asked.plain.unwrap_or((begin.crc, begin.bytes));
            hash = joiner.join(hash, crc, bytes);
        }
        for row in self.live.rows_before(begin.rows) {
            hash = joiner.join(hash ^ row.before, row.after, u64::from(row.len));
        }
        let bytes = end.bytes - begin.bytes;
        let hash = joiner.join(hash ^ begin.crc, end.crc, bytes);
        HashKv { hash, revision, compact_revision: asked.compact_revision }
    }

    /// Ends the scan; `store_revision` is what HashKV is computed at unless a revision was asked for.
    pub(crate) fn finish(self, store_revision: i64) -> Scanned<'a> {
        let answers: Vec<HashKv> = self
            .asked
            .iter()
            .map(|asked| {
                asked.done.unwrap_or_else(|| self.fold(asked, asked.revision.unwrap_or(store_revision)))
            })
            .collect();
        let none = HashKv { hash: 0, revision: 0, compact_revision: 0 };
        let hash_kv = answers.first().copied().unwrap_or(none);
        Scanned { rows: self.rows, live: self.live, hash_kv, second: answers.get(1).copied() }
    }

    /// The keys alive after the rows seen so far.
    pub(crate) fn live(&self) -> &LiveIndex<'a> {
        &self.live
    }

    /// Rows taken so far.
    pub(crate) fn rows(&self) -> u32 {
        self.rows
    }

    /// Main revision of the last row taken, 0 before the first.
    pub(crate) fn last_main(&self) -> i64 {
        self.last_main
    }
}
