//! Nodes and pods by the thousand on a [`Plane`] with simulated nodes, and a watch that tells where pods are and whether a
//! budget was ever broken.
//!
//! Deployments, their pods, budgets, scheduling and evictions are Kubernetes' own; only the kubelets are played (by kwok).

use crate::fill::{Proxy, create};
use crate::plane::{Options, Pace, Plane};
use crate::{cache, cmd, ports};
use anyhow::{Context, Result, ensure};
use camino::Utf8Path;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the pods of a whole fleet may take to run.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Label of the pods that a budget is over.
const GUARDED: &str = "guarded";

/// What is made. Nodes are called `node-0000`, ...; Deployments `web-0000`, ... in the namespace `default`.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    /// Nodes.
    pub nodes: usize,
    /// Deployments.
    pub deployments: usize,
    /// Pods of each.
    pub replicas: usize,
    /// The first so many Deployments have a PodDisruptionBudget.
    pub guarded: usize,
    /// Pods of a guarded Deployment that must stay healthy.
    pub min_available: usize,
}

impl Fleet {
    /// A plane in a folder, filled, with every pod running and every budget counted. A folder that holds the filled etcd
    /// of an earlier one is taken as it is.
    ///
    /// # Errors
    /// When a component is not built or does not become ready, or the pods do not run.
    pub fn start(&self, dir: &Utf8Path, pace: Pace) -> Result<Plane> {
        let filled = dir.join("etcd").exists();
        // The rates that controllers allow themselves by default would be what is waited for; and a machine that is busy
        // making pods renews leases late.
        let flags = [
            "--kube-api-qps=2000",
            "--kube-api-burst=4000",
            "--concurrent-replicaset-syncs=20",
            "--node-monitor-grace-period=15m",
        ];
        let plane = Plane::start(
            dir,
            &Options {
                controllers: true,
                controller_manager: flags.map(str::to_owned).to_vec(),
                simulated_nodes: Some(pace),
                ..Options::default()
            },
        )?;
        if !filled {
            self.fill(&plane, &dir.join("proxy.sock"))?;
        }
        self.wait_settled(&plane)?;
        Ok(plane)
    }

    fn fill(&self, plane: &Plane, socket: &Utf8Path) -> Result<()> {
        let _proxy = Proxy::start(plane.kubectl_command()?, socket)?;
        create(socket, self.nodes, |number| ("/api/v1/nodes".into(), node(number)))?;
        create(socket, self.deployments, |number| {
            ("/apis/apps/v1/namespaces/default/deployments".into(), self.deployment(number))
        })?;
        // budgets last: each pod that begins to run is counted by the one over it
        self.wait_running(plane)?;
        create(socket, self.guarded, |number| {
            ("/apis/policy/v1/namespaces/default/poddisruptionbudgets".into(), self.budget(number))
        })
    }

    /// Waits until every pod is ready and every budget permits what it can.
    ///
    /// # Errors
    /// When that does not come.
    pub fn wait_settled(&self, plane: &Plane) -> Result<()> {
        self.wait_running(plane)?;
        cmd::wait_for("every budget to be counted", PATIENCE, || {
            let allowed = numbers(plane, "poddisruptionbudgets", "disruptionsAllowed")?;
            let spare = self.replicas - self.min_available;
            let counted = allowed.iter().filter(|one| **one == spare).count();
            ensure!(counted == self.guarded, "{counted} budgets are counted");
            Ok(Some(()))
        })
    }

    fn wait_running(&self, plane: &Plane) -> Result<()> {
        cmd::wait_for("every pod to run", PATIENCE, || {
            // asking again and again costs the machine that makes them
            std::thread::sleep(Duration::from_millis(self.pods() as u64 / 10));
            let ready: usize = numbers(plane, "deployments", "readyReplicas")?.iter().sum();
            ensure!(ready == self.pods(), "{ready} pods are ready");
            Ok(Some(()))
        })
    }

    /// All pods.
    #[must_use]
    pub fn pods(&self) -> usize {
        self.deployments * self.replicas
    }

    fn deployment(&self, number: usize) -> Value {
        let name = format!("web-{number:04}");
        let labels = json!({"app": name, GUARDED: (number < self.guarded).to_string()});
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
            "replicas": self.replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": labels}, "spec": {
                "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 5,
                "containers": [{"name": "main", "image": "none"}]}}}})
    }

    fn budget(&self, number: usize) -> Value {
        let name = format!("web-{number:04}");
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
            "spec": {"minAvailable": self.min_available, "selector": {"matchLabels": {"app": name}}}})
    }

    /// Watches all pods from now on; all of them must be running.
    ///
    /// # Errors
    /// When kubectl does not list them all.
    pub fn watch(&self, plane: &Plane) -> Result<BudgetWatch> {
        BudgetWatch::start(plane, self.pods())
    }
}

/// A number of each object's status.
fn numbers(plane: &Plane, what: &str, field: &str) -> Result<Vec<usize>> {
    let path = format!("jsonpath={{.items[*].status.{field}}}");
    let said = plane.kubectl(&["get", what, "-n", "default", "-o", &path])?;
    said.split_whitespace().map(|word| word.parse().context("no number")).collect()
}

/// Name of the node with this number.
#[must_use]
pub fn node_name(number: usize) -> String {
    format!("node-{number:04}")
}

fn node(number: usize) -> Value {
    let name = node_name(number);
    let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{}", number % 3)});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
}

