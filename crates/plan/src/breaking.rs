//! What a drill on a living cluster breaks. Nothing is deleted and nothing is overwritten: data and certificates are moved
//! aside on their own file system, processes are stopped, and `runs undo` brings all of it back. The recovery that follows is the ordinary one,
//! and knows nothing of the drill.
//!
//! Only a cluster that is well is broken: what a drill finds and mends must be what it made.

use crate::build::Steps;
use crate::certificates::expiry::add_expiry;
use crate::parts::{add_stop_containers, add_stop_unit, parked};
use crate::parts_plan::{Parts, assemble};
use crate::paths::Swap;
use crate::refuse;
use crate::restart::nothing_lost;
use crate::sources::{choose, none_needed, snapshot_at_hand};
use crate::survey::{Context, Member, kubelet_unit};
use crate::words::and_list;
use rekindle_model::diagnosis::{Diagnosis, EtcdVerdict, MemberVerdict};
use rekindle_model::etcd::EtcdDefinition;
use rekindle_model::finding::Severity;
use rekindle_model::host::Component;
use rekindle_model::inventory::{DRILL_LABEL, Inventory};
use rekindle_model::plan::{Goal, Phase, PlanOutcome};
use rekindle_model::step::{Reversibility, Step};
use rekindle_model::{HostId, Seen};

/// The value of the label.
const ALLOWED: &str = "allowed";

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Every member loses its data.
    DataLost,
    /// So many members lose their data that no quorum is left.
    QuorumLost,
    /// One member loses its data.
    MemberLost,
    /// Every leaf certificate of the hosts given has expired.
    CertificatesExpired,
    /// Nothing is lost: etcd's static pod loses its manifest, or the unit of the API server is stopped.
    Stopped,
}

/// Plans the fault, or says why this cluster is not broken. `allowed` are the UIDs of `kube-system` that the operator's own
/// configuration names: a label alone comes along when a cluster is cloned.
pub fn breaking(
    inventory: &Inventory,
    diagnosis: &Diagnosis,
    goal: &Goal,
    scenario: Scenario,
    allowed: &[String],
    now_ms: i64,
) -> PlanOutcome {
    let context = Context { inventory, diagnosis, goal, now_ms };
    let refused =
        |why: String, possible: &str| refuse::because(none_needed(&context), why, vec![possible.to_owned()]);
    let cluster = &inventory.cluster;
    if let Err(why) = may_be_broken(&cluster.kube_system_uid, &cluster.drill_label, allowed) {
        return refused(why, &how_to_allow());
    }
    if let Some(why) = unwell(diagnosis) {
        return refused(why, "mend it first: `rekindle check` names what is wrong");
    }
    let survey = context.survey(&[]);
    if let Some((host, why)) = survey.unreadable.first() {
        return refused(format!("{host}: {why}"), "a drill needs every control-plane host");
    }
    if !survey.uncovered.is_empty() || !survey.lost.is_empty() {
        let names: Vec<String> =
            survey.uncovered.iter().chain(&survey.lost).map(|m| m.name.clone()).collect();
        let why = format!("etcd has members on hosts that were not given: {}", and_list(&names));
        return refused(why, "name every control-plane host with --host");
    }
    let members = survey.members.as_slice();
    if let Some(why) = members.iter().find_map(|member| of_another(member, &cluster.kube_system_uid)) {
        return refused(why, "give the hosts and the kubeconfig of one cluster: that which may be broken");
    }
    let broken = match (scenario, members) {
        (Scenario::QuorumLost | Scenario::MemberLost, [] | [_] | [_, _]) => {
            let why =
                format!("the cluster has {} etcd members, and this scenario needs three", members.len());
            return refused(why, "data-lost and stopped are scenarios for any number of members");
        }
        (Scenario::DataLost | Scenario::CertificatesExpired, all) => all,
        (Scenario::QuorumLost, all) => all.get(all.len() - survey.quorum()..).unwrap_or_default(),
        (Scenario::MemberLost, all) => all.get(all.len() - 1..).unwrap_or_default(),
        (Scenario::Stopped, all) => all.get(..1).unwrap_or_default(),
    };
    if scenario == Scenario::DataLost && !snapshot_at_hand(&context) {
        let why = "no backup at hand can be restored, and no member would keep its data".to_owned();
        let mut outcome = refused(why, "give --snapshot or a vault whose newest state verifies");
        if let PlanOutcome::Refused(refusal) = &mut outcome {
            refusal.candidates = choose(&context).candidates;
        }
        return outcome;
    }
    match parts(&context, scenario, broken) {
        Ok(parts) => PlanOutcome::Plan(Box::new(assemble(&context, parts))),
        Err(why) => refused(why, "the other scenarios leave certificates alone"),
    }
}

/// Whether its people allow that a cluster is broken, by the UID and the label of its `kube-system`.
pub(crate) fn may_be_broken(
    uid: &Seen<String>,
    label: &Seen<String>,
    allowed: &[String],
) -> Result<(), String> {
    let unread = |why: Option<&str>| {
        format!("whether this cluster may be broken can't be read: {}", why.unwrap_or_default())
    };
    let uid = uid.known().ok_or_else(|| unread(uid.why_unknown()))?;
    if !allowed.contains(uid) {
        return Err(format!(
            "the configuration does not allow drills on this cluster (kube-system UID {uid})"
        ));
    }
    match label.known().map(String::as_str) {
        Some(ALLOWED) => Ok(()),
        Some(_) => {
            Err(format!("this cluster does not carry the label {DRILL_LABEL}={ALLOWED} on kube-system"))
        }
        None => Err(unread(label.why_unknown())),
    }
}

