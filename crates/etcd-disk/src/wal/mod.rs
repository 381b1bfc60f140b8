//! The write-ahead log: `member/wal/<seq>-<index>.wal`, a chain of checksummed records over several segment files.
//!
//! ```text
//! segment | frame | frame | ... | zeros (preallocated)        name: %016x-%016x.wal, sequence and first index
//! frame   | LE u64: 56 bits record length, top byte 0x80|pad when padded | walpb.Record | pad to 8 bytes |
//! record  { 1 type, 2 crc, 3 data }    CRC-32C runs on over the data of all records; a crc record restarts it
//! ```
//! Drawn in `docs/formats/etcd-data-dir.md`. Source: etcd `server/storage/wal`.
//! Reading is in `read.rs`, single frames in `frame.rs`, writing a new member's log in `write.rs`.

mod frame;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::path::PathBuf;

pub use frame::decode_bytes;
pub use read::{facts, read};
#[cfg(test)]
pub(crate) use write::Encoder;
pub(crate) use write::{TERM, conf_state, create};

use crate::ids::EtcdId;
use crate::proto::{Entry, HardState};

/// Record types (`wal.MetadataType` and so on).
pub(crate) mod kind {
    pub(crate) const METADATA: i64 = 1;
    pub(crate) const ENTRY: i64 = 2;
    pub(crate) const STATE: i64 = 3;
    pub(crate) const CRC: i64 = 4;
    pub(crate) const SNAPSHOT: i64 = 5;
}

/// A record that carries something, in the order of the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A raft entry; it overrides all entries read before with the same or a higher index.
    Entry(Entry),
    /// Term, vote and commit index; the last one counts.
    HardState(HardState),
    /// The member had a snapshot of its state at this index.
    Snapshot {
        /// Raft index.
        index: u64,
        /// Raft term.
        term: u64,
    },
}

/// What a whole log says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WalFacts {
    /// Whose log it is.
    pub member_id: Option<EtcdId>,
    /// The cluster it belongs to.
    pub cluster_id: Option<EtcdId>,
    /// Index of the first entry still there, 0 without entries.
    pub first_index: u64,
    /// Index of the last entry that counts, 0 without entries.
    pub last_index: u64,
    /// Term of that entry.
    pub last_term: u64,
    /// From the last hard state: everything up to this index is committed.
    pub commit: u64,
    /// From the last hard state.
    pub term: u64,
    /// From the last hard state: the member voted for.
    pub vote: u64,
    /// Snapshot records as (index, term), in order.
    pub snapshots: Vec<(u64, u64)>,
    /// Entries that change the membership.
    pub conf_changes: u64,
    /// Segment files read.
    pub segments: u64,
    /// How the log ends.
    pub tail: Tail,
}

/// How a log ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Tail {
    /// After a whole record.
    #[default]
    Clean,
    /// Within a record that a crash cut short: never acknowledged, and etcd itself cuts it off at the next start.
    Torn {
        /// The last segment.
        path: PathBuf,
        /// Where the torn record begins, bytes.
        offset: u64,
    },
}
