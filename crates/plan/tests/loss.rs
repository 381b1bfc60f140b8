//! What a drill on the loss of a node turns off: one host, that its people gave it, of a cluster that is well and has
//! another node; decided from facts alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use rekindle_model::RunId;
use rekindle_model::kube::nodes::{Condition, Node, OUT_OF_SERVICE, Reach, Taint, Thresholds};
use rekindle_model::kube::{ClusterRef, ObjectRef};
use rekindle_model::plan::PlanOutcome;
use rekindle_model::step::Step;
use rekindle_plan::kube::Base;
use rekindle_plan::kube::loss::{Loss, turn_off};

const NOW_MS: i64 = 1_700_000_000_000;

fn node(name: &str, roles: &[&str]) -> Node {
    let ready = Condition {
        kind: "Ready".into(),
        status: "True".into(),
        reason: "KubeletReady".into(),
        message: String::new(),
        since_ms: None,
    };
    Node {
        object: ObjectRef {
            collection: "/api/v1/nodes".into(),
            kind: "Node".into(),
            namespace: None,
            name: name.into(),
            uid: format!("uid-{name}"),
        },
        zone: String::new(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        addresses: vec![],
        kubelet_version: "v1.37.2".into(),
        conditions: vec![ready],
        taints: vec![],
        unschedulable: false,
        cordoned_ms: None,
        cordoned_by: String::new(),
        lease_renewed_ms: Some(NOW_MS - 4_000),
        kubelet: Reach::NotAsked,
    }
}

/// The first node is the one to be lost.
fn outcome(all: &[Node], label: &str, allowed: &str) -> PlanOutcome {
    let cluster = ClusterRef {
        kubeconfig: None,
        context: None,
        server: "https://10.0.0.10:6443".into(),
        kube_system_uid: "uid-1".into(),
    };
    let base = Base { run_id: RunId("run".into()), now_ms: NOW_MS, cluster };
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let loss = Loss {
        node: &all[0],
        all,
        thresholds: &Thresholds { grace_period_seconds: 50, source: "default".into() },
        label,
        allowed: &[allowed.to_owned()],
        off: &words("power off {node}"),
        on: &words("power on {node}"),
    };
    turn_off(&base, &loss)
}

fn reason(all: &[Node], label: &str, allowed: &str) -> String {
    match outcome(all, label, allowed) {
        PlanOutcome::Refused(refusal) => refusal.reason,
        other => panic!("no refusal, but {other:?}"),
    }
}

// One step, which is the operator's own command; the way back is the other one.
#[test]
fn the_host_is_turned_off_by_its_operators_command() {
    let PlanOutcome::Plan(plan) = outcome(&[node("w1", &[]), node("w2", &[])], "allowed", "uid-1") else {
        panic!("no plan")
    };
    assert_eq!(plan.steps.len(), 1);
    let Step::Fence { node, command } = &plan.steps[0].step else { panic!("{:?}", plan.steps[0]) };
    assert_eq!((node.name.as_str(), command.join(" ").as_str()), ("w1", "power off {node}"));
    assert!(plan.how_to_go_back.contains("power on {node}"), "{}", plan.how_to_go_back);
}

// A cluster that is not there for it, a control-plane node, a cluster that is ill, one without another node to take the
// pods, a node that is out of service already: nothing is turned off.
#[test]
fn what_could_do_harm_is_refused() {
    let (one, two) = (node("w1", &[]), node("w2", &[]));
    let well = [one.clone(), two.clone()];
    assert!(reason(&well, "", "uid-1").contains("does not carry the label"));
    assert!(reason(&well, "allowed", "uid-2").contains("does not allow drills on this cluster"));
    let control_plane = [node("cp1", &["control-plane"]), two.clone()];
    assert!(reason(&control_plane, "allowed", "uid-1").contains("is a control-plane node"));
    let silent = Node { lease_renewed_ms: Some(NOW_MS - 60_000), ..two.clone() };
    assert!(reason(&[one.clone(), silent], "allowed", "uid-1").contains("w2 does not report"));
    let cordoned = Node { unschedulable: true, ..two.clone() };
    assert!(reason(&[one.clone(), cordoned], "allowed", "uid-1").contains("no other node"));
    let taint = Taint { key: OUT_OF_SERVICE.into(), value: String::new(), effect: "NoExecute".into() };
    let fenced = Node { taints: vec![taint], ..one };
    assert!(reason(&[fenced, two], "allowed", "uid-1").contains("w1 is out of service"));
}
