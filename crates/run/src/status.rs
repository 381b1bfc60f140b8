//! What a journal means: the status of each step, derived by replay. Illegal transitions are errors, never guessed away.
//!
//! The table stands in [`next`] and, drawn, in `docs/formats/journal.md`.

use crate::journal::{JournalError, Record};
use camino::Utf8Path;
use rekindle_model::event::{Outcome, Outputs, What};
use rekindle_model::plan::Plan;
use rekindle_model::step::Reversibility;
use std::collections::BTreeMap;

/// Where a step stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StepStatus {
    /// Not begun.
    #[default]
    NotStarted,
    /// Begun; when nobody works on it, interrupted: it may or may not have acted.
    Started,
    /// Done.
    Done,
    /// Failed; it may have acted in part.
    Failed,
    /// Undoing begun.
    Undoing,
    /// Undone.
    Undone,
    /// Undoing failed.
    UndoFailed,
}

/// What is known of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepState {
    /// Where it stands.
    pub status: StepStatus,
    /// What was found before it acted first.
    pub before: Outputs,
    /// Its outputs.
    pub outputs: Outputs,
    /// The error of the last failure, with its causes.
    pub error: Vec<String>,
}

/// What is known of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunState {
    /// Steps by number.
    pub steps: BTreeMap<u32, StepState>,
    /// How it ended, when it did.
    pub ended: Option<Outcome>,
    /// Whether undoing has begun: from there a run only goes back.
    pub undoing: bool,
}

impl RunState {
    /// Replays a journal.
    pub fn replay(plan: &Plan, path: &Utf8Path, records: &[Record]) -> Result<Self, JournalError> {
        let steps = plan.steps.iter().map(|step| (step.number, StepState::default())).collect();
        let mut state = Self { steps, ..Self::default() };
        for record in records {
            state.take(&record.event.what).map_err(|fault| JournalError::IllegalTransition {
                path: path.to_owned(),
                line: record.n,
                fault,
            })?;
        }
        Ok(state)
    }

    /// Takes one event in; the error says which transition is not allowed.
    pub fn take(&mut self, what: &What) -> Result<(), String> {
        match what {
            What::StepStarted { step, before, .. } => {
                let state = self.step(*step, what)?;
                // What was there first counts: a second start sees the step's own work.
                if state.before.is_empty() {
                    state.before.clone_from(before);
                }
                self.ended = None;
            }
            What::StepDone { step, outputs } => self.step(*step, what)?.outputs.clone_from(outputs),
            What::StepFailed { step, error } => self.step(*step, what)?.error.clone_from(error),
            What::UndoStarted { step } => {
                self.step(*step, what)?;
                self.undoing = true;
                self.ended = None;
            }
            What::UndoDone { step } => {
                self.step(*step, what)?;
            }
            What::UndoFailed { step, error } => self.step(*step, what)?.error.clone_from(error),
            What::RunEnded { outcome } => self.ended = Some(*outcome),
            What::RunStarted { .. }
            | What::PhaseStarted { .. }
            | What::Progress { .. }
            | What::Note { .. } => {}
        }
        Ok(())
    }

    fn step(&mut self, number: u32, what: &What) -> Result<&mut StepState, String> {
        let undoing = self.undoing;
        let state = self.steps.get_mut(&number).ok_or_else(|| format!("the plan has no step {number}"))?;
        let from = state.status;
        let to = next(from, what).filter(|to| !(undoing && *to == StepStatus::Started));
        state.status = to.ok_or_else(|| format!("step {number} can't go from {from:?} by {}", name(what)))?;
        Ok(state)
    }

    /// Status of a step.
    pub fn status(&self, number: u32) -> StepStatus {
        self.steps.get(&number).map(|state| state.status).unwrap_or_default()
    }

    /// The first final step that was begun, if any: from there on there is no way back.
    pub fn past_no_return<'a>(&self, plan: &'a Plan) -> Option<&'a rekindle_model::plan::PlannedStep> {
        plan.steps.iter().find(|step| {
            step.reversibility == Reversibility::Final && self.status(step.number) != StepStatus::NotStarted
        })
    }

    /// Whether every step is done.
    pub fn all_done(&self) -> bool {
        self.steps.values().all(|state| state.status == StepStatus::Done)
    }
}

/// The transition table. Repeated starts are what `resume` writes for an interrupted or failed step.
pub fn next(from: StepStatus, what: &What) -> Option<StepStatus> {
    use StepStatus::{Done, Failed, NotStarted, Started, UndoFailed, Undoing, Undone};
    match (from, what) {
        (NotStarted | Started | Failed, What::StepStarted { .. }) => Some(Started),
        (Started, What::StepDone { .. }) => Some(Done),
        (Started, What::StepFailed { .. }) => Some(Failed),
        (Started | Done | Failed | Undoing | UndoFailed, What::UndoStarted { .. }) => Some(Undoing),
        (Undoing, What::UndoDone { .. }) => Some(Undone),
        (Undoing, What::UndoFailed { .. }) => Some(UndoFailed),
        _ => None,
    }
}

fn name(what: &What) -> &'static str {
    match what {
        What::StepStarted { .. } => "stepStarted",
        What::StepDone { .. } => "stepDone",
        What::StepFailed { .. } => "stepFailed",
        What::UndoStarted { .. } => "undoStarted",
        What::UndoDone { .. } => "undoDone",
        What::UndoFailed { .. } => "undoFailed",
        _ => "an event of the run",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Of 7 states and 6 events only the transitions that a run can really make are allowed.
    #[test]
    fn only_what_can_happen_is_allowed() {
        use StepStatus::*;
        let events = [
            What::StepStarted {
                step: 1,
                phase: rekindle_model::plan::Phase::Stop,
                host: None,
                summary: String::new(),
                before: Outputs::new(),
            },
            What::StepDone { step: 1, outputs: Outputs::new() },
            What::StepFailed { step: 1, error: vec![] },
            What::UndoStarted { step: 1 },
            What::UndoDone { step: 1 },
            What::UndoFailed { step: 1, error: vec![] },
        ];
        let states = [NotStarted, Started, Done, Failed, Undoing, Undone, UndoFailed];
        let allowed: usize =
            states.iter().map(|from| events.iter().filter(|what| next(*from, what).is_some()).count()).sum();
        assert_eq!(allowed, 12);
        assert!(events.iter().all(|what| next(Undone, what).is_none()), "undone is the end");
        assert_eq!(next(Done, &events[0]), None, "what is done is not done again");
    }
}
