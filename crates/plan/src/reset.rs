//! Taking one kubeadm host out of its cluster, as `kubeadm reset` does, but archived first: everything it removes is
//! renamed aside, and can be put back until the member has left etcd.
//!
//! Order: what etcd holds is saved, kubelet and all pods stop, files go aside, a survivor removes the member and the Node
//! object. Only a member whose leaving keeps a quorum may go.

use crate::build::Steps;
use crate::parts::{add_stop_unit, has_api_server};
use crate::parts_plan::{Parts, assemble};
use crate::paths::{Swap, aside_in};
use crate::refuse;
use crate::restart::nothing_lost;
use crate::saves::add_saves;
use crate::sources::{host_of, none_needed};
use crate::survey::{Context, Survey, kubelet_unit, url_host};
use rekindle_model::diagnosis::{Diagnosis, MemberVerdict};
use rekindle_model::etcd::{EtcdEndpoint, EtcdMember};
use rekindle_model::host::{Component, HostFacts, Layout};
use rekindle_model::inventory::Inventory;
use rekindle_model::plan::{Goal, Phase, PlanOutcome};
use rekindle_model::step::{Reversibility, Step};
use rekindle_model::{HostId, HostPath, Seen};

/// What kubeadm and kubelet keep on a host, by folder (kubeadm `phases/reset/cleanupnode.go`). CNI configuration is not
/// among it: a host that joins again needs it.
const KUBERNETES: [&str; 8] = [
    "manifests",
    "pki",
    "admin.conf",
    "super-admin.conf",
    "kubelet.conf",
    "bootstrap-kubelet.conf",
    "controller-manager.conf",
    "scheduler.conf",
];
const KUBELET: [&str; 4] = ["pki", "config.yaml", "kubeadm-flags.env", "instance-config.yaml"];

/// The member that leaves, and who removes it.
struct Leaving<'a> {
    member: EtcdMember,
    survivor: &'a HostFacts,
    endpoint: EtcdEndpoint,
    left: usize,
}

/// Plans the reset of one host; the others given are its survivors.
pub fn reset(
    inventory: &Inventory,
    diagnosis: &Diagnosis,
    goal: &Goal,
    target: &HostId,
    now_ms: i64,
) -> PlanOutcome {
    let context = Context { inventory, diagnosis, goal, now_ms };
    let refused = |reason: String, possible: &str| {
        refuse::because(none_needed(&context), reason, vec![possible.to_owned()])
    };
    let Some(host) = inventory.host(target) else {
        return refused(format!("{target} is not among the hosts given"), "name it with --host as well");
    };
    if let Some(why) = &host.unreachable {
        return refused(
            format!("{target} can't be reached: {why}"),
            "a host that is gone for good leaves nothing to reset: remove its member and its Node from the others",
        );
    }
    if host.layout == Layout::Units {
        return refused(
            format!("the control plane on {target} is run by systemd units"),
            "reset is for hosts that kubeadm made",
        );
    }
    let leaving = match leaving(&context, host) {
        Ok(leaving) => leaving,
        Err(why) => {
            return refused(why, "bring etcd to a quorum that can spare this member: `rekindle check`");
        }
    };
    PlanOutcome::Plan(Box::new(assemble(&context, parts(&context, host, leaving.as_ref()))))
}

/// The member that leaves with the host; none for a worker, and for the only member there is.
fn leaving<'a>(context: &Context<'a>, host: &'a HostFacts) -> Result<Option<Leaving<'a>>, String> {
    let config = host.etcd_config.known();
    let survey = context.survey(&[]);
    if config.is_some() && survey.voters <= 1 {
        return Ok(None);
    }
    let healthy = |h: &HostFacts| context.verdict(&h.id) == Some(&MemberVerdict::Healthy);
    let others: Vec<&HostFacts> =
        survey.members.iter().map(|m| m.host).filter(|h| h.id != host.id && healthy(h)).collect();
    let listed = others.iter().find_map(|h| Some((*h, h.etcd_live.known()?.members.known()?)));
    let member = listed.and_then(|(_, members)| members.iter().find(|m| is_its(context, host, m)).cloned());
    if config.is_none() && member.is_none() {
        return without_etcd(host, &survey).map(|()| None);
    }
    let left = survey.voters.saturating_sub(1);
    if others.len() < left / 2 + 1 {
        return Err(format!(
            "without the member on {} {left} would be left, and only {} of them are seen to be healthy",
            host.id,
            others.len()
        ));
    }
    match (listed, member) {
        (Some((survivor, _)), Some(member)) => {
            let endpoint = survivor.etcd_config.known().map(|c| c.endpoint.clone());
            let endpoint = endpoint.ok_or("etcd's settings on a survivor are not known")?;
            Ok(Some(Leaving { member, survivor, endpoint, left }))
        }
        // It has left already: an earlier reset was cut off behind that.
        (Some(_), None) => Ok(None),
        (None, _) => Err("no healthy member tells who the members are".into()),
    }
}

