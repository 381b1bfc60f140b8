//! What a drain does with each pod, and what it refuses, decided from facts alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use rekindle_model::kube::nodes::{
    Budget, DrainMethod, DrainPod, EmptyDir, Fate, Node, Owner, Pod, Reach, Selector,
};
use rekindle_model::kube::{ClusterRef, ObjectRef};
use rekindle_model::plan::PlanOutcome;
use rekindle_model::step::Step;
use rekindle_model::{RunId, Seen as Read};
use rekindle_plan::kube::Base;
use rekindle_plan::kube::drain::{Flags, Seen, plan};
use std::collections::BTreeMap;

fn object(kind: &str, name: &str) -> ObjectRef {
    ObjectRef {
        collection: "/api/v1/x".into(),
        kind: kind.into(),
        namespace: Some("shop".into()),
        name: name.into(),
        uid: format!("uid-{name}"),
    }
}

fn pod(name: &str, owner: &str) -> Pod {
    let controller = Owner { api_version: "apps/v1".into(), kind: owner.into(), name: "owner".into() };
    Pod {
        object: object("Pod", name),
        node: "w1".into(),
        phase: "Running".into(),
        ready: true,
        deleted_ms: None,
        grace_seconds: 30,
        mirror: false,
        controller: (!owner.is_empty()).then_some(controller),
        orphaned: false,
        labels: BTreeMap::from([("app".to_owned(), name.to_owned())]),
        empty_dirs: vec![],
        claims: vec![],
        network_volumes: vec![],
        finalizers: vec![],
    }
}

fn with_data(name: &str) -> Pod {
    let dir = EmptyDir { name: "cache".into(), used_bytes: Read::Known(4096) };
    Pod { empty_dirs: vec![dir], ..pod(name, "ReplicaSet") }
}

fn budget(app: &str, healthy: i64, wanted: i64, pods: i64) -> Budget {
    Budget {
        object: object("PodDisruptionBudget", &format!("pdb-{app}-{wanted}")),
        selector: Selector {
            match_labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
            ..Selector::default()
        },
        unhealthy_may_go: false,
        disruptions_allowed: (healthy - wanted).max(0),
        current_healthy: healthy,
        desired_healthy: wanted,
        expected_pods: pods,
    }
}

fn node() -> Node {
    Node {
        object: object("Node", "w1"),
        zone: String::new(),
        roles: vec![],
        addresses: vec![],
        kubelet_version: String::new(),
        conditions: vec![],
        taints: vec![],
        unschedulable: false,
        cordoned_ms: None,
        cordoned_by: String::new(),
        lease_renewed_ms: None,
        kubelet: Reach::NotAsked,
    }
}

fn flags(all: bool) -> Flags {
    Flags {
        ignore_daemonsets: all,
        delete_emptydir_data: all,
        force: all,
        pod_selector: None,
        method: DrainMethod::Evict,
        grace_period_seconds: None,
        timeout_seconds: None,
        stall_seconds: 300,
    }
}

fn outcome(pods: Vec<Pod>, budgets: Vec<Budget>, flags: &Flags) -> PlanOutcome {
    let cluster = ClusterRef {
        kubeconfig: None,
        context: None,
        server: "https://x".into(),
        kube_system_uid: "u".into(),
    };
    let base = Base { run_id: RunId("run".into()), now_ms: 0, cluster };
    plan(&base, &Seen { nodes: vec![node()], pods, budgets, shared_cause: None }, flags)
}

fn fates(outcome: PlanOutcome) -> BTreeMap<String, DrainPod> {
    let PlanOutcome::Plan(plan) = outcome else { panic!("{outcome:?}") };
    assert!(matches!(&plan.steps[0].step, Step::ChangeObject { .. }), "the node is cordoned first");
    let Step::Drain { pods, .. } = plan.steps.last().unwrap().step.clone() else { panic!("{plan:?}") };
    pods.into_iter().map(|pod| (pod.pod.name.clone(), pod)).collect()
}

