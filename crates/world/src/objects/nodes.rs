//! Nodes, their leases, and whether an API server can reach their kubelets.

use super::{conditions, labels, list, object, text, texts, time_ms};
use crate::cluster::{Cluster, ClusterError, Method, Sent, query};
use crate::words::flag;
use futures::StreamExt as _;
use rekindle_model::kube::ObjectRef;
use rekindle_model::kube::nodes::{Node, Reach, Taint, Thresholds};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Kubelets asked side by side, and how long each may take: an API server itself gives up a connection after 30 s.
const AT_ONCE: usize = 64;
const REACH_TIMEOUT: Duration = Duration::from_secs(35);
/// Prefix of the labels that tell a node's roles.
const ROLE: &str = "node-role.kubernetes.io/";

/// The nodes that a label selector takes (none = all), with their leases.
///
/// # Errors
/// The lists can't be read.
pub async fn read(cluster: &Cluster, selector: Option<&str>) -> Result<Vec<Node>, ClusterError> {
    let path = match selector {
        Some(selector) => format!("/api/v1/nodes?labelSelector={}", query(selector)),
        None => "/api/v1/nodes".to_owned(),
    };
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let renewed = |lease: Value| Some((text(&lease, "/metadata/name"), time_ms(&lease, "/spec/renewTime")));
    let (nodes, renewed) =
        tokio::join!(cluster.list_of(&path, |value| Some(node(&value))), cluster.list_of(leases, renewed));
    let (mut nodes, renewed): (_, BTreeMap<String, Option<i64>>) = (nodes?, renewed?.into_iter().collect());
    for node in &mut nodes {
        node.lease_renewed_ms = renewed.get(node.name()).copied().flatten();
    }
    Ok(nodes)
}

/// One node with its lease, as they are now; none when it is gone, or another one has its name.
///
/// # Errors
/// They can't be read.
pub async fn one(cluster: &Cluster, object: &ObjectRef) -> Result<Option<Node>, ClusterError> {
    // a list of one: who may list leases need not be allowed to get one
    let name = query(&object.name);
    let lease = format!(
        "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases?fieldSelector=metadata.name%3D{name}"
    );
    let path = object.path();
    let (found, leases) = tokio::join!(cluster.get(&path), cluster.list(&lease));
    let Some(mut found) = found?.as_ref().map(node).filter(|found| found.object.uid == object.uid) else {
        return Ok(None);
    };
    found.lease_renewed_ms = leases?.first().and_then(|lease| time_ms(lease, "/spec/renewTime"));
    Ok(Some(found))
}

/// A node of its JSON; its lease is another object.
fn node(value: &Value) -> Node {
    let labels = labels(value, "/metadata/labels");
    let (cordoned_ms, cordoned_by) = cordoned(value);
    let internal = |one: &Value| (text(one, "/type") == "InternalIP").then(|| text(one, "/address"));
    Node {
        object: object("/api/v1", "nodes", "Node", value),
        zone: labels.get("topology.kubernetes.io/zone").cloned().unwrap_or_default(),
        roles: labels.keys().filter_map(|label| label.strip_prefix(ROLE).map(str::to_owned)).collect(),
        addresses: list(value, "/status/addresses").iter().filter_map(internal).collect(),
        kubelet_version: text(value, "/status/nodeInfo/kubeletVersion"),
        conditions: conditions(value),
        taints: list(value, "/spec/taints").iter().map(taint).collect(),
        unschedulable: value.pointer("/spec/unschedulable").and_then(Value::as_bool).unwrap_or_default(),
        cordoned_ms,
        cordoned_by,
        lease_renewed_ms: None,
        kubelet: Reach::NotAsked,
    }
}

fn taint(value: &Value) -> Taint {
    Taint { key: text(value, "/key"), value: text(value, "/value"), effect: text(value, "/effect") }
}

/// Who set `spec.unschedulable`, and when: the managed fields tell.
fn cordoned(value: &Value) -> (Option<i64>, String) {
    let owns = |entry: &&Value| entry.pointer("/fieldsV1/f:spec/f:unschedulable").is_some();
    let entry = list(value, "/metadata/managedFields").iter().find(owns);
    entry.map_or((None, String::new()), |entry| (time_ms(entry, "/time"), text(entry, "/manager")))
}

