//! Where data may be restored from, and whose data it is.

use crate::HostPath;
use crate::etcd::DbFacts;
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
    /// SHA-256 (hex) of the db bytes, when it is a file with a trailer that matched.
    pub sha256: Option<String>,
    /// Whose data it is, compared with this cluster.
    pub identity: Identity,
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
