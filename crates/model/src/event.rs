//! Events: the one stream that terminal, JSON, journal and report render.

use crate::plan::Phase;
use crate::{HostId, RunId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Outputs of a step, by name (`sha256`, `revision`, `hash`, ...): later steps and the report read them.
pub type Outputs = BTreeMap<String, serde_json::Value>;

/// Something that happened, with its time in milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When.
    pub at_ms: i64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "event")]
pub enum What {
    /// A phase began.
    PhaseStarted {
        /// Phase.
        phase: Phase,
    },
    /// The run began (or was taken up again).
    RunStarted {
        /// Run.
        run_id: RunId,
        /// Whether an interrupted run is taken up again.
        resumed: bool,
    },
    /// A step began.
    StepStarted {
        /// Its number in the plan.
        step: u32,
        /// Phase.
        phase: Phase,
        /// Host.
        host: Option<HostId>,
        /// Line for people.
        summary: String,
        /// What was found before it acted (whether a unit ran, whether a file was there): undo restores this.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        before: Outputs,
    },
    /// How far a step is. Not journaled.
    Progress {
        /// Step number; 0 outside a run.
        step: u32,
        /// What is counted, for people: `db to root@10.0.0.12`.
        label: String,
        /// Done so far.
        done: u64,
        /// Of so many; 0 = not known.
        total: u64,
    },
    /// A step succeeded.
    StepDone {
        /// Number.
        step: u32,
        /// Outputs.
        outputs: Outputs,
    },
    /// A step failed.
    StepFailed {
        /// Number.
        step: u32,
        /// The error with its causes, outermost first.
        error: Vec<String>,
    },
    /// Undoing a step began.
    UndoStarted {
        /// Number.
        step: u32,
    },
    /// A step was undone.
    UndoDone {
        /// Number.
        step: u32,
    },
    /// Undoing a step failed: the run is stuck.
    UndoFailed {
        /// Number.
        step: u32,
        /// The error with its causes.
        error: Vec<String>,
    },
    /// The run ended.
    RunEnded {
        /// How.
        outcome: Outcome,
    },
    /// A line worth telling.
    Note {
        /// The line.
        text: String,
    },
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Recovered and verified.
    Verified,
    /// Recovered in part, or not all of it could be verified.
    Partial,
    /// Failed before the point of no return and undone: the cluster is as it was.
    Undone,
    /// Undo failed: a person is needed, the report says where.
    Stuck,
    /// Failed; neither finished nor undone. `resume` or `undo`.
    Failed,
}
