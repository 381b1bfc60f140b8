//! Drills on living clusters: broken by a run that can be taken back, recovered by the ordinary way, measured and kept.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use camino::Utf8PathBuf;
use scenarios::Cluster;
use serde_json::{Value, json};
use testbed::set::Kind;

/// The operator's own configuration, which names the cluster.
fn config(uid: &str) -> Value {
    json!({
        "vault": "/nowhere", "cluster": "drilled", "signingKey": "/nowhere", "recipients": ["age1nobody"],
        "drill": {"identity": "/nowhere", "clusters": [uid]}, "targets": {"rtoSeconds": 600}
    })
}

fn uid(cluster: &Cluster) -> String {
    let get = ["get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"];
    String::from_utf8(cluster.set.kubectl(&get).unwrap().stdout).unwrap()
}

fn label(cluster: &Cluster) {
    let labelled =
        cluster.set.kubectl(&["label", "namespace", "kube-system", "rekindle.dev/drill=allowed"]).unwrap();
    assert!(labelled.status.success(), "{labelled:?}");
}

/// A cluster that may be broken from this machine: the configuration file, and where reports go.
fn allowed(cluster: &Cluster) -> (Utf8PathBuf, Utf8PathBuf) {
    label(cluster);
    let state = cluster.state_dir();
    let file = state.join("drill.json");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::write(&file, config(&uid(cluster)).to_string()).unwrap();
    (file, state.join("drills"))
}

fn passed(report: &Value, scenario: &str) {
    assert_eq!((&report["outcome"], &report["scenario"]), (&json!("passed"), &json!(scenario)), "{report}");
    let runs = if scenario == "node-lost" { 3 } else { 2 };
    assert_eq!(report["runs"].as_array().unwrap().len(), runs, "{report}");
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["result"] == "passed"), "{report}");
    assert!(report["rtoVerifiedMs"].as_u64().unwrap() > 0, "{report}");
}

// One node. A cluster without the label is not touched, nor one that the configuration does not name. With both, its data
// is lost and restored from the backup: what was written after it is gone, and the report says how much that was. What was
// broken lies aside still. Then its manifest goes astray, and then all certificates expire: nothing is lost. All drills stand
// in the history.
#[test]
fn one_node_is_broken_and_recovered() {
    let cluster = Cluster::load(Kind::Kubeadm1).unwrap();
    let host = cluster.set.host("cp1").unwrap();
    cluster.mark("early").unwrap();
    cluster.snapshot("cp1", "/backup/snap.db").unwrap();
    host.write("/etc/drill.json", config(&uid(&cluster)).to_string().as_bytes()).unwrap();
    host.write("/etc/other.json", config("0000").to_string().as_bytes()).unwrap();
    let drill = |config: &str, scenario: &str, code: i32| {
        let args =
            ["drill", "run", "--scenario", scenario, "--config", config, "--snapshot", "/backup", "--yes"];
        cluster
            .on("cp1", &[&args[..], &["-o", "json"]].concat())
            .unwrap()
            .expect(code)
            .unwrap()
            .json()
            .unwrap()
    };
    let refused = drill("/etc/drill.json", "stopped", 5);
    assert!(refused.to_string().contains("does not carry the label"), "{refused}");
    label(&cluster);
    let refused = drill("/etc/other.json", "stopped", 5);
    assert!(refused.to_string().contains("does not allow drills"), "{refused}");
    assert!(cluster.has_mark("early").unwrap());
    cluster.mark("late").unwrap();

    let report = drill("/etc/drill.json", "data-lost", 0);
    passed(&report, "data-lost");
    assert!(report["rpo"]["lostMs"].as_i64().unwrap() > 0, "{report}");
    cluster.assert_works("after").unwrap();
    assert!(cluster.has_mark("early").unwrap());
    assert!(!cluster.has_mark("late").unwrap(), "the data was not lost");
    let aside = host.script("ls -d /var/lib/rekindle-*-etcd/old-member/snap/db").unwrap();
    assert!(!aside.is_empty(), "what the drill took away is kept");

    label(&cluster);
    let report = drill("/etc/drill.json", "stopped", 0);
    passed(&report, "stopped");
    assert!(cluster.has_mark("after").unwrap(), "nothing was to be lost");

    let report = drill("/etc/drill.json", "certificates-expired", 0);
    passed(&report, "certificates-expired");
    let cause =
        report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "the cause was found");
    assert!(cause.unwrap()["detail"].as_str().unwrap().contains("RK-P01"), "{report}");
    std::fs::write(cluster.set.admin_kubeconfig(), host.read("/etc/kubernetes/admin.conf").unwrap()).unwrap();
    cluster.assert_works("renewed").unwrap();
    assert!(cluster.has_mark("after").unwrap(), "nothing was to be lost");
    let history = cluster.on("cp1", &["drill", "history", "-o", "json"]).unwrap().expect(0).unwrap();
    let drills = history.json().unwrap()["drills"].as_array().unwrap().clone();
    assert!(drills.len() == 3 && drills.iter().all(|drill| drill["outcome"] == "passed"), "{drills:?}");
}

