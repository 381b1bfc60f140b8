//! `--scenario node-lost`: a host is turned off by the operator's own command, what ran on it is brought back as after a
//! real loss (`node fence`), and the host is turned on again. All of it through the API, so that it works where the
//! control plane's hosts are a provider's.

use super::args::{Run, Scenario};
use super::report::{Check, DrillReport, Phase, Rpo};
use super::run::{Settled, conclude, settle};
use super::scenario::name;
use crate::args::Consent;
use crate::commands::api::{Api, Session};
use crate::commands::backup;
use crate::commands::node::Fleet;
use crate::commands::plan::show;
use crate::commands::recover::Ended;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::operator_command::OperatorCommand;
use crate::output::Output;
use rekindle_model::RunId;
use rekindle_model::event::{Outcome, What};
use rekindle_model::kube::nodes::Pod;
use rekindle_model::plan::PlanOutcome;
use rekindle_model::report::RunReport;
use rekindle_plan::kube::loss::{Loss, turn_off};
use rekindle_plan::kube::nodes::{Proof, fence, release};
use rekindle_world::objects::pods;
use rekindle_world::ssh::SshOptions;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Beyond the time that nodes may be silent: how long the loss may take to be noticed.
const NOTICED: Duration = Duration::from_secs(120);
/// How long pods may take to run elsewhere, and a host to come back.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// What the drill itself agreed to when it began.
const AGREED: Consent = Consent { yes: true, dry_run: false };

pub(super) fn run(mut args: Run, output: &Output) -> Result<Exit, Failure> {
    let Settled { targets, clusters: allowed, nodes } = settle(&mut args)?;
    let live = &args.live;
    let words = |given: &Option<OperatorCommand>, configured: Option<OperatorCommand>, what: &str| {
        let missing = || {
            Failure::usage(format!("no command turns the host {what}"))
                .hint("give --fence-command and --return-command, or `nodes` in the configuration")
        };
        given.clone().or(configured).map(OperatorCommand::into_words).ok_or_else(missing)
    };
    let drill = Drill {
        api: Api { cluster: live.hosts.api.clone(), state_dir: live.hosts.state_dir.clone() },
        node: live.node.clone().unwrap_or_default(),
        off: words(&live.fence_command, nodes.fence_command, "off")?,
        on: words(&live.return_command, nodes.return_command, "on again")?,
        output,
    };
    let session = Session::begin(&drill.api, Some(&live.consent))?;
    let fleet = Fleet::read(&session)?;
    let node = fleet.named(std::slice::from_ref(&drill.node))?.remove(0);
    let label = session.runtime.block_on(session.cluster.drill_label());
    let label = label.doing(|| "cannot read the label of kube-system".into())?;
    let loss = Loss {
        node: &node,
        all: &fleet.all,
        thresholds: &fleet.thresholds,
        label: &label,
        allowed: &allowed,
        off: &drill.off,
        on: &drill.on,
    };
    let outcome = turn_off(&session.base, &loss);
    let before = Workloads::on(&drill.node, &all_pods(&session)?);
    let id = session.base.run_id.clone();
    let fault = match session.end(outcome, &live.consent, &SshOptions::default(), output)? {
        Ended::Planned(outcome) => return show(&outcome, output),
        Ended::Run(fault) => fault,
    };
    let began_ms = fault.timeline.iter().find_map(|event| match event.what {
        What::StepStarted { .. } => Some(event.at_ms),
        _ => None,
    });
    let began_ms = began_ms.unwrap_or_else(rekindle_run::now_ms);
    let mut report =
        DrillReport::begin(format!("node {}", drill.node), backup::writer_name()?.to_string(), targets);
    report.scenario = Some(name(Scenario::NodeLost));
    report.rpo = Rpo { lost_ms: Some(0), evidence: "etcd was not touched: no object was lost".into() };
    let mut clock = Clock { began_ms, last_ms: began_ms };
    clock.phase(&mut report, "turn off");
    let mut ended = Ok(());
    if verified(&mut report, id, &fault, "the host is off") {
        ended = drill.bring_back(&mut report, &mut clock, &before);
    }
    // whatever became of its pods: the host does not stay off
    for ended in [ended, drill.turn_on(&mut report)] {
        if let Err(failure) = ended {
            output.fail(&failure);
            report.failure.get_or_insert(failure.line());
        }
    }
    conclude(report, &args.reports.report_dir, output)
}

