//! The changes that are replayed behind a snapshot: read side by side with nothing of them kept, written up to the
//! target, and read on up to the HashKV sample that proves it.

use boltfile::{BoltFile, ReadAt};

use super::Reached;
use crate::bucket;
use crate::changes::{Base, Changes, Merge, Plan};
use crate::error::{Error, PointFault, Result};
use crate::facts::StoreFacts;
use crate::hashkv::HashKv;
use crate::rows::{Revision, RowKey, row_key};
use crate::snapshot::SnapshotFile;

/// What a replayed row is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// It is restored.
    Restored,
    /// It lies behind the target and only leads to the sample.
    Proof,
}

/// What is seen of a replayed row: its part, key and value.
pub(super) type VisitRow<'v> = dyn FnMut(Part, &[u8], &[u8]) -> Result<()> + 'v;

/// The changes behind one snapshot.
pub(super) struct Tail<'a> {
    pub(super) changes: &'a Changes,
    pub(super) plan: Plan,
    source: &'a SnapshotFile,
    /// The snapshot has rows of its newest revision, and all of them.
    comparable: bool,
}

impl<'a> Tail<'a> {
    /// Finds the target behind the snapshot.
    pub(super) fn plan(changes: &'a Changes, source: &'a SnapshotFile, facts: &StoreFacts) -> Result<Self> {
        let last_main = last_main(source.bolt()).map_err(|e| source.bolt_error(e))?;
        let (revision, compact_revision) = (facts.revision(last_main), facts.compact_revision());
        let base = Base { path: source.path().to_owned(), revision, compact_revision };
        let plan = changes.plan(&base)?;
        let comparable = last_main == revision && compact_revision < revision;
        Ok(Self { changes, plan, source, comparable })
    }

    /// Shows the rows behind the snapshot's, in order. The times of the target are filled in; the rest of what is given
    /// back is the caller's.
    pub(super) fn each(&self, until: i64, visit: &mut VisitRow<'_>) -> Result<Reached> {
        let plan = self.plan;
        let mut reached = Reached {
            from_revision: plan.from,
            revision: plan.to,
            received_ms: None,
            next_received_ms: None,
            rows_added: 0,
            proof: None,
            disproof: None,
            leases_added: 0,
            short_leases: Vec::new(),
        };
        let (mut last, mut key) = (plan.from, [0; 18]);
        // one revision more tells when the target's time was over
        let mut merge = Merge::new(self.changes.segments(), plan.from, until.saturating_add(1));
        while let Some(change) = merge.next()? {
            let main = change.row.revision.main;
            let key = change.key(&mut key);
            if main > plan.to && reached.next_received_ms.is_none() {
                reached.next_received_ms = Some(change.received_ms);
            }
            if main == plan.to {
                reached.received_ms = Some(change.received_ms);
            }
            if main <= plan.from {
                self.compare(main, key, change.value)?;
                continue;
            }
            if main > until {
                break;
            }
            last = main;
            let part = if main <= plan.to { Part::Restored } else { Part::Proof };
            reached.rows_added += u64::from(part == Part::Restored);
            visit(part, key, change.value)?;
        }
        // the segments were whole when they were surveyed
        if last == until { Ok(reached) } else { self.fault(PointFault::BehindEnd { last, until_ms: None }) }
    }

    /// The revision that both have must be the same.
    fn compare(&self, revision: i64, key: &[u8], value: &[u8]) -> Result<()> {
        let found = self.comparable.then(|| self.row(key)).transpose()?.flatten();
        if self.comparable && revision == self.plan.from && found.as_deref() != Some(value) {
            return self.fault(PointFault::OtherHistory { revision });
        }
        Ok(())
    }

    fn row(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let bucket = self.source.bolt().bucket(bucket::KEY.as_bytes());
        let bucket = bucket.map_err(|e| self.source.bolt_error(e))?;
        bucket.map_or(Ok(None), |bucket| bucket.get(key)).map_err(|e| self.source.bolt_error(e))
    }

    /// Compares the HashKV of the rows with the sample.
    pub(super) fn prove(
        &self,
        reached: Reached,
        computed: Option<HashKv>,
        allow_disproved: bool,
    ) -> Result<Reached> {
        let Some((sample, computed)) = self.plan.sample.zip(computed) else { return Ok(reached) };
        let answered = sample.hash_kv;
        if computed != answered && allow_disproved {
            return Ok(Reached { disproof: Some(sample), ..reached });
        }
        if computed != answered {
            return Err(Error::Proof {
                revision: answered.revision,
                compact_revision: answered.compact_revision,
                answered: answered.hash,
                computed: computed.hash,
            });
        }
        Ok(Reached { proof: Some(sample), ..reached })
    }

    fn fault<T>(&self, source: PointFault) -> Result<T> {
        let asked = self.changes.point().to_string();
        Err(Error::Point { asked, base: self.source.path().to_owned(), source })
    }
}

/// Main revision of the last row, 0 without rows: by halving, each step one way down the tree.
fn last_main<S: ReadAt>(db: &BoltFile<S>) -> std::result::Result<i64, boltfile::Error> {
    let Some(rows) = db.bucket(bucket::KEY.as_bytes())? else { return Ok(0) };
    let (mut there, mut beyond) = (0, i64::MAX);
    while beyond - there > 1 {
        let middle = there + (beyond - there) / 2;
        let found = rows.cursor().seek(&row_key(Revision { main: middle, sub: 0 }))?.map(|(key, _)| {
            // a key that is none will be told when its row is read
            RowKey::parse(key).map_or(middle, |row| row.revision.main)
        });
        match found {
            Some(main) => there = main.clamp(middle, beyond - 1),
            None => beyond = middle,
        }
    }
    Ok(there)
}