// The same where systemd units run the control plane: its data is lost and restored, then a unit is stopped and started.
#[test]
fn units_are_broken_and_recovered() {
    let cluster = Cluster::load(Kind::Systemd1).unwrap();
    cluster.mark("early").unwrap();
    cluster.snapshot("cp1", "/backup/snap.db").unwrap();
    let host = cluster.set.host("cp1").unwrap();
    host.write("/etc/drill.json", config(&uid(&cluster)).to_string().as_bytes()).unwrap();
    for scenario in ["data-lost", "stopped"] {
        // the restored data is of before the label
        label(&cluster);
        let args = ["drill", "run", "--scenario", scenario, "--config", "/etc/drill.json"];
        let more = ["--snapshot", "/backup", "--yes", "-o", "json"];
        let called = cluster.on("cp1", &[&args[..], &more].concat()).unwrap().expect(0).unwrap();
        passed(&called.json().unwrap(), scenario);
        cluster.assert_works(scenario).unwrap();
        assert!(cluster.has_mark("early").unwrap());
    }
    assert!(cluster.has_mark("data-lost").unwrap(), "a stopped unit lost data");
}

// Three nodes, from outside, over SSH: the quorum is lost and comes back; then one member is lost and replaced, while the
// API stays.
#[test]
fn three_nodes_are_broken_and_recovered_from_outside() {
    let cluster = Cluster::load(Kind::Kubeadm3).unwrap();
    cluster.mark("before").unwrap();
    let (file, reports) = allowed(&cluster);
    let snapshot = cluster.snapshot_here("cp1").unwrap();
    for scenario in ["quorum-lost", "member-lost"] {
        let args = ["--scenario", scenario, "--config", file.as_str(), "--snapshot", snapshot.as_str()];
        let more = ["--report-dir", reports.as_str(), "--yes", "-o", "json"];
        let called = cluster.from_outside("drill run", &["cp1", "cp2", "cp3"], &[&args[..], &more].concat());
        passed(&called.unwrap().expect(0).unwrap().json().unwrap(), scenario);
        cluster.assert_works(scenario).unwrap();
        assert!(cluster.has_mark("before").unwrap());
    }
}

// A worker runs three pods when its power is cut, by a command of the operator's. They come back on other nodes, and the
// worker into service.
#[test]
fn a_worker_is_lost_and_its_pods_come_back() {
    let cluster = Cluster::load(Kind::Kubeadm3).unwrap();
    let (file, reports) = allowed(&cluster);
    let nodes = |what: &str| cluster.set.kubectl_ok(&[what, "cp1", "cp2", "cp3"]).unwrap();
    nodes("cordon");
    let image = format!("--image={}", testbed::image::pause_name().unwrap());
    cluster.set.kubectl_ok(&["create", "deployment", "web", &image, "--replicas=3"]).unwrap();
    let ready = ["get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}"];
    testbed::cmd::wait_for("web runs", std::time::Duration::from_secs(120), || {
        Ok((cluster.set.kubectl_ok(&ready)?.trim() == "3").then_some(()))
    })
    .unwrap();
    nodes("uncordon");
    let power = Power::over(cluster.state_dir());
    let (off, on) = (power.command("off"), power.command("on"));
    let kubeconfig = cluster.set.admin_kubeconfig();
    let args = ["--config", file.as_str(), "--report-dir", reports.as_str()];
    let more = ["--kubeconfig", kubeconfig.as_str(), "--node", "w1", "--yes", "-o", "json"];
    let commands = ["--scenario", "node-lost", "--fence-command", &off, "--return-command", &on];
    let called = std::thread::scope(|scope| {
        let serving = scope.spawn(|| power.serve(&cluster));
        let called = cluster.from_outside("drill run", &[], &[&args[..], &commands, &more].concat());
        power.end();
        serving.join().unwrap();
        called
    });
    let report = called.unwrap().expect(0).unwrap().json().unwrap();
    passed(&report, "node-lost");
    let phases = report["phases"].as_array().unwrap();
    let noticed = phases.iter().find(|phase| phase["name"] == "notice").unwrap();
    assert!(noticed["tookMs"].as_u64().unwrap() > 10_000, "nobody knew before the lease ran out: {report}");
    let pods = ["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}"];
    let on = cluster.set.kubectl_ok(&pods).unwrap();
    assert!(on.split_whitespace().count() == 3 && !on.contains("w1"), "{on}");
    let taints = cluster.set.kubectl_ok(&["get", "node", "w1", "-o", "jsonpath={.spec.taints}"]).unwrap();
    assert!(!taints.contains("out-of-service"), "{taints}");
    cluster.assert_works("node-lost").unwrap();
}

/// The power supply of the test hosts, asked through files.
struct Power(Utf8PathBuf);

impl Power {
    fn over(state: Utf8PathBuf) -> Self {
        let script = "#!/bin/sh\ntouch $1-$2\nfor i in $(seq 600); do test -e $1-$2 || exit 0; sleep 0.1; done; exit 1\n";
        std::fs::write(state.join("power.sh"), script).unwrap();
        Self(state)
    }

    fn command(&self, what: &str) -> String {
        format!("/bin/sh {0}/power.sh {0}/{what} {{node}}", self.0)
    }

    fn end(&self) {
        std::fs::write(self.0.join("power-end"), "").unwrap();
    }

    /// Does what is asked for until the end.
    fn serve(&self, cluster: &Cluster) {
        let host = cluster.set.host("w1").unwrap();
        while !self.0.join("power-end").exists() {
            let (off, on) = (self.0.join("off-w1"), self.0.join("on-w1"));
            if off.exists() {
                host.power_cut().unwrap();
                std::fs::remove_file(off).unwrap();
            } else if on.exists() {
                host.boot().unwrap();
                std::fs::remove_file(on).unwrap();
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}
