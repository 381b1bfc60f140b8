//! Where data may be restored from, and whose data it is.

use crate::HostPath;
use crate::etcd::{DbFacts, HashKv};
use crate::{HostId, Seen};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One candidate to restore from, good or not: every candidate is shown, and why it was or was not taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceCandidate {
    /// What it is.
    pub kind: SourceKind,
    /// What was read from it, or why it can't be used.
    pub facts: Seen<DbFacts>,
    /// When its data was current, milliseconds since the Unix epoch (a file's time is an upper bound).
    pub taken_ms: Seen<i64>,
    /// SHA-256 (hex) of the db bytes, when it is a file: by it the file is known again.
    pub sha256: Option<String>,
    /// A file that is a copied db: it does not end with the SHA-256 that a saved snapshot ends with, so that nothing but
    /// its structure tells whether it is whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub copied_db: bool,
    /// Whose data it is, compared with this cluster.
    pub identity: Identity,
    /// The point of a vault's history that the file was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<VaultPoint>,
}

/// A point in time out of a vault: a full backup, and the change stream behind it up to a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VaultPoint {
    /// The vault's address.
    pub vault: String,
    /// The cluster's name in it.
    pub cluster: String,
    /// The history, a UUID.
    pub timeline: String,
    /// Number of the full backup.
    pub full: u64,
    /// Pieces of the change stream that were read.
    pub segments: u64,
    /// The revision.
    pub revision: i64,
    /// When it was received, or when the full backup of this revision was begun; milliseconds since the Unix epoch.
    pub received_ms: i64,
    /// The last time at which nothing newer was there, as far as is known: writes acknowledged after it may be lost.
    /// Milliseconds since the Unix epoch.
    pub current_ms: i64,
    /// When the next revision was received: the point was over by then. None when no later one is known.
    pub next_received_ms: Option<i64>,
    /// What proves it.
    pub proof: PointProof,
}

/// Whether a member's own answer proves a point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PointProof {
    /// The rows have the HashKV that was answered for this revision, the point's or a later one.
    Equal(HashKv),
    /// They have another one, and the operator consented to take them.
    Different(HashKv),
    /// No answer is known for the point's revision or a later one.
    None,
}

impl VaultPoint {
    /// What it was made of.
    pub fn made_of(&self) -> String {
        match self.segments {
            0 => format!("full backup {} alone", self.full),
            1 => format!("full backup {} and one segment of changes", self.full),
            count => format!("full backup {} and {count} segments of changes", self.full),
        }
    }
}

impl std::fmt::Display for VaultPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { vault, cluster, revision, .. } = self;
        write!(f, "revision {revision} of {cluster} in {vault}")
    }
}

impl std::fmt::Display for PointProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Equal(hash) => {
                write!(f, "proved by the HashKV {} at revision {}", hash.hash, hash.revision)
            }
            Self::Different(hash) => write!(
                f,
                "DISPROVED by the HashKV {} that a member answered at revision {}; taken by your consent",
                hash.hash, hash.revision
            ),
            Self::None => write!(f, "unproved: no HashKV at this revision or a later one is known"),
        }
    }
}

/// What a candidate is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SourceKind {
    /// A snapshot file on the machine Rekindle runs on.
    SnapshotFile(HostPath),
    /// A member that still answers `Maintenance.Snapshot`.
    Served(HostId),
    /// A deleted but still open `db` of a running etcd.
    OpenDb(HostId),
    /// A stopped member's own db and WAL.
    Store(HostId),
}

impl std::fmt::Display for SourceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SnapshotFile(path) => write!(f, "snapshot {path}"),
            Self::Served(host) => write!(f, "what etcd on {host} still serves"),
            Self::OpenDb(host) => write!(f, "the deleted but open db of etcd on {host}"),
            Self::Store(host) => write!(f, "the data dir of the stopped member on {host}"),
        }
    }
}

/// Whether a candidate belongs to this cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Identity {
    /// The same cluster; the text says by what evidence.
    Same(String),
    /// Another cluster; the text says by what evidence.
    Other(String),
    /// Could not be compared; needs consent. The text says why.
    Unknown(String),
}
