//! The diagnosis: findings for people, and verdicts the planner decides by. Pure data.

use crate::finding::{CheckLine, Finding};
use crate::host::Component;
use crate::{HostId, MemberId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the inventory means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    /// Check lines in layer order.
    pub checks: Vec<CheckLine>,
    /// Findings, root causes before their consequences.
    pub findings: Vec<Finding>,
    /// State of etcd as a whole.
    pub etcd: EtcdVerdict,
    /// State of each host's member, by host.
    pub members: BTreeMap<HostId, MemberVerdict>,
    /// Components (other than etcd's data) that need an action, by host.
    pub components: BTreeMap<HostId, BTreeMap<Component, ComponentVerdict>>,
    /// Hosts whose kubelet must be started for static pods to run.
    pub kubelets_stopped: Vec<HostId>,
    /// Unix time in ms of the first evidence of the failure, and what it is; none = not told by anything seen.
    pub failed_since: Option<(i64, String)>,
}

/// etcd as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum EtcdVerdict {
    /// Every member answers, agrees, and is in quorum.
    Healthy,
    /// Quorum holds; these hosts' members need work.
    QuorumHolds,
    /// Nothing is lost, but too few members run; starting the stopped ones brings quorum back.
    Stopped,
    /// Data of so many members is lost or corrupted that quorum can't come back: restore.
    DataLost,
    /// Answers and may look healthy, but holds an empty or foreign store (bootstrapped anew after its disks were wiped):
    /// restore.
    EmptyImposter,
    /// Could not be told; the planner must refuse.
    Unknown(String),
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum MemberVerdict {
    /// Answers and in quorum.
    Healthy,
    /// Not running, data whole.
    StoppedIntact,
    /// Running and answering without quorum; data whole.
    NoQuorum,
    /// Running from deleted or damaged files: still the holder of data, must not be stopped before it is saved.
    ServingFromLostFiles,
    /// Running process that does not answer, with its db deleted but open.
    OpenDbOnly,
    /// Data dir missing or empty.
    DataLost,
    /// Data dir there, but db or WAL damaged.
    DataCorrupt,
    /// In quorum under its old id after its disk was wiped (it forgot its votes): must be replaced.
    RejoinedWiped,
    /// Bootstrapped a new, empty cluster.
    EmptyImposter,
    /// Member of the old cluster, removed from the present one.
    Removed(MemberId),
    /// Host attested lost.
    HostLost,
    /// Could not be told.
    Unknown(String),
}

impl MemberVerdict {
    /// Whether the member's own data is gone or can't be trusted to be the cluster's.
    pub fn is_lost(&self) -> bool {
        matches!(
            self,
            Self::DataLost
                | Self::DataCorrupt
                | Self::RejoinedWiped
                | Self::EmptyImposter
                | Self::HostLost
                | Self::Removed(_)
                | Self::OpenDbOnly
                | Self::ServingFromLostFiles
        )
    }
}

/// What a component needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ComponentVerdict {
    /// Its unit is stopped or failed: start it.
    UnitStopped {
        /// Unit name.
        unit: String,
    },
    /// Its manifest is not in place; a copy was found.
    ManifestMoved {
        /// Where the copy lies.
        found: crate::HostPath,
        /// Where it belongs.
        belongs: crate::HostPath,
    },
    /// Its manifest is not in place and no copy was found.
    ManifestMissing,
    /// Its manifest is broken (does not parse, or a flag the program does not know); a repaired text is at hand.
    ManifestBroken {
        /// The file.
        path: crate::HostPath,
        /// SHA-256 (hex) of the broken file.
        sha256: String,
        /// The text to put in its place.
        repaired: String,
        /// What the repair is, for people: `the last good copy PATH`, `flag --x removed`.
        repair: String,
    },
    /// It should run by its manifest but its container does not; only its kubelet can start it.
    ContainerStopped,
    /// Down as a consequence (etcd or kubelet below it).
    Consequence,
    /// Down, cause not told by anything seen.
    Down(String),
}
