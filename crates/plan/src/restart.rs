//! Stub.
use crate::survey::Context;
use rekindle_model::plan::PlanOutcome;
pub(crate) fn plan(_context: &Context<'_>) -> PlanOutcome { PlanOutcome::NothingToDo("nothing is wrong".into()) }
