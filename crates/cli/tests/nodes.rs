//! Nodes drained, fenced and removed on a real control plane: evictions, budgets, controllers and garbage collection are
//! Kubernetes' own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "common/cluster.rs"]
#[allow(dead_code)] // each test file uses its part
mod cluster;

use cluster::{Hands, Site, budget, workload};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const PODS: &str = "/api/v1/namespaces/default/pods";

fn at<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let ready = conditions.iter().any(|one| at(one, "/type") == "Ready" && at(one, "/status") == "True");
    ready && at(pod, "/metadata/deletionTimestamp").is_empty()
}

fn on(site: &Site, node: &str) -> Vec<String> {
    let pods = site.list(PODS);
    let here = pods.iter().filter(|pod| at(pod, "/spec/nodeName") == node);
    here.map(|pod| at(pod, "/metadata/name").to_owned()).collect()
}

fn ready(site: &Site, app: &str) -> usize {
    site.list(&format!("{PODS}?labelSelector=app%3D{app}")).iter().filter(|pod| is_ready(pod)).count()
}

fn is_cordoned(site: &Site, node: &str) -> bool {
    site.get(&format!("/api/v1/nodes/{node}")).unwrap().pointer("/spec/unschedulable") == Some(&json!(true))
}

/// Counts how few pods of an app were ready at any time.
fn watch(site: &Site, app: &'static str) -> (Arc<AtomicUsize>, Arc<AtomicBool>) {
    let (fewest, stop) = (Arc::new(AtomicUsize::new(usize::MAX)), Arc::new(AtomicBool::new(false)));
    let (cluster, seen, ended) = (site.cluster.clone(), fewest.clone(), stop.clone());
    site.runtime.spawn(async move {
        let path = format!("{PODS}?labelSelector=app%3D{app}");
        while !ended.load(Ordering::SeqCst) {
            if let Ok(pods) = cluster.list(&path).await {
                seen.fetch_min(pods.iter().filter(|pod| is_ready(pod)).count(), Ordering::SeqCst);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    (fewest, stop)
}

// Two nodes are drained at once. Without flags it is refused with every reason. With them, pods move as their budget
// allows (never fewer ready than it wants), those of a budget that permits nothing are left, named with it, and the run
// does not call itself done: exit 6. Once the budget is gone, `resume` finishes. `undo` makes schedulable again what was
// so before, and only that.
fn drains(site: &Site) {
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    site.patch("/api/v1/nodes/w3", &json!({"spec": {"unschedulable": true}}));
    for (name, replicas) in [("web", 6), ("pinned", 2), ("cache", 2)] {
        let volumes = if name == "cache" { json!([{"name": "scratch", "emptyDir": {}}]) } else { json!([]) };
        site.make(deployments, &workload("Deployment", name, replicas, &volumes));
    }
    site.make(budgets, &budget("web", 4));
    site.make(budgets, &budget("pinned", 2));
    let bare = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare"}, "spec": {"nodeName": "w1",
        "containers": [{"name": "main", "image": "none"}]}});
    site.make(PODS, &bare);
    site.until("pods run on w1 and w2", || {
        ready(site, "web") == 6 && ready(site, "pinned") == 2 && ready(site, "cache") == 2
    });
    let counted = |name: &str, healthy: i64| {
        let budget = site.get(&format!("{budgets}/{name}")).unwrap();
        budget.pointer("/status/currentHealthy").and_then(Value::as_i64) == Some(healthy)
    };
    site.until("budgets are counted", || counted("web", 6) && counted("pinned", 2));
    site.patch("/api/v1/nodes/w3", &json!({"spec": {"unschedulable": null}}));
    // cordoned by somebody else, for another reason
    site.patch("/api/v1/nodes/w2", &json!({"spec": {"unschedulable": true}}));

    let refused = site.ends(5, &["node", "drain", "w1", "w2", "--dry-run"]);
    assert!(refused.contains("default/bare") && refused.contains("--force"), "{refused}");
    assert!(refused.contains("--delete-emptydir-data"), "{refused}");
    assert!(!is_cordoned(site, "w1"), "a dry run changes nothing");

    let flags = ["--force", "--delete-emptydir-data", "--stall-timeout", "60s"];
    let plan = site.json(&[&["node", "drain", "w1", "w2", "--dry-run"], &flags[..]].concat());
    let pods = plan["steps"].as_array().unwrap().last().unwrap()["step"]["pods"].as_array().unwrap().clone();
    let fate = |name: &str| {
        let pod = pods.iter().find(|pod| at(pod, "/pod/name").starts_with(name)).unwrap();
        at(pod, "/fate").to_owned()
    };
    assert_eq!(
        (fate("bare"), fate("web"), fate("pinned")),
        ("lost".into(), "moves".into(), "blocked".into())
    );

    let (fewest, stop) = watch(site, "web");
    let said = site.ends(6, &[&["node", "drain", "w1", "w2", "--yes"], &flags[..]].concat());
    stop.store(true, Ordering::SeqCst);
    let fewest = fewest.load(Ordering::SeqCst);
    assert!((4..=6).contains(&fewest), "the budget of web wants 4 ready pods, there were {fewest}");
    assert!(said.contains("PodDisruptionBudget default/pinned"), "{said}");
    let left: Vec<String> = [on(site, "w1"), on(site, "w2")].concat();
    assert!(left.len() == 2 && left.iter().all(|name| name.starts_with("pinned")), "{left:?}");
    assert!(site.get(&format!("{PODS}/bare")).is_none());

    site.delete(&format!("{budgets}/pinned"));
    let run = site.newest_run();
    let done = site.ends(0, &["runs", "resume", &run, "--yes"]);
    assert!(done.contains("every pod that was to leave its node is gone"), "{done}");
    assert!(on(site, "w1").is_empty() && on(site, "w2").is_empty());
    site.ends(0, &["runs", "undo", &run, "--yes"]);
    assert!(!is_cordoned(site, "w1") && is_cordoned(site, "w2"), "w2 was cordoned before");
    site.ends(0, &["node", "uncordon", "w2", "--yes"]);
    assert!(!is_cordoned(site, "w2"));
}

// A node's host goes off. It is named as not reporting. A pod of a Deployment on it is let go by force; one of a
// StatefulSet only after the node is fenced, and a node that reports can't be fenced. The fence command is the proof: when
// it fails, nothing is tainted. Then the pods move; the node comes back, is let in again, and is removed at last.
fn fences(site: &Site, hands: &Hands) {
    let node = "/api/v1/nodes/w3";
    site.patch("/api/v1/nodes/w1", &json!({"spec": {"unschedulable": true}}));
    site.patch("/api/v1/nodes/w2", &json!({"spec": {"unschedulable": true}}));
    let sets = "/apis/apps/v1/namespaces/default/statefulsets";
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    site.make(sets, &workload("StatefulSet", "db", 1, &json!([])));
    site.make(deployments, &workload("Deployment", "late", 1, &json!([])));
    site.until("they run on w3", || ready(site, "db") == 1 && ready(site, "late") == 1);
    for name in ["w1", "w2"] {
        site.patch(&format!("/api/v1/nodes/{name}"), &json!({"spec": {"unschedulable": null}}));
    }
    let refused = site.ends(5, &["node", "fence", "w3", "--attest-off", "--yes"]);
    assert!(refused.contains("reports that it is Ready"), "{refused}");

    hands.kill("w3");
    let state = |name: &str| {
        let list = site.json(&["node", "list"]);
        let verdicts = list["verdicts"].as_array().unwrap().clone();
        let one = verdicts.into_iter().find(|one| one["name"] == name).unwrap();
        (
            one["state"].as_str().unwrap().to_owned(),
            list["thresholds"]["gracePeriodSeconds"].as_u64().unwrap(),
        )
    };
    site.until("w3 does not report", || state("w3").0 != "ready");
    assert_eq!(state("w1").0, "ready");
    site.until("w3 is marked", || {
        let taints = site.get(node).unwrap().pointer("/spec/taints").cloned().unwrap_or_default();
        taints.to_string().contains("unreachable")
    });
    let db = format!("{PODS}/db-0");
    let late = on(site, "w3").into_iter().find(|name| name.starts_with("late")).unwrap();
    site.delete(&db);
    site.delete(&format!("{PODS}/{late}"));
    site.until("both are past their grace period", || {
        let found = site.json(&["unstick"]);
        let all = found["stuck"].to_string();
        all.contains("db-0") && all.contains(&late)
    });
    let refused = site.ends(5, &["unstick", "pod", "db-0", "--yes"]);
    assert!(refused.contains("rekindle node fence w3"), "{refused}");
    site.ends(0, &["unstick", "pod", &late, "-n", "default", "--yes"]);
    assert!(site.get(&format!("{PODS}/{late}")).is_none());

    let failed = site.ends(6, &["node", "fence", "w3", "--fence-command", "false {node}", "--yes"]);
    assert!(failed.contains("not proved"), "{failed}");
    assert!(!site.get(node).unwrap().to_string().contains("out-of-service\""), "no taint without proof");
    // the command stands in the configuration, with a word that has blanks
    let config = site.dir.join("agent.yaml");
    let text = "vault: /v\ncluster: c\nsigningKey: /k\nrecipients: [age1x]\n\
                nodes: {fenceCommand: \"sh -c 'test {node} = w3'\"}\n";
    std::fs::write(&config, text).unwrap();
    site.ends(0, &["node", "fence", "w3", "--config", config.as_str(), "--yes"]);
    assert!(on(site, "w3").is_empty());
    site.until("the StatefulSet's pod runs elsewhere", || ready(site, "db") == 1);

    // a plan to fence it again is made while it is off, and carried out when it is back: nothing is tainted
    let attested = site.json(&["node", "fence", "w3", "--attest-off", "--dry-run"]);
    let file = site.dir.join("attested.json");
    std::fs::write(&file, attested.to_string()).unwrap();
    hands.revive("w3");
    site.until("w3 is back", || state("w3").0 == "ready");
    let list = site.json(&["node", "list"]);
    assert!(list["findings"].to_string().contains("RK-N09"), "the taint is left over: {list}");
    site.ends(0, &["node", "fence", "w3", "--release", "--yes"]);
    assert!(!site.get(node).unwrap().to_string().contains("out-of-service\""));
    let refused = site.ends(6, &["apply", file.as_str(), "--yes"]);
    assert!(refused.contains("it has just renewed its lease"), "{refused}");
    assert!(!site.get(node).unwrap().to_string().contains("out-of-service\""), "it runs");

    site.ends(0, &["node", "drain", "w3", "--yes", "--force", "--delete-emptydir-data"]);
    hands.kill("w3");
    site.ends(0, &["node", "remove", "w3", "--yes"]);
    assert!(site.get(node).is_none());
    let run = site.newest_run();
    site.ends(0, &["runs", "undo", &run, "--yes"]);
    assert!(site.get(node).is_some(), "the Node object is put back");
}

// One control plane for both stories, with exactly the rights that are shipped for them; then the plan of one cluster is refused by another: its kube-system is not the one.
#[test]
fn nodes_are_drained_fenced_and_removed() {
    let mut site = Site::start(&["--node-monitor-grace-period=20s", "--node-monitor-period=2s"]);
    site.limit_to("nodes");
    let hands = Hands::on(&site, &["w1", "w2", "w3"]);
    drains(&site);
    fences(&site, &hands);
    let plan = site.json(&["node", "drain", "w1", "--dry-run", "--force", "--delete-emptydir-data"]);
    let file = site.dir.join("plan.json");
    let mut other = plan.clone();
    other["cluster"]["kubeSystemUid"] = "another".into();
    std::fs::write(&file, other.to_string()).unwrap();
    let refused = site.ends(1, &["apply", file.as_str(), "--yes"]);
    assert!(refused.contains("another cluster"), "{refused}");
    // between plan and consent a pod comes to the node: it is not in the plan, and the node is not called empty
    std::fs::write(&file, plan.to_string()).unwrap();
    let late = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "newcomer"}, "spec": {"nodeName": "w1",
        "containers": [{"name": "main", "image": "none"}]}});
    site.make(PODS, &late);
    let left = site.ends(6, &["apply", file.as_str(), "--yes"]);
    assert!(left.contains("default/newcomer") && left.contains("rekindle node drain w1"), "{left}");
    assert_eq!(on(&site, "w1"), ["newcomer"]);
    site.ends(0, &["node", "drain", "w1", "--force", "--delete-emptydir-data", "--yes"]);
    assert!(is_cordoned(&site, "w1") && on(&site, "w1").is_empty());
}
