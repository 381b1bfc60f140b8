//! `rekindle apply FILE`: carries out a plan made earlier, if the cluster is still as the plan saw it.

use super::check::options;
use super::plan::{Made, show};
use super::recover::{carry_out, turn};
use crate::args::Apply;
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use crate::render;
use camino::Utf8PathBuf;
use rekindle_model::plan::{Plan, PlanOutcome};
use rekindle_model::source::{SourceKind, VaultPoint};
use rekindle_model::{API_VERSION, HostPath};
use rekindle_run::Turn;
use rekindle_world::World;
use rekindle_world::observe::observe;

pub(super) fn run(args: &Apply, output: &Output) -> Result<Exit, Failure> {
    let plan = read(args)?;
    let runtime = connect::runtime()?;
    let world = runtime.block_on(connect::world_of(
        &plan.hosts,
        &args.hosts.ssh.options(),
        args.hosts.root.clone(),
    ))?;
    let turn = turn(&args.hosts, &args.consent, &plan.run_id)?;
    let began_ms = rekindle_run::now_ms();
    let mut observing = options(&args.hosts, snapshot_folder(&plan).as_ref(), None);
    observing.point = vault_point(&plan);
    observing.lost.extend(plan.lost_hosts.iter().cloned());
    if plan.cluster.is_some() {
        // its steps name each object by UID, and the run refuses another cluster
        return through_api(&runtime, &world, plan, turn, began_ms, args, output);
    }
    let inventory = runtime.block_on(observe(&world, &observing));
    if inventory.decision_digest() != plan.inventory_digest {
        return Err(Failure::refused(format!("the cluster is not as plan {} saw it", plan.run_id))
            .hint("make a new plan with `rekindle plan`"));
    }
    let faults = rekindle_plan::lint(&plan, &inventory);
    if let Some(fault) = faults.first() {
        return Err(Failure::refused(format!("plan {} breaks a safety rule: {fault}", plan.run_id))
            .hint("make a new plan with `rekindle plan`"));
    }
    let Some(turn) = turn else {
        output.document(&plan, |_| render::plan::plan(&plan))?;
        return Ok(Exit::Ok);
    };
    let diagnosed_ms = rekindle_run::now_ms();
    let outcome = PlanOutcome::Plan(Box::new(plan.clone()));
    let made = Made { outcome, began_ms, diagnosed_ms };
    carry_out(&runtime, &world, &plan, &made, turn, &args.consent, output)
}

fn through_api(
    runtime: &tokio::runtime::Runtime,
    world: &World,
    plan: Plan,
    turn: Option<Turn>,
    began_ms: i64,
    args: &Apply,
    output: &Output,
) -> Result<Exit, Failure> {
    let outcome = PlanOutcome::Plan(Box::new(plan.clone()));
    let Some(turn) = turn else { return show(&outcome, output) };
    let made = Made { outcome, began_ms, diagnosed_ms: began_ms };
    carry_out(runtime, world, &plan, &made, turn, &args.consent, output)
}

fn read(args: &Apply) -> Result<Plan, Failure> {
    let text = std::fs::read(&args.file).doing(|| format!("cannot read {}", args.file))?;
    let plan: Plan = serde_json::from_slice(&text)
        .map_err(|e| Failure::usage(format!("{} is not a plan", args.file)).because(e))
        .map_err(|f| f.hint("write one with `rekindle plan -o json`"))?;
    if plan.api_version != API_VERSION {
        return Err(Failure::usage(format!(
            "{} is of version {}, this rekindle reads {API_VERSION}",
            args.file, plan.api_version
        )));
    }
    Ok(plan)
}

/// The file made of a vault's history when the plan was made.
fn vault_point(plan: &Plan) -> Option<(HostPath, VaultPoint)> {
    plan.candidates.iter().find_map(|(candidate, _)| match &candidate.kind {
        SourceKind::SnapshotFile(path) => Some((path.clone(), candidate.point.clone()?)),
        _ => None,
    })
}

/// The snapshot given when the plan was made, so that the same sources are looked at again.
fn snapshot_folder(plan: &Plan) -> Option<Utf8PathBuf> {
    let mut files = plan.candidates.iter().filter_map(|(candidate, _)| match &candidate.kind {
        SourceKind::SnapshotFile(path) if candidate.point.is_none() => Some(path),
        _ => None,
    });
    let first = files.next()?;
    if files.next().is_some() { first.parent().map(ToOwned::to_owned) } else { Some(first.0.clone()) }
}
