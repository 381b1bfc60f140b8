//! The steps: signed, swapped, waited for, proved.

use super::pick::{Work, reachable, runs};
use crate::build::Steps;
use crate::parts::{add_start_unit, add_stop_containers, add_stop_unit, add_wait_component};
use crate::survey::{Context, Survey, kubelet_unit};
use rekindle_model::certificate::{Renewal, ServedCertificate};
use rekindle_model::host::{Component, HostFacts, Layout};
use rekindle_model::plan::Phase;
use rekindle_model::step::{Reversibility, Step};
use rekindle_model::{HostId, Seen};
use std::collections::BTreeSet;

/// How long nodes may take to come back.
const NODES_TIMEOUT_S: u64 = 240;

/// Keys and requests on each host, then the signatures.
pub(super) fn add_signed(steps: &mut Steps, works: &[Work<'_>]) {
    let signed = || works.iter().filter(|w| !w.renewals.is_empty());
    steps.stage();
    for work in signed() {
        let step = Step::RequestCertificates { renewals: work.renewals() };
        let summary = format!("make {} new keys, which never leave the host", work.renewals.len());
        steps.add(Some(&work.host.id), Phase::Restore, Reversibility::Reversible, summary, step);
    }
    steps.stage();
    for work in signed() {
        let signers: BTreeSet<&HostId> = work.renewals.iter().map(|(by, _)| by).collect();
        for by in signers {
            let of_signer = work.renewals.iter().filter(|(other, _)| other == by);
            let renewals: Vec<Renewal> = of_signer.map(|(_, renewal)| renewal.clone()).collect();
            let names: Vec<String> = renewals.iter().map(told).collect();
            let summary = format!("sign for {}: {}", work.host.id, names.join(", "));
            let step = Step::SignCertificates { for_host: work.host.id.clone(), renewals };
            steps.add(Some(by), Phase::Restore, Reversibility::Reversible, summary, step);
        }
    }
}

/// A certificate that is signed; for another host with its subject, which is for a person to judge.
fn told(one: &Renewal) -> String {
    match &one.node {
        Some(node) => format!("{} (O=system:nodes, CN=system:node:{node})", one.name),
        None => one.name.clone(),
    }
}

/// Stops what uses the certificates of a host, swaps them, starts it again.
pub(super) fn add_swap(steps: &mut Steps, work: &Work<'_>) {
    add_stopped_swap(steps, work);
    for unit in units(work) {
        add_start_unit(steps, &work.host.id, unit, false, Reversibility::Compensated);
    }
    add_start_kubelet(steps, work);
}

/// Stops what uses the certificates of a host, and swaps them.
pub(super) fn add_stopped_swap(steps: &mut Steps, work: &Work<'_>) {
    let (host, id) = (work.host, &work.host.id);
    let pods = host.layout != Layout::Units;
    if uses_kubelet(work) {
        add_stop_unit(steps, id, kubelet_unit(host), false);
    }
    units(work).iter().rev().for_each(|unit| add_stop_unit(steps, id, unit, false));
    let running: Vec<Component> =
        work.components.iter().copied().filter(|c| *c != Component::Etcd || is_up(host, *c)).collect();
    if pods && !running.is_empty() {
        add_stop_containers(steps, id, &running);
    }
    let step = Step::InstallCertificates { renewals: work.renewals(), set_aside: work.set_aside.clone() };
    let summary = "put the new certificates and keys in place, the old ones into the run's folders";
    steps.add(Some(id), Phase::Restore, Reversibility::Reversible, summary, step);
}

/// Starts kubelet, where it was stopped for the swap.
pub(super) fn add_start_kubelet(steps: &mut Steps, work: &Work<'_>) {
    if uses_kubelet(work) {
        let unit = kubelet_unit(work.host);
        add_start_unit(steps, &work.host.id, unit, false, Reversibility::Compensated);
    }
}

/// Whether kubelet is restarted: for its own sake, or for its static pods.
fn uses_kubelet(work: &Work<'_>) -> bool {
    work.kubelet || (work.host.layout != Layout::Units && !work.components.is_empty())
}

/// The units of the components that use the certificates; none with static pods.
fn units<'a>(work: &Work<'a>) -> Vec<&'a str> {
    let pods = work.host.layout != Layout::Units;
    let used = Component::ALL.into_iter().filter(|one| !pods && work.components.contains(one));
    used.filter_map(|component| work.host.unit_of(component)).collect()
}

/// Whether a component was seen running.
fn is_up(host: &HostFacts, component: Component) -> bool {
    host.process(component).is_some() || host.container(component).is_some_and(|c| c.running)
}

pub(super) fn add_waits(steps: &mut Steps, survey: &Survey<'_>, works: &[Work<'_>], rolling: bool) {
    let restarted = |w: &Work<'_>, component| w.components.contains(&component);
    steps.stage();
    for work in works.iter().filter(|w| restarted(w, Component::Etcd)) {
        let Some(config) = work.host.etcd_config.known() else { continue };
        let step = Step::ProveMember { endpoint: config.endpoint.clone(), members: survey.voters };
        let summary = format!("wait until member {} answers in a quorum", config.name);
        steps.add(Some(&work.host.id), Phase::Verify, Reversibility::Reversible, summary, step);
    }
    steps.stage();
    for work in works.iter().filter(|w| runs(w.host, Component::KubeApiserver)) {
        if restarted(work, Component::KubeApiserver) || restarted(work, Component::Etcd) || !rolling {
            let summary = "wait until its API server is ready";
            let step = Step::WaitApiReady {};
            steps.add(Some(&work.host.id), Phase::Ready, Reversibility::Reversible, summary, step);
        }
    }
    steps.stage();
    for work in works {
        for component in [Component::KubeControllerManager, Component::KubeScheduler] {
            if restarted(work, component) {
                add_wait_component(steps, &work.host.id, component);
            }
        }
    }
}

/// What is proved at the end: the certificates on every host, and the nodes where kubelets were restarted.
pub(super) fn add_proofs(context: &Context<'_>, steps: &mut Steps, works: &[Work<'_>]) {
    steps.stage();
    for work in works {
        let asked = |s: &&ServedCertificate| work.renewals.iter().any(|(_, r)| s.names.contains(&r.name));
        let served = work
            .facts
            .served
            .iter()
            .filter(asked)
            .map(|s| ServedCertificate { certificate: Seen::default(), ..s.clone() });
        let step = Step::ProveCertificates {
            pki_dir: work.facts.pki_dir.clone(),
            renewals: work.renewals(),
            served: served.collect(),
        };
        let summary = "prove the new certificates, in the files and as the ports serve them";
        steps.add(Some(&work.host.id), Phase::Verify, Reversibility::Reversible, summary, step);
    }
    let kubelets = works.iter().any(|w| w.kubelet || !w.components.is_empty());
    let api = reachable(context).find(|h| runs(h, Component::KubeApiserver)).filter(|_| kubelets);
    if let Some(host) = api {
        if !steps.any(|step| matches!(step, Step::WaitApiReady {})) {
            // Leases are compared with what the API server said when it was ready.
            steps.stage();
            let summary = "wait until its API server is ready";
            let step = Step::WaitApiReady {};
            steps.add(Some(&host.id), Phase::Ready, Reversibility::Reversible, summary, step);
        }
        steps.stage();
        let step = Step::WaitNodes { except: Vec::new(), timeout_seconds: NODES_TIMEOUT_S };
        let summary = "wait until all nodes are Ready with renewed leases";
        steps.add(Some(&host.id), Phase::Verify, Reversibility::Reversible, summary, step);
    }
}
