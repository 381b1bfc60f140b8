//! Ways into a run: begin it, take it up again, undo it. How it is carried out: `executor.rs`.

use crate::Sink;
use crate::error::RunError;
use crate::executor::Executor;
use crate::fault::Hooks;
use crate::folder;
use crate::journal::Journal;
use crate::lock::{Turn, private_dir};
use camino::Utf8Path;
use rekindle_model::event::{Outcome, What};
use rekindle_model::plan::{Phase, Plan};
use rekindle_model::report::RunReport;
use rekindle_world::host::HostErrorKind;
use rekindle_world::{Cluster, ClusterOptions, World};
use std::collections::BTreeMap;

/// How a run is carried out.
#[derive(Debug)]
pub struct RunOptions {
    /// The turn to work, taken before the cluster was looked at: what was planned is what is still there.
    pub turn: Turn,
    /// What was done before the run, for the report's breakdown of the RTO.
    pub before: Before,
}

/// What was done before the run.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// When observing began, milliseconds since the Unix epoch; 0 = not known.
    pub began_ms: i64,
    /// Time taken by each phase since then, in milliseconds, in the order of phases.
    pub phases_ms: BTreeMap<Phase, i64>,
}

/// Carries out a plan. How it ended, also badly, stands in the report; an error means that it was not begun, or that its
/// journal could not be written.
pub async fn execute(
    plan: &Plan,
    world: &World,
    options: &RunOptions,
    sink: &Sink,
) -> Result<RunReport, RunError> {
    execute_with(plan, world, options, sink, &Hooks::from_env()?).await
}

/// [`execute`] with the fault points of a test.
pub async fn execute_with(
    plan: &Plan,
    world: &World,
    options: &RunOptions,
    sink: &Sink,
    hooks: &Hooks,
) -> Result<RunReport, RunError> {
    let dir = folder::runs_dir(options.turn.state_dir()).join(&plan.run_id.0);
    if dir.join(crate::journal::FILE_NAME).exists() {
        return Err(RunError::Exists { run: plan.run_id.clone(), dir });
    }
    let cluster = cluster(plan).await?;
    claim_hosts(plan, world).await?;
    private_dir(&dir)?;
    folder::write_json(&dir.join(folder::PLAN), "plan", plan)?;
    let executor = Executor::new(plan, world, cluster, dir.clone(), sink, hooks, Journal::create(&dir)?)?;
    executor.journal_before(&options.before)?;
    executor.emit(What::RunStarted { run_id: plan.run_id.clone(), resumed: false })?;
    executor.go_on().await
}

/// Connects to the cluster of a plan through the API, which must be the one it was made for.
async fn cluster(plan: &Plan) -> Result<Option<Cluster>, RunError> {
    let Some(wanted) = &plan.cluster else { return Ok(None) };
    let kubeconfig = wanted.kubeconfig.clone().map(|path| path.0);
    let options = ClusterOptions { kubeconfig, context: wanted.context.clone() };
    let cluster = Cluster::connect(&options).await?;
    let uid = cluster.uid().await?;
    if uid != wanted.kube_system_uid {
        let server = cluster.server().to_owned();
        return Err(RunError::OtherCluster { server, uid, wanted: wanted.kube_system_uid.clone() });
    }
    Ok(Some(cluster))
}

/// Claims every host of the plan. One that does not answer says so at its first step.
async fn claim_hosts(plan: &Plan, world: &World) -> Result<(), RunError> {
    let hosts = plan.hosts.iter().filter_map(|id| world.host(id));
    let claims = hosts.map(|host| async move { host.claim(&plan.run_id).await });
    for claim in futures::future::join_all(claims).await {
        match claim {
            Err(source) if source.kind == HostErrorKind::Refused => return Err(RunError::Claimed(source)),
            _ => {}
        }
    }
    Ok(())
}

/// Takes an interrupted or failed run up where its journal ends. A run that was being undone goes on being undone.
pub async fn resume(
    run_dir: &Utf8Path,
    world: &World,
    state_dir: &Utf8Path,
    sink: &Sink,
) -> Result<RunReport, RunError> {
    resume_with(run_dir, world, state_dir, sink, &Hooks::from_env()?).await
}

/// [`resume`] with the fault points of a test.
pub async fn resume_with(
    run_dir: &Utf8Path,
    world: &World,
    state_dir: &Utf8Path,
    sink: &Sink,
    hooks: &Hooks,
) -> Result<RunReport, RunError> {
    take_up(run_dir, world, state_dir, sink, hooks, false).await
}

/// Undoes a run, whether it was interrupted, has failed or has ended well.
///
/// # Errors
/// [`RunError::PastNoReturn`] once API servers may have accepted writes.
pub async fn undo(
    run_dir: &Utf8Path,
    world: &World,
    state_dir: &Utf8Path,
    sink: &Sink,
) -> Result<RunReport, RunError> {
    undo_with(run_dir, world, state_dir, sink, &Hooks::from_env()?).await
}

/// [`undo`] with the fault points of a test.
pub async fn undo_with(
    run_dir: &Utf8Path,
    world: &World,
    state_dir: &Utf8Path,
    sink: &Sink,
    hooks: &Hooks,
) -> Result<RunReport, RunError> {
    take_up(run_dir, world, state_dir, sink, hooks, true).await
}

async fn take_up(
    dir: &Utf8Path,
    world: &World,
    state_dir: &Utf8Path,
    sink: &Sink,
    hooks: &Hooks,
    undo: bool,
) -> Result<RunReport, RunError> {
    let plan: Plan = folder::read_json(&dir.join(folder::PLAN), "plan")?;
    let _turn = Turn::take(state_dir, &plan.run_id)?;
    let cluster = cluster(&plan).await?;
    claim_hosts(&plan, world).await?;
    let executor = Executor::new(&plan, world, cluster, dir.to_owned(), sink, hooks, Journal::open(dir)?)?;
    let (ended, undoing, no_return) = {
        let shared = executor.shared();
        (shared.state.ended, shared.state.undoing, shared.state.past_no_return(&plan))
    };
    match ended {
        Some(Outcome::Undone) if undo => return executor.report(),
        Some(outcome @ (Outcome::Verified | Outcome::Partial | Outcome::Undone)) if !undo => {
            return Err(RunError::Ended { run: plan.run_id.clone(), outcome, verb: "resume" });
        }
        _ => {}
    }
    if let (true, Some(step)) = (undo, no_return) {
        let (step, summary) = (step.number, step.summary.clone());
        return Err(RunError::PastNoReturn { run: plan.run_id.clone(), step, summary });
    }
    executor.emit(What::RunStarted { run_id: plan.run_id.clone(), resumed: true })?;
    if undo || undoing { executor.go_back().await } else { executor.go_on().await }
}
