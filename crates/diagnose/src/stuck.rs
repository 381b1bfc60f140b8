//! Objects that will not go away, or keep others from working: who holds them, what that protects, and the ways out with
//! the safest first. The whole of what `unstick` decides by; pure.

mod namespace;

use crate::report::Report;
use rekindle_model::finding::{Evidence, Finding};
use rekindle_model::kube::ObjectRef;
use rekindle_model::kube::nodes::{Node, Pod};
use rekindle_model::kube::stuck::{
    Action, Backend, DeadApiService, DeadConversion, DeadWebhook, Held, Rung, Stuck, StuckFacts, StuckKind,
    Terminating,
};

/// A pod on a node that works is stuck when it should have been gone for so long, in milliseconds.
const OVERDUE_MS: i64 = 60_000;
/// A namespace, CRD or volume that goes by itself is gone within this time, in milliseconds.
const SETTLING_MS: i64 = 10_000;

/// Everything that is stuck.
pub fn find(facts: &StuckFacts) -> Vec<Stuck> {
    let mut found: Vec<Stuck> = Vec::new();
    found.extend(facts.api_services.iter().map(api_service));
    found.extend(facts.conversions.iter().map(conversion));
    found.extend(facts.webhooks.iter().map(webhook));
    found.extend(facts.pods.iter().filter_map(|one| pod(one, facts)));
    let old = |one: &&Terminating| facts.taken_ms.saturating_sub(one.since_ms) > SETTLING_MS;
    found.extend(facts.terminating.iter().filter(old).map(|one| terminating(one, facts)));
    found
}

fn finding(code: &'static str, summary: String, evidence: Vec<Evidence>) -> Finding {
    let mut report = Report::default();
    let mut evidence = evidence.into_iter();
    let first =
        evidence.next().unwrap_or_else(|| Evidence { source: "API server".into(), text: summary.clone() });
    report.found(code, None, "nothing is stuck", summary, first, evidence.collect());
    report.findings.remove(0)
}

fn seen(object: &ObjectRef, text: impl Into<String>) -> Evidence {
    Evidence { source: object.to_string(), text: text.into() }
}

fn rung(text: impl Into<String>, action: Action) -> Rung {
    Rung { text: text.into(), action }
}

/// Who handles a finalizer, and what it protects.
fn protects(finalizer: &str) -> &'static str {
    match finalizer {
        "kubernetes.io/pvc-protection" => "pods that use the claim lose no data under them",
        "kubernetes.io/pv-protection" => "the claim that is bound to the volume keeps it",
        "foregroundDeletion" => "the garbage collector: what it owns goes first",
        "orphan" => "the garbage collector: what it owns is let go first",
        "batch.kubernetes.io/job-tracking" => "the job controller counts the pod first",
        "service.kubernetes.io/load-balancer-cleanup" => {
            "the cloud provider: the load balancer is removed first, else it goes on costing money"
        }
        "external-provisioner.volume.kubernetes.io/finalizer" => {
            "the CSI provisioner: the volume is deleted in the storage first, else it is left there"
        }
        "customresourcecleanup.apiextensions.k8s.io" => {
            "the API server: all objects of the type are deleted first"
        }
        "kubernetes" => {
            "the namespace controller: everything in it is deleted first, else it is left in etcd unseen"
        }
        other if other.starts_with("external-attacher/") => {
            "the CSI attacher: the volume is detached from its node first, else two nodes may write to it"
        }
        _ => {
            "its controller cleans up outside the cluster or elsewhere in it first, else that is left behind"
        }
    }
}

fn holder(held: &Held) -> Vec<String> {
    let by = if held.managers.is_empty() {
        String::new()
    } else {
        format!(" (set by {})", held.managers.join(", "))
    };
    let line = |one: &String| format!("{}: finalizer {one}{by}: {}", held.object, protects(one));
    held.finalizers.iter().map(line).collect()
}

