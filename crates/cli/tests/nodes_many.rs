//! Many nodes at once: drained on a real control plane whose scheduler, controllers and budgets work against the drain,
//! as they do in production; only the kubelets are played (by kwok).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "common/cluster.rs"]
#[allow(dead_code)] // each test file uses its part
mod cluster;

use camino::Utf8Path;
use cluster::Site;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Stdio;
use testbed::fleet::{Fleet, node_name};
use testbed::plane::Pace;

/// Half of the Deployments may lack one pod of 30 at a time, and have about ten on the nodes that are drained.
const FLEET: Fleet = Fleet { nodes: 30, deployments: 10, replicas: 30, guarded: 5, min_available: 29 };
const DRAINED: usize = 10;

fn on(site: &Site, nodes: &BTreeSet<String>) -> usize {
    let pods = site.list("/api/v1/namespaces/default/pods");
    let node =
        |pod: &Value| pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default().to_owned();
    pods.iter().filter(|pod| nodes.contains(&node(pod))).count()
}

fn cordoned(site: &Site) -> usize {
    let nodes = site.list("/api/v1/nodes");
    nodes.iter().filter(|node| node.pointer("/spec/unschedulable") == Some(&json!(true))).count()
}

// Ten of thirty nodes are drained at once, and in the middle of it rekindle is killed. Nobody is harmed: what was evicted
// runs elsewhere, the rest runs on, the nodes are cordoned. `resume` takes the same run to its end. At no moment had an
// application fewer healthy pods than its budget demands. `undo` makes the nodes schedulable again.
#[test]
fn a_drain_of_many_nodes_survives_its_own_death() {
    let folder = tempfile::tempdir().unwrap();
    let plane = FLEET.start(Utf8Path::from_path(folder.path()).unwrap(), Pace::AtOnce).unwrap();
    let site = Site::over(folder, plane);
    let names: BTreeSet<String> = (0..DRAINED).map(node_name).collect();
    let mut drain = vec!["node", "drain", "--yes"];
    drain.extend(names.iter().map(String::as_str));
    let list = site.json(&["node", "list"]);
    assert_eq!(list["verdicts"].as_array().unwrap().len(), FLEET.nodes);
    assert_eq!(list["findings"], json!([]));

    let pods = on(&site, &names);
    assert!(pods > DRAINED, "the scheduler spreads them: {pods}");
    let watch = FLEET.watch(&site.plane).unwrap();
    let mut killed = site.command(&drain).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    site.until("half of the pods have left", || on(&site, &names) <= pods / 2);
    killed.kill().unwrap();
    assert!(!killed.wait().unwrap().success());
    let left = on(&site, &names);
    assert!(left > 0, "it was killed in the middle");
    assert_eq!(cordoned(&site), DRAINED);

    let run = site.newest_run();
    let said = site.ends(0, &["runs", "resume", &run, "--yes"]);
    assert!(said.contains("every pod that was to leave its node is gone"), "{said}");
    assert_eq!(on(&site, &names), 0);
    FLEET.wait_settled(&site.plane).unwrap();
    let (fewest, _) = watch.end(&site.plane, &[]).unwrap();
    assert_eq!(fewest, FLEET.min_available, "one at a time, and never two");

    site.ends(0, &["runs", "undo", &run, "--yes"]);
    assert_eq!(cordoned(&site), 0);
}
