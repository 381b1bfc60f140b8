//! The cluster that was off for two years: every leaf certificate has expired, no component trusts another, and nothing
//! answers. One command brings it back, on one control-plane node and on three with a worker. Then a host of the three is
//! reset and joins again.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use scenarios::expired::expire;
use scenarios::{Called, Cluster, STOP_ALL, THREE, codes, verified};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use testbed::Host;
use testbed::set::{Kind, Set};

/// Switches everything off, lets all certificates end a year ago, and switches it on again. Returns when an API server
/// has had the time to find out that it can't read.
fn off_for_two_years(cluster: &Cluster) {
    let nodes = || cluster.set.hosts().iter().filter(|host| host.name != "lb");
    for host in nodes() {
        cluster.fault(&host.name, STOP_ALL).unwrap();
    }
    for host in nodes() {
        expire(cluster, host).unwrap();
    }
    for host in nodes() {
        cluster.fault(&host.name, "systemctl start kubelet --no-block").unwrap();
    }
    std::thread::sleep(Duration::from_secs(10));
}

/// Whether each certificate has expired, as stock kubeadm tells it.
fn by_kubeadm(host: &Host) -> BTreeMap<String, bool> {
    let told = host.exec_ok(&["kubeadm", "certs", "check-expiration", "-o", "json"]).unwrap();
    let told: Value = serde_json::from_str(&told[told.find('{').unwrap()..]).unwrap();
    let list = told["certificates"].as_array().unwrap();
    let present = list.iter().filter(|one| one["missing"] != true);
    let expired = |one: &Value| one["residualTime"].as_i64().unwrap_or_default() <= 0;
    present.map(|one| (one["name"].as_str().unwrap().to_owned(), expired(one))).collect()
}

/// The test's own kubeconfig, after the host's was made anew.
fn fetch_admin(set: &Set) {
    let text = set.host("cp1").unwrap().read("/etc/kubernetes/admin.conf").unwrap();
    std::fs::write(set.admin_kubeconfig(), text).unwrap();
}

