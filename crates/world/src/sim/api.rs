//! A simulated API server: ready if it runs and etcd beside it is in quorum; nodes and leases as JSON.

use super::state::{KUBELET, State};
use crate::fault::{Fault, Outcome};
use crate::host::{ApiRequest, HttpAnswer};
use rekindle_model::HostId;
use rekindle_model::host::Component;
use serde_json::{Value, json};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/";
/// A time before every run: what is renewed in this world tells it by its revision.
const LONG_AGO: &str = "2020-01-01T00:00:00.000000Z";

fn answer(status: u16, body: &Value) -> HttpAnswer {
    HttpAnswer { status, body: body.to_string().into_bytes() }
}

fn text(status: u16, body: &str) -> HttpAnswer {
    HttpAnswer { status, body: body.as_bytes().to_vec() }
}

impl State {
    /// Whether the API server on a host is ready.
    pub(super) fn api_ready(&self, id: &HostId) -> bool {
        self.hosts.get(id).is_some_and(|h| h.runs(Component::KubeApiserver)) && self.in_quorum(id)
    }

    fn cluster_mut(&mut self, id: &HostId) -> Outcome<&mut super::etcd::Cluster> {
        let cluster = self.hosts.get(id).and_then(|h| h.etcd.as_ref()).map(|i| i.cluster);
        let cluster = cluster.and_then(|cluster| self.clusters.get_mut(&cluster));
        cluster.ok_or_else(|| Fault::unavailable("no etcd behind the API server"))
    }

    /// Controller-manager and scheduler take a free lease.
    fn elect(&mut self, id: &HostId) -> Outcome<()> {
        let ready: Vec<HostId> = self.hosts.keys().filter(|h| self.api_ready(h)).cloned().collect();
        for component in [Component::KubeControllerManager, Component::KubeScheduler] {
            let runs = ready.iter().filter_map(|h| self.hosts.get(h)).find(|h| h.runs(component));
            let Some(holder) = runs.map(|h| format!("{}_new", h.hostname)) else { continue };
            let cluster = self.cluster_mut(id)?;
            let Some((held, revision)) = cluster.leases.get_mut(component.name()) else { continue };
            if held.is_empty() {
                cluster.revision += 1;
                (*held, *revision) = (holder, cluster.revision);
            }
        }
        Ok(())
    }

    /// A GET without identity.
    pub(super) fn http_get(&mut self, id: &HostId, url: &str) -> Outcome<HttpAnswer> {
        let port = url.split("://").nth(1).and_then(|rest| rest.split(['/', '?']).next());
        let port = port.and_then(|host| host.rsplit(':').next()).unwrap_or_default();
        let refused = || Fault::unavailable(format!("{url}: connection refused"));
        let runs = |state: &Self, component| state.hosts.get(id).is_some_and(|h| h.runs(component));
        let ok = match port {
            "6443" => {
                let path = url.splitn(4, '/').nth(3).unwrap_or_default();
                return self.api_get(id, &format!("/{path}"));
            }
            "10257" if runs(self, Component::KubeControllerManager) => self.api_ready(id),
            "10259" if runs(self, Component::KubeScheduler) => self.api_ready(id),
            "2381" if runs(self, Component::Etcd) => self.in_quorum(id),
            "10248" if self.hosts.get(id).is_some_and(|h| h.unit_active(KUBELET)) => true,
            _ => return Err(refused()),
        };
        Ok(if ok { text(200, "ok") } else { text(500, "not ok") })
    }

    /// Whether etcd on a host answers its peers: as soon as it runs.
    pub(super) fn etcd_serves_peers(&self, id: &HostId) -> bool {
        self.hosts.get(id).is_some_and(|host| host.runs(Component::Etcd))
    }

    /// A request with an identity.
    pub(super) fn api(&mut self, id: &HostId, request: &ApiRequest) -> Outcome<HttpAnswer> {
        match request.method.as_str() {
            "GET" => self.api_get(id, &request.path),
            "PUT" => self.api_put(id, &request.path, &request.body),
            "DELETE" if self.api_ready(id) => Ok(text(200, "deleted")),
            "DELETE" => Err(Fault::unavailable("connection refused")),
            other => Ok(text(405, other)),
        }
    }

