//! What the planner's tests share: goals, diagnoses by hand, and the text form of an outcome that goldens hold.
#![allow(dead_code, unreachable_pub)]

use rekindle_model::diagnosis::{ComponentVerdict, Diagnosis, EtcdVerdict, MemberVerdict};
use rekindle_model::fixtures::{Fixture, NOW_MS};
use rekindle_model::host::Component;
use rekindle_model::inventory::Inventory;
use rekindle_model::plan::{Cost, Goal, Plan, PlanOutcome};
use rekindle_model::{HostId, HostPath, RunId, Seen};
use std::collections::BTreeMap;
use std::fmt::Write;

/// When the failure was first seen: 30 minutes before the inventory.
pub const FAILED_MS: i64 = NOW_MS - 30 * 60_000;

pub fn goal() -> Goal {
    Goal {
        run_id: RunId("0199aaaa-bbbb-7ccc-8ddd-0123deadbeef".into()),
        run_dir: HostPath::from("/var/lib/rekindle/runs/0199aaaa-bbbb-7ccc-8ddd-0123deadbeef"),
        token: "rekindle-0199aaaa".into(),
        exact: false,
        data_dir: None,
        accept_unknown_identity: false,
        accept_corrupt_alarm: false,
        skip_hash_check: false,
        go_back: false,
    }
}

pub fn host(index: usize) -> HostId {
    HostId(format!("root@10.0.0.{}", 11 + index))
}

/// A diagnosis by hand: members in the order of the hosts.
pub fn diagnosis(inventory: &Inventory, etcd: EtcdVerdict, members: &[MemberVerdict]) -> Diagnosis {
    Diagnosis {
        checks: Vec::new(),
        findings: Vec::new(),
        etcd,
        members: inventory.hosts.iter().map(|h| h.id.clone()).zip(members.iter().cloned()).collect(),
        components: BTreeMap::new(),
        kubelets_stopped: Vec::new(),
        failed_since: Some((FAILED_MS, "etcd's last log line".into())),
    }
}

/// Adds a component that needs an action.
pub fn needs(
    mut diagnosis: Diagnosis,
    host: &HostId,
    component: Component,
    verdict: ComponentVerdict,
) -> Diagnosis {
    diagnosis.components.entry(host.clone()).or_default().insert(component, verdict);
    diagnosis
}

/// The plan of an outcome; anything else fails the test with what it was.
pub fn expect_plan(outcome: PlanOutcome) -> Plan {
    match outcome {
        PlanOutcome::Plan(plan) => *plan,
        other => panic!("no plan, but {}", text(&other)),
    }
}

/// Plans, checks that the same question gives the same answer and that the linter has nothing to say.
pub fn planned(inventory: &Inventory, diagnosis: &Diagnosis, goal: &Goal) -> PlanOutcome {
    let outcome = rekindle_plan::plan(inventory, diagnosis, goal, NOW_MS);
    assert_eq!(outcome, rekindle_plan::plan(inventory, diagnosis, goal, NOW_MS), "not deterministic");
    if let PlanOutcome::Plan(plan) = &outcome {
        assert_eq!(rekindle_plan::lint(plan, inventory), Vec::<String>::new(), "{}", text(&outcome));
    }
    outcome
}

pub fn fixture_single() -> Fixture {
    Fixture::kubeadm(1).lose_data(0).snapshot(48_000)
}

/// An outcome as text, step by step, for goldens.
pub fn text(outcome: &PlanOutcome) -> String {
    let mut out = String::new();
    match outcome {
        PlanOutcome::NothingToDo(why) => writeln!(out, "nothing to do: {why}").unwrap(),
        PlanOutcome::Refused(refusal) => {
            writeln!(out, "refused: {}", refusal.reason).unwrap();
            candidates(&mut out, &refusal.candidates);
            refusal.possible.iter().for_each(|p| writeln!(out, "possible: {p}").unwrap());
        }
        PlanOutcome::Plan(plan) => plan_text(&mut out, plan),
    }
    out
}

fn candidates(out: &mut String, all: &[(rekindle_model::source::SourceCandidate, String)]) {
    all.iter().for_each(|(c, why)| writeln!(out, "candidate: {}: {why}", c.kind).unwrap());
}

fn seen(value: &Seen<i64>) -> String {
    match value {
        Seen::Known(v) => v.to_string(),
        Seen::Unknown(why) => format!("unknown ({why})"),
    }
}

fn plan_text(out: &mut String, plan: &Plan) {
    let hosts: Vec<&str> = plan.hosts.iter().map(|h| h.0.as_str()).collect();
    writeln!(out, "plan for {}\n{}", hosts.join(", "), plan.summary).unwrap();
    candidates(out, &plan.candidates);
    let Cost { restored_revision, lost_end_revision, evidence, time_lost_seconds } = &plan.cost;
    writeln!(out, "restored revision: {restored_revision:?}; last acknowledged: {}", seen(lost_end_revision))
        .unwrap();
    writeln!(out, "seconds lost: {}; {evidence}", seen(time_lost_seconds)).unwrap();
    plan.warnings.iter().for_each(|w| writeln!(out, "warning: {w}").unwrap());
    writeln!(out, "back: {}", plan.how_to_go_back).unwrap();
    writeln!(out, "point of no return: {:?}", plan.point_of_no_return()).unwrap();
    for s in &plan.steps {
        let host = s.host.as_ref().map_or("here", |h| h.0.as_str());
        writeln!(
            out,
            "{:>2}.{:<2} {host} {:?} {:?}: {}",
            s.stage, s.number, s.phase, s.reversibility, s.summary
        )
        .unwrap();
        let mut value = serde_json::to_value(&s.step).unwrap();
        if let Some(text) = value.get("text").and_then(|t| t.as_str()) {
            let flags: Vec<&str> = text
                .split_whitespace()
                .filter(|w| {
                    w.contains("initial-cluster") || w.contains("/var/lib/etcd") || w.contains("data-dir")
                })
                .collect();
            let shown = format!("... {}", flags.join(" "));
            value["text"] = shown.into();
        }
        writeln!(out, "      {value}").unwrap();
    }
}
