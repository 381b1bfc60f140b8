use super::*;
use rekindle_model::kube::nodes::{Condition, Node, Owner, Reach, Taint};

const NOW: i64 = 1_800_000_000_000;

fn object(kind: &str, name: &str) -> ObjectRef {
    ObjectRef {
        collection: "/api/v1/x".into(),
        kind: kind.into(),
        namespace: Some("shop".into()),
        name: name.into(),
        uid: format!("uid-{name}"),
    }
}

fn node(ready: &str, fenced: bool) -> Node {
    let taint = Taint {
        key: rekindle_model::kube::nodes::OUT_OF_SERVICE.into(),
        value: "x".into(),
        effect: "NoExecute".into(),
    };
    let ready = Condition {
        kind: "Ready".into(),
        status: ready.into(),
        reason: String::new(),
        message: String::new(),
        since_ms: None,
    };
    Node {
        object: object("Node", "w1"),
        zone: String::new(),
        roles: vec![],
        addresses: vec![],
        kubelet_version: String::new(),
        conditions: vec![ready],
        taints: if fenced { vec![taint] } else { vec![] },
        unschedulable: false,
        cordoned_ms: None,
        cordoned_by: String::new(),
        lease_renewed_ms: None,
        kubelet: Reach::NotAsked,
    }
}

fn dying(owner: &str, overdue_s: i64) -> Pod {
    Pod {
        object: object("Pod", "p"),
        node: "w1".into(),
        phase: "Running".into(),
        ready: true,
        deleted_ms: Some(NOW - overdue_s * 1000),
        grace_seconds: 30,
        mirror: false,
        controller: Some(Owner { api_version: "apps/v1".into(), kind: owner.into(), name: "x".into() }),
        orphaned: false,
        labels: Default::default(),
        empty_dirs: vec![],
        claims: vec![],
        network_volumes: vec![],
        finalizers: vec![],
    }
}

fn ways(pod: Pod, node: Node) -> Option<Vec<Action>> {
    let facts = StuckFacts { taken_ms: NOW, pods: vec![pod], nodes: vec![node], ..StuckFacts::default() };
    let found = find(&facts);
    found.first().map(|one| one.ladder.iter().map(|rung| rung.action.clone()).collect())
}

// A pod on a dead node: forced where a second copy harms nobody, and only after fencing where it would. On a node that
// works a forced deletion would hide what holds it.
#[test]
fn force_only_where_it_is_safe() {
    assert_eq!(
        ways(dying("ReplicaSet", 5), node("Unknown", false)),
        Some(vec![Action::ByHand, Action::ForceDelete])
    );
    assert_eq!(ways(dying("StatefulSet", 5), node("Unknown", false)), Some(vec![Action::ByHand]));
    let with_volume = Pod { claims: vec!["data".into()], ..dying("ReplicaSet", 5) };
    assert_eq!(ways(with_volume.clone(), node("Unknown", false)), Some(vec![Action::ByHand]));
    assert_eq!(ways(with_volume, node("Unknown", true)), Some(vec![Action::ByHand, Action::ForceDelete]));
    assert_eq!(ways(dying("ReplicaSet", 5), node("True", false)), None, "it may still be ending");
    assert_eq!(ways(dying("ReplicaSet", 120), node("True", false)), Some(vec![Action::ByHand]));
}

// A namespace held by a finalizer: its controller, when it is only scaled down, comes before the finalizer.
#[test]
fn the_controller_comes_before_the_finalizer() {
    let held = |controller| Held {
        object: object("Widget", "w"),
        finalizers: vec!["example.com/cleanup".into()],
        managers: vec!["operator".into()],
        deleting: true,
        controller,
    };
    let of = |held: Held| {
        let one = Terminating {
            under: StuckKind::Namespace,
            object: object("Namespace", "shop"),
            since_ms: NOW - 60_000,
            finalizers: vec!["kubernetes".into()],
            said: vec![],
            contents: vec![held],
            others: 0,
            users: vec![],
        };
        find(&StuckFacts { taken_ms: NOW, terminating: vec![one], ..StuckFacts::default() }).remove(0)
    };
    let revived = of(held(Some(object("Deployment", "operator"))));
    assert!(matches!(revived.ladder[0].action, Action::ScaleUp { .. }));
    assert!(matches!(revived.ladder[1].action, Action::RemoveFinalizers { .. }));
    assert!(revived.holders[0].contains("set by operator"), "{:?}", revived.holders);
    assert_eq!(of(held(None)).ladder[0].action, Action::ByHand);
}

// A conversion webhook that is gone for good: without it only when one version is stored; never when its service is there.
#[test]
fn conversion_is_given_up_only_when_one_version_is_stored() {
    let dead = |exists, stored: &[&str]| {
        let backend = Backend {
            namespace: "n".into(),
            service: "s".into(),
            exists,
            ready_addresses: 0,
            scaled_down: None,
        };
        let dead = DeadConversion {
            object: object("CustomResourceDefinition", "c"),
            backend,
            conversion: serde_json::json!({"strategy": "Webhook"}),
            stored_versions: stored.iter().map(|one| (*one).to_owned()).collect(),
            storage_version: "v2".into(),
            served_versions: vec![],
        };
        let facts = StuckFacts { taken_ms: NOW, conversions: vec![dead], ..StuckFacts::default() };
        find(&facts).remove(0).ladder.iter().any(|rung| matches!(rung.action, Action::NoConversion { .. }))
    };
    assert!(dead(false, &["v2"]));
    assert!(!dead(false, &["v1", "v2"]));
    assert!(!dead(true, &["v2"]));
}
