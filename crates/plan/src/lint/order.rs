//! What must come before what.

use super::{View, before, named};
use crate::sources::{host_of, readable};
use crate::survey::kubelet_unit;
use rekindle_model::etcd::EtcdDefinition;
use rekindle_model::host::{Component, HostFacts, Layout};
use rekindle_model::plan::PlannedStep;
use rekindle_model::source::SourceKind;
use rekindle_model::step::{Reversibility, Step};
use rekindle_model::{HostId, HostPath};
use std::collections::BTreeMap;

/// Numbers count from 1, stages ascend from 1.
pub(super) fn numbers(view: &View<'_>, notes: &mut Vec<String>) {
    let mut stage = 1;
    for (number, step) in (1u32..).zip(view.steps()) {
        if step.number != number {
            notes.push(format!("{} should have number {number}", named(step)));
        }
        if step.stage < stage || step.stage > stage + 1 || (number == 1 && step.stage != 1) {
            notes.push(format!("{} has stage {} after stage {stage}", named(step), step.stage));
        }
        stage = step.stage;
    }
}

/// No step touches a host the plan does not name, or one declared lost.
pub(super) fn hosts(view: &View<'_>, notes: &mut Vec<String>) {
    for step in view.steps() {
        match &step.host {
            Some(host) if !view.plan.hosts.contains(host) => {
                notes.push(format!("{} works on a host that the plan does not name", named(step)));
            }
            Some(host) if view.inventory.lost_hosts.contains(host) => {
                notes.push(format!("{} works on a host that was declared lost", named(step)));
            }
            Some(_) => {}
            None if matches!(step.step, Step::BuildDb { .. }) => {}
            None => notes.push(format!("{} names no host to work on", named(step))),
        }
    }
}

/// Every survivor that holds data is saved before anything is stopped; a plan that restores nothing must save what it
/// stops itself.
pub(super) fn saves_before_stops(view: &View<'_>, notes: &mut Vec<String>) {
    let restores = !view.built().is_empty();
    let stops: Vec<&PlannedStep> = view.steps().filter(|s| stops_something(view, s)).collect();
    for candidate in &view.inventory.sources {
        let Some(host) = host_of(&candidate.kind) else { continue };
        let dies = matches!(candidate.kind, SourceKind::OpenDb(_));
        if view.inventory.lost_hosts.contains(host) || !(dies || readable(view.inventory, candidate).is_ok())
        {
            continue;
        }
        let first_stop = stops
            .iter()
            .find(|s| if restores { true } else { s.host.as_ref() == Some(host) && stops_etcd(view, s) });
        let Some(first_stop) = first_stop else { continue };
        let saved = view.steps().any(|s| {
            s.host.as_ref() == Some(host) && saves(&s.step, &candidate.kind) && before(s, first_stop)
        });
        if !saved {
            notes.push(format!(
                "{} holds data and is not saved before {}",
                candidate.kind,
                named(first_stop)
            ));
        }
    }
}

fn saves(step: &Step, kind: &SourceKind) -> bool {
    matches!(
        (step, kind),
        (Step::SaveServed { .. }, SourceKind::Served(_))
            | (Step::SaveOpenDb { .. }, SourceKind::OpenDb(_))
            | (Step::SaveStore { .. }, SourceKind::Store(_))
    )
}

fn stops_something(view: &View<'_>, step: &PlannedStep) -> bool {
    matches!(step.step, Step::StopUnit { .. } | Step::StopContainers { .. }) || takes_data(view, step)
}

/// Whether a step moves a member's data away.
fn takes_data(view: &View<'_>, step: &PlannedStep) -> bool {
    let Step::Rename { from, .. } = &step.step else { return false };
    let config = view.host(step).and_then(|h| h.etcd_config.known());
    config.is_some_and(|c| {
        from.starts_with(&c.data_dir.0) || c.wal_dir.as_ref().is_some_and(|w| from.starts_with(&w.0))
    })
}

