//! Segments of the change stream: what a watcher received, revision by revision, in one append-only file.
//!
//! - `frame.rs`: the checksummed frames, as bytes.
//! - `writer.rs`: [`SegmentWriter`] appends and syncs; [`seal`] ends what a killed writer left.
//! - `reader.rs`: [`SegmentReader`] reads hostile files, and torn ones up to the last whole frame.
//! - `facts.rs`: [`survey`] says what a segment holds. `merge.rs`: [`merge()`] makes one of several.
//!
//! The format is drawn in `docs/formats/segment.md`. Several segments as one stream: [`crate::changes`].

mod facts;
mod frame;
mod merge;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use facts::survey_with;
pub use facts::{Evidence, RowsDigest, SegmentFacts, survey, survey_bytes};
pub use merge::merge;
pub use reader::{Record, Row, SegmentReader};
pub use writer::{SegmentWriter, seal};

use crate::hashkv::HashKv;

/// Which history a stream belongs to: revisions of two of them are never mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    /// etcd's cluster id.
    pub cluster_id: u64,
    /// Random id of the timeline; a restore begins a new one.
    pub timeline: [u8; 16],
}

/// The head of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Whose changes.
    pub origin: Origin,
    /// The revision the segment begins with.
    pub first_revision: i64,
    /// When it was begun, ms since the Unix epoch.
    pub created_ms: i64,
    /// Who wrote it; at most [`WRITER_BYTES_MAX`].
    pub writer: String,
}

/// Longest name of a writer, bytes.
pub const WRITER_BYTES_MAX: usize = 256;

/// A lease as the watcher found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseSeen {
    /// When, ms since the Unix epoch.
    pub at_ms: i64,
    /// Its id.
    pub id: i64,
    /// The TTL it was granted, seconds; 0 when it was gone.
    pub granted_ttl_s: i64,
    /// What was left of it, seconds; -1: it was gone before it could be asked for.
    pub remaining_s: i64,
}

/// Why revisions are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapCause {
    /// etcd had compacted them before they were received.
    Compacted,
    /// The watcher's spool was full.
    SpoolFull,
}

impl std::fmt::Display for GapCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Compacted => "compacted before they were received",
            Self::SpoolFull => "the spool was full",
        })
    }
}

/// Revisions that the watcher did not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GapSeen {
    /// When it was found, ms since the Unix epoch.
    pub at_ms: i64,
    /// The first missing revision.
    pub first: i64,
    /// The last missing revision.
    pub last: i64,
    /// Why.
    pub cause: GapCause,
}

/// A HashKV that a member answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashSample {
    /// When, ms since the Unix epoch.
    pub at_ms: i64,
    /// The answer.
    pub hash_kv: HashKv,
}