/// The ways out for objects held by finalizers: their controllers first, the finalizers last.
fn finalizer_rungs(held: &[Held]) -> Vec<Rung> {
    let mut rungs = Vec::new();
    let mut controllers: Vec<ObjectRef> = held.iter().filter_map(|one| one.controller.clone()).collect();
    controllers.sort();
    controllers.dedup();
    if !controllers.is_empty() {
        let names: Vec<String> = controllers.iter().map(ToString::to_string).collect();
        let text = format!("start the controller again, so that it cleans up itself: {}", names.join(", "));
        rungs.push(rung(text, Action::ScaleUp { deployments: controllers }));
    } else if !held.is_empty() {
        rungs
            .push(rung("bring back the controller that handles the finalizer, if it can be", Action::ByHand));
    }
    if !held.is_empty() {
        let text =
            "take the finalizers off these objects (each is saved first): what they protect is then not done";
        rungs.push(rung(text, Action::RemoveFinalizers { held: held.to_vec() }));
    }
    rungs
}

/// Whether a node's kubelet is there to end its pods.
fn reports(node: &Node, facts: &StuckFacts) -> bool {
    node.has_kubelet(facts.thresholds.as_ref(), facts.taken_ms)
}

fn pod(pod: &Pod, facts: &StuckFacts) -> Option<Stuck> {
    let deleted_ms = pod.deleted_ms?;
    let overdue_ms = facts.taken_ms.saturating_sub(deleted_ms);
    let node = facts.nodes.iter().find(|node| node.name() == pod.node);
    let works = node.is_some_and(|node| reports(node, facts));
    if overdue_ms < if works { OVERDUE_MS } else { 0 } {
        return None;
    }
    let mut evidence =
        vec![seen(&pod.object, format!("deletionTimestamp passed {} s ago", overdue_ms / 1000))];
    if let Some(ready) = node.and_then(|node| node.condition("Ready")) {
        let text = format!("Ready={} {}: {}", ready.status, ready.reason, ready.message);
        evidence.push(Evidence { source: format!("node {}", pod.node), text });
    }
    let held = Held {
        object: pod.object.clone(),
        finalizers: pod.finalizers.clone(),
        managers: Vec::new(),
        deleting: true,
        controller: None,
    };
    let fence = fence_first(pod, node, works);
    let mut holders = holder(&held);
    if holders.is_empty() || fence.is_some() {
        holders.push(pod_holder(pod, node.is_some(), works));
    }
    let ladder = match fence {
        Some(fence) => vec![fence],
        None if pod.finalizers.is_empty() => pod_ladder(pod, node, works),
        None => finalizer_rungs(&[held]),
    };
    let summary = format!("{} is Terminating, {} s past its grace period", pod.object, overdue_ms / 1000);
    Some(Stuck {
        kind: StuckKind::Pod,
        object: pod.object.clone(),
        since_ms: Some(deleted_ms),
        finding: finding("RK-A05", summary, evidence),
        holders,
        ladder,
    })
}

fn pod_holder(pod: &Pod, exists: bool, works: bool) -> String {
    let node = &pod.node;
    match (exists, works) {
        (false, _) if node.is_empty() => "it was never bound to a node".into(),
        (false, _) => format!("node {node} does not exist any more: no kubelet confirms its end"),
        (true, false) => {
            format!("the kubelet of {node} does not report: nobody confirms that its containers have ended")
        }
        (true, true) => format!("the kubelet of {node} reports, and has not ended it"),
    }
}

/// Whether nothing proves that a pod has ended that a second copy beside it would harm.
fn may_still_write(pod: &Pod, node: Option<&Node>, works: bool) -> bool {
    let fenced = node.is_some_and(Node::is_out_of_service);
    pod.is_stateful() && !works && !fenced && !pod.node.is_empty()
}

/// The one way out for such a pod, whatever else holds it.
fn fence_first(pod: &Pod, node: Option<&Node>, works: bool) -> Option<Rung> {
    let name = &pod.node;
    let text = || {
        format!(
            "it keeps an identity or a volume, and may still run on {name}: a second copy beside it may destroy data. \
             Prove that the host is off and fence it: `rekindle node fence {name}`"
        )
    };
    may_still_write(pod, node, works).then(|| rung(text(), Action::ByHand))
}