/// `check` names the expired certificates as the only root causes, however much is down.
fn told_as_the_root_cause(check: &Value) {
    let roots: Vec<&str> = check["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["causedBy"].is_null() && finding["severity"] == "failure")
        .map(|finding| finding["code"].as_str().unwrap())
        .collect();
    assert!(!roots.is_empty() && roots.iter().all(|code| *code == "RK-P01"), "{roots:?}: {:?}", codes(check));
}

fn report_of(called: &Called) -> Value {
    let report = verified(called).unwrap();
    assert!(report["rto"]["toReadyMs"].as_i64().is_some(), "no RTO: {}", report["rto"]);
    testbed::cmd::note(&format!("RTO: {}", report["rto"]));
    assert!(!called.stdout.contains("PRIVATE KEY") && !called.stderr.contains("PRIVATE KEY"));
    report
}

#[test]
fn one_node_off_for_two_years() {
    let cluster = Cluster::load(Kind::Kubeadm1).unwrap();
    let host = cluster.set.host("cp1").unwrap();
    cluster.mark("before").unwrap();
    off_for_two_years(&cluster);
    assert!(by_kubeadm(host).values().all(|expired| *expired), "{:?}", by_kubeadm(host));
    let check = cluster.on("cp1", &["check", "-o", "json"]).unwrap().expect(3).unwrap();
    told_as_the_root_cause(&check.json().unwrap());
    let called = cluster.on("cp1", &["certs", "renew", "--all", "--yes", "-o", "json"]).unwrap();
    report_of(&called.expect(0).unwrap());
    fetch_admin(&cluster.set);
    cluster.assert_works("after").unwrap();
    assert!(cluster.has_mark("before").unwrap());
    assert!(by_kubeadm(host).values().all(|expired| !expired), "{:?}", by_kubeadm(host));
    cluster.on("cp1", &["certs", "check"]).unwrap().expect(0).unwrap();

    // On a cluster that works, and taken back again.
    let called = cluster.on("cp1", &["certs", "renew", "--all", "--yes", "-o", "json"]).unwrap();
    let run = report_of(&called.expect(0).unwrap())["runId"].as_str().unwrap().to_owned();
    cluster.on("cp1", &["runs", "undo", &run, "--yes"]).unwrap().expect(0).unwrap();
    cluster.assert_works("undone").unwrap();
}

const UNITS: &str = "kubelet kube-scheduler kube-controller-manager kube-apiserver etcd";

// The same where systemd units run the control plane.
#[test]
#[ignore = "the long form; one node by static pods is the same but for the restarts"]
fn units_off_for_two_years() {
    let cluster = Cluster::load(Kind::Systemd1).unwrap();
    let host = cluster.set.host("cp1").unwrap();
    cluster.mark("before").unwrap();
    cluster.fault("cp1", &format!("systemctl stop {UNITS}")).unwrap();
    expire(&cluster, host).unwrap();
    cluster.fault("cp1", &format!("systemctl start --no-block {UNITS}")).unwrap();
    std::thread::sleep(Duration::from_secs(10));
    let check = cluster.on("cp1", &["check", "-o", "json"]).unwrap().expect(3).unwrap();
    told_as_the_root_cause(&check.json().unwrap());
    let called = cluster.on("cp1", &["certs", "renew", "--all", "--yes", "-o", "json"]).unwrap();
    report_of(&called.expect(0).unwrap());
    fetch_admin(&cluster.set);
    cluster.assert_works("after").unwrap();
    assert!(cluster.has_mark("before").unwrap());
}

#[test]
fn three_nodes_and_a_worker_off_for_two_years() {
    let cluster = Cluster::load(Kind::Kubeadm3).unwrap();
    cluster.mark("before").unwrap();
    off_for_two_years(&cluster);
    let all = [THREE.as_slice(), &["w1"]].concat();
    let check = cluster.from_outside("check", &all, &["-o", "json"]).unwrap().expect(3).unwrap();
    told_as_the_root_cause(&check.json().unwrap());
    let arguments = ["--all", "--yes", "-o", "json"];
    let called = cluster.from_outside("certs renew", &all, &arguments).unwrap().expect(0).unwrap();
    report_of(&called);
    fetch_admin(&cluster.set);
    cluster.assert_works("after").unwrap();
    assert!(cluster.has_mark("before").unwrap());
    for host in cluster.set.control_planes() {
        assert!(by_kubeadm(host).values().all(|expired| !expired), "{}: {:?}", host.name, by_kubeadm(host));
    }

    // Now that it works: one host after another, without an API server or a quorum missing.
    let called = cluster.from_outside("certs renew", &all, &arguments).unwrap().expect(0).unwrap();
    report_of(&called);
    fetch_admin(&cluster.set);
    leaves_and_joins_again(&cluster);
}

/// `cp3` is taken out of the cluster and joins it again by kubeadm: etcd stays in quorum, what the host had is kept, nothing
/// is in kubeadm's way, and the renewed certificates and authorities are good for a join.
fn leaves_and_joins_again(cluster: &Cluster) {
    let preview = cluster.from_outside("reset root@cp3", &THREE, &["--dry-run"]).unwrap().expect(0).unwrap();
    for told in ["remove member cp3", "delete the Node object cp3", "kubeadm token create", "/etc/cni/net.d"]
    {
        assert!(preview.stdout.contains(told), "no {told:?} in the plan:\n{}", preview.stdout);
    }
    let called =
        cluster.from_outside("reset root@cp3", &THREE, &["--yes", "-o", "json"]).unwrap().expect(0).unwrap();
    verified(&called).unwrap();
    let cp3 = cluster.set.host("cp3").unwrap();
    let left = "ls -A /etc/kubernetes/manifests /etc/kubernetes/pki /etc/kubernetes/*.conf /var/lib/etcd 2>/dev/null \
                | grep -v : | grep -c . || true";
    assert_eq!(cp3.script(left).unwrap().trim(), "0", "something of the old cluster is in the way");
    cp3.script(
        "test -s /etc/kubernetes/rekindle-*/pki/ca.key && test -d /var/lib/rekindle-*-etcd/old-member",
    )
    .unwrap();
    assert!(cp3.script("! pgrep -x etcd && ! pgrep -x kube-apiserver && ! pgrep -x kubelet").is_ok());
    let nodes = cluster.set.kubectl_ok(&["get", "nodes", "-o", "name"]).unwrap();
    assert!(!nodes.contains("node/cp3"), "{nodes}");
    assert_eq!(cluster.hash_kv(&["cp1", "cp2"]).unwrap().len(), 2);

    // The way back that the plan tells, with the token and the key the test hosts have.
    let cp1 = cluster.set.host("cp1").unwrap();
    cp1.exec_ok(&[
        "kubeadm",
        "init",
        "phase",
        "upload-certs",
        "--upload-certs",
        "--config=/etc/kubeadm.yaml",
    ])
    .unwrap();
    cp3.exec_ok(&["kubeadm", "join", "--config=/etc/kubeadm.yaml", "--ignore-preflight-errors=all"]).unwrap();
    cluster.assert_works("joined").unwrap();
    assert!(cluster.has_mark("before").unwrap());
    let hashes = cluster.hash_kv(&THREE).unwrap();
    let ids: Vec<_> = hashes.iter().map(|h| h["header"]["cluster_id"].clone()).collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
}
