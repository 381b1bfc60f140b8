//! Nodes: the causes of a node that does not work are told apart on real hosts, many at once are seen as one, and a
//! control-plane node that is lost is removed with its etcd member.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use scenarios::expired::expire;
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

/// The same with what is read on the node's host.
fn on_host(cluster: &Cluster, name: &str) -> Value {
    let (host, ssh) = (format!("root@{name}"), cluster.set.ssh_config());
    list(cluster, &["--host", &host, "--ssh-config", ssh.as_str()])
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

// A worker that has lost its way to the API servers, and a control-plane node whose kubelet is frozen, look the same to
// the API: Ready is Unknown. Each is told for what it is, from the API alone and from the host; and a kubelet that is
// stopped from one that is frozen. When a third node's container runtime goes, they are seen as one cause, and nothing
// is drained.
fn told_apart(cluster: &Cluster) {
    let healthy = list(cluster, &[]);
    assert_eq!(codes(&healthy), Vec::<String>::new(), "{healthy}");
    assert_eq!(healthy["thresholds"]["gracePeriodSeconds"], 50);
    cluster.fault("w1", "ip route add blackhole 10.77.0.10/32").unwrap();
    cluster.fault("cp3", "pkill -STOP -x kubelet").unwrap();
    until(cluster, "w1", "cutOff");
    let seen = until(cluster, "cp3", "kubeletFrozen");
    assert!(!codes(&seen).contains(&"RK-N10".to_owned()), "two of four are two: {seen}");
    let told = on_host(cluster, "cp3");
    assert_eq!(state(&told, "cp3"), "kubeletFrozen", "{told}");
    assert!(told["findings"].to_string().contains("state T"), "evidence of the host: {told}");
    // killed first: one that is woken to be ended says for a moment that its runtime is down
    cluster.fault("cp3", "pkill -KILL -x kubelet; systemctl stop kubelet").unwrap();
    assert_eq!(state(&list(cluster, &[]), "cp3"), "kubeletDown");
    let told = on_host(cluster, "cp3");
    assert_eq!(state(&told, "cp3"), "kubeletDown", "{told}");
    assert!(told["findings"].to_string().contains("kubelet.service"), "evidence of the host: {told}");

    cluster.fault("cp2", "systemctl stop containerd").unwrap();
    let seen = until(cluster, "cp2", "runtimeDown");
    assert!(codes(&seen).contains(&"RK-N10".to_owned()), "three of four are one: {seen}");
    let refused = node(cluster, &["drain", "cp1", "--dry-run"]).expect(5).unwrap();
    assert!(refused.stdout.contains("nothing is drained"), "{refused:?}");
    cluster.fault("cp2", "systemctl start containerd").unwrap();
    until(cluster, "cp2", "ready");
}

// The worker is let back, and the disk that its kubelet works on runs full: the node works, under pressure, as it says
// itself. Then its kubelet's client certificate ends: from outside its kubelet is just down, on the host the certificate
// is named. Returns before the API knows of the latter.
fn pressed_and_expired(cluster: &Cluster) {
    cluster.fault("w1", "ip route del blackhole 10.77.0.10/32").unwrap();
    let full = "systemctl stop kubelet; cp -a /var/lib/kubelet /run/kubelet-kept
        mount -t tmpfs -o size=64m kubeletfs /var/lib/kubelet; cp -a /run/kubelet-kept/. /var/lib/kubelet/
        systemctl start kubelet; dd if=/dev/zero of=/var/lib/kubelet/full bs=1M 2>/dev/null || true";
    cluster.fault("w1", full).unwrap();
    let seen = until(cluster, "w1", "pressure");
    let findings = seen["findings"].to_string();
    assert!(findings.contains("RK-N07") && findings.contains("KubeletHasDiskPressure"), "{findings}");

    cluster.fault("w1", "systemctl stop kubelet; umount /var/lib/kubelet").unwrap();
    expire(cluster, cluster.set.host("w1").unwrap()).unwrap();
    cluster.fault("w1", "systemctl start kubelet --no-block").unwrap();
}

// A control-plane node whose kubelet is down is to be removed while another etcd member hangs: refused, for without it
// no quorum would stay. The other member is back, and the node's host is lost for good: now it is removed, with its etcd
// member and its address. The cluster goes on with two.
fn removed(cluster: &Cluster) {
    let ssh = cluster.set.ssh_config();
    let remove = || {
        let hosts = ["--host", "root@cp1", "--host", "root@cp2", "--ssh-config", ssh.as_str()];
        node(cluster, &[&["remove", "cp3", "--yes"], &hosts[..]].concat())
    };
    cluster.fault("cp2", "pkill -STOP -x etcd").unwrap();
    answers(cluster);
    let refused = remove().expect(5).unwrap();
    assert!(refused.stdout.contains("quorum would not stay"), "{refused:?}");
    cluster.fault("cp2", "pkill -CONT -x etcd").unwrap();
    answers(cluster);

    let address = cluster.set.host("cp3").unwrap().ip.to_string();
    cluster.set.host("cp3").unwrap().power_cut().unwrap();
    answers(cluster);
    remove().expect(0).unwrap();
    let members = cluster.etcdctl("cp1", &["member", "list", "-w", "json"]).unwrap();
    let names: Vec<&str> =
        members["members"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(names.len() == 2 && !names.contains(&"cp3"), "{members}");
    let gone = cluster.set.kubectl(&["get", "node", "cp3"]).unwrap();
    assert!(String::from_utf8_lossy(&gone.stderr).contains("NotFound"), "{gone:?}");
    // while etcd had no leader the other API servers could not write theirs; they do so every ten seconds
    let leases = testbed::cmd::wait_for("the other addresses", Duration::from_secs(60), || {
        let get = ["get", "--prefix", "--keys-only", "/registry/masterleases/", "-w", "json"];
        let leases = cluster.etcdctl("cp1", &get)?;
        Ok((leases["count"].as_u64() >= Some(1)).then_some(leases))
    })
    .unwrap();
    let own = STANDARD.encode(format!("/registry/masterleases/{address}"));
    assert!(!leases.to_string().contains(&own), "{leases}");
    assert!(cluster.has_mark("before").unwrap());
    cluster.mark("after").unwrap();
}

/// Waits until an API server behind the balancer reads from etcd again.
fn answers(cluster: &Cluster) {
    let asked = || Ok(cluster.has_mark("before")?.then_some(()));
    testbed::cmd::wait_for("the API answers", Duration::from_secs(180), asked).unwrap();
}

#[test]
fn causes_are_told_apart_on_real_hosts_and_a_lost_node_is_removed() {
    let cluster = Cluster::load(Kind::Kubeadm3).unwrap();
    cluster.mark("before").unwrap();
    told_apart(&cluster);
    pressed_and_expired(&cluster);
    removed(&cluster);
    until(&cluster, "w1", "kubeletDown");
    let told = on_host(&cluster, "w1");
    assert_eq!(state(&told, "w1"), "certificateExpired", "{told}");
    assert!(told["findings"].to_string().contains("kubelet-client-current.pem"), "{told}");

    cluster.set.host("w1").unwrap().power_cut().unwrap();
    let seen = until(&cluster, "w1", "hostSilent");
    assert!(codes(&seen).contains(&"RK-N04".to_owned()), "{seen}");
}
