//! Numbers steps and groups them into stages.

use rekindle_model::HostId;
use rekindle_model::plan::{Phase, PlannedStep};
use rekindle_model::step::{Reversibility, Step};

/// Steps in the making.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    steps: Vec<PlannedStep>,
    stage: u32,
    number: u32,
}

impl Steps {
    /// Begins a stage: it starts when everything before has ended. Does nothing while the present one is empty.
    pub(crate) fn stage(&mut self) {
        if self.steps.last().is_some_and(|s| s.stage == self.stage) || self.stage == 0 {
            self.stage += 1;
        }
    }

    /// Adds a step to the present stage. `host` none = the machine Rekindle runs on.
    pub(crate) fn add(
        &mut self,
        host: Option<&HostId>,
        phase: Phase,
        reversibility: Reversibility,
        summary: impl Into<String>,
        step: Step,
    ) {
        if self.stage == 0 {
            self.stage = 1;
        }
        self.number += 1;
        self.steps.push(PlannedStep {
            number: self.number,
            stage: self.stage,
            host: host.cloned(),
            phase,
            reversibility,
            summary: summary.into(),
            step,
        });
    }

    /// Whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether a step was added that `wanted` picks.
    pub(crate) fn any(&self, wanted: impl Fn(&Step) -> bool) -> bool {
        self.steps.iter().any(|planned| wanted(&planned.step))
    }

    /// The steps.
    pub(crate) fn into_vec(self) -> Vec<PlannedStep> {
        self.steps
    }
}