fn pod_ladder(pod: &Pod, node: Option<&Node>, works: bool) -> Vec<Rung> {
    let name = &pod.node;
    if works {
        return vec![rung(
            format!(
                "look at the kubelet and the container runtime of {name}: they hold it; a forced deletion would only hide that"
            ),
            Action::ByHand,
        )];
    }
    let fenced = node.is_some_and(Node::is_out_of_service);
    let back = rung(format!("bring {name} back: its kubelet then ends the pod"), Action::ByHand);
    let why = if fenced {
        format!("{name} is fenced: it is off for certain")
    } else {
        "it has no identity and no volume of its own: even if its containers still run, a new copy does no harm".into()
    };
    vec![
        back,
        rung(
            format!("delete it without waiting for the kubelet (grace period 0): safe, because {why}"),
            Action::ForceDelete,
        ),
    ]
}

fn terminating(one: &Terminating, facts: &StuckFacts) -> Stuck {
    let (code, what) = match one.under {
        StuckKind::Namespace => ("RK-A06", "namespace"),
        StuckKind::Crd => ("RK-A07", "CRD"),
        _ => ("RK-A10", "volume"),
    };
    let age = facts.taken_ms.saturating_sub(one.since_ms) / 1000;
    let mut evidence: Vec<Evidence> = one.said.iter().map(|said| seen(&one.object, said.clone())).collect();
    evidence.extend(
        one.contents
            .iter()
            .take(10)
            .map(|held| seen(&held.object, format!("finalizers {}", held.finalizers.join(", ")))),
    );
    if evidence.is_empty() {
        evidence.push(seen(&one.object, format!("finalizers {}", one.finalizers.join(", "))));
    }
    let mut holders: Vec<String> = one.contents.iter().flat_map(holder).collect();
    let mut ladder = Vec::new();
    if one.under == StuckKind::Pvc {
        volume(one, &mut holders, &mut ladder);
    } else {
        beneath(one, facts, &mut holders, &mut ladder);
        let below = ladder.len();
        let free = namespace::free(one, facts, &mut holders, &mut ladder);
        ladder.extend(finalizer_rungs(&free));
        if one.contents.is_empty() && ladder.len() == below {
            holders.extend(one.finalizers.iter().map(|name| format!("finalizer {name}: {}", protects(name))));
            let text = format!(
                "{} objects in it hold nothing themselves: the controller manager deletes them, see that it runs",
                one.others
            );
            ladder.push(rung(text, Action::ByHand));
        }
    }
    Stuck {
        kind: one.under,
        object: one.object.clone(),
        since_ms: Some(one.since_ms),
        finding: finding(
            code,
            format!("{what} {} is Terminating for {age} s", one.object.full_name()),
            evidence,
        ),
        holders,
        ladder,
    }
}

/// Dead APIServices and conversion webhooks beneath a namespace or CRD: they are mended first.
fn beneath(one: &Terminating, facts: &StuckFacts, holders: &mut Vec<String>, ladder: &mut Vec<Rung>) {
    if one.under == StuckKind::Namespace && one.said.iter().any(|said| said.contains("iscovery")) {
        for service in &facts.api_services {
            holders.push(format!(
                "{}: {}, so nobody can tell what of it is in the namespace",
                service.object, service.said
            ));
            let text = format!(
                "mend {} first: `rekindle unstick apiservice {}`",
                service.object, service.object.name
            );
            ladder.push(rung(text, Action::ByHand));
        }
    }
    for dead in facts
        .conversions
        .iter()
        .filter(|dead| one.under == StuckKind::Namespace || dead.object.uid == one.object.uid)
    {
        holders.push(format!("{}: objects of it can't be read, {}", dead.object, dead.backend.fault()));
        let text = format!("mend the conversion first: `rekindle unstick crd {}`", dead.object.name);
        ladder.push(rung(text, Action::ByHand));
    }
}

fn volume(one: &Terminating, holders: &mut Vec<String>, ladder: &mut Vec<Rung>) {
    holders.extend(one.finalizers.iter().map(|name| format!("finalizer {name}: {}", protects(name))));
    holders.extend(one.users.iter().map(|user| format!("in use by {user}")));
    if !one.users.is_empty() {
        let text = format!("delete what uses it, if it is really to go: {}", one.users.join(", "));
        ladder.push(rung(text, Action::ByHand));
        return;
    }
    let text = "see that the controller manager and the storage driver run: nothing uses it, and they take the finalizer off";
    ladder.push(rung(text, Action::ByHand));
    let held = Held {
        object: one.object.clone(),
        finalizers: one.finalizers.clone(),
        managers: Vec::new(),
        deleting: true,
        controller: None,
    };
    let text = "take the finalizers off (it is saved first): what they protect is then not done";
    ladder.push(rung(text, Action::RemoveFinalizers { held: vec![held] }));
}

