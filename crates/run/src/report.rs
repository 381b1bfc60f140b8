//! The report: what a run did, from its plan and its journal alone, so that it can be made again at any time.

use crate::journal::Record;
use crate::status::{RunState, StepStatus};
use camino::Utf8Path;
use rekindle_model::certificate::Renewal;
use rekindle_model::event::{Outcome, Outputs, What};
use rekindle_model::plan::{Phase, Plan, PlannedStep};
use rekindle_model::report::{Moved, Rto, RunReport, Verification};
use rekindle_model::step::Step;
use rekindle_model::{API_VERSION, HostPath, Seen};
use serde_json::Value;
use std::collections::BTreeMap;

pub use crate::markdown::markdown;

/// The report of a run as it stands.
pub fn of(plan: &Plan, run_dir: &Utf8Path, state: &RunState, records: &[Record]) -> RunReport {
    let outcome = state.ended.unwrap_or(Outcome::Failed);
    let built = built(plan, state);
    let mut rpo = plan.cost.clone();
    let restored_revision = built.and_then(|o| number(o, "sourceRevision")).or(rpo.restored_revision);
    rpo.restored_revision = restored_revision;
    RunReport {
        api_version: API_VERSION.into(),
        kind: "RunReport".into(),
        run_id: plan.run_id.clone(),
        cluster: plan.cluster.clone(),
        outcome,
        findings: plan.findings.clone(),
        summary: plan.summary.clone(),
        rto: rto(plan, records, outcome),
        rpo,
        restored_revision,
        raised_to_revision: built_at(plan, state).filter(|at| Some(*at) > restored_revision),
        verifications: verifications(plan, state),
        moved: moved(plan, state),
        timeline: records.iter().map(|record| record.event.clone()).collect(),
        left_to_do: left_to_do(plan, run_dir, state, outcome),
    }
}

/// Whether a step ended with something it could not prove.
pub(crate) fn is_partial(state: &RunState) -> bool {
    state.steps.values().any(|step| !strings(&step.outputs, "partial").is_empty())
}

fn built<'s>(plan: &Plan, state: &'s RunState) -> Option<&'s Outputs> {
    let step = plan.steps.iter().find(|step| matches!(step.step, Step::BuildDb { .. }))?;
    state.steps.get(&step.number).map(|step| &step.outputs).filter(|outputs| !outputs.is_empty())
}

/// Revision of the store that was built: the source's, or the one it was raised to.
pub(crate) fn built_at(plan: &Plan, state: &RunState) -> Option<i64> {
    number(built(plan, state)?, "revision")
}

/// Highest revision any step has seen.
pub(crate) fn last_revision(state: &RunState) -> Option<i64> {
    state.steps.values().filter_map(|step| number(&step.outputs, "revision")).max()
}

fn number(outputs: &Outputs, name: &str) -> Option<i64> {
    outputs.get(name).and_then(Value::as_i64)
}

fn text(outputs: &Outputs, name: &str) -> String {
    match outputs.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "not told".into(),
    }
}

fn strings(outputs: &Outputs, name: &str) -> Vec<String> {
    let list = outputs.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|value| value.as_str().map(ToOwned::to_owned)).collect()
}

