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

fn disk_lost(host: &str) {
    let cluster = Cluster::load(Kind::Kubeadm3).unwrap();
    cluster.mark("before").unwrap();
    cluster
        .fault(host, &format!("{STOP_ALL}; rm -rf /var/lib/etcd/member; systemctl start kubelet"))
        .unwrap();
    std::thread::sleep(std::time::Duration::from_secs(10));
    replaced(&cluster);
}

// A member that is not the first loses its disk.
#[test]
fn one_disk_lost() {
    disk_lost("cp3");
}

// The first member's flags name only itself, as kubeadm wrote them at `init`: without its disk it founds a cluster of one,
// under the old ids, instead of asking the others. It must be seen as lost though it answers.
#[test]
fn the_first_disk_lost() {
    disk_lost("cp1");
}
