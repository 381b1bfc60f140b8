//! S2: three members, two disks lost, quorum gone. All three are restored in parallel over SSH, from the newer of the best
//! snapshot and the survivor.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use scenarios::{Cluster, STOP_ALL, THREE, codes};
use testbed::set::Kind;

/// `early` is in the snapshot, `late` only in etcd.
fn cluster() -> (Cluster, String) {
    let cluster = Cluster::load(Kind::Kubeadm3).unwrap();
    cluster.mark("early").unwrap();
    let backup = cluster.snapshot_here("cp1").unwrap();
    cluster.mark_reaching("cp1", "late").unwrap();
    (cluster, backup.into_string())
}

fn members_agree(cluster: &Cluster) {
    let hashes = cluster.hash_kv(&THREE).unwrap();
    let cluster_ids: Vec<_> = hashes.iter().map(|h| h["header"]["cluster_id"].clone()).collect();
    assert!(cluster_ids.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
}

// One disk wiped, one garbled; the third member is whole but alone. It holds more than the snapshot does.
#[test]
fn two_disks_lost() {
    let (cluster, backup) = cluster();
    for host in THREE {
        cluster.fault(host, STOP_ALL).unwrap();
    }
    cluster.fault("cp2", "rm -rf /var/lib/etcd/member").unwrap();
    let garble = "dd if=/root/garbage of=/var/lib/etcd/member/snap/db bs=4096 count=60 seek=2 conv=notrunc status=none";
    cluster.garbage("cp3").unwrap();
    cluster.fault("cp3", garble).unwrap();
    for host in THREE {
        cluster.fault(host, "systemctl start kubelet").unwrap();
    }
    let report = cluster.recover_from_outside(&THREE, &["--snapshot", &backup]).unwrap();
    assert!(
        report["rpo"]["lostEndRevision"]["known"].is_null(),
        "RPO 0 from a lone survivor: {}",
        report["rpo"]
    );
    cluster.assert_works("after").unwrap();
    assert!(cluster.has_mark("early").unwrap());
    assert!(cluster.has_mark("late").unwrap(), "the survivor was newer, and was not taken: {report:#}");
    members_agree(&cluster);
}

// All three disks are gone: the snapshot is all there is.
#[test]
fn three_disks_lost() {
    let (cluster, backup) = cluster();
    for host in THREE {
        cluster.fault(host, &format!("{STOP_ALL}; rm -rf /var/lib/etcd/member")).unwrap();
    }
    cluster.recover_from_outside(&THREE, &["--snapshot", &backup]).unwrap();
    cluster.assert_works("after").unwrap();
    assert!(cluster.has_mark("early").unwrap());
    assert!(!cluster.has_mark("late").unwrap());
    members_agree(&cluster);
}

/// Two hosts are given up, and the data is restored on the one that is left.
fn two_given_up() -> Cluster {
    let (cluster, backup) = cluster();
    for host in ["cp2", "cp3"] {
        cluster.set.host(host).unwrap().power_cut().unwrap();
    }
    std::thread::sleep(std::time::Duration::from_secs(3));
    let args = ["--snapshot", &backup, "--lost", "root@cp2", "--lost", "root@cp3", "--yes", "-o", "json"];
    let report = cluster.from_outside("recover", &["cp1"], &args).unwrap().expect(0).unwrap().json().unwrap();
    let left = report["leftToDo"].to_string();
    assert!(left.contains("cp2") && left.contains("cp3"), "the lost hosts are not named: {left}");
    let server = ["--server", "https://10.77.0.11:6443", "get", "configmaps", "-n", "default", "-o", "name"];
    let found = cluster.set.kubectl_ok(&server).unwrap();
    assert!(found.contains("configmap/early") && found.contains("configmap/late"), "{found}");
    cluster
}

/// The lost hosts have joined, and brought nothing of the history they had alone.
fn all_are_back(cluster: &Cluster) {
    cluster.assert_works("after").unwrap();
    for mark in ["early", "late"] {
        assert!(
            cluster.has_mark(mark).unwrap(),
            "{mark} is gone: the old members' history came back with them"
        );
    }
    members_agree(cluster);
}

fn joined(cluster: &Cluster, hosts: &[&str], args: &[&str]) {
    let report = cluster.recover_from_outside(hosts, args).unwrap();
    assert!(report["restoredRevision"].is_null(), "data was restored for a member that only had to join");
}

// Two hosts are gone for good: restored on the one that is left, and the others are named as still to be added. Then one
// comes back after all, with its old data: it joins the new cluster as a learner, and so does the other one.
#[test]
fn two_hosts_lost_and_added_again() {
    let cluster = two_given_up();
    cluster.set.host("cp2").unwrap().boot().unwrap();
    joined(&cluster, &THREE[..2], &["--lost", "root@cp3"]);
    cluster.set.host("cp3").unwrap().boot().unwrap();
    joined(&cluster, &THREE, &[]);
    all_are_back(&cluster);
}

// Both come back at once. Together they are a quorum of the cluster as it was, and serve it beside the restored one: two
// clusters under one name. They are known by the run that left them behind, and join the new one.
#[test]
fn two_lost_hosts_return_together() {
    let cluster = two_given_up();
    for host in ["cp2", "cp3"] {
        cluster.set.host(host).unwrap().boot().unwrap();
    }
    let until = std::time::Instant::now() + std::time::Duration::from_secs(90);
    while cluster.hash_kv(&["cp2", "cp3"]).is_err() {
        assert!(std::time::Instant::now() < until, "the old members do not serve");
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    let check = cluster.from_outside("check", &THREE, &["-o", "json"]).unwrap().expect(3).unwrap();
    let found = codes(&check.json().unwrap());
    assert!(found.iter().any(|code| code == "RK-E10"), "not named: {found:?}");
    joined(&cluster, &THREE, &[]);
    all_are_back(&cluster);
}
