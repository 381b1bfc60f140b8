//! What in a namespace must not be torn away: claims that pods use, and pods that nobody has seen end. A namespace that is
//! Terminating holds what `unstick pod` and `unstick pvc` know by themselves, so the same rules hold in it.

use super::{OVERDUE_MS, may_still_write, pod_holder, reports, rung};
use rekindle_model::Seen;
use rekindle_model::kube::nodes::{Node, Pod};
use rekindle_model::kube::stuck::{Action, Held, Rung, StuckFacts, StuckKind, Terminating};
use std::collections::BTreeSet;

/// Of the objects in it those whose finalizers may be taken off. The others are told, with what to do.
pub(super) fn free(
    one: &Terminating,
    facts: &StuckFacts,
    holders: &mut Vec<String>,
    ladder: &mut Vec<Rung>,
) -> Vec<Held> {
    if one.under != StuckKind::Namespace {
        return one.contents.clone();
    }
    let pods = one.pods.known().map_or(&[][..], Vec::as_slice);
    let kept: Vec<bool> =
        one.contents.iter().map(|held| keeps_claim(held, &one.pods, holders, ladder)).collect();
    if held_by_pods(one, pods, facts, holders, ladder) {
        // the namespace stays until they are gone: nothing else is worth tearing away before
        return Vec::new();
    }
    let free = one.contents.iter().zip(kept).filter(|(_, kept)| !kept);
    free.map(|(held, _)| held.clone()).collect()
}

/// Whether it is a claim that a pod uses, or may use.
fn keeps_claim(
    held: &Held,
    pods: &Seen<Vec<Pod>>,
    holders: &mut Vec<String>,
    ladder: &mut Vec<Rung>,
) -> bool {
    let object = &held.object;
    if object.kind != "PersistentVolumeClaim" || !object.collection.starts_with("/api/v1/") {
        return false;
    }
    let pods = match pods {
        Seen::Known(pods) => pods,
        Seen::Unknown(why) => {
            holders.push(format!("{object}: whether a pod uses it can't be told: {why}"));
            let text =
                format!("see which pods use {object}: its finalizers are left on it until that is known");
            ladder.push(rung(text, Action::ByHand));
            return true;
        }
    };
    let uses = |pod: &&Pod| !pod.is_finished() && pod.claims.contains(&object.name);
    let users: Vec<String> = pods.iter().filter(uses).map(|pod| pod.object.to_string()).collect();
    if users.is_empty() {
        return false;
    }
    let users = users.join(", ");
    holders.push(format!("{object}: in use by {users}"));
    let text = format!(
        "end what uses {object}: {users}; the claim then goes by itself, and keeps its protection until then"
    );
    ladder.push(rung(text, Action::ByHand));
    true
}

/// Names the pods that do not end by themselves: on a node that does not report, or held by a kubelet that does.
fn held_by_pods(
    one: &Terminating,
    pods: &[Pod],
    facts: &StuckFacts,
    holders: &mut Vec<String>,
    ladder: &mut Vec<Rung>,
) -> bool {
    let (mut unfenced, mut any) = (BTreeSet::new(), false);
    for pod in pods.iter().filter(|pod| !pod.is_finished() && !pod.node.is_empty()) {
        let node: Option<&Node> = facts.nodes.iter().find(|node| node.name() == pod.node);
        let works = node.is_some_and(|node| reports(node, facts));
        let overdue = pod.deleted_ms.is_some_and(|at| facts.taken_ms.saturating_sub(at) > OVERDUE_MS);
        if works && !(overdue && pod.finalizers.is_empty()) {
            continue;
        }
        any = true;
        holders.push(format!("{}: {}", pod.object, pod_holder(pod, node.is_some(), works)));
        if may_still_write(pod, node, works) {
            unfenced.insert(&pod.node);
        }
    }
    for node in unfenced {
        let text = format!(
            "pods of it on {node} keep an identity or a volume, and may still run. Prove that the host is off and fence it: \
             `rekindle node fence {node}`"
        );
        ladder.push(rung(text, Action::ByHand));
    }
    if any {
        let text = format!(
            "let its pods go first, as far as that is safe: `rekindle unstick pod -n {}`",
            one.object.name
        );
        ladder.push(rung(text, Action::ByHand));
    }
    any
}
