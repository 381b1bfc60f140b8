//! `rekindle plan`: observe, diagnose, plan, render. Also the first half of `recover`.

use super::check::options;
use super::{from, managed};
use crate::args::{Format, Hosts, Plan, Restore};
use crate::connect;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::render;
use camino::Utf8PathBuf;
use rekindle_model::RunId;
use rekindle_model::diagnosis::{Diagnosis, EtcdVerdict, MemberVerdict};
use rekindle_model::plan::{Goal, PlanOutcome};
use rekindle_world::World;
use rekindle_world::observe::observe;
use std::time::Duration;

/// What a plan was made from, and when each part of making it began (milliseconds since the Unix epoch).
pub(super) struct Made {
    pub(super) outcome: PlanOutcome,
    pub(super) began_ms: i64,
    pub(super) diagnosed_ms: i64,
}

pub(super) fn run(args: &Plan, output: &Output) -> Result<Exit, Failure> {
    let run_id = new_run();
    let point = point_file(&args.hosts, &run_id);
    let made = connect::runtime()?.block_on(async {
        managed::refuse(&args.hosts, "plan", managed::LOST_OBJECTS, output).await?;
        let world = connect::world(&args.hosts).await?;
        make(&world, &args.hosts, &args.restore, run_id, output).await
    })?;
    if !matches!(made.outcome, PlanOutcome::Plan(_)) {
        // nobody will apply it: the file, if one was made, holds every secret of the cluster
        let _ = std::fs::remove_file(point);
    }
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

/// How often, and after what pause, a cluster in motion is looked at again: an etcd that is just starting, or is in a
/// crash loop, can be read a moment later.
pub(super) const LOOKS: u32 = 8;
pub(super) const PAUSE: Duration = Duration::from_secs(2);

/// Observes, diagnoses and plans.
pub(super) async fn make(
    world: &World,
    hosts: &Hosts,
    restore: &Restore,
    run_id: RunId,
    output: &Output,
) -> Result<Made, Failure> {
    let began_ms = rekindle_run::now_ms();
    let made = from::make(&restore.from, point_file(hosts, &run_id), output).await?;
    let goal = goal(hosts, restore, run_id);
    let mut looking = options(hosts, restore.snapshot.as_ref(), restore.data_dir.as_ref());
    looking.point = made.map(|made| (made.file.into(), made.point));
    let mut looks = 1;
    loop {
        let inventory = observe(world, &looking).await;
        let diagnosis = rekindle_diagnose::diagnose(&inventory);
        let diagnosed_ms = rekindle_run::now_ms();
        let outcome = rekindle_plan::plan(&inventory, &diagnosis, &goal, diagnosed_ms);
        let Some(why) = in_motion(&diagnosis, &outcome).filter(|_| looks < LOOKS) else {
            return Ok(Made { outcome, began_ms, diagnosed_ms });
        };
        output.say(&format!("looking again in {} s: {why}", PAUSE.as_secs()));
        tokio::time::sleep(PAUSE).await;
        looks += 1;
    }
}

/// Why another look may tell more: there is no plan because a member could not be judged, or held its files while it
/// was being read.
fn in_motion(diagnosis: &Diagnosis, outcome: &PlanOutcome) -> Option<String> {
    let PlanOutcome::Refused(refusal) = outcome else { return None };
    let unsettled = |member: &MemberVerdict| {
        matches!(member, MemberVerdict::Unknown(_) | MemberVerdict::NoQuorum | MemberVerdict::StoppedIntact)
    };
    // With etcd healthy what is left to mend comes up by itself more often than not: a lease is taken over in 15 s.
    let settling = matches!(diagnosis.etcd, EtcdVerdict::Unknown(_) | EtcdVerdict::Healthy);
    (settling || diagnosis.members.values().any(unsettled)).then(|| refusal.reason.clone())
}

/// The snapshot file that is made of a vault's history for a run; not in the run's folder, as a plan is no run yet.
pub(super) fn point_file(hosts: &Hosts, run_id: &RunId) -> Utf8PathBuf {
    hosts.state_dir.join("points").join(format!("{run_id}.db"))
}

/// The id of a new run: ids sort by the time they were made.
pub(super) fn new_run() -> RunId {
    RunId(uuid::Uuid::now_v7().to_string())
}

fn goal(hosts: &Hosts, restore: &Restore, run_id: RunId) -> Goal {
    Goal {
        exact: restore.exact,
        data_dir: restore.data_dir.clone().map(Into::into),
        accept_unknown_identity: restore.accept_unknown_identity,
        accept_corrupt_alarm: restore.accept_corrupt_alarm,
        skip_hash_check: restore.skip_hash_check,
        go_back: restore.from.from.is_some() && restore.from.goes_back(),
        ..goal_without_data(hosts, run_id)
    }
}

/// The goal of a run that restores nothing.
pub(super) fn goal_without_data(hosts: &Hosts, run_id: RunId) -> Goal {
    Goal {
        run_dir: hosts.state_dir.join("runs").join(&run_id.0).into(),
        token: format!("rekindle-{run_id}"),
        run_id,
        exact: false,
        data_dir: None,
        accept_unknown_identity: false,
        accept_corrupt_alarm: false,
        skip_hash_check: false,
        go_back: false,
    }
}
