//! The plan that lets go what is stuck: for each thing the first way out that is open, saved first, undone by `undo`.

use super::{Base, refused};
use crate::build::Steps;
use rekindle_model::kube::stuck::{Action, Held, Stuck, StuckKind};
use rekindle_model::kube::{Change, ObjectRef};
use rekindle_model::plan::{Phase, PlanOutcome};
use rekindle_model::step::{Reversibility, Step};
use serde_json::{Value, json};

/// Longest wait for something to go or to be available, in seconds.
const WAIT_SECONDS: u64 = 300;

/// What the operator permits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Permits {
    /// `--remove-finalizers`
    pub remove_finalizers: bool,
}

/// The plan for these. What has no way out that is open is refused with its ladder, and then nothing is done.
pub fn plan(base: &Base, stuck: &[Stuck], permits: Permits) -> PlanOutcome {
    if stuck.is_empty() {
        return PlanOutcome::NothingToDo("nothing of that is stuck".into());
    }
    let mut closed = Vec::new();
    let mut open = Vec::new();
    for one in stuck {
        match one.ladder.iter().find(|rung| is_open(&rung.action, permits)) {
            Some(rung) => open.push((one, &rung.action)),
            None => closed.extend(why_closed(one)),
        }
    }
    if open.is_empty() {
        return refused(
            format!("{} without a way out that Rekindle may take by itself", count(stuck.len())),
            closed,
        );
    }
    let mut steps = Steps::default();
    for (one, action) in &open {
        add(&mut steps, one, action);
    }
    let mut warnings: Vec<String> = open.iter().flat_map(|(one, action)| warning(one, action)).collect();
    warnings.extend(closed.into_iter().map(|line| format!("Left as it is: {line}")));
    let summary = format!(
        "Let go {}: {}.",
        count(open.len()),
        open.iter().map(|(one, _)| one.object.to_string()).collect::<Vec<_>>().join(", ")
    );
    let findings = open.iter().map(|(one, _)| one.finding.clone()).collect();
    let back = "`rekindle runs undo` puts every changed or deleted object back as it was saved. Pods are not put back: \
                their controllers make new ones.";
    base.plan(summary, findings, steps.into_vec(), back.into(), warnings)
}

fn count(number: usize) -> String {
    if number == 1 { "one stuck object".into() } else { format!("{number} stuck objects") }
}

fn is_open(action: &Action, permits: Permits) -> bool {
    match action {
        Action::ByHand => false,
        Action::RemoveFinalizers { .. } => permits.remove_finalizers,
        _ => true,
    }
}

fn why_closed(one: &Stuck) -> Vec<String> {
    let mut lines: Vec<String> =
        one.holders.iter().map(|holder| format!("{}: held by {holder}", one.object)).collect();
    for (number, rung) in one.ladder.iter().enumerate() {
        let flag = if matches!(rung.action, Action::RemoveFinalizers { .. }) {
            " (--remove-finalizers)"
        } else {
            ""
        };
        lines.push(format!("{}: {}. {}{flag}", one.object, number + 1, rung.text));
    }
    lines
}

fn warning(one: &Stuck, action: &Action) -> Vec<String> {
    match action {
        Action::RemoveFinalizers { .. } => {
            one.holders.iter().map(|holder| format!("What will not be done any more: {holder}.")).collect()
        }
        Action::Ignore { name, .. } => vec![format!("Until it is put back, nothing is checked by {name}.")],
        _ => Vec::new(),
    }
}