fn stops_etcd(view: &View<'_>, step: &PlannedStep) -> bool {
    match &step.step {
        Step::StopContainers { components } => components.contains(&Component::Etcd),
        Step::StopUnit { unit, .. } => {
            let config = view.host(step).and_then(|h| h.etcd_config.known());
            config.is_some_and(|c| matches!(&c.defined_in, EtcdDefinition::Unit { name, .. } if name == unit))
        }
        Step::Rename { .. } => takes_data(view, step),
        _ => false,
    }
}

/// The store is built before it is staged, staged before it is swapped in, and made of a source that is there.
pub(super) fn build_before_stage_before_swap(view: &View<'_>, notes: &mut Vec<String>) {
    for built in view.built() {
        let source = &built.source.path;
        let saved = view.steps().find(|s| saved_file(&s.step) == Some(source));
        match saved {
            Some(saved) if !before(saved, built.at) => {
                notes.push(format!("{} restores from what {} saves later", named(built.at), named(saved)));
            }
            None if built.source.sha256.is_none() => {
                notes.push(format!(
                    "{} restores from {source}, which no step makes and no digest names",
                    named(built.at)
                ));
            }
            _ => {}
        }
    }
    let mut staged: BTreeMap<(Option<&HostId>, HostPath), &PlannedStep> = BTreeMap::new();
    for step in view.steps() {
        match &step.step {
            Step::StageMember { db, staging, wal_staging, .. } => {
                if !view.built().iter().any(|b| b.file == db && b.at.stage < step.stage) {
                    notes.push(format!("{} stages {db} before it is built", named(step)));
                }
                staged.insert((step.host.as_ref(), staging.join("member")), step);
                if let Some(wal) = wal_staging {
                    staged.insert((step.host.as_ref(), wal.clone()), step);
                }
            }
            Step::Rename { from, to, .. } if puts_data_in(view, step, to) => {
                let ready = staged.get(&(step.host.as_ref(), from.clone()));
                if !ready.is_some_and(|s| before(s, step)) {
                    notes.push(format!("{} swaps in {from}, which was not staged before", named(step)));
                }
            }
            _ => {}
        }
    }
}

/// Whether a rename puts data where a member looks for it (in its data dir, or in the one it is given).
fn puts_data_in(view: &View<'_>, step: &PlannedStep, to: &HostPath) -> bool {
    let config = view.host(step).and_then(|h| h.etcd_config.known());
    to.file_name() == Some("member") || config.is_some_and(|c| c.wal_dir.as_ref() == Some(to))
}

fn saved_file(step: &Step) -> Option<&HostPath> {
    match step {
        Step::SaveServed { file, .. } | Step::SaveOpenDb { file, .. } | Step::SaveStore { file, .. } => {
            Some(file)
        }
        _ => None,
    }
}

/// No API server starts before every member of the new cluster is proved.
pub(super) fn proofs_before_clients(view: &View<'_>, notes: &mut Vec<String>) {
    for built in view.built() {
        for member in built.members {
            let proof = view.steps().find(|s| {
                s.host.as_ref() == Some(&member.host) && matches!(s.step, Step::ProveMember { .. })
            });
            let Some(proof) = proof else {
                notes.push(format!("member {} is never proved", member.name));
                continue;
            };
            for start in client_starts(view).filter(|s| s.stage <= proof.stage && s.number > built.at.number)
            {
                notes.push(format!("{} starts an API server before {}", named(start), named(proof)));
            }
        }
    }
}