fn rto(plan: &Plan, records: &[Record], outcome: Outcome) -> Rto {
    let first_ms = records.first().map_or(plan.made_ms, |record| record.event.at_ms);
    let (from_ms, from_evidence) = plan
        .failed_since
        .clone()
        .filter(|(at_ms, _)| *at_ms <= first_ms)
        .unwrap_or_else(|| (first_ms, "start of the run: nothing seen tells when it failed".into()));
    let at = |wanted: &dyn Fn(&What) -> bool| -> Vec<i64> {
        records.iter().filter(|r| wanted(&r.event.what)).map(|r| r.event.at_ms).collect()
    };
    let run_ms = at(&|what| matches!(what, What::RunStarted { .. })).first().copied().unwrap_or(first_ms);
    let waits: Vec<u32> = plan
        .steps
        .iter()
        .filter(|step| matches!(step.step, Step::WaitApiReady {}))
        .map(|step| step.number)
        .collect();
    let ready = at(&|what| matches!(what, What::StepDone { step, .. } if waits.contains(step)));
    let ready_ms = ready.iter().max().copied().filter(|_| !waits.is_empty() && ready.len() == waits.len());
    let verified_ms = at(&|what| matches!(what, What::RunEnded { outcome: Outcome::Verified }));
    let verified_ms = verified_ms.last().copied().filter(|_| outcome == Outcome::Verified);
    let mut by_phase_ms = phases(plan, records, run_ms);
    if from_ms < first_ms {
        by_phase_ms.insert(Phase::Detect, first_ms - from_ms);
    }
    Rto {
        from_ms,
        from_evidence,
        to_ready_ms: ready_ms.map(|at_ms| at_ms - from_ms),
        to_verified_ms: verified_ms.map(|at_ms| at_ms - from_ms),
        run_to_ready_ms: ready_ms.map(|at_ms| at_ms - run_ms),
        run_to_verified_ms: verified_ms.map(|at_ms| at_ms - run_ms),
        by_phase_ms,
    }
}

/// Time by phase: before the run from one start to the next; in the run the time at least one step of it was at work.
fn phases(plan: &Plan, records: &[Record], run_ms: i64) -> BTreeMap<Phase, i64> {
    let mut by_phase = BTreeMap::new();
    let before: Vec<(Phase, i64)> = records
        .iter()
        .take_while(|record| !matches!(record.event.what, What::RunStarted { .. }))
        .filter_map(|record| match record.event.what {
            What::PhaseStarted { phase } => Some((phase, record.event.at_ms)),
            _ => None,
        })
        .collect();
    let ends = before.iter().skip(1).map(|(_, at_ms)| *at_ms).chain([run_ms]);
    for ((phase, start_ms), end_ms) in before.iter().zip(ends) {
        *by_phase.entry(*phase).or_default() += end_ms - start_ms;
    }
    let phase_of = |number: u32| plan.steps.iter().find(|step| step.number == number).map(|step| step.phase);
    let mut at_work: BTreeMap<Phase, (usize, i64)> = BTreeMap::new();
    let mut steps_at_work = std::collections::BTreeSet::new();
    for record in records {
        match &record.event.what {
            What::StepStarted { step, phase, .. } if steps_at_work.insert(*step) => {
                let (count, since_ms) = at_work.entry(*phase).or_insert((0, 0));
                if *count == 0 {
                    *since_ms = record.event.at_ms;
                }
                *count += 1;
            }
            What::StepDone { step, .. } | What::StepFailed { step, .. } if steps_at_work.remove(step) => {
                let Some(phase) = phase_of(*step) else { continue };
                let Some((count, since_ms)) = at_work.get_mut(&phase) else { continue };
                *count -= 1;
                if *count == 0 {
                    *by_phase.entry(phase).or_default() += record.event.at_ms - *since_ms;
                }
            }
            _ => {}
        }
    }
    by_phase
}

fn host_of(step: &PlannedStep) -> &str {
    step.host.as_ref().map_or("local", |host| host.0.as_str())
}

fn verifications(plan: &Plan, state: &RunState) -> Vec<Verification> {
    let restores = plan.steps.iter().any(|step| matches!(step.step, Step::BuildDb { .. }));
    plan.steps.iter().filter_map(|step| verification(step, state, restores)).collect()
}

fn verification(step: &PlannedStep, state: &RunState, restores: bool) -> Option<Verification> {
    let own = state.steps.get(&step.number)?;
    let what = claim(step, restores)?;
    let (held, figures) = match own.status {
        StepStatus::Done => {
            let missing = strings(&own.outputs, "partial");
            if missing.is_empty() {
                (Seen::Known(true), figures(step, &own.outputs))
            } else {
                (Seen::Known(false), format!("not: {}", missing.join(", ")))
            }
        }
        StepStatus::Failed => (Seen::Known(false), own.error.join(": ")),
        StepStatus::NotStarted => (Seen::Unknown("the run did not get there".into()), String::new()),
        _ => (Seen::Unknown("interrupted, or taken back".into()), String::new()),
    };
    Some(Verification { what, held, figures })
}