/// Why a member is not proved to be of the cluster that may be broken: what the API tells may come by the operator's own
/// kubeconfig, from another cluster than that of the hosts given.
fn of_another(member: &Member<'_>, allowed: &Seen<String>) -> Option<String> {
    let host = &member.host.id;
    let in_etcd = match &member.host.etcd_live {
        Seen::Known(live) => &live.kube_system_uid,
        Seen::Unknown(why) => return Some(format!("etcd on {host} could not be asked whose it is: {why}")),
    };
    match (in_etcd, allowed.known()) {
        (Seen::Unknown(why), _) => Some(format!("etcd on {host} does not tell whose it is: {why}")),
        (Seen::Known(held), Some(uid)) if held == uid => None,
        (Seen::Known(held), uid) => Some(format!(
            "etcd on {host} is another cluster's (kube-system UID {held}) than the one that may be broken ({})",
            uid.map_or("unknown", String::as_str)
        )),
    }
}

/// What they do to allow it.
pub(crate) fn how_to_allow() -> String {
    let label = format!("kubectl label namespace kube-system {DRILL_LABEL}={ALLOWED}");
    format!("for a cluster that is there to be broken: `{label}`, and its UID in `drill.clusters`")
}

/// Why the cluster is not well; a moment later it may be, when it has just started.
pub fn unwell(diagnosis: &Diagnosis) -> Option<String> {
    let found = &diagnosis.findings;
    if let Some(finding) = found.iter().find(|finding| finding.severity == Severity::Failure) {
        return Some(format!("the cluster is not well: {}", finding.summary));
    }
    let healthy = |verdict: &MemberVerdict| *verdict == MemberVerdict::Healthy;
    let well = diagnosis.etcd == EtcdVerdict::Healthy
        && diagnosis.members.values().all(healthy)
        && !diagnosis.members.is_empty();
    (!well).then(|| "the cluster is not seen to be well: not every etcd member is healthy".to_owned())
}

fn parts(context: &Context<'_>, scenario: Scenario, broken: &[Member<'_>]) -> Result<Parts, String> {
    let mut steps = Steps::default();
    // side by side: that members break one after the other would let etcd notice
    steps.stage();
    match scenario {
        Scenario::Stopped => broken.iter().for_each(|member| add_stop(context, &mut steps, member)),
        Scenario::CertificatesExpired => add_expiry(context, &mut steps)?,
        Scenario::DataLost | Scenario::QuorumLost | Scenario::MemberLost => {
            broken.iter().for_each(|member| add_loss(context, &mut steps, member));
        }
    }
    let hosts: Vec<HostId> = broken.iter().map(|member| member.host.id.clone()).collect();
    let names: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let names = and_list(&names);
    let what = match scenario {
        Scenario::Stopped => format!("the control plane on {names} is stopped; no data is touched"),
        Scenario::CertificatesExpired => {
            format!("every certificate on {names} has expired; the good ones are moved aside")
        }
        _ => format!("etcd on {names} loses its data, which is moved aside"),
    };
    Ok(Parts {
        hosts,
        summary: format!(
            "A drill breaks this cluster: {what}. Then it is recovered as after a real failure."
        ),
        choice: none_needed(context),
        cost: nothing_lost(),
        steps: steps.into_vec(),
        how_to_go_back: format!(
            "Before the recovery has begun, or after it was undone, `rekindle runs undo {}` puts everything back.",
            context.goal.run_id
        ),
        warnings: vec!["The API is down, or less than safe, until the recovery has ended.".into()],
    })
}

/// Stops what runs on a host, and moves its member's data aside.
fn add_loss(context: &Context<'_>, steps: &mut Steps, member: &Member<'_>) {
    let (host, config) = (member.host, member.config);
    match &config.defined_in {
        EtcdDefinition::Unit { name, .. } => add_stop_unit(steps, &host.id, name, true),
        EtcdDefinition::Manifest(_) => {
            add_stop_unit(steps, &host.id, kubelet_unit(host), false);
            add_stop_containers(steps, &host.id, &Component::ALL);
        }
    }
    for (from, to) in Swap::in_place(host, config, &context.goal.run_id).asides() {
        let summary = format!("move {from} aside");
        let step = Step::Rename { from, to, optional: false };
        steps.add(Some(&host.id), Phase::Stop, Reversibility::Reversible, summary, step);
    }
}

/// Stops a control plane without touching its data.
fn add_stop(context: &Context<'_>, steps: &mut Steps, member: &Member<'_>) {
    let host = member.host;
    if let Some(manifest) = host.manifest(Component::Etcd) {
        let (from, to) = (manifest.path.clone(), parked(context, host, manifest));
        let step = Step::Rename { from, to, optional: false };
        let summary = "move etcd's manifest away: kubelet stops it, and the API server follows";
        steps.add(Some(&host.id), Phase::Stop, Reversibility::Reversible, summary, step);
        // kubelet would, some seconds later: the clock of the recovery starts with a fault that is there
        add_stop_containers(steps, &host.id, &[Component::Etcd]);
    } else if let Some(unit) = host.unit_of(Component::KubeApiserver) {
        add_stop_unit(steps, &host.id, unit, true);
    }
}