// Without flags nothing is touched that would be lost or come back, and all reasons are told at once, also two for one
// pod.
#[test]
fn refusals_name_every_pod_and_every_reason() {
    let bare = Pod { empty_dirs: with_data("x").empty_dirs, ..pod("bare", "") };
    let PlanOutcome::Refused(refusal) =
        outcome(vec![bare, pod("ds", "DaemonSet"), pod("web", "ReplicaSet")], vec![], &flags(false))
    else {
        panic!("not refused")
    };
    let bare = refusal.possible.iter().find(|line| line.contains("shop/bare")).unwrap();
    assert!(
        bare.contains("--delete-emptydir-data") && bare.contains("--force") && bare.contains("4096"),
        "{bare}"
    );
    assert!(
        refusal.possible.iter().any(|line| line.contains("shop/ds") && line.contains("--ignore-daemonsets"))
    );
    assert_eq!(refusal.possible.len(), 2, "{refusal:?}");
}

// With all flags each pod has its fate: moves, lost, ends, stays. An orphan of a DaemonSet is lost, not left.
#[test]
fn each_pod_has_its_fate() {
    let pods = vec![
        pod("web", "ReplicaSet"),
        with_data("data"),
        pod("bare", ""),
        pod("ds", "DaemonSet"),
        Pod { orphaned: true, ..pod("orphan", "DaemonSet") },
        Pod { mirror: true, ..pod("static", "") },
        Pod { phase: "Succeeded".into(), ..pod("done", "") },
        Pod { deleted_ms: Some(1), ..pod("going", "ReplicaSet") },
    ];
    let fates: BTreeMap<String, Fate> =
        fates(outcome(pods, vec![], &flags(true))).into_iter().map(|(name, pod)| (name, pod.fate)).collect();
    let expected = [
        ("bare", Fate::Lost),
        ("data", Fate::Moves),
        ("done", Fate::Ends),
        ("ds", Fate::Stays),
        ("going", Fate::Ends),
        ("orphan", Fate::Lost),
        ("static", Fate::Stays),
        ("web", Fate::Moves),
    ];
    assert_eq!(fates, expected.map(|(name, fate)| (name.to_owned(), fate)).into());
}

// Budgets: one that wants all its pods healthy blocks for good, two over one pod block for good, one that is only used up
// is waited for. Deleting instead of evicting asks none of them.
#[test]
fn budgets_are_judged_before_anything_moves() {
    let pods = || vec![pod("never", "ReplicaSet"), pod("twice", "ReplicaSet"), pod("later", "ReplicaSet")];
    let budgets = || {
        vec![
            budget("never", 3, 3, 3),
            budget("twice", 3, 1, 3),
            budget("twice", 3, 2, 3),
            budget("later", 2, 2, 3),
        ]
    };
    let judged = fates(outcome(pods(), budgets(), &flags(true)));
    assert_eq!(judged["never"].fate, Fate::Blocked);
    assert!(judged["never"].why.contains("pdb-never-3") && judged["never"].why.contains("3 healthy of 3"));
    assert_eq!(judged["twice"].fate, Fate::Blocked);
    assert!(judged["twice"].why.contains("pdb-twice-1") && judged["twice"].why.contains("pdb-twice-2"));
    assert_eq!(judged["later"].fate, Fate::Moves);
    assert!(judged["later"].why.contains("waits for"), "{:?}", judged["later"]);
    let deleting = Flags { method: DrainMethod::Delete, ..flags(true) };
    let deleted = fates(outcome(pods(), budgets(), &deleting));
    assert!(deleted.values().all(|pod| pod.fate == Fate::Moves && pod.budget.is_none()));
}

// A node is empty when its drain is planned. Until it is cordoned pods may come to it, so its end is looked at all the same,
// with what the flags let stay.
#[test]
fn a_node_that_is_empty_is_looked_at_again() {
    let flags = Flags { pod_selector: Some("app=web".into()), ..flags(true) };
    let PlanOutcome::Plan(plan) = outcome(vec![], vec![], &flags) else { panic!("not planned") };
    let Step::Drain { pods, scope, .. } = plan.steps.last().unwrap().step.clone() else { panic!("{plan:?}") };
    assert!(pods.is_empty());
    assert_eq!(
        (scope.nodes, scope.pod_selector, scope.ignore_daemonsets),
        (vec!["w1".to_owned()], Some("app=web".to_owned()), true)
    );
}