/// What a step proves, if it proves something.
fn claim(step: &PlannedStep, restores: bool) -> Option<String> {
    let host = host_of(step);
    Some(match &step.step {
        Step::SaveServed { .. } | Step::SaveOpenDb { .. } | Step::SaveStore { .. } => {
            format!("what {host} held is saved and verified")
        }
        Step::BuildDb { source, .. } => format!("the db to restore was written from {}", source.path),
        Step::ProveMember { .. } if restores => {
            format!("etcd on {host} holds the restored data: HashKV equals the native value")
        }
        Step::ProveMember { .. } => format!("etcd on {host} answers in a quorum"),
        Step::WaitApiReady {} => format!("/readyz of the API server on {host} says ok"),
        Step::WaitComponent { component } => format!("{component} on {host} answers its health check"),
        Step::PromoteLearner { .. } => "HashKV of all members is equal after the promotion".into(),
        Step::WaitNodes { .. } => "all nodes are Ready with leases renewed since".into(),
        Step::DeleteStaleMasterleases { .. } => "addresses of API servers from before are gone".into(),
        Step::ProveCertificates { .. } => {
            format!("files and ports of {host} hold the new certificates, with their keys and authorities")
        }
        step => return kube_claim(step),
    })
}

/// What a step through the API proves.
fn kube_claim(step: &Step) -> Option<String> {
    Some(match step {
        Step::Drain { .. } => "every pod that was to leave its node is gone".into(),
        Step::WaitGone { object, .. } => format!("{object} is gone"),
        Step::WaitCondition { object, condition, status, .. } => format!("{object} is {condition}={status}"),
        Step::Fence { node, .. } => format!("the host of {node} is off"),
        Step::WaitNodeEmpty { node, .. } => format!("no pod and no volume is left on {node}"),
        Step::ProveNothingLeft { namespace } => format!("nothing is left in namespace {namespace}"),
        _ => return None,
    })
}

fn figures(step: &PlannedStep, o: &Outputs) -> String {
    match &step.step {
        Step::SaveServed { .. } | Step::SaveOpenDb { .. } | Step::SaveStore { .. } => format!(
            "{}, revision {}, {} live keys, {} bytes",
            text(o, "file"),
            text(o, "revision"),
            text(o, "liveKeys"),
            text(o, "bytes")
        ),
        Step::BuildDb { .. } => format!(
            "revision {} raised to {}, {} live keys, HashKV {}",
            text(o, "sourceRevision"),
            text(o, "revision"),
            text(o, "liveKeys"),
            text(o, "hash")
        ),
        Step::ProveMember { .. } if o.contains_key("hash") => format!(
            "HashKV {} = {} at revision {}, {} live keys, {} members",
            text(o, "hash"),
            text(o, "nativeHash"),
            text(o, "revision"),
            text(o, "liveKeys"),
            text(o, "members")
        ),
        Step::ProveMember { .. } => format!("{} members", text(o, "members")),
        Step::WaitApiReady {} => text(o, "server"),
        Step::WaitComponent { .. } => text(o, "url"),
        Step::PromoteLearner { .. } => format!(
            "HashKV {} at revision {}, {} members compared",
            text(o, "hash"),
            text(o, "revision"),
            text(o, "compared")
        ),
        Step::WaitNodes { .. } => format!("ready: {}", strings(o, "ready").join(", ")),
        Step::DeleteStaleMasterleases { .. } => format!("{} deleted", strings(o, "deleted").len()),
        Step::ProveCertificates { .. } => {
            let end = number(o, "firstEndS").and_then(|s| jiff::Timestamp::from_second(s).ok());
            let end = end.map(|end| format!(", the first ends {end}")).unwrap_or_default();
            format!("{} certificates, {} ports{end}", text(o, "certificates"), text(o, "ports"))
        }
        Step::Drain { .. } => format!("{} pods", text(o, "gone")),
        Step::ProveNothingLeft { .. } => format!("{} types looked at", text(o, "types")),
        _ => String::new(),
    }
}

