//! `rekindle certs renew`: observe, diagnose, plan the renewal; then as every run: shown, agreed to, journaled, proved.

use super::args::Renew;
use crate::commands::check::options;
use crate::commands::plan::{Made, goal_without_data, new_run, show};
use crate::commands::recover::{carry_out, turn};
use crate::connect;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use rekindle_model::plan::PlanOutcome;
use rekindle_plan::certificates::renew_certificates;
use rekindle_world::observe::observe;

pub(super) fn run(args: &Renew, output: &Output) -> Result<Exit, Failure> {
    let runtime = connect::runtime()?;
    let world = runtime.block_on(connect::world(&args.hosts))?;
    let run_id = new_run();
    let turn = turn(&args.hosts, &args.consent, &run_id)?;
    let began_ms = rekindle_run::now_ms();
    let inventory = runtime.block_on(observe(&world, &options(&args.hosts, None, None)));
    let diagnosis = rekindle_diagnose::diagnose(&inventory);
    let diagnosed_ms = rekindle_run::now_ms();
    let wanted = rekindle_plan::certificates::Renew {
        names: args.names.clone(),
        all: args.all,
        added_names: args.added_names.clone(),
    };
    let goal = goal_without_data(&args.hosts, run_id);
    let outcome = renew_certificates(&inventory, &diagnosis, &goal, &wanted, diagnosed_ms);
    let made = Made { outcome, began_ms, diagnosed_ms };
    match (&made.outcome, turn) {
        (PlanOutcome::Plan(plan), Some(turn)) => {
            carry_out(&runtime, &world, plan, &made, turn, &args.consent, output)
        }
        _ => show(&made.outcome, output),
    }
}
