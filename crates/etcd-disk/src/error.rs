//! What can go wrong. [`Error`] says its own level only; causes are chained as sources.

use std::io;
use std::path::PathBuf;

use crate::segment::GapCause;

/// A failure of this crate, naming the file it is about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be used.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The database inside the file cannot be read or written.
    #[error("{}: its database cannot be used", path.display())]
    Bolt {
        /// The file.
        path: PathBuf,
        /// The damage, with its place.
        #[source]
        source: boltfile::Error,
    },
    /// A snapshot file is not one, or not whole.
    #[error("{}: not a whole snapshot", path.display())]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SnapshotFault,
    },
    /// A row of the `key` bucket breaks etcd's format.
    #[error("{}: bucket key, row {row}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The row's key in hex.
        row: String,
        /// What is wrong with it.
        #[source]
        source: RowFault,
    },
    /// An entry of another bucket breaks etcd's format.
    #[error("{}: bucket {bucket}, entry {entry}: {fault}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The bucket's name.
        bucket: &'static str,
        /// The entry's key, escaped.
        entry: String,
        /// What is wrong with it.
        fault: String,
    },
    /// The write-ahead log is damaged.
    #[error("{}: write-ahead log damaged at byte {offset}: {fault}", path.display())]
    Wal {
        /// The segment file.
        path: PathBuf,
        /// Where in the segment, bytes.
        offset: u64,
        /// What is wrong there.
        fault: WalFault,
    },
    /// A `.snap` file is damaged.
    #[error("{}: damaged: {fault}", path.display())]
    SnapFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// The new cluster described by the caller cannot be.
    #[error("the new cluster cannot be made: {0}")]
    Cluster(String),
    /// A restore that would harm or could not work.
    #[error("{}: refused: {reason}", path.display())]
    Refused {
        /// The source or the target.
        path: PathBuf,
        /// Why, and what to do instead.
        reason: String,
    },
    /// Log entries that cannot be applied natively.
    #[error("{}: the log entry {index} cannot be applied: {reason}", path.display())]
    Replay {
        /// The WAL folder.
        path: PathBuf,
        /// The raft index of the entry.
        index: u64,
        /// Why.
        reason: String,
    },
    /// A segment of the change stream is damaged or none.
    #[error("{}: not a whole segment, at byte {offset}", path.display())]
    Segment {
        /// The segment.
        path: PathBuf,
        /// Where in it, bytes.
        offset: u64,
        /// What is wrong there.
        #[source]
        source: SegmentFault,
    },
    /// Segments that are not parts of one stream.
    #[error("{}: not of the same stream as {}: {what}", path.display(), other.display())]
    Mixed {
        /// A segment.
        path: PathBuf,
        /// One that came before it.
        other: PathBuf,
        /// In what they differ.
        what: String,
    },
    /// The point in time asked for cannot be reached.
    #[error("{asked} cannot be restored from {}", base.display())]
    Point {
        /// The target.
        asked: String,
        /// The snapshot to restore from.
        base: PathBuf,
        /// Why, and what is nearest.
        #[source]
        source: PointFault,
    },
    /// The rebuilt store is not the one that the cluster had.
    #[error(
        "the rebuilt store is wrong: HashKV {computed:08x} at revision {revision} (compact revision {compact_revision}), the cluster answered {answered:08x}"
    )]
    Proof {
        /// The sample's revision.
        revision: i64,
        /// The sample's compact revision.
        compact_revision: i64,
        /// The member's answer.
        answered: u32,
        /// From the rows.
        computed: u32,
    },
    /// A worker thread died; a bug, reported instead of a crash.
    #[error("a worker thread died while {0}")]
    Worker(&'static str),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a file is not a whole snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotFault {
    /// The size shows that no sha256 follows the database.
    #[error(
        "it has no sha256 at its end ({size_bytes} bytes): truncated, or a copied database file, which needs an explicit skip of the check"
    )]
    NoTrailer {
        /// The file's size.
        size_bytes: u64,
    },
    /// The sha256 does not fit the bytes.
    #[error("its sha256 is {actual}, its trailer says {expected}")]
    Sha256 {
        /// From the trailer, hex.
        expected: String,
        /// Computed, hex.
        actual: String,
    },
    /// The database's structure is broken.
    #[error("{count} violations of the database's structure, the first: {first}")]
    Structure {
        /// How many.
        count: usize,
        /// The first one found.
        first: String,
    },
    /// The bucket without which it is no etcd store is missing.
    #[error("no bucket \"{0}\": not the database of an etcd")]
    NoBucket(&'static str),
    /// A HashKV was asked for at a revision that the store does not cover.
    #[error("its revisions run from {compact_revision} to {revision}; {asked} is outside")]
    HashRevision {
        /// The revision asked for.
        asked: i64,
        /// The compacted revision.
        compact_revision: i64,
        /// The newest revision.
        revision: i64,
    },
}

