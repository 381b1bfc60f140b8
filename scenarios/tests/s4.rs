//! S4: a control plane of systemd units: etcd's data lost, and an API server unit that failed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use scenarios::{Cluster, codes, verified};
use testbed::set::Kind;

// The data dir is deleted while etcd is stopped: restored from the snapshot, units stopped and started in order.
#[test]
fn etcd_data_lost() {
    let cluster = Cluster::load(Kind::Systemd1).unwrap();
    cluster.mark("early").unwrap();
    cluster.snapshot("cp1", "/backup/snap.db").unwrap();
    cluster.mark("late").unwrap();
    cluster.fault("cp1", "systemctl stop etcd; rm -rf /var/lib/etcd/member").unwrap();
    let called = cluster.on("cp1", &["recover", "--snapshot", "/backup", "--yes", "-o", "json"]).unwrap();
    verified(&called.expect(0).unwrap()).unwrap();
    cluster.assert_works("after").unwrap();
    assert!(cluster.has_mark("early").unwrap());
    assert!(!cluster.has_mark("late").unwrap(), "the fault was not made: nothing was lost");
}

// The API server's unit failed and systemd gave up: that unit alone is started, with its journal as evidence. etcd's
// process is not touched.
#[test]
fn api_server_unit_failed() {
    let cluster = Cluster::load(Kind::Systemd1).unwrap();
    cluster.mark("before").unwrap();
    let host = cluster.set.host("cp1").unwrap();
    let etcd = || host.script("systemctl show -p MainPID etcd").unwrap();
    let before = etcd();
    let crash = "mkdir -p /run/systemd/system/kube-apiserver.service.d; \
                 printf '[Service]\\nRestart=no\\n' > /run/systemd/system/kube-apiserver.service.d/once.conf; \
                 systemctl daemon-reload; systemctl kill -s KILL kube-apiserver; sleep 1; systemctl is-failed kube-apiserver";
    cluster.fault("cp1", crash).unwrap();
    let check = cluster.on("cp1", &["check", "-o", "json"]).unwrap().expect(3).unwrap().json().unwrap();
    assert!(codes(&check).contains(&"RK-C01".to_owned()), "{:?}", codes(&check));
    let called = cluster.on("cp1", &["recover", "--yes", "-o", "json"]).unwrap();
    let report = verified(&called.expect(0).unwrap()).unwrap();
    assert!(report["restoredRevision"].is_null(), "data was restored though nothing was lost");
    assert_eq!(before, etcd(), "etcd was restarted though it was well");
    cluster.assert_works("after").unwrap();
    assert!(cluster.has_mark("before").unwrap());
}
