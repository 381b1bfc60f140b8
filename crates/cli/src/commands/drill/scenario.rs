//! `rekindle drill run --scenario`: a cluster that is there for it is broken, by a run that can be taken back, and recovered
//! by the ordinary `recover` or `certs renew`, which know nothing of the drill. Two runs, one report.

use super::args::{Run, Scenario};
use super::node_lost;
use super::report::{Check, DrillReport, Phase};
use super::run::{Settled, conclude, settle};
use crate::args::{Consent, Recover, Restore};
use crate::commands::check::options;
use crate::commands::managed;
use crate::commands::plan::{LOOKS, Made, PAUSE, goal_without_data, new_run, point_file, show};
use crate::commands::recover::{Ended, asked, recover, run_plan, turn};
use crate::commands::{backup, from};
use crate::connect;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use clap::ValueEnum as _;
use rekindle_model::event::Outcome as RunOutcome;
use rekindle_model::plan::PlanOutcome;
use rekindle_model::report::RunReport;
use rekindle_model::{RunId, Seen};
use rekindle_plan::breaking::{self, breaking};
use rekindle_plan::certificates::{Renew, renew_certificates};
use rekindle_world::World;
use rekindle_world::observe::observe;

pub(super) fn run(mut args: Run, scenario: Scenario, output: &Output) -> Result<Exit, Failure> {
    let Some(broken) = on_hosts(scenario) else { return node_lost::run(args, output) };
    if args.live.node.is_some() {
        return Err(Failure::usage("--node is for --scenario node-lost"));
    }
    let Settled { targets, clusters: allowed, .. } = settle(&mut args)?;
    let runtime = connect::runtime()?;
    let instead = "a drill on its nodes is `--scenario node-lost`, one on its backups `rekindle drill run` without --scenario";
    runtime.block_on(managed::refuse(&args.live.hosts, "drill run --scenario", instead, output))?;
    let world = runtime.block_on(connect::world(&args.live.hosts))?;
    let id = new_run();
    let turn = turn(&args.live.hosts, &args.live.consent, &id)?;
    let made = runtime.block_on(plan(&world, &args, broken, &allowed, &id, output))?;
    let (PlanOutcome::Plan(plan), Some(turn)) = (&made.outcome, turn) else {
        return show(&made.outcome, output);
    };
    let fault = run_plan(&runtime, &world, plan, &made, turn, &args.live.consent, output)?;
    drop(world); // with it go the hosts' locks, which the recovery takes
    if fault.outcome != RunOutcome::Verified {
        return Err(Failure::new(format!("the cluster was not broken as planned (run {id})")).hint(format!(
            "`rekindle runs show {id}` says how far it came, `rekindle runs undo {id}` takes it back"
        )));
    }
    let place = args.from.from.clone().or(args.snapshot.as_ref().map(ToString::to_string));
    let place = place.unwrap_or_else(|| "what is left of the cluster".into());
    let mut report = DrillReport::begin(place, backup::writer_name()?.to_string(), targets);
    report.scenario = Some(name(scenario));
    report.runs.push(id);
    match mend(&args, scenario, output) {
        Ok(Ended::Run(recovered)) => take(&mut report, &recovered),
        Ok(Ended::Planned(PlanOutcome::Refused(refusal))) => {
            report.failure = Some(format!("no recovery was planned: {}", refusal.reason));
        }
        Ok(Ended::Planned(_)) => report.failure = Some("nothing was found to recover".into()),
        Err(failure) => {
            output.fail(&failure);
            report.failure = Some(failure.line());
        }
    }
    conclude(report, &args.reports.report_dir, output)
}

/// What a person would do about it.
fn mend(args: &Run, scenario: Scenario, output: &Output) -> Result<Ended, Failure> {
    let consent = Consent { yes: true, dry_run: false };
    let hosts = &args.live.hosts;
    if scenario == Scenario::CertificatesExpired {
        let wanted = Renew { all: true, ..Renew::default() };
        return asked(hosts, &consent, output, |inventory, diagnosis, goal, now_ms| {
            renew_certificates(inventory, diagnosis, goal, &wanted, now_ms)
        });
    }
    let restore = Restore { snapshot: args.snapshot.clone(), from: args.from.clone(), ..Restore::default() };
    recover(&Recover { hosts: hosts.clone(), restore, consent }, output)
}