/// Steps that let an API server run: by its unit, or by kubelet with its manifest in place.
fn client_starts<'a>(view: &'a View<'a>) -> impl Iterator<Item = &'a PlannedStep> {
    let mut pods: BTreeMap<&HostId, (bool, bool)> = BTreeMap::new();
    for host in &view.inventory.hosts {
        let kubelet = host.unit(kubelet_unit(host)).is_none_or(|u| u.is_active());
        pods.insert(&host.id, (kubelet, host.manifest(Component::KubeApiserver).is_some()));
    }
    view.steps().filter(move |step| {
        let Some(host) = view.host(step) else { return false };
        let Some((kubelet, manifest)) = pods.get_mut(&host.id) else { return false };
        match &step.step {
            Step::StartUnit { unit, .. } if unit == kubelet_unit(host) => {
                *kubelet = true;
                *manifest
            }
            Step::StopUnit { unit, .. } if unit == kubelet_unit(host) => {
                *kubelet = false;
                false
            }
            Step::StartUnit { unit, .. } => {
                host.layout == Layout::Units && host.unit_of(Component::KubeApiserver) == Some(unit)
            }
            Step::Rename { from, .. } if is_api_manifest(host, from) && in_manifest_dir(host, from) => {
                *manifest = false;
                false
            }
            Step::Rename { to: path, .. } | Step::ReplaceFile { path, .. }
                if is_api_manifest(host, path) && in_manifest_dir(host, path) =>
            {
                *manifest = true;
                *kubelet
            }
            _ => false,
        }
    })
}

fn in_manifest_dir(host: &HostFacts, path: &HostPath) -> bool {
    path.parent() == Some(host.manifest_dir.0.as_path())
}

/// Whether a path's file name is that of an API server's manifest on this host.
fn is_api_manifest(host: &HostFacts, path: &HostPath) -> bool {
    let known = host.manifests.known().into_iter().flatten();
    let mut names =
        known.filter(|m| m.component == Some(Component::KubeApiserver)).map(|m| m.path.file_name());
    names.any(|name| name == path.file_name()) || path.file_name() == Some("kube-apiserver.yaml")
}

/// What can't be taken back comes after every proof.
pub(super) fn final_steps_last(view: &View<'_>, notes: &mut Vec<String>) {
    let proofs = view.steps().filter(|s| matches!(s.step, Step::ProveMember { .. }));
    let Some(last) = proofs.max_by_key(|s| (s.stage, s.number)) else { return };
    for step in view.steps().filter(|s| s.reversibility == Reversibility::Final && s.stage <= last.stage) {
        notes.push(format!("{} can't be taken back and comes before {}", named(step), named(last)));
    }
}

/// A member is stopped before it is removed, removed before its place is taken, and one learner is added at a time.
pub(super) fn membership(view: &View<'_>, notes: &mut Vec<String>) {
    let mut learner: Option<(&PlannedStep, &[String])> = None;
    for step in view.steps() {
        match &step.step {
            Step::RemoveMember { member, .. } => {
                let home = view.inventory.hosts.iter().find(|h| {
                    !view.inventory.lost_hosts.contains(&h.id)
                        && h.etcd_config.known().is_some_and(|c| c.peer_urls == member.peer_urls)
                });
                let Some(home) = home else { continue };
                let stopped = view
                    .steps()
                    .any(|s| s.host.as_ref() == Some(&home.id) && stops_etcd(view, s) && before(s, step));
                if !stopped {
                    notes.push(format!("{} removes a member whose etcd was not stopped", named(step)));
                }
            }
            Step::AddLearner { peer_urls, .. } => {
                if let Some((open, _)) = learner {
                    notes.push(format!(
                        "{} adds a learner while that of {} is not promoted",
                        named(step),
                        named(open)
                    ));
                }
                learner = Some((step, peer_urls));
            }
            Step::PromoteLearner { peer_urls, .. } => match learner.take() {
                Some((_, added)) if added == peer_urls.as_slice() => {}
                _ => notes.push(format!("{} promotes a learner that was not added before", named(step))),
            },
            _ => {}
        }
    }
    if let Some((open, _)) = learner {
        notes.push(format!("the learner of {} is never promoted", named(open)));
    }
}
