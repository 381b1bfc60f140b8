//! The linter: rules that every plan must hold, whoever made it.
//!
//! It knows nothing of how plans are made: it reads the steps and the inventory and says what would be unsafe. The
//! planner's tests run it over every plan, and `apply` runs it again over the file it is given. [`order`] holds what
//! must come before what, [`places`] where things may be moved, [`members`] that all parts mean the same cluster.

mod members;
mod order;
mod places;

use rekindle_model::HostId;
use rekindle_model::host::HostFacts;
use rekindle_model::inventory::Inventory;
use rekindle_model::plan::{Plan, PlannedStep};
use rekindle_model::step::{NewMember, RestoreForm, SourceFile, Step};

/// Checks a plan against the inventory it was made from. Returns one sentence per broken rule; empty = clean.
pub fn lint(plan: &Plan, inventory: &Inventory) -> Vec<String> {
    let view = View { plan, inventory };
    let mut notes = Vec::new();
    order::numbers(&view, &mut notes);
    order::hosts(&view, &mut notes);
    order::saves_before_stops(&view, &mut notes);
    order::build_before_stage_before_swap(&view, &mut notes);
    order::proofs_before_clients(&view, &mut notes);
    order::final_steps_last(&view, &mut notes);
    order::membership(&view, &mut notes);
    places::renames(&view, &mut notes);
    places::parked_come_back(&view, &mut notes);
    members::same_cluster(&view, &mut notes);
    members::settings(&view, &mut notes);
    members::raised_above_evidence(&view, &mut notes);
    notes
}

/// What the rules read.
struct View<'a> {
    plan: &'a Plan,
    inventory: &'a Inventory,
}

/// What a `BuildDb` says.
struct Built<'a> {
    at: &'a PlannedStep,
    source: &'a SourceFile,
    form: &'a RestoreForm,
    members: &'a [NewMember],
    token: &'a str,
    file: &'a rekindle_model::HostPath,
}

impl<'a> View<'a> {
    fn steps(&self) -> std::slice::Iter<'a, PlannedStep> {
        self.plan.steps.iter()
    }

    /// The facts of the host a step works on.
    fn host(&self, step: &PlannedStep) -> Option<&'a HostFacts> {
        self.inventory.host(step.host.as_ref()?)
    }

    /// The `BuildDb` steps: a plan with one restores.
    fn built(&self) -> Vec<Built<'a>> {
        self.steps()
            .filter_map(|at| match &at.step {
                Step::BuildDb { source, form, members, token, file, .. } => {
                    Some(Built { at, source, form, members, token, file })
                }
                _ => None,
            })
            .collect()
    }
}

/// Whether `first` has ended when `then` starts: an earlier stage, or earlier on the same host.
fn before(first: &PlannedStep, then: &PlannedStep) -> bool {
    first.stage < then.stage
        || (first.stage == then.stage && first.host == then.host && first.number < then.number)
}

/// How a step is named in a note.
fn named(step: &PlannedStep) -> String {
    let host = step.host.as_ref().map_or("here", |h: &HostId| h.0.as_str());
    format!("step {} ({}, {host})", step.number, step.summary)
}
