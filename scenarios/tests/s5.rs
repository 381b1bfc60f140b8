//! S5: nothing is lost, something is stopped. Found, started or put back, and no restore.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use scenarios::{Cluster, codes};
use testbed::set::Kind;

/// Recovers without a snapshot at hand: a restore would be impossible, and must not be needed. `mark` is written then.
fn recovers(cluster: &Cluster, code: &str, mark: &str) {
    let check = cluster.on("cp1", &["check", "-o", "json"]).unwrap().expect(3).unwrap();
    let found = codes(&check.json().unwrap());
    assert!(found.iter().any(|c| c == code), "no {code} among {found:?}");
    let called = cluster.on("cp1", &["recover", "--yes", "-o", "json"]).unwrap().expect(0).unwrap();
    let report = called.json().unwrap();
    assert_eq!(report["outcome"], "verified", "{}", called.stderr);
    assert!(report["restoredRevision"].is_null(), "data was restored though nothing was lost");
    cluster.assert_works(mark).unwrap();
    assert!(cluster.has_mark("before").unwrap());
}

fn cluster() -> Cluster {
    let cluster = Cluster::load(Kind::Kubeadm1).unwrap();
    cluster.mark("before").unwrap();
    cluster
}

// Somebody stopped kubelet, and the containers died with the machine's runtime.
#[test]
fn kubelet_stopped() {
    let cluster = cluster();
    cluster.fault("cp1", scenarios::STOP_ALL).unwrap();
    recovers(&cluster, "RK-K01", "after");
}

// etcd's manifest was moved out of the folder, and is put back before anything has stopped; then again, and kubelet stops
// it, and the API server follows.
#[test]
fn etcd_manifest_moved_away() {
    let cluster = cluster();
    cluster.fault("cp1", "mv /etc/kubernetes/manifests/etcd.yaml /root/etcd.yaml").unwrap();
    recovers(&cluster, "RK-C02", "at-once");
    cluster.fault("cp1", "mv /etc/kubernetes/manifests/etcd.yaml /root/etcd.yaml").unwrap();
    std::thread::sleep(std::time::Duration::from_secs(8));
    recovers(&cluster, "RK-C02", "after");
}

// A flag the API server does not know: it exits at once and kubelet backs off.
#[test]
fn bad_flag_in_the_api_servers_manifest() {
    let cluster = cluster();
    cluster
        .fault("cp1", "sed -i 's/^    - kube-apiserver$/&\\n    - --no-such-flag=1/' /etc/kubernetes/manifests/kube-apiserver.yaml")
        .unwrap();
    cluster
        .fault(
            "cp1",
            "for i in $(seq 60); do pgrep -x kube-apiserver >/dev/null || exit 0; sleep 1; done; exit 1",
        )
        .unwrap();
    std::thread::sleep(std::time::Duration::from_secs(15));
    recovers(&cluster, "RK-C05", "after");
    let manifest =
        cluster.set.host("cp1").unwrap().read("/etc/kubernetes/manifests/kube-apiserver.yaml").unwrap();
    assert!(!String::from_utf8_lossy(&manifest).contains("no-such-flag"));
}
