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

fn passed(report: &Value, scenario: &str) {
    assert_eq!((&report["outcome"], &report["scenario"]), (&json!("passed"), &json!(scenario)), "{report}");
    assert_eq!(report["runs"].as_array().unwrap().len(), 2, "{report}");
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

// Three nodes, from outside, over SSH: the quorum is lost and comes back; then one member is lost and replaced, while the
// API stays.
#[test]
fn three_nodes_are_broken_and_recovered_from_outside() {
    let cluster = Cluster::load(Kind::Kubeadm3).unwrap();
    cluster.mark("before").unwrap();
    label(&cluster);
    let state = cluster.state_dir();
    let file: Utf8PathBuf = state.join("drill.json");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::write(&file, config(&uid(&cluster)).to_string()).unwrap();
    let snapshot = cluster.snapshot_here("cp1").unwrap();
    let reports = state.join("drills");
    for scenario in ["quorum-lost", "member-lost"] {
        let args = ["--scenario", scenario, "--config", file.as_str(), "--snapshot", snapshot.as_str()];
        let more = ["--report-dir", reports.as_str(), "--yes", "-o", "json"];
        let called = cluster.from_outside("drill run", &["cp1", "cp2", "cp3"], &[&args[..], &more].concat());
        passed(&called.unwrap().expect(0).unwrap().json().unwrap(), scenario);
        cluster.assert_works(scenario).unwrap();
        assert!(cluster.has_mark("before").unwrap());
    }
}
