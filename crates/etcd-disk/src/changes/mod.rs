//! Several segments as one stream of changes behind a snapshot, and the point in it that is to be restored.
//!
//! - [`Changes::open`] reads all segments once and checks them; `plan.rs` finds the point behind a given snapshot.
//! - `merge.rs` brings the rows in order, equal ones of several segments once.
//! - [`crate::restore`] writes them behind the snapshot's rows.
//!
//! Rules: `docs/formats/segment.md`, "Several segments".

mod merge;
mod plan;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;

pub(crate) use merge::Merge;
pub(crate) use plan::{Base, Plan};

use crate::error::{Error, Result};
use crate::segment::{Evidence, GapSeen, HashSample, Origin, SegmentFacts, survey_with};

/// The point in time to restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The end of the stream.
    Latest,
    /// A main revision.
    Revision(i64),
    /// The last revision certainly there at this time, ms since the Unix epoch by the watcher's clock.
    TimeMs(i64),
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => write!(f, "the latest revision"),
            Self::Revision(revision) => write!(f, "revision {revision}"),
            Self::TimeMs(ms) => write!(f, "the state at {ms} ms"),
        }
    }
}

/// Segments that were read and fit together, and the point asked for.
#[derive(Debug, Clone)]
pub struct Changes {
    /// By first revision.
    segments: Vec<SegmentFacts>,
    point: Point,
    /// The highest revision there by the time asked for.
    by_then: Option<Evidence>,
    earliest: Option<Evidence>,
    /// The latest time at which the point asked for was still the newest.
    still: Option<Evidence>,
    /// Samples that are not in the segments.
    more_samples: Vec<HashSample>,
    /// What else is known to have been there, and when.
    more_evidence: Vec<Evidence>,
}

impl Changes {
    /// Reads all segments, in any order, once. None at all is a stream without changes.
    ///
    /// # Errors
    /// [`Error::Segment`] on damage, [`Error::Mixed`] on segments of several clusters or timelines, [`Error::Io`].
    pub fn open(segments: &[PathBuf], point: Point) -> Result<Self> {
        let mut changes = Self {
            segments: Vec::with_capacity(segments.len()),
            point,
            by_then: None,
            earliest: None,
            still: None,
            more_samples: Vec::new(),
            more_evidence: Vec::new(),
        };
        for path in segments {
            let facts = survey_with(path, &mut |told| changes.hear(told))?;
            changes.segments.push(facts);
        }
        changes.segments.sort_by_key(|segment| (segment.header.first_revision, -segment.last_revision));
        changes.refuse_mixed().map(|()| changes)
    }

    fn hear(&mut self, told: Evidence) {
        if self.earliest.is_none_or(|known| told.at_ms < known.at_ms) {
            self.earliest = Some(told);
        }
        let asked = match self.point {
            Point::Latest => return,
            Point::Revision(revision) => revision,
            Point::TimeMs(asked) => {
                if told.at_ms <= asked && self.by_then.is_none_or(|known| told.revision > known.revision) {
                    self.by_then = Some(told);
                }
                self.by_then.map_or(0, |by_then| by_then.revision)
            }
        };
        let later = |known: Evidence| known.revision != told.revision || known.at_ms < told.at_ms;
        if told.revision == asked && self.still.is_none_or(later) {
            self.still = Some(told);
        }
    }

    /// Takes evidence that is known from elsewhere: that nothing was missing behind a revision at a time.
    pub fn add_evidence(&mut self, told: Evidence) {
        self.hear(told);
        self.more_evidence.push(told);
    }

    /// The latest time at which `revision`, the point asked for, is known to have been the newest, ms since the Unix epoch.
    pub fn current_until_ms(&self, revision: i64) -> Option<i64> {
        let newest = self.segments.iter().filter_map(|segment| segment.newest);
        let told = newest.chain(self.still).chain(self.more_evidence.iter().copied());
        told.filter(|told| told.revision == revision).map(|told| told.at_ms).max()
    }

    /// Takes HashKV samples that are known from elsewhere: a later snapshot of the same history has one.
    pub fn add_samples(&mut self, samples: impl IntoIterator<Item = HashSample>) {
        self.more_samples.extend(samples);
    }

    pub(crate) fn samples(&self) -> impl Iterator<Item = &HashSample> {
        self.segments.iter().flat_map(|segment| &segment.samples).chain(&self.more_samples)
    }

    fn refuse_mixed(&self) -> Result<()> {
        let Some((first, others)) = self.segments.split_first() else { return Ok(()) };
        let is = first.header.origin;
        for segment in others {
            let other = segment.header.origin;
            let what = if other.cluster_id != is.cluster_id {
                format!("cluster {:x} instead of {:x}", other.cluster_id, is.cluster_id)
            } else if other.timeline != is.timeline {
                "another timeline of the cluster".to_owned()
            } else {
                continue;
            };
            return Err(Error::Mixed { path: segment.path.clone(), other: first.path.clone(), what });
        }
        Ok(())
    }

    /// The segments, by first revision.
    pub fn segments(&self) -> &[SegmentFacts] {
        &self.segments
    }

    /// Whose changes; `None` without segments.
    pub fn origin(&self) -> Option<Origin> {
        self.segments.first().map(|segment| segment.header.origin)
    }

    /// The point asked for.
    pub fn point(&self) -> Point {
        self.point
    }

    /// The revisions missing between segments, each as first and last, with what a watcher said of them.
    pub fn gaps(&self) -> Vec<(i64, i64, Option<GapSeen>)> {
        let mut gaps = Vec::new();
        let Some(first) = self.segments.first() else { return gaps };
        let mut end = first.last_revision;
        for segment in &self.segments {
            let begin = segment.header.first_revision;
            if begin > end + 1 {
                gaps.push((end + 1, begin - 1, segment.gap));
            }
            end = end.max(segment.last_revision);
        }
        gaps
    }
}