    fn api_get(&mut self, id: &HostId, path: &str) -> Outcome<HttpAnswer> {
        if !self.hosts.get(id).is_some_and(|h| h.runs(Component::KubeApiserver)) {
            return Err(Fault::unavailable("https://127.0.0.1:6443: connection refused"));
        }
        if !self.api_ready(id) {
            return Ok(text(500, "[-]etcd failed: reason withheld"));
        }
        self.elect(id)?;
        let bare = path.split('?').next().unwrap_or(path);
        Ok(match bare {
            "/readyz" | "/livez" => text(200, "ok"),
            "/api/v1/nodes" => self.nodes(id)?,
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases" => self.node_leases(id)?,
            "/api/v1/namespaces" => {
                let revision = self.cluster_mut(id)?.revision.to_string();
                answer(200, &json!({"metadata": {"resourceVersion": revision}, "items": []}))
            }
            _ => match bare.strip_prefix(LEASES) {
                Some(name) => self.lease(id, name)?,
                None => text(404, "not found"),
            },
        })
    }

    fn nodes(&mut self, id: &HostId) -> Outcome<HttpAnswer> {
        let nodes: Vec<Value> = self.hosts.values().map(|host| {
            json!({"metadata": {"name": host.hostname}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
        }).collect();
        let revision = self.cluster_mut(id)?.revision.to_string();
        Ok(answer(200, &json!({"metadata": {"resourceVersion": revision}, "items": nodes})))
    }

    /// Kubelets that run beside a ready API server have just renewed theirs; the others' are old.
    fn node_leases(&mut self, id: &HostId) -> Outcome<HttpAnswer> {
        let alive: Vec<(String, bool)> = self
            .hosts
            .iter()
            .map(|(host, state)| (state.hostname.clone(), state.unit_active(KUBELET) && self.api_ready(host)))
            .collect();
        let cluster = self.cluster_mut(id)?;
        cluster.revision += 1;
        let leases: Vec<Value> = alive.into_iter().map(|(name, alive)| {
            let revision = if alive { cluster.revision } else { 1 };
            json!({"metadata": {"name": name, "resourceVersion": revision.to_string()}, "spec": {"renewTime": LONG_AGO}})
        }).collect();
        Ok(answer(
            200,
            &json!({"metadata": {"resourceVersion": cluster.revision.to_string()}, "items": leases}),
        ))
    }

    fn lease(&mut self, id: &HostId, name: &str) -> Outcome<HttpAnswer> {
        let cluster = self.cluster_mut(id)?;
        let Some((holder, revision)) = cluster.leases.get(name) else { return Ok(text(404, "not found")) };
        let revision = revision.to_string();
        Ok(answer(
            200,
            &json!({
                "metadata": {"name": name, "resourceVersion": revision},
                "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": LONG_AGO},
            }),
        ))
    }

    fn api_put(&mut self, id: &HostId, path: &str, body: &[u8]) -> Outcome<HttpAnswer> {
        if !self.api_ready(id) {
            return Err(Fault::unavailable("https://127.0.0.1:6443: connection refused"));
        }
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return Ok(text(400, "not JSON")) };
        let cluster = self.cluster_mut(id)?;
        let Some(name) = path.strip_prefix(LEASES) else { return Ok(text(404, "not found")) };
        let Some((holder, revision)) = cluster.leases.get_mut(name) else {
            return Ok(text(404, "not found"));
        };
        if body.pointer("/metadata/resourceVersion").and_then(Value::as_str)
            != Some(revision.to_string().as_str())
        {
            return Ok(text(409, "the object has been modified"));
        }
        cluster.revision += 1;
        *revision = cluster.revision;
        *holder = body.pointer("/spec/holderIdentity").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(answer(200, &body))
    }
}