/// Asks each node that is not Ready for its kubelet's health, through the API server's proxy.
pub async fn reach(cluster: &Cluster, nodes: &mut [Node]) {
    let cluster = cluster.with_timeout(REACH_TIMEOUT);
    let silent = nodes.iter_mut().filter(|node| !node.is_ready());
    let asked = futures::stream::iter(silent.map(|node| async {
        let path = format!("{}/proxy/healthz", node.object.path());
        node.kubelet = judge(cluster.bytes(&Method::GET, &path, Sent::Nothing).await);
    }));
    asked.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

fn judge(answer: Result<Vec<u8>, ClusterError>) -> Reach {
    let error = match answer {
        Ok(body) if body.starts_with(b"ok") => return Reach::Healthy,
        Ok(body) => return Reach::Unhealthy(String::from_utf8_lossy(&body).chars().take(200).collect()),
        Err(error) => error,
    };
    let said = match &error {
        ClusterError::Refused { message, .. } => message.clone(),
        ClusterError::Unreachable { why, .. } => why.clone(),
        _ => error.to_string(),
    };
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    match &error {
        _ if has(&["connection refused"]) => Reach::Refused(said),
        _ if has(&["TLS handshake timeout"]) => Reach::Hung(said),
        _ if has(&[
            "no route to host",
            "i/o timeout",
            "no answer within",
            "deadline exceeded",
            "network is unreachable",
        ]) =>
        {
            Reach::Silent(said)
        }
        // a kubelet asks an API server who may ask it what; this one reaches none
        _ if has(&["Authorization error"]) => Reach::CannotAsk(said),
        // kubelet's own "500 healthz check failed"
        ClusterError::Refused { status: 500, .. } if said.contains("healthz") => Reach::Unhealthy(said),
        _ => Reach::Unknown(said),
    }
}

/// The VolumeAttachments of a node.
///
/// # Errors
/// The list can't be read.
pub async fn attachments(cluster: &Cluster, node: &str) -> Result<Vec<ObjectRef>, ClusterError> {
    let root = "/apis/storage.k8s.io/v1";
    let of_node = |one: &Value| text(one, "/spec/nodeName") == node;
    let found = cluster.list_where(&format!("{root}/volumeattachments"), of_node).await?;
    Ok(found.iter().map(|one| object(root, "volumeattachments", "VolumeAttachment", one)).collect())
}

/// How long a node may be silent: from the flags of kube-controller-manager's pods, else the default of the version.
///
/// # Errors
/// The version of the server can't be read.
pub async fn thresholds(cluster: &Cluster) -> Result<Thresholds, ClusterError> {
    let path = "/api/v1/namespaces/kube-system/pods?labelSelector=component%3Dkube-controller-manager";
    // not allowed to look, or none there (managed clusters hide it): the default then
    for pod in cluster.list(path).await.unwrap_or_default() {
        if let Some(seconds) = grace_flag(&pod) {
            let name = text(&pod, "/metadata/name");
            return Ok(Thresholds {
                grace_period_seconds: seconds,
                source: format!("--node-monitor-grace-period of kube-system/{name}"),
            });
        }
    }
    let version = cluster.send(&Method::GET, "/version", Sent::Nothing).await?;
    let minor: String = text(&version, "/minor").chars().take_while(char::is_ascii_digit).collect();
    let git = text(&version, "/gitVersion");
    // kubernetes/kubernetes#126287: 40 s before 1.32, 50 s since
    let seconds = if minor.parse::<u32>().is_ok_and(|minor| minor < 32) { 40 } else { 50 };
    Ok(Thresholds { grace_period_seconds: seconds, source: format!("the default of {git}") })
}

/// The value of `--node-monitor-grace-period` in a pod's command, in seconds.
fn grace_flag(pod: &Value) -> Option<u64> {
    let span = list(pod, "/spec/containers").iter().find_map(|one| {
        // where the image names the program, there are flags alone
        let program = String::new();
        let words: Vec<String> =
            [program].into_iter().chain(texts(one, "/command")).chain(texts(one, "/args")).collect();
        flag(&words, "node-monitor-grace-period")?.parse::<jiff::SignedDuration>().ok()
    })?;
    u64::try_from(span.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    // What the API server says of a kubelet it can't reach tells a stopped kubelet from a silent host.
    #[test]
    fn a_refused_connection_is_a_host_that_runs() {
        let refused = |status, message: &str| {
            judge(Err(ClusterError::Refused {
                what: String::new(),
                status,
                reason: String::new(),
                message: message.into(),
            }))
        };
        let dial = "error trying to reach service: dial tcp 10.0.0.5:10250: connect: ";
        assert!(matches!(refused(503, &format!("{dial}connection refused")), Reach::Refused(_)));
        assert!(matches!(refused(503, &format!("{dial}no route to host")), Reach::Silent(_)));
        let denied =
            "Authorization error (user=kube-apiserver-kubelet-client, verb=get, subresource=healthz)";
        assert!(matches!(refused(500, denied), Reach::CannotAsk(_)), "as a real kubelet said it");
        assert!(matches!(refused(503, "net/http: TLS handshake timeout"), Reach::Hung(_)));
        assert!(matches!(refused(403, "nodes is forbidden"), Reach::Unknown(_)));
        assert_eq!(judge(Ok(b"ok".to_vec())), Reach::Healthy);
    }

    // The threshold is the cluster's own where its flags can be read.
    #[test]
    fn the_flag_counts() {
        let of = |command: &[&str], args: &[&str]| {
            grace_flag(&json!({"spec": {"containers": [{"command": command, "args": args}]}}))
        };
        assert_eq!(of(&["kube-controller-manager", "--node-monitor-grace-period=1m20s"], &[]), Some(80));
        assert_eq!(
            of(&["kcm", "--node-monitor-grace-period", "50s", "--v", "2"], &[]),
            Some(50),
            "as two words"
        );
        assert_eq!(of(&["kcm", "--node-monitor-grace-period"], &["50s"]), Some(50));
        assert_eq!(of(&[], &["--node-monitor-grace-period=40s"]), Some(40), "the image names the program");
        assert_eq!(of(&["kcm", "--node-monitor-grace-period-x=40s"], &[]), None);
        assert_eq!(of(&["kcm"], &[]), None);
    }
}
