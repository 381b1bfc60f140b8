//! One pass over the rows of the `key` bucket: counts, revisions, the index of live keys, and HashKV.
//!
//! Feed rows in the bucket's order to [`RowScan::row`], then take the results with [`RowScan::finish`].
//! Used by [`crate::snapshot`] to verify and by [`crate::restore`] to choose the rows that survive.

use crate::error::RowFault;
use crate::hashkv::{HashKv, Joiner, append_row, seed};
use crate::live_index::LiveIndex;
use crate::rows::{KvRef, RowKey};
use crate::snapshot::GroupFn;

/// The running state of a scan. Memory: the live keys, and 8 bytes for each row up to the compact revision.
pub(crate) struct RowScan<'a> {
    compact_revision: i64,
    hash_revision: Option<i64>,
    rows: u32,
    last_main: i64,
    /// The keys alive after the rows seen so far.
    live: LiveIndex<'a>,
    /// CRC and length of each row up to the compact revision (length 0: never counts).
    prefix: Vec<(u32, u32)>,
    suffix_crc: u32,
    suffix_bytes: u64,
    hash: Option<HashKv>,
}

/// What a finished scan knows.
pub(crate) struct Scanned<'a> {
    /// Rows, tombstones included.
    pub(crate) rows: u32,
    /// The live keys; rows count from 0.
    pub(crate) live: LiveIndex<'a>,
    /// HashKV at the revision asked for, else at the store's revision.
    pub(crate) hash_kv: HashKv,
}

impl<'a> RowScan<'a> {
    /// `compact_revision` -1: never compacted. `hash_revision` `None`: the newest.
    pub(crate) fn new(compact_revision: i64, hash_revision: Option<i64>, group: Option<GroupFn<'a>>) -> Self {
        Self {
            compact_revision,
            hash_revision,
            rows: 0,
            last_main: 0,
            live: LiveIndex::new(group),
            prefix: Vec::new(),
            suffix_crc: 0,
            suffix_bytes: 0,
            hash: None,
        }
    }

    /// A scan for the live keys alone.
    pub(crate) fn without_hash(group: Option<GroupFn<'a>>) -> Self {
        Self {
            hash: Some(HashKv { hash: 0, revision: 0, compact_revision: 0 }),
            ..Self::new(-1, None, group)
        }
    }

    /// Hashes and counts a row that another scan has chosen, without looking for its key again.
    pub(crate) fn hash_only(&mut self, key: &[u8], value: &[u8]) -> Result<(), RowFault> {
        let row = RowKey::parse(key)?;
        self.hash_row(row, key, value);
        self.rows = self.rows.checked_add(1).ok_or(RowFault::TooMany)?;
        self.last_main = row.revision.main;
        Ok(())
    }

    /// Takes the next row.
    pub(crate) fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), RowFault> {
        let row = RowKey::parse(key)?;
        let user_key = KvRef::parse(value)?.key;
        let main = row.revision.main;
        if let (None, Some(asked)) = (self.hash, self.hash_revision)
            && main > asked
        {
            self.hash = Some(self.fold(asked));
        }
        if self.hash.is_none() {
            self.hash_row(row, key, value);
        }
        if row.tombstone {
            self.live.remove(user_key);
        } else {
            self.live.put(user_key, self.rows);
        }
        self.rows = self.rows.checked_add(1).ok_or(RowFault::TooMany)?;
        self.last_main = main;
        Ok(())
    }

    fn hash_row(&mut self, row: RowKey, key: &[u8], value: &[u8]) {
        let main = row.revision.main;
        if main > self.compact_revision {
            self.suffix_crc = append_row(self.suffix_crc, key, value);
            self.suffix_bytes += (key.len() + value.len()) as u64;
        } else if main == self.compact_revision && row.tombstone {
            self.prefix.push((0, 0));
        } else {
            // a bbolt key or value is shorter than 2^31, so their sum fits
            let len = u32::try_from(key.len() + value.len()).unwrap_or(u32::MAX);
            self.prefix.push((append_row(0, key, value), len));
        }
    }

    /// HashKV over the rows seen so far.
    fn fold(&mut self, revision: i64) -> HashKv {
        let mut keep = vec![self.live.len() == 0; self.prefix.len()];
        for ordinal in self.live.ordinals() {
            if let Some(kept) = keep.get_mut(ordinal as usize) {
                *kept = true;
            }
        }
        let mut joiner = Joiner::new();
        let mut hash = seed();
        for (&(crc, len), kept) in self.prefix.iter().zip(keep) {
            if kept && len > 0 {
                hash = joiner.join(hash, crc, u64::from(len));
            }
        }
        hash = joiner.join(hash, self.suffix_crc, self.suffix_bytes);
        HashKv { hash, revision, compact_revision: self.compact_revision }
    }

    /// Ends the scan; `store_revision` is what HashKV is computed at unless a revision was asked for.
    pub(crate) fn finish(mut self, store_revision: i64) -> Scanned<'a> {
        let hash_kv = match self.hash {
            Some(done) => done,
            None => {
                let revision = self.hash_revision.unwrap_or(store_revision);
                self.fold(revision)
            }
        };
        Scanned { rows: self.rows, live: self.live, hash_kv }
    }

    /// Main revision of the last row taken, 0 before the first.
    pub(crate) fn last_main(&self) -> i64 {
        self.last_main
    }
}
