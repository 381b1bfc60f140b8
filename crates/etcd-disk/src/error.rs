//! What can go wrong. [`Error`] says its own level only; causes are chained as sources.

use std::io;
use std::path::PathBuf;

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