/// A watch over all pods: where they are, and after each change how many of each guarded Deployment are healthy, as the
/// disruption controller counts them (Ready, and not being deleted). Changes of one type come in the order of their revisions, so
/// each count was true of the store at one moment, and none is missed.
pub struct BudgetWatch {
    kubectl: Child,
    seen: Arc<Mutex<Counts>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

/// A pod: where it is, and whether it is a healthy one of a guarded Deployment.
struct Pod {
    node: String,
    healthy: bool,
}

#[derive(Default)]
struct Counts {
    /// By UID.
    pods: BTreeMap<String, Pod>,
    healthy: BTreeMap<String, usize>,
    /// Fewest at any time since all were there.
    fewest: BTreeMap<String, usize>,
    begun: bool,
    /// The marks seen on pods.
    marks: BTreeSet<String>,
}

impl BudgetWatch {
    fn start(plane: &Plane, pods: usize) -> Result<Self> {
        // type, Deployment, guarded, UID, node, deletion, mark, Ready: what may be empty stands behind a `-`
        let line = "jsonpath={.type} {.object.metadata.labels.app} {.object.metadata.labels.guarded} \
                    {.object.metadata.uid} -{.object.spec.nodeName} -{.object.metadata.deletionTimestamp} \
                    -{.object.metadata.annotations.mark} \
                    -{.object.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}";
        let mut command = plane.kubectl_command()?;
        // in one piece: of a list in pages kubectl prints the pages
        command.args(["get", "pods", "-n", "default", "-l", GUARDED, "--watch", "--output-watch-events"]);
        command.arg("--chunk-size=0");
        command.args(["-o", line]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut kubectl = command.spawn().context("cannot start kubectl")?;
        let output = kubectl.stdout.take().context("kubectl without output")?;
        let seen = Arc::new(Mutex::new(Counts::default()));
        let counts = seen.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                counts.lock().unwrap_or_else(PoisonError::into_inner).take(&line);
            }
        });
        let watch = Self { kubectl, seen, reader: Some(reader) };
        cmd::wait_for("the watch over all pods", PATIENCE, || {
            let mut counts = watch.counts();
            ensure!(counts.pods.len() == pods, "{} of {pods} pods", counts.pods.len());
            counts.begun = true;
            counts.fewest = counts.healthy.clone();
            Ok(Some(()))
        })?;
        Ok(watch)
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many pods there are on these nodes.
    #[must_use]
    pub fn on(&self, nodes: &[String]) -> usize {
        self.counts().pods.values().filter(|pod| nodes.contains(&pod.node)).count()
    }

    /// Ends the watch when it has seen all that has happened until now: the fewest healthy pods that any guarded
    /// Deployment had at any time, and how many pods are on these nodes.
    ///
    /// # Errors
    /// When the watch broke: then nothing is known.
    pub fn end(mut self, plane: &Plane, nodes: &[String]) -> Result<(usize, usize)> {
        // a pod that no controller makes, and no scheduler takes: the last that happens
        let mark = format!("seen-{}", ports::free());
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": mark, "namespace": "default",
            "labels": {"app": "mark", GUARDED: "false"}, "annotations": {"mark": mark}}, "spec": {
            "schedulerName": "none", "containers": [{"name": "main", "image": "none"}]}});
        let file = plane.dir().join("mark.json");
        cache::write(&file, pod.to_string())?;
        plane.kubectl(&["create", "-f", file.as_str()])?;
        let whole = cmd::wait_for("the watch to see the last change", PATIENCE, || {
            let seen = self.counts().marks.contains(&mark);
            let ended = self.kubectl.try_wait()?.is_some();
            Ok((seen || ended).then_some(seen))
        })?;
        ensure!(whole, "the watch over all pods broke: whether a budget was broken is not known");
        self.stop();
        plane.kubectl(&["delete", "--wait=false", "-f", file.as_str()])?;
        let fewest = self.counts().fewest.values().min().copied().context("no guarded Deployment")?;
        Ok((fewest, self.on(nodes)))
    }

    fn stop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for BudgetWatch {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Counts {
    fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let [kind, app, guarded, uid, node, deleted, mark, ready] = words.as_slice() else { return };
        if *mark != "-" {
            self.marks.insert(mark.trim_start_matches('-').to_owned());
        }
        let is_guarded = *guarded == "true";
        let healthy = is_guarded && *kind != "DELETED" && *deleted == "-" && *ready == "-True";
        let pod = Pod { node: node.trim_start_matches('-').to_owned(), healthy };
        let before = match *kind {
            "DELETED" => self.pods.remove(*uid),
            _ => self.pods.insert((*uid).to_owned(), pod),
        };
        if !is_guarded {
            return;
        }
        let was = before.is_some_and(|pod| pod.healthy);
        let count = self.healthy.entry((*app).to_owned()).or_default();
        match (was, healthy) {
            (false, true) => *count += 1,
            (true, false) => *count -= 1,
            _ => {}
        }
        if self.begun {
            let fewest = self.fewest.entry((*app).to_owned()).or_insert(*count);
            *fewest = (*fewest).min(*count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A pod that is deleted is healthy no more from the moment it has a deletion time, and counted once; one without a
    // budget is counted nowhere, and one that is gone is on no node.
    #[test]
    fn the_fewest_are_kept() {
        let mut counts = Counts::default();
        for uid in ["a", "b", "c"] {
            counts.take(&format!("ADDED web true {uid} -n1 - - -True"));
        }
        counts.begun = true;
        counts.take("MODIFIED web true a -n1 -2026-01-01T00:00:00Z - -True");
        counts.take("DELETED web true a -n1 -2026-01-01T00:00:00Z - -True");
        counts.take("MODIFIED web true b -n1 - - -False");
        counts.take("ADDED web true d -n2 - -here -True");
        counts.take("ADDED free false e - - - -");
        assert_eq!((counts.fewest["web"], counts.healthy["web"], counts.marks.len()), (1, 2, 1));
        assert!(counts.pods.len() == 4 && !counts.healthy.contains_key("free"));
    }
}
