//! S8: two disks wiped, the first member's among them: the cluster bootstraps anew, looks healthy and is empty. The only good
//! copy is the member that looks sick.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use scenarios::{Cluster, STOP_ALL, THREE, codes};
use testbed::set::Kind;

#[test]
fn healthy_and_empty() {
    let cluster = Cluster::load(Kind::Kubeadm3).unwrap();
    cluster.mark("early").unwrap();
    let backup = cluster.snapshot_here("cp1").unwrap().into_string();
    cluster.mark_reaching("cp3", "late").unwrap();
    for host in THREE {
        cluster.fault(host, STOP_ALL).unwrap();
    }
    for host in ["cp1", "cp2"] {
        cluster.fault(host, "rm -rf /var/lib/etcd/member").unwrap();
    }
    for host in THREE {
        cluster.fault(host, "systemctl start kubelet").unwrap();
    }
    std::thread::sleep(std::time::Duration::from_secs(20));
    let check = cluster.from_outside("check", &THREE, &["-o", "json"]).unwrap().expect(3).unwrap();
    let report = check.json().unwrap();
    let named =
        report["findings"].as_array().unwrap().iter().any(|f| f["summary"].to_string().contains("empty"));
    assert!(named, "the empty cluster is not named for what it is: {:?}", codes(&report));
    cluster.recover_from_outside(&THREE, &["--snapshot", &backup]).unwrap();
    cluster.assert_works("after").unwrap();
    assert!(cluster.has_mark("early").unwrap());
    assert!(cluster.has_mark("late").unwrap(), "the survivor's disk held it");
}
