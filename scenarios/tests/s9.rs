//! S9: recoveries after recoveries: a member that forgot its log under its old id, and the same snapshot a second time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use scenarios::{Cluster, STOP_ALL, THREE, codes, verified};
use std::time::{Duration, Instant};
use testbed::set::Kind;

// The same snapshot is restored twice (trap 4): the second time must land above all that clients saw after the first,
// or their watches hold revisions that the store gives out again with other content.
#[test]
fn the_same_snapshot_twice() {
    let cluster = Cluster::load(Kind::Kubeadm1).unwrap();
    cluster.mark("early").unwrap();
    cluster.snapshot("cp1", "/backup/snap.db").unwrap();
    let mut raised = Vec::new();
    for round in ["first", "second"] {
        cluster.fault("cp1", &format!("{STOP_ALL}; rm -rf /var/lib/etcd/member")).unwrap();
        let called = cluster.on("cp1", &["recover", "--snapshot", "/backup", "--yes", "-o", "json"]).unwrap();
        let report = verified(&called.expect(0).unwrap()).unwrap();
        raised.push(report["raisedToRevision"].as_i64().unwrap());
        cluster.assert_works(round).unwrap();
    }
    let after_first = raised[0];
    assert!(raised[1] > after_first, "{raised:?}");
    assert!(cluster.has_mark("early").unwrap());
    assert!(!cluster.has_mark("first").unwrap(), "the second restore did not happen");
}

// A member's disk is wiped, and it rejoins under its old id because the leader that knew it better has changed (trap 2).
// Everything answers and is in quorum; yet it forgot what it voted for. It is named, and replaced under a new id.
#[test]
fn a_member_rejoined_under_its_old_id() {
    let cluster = Cluster::load(Kind::Kubeadm3).unwrap();
    cluster.mark("early").unwrap();
    let ids = |cluster: &Cluster| -> Vec<u64> {
        let hashes = cluster.hash_kv(&THREE).unwrap();
        hashes.iter().map(|hash| hash["header"]["member_id"].as_u64().unwrap()).collect()
    };
    let before = ids(&cluster);
    for host in THREE {
        cluster.fault(host, STOP_ALL).unwrap();
    }
    cluster.fault("cp3", "rm -rf /var/lib/etcd/member").unwrap();
    for host in ["cp1", "cp2"] {
        cluster.fault(host, "systemctl start kubelet").unwrap();
    }
    let until = Instant::now() + Duration::from_secs(90);
    while cluster.hash_kv(&["cp1", "cp2"]).is_err() {
        assert!(Instant::now() < until, "the two whole members do not serve");
        std::thread::sleep(Duration::from_secs(1));
    }
    cluster.fault("cp3", "systemctl start kubelet").unwrap();
    cluster.set.wait_ready(Duration::from_secs(180)).unwrap();
    assert_eq!(before, ids(&cluster), "it did not rejoin under its old id");
    let check = cluster.from_outside("check", &THREE, &["-o", "json"]).unwrap().expect(3).unwrap();
    let found = codes(&check.json().unwrap());
    assert!(found.iter().any(|code| code == "RK-E09"), "not named: {found:?}");
    let report = cluster.recover_from_outside(&THREE, &[]).unwrap();
    assert!(report["restoredRevision"].is_null(), "data was restored though quorum held");
    let after = ids(&cluster);
    assert_eq!(before[..2], after[..2]);
    assert_ne!(before[2], after[2], "it kept the id whose votes it forgot");
    cluster.assert_works("after").unwrap();
    assert!(cluster.has_mark("early").unwrap());
}