struct Drill<'a> {
    api: Api,
    node: String,
    /// Turns the host off, and proves that it is.
    off: Vec<String>,
    on: Vec<String>,
    output: &'a Output,
}

/// Phases, one after the other.
struct Clock {
    began_ms: i64,
    last_ms: i64,
}

impl Clock {
    fn phase(&mut self, report: &mut DrillReport, name: &str) {
        let now_ms = rekindle_run::now_ms();
        let took_ms = u64::try_from(now_ms - self.last_ms).unwrap_or_default();
        report.phases.push(Phase { name: name.into(), took_ms });
        self.last_ms = now_ms;
    }
}

/// Takes a run into the report; whether it ended verified.
fn verified(report: &mut DrillReport, id: RunId, run: &RunReport, what: &str) -> bool {
    report.runs.push(id);
    report.checks.push(Check::of_run(what, run));
    run.outcome == Outcome::Verified
}

fn all_pods(session: &Session) -> Result<Vec<Pod>, Failure> {
    session.runtime.block_on(pods::all(&session.cluster)).doing(|| "cannot read the pods".into())
}

impl Drill<'_> {
    /// What an operator does about a node that is off.
    fn bring_back(
        &self,
        report: &mut DrillReport,
        clock: &mut Clock,
        before: &Workloads,
    ) -> Result<(), Failure> {
        let proof = Proof::Command(self.off.clone());
        let fenced = self.once(NOTICED, |session, fleet| {
            let nodes = fleet.named(std::slice::from_ref(&self.node))?;
            Ok(fence(&session.base, &nodes, &fleet.thresholds, &proof, fleet.shared_cause.as_ref()))
        })?;
        clock.phase(report, "notice");
        let (session, outcome) = fenced;
        let left = "its pods and volumes have left the node";
        if !self.carry_out(report, session, outcome, left)? {
            return Ok(());
        }
        clock.phase(report, "fence");
        let session = Session::begin(&self.api, None)?;
        let until = Instant::now() + PATIENCE;
        let missing = loop {
            let missing = before.missing(&self.node, &all_pods(&session)?);
            if missing.is_empty() || Instant::now() >= until {
                break missing;
            }
            std::thread::sleep(PAUSE);
        };
        clock.phase(report, "run elsewhere");
        let elsewhere = "what ran on the node runs elsewhere";
        if missing.is_empty() {
            report.checks.push(Check::passed(elsewhere, before.told()));
            let took_ms = u64::try_from(clock.last_ms - clock.began_ms).ok();
            (report.rto_ready_ms, report.rto_verified_ms) = (took_ms, took_ms);
        } else {
            report.checks.push(Check::failed(elsewhere, missing.join("; ")));
        }
        Ok(())
    }

    /// Turns the host on, and lets the node back into service.
    fn turn_on(&self, report: &mut DrillReport) -> Result<(), Failure> {
        self.output.say(&format!("turning the host of {} on: {}", self.node, self.on.join(" ")));
        let mut words = self.on.iter().map(|word| word.replace("{node}", &self.node));
        let program = words.next().unwrap_or_default();
        let ended = Command::new(&program).args(words).stdin(Stdio::null()).output();
        let ended = ended.doing(|| format!("cannot start {program}, which turns the host on"))?;
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr);
            let why = format!("{program} ended with {}: {}", ended.status, said.trim());
            report.checks.push(Check::failed("the host is on again", why));
            return Ok(());
        }
        let (session, outcome) = self.once(PATIENCE, |session, fleet| {
            let nodes = fleet.named(std::slice::from_ref(&self.node))?;
            Ok(release(&session.base, &nodes, &fleet.thresholds))
        })?;
        self.carry_out(report, session, outcome, "the node is back in service")?;
        Ok(())
    }

    /// Plans again and again until there is something to do, or nothing is left to; the last refusal when the time is over.
    fn once(
        &self,
        patience: Duration,
        plan: impl Fn(&Session, &Fleet) -> Result<PlanOutcome, Failure>,
    ) -> Result<(Session, PlanOutcome), Failure> {
        let session = Session::begin(&self.api, Some(&AGREED))?;
        let mut until = None;
        loop {
            let fleet = Fleet::read(&session)?;
            let silent = Duration::from_secs(fleet.thresholds.grace_period_seconds);
            let until = *until.get_or_insert(Instant::now() + silent + patience);
            let outcome = plan(&session, &fleet)?;
            if !matches!(outcome, PlanOutcome::Refused(_)) || Instant::now() >= until {
                return Ok((session, outcome));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Carries out what was planned and takes it into the report; whether it ended verified.
    fn carry_out(
        &self,
        report: &mut DrillReport,
        session: Session,
        outcome: PlanOutcome,
        what: &str,
    ) -> Result<bool, Failure> {
        let id = session.base.run_id.clone();
        match session.end(outcome, &AGREED, &SshOptions::default(), self.output)? {
            Ended::Run(run) => return Ok(verified(report, id, &run, what)),
            Ended::Planned(PlanOutcome::Refused(refusal)) => {
                report.checks.push(Check::failed(what, refusal.reason));
            }
            Ended::Planned(PlanOutcome::NothingToDo(why)) => report.checks.push(Check::not_proved(what, why)),
            Ended::Planned(PlanOutcome::Plan(_)) => {
                report.checks.push(Check::not_proved(what, "not agreed to"))
            }
        }
        Ok(false)
    }
}

/// What keeps pods running, and how many of each were ready.
struct Workloads(BTreeMap<String, usize>);

impl Workloads {
    /// Those with a pod on a node that would run elsewhere if the node were lost.
    fn on(node: &str, pods: &[Pod]) -> Self {
        let there = pods.iter().filter(|pod| pod.node == node && !pod.mirror && !pod.is_finished());
        let owners = there.filter_map(owner).filter(|owner| !owner.starts_with("DaemonSet "));
        Self(owners.map(|owner| (owner.clone(), ready(&owner, pods, |_| true))).collect())
    }

    /// Those that have fewer ready pods on other nodes than they had before, each with its numbers.
    fn missing(&self, node: &str, pods: &[Pod]) -> Vec<String> {
        let short = |(owner, before): (&String, &usize)| {
            let now = ready(owner, pods, |pod| pod.node != node);
            (now < *before).then(|| format!("{owner}: {now} of {before} pods are ready"))
        };
        self.0.iter().filter_map(short).collect()
    }

    fn told(&self) -> String {
        let told: Vec<String> = self.0.iter().map(|(owner, ready)| format!("{owner}: {ready}")).collect();
        if told.is_empty() { "nothing ran on it that a controller keeps".into() } else { told.join("; ") }
    }
}

fn owner(pod: &Pod) -> Option<String> {
    let owner = pod.controller.as_ref()?;
    Some(format!("{} {}/{}", owner.kind, pod.object.namespace.as_deref().unwrap_or_default(), owner.name))
}

fn ready(of: &str, pods: &[Pod], counts: impl Fn(&Pod) -> bool) -> usize {
    let is = |pod: &&Pod| pod.ready && pod.deleted_ms.is_none() && counts(pod);
    pods.iter().filter(is).filter(|pod| owner(pod).as_deref() == Some(of)).count()
}
