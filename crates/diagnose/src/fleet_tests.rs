use super::*;
use rekindle_model::kube::ObjectRef;
use rekindle_model::kube::nodes::Taint;

const NOW: i64 = 1_800_000_000_000;

fn node(name: &str, zone: &str, ready: &str, message: &str, lease_age_s: i64) -> Node {
    let object = ObjectRef {
        collection: "/api/v1/nodes".into(),
        kind: "Node".into(),
        namespace: None,
        name: name.into(),
        uid: format!("uid-{name}"),
    };
    let condition = Condition {
        kind: "Ready".into(),
        status: ready.into(),
        reason: "x".into(),
        message: message.into(),
        since_ms: Some(NOW - lease_age_s * 1000),
    };
    Node {
        object,
        zone: zone.into(),
        roles: vec![],
        addresses: vec!["10.0.0.5".into()],
        kubelet_version: "v1.37.2".into(),
        conditions: vec![condition],
        taints: vec![],
        unschedulable: false,
        cordoned_ms: None,
        cordoned_by: String::new(),
        lease_renewed_ms: Some(NOW - lease_age_s * 1000),
        kubelet: Reach::NotAsked,
    }
}

fn judged(nodes: &[Node]) -> Fleet {
    let thresholds = Thresholds { grace_period_seconds: 50, source: "test".into() };
    judge(&Seen { nodes, thresholds: &thresholds, now_ms: NOW, hosts: None, host_findings: &[] })
}

fn one_of(node: Node) -> (NodeState, Vec<String>) {
    let fleet = judged(&[node, node_ok("other")]);
    (fleet.nodes[0].state, fleet.findings.into_iter().map(|finding| finding.code).collect())
}

fn node_ok(name: &str) -> Node {
    node(name, "", "True", "", 5)
}

// The same Ready=Unknown has four causes, told apart by what an API server finds at the kubelet; what the kubelet says
// itself tells a dead runtime from a missing network plugin.
#[test]
fn causes_are_told_apart() {
    let lost = |reach| Node {
        kubelet: reach,
        ..node("a", "", "Unknown", "Kubelet stopped posting node status.", 300)
    };
    assert_eq!(
        one_of(lost(Reach::Refused("refused".into()))),
        (NodeState::KubeletDown, vec!["RK-N03".into()])
    );
    assert_eq!(
        one_of(lost(Reach::Silent("no route".into()))),
        (NodeState::HostSilent, vec!["RK-N04".into()])
    );
    assert_eq!(one_of(lost(Reach::Healthy)), (NodeState::CutOff, vec!["RK-N05".into()]));
    assert_eq!(one_of(lost(Reach::CannotAsk("x".into()))), (NodeState::CutOff, vec!["RK-N05".into()]));
    assert_eq!(one_of(lost(Reach::Unknown("403".into()))), (NodeState::NotReady, vec!["RK-N01".into()]));
    let says = |message| one_of(node("a", "", "False", message, 5));
    assert_eq!(says("container runtime is down").0, NodeState::RuntimeDown);
    assert_eq!(says("container runtime network not ready: NetworkReady=false").0, NodeState::NetworkNotReady);
    assert_eq!(one_of(node("a", "", "True", "", 300)), (NodeState::Stale, vec!["RK-N02".into()]));
}

// A node that works may still be under pressure, forgotten in a cordon, or tainted from its last failure.
#[test]
fn what_a_working_node_suffers_from() {
    let mut pressed = node_ok("a");
    pressed.conditions.push(Condition {
        kind: "DiskPressure".into(),
        status: "True".into(),
        reason: String::new(),
        message: String::new(),
        since_ms: None,
    });
    assert_eq!(one_of(pressed), (NodeState::Pressure, vec!["RK-N07".into()]));
    let cordoned =
        |age_ms: i64| Node { unschedulable: true, cordoned_ms: Some(NOW - age_ms), ..node_ok("a") };
    assert_eq!(one_of(cordoned(60_000)), (NodeState::Cordoned, vec![]));
    assert_eq!(one_of(cordoned(7_200_000)), (NodeState::Cordoned, vec!["RK-N08".into()]));
    let taint = Taint { key: OUT_OF_SERVICE.into(), value: "x".into(), effect: "NoExecute".into() };
    let tainted = Node { taints: vec![taint], ..node_ok("a") };
    assert_eq!(one_of(tainted), (NodeState::Ready, vec!["RK-N09".into()]));
}

// Two of ten nodes are two failures. Three of five in one zone, or all nodes within a minute, are one: said first.
#[test]
fn many_at_once_is_one_cause() {
    let fleet = |lost: usize, all: usize, zone: &str| -> Vec<Node> {
        (0..all)
            .map(|i| {
                if i < lost {
                    node(&format!("{zone}{i}"), zone, "Unknown", "", 300)
                } else {
                    node(&format!("{zone}{i}"), zone, "True", "", 5)
                }
            })
            .collect()
    };
    let shared =
        |nodes: &[Node]| judged(nodes).findings.first().is_some_and(|finding| finding.code == "RK-N10");
    assert!(!shared(&fleet(2, 10, "a")));
    assert!(shared(&fleet(3, 5, "a")));
    assert!(!shared(&fleet(11, 20, "a")), "55 % is not over 55 %");
    assert!(shared(&fleet(12, 20, "a")));
    let mut zones = fleet(4, 5, "a");
    zones.extend(fleet(0, 20, "b"));
    assert!(shared(&zones), "a zone is lost though the cluster is not");
    assert!(shared(&fleet(2, 2, "")), "all at the same time");
    let mut apart = fleet(2, 2, "");
    apart[1].conditions[0].since_ms = Some(NOW - 3_600_000);
    assert!(!shared(&apart), "one after the other");
}
