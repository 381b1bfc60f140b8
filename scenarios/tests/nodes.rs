//! Nodes: the causes of a node that does not work are told apart on real hosts, and many at once are seen as one.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use scenarios::{Called, Cluster, binary, codes};
use serde_json::Value;
use std::time::{Duration, Instant};
use testbed::set::Kind;

/// Calls the binary on this machine with the administrator's kubeconfig.
fn node(cluster: &Cluster, args: &[&str]) -> Called {
    let mut command = testbed::cmd::command(binary().unwrap().as_str(), ["node"]);
    command.args(args).args(["--kubeconfig", cluster.set.admin_kubeconfig().as_str()]);
    command.args(["--state-dir", cluster.state_dir().as_str()]);
    Called::new(&testbed::cmd::output(&mut command).unwrap())
}

fn list(cluster: &Cluster, more: &[&str]) -> Value {
    node(cluster, &[&["list", "-o", "json"], more].concat()).json().unwrap()
}

fn state(list: &Value, name: &str) -> String {
    let verdicts = list["verdicts"].as_array().unwrap();
    verdicts.iter().find(|one| one["name"] == name).unwrap()["state"].as_str().unwrap().to_owned()
}

/// Lists until a node has the state.
fn until(cluster: &Cluster, name: &str, wanted: &str) -> Value {
    let start = Instant::now();
    loop {
        let seen = list(cluster, &[]);
        if state(&seen, name) == wanted {
            return seen;
        }
        assert!(start.elapsed() < Duration::from_secs(300), "{name} is not {wanted}: {seen}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

// A worker that has lost its way to the API servers, and a control-plane node whose kubelet is stopped, look the same to
// the API: Ready is Unknown. Each is told for what it is, from the API alone and from the host. When a third node's
// container runtime goes, they are seen as one cause, and nothing is drained. The worker's host goes off for good: that
// is told from the lost way.
#[test]
fn causes_are_told_apart_on_real_hosts() {
    let cluster = Cluster::load(Kind::Kubeadm3).unwrap();
    let healthy = list(&cluster, &[]);
    assert_eq!(codes(&healthy), Vec::<String>::new(), "{healthy}");
    assert_eq!(healthy["thresholds"]["gracePeriodSeconds"], 50);
    cluster.fault("w1", "ip route add blackhole 10.77.0.10/32").unwrap();
    cluster.fault("cp3", "systemctl stop kubelet").unwrap();
    until(&cluster, "w1", "cutOff");
    let seen = until(&cluster, "cp3", "kubeletDown");
    assert!(!codes(&seen).contains(&"RK-N10".to_owned()), "two of four are two: {seen}");
    let ssh = cluster.set.ssh_config();
    let told = list(&cluster, &["--host", "root@cp3", "--ssh-config", ssh.as_str()]);
    assert_eq!(state(&told, "cp3"), "kubeletDown");
    assert!(told["findings"].to_string().contains("kubelet.service"), "evidence of the host: {told}");

    cluster.fault("cp2", "systemctl stop containerd").unwrap();
    let seen = until(&cluster, "cp2", "runtimeDown");
    assert!(codes(&seen).contains(&"RK-N10".to_owned()), "three of four are one: {seen}");
    let refused = node(&cluster, &["drain", "cp1", "--dry-run"]).expect(5).unwrap();
    assert!(refused.stdout.contains("nothing is drained"), "{refused:?}");
    cluster.fault("cp2", "systemctl start containerd").unwrap();
    until(&cluster, "cp2", "ready");

    cluster.set.host("w1").unwrap().power_cut().unwrap();
    let seen = until(&cluster, "w1", "hostSilent");
    assert!(codes(&seen).contains(&"RK-N04".to_owned()), "{seen}");
}
