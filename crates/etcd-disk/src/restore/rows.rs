//! The rows of a new database, in the forms that are written row by row; replayed changes follow on the snapshot's.

use std::collections::{BTreeMap, BTreeSet};

use boltfile::Writer;
use prost::Message;

use super::Reached;
use super::db::Job;
use super::tail::{Part, Tail};
use crate::bucket;
use crate::error::{Error, Result, RowFault};
use crate::facts::{StoreFacts, for_each_entry};
use crate::hashkv::HashKv;
use crate::proto::Lease;
use crate::rows::{Revision, row_key};
use crate::scan::RowScan;

/// The TTL of a lease whose own was never learnt, seconds.
const SHORT_TTL_S: i64 = 60;

/// What the rows came to.
pub(super) struct Rows {
    pub(super) written: u64,
    pub(super) live_keys: u64,
    pub(super) groups: BTreeMap<String, u64>,
    pub(super) revision: i64,
    pub(super) compact_revision: i64,
    pub(super) hash_kv: HashKv,
    pub(super) reached: Option<Reached>,
    /// Leases that live keys name.
    leases: BTreeSet<i64>,
}

/// The state at the target, while the scan may go on behind it.
struct AtTarget {
    rows: u32,
    live_keys: u64,
    groups: BTreeMap<String, u64>,
    leases: BTreeSet<i64>,
}

impl AtTarget {
    fn of(scan: &RowScan<'_>) -> Self {
        let live = scan.live();
        Self { rows: scan.rows(), live_keys: live.len() as u64, groups: live.groups(), leases: live.leases() }
    }

    /// With the empty key that a raised revision writes.
    fn raised(scan: &RowScan<'_>) -> Self {
        let at = Self::of(scan);
        Self { live_keys: at.live_keys + u64::from(!scan.live().contains(b"")), ..at }
    }
}

/// Which rows survive, and the revision the store is raised to.
pub(super) struct Survivors {
    at: AtTarget,
    /// By ordinal: the row is written.
    keep: Bits,
    to_revision: i64,
    reached: Option<Reached>,
}

/// One bit for each row.
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: u32) -> Self {
        Self(vec![0; len as usize / 64 + 1])
    }

    fn set(&mut self, index: u32) {
        if let Some(word) = self.0.get_mut(index as usize / 64) {
            *word |= 1 << (index % 64);
        }
    }

    fn get(&self, index: u32) -> bool {
        self.0.get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }
}

impl<'a> Job<'a> {
    /// Shows all rows of the source.
    fn each_row(&mut self, mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        let source = self.source;
        let rows = source.bolt().bucket(bucket::KEY.as_bytes()).map_err(|e| source.bolt_error(e))?;
        let Some(rows) = rows else { return Ok(()) };
        let mut cursor = rows.cursor();
        while let Some((key, value)) = cursor.next().map_err(|e| source.bolt_error(e))? {
            visit(key, value)?;
            self.advance(key.len() + value.len());
        }
        Ok(())
    }

    /// All rows, and those of the changes behind them.
    pub(super) fn exact_rows(
        &mut self,
        writer: &mut Writer,
        facts: &StoreFacts,
        tail: &Tail<'_>,
    ) -> Result<Rows> {
        let (source, path) = (self.source, self.out);
        let write = |source| Error::Bolt { path: path.to_owned(), source };
        let mut scan = RowScan::new(facts.compact_revision(), Some(tail.plan.to), self.options.group);
        if let Some(sample) = tail.plan.sample {
            scan.ask(sample.hash_kv.compact_revision, Some(sample.hash_kv.revision));
        }
        let mut out = writer.bucket(bucket::KEY.as_bytes()).map_err(write)?;
        self.each_row(|key, value| {
            scan.row(key, value).map_err(|fault| source.row_error(key, fault))?;
            out.put(key, value).map_err(write)
        })?;
        let mut at = None;
        let reached = tail.each(tail.plan.until(), &mut |part, key, value| {
            if part == Part::Proof && at.is_none() {
                at = Some(AtTarget::of(&scan));
            }
            scan.row(key, value).map_err(|fault| source.row_error(key, fault))?;
            if part == Part::Restored { out.put(key, value).map_err(write) } else { Ok(()) }
        })?;
        let at = at.unwrap_or_else(|| AtTarget::of(&scan));
        let scanned = scan.finish(tail.plan.to);
        Ok(Rows {
            written: u64::from(at.rows),
            live_keys: at.live_keys,
            groups: at.groups,
            revision: tail.plan.to,
            compact_revision: facts.compact_revision(),
            hash_kv: scanned.hash_kv,
            reached: Some(tail.prove(reached, scanned.second, self.options.allow_disproved)?),
            leases: at.leases,
        })
    }