/// What lies elsewhere than before: not what was put back since, nor the new data moved in.
fn moved(plan: &Plan, state: &RunState) -> Vec<Moved> {
    let mut moved: Vec<Moved> = Vec::new();
    for step in &plan.steps {
        let done = |own: &&crate::status::StepState| own.status == StepStatus::Done;
        let Some(own) = state.steps.get(&step.number).filter(done) else { continue };
        let pairs: Vec<(HostPath, HostPath)> = match &step.step {
            Step::Rename { from, to, .. } if own.outputs.get("moved") == Some(&Value::Bool(true)) => {
                vec![(from.clone(), to.clone())]
            }
            Step::ReplaceFile { path, aside, old_sha256: Some(_), .. } => vec![(path.clone(), aside.clone())],
            Step::InstallCertificates { renewals, set_aside } => {
                let renewed = renewals.iter().flat_map(Renewal::moves);
                let pairs = renewed.filter_map(|one| Some((one.place, one.old?)));
                pairs.chain(set_aside.iter().cloned()).collect()
            }
            _ => continue,
        };
        let host = host_of(step).to_owned();
        for (from, to) in pairs {
            moved.retain(|earlier| earlier.host != host || earlier.to != from);
            if own_folder(&to).is_some() {
                moved.push(Moved { host: host.clone(), from, to });
            }
        }
    }
    moved
}

/// The folder of a run that a path lies in.
fn own_folder(path: &HostPath) -> Option<&Utf8Path> {
    let own = |name: &str| name.trim_start_matches('.').starts_with("rekindle-");
    path.ancestors().find(|folder| folder.file_name().is_some_and(own))
}

fn left_to_do(plan: &Plan, run_dir: &Utf8Path, state: &RunState, outcome: Outcome) -> Vec<String> {
    let mut left = Vec::new();
    let id = &plan.run_id;
    for step in &plan.steps {
        let Some(own) = state.steps.get(&step.number) else { continue };
        let host = host_of(step);
        match own.status {
            StepStatus::Failed => {
                left.push(format!("step {} on {host} ({}) failed: {}", step.number, step.summary, own.error.join(": ")));
            }
            StepStatus::UndoFailed => left.push(format!(
                "taking back step {} on {host} ({}) failed: {}. Mend this by hand, then run `rekindle runs undo {id}` again",
                step.number,
                step.summary,
                own.error.join(": ")
            )),
            _ => left.extend(strings(&own.outputs, "partial").into_iter().map(|what| format!("not proved: {what}"))),
        }
    }
    match outcome {
        Outcome::Failed if state.past_no_return(plan).is_some() => {
            left.push(format!("mend the cause, then finish with `rekindle runs resume {id}`; undoing is not possible any more"));
        }
        Outcome::Failed => left.push(format!(
            "finish with `rekindle runs resume {id}`, or take everything back with `rekindle runs undo {id}`"
        )),
        Outcome::Verified | Outcome::Partial => left.extend(old_data(plan, run_dir, state)),
        Outcome::Undone | Outcome::Stuck => {}
    }
    for host in &plan.lost_hosts {
        left.push(format!(
            "{host} is attested lost: keep it off; when it is replaced, add its member as a learner"
        ));
    }
    left
}

/// Where old data lies. It is never removed by Rekindle: it may be wanted yet.
fn old_data(plan: &Plan, run_dir: &Utf8Path, state: &RunState) -> Vec<String> {
    let mut folders: std::collections::BTreeSet<(String, String)> = std::collections::BTreeSet::new();
    for moved in moved(plan, state) {
        if let Some(folder) = own_folder(&moved.to) {
            folders.insert((moved.host.clone(), folder.to_string()));
        }
    }
    let told = folders.into_iter().map(|(host, folder)| {
        format!("{host}:{folder} keeps what was moved aside; remove it when it is no longer wanted: rm -r {folder}")
    });
    told.chain([format!("{run_dir} keeps the files of this run")]).collect()
}