/// What is wrong with a row of the `key` bucket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowFault {
    /// Neither 17 bytes nor 18 with a tombstone mark, or no `_` in the middle.
    #[error("a key of {len} bytes that is no revision")]
    KeyShape {
        /// Its length.
        len: usize,
    },
    /// A number above 2^63.
    #[error("a negative revision")]
    NegativeRevision,
    /// The value is no `mvccpb.KeyValue`.
    #[error("a value that is no mvccpb.KeyValue: {0}")]
    ValueShape(&'static str),
    /// More rows than can be counted in 32 bits.
    #[error("more than 4 billion rows")]
    TooMany,
}

/// What is wrong at a place in the write-ahead log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalFault {
    /// A record longer than the file.
    #[error("a record of {len} bytes where {left} are left")]
    Length {
        /// The record's length, bytes.
        len: u64,
        /// What the file still holds, bytes.
        left: u64,
    },
    /// A frame that is no record.
    #[error("not a record: {0}")]
    Record(String),
    /// The running CRC-32C does not fit.
    #[error("checksum {actual:08x}, recorded {expected:08x}")]
    Crc {
        /// From the record.
        expected: u32,
        /// Computed.
        actual: u32,
    },
    /// A record type that etcd does not have.
    #[error("record type {0}, which etcd does not have")]
    Kind(i64),
    /// Two metadata records disagree.
    #[error("member or cluster id other than at the start of the log")]
    MetadataConflict,
    /// An entry's index jumps ahead.
    #[error("entry {index} follows entry {last}")]
    Gap {
        /// The entry's index.
        index: u64,
        /// The one before it.
        last: u64,
    },
    /// A segment is missing between two others.
    #[error("segment {found} follows segment {last}")]
    Sequence {
        /// The sequence number found.
        found: u64,
        /// The one before it.
        last: u64,
    },
}

/// What is wrong at a place in a segment of the change stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentFault {
    /// Not a segment.
    #[error("it does not begin as a segment does")]
    Magic,
    /// A checksum that does not fit, with a good frame behind it.
    #[error("checksum {actual:08x}, recorded {expected:08x}")]
    Crc {
        /// From the frame.
        expected: u32,
        /// Computed.
        actual: u32,
    },
    /// A kind of frame that the format does not have.
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    /// A frame whose body breaks the format.
    #[error("a bad frame: {0}")]
    Body(&'static str),
    /// A row that etcd would not have written.
    #[error("a bad row")]
    Row(#[source] RowFault),
    /// A revision out of its order.
    #[error("revision {found} where change {sub} of revision {expected} is due")]
    Order {
        /// The revision found.
        found: i64,
        /// The one that is due.
        expected: i64,
        /// The sub revision that is due.
        sub: u32,
    },
    /// The digest at its end does not fit.
    #[error("its sha256 does not fit its bytes")]
    Sha256,
    /// Appending something that the format cannot hold.
    #[error("cannot be written: {0}")]
    Unwritable(&'static str),
}

/// Why a point in time cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PointFault {
    /// Revisions between the snapshot and the target are in no segment.
    #[error(
        "revisions {first} to {last} are missing{}; the nearest point before is revision {before}, behind them only a snapshot of revision {last} or later leads",
        cause.map(|cause| format!(" ({cause})")).unwrap_or_default()
    )]
    Gap {
        /// The first missing revision.
        first: i64,
        /// The last missing revision.
        last: i64,
        /// The newest revision that can be restored.
        before: i64,
        /// Why they are missing, if the watcher said so.
        cause: Option<GapCause>,
    },
    /// The snapshot is newer than the target.
    #[error("the snapshot has revision {base}, which is newer; an earlier snapshot is needed")]
    BeforeBase {
        /// The snapshot's revision.
        base: i64,
    },
    /// The target is before all that the segments tell the time of.
    #[error(
        "the earliest time known is {earliest_ms} ms (revision {revision}); an earlier segment is needed"
    )]
    BeforeStream {
        /// The earliest time told, ms since the Unix epoch.
        earliest_ms: i64,
        /// The revision then.
        revision: i64,
    },
    /// The target is behind the end of the segments.
    #[error("the stream ends with revision {last}{}", until_ms.map(|ms| format!(", known to {ms} ms")).unwrap_or_default())]
    BehindEnd {
        /// The newest revision of snapshot and segments.
        last: i64,
        /// The time up to which nothing newer was there, ms since the Unix epoch.
        until_ms: Option<i64>,
    },
    /// The segments tell another history than the snapshot.
    #[error("the segments have other rows at revision {revision} than the snapshot: another history")]
    OtherHistory {
        /// The snapshot's newest row's revision.
        revision: i64,
    },
}
