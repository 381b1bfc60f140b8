//! The cluster's objects, through the first API server that answers: nodes, leases, identity.

use super::ask::{QUICK, text, within};
use super::probes::{self, KUBECONFIGS};
use super::{ETCD_DOWN, EtcdDown};
use crate::World;
use crate::cluster::drill_label;
use crate::host::{ApiRequest, Host};
use rekindle_model::host::{ApiProbe, HostFacts};
use rekindle_model::inventory::{ClusterFacts, LeaseFacts, NodeFacts};
use rekindle_model::{HostPath, Seen};
use serde_json::Value;

/// A kubeconfig of the machine Rekindle runs on.
pub(super) struct OwnKubeconfig {
    /// The file.
    pub(super) file: HostPath,
    /// Context of it; none = its current one.
    pub(super) context: Option<String>,
}

/// Who asks, with which kubeconfig and context of it, which server.
struct Door<'a> {
    host: &'a dyn Host,
    kubeconfig: HostPath,
    context: Option<String>,
    server: Option<String>,
}

/// What the first API server that answers tells. The address in front of the API servers is [`endpoint`]'s.
pub(super) async fn objects(
    world: &World,
    facts: &[HostFacts],
    kubeconfig: Option<&OwnKubeconfig>,
) -> ClusterFacts {
    let mut why =
        "no API server that was seen could answer: none serves, or none reaches its etcd".to_owned();
    for door in doors(world, facts, kubeconfig).await {
        match namespace(&door).await {
            Ok((uid, drill_label)) => {
                let (nodes, leases) = tokio::join!(nodes(&door), leader_leases(&door));
                return ClusterFacts {
                    kube_system_uid: Seen::Known(uid),
                    drill_label: Seen::Known(drill_label),
                    nodes: unknown_if(nodes),
                    leader_leases: unknown_if(leases),
                    ..ClusterFacts::default()
                };
            }
            Err(error) => why = error,
        }
    }
    ClusterFacts {
        kube_system_uid: Seen::Unknown(why.clone()),
        drill_label: Seen::Unknown(why.clone()),
        nodes: Seen::Unknown(why.clone()),
        leader_leases: Seen::Unknown(why),
        ..ClusterFacts::default()
    }
}

fn unknown_if<T>(result: Result<T, String>) -> Seen<T> {
    match result {
        Ok(value) => Seen::Known(value),
        Err(why) => Seen::Unknown(why),
    }
}

/// Ways to ask, the most promising first: ready API servers, then those that answer and reach their etcd. One that
/// doesn't would only let its callers wait.
async fn doors<'a>(
    world: &'a World,
    facts: &[HostFacts],
    kubeconfig: Option<&OwnKubeconfig>,
) -> Vec<Door<'a>> {
    let mut answering: Vec<(&HostFacts, &ApiProbe)> =
        facts.iter().filter_map(|f| Some((f, f.api.known().filter(|api| serves(api))?))).collect();
    answering.sort_by_key(|(_, api)| !api.is_ready());
    let mut doors = Vec::new();
    for (facts, api) in answering {
        let Some(host) = world.host(&facts.id) else { continue };
        for path in KUBECONFIGS.map(HostPath::from) {
            if super::ask::exists(host.as_ref(), &path).await {
                let server = Some(api.server.clone());
                doors.push(Door { host: host.as_ref(), kubeconfig: path, context: None, server });
                break;
            }
        }
    }
    if let Some(OwnKubeconfig { file, context }) = kubeconfig {
        let (host, kubeconfig, context) = (world.local.as_ref(), file.clone(), context.clone());
        doors.push(Door { host, kubeconfig, context, server: None });
    }
    doors
}

fn serves(api: &ApiProbe) -> bool {
    api.readyz.known().is_some() && !api.failing_checks.iter().any(|check| check.starts_with("[-]etcd"))
}

async fn get(door: &Door<'_>, path: &str) -> Result<Value, String> {
    let request = ApiRequest {
        context: door.context.clone(),
        ..probes::get(door.kubeconfig.clone(), door.server.clone(), path)
    };
    let answer = within(door.host, QUICK, path, door.host.api(request)).await.map_err(|e| e.what)?;
    if answer.status != 200 {
        let text = String::from_utf8_lossy(&answer.body).trim().chars().take(300).collect::<String>();
        return Err(format!("GET {path}: status {}: {text}", answer.status));
    }
    serde_json::from_slice(&answer.body).map_err(|e| format!("GET {path}: {e}"))
}

