//! What could be lost now, and why it is not known when it is not.

use etcd_disk::segment::GapSeen;

/// The state of the stream; published whenever it changes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Health {
    /// The newest revision that is on this machine's disk.
    pub durable_revision: i64,
    /// The highest revision that any member told at the last probe.
    pub highest_revision: Option<i64>,
    /// What a total loss of the cluster would cost.
    pub rpo: Rpo,
    /// The endpoint that is followed.
    pub following: Option<String>,
    /// What each endpoint is good for, in the order of the configuration.
    pub members: Vec<MemberHealth>,
    /// Alarms that members raised, as the last probe found them: member id and kind (`NOSPACE`, `CORRUPT`).
    pub alarms: Vec<(String, String)>,
    /// What the last comparison of the members found.
    pub compared: Option<Compared>,
    /// The spool holds as much as it may: nothing is received until somebody takes segments away.
    pub spool_full: bool,
    /// Revisions that etcd compacted before they were received, since the start.
    pub gaps: Vec<GapSeen>,
    /// How often the watch was opened, since the start.
    pub watches: u64,
    /// How often a member computed a HashKV for this agent, since the start.
    pub proofs: u64,
    /// The newest of them.
    pub last_proof: Option<Proof>,
}

/// A HashKV that a member computed for this agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The member.
    pub url: String,
    /// The revision that it is of.
    pub revision: i64,
    /// How long the member needed.
    pub took: std::time::Duration,
}

/// What the members answered for one compaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// The revision of the compaction.
    pub revision: i64,
    /// Endpoints whose data differ from most others'; without a majority all that disagree.
    pub diverged: Vec<String>,
}

/// What would be lost if the cluster were gone.
#[derive(Debug, Clone, PartialEq)]
pub enum Rpo {
    /// Nothing that was acknowledged up to this time, ms since the Unix epoch, would be missing.
    Known {
        /// When that was proved.
        proved_ms: i64,
    },
    /// Not known: treat as a loss.
    Unknown {
        /// Why there is no proof.
        why: String,
        /// The last time that it was known, ms since the Unix epoch.
        last_proved_ms: Option<i64>,
    },
}

impl Default for Rpo {
    fn default() -> Self {
        Self::Unknown { why: "not yet probed".into(), last_proved_ms: None }
    }
}

/// An endpoint, as the last probe found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberHealth {
    /// Its URL.
    pub url: String,
    /// Its revision, or why it is not followed.
    pub state: Result<i64, String>,
}
