//! Plans through the API: pure decisions over what was read, as steps with every choice made.
//!
//! [`drain`] empties nodes, [`nodes`] fences and removes them ([`members`] tells their etcd members), [`loss`] has one lost in a drill, [`unstick`] lets go what
//! will not go away.

pub mod drain;
pub mod loss;
pub mod members;
pub mod nodes;
pub mod unstick;

use rekindle_model::finding::Finding;
use rekindle_model::kube::{Change, ClusterRef, ObjectRef};
use rekindle_model::plan::{Cost, Plan, PlanOutcome, PlannedStep, Refusal};
use rekindle_model::{API_VERSION, RunId};
use serde_json::Value;

/// What every plan through the API has.
#[derive(Clone, Debug)]
pub struct Base {
    /// Id the run will have.
    pub run_id: RunId,
    /// Time of planning, milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// The cluster.
    pub cluster: ClusterRef,
}

impl Base {
    /// The plan of these steps.
    fn plan(
        &self,
        summary: String,
        findings: Vec<Finding>,
        steps: Vec<PlannedStep>,
        how_to_go_back: String,
        warnings: Vec<String>,
    ) -> PlanOutcome {
        let hosts =
            steps.iter().filter_map(|step| step.host.clone()).collect::<std::collections::BTreeSet<_>>();
        PlanOutcome::Plan(Box::new(Plan {
            api_version: API_VERSION.into(),
            kind: "Plan".into(),
            run_id: self.run_id.clone(),
            made_ms: self.now_ms,
            inventory_digest: String::new(),
            cluster: Some(self.cluster.clone()),
            hosts: hosts.into_iter().collect(),
            lost_hosts: Vec::new(),
            findings,
            summary,
            source: None,
            candidates: Vec::new(),
            cost: Cost::default(),
            steps,
            how_to_go_back,
            failed_since: None,
            warnings,
        }))
    }
}

fn refused(reason: impl Into<String>, possible: Vec<String>) -> PlanOutcome {
    PlanOutcome::Refused(Refusal { reason: reason.into(), candidates: Vec::new(), possible })
}

/// Marks a node schedulable, or unschedulable. The server keeps "schedulable" as a missing field.
fn schedulable(yes: bool) -> Change {
    let (from, to) = if yes { (true.into(), Value::Null) } else { (Value::Null, true.into()) };
    Change::Set { pointer: "/spec/unschedulable".into(), from, to }
}

/// `a`, `a and b`, `a, b and 3 more`.
fn names<'o>(objects: impl Iterator<Item = &'o ObjectRef>) -> String {
    let all: Vec<String> = objects.map(ObjectRef::full_name).collect();
    match all.as_slice() {
        [] => "none".into(),
        [one] => one.clone(),
        [first, second] => format!("{first} and {second}"),
        [first, second, rest @ ..] => format!("{first}, {second} and {} more", rest.len()),
    }
}