/// Whether a member is a host's: by its settings, and where they can't be read by its name and its peers' address.
fn is_its(context: &Context<'_>, host: &HostFacts, member: &EtcdMember) -> bool {
    if let Some(config) = host.etcd_config.known() {
        return member.peer_urls.iter().any(|url| config.peer_urls.contains(url));
    }
    let node = context.inventory.node_on(host);
    let names =
        [Some(host.id.bare()), host.hostname.known().map(String::as_str), node.map(|n| n.name.as_str())];
    let named = names.into_iter().flatten().any(|name| name.eq_ignore_ascii_case(&member.name));
    let own = host.addresses.known().into_iter().chain(node.map(|n| &n.addresses)).flatten();
    let mut addresses = own.map(String::as_str).chain([host.id.bare()]);
    named || addresses.any(|address| member.peer_urls.iter().any(|url| url_host(url) == address))
}

/// That a host whose settings of etcd are not known has no etcd: a worker, or a control plane with an etcd elsewhere.
fn without_etcd(host: &HostFacts, survey: &Survey<'_>) -> Result<(), String> {
    let etcd = Component::Etcd;
    let seen =
        host.manifest(etcd).is_some() || host.process(etcd).is_some() || host.container(etcd).is_some();
    let elsewhere = host.manifests.known().is_some() && survey.uncovered.is_empty();
    if !seen && (host.layout == Layout::None || elsewhere) {
        return Ok(());
    }
    Err(format!(
        "etcd's settings on {} can't be read ({}), and no list of a healthy member shows which member is its: that would stay \
         in etcd, and its data where it is",
        host.id,
        host.etcd_config.why_unknown().unwrap_or_default()
    ))
}

/// Name of the Node that a host is, as the API tells it; where it tells nothing, kubelet's choice (the host's name in lower
/// case). A name that is none of the Nodes' would be taken for one that is gone already.
fn node_name(inventory: &Inventory, host: &HostFacts) -> Option<String> {
    match &inventory.cluster.nodes {
        Seen::Known(_) => inventory.node_on(host).map(|node| node.name.clone()),
        Seen::Unknown(_) => host.hostname.known().map(|name| name.to_lowercase()),
    }
}

fn parts(context: &Context<'_>, host: &HostFacts, leaving: Option<&Leaving<'_>>) -> Parts {
    let mut steps = Steps::default();
    let id = Some(&host.id);
    steps.stage();
    add_saves(context, &mut steps, |kind| host_of(kind) == Some(&host.id));
    steps.stage();
    add_stop_unit(&mut steps, &host.id, kubelet_unit(host), false);
    let told = "stop and remove all pods of this host, whatever their namespace";
    steps.add(id, Phase::Stop, Reversibility::Compensated, told, Step::RemovePods {});
    add_asides(context, &mut steps, host);
    let api = context.inventory.hosts.iter().find(|h| {
        h.id != host.id
            && h.unreachable.is_none()
            && has_api_server(h)
            && h.api.known().is_some_and(|a| a.is_ready())
    });
    if let Some(leaving) = leaving {
        let survivor = Some(&leaving.survivor.id);
        steps.stage();
        let step = Step::ProveMember { endpoint: leaving.endpoint.clone(), members: leaving.left + 1 };
        let told = "prove that the others answer in a quorum without this member";
        steps.add(survivor, Phase::Verify, Reversibility::Reversible, told, step);
        steps.stage();
        let step = Step::RemoveMember { endpoint: leaving.endpoint.clone(), member: leaving.member.clone() };
        let told = format!("remove member {} ({}) from etcd", leaving.member.name, leaving.member.id);
        steps.add(survivor, Phase::Restore, Reversibility::Final, told, step);
    }
    let node = node_name(context.inventory, host);
    if let (Some(api), Some(name)) = (api, &node) {
        steps.stage();
        let step = Step::DeleteNode { name: name.clone() };
        let told = format!("delete the Node object {name}");
        steps.add(Some(&api.id), Phase::Restore, Reversibility::Final, told, step);
        steps.stage();
        let told = "wait until its API server is ready, with the members that are left";
        steps.add(Some(&api.id), Phase::Ready, Reversibility::Reversible, told, Step::WaitApiReady {});
    }
    let steps = steps.into_vec();
    let mut hosts: Vec<HostId> = steps.iter().filter_map(|s| s.host.clone()).collect();
    hosts.sort();
    hosts.dedup();
    Parts {
        hosts,
        summary: summary(host, leaving, api),
        choice: none_needed(context),
        cost: nothing_lost(),
        steps,
        how_to_go_back: format!(
            "Until the member is removed from etcd, `rekindle runs undo {}` puts every file back and starts kubelet. After \
             that the host joins anew; everything it had stays in the run's folders.",
            context.goal.run_id
        ),
        warnings: warnings(host, leaving, api, node.as_deref()),
    }
}

