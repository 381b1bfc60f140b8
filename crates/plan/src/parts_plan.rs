//! Puts the parts of a plan together.

use crate::sources::Choice;
use crate::survey::Context;
use rekindle_model::plan::{Cost, Plan, PlannedStep};
use rekindle_model::{API_VERSION, HostId};

/// What the roads decide.
pub(crate) struct Parts {
    pub(crate) hosts: Vec<HostId>,
    pub(crate) summary: String,
    pub(crate) choice: Choice,
    pub(crate) cost: Cost,
    pub(crate) steps: Vec<PlannedStep>,
    pub(crate) how_to_go_back: String,
    pub(crate) warnings: Vec<String>,
}

/// The plan.
pub(crate) fn assemble(context: &Context<'_>, parts: Parts) -> Plan {
    let mut warnings = parts.warnings;
    if let (None, Some(dir)) = (parts.choice.taken, &context.goal.data_dir) {
        warnings.push(format!("--data-dir {dir} is not used: nothing is restored."));
    }
    Plan {
        api_version: API_VERSION.into(),
        kind: "Plan".into(),
        run_id: context.goal.run_id.clone(),
        made_ms: context.now_ms,
        inventory_digest: context.inventory.decision_digest(),
        cluster: None,
        hosts: parts.hosts,
        lost_hosts: context.inventory.lost_hosts.clone(),
        findings: context.diagnosis.findings.clone(),
        summary: parts.summary,
        source: parts.choice.taken,
        candidates: parts.choice.candidates,
        cost: parts.cost,
        steps: parts.steps,
        how_to_go_back: parts.how_to_go_back,
        failed_since: context.diagnosis.failed_since.clone(),
        warnings,
    }
}