    /// All rows, and stock's row at the raised revision.
    pub(super) fn stock_rows(&mut self, writer: &mut Writer, facts: &StoreFacts, bump: u64) -> Result<Rows> {
        let (source, path) = (self.source, self.out);
        let write = |source| Error::Bolt { path: path.to_owned(), source };
        // the compact revision is known only after the last row: until then every row counts as older
        let mut scan = RowScan::new(i64::MAX, None, self.options.group);
        let mut out = writer.bucket(bucket::KEY.as_bytes()).map_err(write)?;
        self.each_row(|key, value| {
            scan.row(key, value).map_err(|fault| source.row_error(key, fault))?;
            out.put(key, value).map_err(write)
        })?;
        let revision = self.bumped_revision(scan.last_main(), bump, facts.revision(scan.last_main()))?;
        let key = row_key(Revision { main: revision, sub: 0 });
        scan.row(&key, &[]).map_err(|fault| source.row_error(&key, fault))?;
        out.put(&key, &[]).map_err(write)?;
        let at = AtTarget::of(&scan);
        let hash_kv = HashKv { compact_revision: revision, ..scan.finish(revision).hash_kv };
        Ok(Rows::raised(at, revision, hash_kv, None))
    }

    /// Stock adds the bump to the newest row's revision, and so does this; but a store whose compact revision is
    /// higher (an earlier raise, say) must not be lowered.
    fn bumped_revision(&self, last_main: i64, bump: u64, revision: i64) -> Result<i64> {
        let raised = i64::try_from(bump).ok().and_then(|bump| last_main.checked_add(bump));
        match raised {
            Some(raised) if raised > revision && raised < i64::MAX => Ok(raised),
            _ => self.refuse(format!(
                "a bump of {bump} over revision {last_main} does not lead above the store's revision {revision}"
            )),
        }
    }

    /// Which rows survive a compaction at the revision that `raise` makes of the store's: the newest of each live key.
    pub(super) fn survivors(
        &mut self,
        facts: &StoreFacts,
        tail: Option<&Tail<'_>>,
        raise: impl FnOnce(i64) -> Option<i64>,
    ) -> Result<Survivors> {
        let source = self.source;
        let mut scan = RowScan::without_hash(self.options.group);
        if let Some(sample) = tail.and_then(|tail| tail.plan.sample) {
            scan.ask(sample.hash_kv.compact_revision, Some(sample.hash_kv.revision));
        }
        self.each_row(|key, value| scan.row(key, value).map_err(|fault| source.row_error(key, fault)))?;
        let base_main = scan.last_main();
        let mut at = None;
        let state = |scan: &RowScan<'_>| (AtTarget::raised(scan), surviving(scan));
        let reached = tail.map(|tail| {
            tail.each(tail.plan.until(), &mut |part, key, value| {
                if part == Part::Proof && at.is_none() {
                    at = Some(state(&scan));
                }
                scan.row(key, value).map_err(|fault| source.row_error(key, fault))
            })
        });
        let reached = reached.transpose()?;
        let (at, keep) = at.unwrap_or_else(|| state(&scan));
        let revision = tail.map_or_else(|| facts.revision(base_main), |tail| tail.plan.to);
        let to_revision = raise(revision).unwrap_or(i64::MAX);
        if to_revision <= revision || to_revision == i64::MAX {
            return self.refuse(format!(
                "the revision to raise to, {to_revision}, is not above its own, {revision}"
            ));
        }
        let computed = tail.and_then(|tail| tail.plan.sample).map(|_| scan.finish(revision).hash_kv);
        let allowed = self.options.allow_disproved;
        let proved = tail.zip(reached).map(|(tail, reached)| tail.prove(reached, computed, allowed));
        let reached = proved.transpose()?;
        Ok(Survivors { at, keep, to_revision, reached })
    }

