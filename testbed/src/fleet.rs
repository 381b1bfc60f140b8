//! Nodes and pods by the thousand on a [`Plane`] with simulated nodes.
//!
//! Deployments, their pods, budgets, scheduling and evictions are Kubernetes' own; only the kubelets are played (by kwok).

use crate::budget_watch::BudgetWatch;
use crate::cmd;
use crate::fill::{Proxy, create};
use crate::plane::{Options, Pace, Plane};
use anyhow::{Context, Result, ensure};
use camino::Utf8Path;
use serde_json::{Value, json};
use std::time::Duration;

/// How long the pods of a whole fleet may take to run.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Label of the pods: whether a budget is over them.
pub(crate) const GUARDED: &str = "guarded";

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
