//! S6: a healthy cluster is left alone, and told so.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use scenarios::Cluster;
use testbed::set::Kind;

// Run at 3 a.m. on the wrong cluster, `recover` must do nothing at all.
#[test]
fn healthy_is_left_alone() {
    let cluster = Cluster::load(Kind::Kubeadm1).unwrap();
    cluster.snapshot("cp1", "/backup/snap.db").unwrap();
    let pids = || {
        cluster
            .set
            .host("cp1")
            .unwrap()
            .script("pgrep -x etcd; pgrep -x kube-apiserver; pgrep -x kubelet")
            .unwrap()
    };
    let before = pids();
    let check = cluster.on("cp1", &["check", "-o", "json"]).unwrap().expect(0).unwrap().json().unwrap();
    assert_eq!(check["success"], true);
    let failing: Vec<_> =
        check["checks"].as_array().unwrap().iter().filter(|c| c["result"] == "failed").collect();
    assert!(failing.is_empty(), "{failing:?}");
    let said = cluster.on("cp1", &["recover", "--snapshot", "/backup", "--yes"]).unwrap().expect(0).unwrap();
    assert!(said.stdout.contains("Nothing to do"), "{}", said.stdout);
    assert_eq!(before, pids(), "a process was restarted on a healthy cluster");
    assert!(
        cluster.set.host("cp1").unwrap().read("/var/lib/rekindle/runs").is_err(),
        "a run was left behind"
    );
}