/// Files and folders aside, each on its own file system.
fn add_asides(context: &Context<'_>, steps: &mut Steps, host: &HostFacts) {
    let run = &context.goal.run_id;
    let mut add = |from: HostPath, to: HostPath| {
        let summary = format!("move {from} aside");
        let step = Step::Rename { from, to, optional: true };
        steps.add(Some(&host.id), Phase::Restore, Reversibility::Reversible, summary, step);
    };
    for (folder, names) in [("/etc/kubernetes", KUBERNETES.as_slice()), ("/var/lib/kubelet", &KUBELET)] {
        let folder = HostPath::from(folder);
        for name in names {
            add(folder.join(name), aside_in(&folder, run).join(name));
        }
    }
    if let Some(config) = host.etcd_config.known() {
        Swap::in_place(host, config, run).asides().for_each(|(from, to)| add(from, to));
    }
}

/// What is done, and the way back: the plan's second half.
fn summary(host: &HostFacts, leaving: Option<&Leaving<'_>>, api: Option<&HostFacts>) -> String {
    let id = &host.id;
    let control_plane = has_api_server(host);
    let what = match leaving {
        Some(leaving) => format!(
            "{id} leaves its cluster; {} etcd members stay, and {} removes the one that goes.",
            leaving.left, leaving.survivor.id
        ),
        None if control_plane => {
            format!(
                "{id} is reset. No other member holds its data: what it had is only in the run's folders."
            )
        }
        None => format!("{id} leaves its cluster."),
    };
    let back = match (api, control_plane) {
        (Some(api), true) => format!(
            "To join again: on {} run `kubeadm init phase upload-certs --upload-certs`, then `kubeadm token create \
             --print-join-command --certificate-key KEY` with the key it prints; run what that prints on {id}.",
            api.id
        ),
        (Some(api), false) => format!(
            "To join again: run `kubeadm token create --print-join-command` on {}, and what it prints on {id}.",
            api.id
        ),
        (None, _) => format!(
            "To come back: `rekindle runs undo`, or `kubeadm init` on {id} and then `rekindle recover --from VAULT`."
        ),
    };
    format!("{what} All that `kubeadm reset` would delete is renamed aside and kept. {back}")
}

fn warnings(
    host: &HostFacts,
    leaving: Option<&Leaving<'_>>,
    api: Option<&HostFacts>,
    node: Option<&str>,
) -> Vec<String> {
    let mut warnings = vec![
        "Left as they are, as by kubeadm: /etc/cni/net.d, iptables and IPVS rules (`iptables-save | grep KUBE`, `ipvsadm \
         --clear`), ~/.kube/config. The address of its API server leaves the endpoints by itself within 15 s."
            .to_owned(),
        format!("Pods on {} end at once: drain the node first if they should move.", host.id),
    ];
    if api.is_none() {
        warnings.push("No other API server is ready: the Node object is not deleted.".into());
    } else if node.is_none() {
        warnings.push(format!(
            "None of the cluster's Nodes is seen to be {}: none is deleted. `kubectl get nodes -o wide` shows whether one is left.",
            host.id
        ));
    }
    if let (Some(_), Some(why)) = (leaving, host.etcd_config.why_unknown()) {
        warnings.push(format!(
            "etcd's settings on {} can't be read ({why}): its data is neither saved nor moved aside. Move it away before the \
             host joins again.",
            host.id
        ));
    }
    warnings
}