    /// The surviving rows, and the one at the raised revision.
    pub(super) fn bumped_rows(
        &mut self,
        writer: &mut Writer,
        plan: Survivors,
        tail: Option<&Tail<'_>>,
    ) -> Result<Rows> {
        let (source, path, to_revision) = (self.source, self.out, plan.to_revision);
        let write = |source| Error::Bolt { path: path.to_owned(), source };
        let mut scan = RowScan::new(-1, None, None);
        let mut out = writer.bucket(bucket::KEY.as_bytes()).map_err(write)?;
        let mut ordinal = 0;
        let mut take = |key: &[u8], value: &[u8]| {
            // a file that grows rows between two passes is not the one that was verified
            if ordinal == plan.at.rows {
                return Err(source.row_error(key, RowFault::TooMany));
            }
            ordinal += 1;
            if plan.keep.get(ordinal - 1) {
                scan.hash_only(key, value).map_err(|fault| source.row_error(key, fault))?;
                out.put(key, value).map_err(write)?;
            }
            Ok(())
        };
        self.each_row(&mut take)?;
        if let Some(tail) = tail {
            tail.each(tail.plan.to, &mut |_, key, value| take(key, value))?;
        }
        let key = row_key(Revision { main: to_revision, sub: 0 });
        scan.hash_only(&key, &[]).map_err(|fault| source.row_error(&key, fault))?;
        out.put(&key, &[]).map_err(write)?;
        let written = scan.rows();
        let hash_kv = HashKv { compact_revision: to_revision, ..scan.finish(to_revision).hash_kv };
        Ok(Rows::raised(AtTarget { rows: written, ..plan.at }, to_revision, hash_kv, plan.reached))
    }

    /// The source's leases, and those that live keys name beside them.
    pub(super) fn leases(&self, writer: &mut Writer, tail: &Tail<'_>, rows: &mut Rows) -> Result<()> {
        let mut leases = BTreeMap::new();
        for_each_entry(
            self.source.bolt(),
            self.source.path(),
            bucket::LEASE,
            usize::MAX,
            &mut |key, value| {
                leases.insert(key.to_vec(), value.to_vec());
                Ok(())
            },
        )?;
        let mut out = writer.bucket(bucket::LEASE.as_bytes()).map_err(|e| self.write_error(e))?;
        let Some(reached) = &mut rows.reached else { return Ok(()) };
        for &id in &rows.leases {
            let key = id.to_be_bytes().to_vec();
            if leases.contains_key(&key) {
                continue;
            }
            let segments = tail.changes.segments().iter();
            let granted =
                segments.filter_map(|segment| segment.leases.get(&id)).map(|l| l.granted_ttl_s).max();
            let ttl = granted.filter(|ttl| *ttl > 0);
            if ttl.is_none() {
                reached.short_leases.push(id);
            }
            reached.leases_added += 1;
            let lease = Lease { id, ttl: ttl.unwrap_or(SHORT_TTL_S), remaining_ttl: 0 };
            leases.insert(key, lease.encode_to_vec());
        }
        for (key, value) in leases {
            out.put(&key, &value).map_err(|e| self.write_error(e))?;
        }
        Ok(())
    }
}

impl Rows {
    fn raised(at: AtTarget, revision: i64, hash_kv: HashKv, reached: Option<Reached>) -> Self {
        Self {
            written: u64::from(at.rows),
            live_keys: at.live_keys,
            groups: at.groups,
            revision,
            compact_revision: revision,
            hash_kv,
            reached,
            leases: at.leases,
        }
    }
}

/// The newest row of each live key, but not that of the empty key: an earlier raise left it, and the new one replaces it.
fn surviving(scan: &RowScan<'_>) -> Bits {
    let mut keep = Bits::new(scan.rows());
    for ordinal in scan.live().ordinals_but(b"") {
        keep.set(ordinal);
    }
    keep
}
