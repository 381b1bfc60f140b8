//! Who may know whom: the readers and the planner must build and test in seconds, without Kubernetes or gRPC.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// All packages that a workspace package is built from (not counting dev-dependencies), transitively.
fn closure(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let name_of: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["id"].as_str().unwrap(), p["name"].as_str().unwrap()))
        .collect();
    let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in nodes {
        let normal = node["deps"].as_array().unwrap().iter().filter(|dep| {
            dep["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].as_str() != Some("dev"))
        });
        edges.insert(node["id"].as_str().unwrap(), normal.map(|dep| dep["pkg"].as_str().unwrap()).collect());
    }
    let start = name_of.iter().find(|(_, name)| **name == package).map(|(id, _)| *id).unwrap();
    let (mut seen, mut todo) = (BTreeSet::new(), vec![start]);
    while let Some(id) = todo.pop() {
        if seen.insert(id) {
            todo.extend(&edges[id]);
        }
    }
    seen.into_iter().map(|id| name_of[id].to_owned()).collect()
}

// A reader that pulls in an async runtime, or a planner that can do I/O, has lost the property it was split off for.
#[test]
fn pure_crates_know_no_outside() {
    let outside = ["tokio", "tonic", "kube", "etcd-client", "rekindle-world", "rekindle-run", "rekindle"];
    for package in [
        "boltfile",
        "etcd-disk",
        "kube-storage",
        "rekindle-model",
        "rekindle-pki",
        "rekindle-diagnose",
        "rekindle-plan",
        "rekindle-runbook",
    ] {
        let known = closure(package);
        for name in outside {
            assert!(!known.contains(name), "{package} must not know {name}");
        }
    }
}

#[test]
fn the_layers_are_in_order() {
    assert!(!closure("boltfile").contains("etcd-disk"), "boltfile knows no etcd");
    assert!(!closure("etcd-disk").contains("kube-storage"), "etcd-disk knows no Kubernetes");
    assert!(!closure("rekindle-world").contains("rekindle-plan"), "the world knows no plans");
    let vault = closure("rekindle-vault");
    for above in ["rekindle-world", "rekindle-run", "rekindle-plan", "rekindle"] {
        assert!(!vault.contains(above), "the vault must not know {above}");
    }
    let resources = closure("rekindle-resources");
    for above in ["rekindle-run", "rekindle-plan", "rekindle-agent", "rekindle"] {
        assert!(!resources.contains(above), "resources must not know {above}");
    }
    assert!(!closure("rekindle-diagnose").contains("rekindle-plan"), "diagnosis knows no plans");
    for pure in ["rekindle-diagnose", "rekindle-plan"] {
        assert!(!closure(pure).contains("rekindle-pki"), "{pure} signs nothing");
    }
    assert!(!closure("rekindle-agent").contains("rekindle-run"), "the agent recovers nothing");
    assert!(closure("rekindle").contains("rekindle-world"), "the check sees edges at all");
}