fn at<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn time_ms(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

/// UID of `kube-system`, and its label for drills.
async fn namespace(door: &Door<'_>) -> Result<(String, String), String> {
    let namespace = get(door, "/api/v1/namespaces/kube-system").await?;
    let uid = Some(at(&namespace, "/metadata/uid")).filter(|uid| !uid.is_empty()).ok_or("it has no UID")?;
    Ok((uid.to_owned(), drill_label(&namespace)))
}

fn items(list: &Value) -> &[Value] {
    list.get("items").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

async fn nodes(door: &Door<'_>) -> Result<Vec<NodeFacts>, String> {
    let (nodes, leases) = tokio::join!(
        get(door, "/api/v1/nodes?limit=1000"),
        get(door, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases?limit=1000")
    );
    let (nodes, leases) = (nodes?, leases?);
    let renewed = |name: &str| {
        let lease = items(&leases).iter().find(|l| at(l, "/metadata/name") == name)?;
        time_ms(at(lease, "/spec/renewTime"))
    };
    Ok(items(&nodes).iter().map(|n| node(n, renewed(at(n, "/metadata/name")))).collect())
}

fn node(node: &Value, lease_renewed_ms: Option<i64>) -> NodeFacts {
    let list = |pointer: &str| node.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let ready =
        list("/status/conditions").into_iter().find(|c| at(c, "/type") == "Ready").unwrap_or_default();
    let internal = |a: &Value| (at(a, "/type") == "InternalIP").then(|| at(a, "/address").to_owned());
    NodeFacts {
        name: at(node, "/metadata/name").into(),
        ready: Some(at(&ready, "/status")).filter(|s| !s.is_empty()).unwrap_or("Unknown").into(),
        reason: format!("{}: {}", at(&ready, "/reason"), at(&ready, "/message")),
        lease_renewed_ms,
        unschedulable: node.pointer("/spec/unschedulable").and_then(Value::as_bool).unwrap_or_default(),
        addresses: list("/status/addresses").iter().filter_map(internal).collect(),
    }
}

async fn leader_leases(door: &Door<'_>) -> Result<Vec<LeaseFacts>, String> {
    let leases = get(door, "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases?limit=500").await?;
    let wanted =
        |l: &&Value| ["kube-controller-manager", "kube-scheduler"].contains(&at(l, "/metadata/name"));
    let lease = |l: &Value| LeaseFacts {
        name: at(l, "/metadata/name").into(),
        holder: at(l, "/spec/holderIdentity").into(),
        renewed_ms: time_ms(at(l, "/spec/renewTime")),
        duration_seconds: l.pointer("/spec/leaseDurationSeconds").and_then(Value::as_i64).unwrap_or_default(),
    };
    Ok(items(&leases).iter().filter(wanted).map(lease).collect())
}

/// The address in the admin kubeconfig, and whether it answers.
pub(super) async fn endpoint(
    world: &World,
    hosts: &[&dyn Host],
    kubeconfig: Option<&OwnKubeconfig>,
    etcd_down: &EtcdDown,
) -> (Seen<String>, Seen<u16>) {
    let mut places: Vec<(&dyn Host, HostPath, Option<String>)> = Vec::new();
    places.extend(kubeconfig.map(|own| (world.local.as_ref(), own.file.clone(), own.context.clone())));
    places.extend(hosts.iter().map(|host| (*host, HostPath::from("/etc/kubernetes/admin.conf"), None)));
    let mut why = "no host could be reached".to_owned();
    for (host, path, context) in places {
        let server = match text(host, &path).await {
            Ok(text) => {
                server_of(&text, context.as_deref()).ok_or_else(|| format!("{path}: names no server"))
            }
            Err(error) => Err(error.what),
        };
        match server {
            Ok(server) => {
                let request = ApiRequest { context, ..probes::get(path, None, "/readyz") };
                let asked = within(host, QUICK, "the control-plane endpoint", host.api(request));
                let readyz = match etcd_down.or(asked).await {
                    Some(Ok(answer)) => Seen::Known(answer.status),
                    Some(Err(error)) => Seen::Unknown(error.what),
                    None => Seen::Unknown(ETCD_DOWN.into()),
                };
                return (Seen::Known(server), readyz);
            }
            Err(error) => why = error,
        }
    }
    (Seen::Unknown(why.clone()), Seen::Unknown(why))
}

/// The server of a kubeconfig's context (none = the current one), else of its first. Its keys are not looked at.
fn server_of(text: &str, context: Option<&str>) -> Option<String> {
    let config: Value = serde_saphyr::from_str(text).ok()?;
    let named = |list: &str, name: &str| {
        let list = config.get(list)?.as_array()?;
        list.iter().find(|e| at(e, "/name") == name).or_else(|| list.first()).cloned()
    };
    let context = named("contexts", context.unwrap_or_else(|| at(&config, "/current-context")))?;
    let cluster = named("clusters", at(&context, "/context/cluster"))?;
    Some(at(&cluster, "/cluster/server").trim_end_matches('/').to_owned()).filter(|s| !s.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    // The address in front of the API servers is the current context's, not the first in the file.
    #[test]
    fn the_server_of_the_current_context() {
        let text = "clusters:\n- name: a\n  cluster: {server: https://a:6443}\n- name: b\n  cluster: {server: https://b:6443/}\n\
                    contexts:\n- name: y\n  context: {cluster: a, user: u}\n- name: x\n  context: {cluster: b, user: u}\ncurrent-context: x\nusers: []\n";
        assert_eq!(server_of(text, None).as_deref(), Some("https://b:6443"));
        assert_eq!(server_of(text, Some("y")).as_deref(), Some("https://a:6443"));
        assert_eq!(server_of("{}", None), None);
    }
}
