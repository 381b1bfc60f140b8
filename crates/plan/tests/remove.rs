//! Which nodes may be removed, decided from facts alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use rekindle_model::etcd::EtcdMember;
use rekindle_model::kube::nodes::{Condition, Node, OUT_OF_SERVICE, Owner, Pod, Reach, Taint, Thresholds};
use rekindle_model::kube::{ClusterRef, ObjectRef};
use rekindle_model::plan::PlanOutcome;
use rekindle_model::{MemberId, RunId};
use rekindle_plan::kube::Base;
use rekindle_plan::kube::members::{is_of, unclear};
use rekindle_plan::kube::nodes::{Removal, remove};
use std::collections::BTreeMap;

const NOW_MS: i64 = 1_700_000_000_000;

fn object(kind: &str, name: &str) -> ObjectRef {
    ObjectRef {
        collection: "/api/v1/x".into(),
        kind: kind.into(),
        namespace: None,
        name: name.into(),
        uid: format!("uid-{name}"),
    }
}

/// A node that went silent ten minutes ago.
fn silent() -> Node {
    let ready = Condition {
        kind: "Ready".into(),
        status: "Unknown".into(),
        reason: "NodeStatusUnknown".into(),
        message: String::new(),
        since_ms: None,
    };
    Node {
        object: object("Node", "w1"),
        zone: String::new(),
        roles: vec![],
        addresses: vec![],
        kubelet_version: "v1.37.2".into(),
        conditions: vec![ready],
        taints: vec![],
        unschedulable: false,
        cordoned_ms: None,
        cordoned_by: String::new(),
        lease_renewed_ms: Some(NOW_MS - 600_000),
        kubelet: Reach::NotAsked,
    }
}

fn pod(owner: &str) -> Pod {
    Pod {
        object: object("Pod", "db-0"),
        node: "w1".into(),
        phase: "Running".into(),
        ready: false,
        deleted_ms: None,
        grace_seconds: 30,
        mirror: false,
        controller: Some(Owner { api_version: "apps/v1".into(), kind: owner.into(), name: "x".into() }),
        orphaned: false,
        labels: BTreeMap::new(),
        empty_dirs: vec![],
        claims: vec![],
        network_volumes: vec![],
        finalizers: vec![],
    }
}

fn outcome(node: &Node, pod: Pod) -> PlanOutcome {
    let cluster = ClusterRef {
        kubeconfig: None,
        context: None,
        server: "https://x".into(),
        kube_system_uid: "u".into(),
    };
    let base = Base { run_id: RunId("run".into()), now_ms: NOW_MS, cluster };
    let thresholds = Thresholds { grace_period_seconds: 50, source: "default".into() };
    remove(&base, &Removal { node, pods: &[pod], attachments: &[], member: None }, &thresholds, None)
}

// A node is cut off and goes on running: nothing is attached to it (NFS, hostPath, a driver without attach), and a pod of a
// StatefulSet or with a volume of its own is on it. Without the node its copy starts elsewhere beside it: fenced first.
// A pod that a second copy does not harm, one that ended, and those of DaemonSets keep nobody.
#[test]
fn a_silent_node_with_stateful_pods_is_fenced_first() {
    let share = Pod { network_volumes: vec!["share".into()], ..pod("ReplicaSet") };
    let claim = Pod { claims: vec!["data".into()], ..pod("ReplicaSet") };
    for stateful in [pod("StatefulSet"), share.clone(), claim] {
        let PlanOutcome::Refused(refusal) = outcome(&silent(), stateful.clone()) else {
            panic!("{stateful:?}")
        };
        assert!(refusal.reason.contains("db-0"), "{refusal:?}");
        assert!(refusal.possible[0].contains("rekindle node fence w1"), "{refusal:?}");
    }
    let ended = Pod { phase: "Failed".into(), ..pod("StatefulSet") };
    let of_daemonset = Pod { controller: pod("DaemonSet").controller, ..share };
    for harmless in [pod("ReplicaSet"), ended, of_daemonset] {
        assert!(matches!(outcome(&silent(), harmless.clone()), PlanOutcome::Plan(_)), "{harmless:?}");
    }
    let taint = Taint { key: OUT_OF_SERVICE.into(), value: "x".into(), effect: "NoExecute".into() };
    let fenced = Node { taints: vec![taint], ..silent() };
    assert!(matches!(outcome(&fenced, pod("StatefulSet")), PlanOutcome::Plan(_)));
}

fn member(id: u64, name: &str, url: &str) -> EtcdMember {
    EtcdMember {
        id: MemberId(id),
        name: name.into(),
        peer_urls: vec![url.into()],
        client_urls: vec![],
        is_learner: false,
    }
}

// A control-plane node is removed whose etcd member has a name of its own and an IPv6 peer URL, written otherwise than the
// node's address: it is the node's all the same. A member that no node has and that does not answer is not taken for
// nobody's: it may be the lost one.
#[test]
fn the_member_of_a_node_is_known_by_the_host_of_its_peer_urls() {
    let addresses =
        |all: &[&str]| Node { addresses: all.iter().map(|one| (*one).to_owned()).collect(), ..silent() };
    let lost = addresses(&["10.0.0.3", "fd00:0::3"]);
    let its_own = [
        member(3, "etcd-7f", "https://[fd00::3]:2380"),
        member(3, "etcd-7f", "https://10.0.0.3:2380"),
        member(3, "w1", "https://elsewhere:2380"),
        member(3, "", "https://W1:2380"),
    ];
    assert!(its_own.iter().all(|one| is_of(one, &lost)));
    let others =
        [member(4, "etcd-8a", "https://10.0.0.33:2380"), member(5, "w10", "https://[fd00::33]:2380")];
    assert!(!others.iter().any(|one| is_of(one, &lost)));

    let stays = Node { object: object("Node", "cp1"), ..addresses(&["10.0.0.1"]) };
    let listed = [
        member(1, "a", "https://10.0.0.1:2380"),
        member(2, "b", "https://cp2.example:2380"),
        member(3, "c", "https://old:2380"),
    ];
    let left: Vec<u64> =
        unclear(&listed, &[&stays], &[MemberId(2)].into()).into_iter().map(|one| one.id.0).collect();
    assert_eq!(left, [3]);
}
