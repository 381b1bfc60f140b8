//! A control plane of bare processes whose nodes are objects: hands that do what a scheduler and kubelets would (bind,
//! start, end, renew leases), so that evictions, budgets, controllers and garbage collection are the real ones.

use camino::{Utf8Path, Utf8PathBuf};
use rekindle_world::cluster::{Cluster, ClusterOptions, Method, Sent};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use testbed::plane::{Options, Plane};

const PATIENCE: Duration = Duration::from_secs(300);

/// A running plane, a connection to it, and a runtime for both.
pub(crate) struct Site {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) cluster: Cluster,
    pub(crate) plane: Plane,
    pub(crate) dir: Utf8PathBuf,
    /// The kubeconfig that rekindle is given.
    pub(crate) kubeconfig: Utf8PathBuf,
    _folder: tempfile::TempDir,
}

impl Site {
    pub(crate) fn start(controller_manager: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(folder.path()).unwrap().to_owned();
        let options = Options {
            controllers: true,
            controller_manager: controller_manager.iter().map(|flag| (*flag).to_owned()).collect(),
            ..Options::default()
        };
        let plane = Plane::start(&dir, &options).unwrap();
        let site = Self::over(folder, plane);
        let account = "/api/v1/namespaces/default/serviceaccounts/default";
        site.until("the controllers make the default service account", || site.get(account).is_some());
        site
    }

    /// A plane that runs in this folder.
    pub(crate) fn over(folder: tempfile::TempDir, plane: Plane) -> Self {
        let dir = Utf8Path::from_path(folder.path()).unwrap().to_owned();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let options = ClusterOptions { kubeconfig: Some(plane.kubeconfig()), context: None };
        let cluster = runtime.block_on(Cluster::connect(&options)).unwrap();
        let kubeconfig = plane.kubeconfig();
        Self { runtime, cluster, plane, dir, kubeconfig, _folder: folder }
    }

    /// From now on rekindle has the rights of the shipped role `deploy/rbac/NAME.yaml`, and no others.
    pub(crate) fn limit_to(&mut self, name: &str) {
        let role = format!("{}/../../deploy/rbac/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        self.plane.kubectl(&["apply", "-f", &role]).unwrap();
        self.plane.kubectl(&["create", "serviceaccount", "rekindle", "-n", "kube-system"]).unwrap();
        let (role, account) =
            (format!("--clusterrole=rekindle-{name}"), "--serviceaccount=kube-system:rekindle");
        self.plane.kubectl(&["create", "clusterrolebinding", "rekindle", &role, account]).unwrap();
        let token = self.plane.kubectl(&["create", "token", "rekindle", "-n", "kube-system"]).unwrap();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: '{}', certificate-authority: '{}/pki/ca.crt'}}}}]\n\
             users: [{{name: test, user: {{token: '{}'}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n",
            self.plane.url,
            self.dir,
            token.trim()
        );
        self.kubeconfig = self.dir.join("limited.conf");
        std::fs::write(&self.kubeconfig, text).unwrap();
    }

    /// rekindle on this cluster, with runs in a folder of the test.
    pub(crate) fn rekindle(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The same, to be started by the caller.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        command.args(args).stdin(Stdio::null()).env("KUBECONFIG", &self.kubeconfig);
        command.args(["--state-dir", self.dir.join("state").as_str()]);
        command
    }

    /// The same, which must end with this code; what it says on both outputs.
    pub(crate) fn ends(&self, code: i32, args: &[&str]) -> String {
        let output = self.rekindle(args);
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        said
    }

    /// Its JSON, whatever it ends with.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let output = self.rekindle(&[args, &["-o", "json"]].concat());
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{args:?}: {error}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// The newest run's id.
    pub(crate) fn newest_run(&self) -> String {
        let runs = self.json(&["runs"]);
        runs.as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.runtime.block_on(self.cluster.get(path)).unwrap()
    }

    pub(crate) fn list(&self, path: &str) -> Vec<Value> {
        self.runtime.block_on(self.cluster.list(path)).unwrap()
    }

    pub(crate) fn make(&self, path: &str, object: &Value) {
        self.runtime.block_on(self.cluster.send(&Method::POST, path, Sent::Object(object))).unwrap();
    }

    pub(crate) fn patch(&self, path: &str, patch: &Value) {
        self.runtime.block_on(self.cluster.send(&Method::PATCH, path, Sent::MergePatch(patch))).unwrap();
    }

    pub(crate) fn delete(&self, path: &str) {
        self.runtime.block_on(self.cluster.send(&Method::DELETE, path, Sent::Nothing)).unwrap();
    }

    /// Waits until something has happened.
    pub(crate) fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < PATIENCE, "{what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The hands of the nodes that are alive.
#[derive(Clone)]
pub(crate) struct Hands {
    alive: Arc<Mutex<BTreeSet<String>>>,
}

impl Hands {
    /// Makes these nodes, and works for them from now on.
    pub(crate) fn on(site: &Site, nodes: &[&str]) -> Self {
        for name in nodes {
            let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
            site.make("/api/v1/nodes", &node);
        }
        let this =
            Self { alive: Arc::new(Mutex::new(nodes.iter().map(|name| (*name).to_owned()).collect())) };
        let (hands, cluster) = (this.clone(), site.cluster.clone());
        site.runtime.spawn(async move {
            let mut renewed = Instant::now() - Duration::from_secs(60);
            loop {
                let alive = hands.alive.lock().unwrap().clone();
                if renewed.elapsed() > Duration::from_secs(3) {
                    renewed = Instant::now();
                    for node in &alive {
                        report(&cluster, node).await;
                    }
                }
                let pods = cluster.list("/api/v1/pods").await.unwrap_or_default();
                for pod in &pods {
                    serve(&cluster, pod, &alive, &pods).await;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        this
    }

    /// A node's host goes off.
    pub(crate) fn kill(&self, node: &str) {
        self.alive.lock().unwrap().remove(node);
    }

    /// It is back.
    pub(crate) fn revive(&self, node: &str) {
        self.alive.lock().unwrap().insert(node.to_owned());
    }
}

fn at<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A node reports: its lease, and that it is Ready.
async fn report(cluster: &Cluster, node: &str) {
    let now = jiff::Timestamp::now();
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": node},
        "spec": {"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": format!("{now:.6}")}});
    let path = format!("{leases}/{node}");
    if cluster.send(&Method::PATCH, &path, Sent::MergePatch(&lease)).await.is_err() {
        let _ = cluster.send(&Method::POST, leases, Sent::Object(&lease)).await;
    }
    let now = format!("{now:.0}");
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
        "message": "", "lastHeartbeatTime": now, "lastTransitionTime": now}]}});
    let _ =
        cluster.send(&Method::PATCH, &format!("/api/v1/nodes/{node}/status"), Sent::MergePatch(&ready)).await;
}

