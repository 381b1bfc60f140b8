//! Reports: what `check` and a run tell, in the form that is stored and printed.

use crate::HostPath;
use crate::event::{Event, Outcome};
use crate::finding::{CheckLine, Finding};
use crate::kube::ClusterRef;
use crate::plan::{Cost, Phase};
use crate::{RunId, Seen};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What `rekindle check` tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    /// `rekindle/v1alpha1`.
    pub api_version: String,
    /// `CheckReport`.
    pub kind: String,
    /// When, milliseconds since the Unix epoch.
    pub taken_ms: i64,
    /// Whether nothing failed.
    pub success: bool,
    /// Lines in layer order.
    pub checks: Vec<CheckLine>,
    /// Findings, root causes first.
    pub findings: Vec<Finding>,
}

/// One thing that was proved, or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// What: `HashKV of root@10.0.0.11 equals the native value`.
    pub what: String,
    /// Whether it held; unknown when it could not be asked.
    pub held: Seen<bool>,
    /// The figures.
    pub figures: String,
}

/// Where something was moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Moved {
    /// Host; `local` for the machine Rekindle runs on.
    pub host: String,
    /// From.
    pub from: HostPath,
    /// To.
    pub to: HostPath,
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunReport {
    /// `rekindle/v1alpha1`.
    pub api_version: String,
    /// `RunReport`.
    pub kind: String,
    /// The run.
    pub run_id: RunId,
    /// The cluster it worked on through its API, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterRef>,
    /// How it ended.
    pub outcome: Outcome,
    /// What was wrong.
    pub findings: Vec<Finding>,
    /// What was done, in a paragraph.
    pub summary: String,
    /// RTO.
    pub rto: Rto,
    /// RPO.
    pub rpo: Cost,
    /// Revision of the source that was restored.
    pub restored_revision: Option<i64>,
    /// Revision the store was raised to; none when every revision is as it was.
    pub raised_to_revision: Option<i64>,
    /// What was proved.
    pub verifications: Vec<Verification>,
    /// What was moved where.
    pub moved: Vec<Moved>,
    /// The timeline, without progress.
    pub timeline: Vec<Event>,
    /// What is left to do by a person.
    pub left_to_do: Vec<String>,
}

/// Recovery time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rto {
    /// Start of the clock (ms since the Unix epoch) and what it is.
    pub from_ms: i64,
    /// The evidence for that start.
    pub from_evidence: String,
    /// Until `/readyz` of every API server, milliseconds.
    pub to_ready_ms: Option<i64>,
    /// Until verified, milliseconds.
    pub to_verified_ms: Option<i64>,
    /// The same two without the time waited for consent, counted from the start of the run.
    pub run_to_ready_ms: Option<i64>,
    /// Start of the run to verified, without consent.
    pub run_to_verified_ms: Option<i64>,
    /// By phase, milliseconds.
    pub by_phase_ms: BTreeMap<Phase, i64>,
}
