//! `rekindle plan`: observe, diagnose, plan, render. Also the first half of `recover`.

use super::check::options;
use crate::args::{Format, Hosts, Plan, Restore};
use crate::connect;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::render;
use rekindle_model::plan::{Goal, PlanOutcome};
use rekindle_model::{RunId, inventory::Inventory};
use rekindle_world::World;
use rekindle_world::observe::observe;

/// What a plan was made from, and when each part of making it began (milliseconds since the Unix epoch).
pub(super) struct Made {
    pub(super) inventory: Inventory,
    pub(super) outcome: PlanOutcome,
    pub(super) began_ms: i64,
    pub(super) diagnosed_ms: i64,
}

pub(super) fn run(args: &Plan, output: &Output) -> Result<Exit, Failure> {
    let made = connect::runtime()?.block_on(async {
        let world = connect::world(&args.hosts).await?;
        Ok::<_, Failure>(make(&world, &args.hosts, &args.restore).await)
    })?;
    show(&made.outcome, output)
}

/// Prints an outcome; a plan or "nothing to do" is success, a refusal is not.
pub(super) fn show(outcome: &PlanOutcome, output: &Output) -> Result<Exit, Failure> {
    match outcome {
        PlanOutcome::NothingToDo(why) => {
            match output.format {
                Format::Table | Format::Short => output.data(&format!("Nothing to do: {why}\n"))?,
                _ => output.document(outcome, |_| String::new())?,
            }
            Ok(Exit::Ok)
        }
        PlanOutcome::Plan(plan) => {
            output.document(&**plan, |_| render::plan::plan(plan))?;
            Ok(Exit::Ok)
        }
        PlanOutcome::Refused(refusal) => {
            output.document(refusal, |_| render::plan::refusal(refusal))?;
            Ok(Exit::Refused)
        }
    }
}

/// Observes, diagnoses and plans.
pub(super) async fn make(world: &World, hosts: &Hosts, restore: &Restore) -> Made {
    let began_ms = rekindle_run::now_ms();
    let inventory = observe(world, &options(hosts, restore.snapshot.as_ref())).await;
    let diagnosis = rekindle_diagnose::diagnose(&inventory);
    let diagnosed_ms = rekindle_run::now_ms();
    let goal = goal(hosts, restore);
    let outcome = rekindle_plan::plan(&inventory, &diagnosis, &goal, diagnosed_ms);
    Made { inventory, outcome, began_ms, diagnosed_ms }
}

fn goal(hosts: &Hosts, restore: &Restore) -> Goal {
    let run_id = RunId(uuid::Uuid::now_v7().to_string());
    Goal {
        run_dir: hosts.state_dir.join("runs").join(&run_id.0).into(),
        token: format!("rekindle-{run_id}"),
        run_id,
        exact: restore.exact,
        data_dir: restore.data_dir.clone().map(Into::into),
        accept_unknown_identity: restore.accept_unknown_identity,
        accept_corrupt_alarm: restore.accept_corrupt_alarm,
    }
}