fn add(steps: &mut Steps, one: &Stuck, action: &Action) {
    steps.stage();
    match action {
        Action::ByHand => {}
        Action::ScaleUp { deployments } => scale_up(steps, one, deployments),
        Action::RemoveFinalizers { held } => remove_finalizers(steps, one, held),
        Action::ForceDelete => {
            let object = one.object.clone();
            let summary = format!("delete {object} without waiting for its kubelet");
            let step = Step::DeleteObject { object, grace_period_seconds: Some(0), put_back: false };
            steps.add(None, Phase::Change, Reversibility::Compensated, summary, step);
            wait_gone(steps, &one.object, false);
        }
        Action::Delete => {
            let object = one.object.clone();
            let summary = format!("delete {object}, saved first");
            let step = Step::DeleteObject { object, grace_period_seconds: None, put_back: true };
            steps.add(None, Phase::Change, Reversibility::Compensated, summary, step);
        }
        Action::NoConversion { conversion } => {
            let to = json!({"strategy": "None"});
            let change = Change::Set { pointer: "/spec/conversion".into(), from: conversion.clone(), to };
            let summary = format!("{} converts without its webhook", one.object);
            change_object(steps, &one.object, vec![change], summary);
        }
        Action::Ignore { index, name } => {
            // the name is tested too: the list may have another order by now
            let own = |field: &str| format!("/webhooks/{index}/{field}");
            let same =
                Change::Set { pointer: own("name"), from: name.as_str().into(), to: name.as_str().into() };
            let pass =
                Change::Set { pointer: own("failurePolicy"), from: "Fail".into(), to: "Ignore".into() };
            let summary = format!("let requests pass while {name} does not answer (failurePolicy Ignore)");
            change_object(steps, &one.object, vec![same, pass], summary);
        }
    }
}

fn change_object(steps: &mut Steps, object: &ObjectRef, changes: Vec<Change>, summary: String) {
    let step = Step::ChangeObject { object: object.clone(), changes };
    steps.add(None, Phase::Change, Reversibility::Reversible, summary, step);
}

fn wait_gone(steps: &mut Steps, object: &ObjectRef, put_back: bool) {
    steps.stage();
    let step = Step::WaitGone { object: object.clone(), timeout_seconds: WAIT_SECONDS, put_back };
    let summary = format!("wait until {object} is gone");
    steps.add(None, Phase::Verify, Reversibility::Compensated, summary, step);
    if object.kind == "Namespace" {
        steps.stage();
        let step = Step::ProveNothingLeft { namespace: object.name.clone() };
        let summary = format!("prove that nothing is left of {object}");
        steps.add(None, Phase::Verify, Reversibility::Compensated, summary, step);
    }
}

fn scale_up(steps: &mut Steps, one: &Stuck, deployments: &[ObjectRef]) {
    for deployment in deployments {
        let change = Change::Set { pointer: "/spec/replicas".into(), from: 0.into(), to: 1.into() };
        change_object(steps, deployment, vec![change], format!("scale {deployment} up to 1"));
    }
    steps.stage();
    let available = |object: &ObjectRef| Step::WaitCondition {
        object: object.clone(),
        condition: "Available".into(),
        status: "True".into(),
        timeout_seconds: WAIT_SECONDS,
    };
    match one.kind {
        StuckKind::ApiService => {
            let summary = format!("wait until {} is available", one.object);
            steps.add(None, Phase::Verify, Reversibility::Compensated, summary, available(&one.object));
        }
        // a CRD whose webhook is started again is not to go
        StuckKind::Webhook => wait_available(steps, deployments, available),
        StuckKind::Crd if one.since_ms.is_none() => wait_available(steps, deployments, available),
        _ => wait_gone(steps, &one.object, false),
    }
}

fn wait_available(steps: &mut Steps, deployments: &[ObjectRef], available: impl Fn(&ObjectRef) -> Step) {
    for deployment in deployments {
        let summary = format!("wait until {deployment} is available");
        steps.add(None, Phase::Verify, Reversibility::Compensated, summary, available(deployment));
    }
}

fn remove_finalizers(steps: &mut Steps, one: &Stuck, held: &[Held]) {
    for object in held {
        let changes = object.finalizers.iter().map(|finalizer| Change::RemoveItem {
            pointer: "/metadata/finalizers".into(),
            item: Value::from(finalizer.as_str()),
        });
        let summary = format!("take {} off {}, saved first", object.finalizers.join(", "), object.object);
        change_object(steps, &object.object, changes.collect(), summary);
    }
    wait_gone(steps, &one.object, matches!(one.kind, StuckKind::Namespace | StuckKind::Crd));
}
