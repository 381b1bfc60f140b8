//! The plan: immutable, every choice made, tied to the inventory it came from.

use crate::HostPath;
use crate::finding::Finding;
use crate::kube::ClusterRef;
use crate::source::SourceCandidate;
use crate::step::{Reversibility, Step};
use crate::{HostId, RunId, Seen};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the user asked of the planner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Goal {
    /// Id the run will have: names of folders moved aside carry it.
    pub run_id: RunId,
    /// Folder of the run on the machine Rekindle runs on.
    pub run_dir: HostPath,
    /// The cluster token of a new cluster.
    pub token: String,
    /// `--exact`: keep every row and the revision.
    pub exact: bool,
    /// `--data-dir`: restore there and change manifest and kubeadm-config.
    pub data_dir: Option<HostPath>,
    /// Consent to a source whose identity can't be told.
    pub accept_unknown_identity: bool,
    /// Consent to a source with a CORRUPT alarm.
    pub accept_corrupt_alarm: bool,
    /// Consent to a copied db, which has no SHA-256 at its end.
    #[serde(default)]
    pub skip_hash_check: bool,
    /// `--to`: the candidate with a point of a vault is to be restored, even where newer data survives.
    pub go_back: bool,
}

/// Phases, for the report's breakdown of the RTO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// From the first evidence to the start of the run.
    Detect,
    /// Observing and diagnosing.
    Diagnose,
    /// Planning.
    Plan,
    /// Waiting for consent.
    Consent,
    /// Saving what still holds data.
    Save,
    /// Stopping.
    Stop,
    /// Restoring.
    Restore,
    /// Starting etcd and the rest.
    Start,
    /// Waiting for `/readyz` of every API server.
    Ready,
    /// Proving.
    Verify,
    /// Changing objects through the API.
    Change,
}

/// One planned step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedStep {
    /// Number, from 1, in the order of starting.
    pub number: u32,
    /// Steps with the same stage run in parallel, one after another on the same host; a stage starts when the one
    /// before it has ended.
    pub stage: u32,
    /// Host it works on; none = the machine Rekindle runs on.
    pub host: Option<HostId>,
    /// Phase.
    pub phase: Phase,
    /// How far it can be taken back.
    pub reversibility: Reversibility,
    /// One line for people.
    pub summary: String,
    /// What is done.
    pub step: Step,
}

/// What a recovery costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// Revision restored (of the source, before a bump).
    pub restored_revision: Option<i64>,
    /// Last revision known to have been acknowledged, when anything tells it.
    pub lost_end_revision: Seen<i64>,
    /// What tells it, or what bounds it.
    pub evidence: String,
    /// Upper bound of the time lost in seconds.
    pub time_lost_seconds: Seen<i64>,
}

/// The plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// `rekindle/v1alpha1`.
    pub api_version: String,
    /// `Plan`.
    pub kind: String,
    /// The run's id.
    pub run_id: RunId,
    /// When it was made, milliseconds since the Unix epoch.
    pub made_ms: i64,
    /// `Inventory::decision_digest` of what it was made from; empty for a plan through the API, whose steps name each
    /// object by its UID instead.
    pub inventory_digest: String,
    /// The cluster it works on through its API; none = it works on hosts. A plan through the API stops where a step
    /// fails, and is then finished or taken back by a person: what has moved meanwhile is not undone by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterRef>,
    /// Hosts it works on, as the user names them.
    pub hosts: Vec<HostId>,
    /// Hosts attested lost when it was made.
    pub lost_hosts: Vec<HostId>,
    /// What is wrong, root causes first.
    pub findings: Vec<Finding>,
    /// One paragraph: what will be done and why this way.
    pub summary: String,
    /// The source taken (index into `candidates`), none when nothing is restored.
    pub source: Option<usize>,
    /// Every candidate, and beside it why it was or was not taken.
    pub candidates: Vec<(SourceCandidate, String)>,
    /// What it costs.
    pub cost: Cost,
    /// The steps.
    pub steps: Vec<PlannedStep>,
    /// How to go back, for people.
    pub how_to_go_back: String,
    /// First evidence of the failure (ms since the Unix epoch, and what it is).
    pub failed_since: Option<(i64, String)>,
    /// Risks the operator consents to with the plan.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Number of the first step that can't be taken back.
    pub fn point_of_no_return(&self) -> Option<u32> {
        self.steps.iter().find(|s| s.reversibility == Reversibility::Final).map(|s| s.number)
    }
}

/// What planning came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PlanOutcome {
    /// Nothing is wrong.
    NothingToDo(String),
    /// A plan.
    Plan(Box<Plan>),
    /// Refused: what was tried, and what is possible.
    Refused(Refusal),
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// One line.
    pub reason: String,
    /// Candidates looked at, each with why it was not taken.
    pub candidates: Vec<(SourceCandidate, String)>,
    /// What the operator can do.
    pub possible: Vec<String>,
}
