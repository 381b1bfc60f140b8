use super::*;
use rekindle_model::Seen;
use rekindle_model::kube::nodes::{Condition, Node, Owner, Reach, Taint, Thresholds};

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

// The container runtime of a node is down: Ready is False, and its kubelet goes on renewing the lease. Its pods may run, so
// none is forced, whatever it keeps. Once the lease is old the node counts as silent.
#[test]
fn a_kubelet_that_renews_its_lease_is_there() {
    let with_lease = |age_s: i64, pod: Pod| {
        let node = Node { lease_renewed_ms: Some(NOW - age_s * 1000), ..node("False", false) };
        let facts = StuckFacts {
            taken_ms: NOW,
            pods: vec![pod],
            nodes: vec![node],
            thresholds: Some(Thresholds { grace_period_seconds: 50, source: "test".into() }),
            ..StuckFacts::default()
        };
        find(&facts).first().map(|one| one.ladder.iter().map(|rung| rung.action.clone()).collect::<Vec<_>>())
    };
    assert_eq!(with_lease(5, dying("ReplicaSet", 120)), Some(vec![Action::ByHand]));
    assert_eq!(with_lease(5, dying("ReplicaSet", 5)), None, "it may still be ending");
    assert_eq!(with_lease(90, dying("ReplicaSet", 5)), Some(vec![Action::ByHand, Action::ForceDelete]));
}

// A pod with a finalizer keeps a volume on a node that does not report. Taking the finalizer off would let a second copy
// start beside it, as a forced deletion would: fenced first here too, then the finalizer.
#[test]
fn a_finalizer_is_no_way_around_the_fence() {
    let held = |owner: &str| Pod { finalizers: vec!["example.com/drain".into()], ..dying(owner, 5) };
    assert_eq!(ways(held("StatefulSet"), node("Unknown", false)), Some(vec![Action::ByHand]));
    let removed = |ways: Option<Vec<Action>>| {
        ways.unwrap().iter().any(|way| matches!(way, Action::RemoveFinalizers { .. }))
    };
    assert!(removed(ways(held("StatefulSet"), node("Unknown", true))));
    assert!(removed(ways(held("ReplicaSet"), node("Unknown", false))));
}

/// A namespace with a claim under protection and an object held by a controller that is gone.
fn emptied(pods: Seen<Vec<Pod>>, node: Node) -> Stuck {
    let held = |kind: &str, name: &str, finalizer: &str| Held {
        object: object(kind, name),
        finalizers: vec![finalizer.into()],
        managers: vec![],
        deleting: true,
        controller: None,
    };
    let one = Terminating {
        under: StuckKind::Namespace,
        object: object("Namespace", "shop"),
        since_ms: NOW - 600_000,
        finalizers: vec!["kubernetes".into()],
        said: vec![],
        contents: vec![
            held("PersistentVolumeClaim", "data", "kubernetes.io/pvc-protection"),
            held("Widget", "w", "example.com/cleanup"),
        ],
        others: 1,
        users: vec![],
        pods,
    };
    let facts =
        StuckFacts { taken_ms: NOW, nodes: vec![node], terminating: vec![one], ..StuckFacts::default() };
    find(&facts).remove(0)
}

fn torn_away(stuck: &Stuck) -> Vec<&str> {
    let held = stuck.ladder.iter().filter_map(|rung| match &rung.action {
        Action::RemoveFinalizers { held } => Some(held),
        _ => None,
    });
    held.flatten().map(|held| held.object.name.as_str()).collect()
}

// A namespace is deleted while a pod of it still runs and writes to its claim. What is held for another reason may be let
// go; the claim keeps its protection, and who uses it is named. So it does when nobody can tell. Without a user it goes.
#[test]
fn a_claim_in_use_keeps_its_protection_in_a_namespace() {
    let user = Pod { claims: vec!["data".into()], deleted_ms: Some(NOW), ..dying("StatefulSet", 0) };
    let stuck = emptied(Seen::Known(vec![user.clone()]), node("True", false));
    assert_eq!(torn_away(&stuck), ["w"]);
    let said = format!("{:?} {:?}", stuck.holders, stuck.ladder);
    assert!(said.contains("PersistentVolumeClaim shop/data: in use by Pod shop/p"), "{said}");
    let ended = Pod { phase: "Succeeded".into(), ..user };
    assert_eq!(torn_away(&emptied(Seen::Known(vec![ended]), node("True", false))), ["data", "w"]);
    assert_eq!(torn_away(&emptied(Seen::Unknown("forbidden".into()), node("True", false))), ["w"]);
}

// A pod of the namespace is on a node that went off: it is the holder, not only the finalizers, and nothing is torn away
// while it is there. What it keeps decides whether its node is fenced first.
#[test]
fn a_pod_on_a_silent_node_holds_its_namespace() {
    let on_silent = |owner: &str| emptied(Seen::Known(vec![dying(owner, 5)]), node("Unknown", false));
    let stateful = on_silent("StatefulSet");
    assert!(stateful.ladder.iter().all(|rung| rung.action == Action::ByHand), "{:?}", stateful.ladder);
    assert!(
        stateful
            .holders
            .iter()
            .any(|holder| holder.starts_with("Pod shop/p: the kubelet of w1 does not report"))
    );
    let said = format!("{:?}", stateful.ladder);
    assert!(
        said.contains("rekindle node fence w1") && said.contains("rekindle unstick pod -n shop"),
        "{said}"
    );
    let stateless = format!("{:?}", on_silent("ReplicaSet").ladder);
    assert!(
        !stateless.contains("fence") && stateless.contains("rekindle unstick pod -n shop"),
        "{stateless}"
    );
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
            pods: Seen::Known(vec![]),
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