/// Plans the fault; the backup is looked at as the recovery will look at it.
async fn plan(
    world: &World,
    args: &Run,
    scenario: breaking::Scenario,
    allowed: &[String],
    id: &RunId,
    output: &Output,
) -> Result<Made, Failure> {
    let (hosts, began_ms) = (&args.live.hosts, rekindle_run::now_ms());
    let point = from::make(&args.from, point_file(hosts, id), output).await?;
    let mut looking = options(hosts, args.snapshot.as_ref(), None);
    looking.point = point.map(|made| (made.file.into(), made.point));
    let mut looks = 1;
    let (inventory, diagnosis) = loop {
        let inventory = observe(world, &looking).await;
        let diagnosis = rekindle_diagnose::diagnose(&inventory);
        match breaking::unwell(&diagnosis).filter(|_| looks < LOOKS) {
            Some(why) => output.say(&format!("looking again in {} s: {why}", PAUSE.as_secs())),
            None => break (inventory, diagnosis),
        }
        tokio::time::sleep(PAUSE).await;
        looks += 1;
    };
    // it holds every secret of the cluster, and the recovery makes its own
    let _ = std::fs::remove_file(point_file(hosts, id));
    let diagnosed_ms = rekindle_run::now_ms();
    let goal = goal_without_data(hosts, id.clone());
    let outcome = breaking(&inventory, &diagnosis, &goal, scenario, allowed, diagnosed_ms);
    Ok(Made { outcome, began_ms, diagnosed_ms })
}

/// What is broken on the control plane's hosts; none for a scenario that goes through the API alone.
fn on_hosts(scenario: Scenario) -> Option<breaking::Scenario> {
    Some(match scenario {
        Scenario::DataLost => breaking::Scenario::DataLost,
        Scenario::QuorumLost => breaking::Scenario::QuorumLost,
        Scenario::MemberLost => breaking::Scenario::MemberLost,
        Scenario::CertificatesExpired => breaking::Scenario::CertificatesExpired,
        Scenario::Stopped => breaking::Scenario::Stopped,
        Scenario::NodeLost => return None,
    })
}

pub(super) fn name(scenario: Scenario) -> String {
    scenario.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// What the recovery tells.
fn take(report: &mut DrillReport, run: &RunReport) {
    report.runs.push(run.run_id.clone());
    let ms = |ms: Option<i64>| ms.and_then(|ms| u64::try_from(ms).ok());
    report.rto_ready_ms = ms(run.rto.run_to_ready_ms);
    report.rto_verified_ms = ms(run.rto.run_to_verified_ms);
    let phases = run.rto.by_phase_ms.iter().filter_map(|(phase, took)| {
        let name = serde_json::to_value(phase).ok()?.as_str()?.to_owned();
        Some(Phase { name, took_ms: u64::try_from(*took).ok()? })
    });
    report.phases = phases.collect();
    report.rpo.lost_ms = run.rpo.time_lost_seconds.known().map(|seconds| seconds.saturating_mul(1000));
    report.rpo.evidence.clone_from(&run.rpo.evidence);
    let roots = run.findings.iter().filter(|finding| finding.caused_by.is_none());
    let roots: Vec<String> = roots.map(|finding| format!("{}: {}", finding.code, finding.summary)).collect();
    report.checks.push(match roots.as_slice() {
        [] => Check::failed("the cause was found", "the diagnosis names none"),
        _ => Check::passed("the cause was found", roots.join("; ")),
    });
    report.checks.push(Check::of_run("the cluster is recovered, and proved to be", run));
    report.checks.extend(run.verifications.iter().map(|one| match &one.held {
        Seen::Known(true) => Check::passed(&one.what, &one.figures),
        Seen::Known(false) => Check::failed(&one.what, &one.figures),
        Seen::Unknown(why) => Check::not_proved(&one.what, why),
    }));
}
