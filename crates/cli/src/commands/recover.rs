//! `rekindle recover`: the whole pipeline in one command.

use super::check::options;
use super::managed;
use super::plan::{Made, goal_without_data, make, new_run, point_file, show};
use crate::args::{Consent, Format, Hosts, Recover};
use crate::exit::Exit;
use crate::failure::{Failure, of_run};
use crate::output::Output;
use crate::progress::Renderer;
use crate::{connect, consent, render};
use rekindle_model::RunId;
use rekindle_model::diagnosis::Diagnosis;
use rekindle_model::event::Outcome;
use rekindle_model::inventory::Inventory;
use rekindle_model::plan::{Goal, Phase, Plan, PlanOutcome};
use rekindle_model::report::RunReport;
use rekindle_run::{Before, RunOptions, Turn};
use rekindle_world::World;
use rekindle_world::observe::observe;
use std::sync::Arc;

/// What came of a recovery.
pub(super) enum Ended {
    /// It was carried out.
    Run(Box<RunReport>),
    /// There was no plan, or it was only to be shown.
    Planned(PlanOutcome),
}

pub(super) fn run(args: &Recover, output: &Output) -> Result<Exit, Failure> {
    tell(&recover(args, output)?, output)
}

/// Prints what came of it; the exit code tells it, too.
pub(super) fn tell(ended: &Ended, output: &Output) -> Result<Exit, Failure> {
    match ended {
        Ended::Run(report) => finish(report, output),
        Ended::Planned(outcome) => show(outcome, output),
    }
}

/// Observes, diagnoses, plans, asks, executes.
pub(super) fn recover(args: &Recover, output: &Output) -> Result<Ended, Failure> {
    let runtime = connect::runtime()?;
    runtime.block_on(managed::refuse(&args.hosts, "recover", managed::LOST_OBJECTS, output))?;
    let world = runtime.block_on(connect::world(&args.hosts))?;
    let run_id = new_run();
    let turn = turn(&args.hosts, &args.consent, &run_id)?;
    let point = point_file(&args.hosts, &run_id);
    let run_dir = args.hosts.state_dir.join("runs").join(&run_id.0);
    let made = runtime.block_on(make(&world, &args.hosts, &args.restore, run_id, output))?;
    let ended = match (&made.outcome, turn) {
        (PlanOutcome::Plan(plan), Some(turn)) => {
            let report = run_plan(&runtime, &world, plan, &made, turn, &args.consent, output);
            report.map(|report| Ended::Run(Box::new(report)))
        }
        (outcome, _) => Ok(Ended::Planned(outcome.clone())),
    };
    if !run_dir.exists() {
        // no run was begun that may need it again; it holds every secret of the cluster, or was never there
        let _ = std::fs::remove_file(point);
    }
    ended
}

/// The turn to change something, taken before the first look so that no other run changes what is planned for; none
/// for a dry run.
pub(super) fn turn(hosts: &Hosts, agreed: &Consent, run_id: &RunId) -> Result<Option<Turn>, Failure> {
    if agreed.dry_run {
        return Ok(None);
    }
    let turn = Turn::take(&hosts.state_dir, run_id);
    turn.map(Some).map_err(|error| of_run(error, "nothing was begun".into()))
}

/// The same way for a verb that restores nothing, with its report: see [`asked`].
pub(super) fn carry_out_asked(
    hosts: &Hosts,
    agreed: &Consent,
    output: &Output,
    plan: impl FnOnce(&Inventory, &Diagnosis, &Goal, i64) -> PlanOutcome,
) -> Result<Exit, Failure> {
    tell(&asked(hosts, agreed, output, plan)?, output)
}

/// Observes, diagnoses, has `plan` decide (of the inventory, the diagnosis, the goal, and now), and carries it out.
pub(super) fn asked(
    hosts: &Hosts,
    agreed: &Consent,
    output: &Output,
    plan: impl FnOnce(&Inventory, &Diagnosis, &Goal, i64) -> PlanOutcome,
) -> Result<Ended, Failure> {
    let runtime = connect::runtime()?;
    let world = runtime.block_on(connect::world(hosts))?;
    let run_id = new_run();
    let turn = turn(hosts, agreed, &run_id)?;
    let began_ms = rekindle_run::now_ms();
    let inventory = runtime.block_on(observe(&world, &options(hosts, None, None)));
    let diagnosis = rekindle_diagnose::diagnose(&inventory);
    let diagnosed_ms = rekindle_run::now_ms();
    let outcome = plan(&inventory, &diagnosis, &goal_without_data(hosts, run_id), diagnosed_ms);
    let made = Made { outcome, began_ms, diagnosed_ms };
    match (&made.outcome, turn) {
        (PlanOutcome::Plan(plan), Some(turn)) => {
            let report = run_plan(&runtime, &world, plan, &made, turn, agreed, output)?;
            Ok(Ended::Run(Box::new(report)))
        }
        _ => Ok(Ended::Planned(made.outcome)),
    }
}

/// Shows the plan, asks, executes, reports.
pub(super) fn carry_out(
    runtime: &tokio::runtime::Runtime,
    world: &World,
    plan: &Plan,
    made: &Made,
    turn: Turn,
    agreed: &Consent,
    output: &Output,
) -> Result<Exit, Failure> {
    finish(&run_plan(runtime, world, plan, made, turn, agreed, output)?, output)
}

/// Shows the plan, asks, executes.
pub(super) fn run_plan(
    runtime: &tokio::runtime::Runtime,
    world: &World,
    plan: &Plan,
    made: &Made,
    turn: Turn,
    agreed: &Consent,
    output: &Output,
) -> Result<RunReport, Failure> {
    output.say(&render::plan::plan(plan));
    let asked_ms = rekindle_run::now_ms();
    let consented = consent::ask(agreed, output, "Carry out this plan?")?;
    let before = Before {
        phases_ms: [
            (Phase::Diagnose, made.diagnosed_ms - made.began_ms),
            (Phase::Plan, asked_ms - made.diagnosed_ms),
            (Phase::Consent, rekindle_run::now_ms() - asked_ms),
        ]
        .into(),
        began_ms: made.began_ms,
    };
    execute(runtime, world, plan, RunOptions { turn, before }, consented, output)
}

fn execute(
    runtime: &tokio::runtime::Runtime,
    world: &World,
    plan: &Plan,
    options: RunOptions,
    _consented: consent::Consented,
    output: &Output,
) -> Result<RunReport, Failure> {
    let renderer = Arc::new(Renderer::new(output));
    let sink: rekindle_run::Sink = Arc::new(move |event| renderer.show(event));
    runtime
        .block_on(rekindle_run::execute(plan, world, &options, &sink))
        .map_err(|error| of_run(error, format!("run {} did not go through", plan.run_id)))
}

/// Prints a report; the exit code tells how the run ended.
pub(super) fn finish(report: &RunReport, output: &Output) -> Result<Exit, Failure> {
    match output.format {
        Format::Table | Format::Short => output.data(&rekindle_run::report::markdown(report))?,
        _ => output.document(report, |_| String::new())?,
    }
    Ok(match report.outcome {
        Outcome::Verified => Exit::Ok,
        Outcome::Partial | Outcome::Stuck => Exit::Partial,
        // a plan through the API stops where it is: what was done stays done
        Outcome::Failed if report.cluster.is_some() => Exit::Partial,
        Outcome::Undone | Outcome::Failed => Exit::Error,
    })
}
