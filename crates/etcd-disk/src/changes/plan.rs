//! Which revisions are replayed behind a snapshot, and which sample proves them.

use std::path::PathBuf;

use super::{Changes, Point};
use crate::error::{Error, PointFault, Result};
use crate::segment::{GapCause, HashSample};

/// The snapshot that is replayed upon.
pub(crate) struct Base {
    pub(crate) path: PathBuf,
    pub(crate) revision: i64,
    /// -1: never compacted.
    pub(crate) compact_revision: i64,
}

/// What is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The snapshot's revision.
    pub(crate) from: i64,
    /// The revision restored.
    pub(crate) to: i64,
    /// The sample that proves it.
    pub(crate) sample: Option<HashSample>,
}

impl Plan {
    /// The last revision that is read.
    pub(crate) fn until(&self) -> i64 {
        self.sample.map_or(self.to, |sample| self.to.max(sample.hash_kv.revision))
    }
}

/// A gap behind what is reachable.
struct Gap {
    first: i64,
    last: i64,
    cause: Option<GapCause>,
}

impl Changes {
    /// Finds the point behind `base`.
    pub(crate) fn plan(&self, base: &Base) -> Result<Plan> {
        let end = self.reachable(base.revision);
        let to = self.target(base, end).map_err(|source| Error::Point {
            asked: self.point.to_string(),
            base: base.path.clone(),
            source,
        })?;
        let proves = |sample: &&HashSample| {
            let of = sample.hash_kv;
            // rows that a compaction up to the snapshot's has removed cannot be hashed any more
            of.revision >= to
                && of.revision <= end
                && of.compact_revision >= base.compact_revision
                && of.compact_revision <= of.revision
        };
        let sample = self.samples().filter(proves).min_by_key(|sample| sample.hash_kv.revision).copied();
        Ok(Plan { from: base.revision, to, sample })
    }

    /// The newest revision that follows on `from` without a gap.
    fn reachable(&self, from: i64) -> i64 {
        let mut end = from;
        for segment in &self.segments {
            if segment.header.first_revision > end + 1 {
                break;
            }
            end = end.max(segment.last_revision);
        }
        end
    }

    fn gap_behind(&self, end: i64) -> Option<Gap> {
        let next = self.segments.iter().find(|segment| segment.header.first_revision > end + 1)?;
        let last = next.header.first_revision - 1;
        Some(Gap { first: end + 1, last, cause: next.gap.map(|gap| gap.cause) })
    }

    fn target(&self, base: &Base, end: i64) -> Result<i64, PointFault> {
        let gap = self.gap_behind(end);
        let in_gap =
            |gap: &Gap| PointFault::Gap { first: gap.first, last: gap.last, before: end, cause: gap.cause };
        let to = match (self.point, &gap) {
            (Point::Latest, None) => end,
            (Point::Latest, Some(gap)) => return Err(in_gap(gap)),
            (Point::Revision(revision), _) => revision,
            (Point::TimeMs(asked), gap) => {
                let by_then = self.by_time(asked, end)?;
                let known_ms = self.known_ms(|last| last <= end);
                match gap {
                    // what was there at a time behind the last one known before the gap is not known
                    Some(gap) if by_then >= end && known_ms.is_none_or(|known| asked > known) => {
                        return Err(in_gap(gap));
                    }
                    _ => by_then,
                }
            }
        };
        match gap {
            _ if to < base.revision => Err(PointFault::BeforeBase { base: base.revision }),
            _ if to <= end => Ok(to),
            Some(gap) => Err(in_gap(&gap)),
            None => Err(PointFault::BehindEnd { last: end, until_ms: self.known_ms(|_| true) }),
        }
    }

    /// The highest revision certainly there at the time asked for.
    fn by_time(&self, asked: i64, end: i64) -> Result<i64, PointFault> {
        let Some(earliest) = self.earliest else {
            return Err(PointFault::BehindEnd { last: end, until_ms: None });
        };
        let Some(by_then) = self.by_then else {
            return Err(PointFault::BeforeStream {
                earliest_ms: earliest.at_ms,
                revision: earliest.revision,
            });
        };
        let until_ms = self.known_ms(|_| true);
        if until_ms.is_none_or(|until| asked > until) {
            return Err(PointFault::BehindEnd { last: end.max(by_then.revision), until_ms });
        }
        Ok(by_then.revision)
    }

    /// The newest time told by segments whose last revision is wanted, or beside them.
    fn known_ms(&self, wanted: impl Fn(i64) -> bool) -> Option<i64> {
        let told = self.segments.iter().filter(|segment| wanted(segment.last_revision));
        let beside = self.more_evidence.iter().filter(|told| wanted(told.revision)).copied();
        told.filter_map(|segment| segment.newest).chain(beside).map(|newest| newest.at_ms).max()
    }
}
