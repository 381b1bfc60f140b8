//! Pods that came to a node after its drain was planned.

use rekindle_model::kube::nodes::{DrainPod, DrainScope, Pod};
use std::collections::BTreeSet;

/// Of the pods on the nodes those that the plan does not know and that would have to leave.
pub(super) fn newcomers<'p>(
    found: &'p [Pod],
    planned: &[DrainPod],
    scope: &DrainScope,
) -> impl Iterator<Item = &'p Pod> {
    let planned: BTreeSet<String> = planned.iter().map(|pod| pod.pod.uid.clone()).collect();
    let daemonsets_stay = scope.ignore_daemonsets;
    let stays =
        move |pod: &Pod| pod.mirror || pod.is_finished() || (pod.is_of_daemonset() && daemonsets_stay);
    found.iter().filter(move |pod| !planned.contains(&pod.object.uid) && !stays(pod))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle_model::kube::ObjectRef;
    use rekindle_model::kube::nodes::{Fate, Owner};
    use std::collections::BTreeMap;

    fn pod(name: &str, owner: &str) -> Pod {
        Pod {
            object: ObjectRef {
                collection: "/api/v1/namespaces/shop/pods".into(),
                kind: "Pod".into(),
                namespace: Some("shop".into()),
                name: name.into(),
                uid: format!("uid-{name}"),
            },
            node: "w1".into(),
            phase: "Running".into(),
            ready: true,
            deleted_ms: None,
            grace_seconds: 30,
            mirror: false,
            controller: Some(Owner {
                api_version: "apps/v1".into(),
                kind: owner.into(),
                name: "owner".into(),
            }),
            orphaned: false,
            labels: BTreeMap::new(),
            empty_dirs: vec![],
            claims: vec![],
            network_volumes: vec![],
            finalizers: vec![],
        }
    }

    fn stays(pod: &Pod) -> DrainPod {
        DrainPod {
            pod: pod.object.clone(),
            node: pod.node.clone(),
            fate: Fate::Stays,
            budget: None,
            grace_seconds: 30,
            empty_dirs: vec![],
            why: String::new(),
        }
    }

    // While a person reads the plan a rollout puts a pod on the node. All planned pods are gone, and the node is not empty:
    // the new pod is named. What the plan knows and lets stay, and what no drain moves, is no newcomer.
    #[test]
    fn a_pod_that_came_after_the_plan_is_left() {
        let known = pod("known", "ReplicaSet");
        let found = vec![
            known.clone(),
            pod("rolled-out", "ReplicaSet"),
            pod("agent", "DaemonSet"),
            Pod { mirror: true, ..pod("static", "Node") },
            Pod { phase: "Succeeded".into(), ..pod("done", "Job") },
        ];
        let named = |ignore_daemonsets| {
            let scope = DrainScope { nodes: vec!["w1".into()], pod_selector: None, ignore_daemonsets };
            let planned = [stays(&known)];
            let names = newcomers(&found, &planned, &scope).map(|pod| pod.object.name.clone());
            names.collect::<Vec<_>>()
        };
        assert_eq!(named(true), ["rolled-out"]);
        assert_eq!(named(false), ["rolled-out", "agent"], "nobody said that pods of DaemonSets may stay");
    }
}
