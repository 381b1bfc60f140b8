//! S3: three members, one disk lost, quorum holds: no restore. The member is replaced as a learner and promoted.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use scenarios::{Cluster, STOP_ALL, THREE};
use testbed::set::Kind;

fn replaced(cluster: &Cluster) {
    let report = cluster.recover_from_outside(&THREE, &[]).unwrap();
    assert!(report["restoredRevision"].is_null(), "data was restored though quorum held");
    cluster.assert_works("after").unwrap();
    assert!(cluster.has_mark("before").unwrap());
    assert_eq!(cluster.hash_kv(&THREE).unwrap().len(), 3);
}

// A member that is not the first loses its disk.
#[test]
fn one_disk_lost() {
    let cluster = Cluster::load(Kind::Kubeadm3).unwrap();
    cluster.mark("before").unwrap();
    cluster
        .fault("cp3", &format!("{STOP_ALL}; rm -rf /var/lib/etcd/member; systemctl start kubelet"))
        .unwrap();
    std::thread::sleep(std::time::Duration::from_secs(10));
    replaced(&cluster);
}