/// What a scheduler and a kubelet do with a pod.
async fn serve(cluster: &Cluster, pod: &Value, alive: &BTreeSet<String>, all: &[Value]) {
    let path =
        format!("/api/v1/namespaces/{}/pods/{}", at(pod, "/metadata/namespace"), at(pod, "/metadata/name"));
    let node = at(pod, "/spec/nodeName");
    let going = !at(pod, "/metadata/deletionTimestamp").is_empty();
    if node.is_empty() {
        bind(cluster, &path, pod, alive, all).await;
    } else if alive.contains(node) && going {
        let now = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": at(pod, "/metadata/uid")}});
        let _ = cluster.send(&Method::DELETE, &path, Sent::Object(&now)).await;
    } else if alive.contains(node) && at(pod, "/status/phase") == "Pending" {
        let now = format!("{:.0}", jiff::Timestamp::now());
        let running = json!({"status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": now},
            {"type": "ContainersReady", "status": "True", "lastTransitionTime": now}]}});
        let _ = cluster.send(&Method::PATCH, &format!("{path}/status"), Sent::MergePatch(&running)).await;
    }
}

/// Onto the node with the fewest pods, of those that take any.
async fn bind(cluster: &Cluster, path: &str, pod: &Value, alive: &BTreeSet<String>, all: &[Value]) {
    let nodes = cluster.list("/api/v1/nodes").await.unwrap_or_default();
    let open = nodes.iter().filter(|node| {
        let taints =
            node.pointer("/spec/taints").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        node.pointer("/spec/unschedulable").is_none() && !taints
    });
    let open = open.map(|node| at(node, "/metadata/name")).filter(|name| alive.contains(*name));
    let Some(best) =
        open.min_by_key(|name| all.iter().filter(|pod| at(pod, "/spec/nodeName") == *name).count())
    else {
        return;
    };
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": at(pod, "/metadata/name")},
        "target": {"apiVersion": "v1", "kind": "Node", "name": best}});
    let _ = cluster.send(&Method::POST, &format!("{path}/binding"), Sent::Object(&binding)).await;
}

/// A Deployment or StatefulSet of pods with the label `app: NAME`.
pub(crate) fn workload(kind: &str, name: &str, replicas: u32, volumes: &Value) -> Value {
    let mut object = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"terminationGracePeriodSeconds": 2,
            "volumes": volumes, "containers": [{"name": "main", "image": "none"}]}}}});
    if kind == "StatefulSet" {
        object["spec"]["serviceName"] = name.into();
    }
    object
}

/// A budget over the pods with the label `app: NAME`.
pub(crate) fn budget(name: &str, min_available: u32) -> Value {
    json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
        "spec": {"minAvailable": min_available, "selector": {"matchLabels": {"app": name}}}})
}