/// The first rung for everything with a backend: start it again where it is only scaled down.
fn start_backend(backend: &Backend) -> Rung {
    match &backend.scaled_down {
        Some(deployment) => rung(
            format!("start the backend again: {deployment} is scaled to 0"),
            Action::ScaleUp { deployments: vec![deployment.clone()] },
        ),
        None if backend.exists => {
            rung(format!("mend the pods behind service {}", backend.name()), Action::ByHand)
        }
        None => rung(
            format!("install the backend again, if it is wanted: service {}", backend.name()),
            Action::ByHand,
        ),
    }
}

fn api_service(dead: &DeadApiService) -> Stuck {
    let mut ladder = vec![start_backend(&dead.backend)];
    if !dead.backend.exists {
        let text = "delete the APIService (it is saved first): its backend does not exist, so nothing is served through it";
        ladder.push(rung(text, Action::Delete));
    }
    let evidence = vec![seen(&dead.object, dead.said.clone()), seen(&dead.object, dead.backend.fault())];
    Stuck {
        kind: StuckKind::ApiService,
        object: dead.object.clone(),
        since_ms: None,
        finding: finding(
            "RK-A08",
            format!("{} is not available: {}", dead.object, dead.backend.fault()),
            evidence,
        ),
        holders: vec![format!(
            "its API group can't be listed: namespaces can't be emptied, garbage is not collected ({})",
            dead.backend.fault()
        )],
        ladder,
    }
}

fn conversion(dead: &DeadConversion) -> Stuck {
    let mut ladder = vec![start_backend(&dead.backend)];
    let one_version = dead.stored_versions == [dead.storage_version.clone()];
    if !dead.backend.exists && one_version {
        let text = format!(
            "convert without the webhook (the CRD is saved first): all objects are stored as {}; read as another \
             version they keep the fields of that one",
            dead.storage_version
        );
        ladder.push(rung(text, Action::NoConversion { conversion: dead.conversion.clone() }));
    } else if !dead.backend.exists {
        let text = format!(
            "objects are stored in several versions ({}): only the webhook can convert them",
            dead.stored_versions.join(", ")
        );
        ladder.push(rung(text, Action::ByHand));
    }
    let evidence = vec![seen(&dead.object, dead.backend.fault())];
    let summary =
        format!("the conversion webhook of {} does not answer: {}", dead.object.name, dead.backend.fault());
    Stuck {
        kind: StuckKind::Crd,
        object: dead.object.clone(),
        since_ms: None,
        finding: finding("RK-A09", summary, evidence),
        holders: vec![format!(
            "its objects can't be read in versions other than {}: lists fail, and what waits for them is stuck",
            dead.storage_version
        )],
        ladder,
    }
}

fn webhook(dead: &DeadWebhook) -> Stuck {
    let mut ladder = vec![start_backend(&dead.backend)];
    let fails = dead.failure_policy == "Fail";
    if fails {
        let text = format!(
            "let requests pass while {} does not answer (failurePolicy Ignore for this one entry, saved first; put it back \
             with `rekindle runs undo` as soon as the backend answers: until then nothing is checked by it)",
            dead.name
        );
        ladder.push(rung(text, Action::Ignore { index: dead.index, name: dead.name.clone() }));
    } else {
        ladder.push(rung(
            format!("each request waits up to {} s for it and then passes", dead.timeout_seconds),
            Action::ByHand,
        ));
    }
    let effect = if fails { "refused" } else { "delayed" };
    let what = dead.resources.join(", ");
    let text =
        format!("webhook {}: failurePolicy {}, {}", dead.name, dead.failure_policy, dead.backend.fault());
    Stuck {
        kind: StuckKind::Webhook,
        object: dead.object.clone(),
        since_ms: None,
        finding: finding(
            "RK-A11",
            format!("admission webhook {} does not answer: {}", dead.name, dead.backend.fault()),
            vec![seen(&dead.object, text)],
        ),
        holders: vec![format!("requests for {what} are {effect}")],
        ladder,
    }
}

#[cfg(test)]
#[path = "stuck_tests.rs"]
mod tests;
