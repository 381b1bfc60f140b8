//! Which keys are alive, while rows go by: a fingerprint of each key with the ordinal of its newest row.
//!
//! The keys themselves are not kept: looking at them again costs a scan a quarter of its time in cache misses. A
//! fingerprint is 128 bits of two SipHashes with random keys, so that no file can be made whose keys collide, and two
//! of 2^32 keys do so by chance with a probability below 2^-64.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use crate::snapshot::GroupFn;

/// No group: groups are not asked for, or the key is empty, which only a raised revision writes.
const NO_GROUP: u32 = u32::MAX;

pub(crate) struct LiveIndex<'a> {
    group: Option<GroupFn<'a>>,
    group_names: HashMap<String, u32>,
    fingerprints: (RandomState, RandomState),
    keys: HashMap<u128, LiveKey, BuildHasherDefault<LowBits>>,
}

#[derive(Clone, Copy)]
struct LiveKey {
    ordinal: u32,
    group: u32,
    crc: RowCrc,
    lease: i64,
}

/// The CRC over all rows before and after a row, and the row's length.
#[derive(Clone, Copy, Default)]
pub(crate) struct RowCrc {
    pub(crate) before: u32,
    pub(crate) after: u32,
    pub(crate) len: u32,
}

/// Fingerprints are random already.
#[derive(Default)]
struct LowBits(u64);

impl Hasher for LowBits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0 << 8 | u64::from(byte);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "any 64 of the bits will do")]
    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }
}

impl<'a> LiveIndex<'a> {
    pub(crate) fn new(group: Option<GroupFn<'a>>) -> Self {
        Self {
            group,
            group_names: HashMap::new(),
            fingerprints: (RandomState::new(), RandomState::new()),
            keys: HashMap::default(),
        }
    }

    fn fingerprint(&self, key: &[u8]) -> u128 {
        let half = |state: &RandomState| {
            let mut hasher = state.build_hasher();
            hasher.write(key);
            u128::from(hasher.finish())
        };
        half(&self.fingerprints.0) << 64 | half(&self.fingerprints.1)
    }

    /// The row number `ordinal` wrote the key, with a lease or 0.
    pub(crate) fn put(&mut self, key: &[u8], ordinal: u32, lease: i64, crc: RowCrc) {
        let fingerprint = self.fingerprint(key);
        if let Some(live) = self.keys.get_mut(&fingerprint) {
            *live = LiveKey { ordinal, lease, crc, ..*live };
        } else {
            let group = self.group_of(key);
            self.keys.insert(fingerprint, LiveKey { ordinal, group, crc, lease });
        }
    }

    fn group_of(&mut self, key: &[u8]) -> u32 {
        let Some(group) = self.group.filter(|_| !key.is_empty()) else { return NO_GROUP };
        let name = group(key);
        if let Some(&known) = self.group_names.get(name) {
            return known;
        }
        let next = u32::try_from(self.group_names.len()).unwrap_or(NO_GROUP);
        self.group_names.insert(name.to_owned(), next);
        next
    }

    /// The key was deleted.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        self.keys.remove(&self.fingerprint(key));
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Ordinals of the newest row of each live key but one, in no order.
    pub(crate) fn ordinals_but(&self, key: &[u8]) -> impl Iterator<Item = u32> {
        let left_out = self.fingerprint(key);
        self.keys.iter().filter(move |(key, _)| **key != left_out).map(|(_, live)| live.ordinal)
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.keys.contains_key(&self.fingerprint(key))
    }

    /// The newest rows of live keys among the first `rows` rows, in order.
    pub(crate) fn rows_before(&self, rows: u32) -> Vec<RowCrc> {
        let kept = self.keys.values().filter(|live| live.ordinal < rows);
        let mut kept: Vec<(u32, RowCrc)> = kept.map(|live| (live.ordinal, live.crc)).collect();
        kept.sort_unstable_by_key(|(ordinal, _)| *ordinal);
        kept.into_iter().map(|(_, crc)| crc).collect()
    }

    /// The leases that live keys name.
    pub(crate) fn leases(&self) -> BTreeSet<i64> {
        self.keys.values().map(|live| live.lease).filter(|lease| *lease != 0).collect()
    }

    /// Live keys by group; the empty key is in none.
    pub(crate) fn groups(&self) -> BTreeMap<String, u64> {
        let mut counts = vec![0u64; self.group_names.len()];
        for live in self.keys.values() {
            if let Some(count) = counts.get_mut(live.group as usize) {
                *count += 1;
            }
        }
        let count_of = |&index: &u32| counts.get(index as usize).copied().unwrap_or(0);
        let named = self.group_names.iter().map(|(name, index)| (name.clone(), count_of(index)));
        named.filter(|(_, count)| *count > 0).collect()
    }
}
