//! S1: a single kubeadm control plane loses its etcd data, in every way data is lost. Whatever a running etcd still holds
//! is saved before anything is stopped, and preferred when newer; else the newest snapshot that verifies is taken.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use scenarios::{Called, Cluster, STOP_ALL, verified};
use testbed::set::Kind;

const SNAPSHOT: &str = "/backup/snap.db";

/// A cluster with `early` in the snapshot and `late` only in etcd.
fn cluster() -> Cluster {
    let cluster = Cluster::load(Kind::Kubeadm1).unwrap();
    cluster.mark("early").unwrap();
    cluster.snapshot("cp1", SNAPSHOT).unwrap();
    cluster.mark("late").unwrap();
    cluster
}

fn recover(cluster: &Cluster) -> Called {
    let called = cluster.on("cp1", &["recover", "--snapshot", "/backup", "--yes", "-o", "json"]).unwrap();
    let called = called.expect(0).unwrap();
    verified(&called).unwrap();
    called
}

/// From the snapshot: `early` is back, `late` is lost, and the report says that something is.
fn recovered_from_snapshot(cluster: &Cluster) {
    recover(cluster);
    cluster.assert_works("after").unwrap();
    assert!(cluster.has_mark("early").unwrap());
    assert!(!cluster.has_mark("late").unwrap(), "the fault was not made: nothing was lost");
}

// The data dir was deleted under a running etcd, which still serves from its open file: the only copy. Nothing is lost.
#[test]
fn data_dir_deleted_while_running() {
    let cluster = cluster();
    cluster.fault("cp1", "rm -rf /var/lib/etcd/member").unwrap();
    recover(&cluster);
    cluster.assert_works("after").unwrap();
    assert!(cluster.has_mark("early").unwrap());
    assert!(cluster.has_mark("late").unwrap(), "what only the running etcd held was lost");
}

// etcd hangs (here: is frozen), so that clients hear only "etcdserver: request timed out", and its files were deleted: what
// it holds open is the only copy, and it answers nothing. It is read through the process.
#[test]
fn data_dir_deleted_while_etcd_hangs() {
    let cluster = cluster();
    std::thread::sleep(std::time::Duration::from_secs(1)); // etcd commits what it holds in memory every 100 ms
    cluster.fault("cp1", "pkill -STOP -x etcd; rm -rf /var/lib/etcd/member").unwrap();
    recover(&cluster);
    cluster.assert_works("after").unwrap();
    assert!(cluster.has_mark("early").unwrap());
    assert!(cluster.has_mark("late").unwrap(), "what only the open file held was lost");
}

// Everything was down when the data dir was deleted: the snapshot is all there is.
#[test]
fn data_dir_deleted_while_stopped() {
    let cluster = cluster();
    cluster.fault("cp1", &format!("{STOP_ALL}; rm -rf /var/lib/etcd/member")).unwrap();
    recovered_from_snapshot(&cluster);
}

// kubelet then started etcd again by a manifest that bootstraps: a new, empty cluster that looks healthy.
#[test]
fn data_dir_deleted_and_bootstrapped_empty() {
    let cluster = Cluster::load(Kind::Kubeadm1).unwrap();
    // The history tells the two stores apart: a cluster that has lived came further than one that just began.
    cluster.set.fill(1000).unwrap();
    cluster.mark("early").unwrap();
    cluster.snapshot("cp1", SNAPSHOT).unwrap();
    cluster.mark("late").unwrap();
    cluster
        .fault("cp1", &format!("{STOP_ALL}; rm -rf /var/lib/etcd/member; systemctl start kubelet"))
        .unwrap();
    cluster
        .fault(
            "cp1",
            "for i in $(seq 60); do test -e /var/lib/etcd/member/snap/db && exit 0; sleep 1; done; exit 1",
        )
        .unwrap();
    std::thread::sleep(std::time::Duration::from_secs(5));
    recovered_from_snapshot(&cluster);
}

// A page in the middle of the db was overwritten while etcd was down.
#[test]
fn db_page_overwritten() {
    let cluster = cluster();
    cluster.garbage("cp1").unwrap();
    let garble = "size=$(stat -c %s /var/lib/etcd/member/snap/db); \
                  dd if=/root/garbage of=/var/lib/etcd/member/snap/db bs=4096 count=40 seek=8 conv=notrunc status=none";
    cluster.fault("cp1", &format!("{STOP_ALL}; {garble}; systemctl start kubelet")).unwrap();
    recovered_from_snapshot(&cluster);
}

/// Overwrites a part of every file of the WAL (`dd`'s words), lets etcd try to start, and recovers.
fn recovered_from_overwritten_wal(with: &str) {
    let cluster = cluster();
    cluster.garbage("cp1").unwrap();
    let overwrite = format!(
        "for f in /var/lib/etcd/member/wal/*.wal; do dd {with} of=$f bs=512 conv=notrunc status=none; done"
    );
    cluster.fault("cp1", &format!("{STOP_ALL}; {overwrite}; systemctl start kubelet")).unwrap();
    recover(&cluster);
    cluster.assert_works("after").unwrap();
    assert!(cluster.has_mark("early").unwrap());
}

// The WAL was garbled, the db is whole: etcd does not start.
#[test]
fn wal_garbled() {
    recovered_from_overwritten_wal("if=/root/garbage count=4 seek=1");
}

// The same with zeros: the log reads as one that ends there, and etcd would take it for that. The db tells that it did not.
#[test]
fn wal_cut_short() {
    recovered_from_overwritten_wal("if=/dev/zero count=64 seek=2");
}

// The db was cut short.
#[test]
fn db_truncated() {
    let cluster = cluster();
    cluster
        .fault(
            "cp1",
            &format!("{STOP_ALL}; truncate -s 40960 /var/lib/etcd/member/snap/db; systemctl start kubelet"),
        )
        .unwrap();
    recovered_from_snapshot(&cluster);
}
