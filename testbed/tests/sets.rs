//! Every set loads, works as the cluster it says it is, and leaves nothing behind. Needs root and
//! `cargo xtask testbed build`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::process::Command;
use std::time::Duration;
use testbed::{Kind, Set, cache, net};

/// What a set must not leave: mounts and processes below the cache, its control groups, the bridge.
/// Called while the next set cannot start: the caller holds the lock.
fn assert_nothing_left() {
    let live = cache::live().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&format!("{live}/")), "mounts are left:\n{mounts}");
    assert!(!live.exists(), "{live} is left");
    let groups = testbed::cgroup::groups_of("cp1").unwrap();
    assert!(testbed::cgroup::pids(&groups).is_empty(), "processes are left");
    assert!(
        groups.iter().all(|group| !group.parent().unwrap().exists()),
        "control groups are left: {groups:?}"
    );
    assert!(!Command::new("ip").args(["link", "show", net::BRIDGE]).output().unwrap().status.success());
}

fn drop_and_check(set: Set) {
    drop(set);
    let _lock = cache::Lock::lane().unwrap();
    if testbed::set::Set::running().unwrap().is_none() {
        assert_nothing_left();
    }
}

// A test breaks one host in every way that takes its power: what was on disk comes back, the cluster with it.
#[test]
fn one_kubeadm_host_survives_power_off_cut_and_reboot() {
    let set = Set::load(Kind::Kubeadm1).unwrap();
    let cp1 = set.host("cp1").unwrap();
    set.fill(20).unwrap();
    cp1.write("/root/note", "written from outside").unwrap();
    assert_eq!(cp1.exec_ok(&["cat", "/root/note"]).unwrap(), "written from outside");
    assert_eq!(cp1.exec(&["false"]).unwrap().status.code(), Some(1));

    cp1.power_cut().unwrap();
    assert!(!cp1.is_running());
    assert!(cp1.path("/var/lib/etcd/member/snap/db").exists(), "the disk is readable while the host is off");
    cp1.boot().unwrap();
    let since = testbed::set::now().unwrap();
    set.wait_ready_since(&since, Duration::from_secs(200)).unwrap();
    cp1.reboot().unwrap();
    cp1.power_off().unwrap();
    cp1.boot().unwrap();
    set.wait_ready(Duration::from_secs(200)).unwrap();
    let found = set.kubectl_ok(&["get", "configmaps,secrets", "-n", "fill-0", "-o", "name"]).unwrap();
    assert_eq!(found.lines().filter(|name| name.contains("/object-")).count(), 20, "{found}");
    drop_and_check(set);
}

// Three members behind a balancer: losing one host leaves a working API, by its balanced address.
#[test]
fn three_kubeadm_hosts_lose_one_and_go_on() {
    let set = Set::load(Kind::Kubeadm3).unwrap();
    let names: Vec<_> = set.control_planes().map(|host| host.name.as_str()).collect();
    assert_eq!(names, ["cp1", "cp2", "cp3"]);
    set.host("cp1").unwrap().power_cut().unwrap();
    testbed::cmd::wait_for("the API through the balancer", Duration::from_secs(120), || {
        set.kubectl_ok(&["get", "nodes"]).map(Some)
    })
    .unwrap();
    drop_and_check(set);
}

// The same control plane as units: reached over ssh as an operator would, with the file the set gives.
#[test]
fn a_control_plane_of_units_answers_over_ssh() {
    let set = Set::load(Kind::Systemd1).unwrap();
    let config = set.ssh_config();
    let units = "systemctl is-active etcd kube-apiserver kube-controller-manager kube-scheduler kubelet";
    let output = Command::new("ssh").args(["-F", config.as_str(), "cp1", units]).output().unwrap();
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(answer.lines().filter(|line| *line == "active").count(), 5, "{answer}");
    assert!(!set.host("cp1").unwrap().path("/etc/kubernetes/manifests/etcd.yaml").exists());
    drop_and_check(set);
}
