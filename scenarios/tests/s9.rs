//! S9: recoveries after recoveries: a member that forgot its log under its old id, and the same snapshot a second time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use scenarios::{Cluster, STOP_ALL, verified};
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
