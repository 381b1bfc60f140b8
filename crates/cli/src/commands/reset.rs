//! `rekindle reset`: takes one kubeadm host out of its cluster, everything it had archived first.

use super::check::options;
use super::plan::{Made, goal_without_data, new_run, show};
use super::recover::{carry_out, turn};
use crate::args::{Consent, Hosts};
use crate::connect;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use clap::Args as ClapArgs;
use rekindle_model::HostId;
use rekindle_model::plan::PlanOutcome;
use rekindle_world::observe::observe;

/// `rekindle reset`
#[derive(Debug, ClapArgs)]
pub(crate) struct Reset {
    /// The host to reset, as it is given with --host; the other hosts given are its survivors.
    #[arg(default_value = "local")]
    pub(crate) target: String,
    #[command(flatten)]
    pub(crate) hosts: Hosts,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

pub(super) fn run(args: &Reset, output: &Output) -> Result<Exit, Failure> {
    let runtime = connect::runtime()?;
    let world = runtime.block_on(connect::world(&args.hosts))?;
    let run_id = new_run();
    let turn = turn(&args.hosts, &args.consent, &run_id)?;
    let began_ms = rekindle_run::now_ms();
    let inventory = runtime.block_on(observe(&world, &options(&args.hosts, None, None)));
    let diagnosis = rekindle_diagnose::diagnose(&inventory);
    let diagnosed_ms = rekindle_run::now_ms();
    let (goal, target) = (goal_without_data(&args.hosts, run_id), HostId(args.target.clone()));
    let outcome = rekindle_plan::reset::reset(&inventory, &diagnosis, &goal, &target, diagnosed_ms);
    let made = Made { outcome, began_ms, diagnosed_ms };
    match (&made.outcome, turn) {
        (PlanOutcome::Plan(plan), Some(turn)) => {
            carry_out(&runtime, &world, plan, &made, turn, &args.consent, output)
        }
        _ => show(&made.outcome, output),
    }
}
