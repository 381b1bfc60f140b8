//! Inventory, diagnosis and goal to a plan, and a linter for plans: pure, synchronous, deterministic.
//!
//! Start with [`plan`]: it takes the verdicts of the diagnosis to one of three roads, [`restart`] (nothing is lost),
//! [`replace_member`] (quorum holds) or [`restore`] (it does not), or to a refusal in [`refuse`]. What the roads share:
//! [`survey`] (whose members they are), [`sources`] (which data is taken), [`revision`] (how high it is raised),
//! [`cost`] (what is lost), [`manifest`] and [`mod@unit`] (text edits), [`paths`] (where things are moved), [`build`]
//! (numbering of steps). [`certificates`], [`mod@reset`] and [`mod@breaking`] are roads of their own, taken when they are
//! asked for. Plans through the API alone are [`kube`]'s. [`lint()`] holds the rules every plan must keep.

pub mod breaking;
mod build;
pub mod certificates;
mod cost;
pub mod kube;
mod lint;
pub mod manifest;
mod parts;
mod parts_plan;
mod paths;
mod refuse;
mod replace_member;
pub mod reset;
mod restart;
mod restore;
pub mod revision;
mod saves;
mod sources;
mod space;
mod survey;
pub mod unit;
mod words;

pub use lint::lint;

use rekindle_model::diagnosis::{Diagnosis, EtcdVerdict};
use rekindle_model::inventory::Inventory;
use rekindle_model::plan::{Goal, PlanOutcome};
use survey::Context;

/// Makes the plan: every choice is made here, none later.
///
/// `now_ms` is the time of planning in milliseconds since the Unix epoch; the same four inputs give the same outcome.
pub fn plan(inventory: &Inventory, diagnosis: &Diagnosis, goal: &Goal, now_ms: i64) -> PlanOutcome {
    let context = Context { inventory, diagnosis, goal, now_ms };
    match &diagnosis.etcd {
        _ if goal.go_back => restore::plan(&context),
        EtcdVerdict::Unknown(why) => refuse::unknown(&context, why),
        EtcdVerdict::Healthy | EtcdVerdict::Stopped => restart::plan(&context),
        EtcdVerdict::QuorumHolds => replace_member::plan(&context),
        EtcdVerdict::DataLost if survey::intact_quorum(&context) => replace_member::plan(&context),
        EtcdVerdict::DataLost | EtcdVerdict::EmptyImposter => restore::plan(&context),
    }
}
