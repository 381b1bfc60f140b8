//! Pods, the controllers behind them, the budgets over them, and how much their emptyDir volumes hold.

use super::{labels, list, number, object, text, texts, time_ms};
use crate::cluster::{Cluster, ClusterError, Method, Sent, query};
use futures::StreamExt as _;
use rekindle_model::Seen;
use rekindle_model::kube::nodes::{Budget, EmptyDir, Owner, Pod};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Kinds of volumes that are on the node, or of what the cluster itself knows: a second copy of the pod harms nothing in
/// them. A kind that is not among them (`nfs`, `csi`, one to come) counts as one on the network.
const HARMLESS: [&str; 8] =
    ["configMap", "downwardAPI", "emptyDir", "gitRepo", "hostPath", "image", "projected", "secret"];
/// Kinds of volumes that are claims.
const CLAIMED: [&str; 2] = ["persistentVolumeClaim", "ephemeral"];
/// Lists read side by side.
const AT_ONCE: usize = 8;
/// What a kubelet may take to count its volumes.
const STATS_TIMEOUT: Duration = Duration::from_secs(5);
/// Kubernetes' own default grace period in seconds.
const GRACE_SECONDS: i64 = 30;

/// The pods on these nodes that a label selector takes (none = all).
///
/// # Errors
/// A list can't be read.
pub async fn on(cluster: &Cluster, nodes: &[&str], selector: Option<&str>) -> Result<Vec<Pod>, ClusterError> {
    let labels = selector.map(|selector| format!("&labelSelector={}", query(selector))).unwrap_or_default();
    let labels = labels.as_str();
    let lists = futures::stream::iter(nodes.iter().map(|node| async move {
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}{labels}");
        cluster.list_of(&path, |value| Some(pod(&value))).await
    }));
    let lists: Vec<Result<Vec<Pod>, ClusterError>> = lists.buffered(AT_ONCE).collect().await;
    let mut pods = Vec::new();
    for list in lists {
        pods.extend(list?);
    }
    Ok(pods)
}

/// All pods.
///
/// # Errors
/// The list can't be read.
pub async fn all(cluster: &Cluster) -> Result<Vec<Pod>, ClusterError> {
    cluster.list_of("/api/v1/pods", |value| Some(pod(&value))).await
}

/// A pod of its JSON.
pub(super) fn pod(value: &Value) -> Pod {
    let ready = |one: &Value| text(one, "/type") == "Ready" && text(one, "/status") == "True";
    let grace = value.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    let controller = list(value, "/metadata/ownerReferences")
        .iter()
        .find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true));
    let volumes = list(value, "/spec/volumes").iter();
    let unknown = || Seen::Unknown("not looked at".to_owned());
    Pod {
        object: object("/api/v1", "pods", "Pod", value),
        node: text(value, "/spec/nodeName"),
        phase: text(value, "/status/phase"),
        ready: list(value, "/status/conditions").iter().any(ready),
        deleted_ms: time_ms(value, "/metadata/deletionTimestamp"),
        grace_seconds: u64::try_from(grace.unwrap_or(GRACE_SECONDS)).unwrap_or_default(),
        mirror: value.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some(),
        controller: controller.map(|owner| Owner {
            api_version: text(owner, "/apiVersion"),
            kind: text(owner, "/kind"),
            name: text(owner, "/name"),
        }),
        orphaned: false,
        labels: labels(value, "/metadata/labels"),
        empty_dirs: volumes
            .clone()
            .filter(|volume| volume.get("emptyDir").is_some_and(|dir| !dir.is_null()))
            .map(|volume| EmptyDir { name: text(volume, "/name"), used_bytes: unknown() })
            .collect(),
        claims: volumes.clone().filter_map(|volume| claim(value, volume)).collect(),
        network_volumes: volumes
            .filter(|volume| is_on_network(volume))
            .map(|volume| text(volume, "/name"))
            .collect(),
        finalizers: texts(value, "/metadata/finalizers"),
    }
}

/// The claim behind a volume of a pod; the one of an `ephemeral` volume is made for the pod, and named by both.
fn claim(pod: &Value, volume: &Value) -> Option<String> {
    let named = text(volume, "/persistentVolumeClaim/claimName");
    if volume.get("ephemeral").is_some_and(Value::is_object) {
        return Some(format!("{}-{}", text(pod, "/metadata/name"), text(volume, "/name")));
    }
    (!named.is_empty()).then_some(named)
}

fn is_on_network(volume: &Value) -> bool {
    let kinds = volume.as_object().into_iter().flatten().filter(|(_, settings)| settings.is_object());
    let mut kinds = kinds.map(|(kind, _)| kind.as_str());
    kinds.any(|kind| !HARMLESS.contains(&kind) && !CLAIMED.contains(&kind))
}

/// Marks the pods whose DaemonSet does not exist any more: nothing keeps them where they are.
///
/// # Errors
/// A DaemonSet can't be asked for.
pub async fn mark_orphans(cluster: &Cluster, pods: &mut [Pod]) -> Result<(), ClusterError> {
    let mut owners = BTreeMap::new();
    for pod in pods.iter() {
        let Some(owner) = pod.controller.as_ref().filter(|owner| owner.kind == "DaemonSet") else { continue };
        let namespace = pod.object.namespace.clone().unwrap_or_default();
        owners.entry((namespace, owner.name.clone())).or_insert(true);
    }
    for ((namespace, name), exists) in &mut owners {
        let path = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}");
        *exists = cluster.get(&path).await?.is_some();
    }
    for pod in pods {
        let Some(owner) = pod.controller.as_ref().filter(|owner| owner.kind == "DaemonSet") else { continue };
        let key = (pod.object.namespace.clone().unwrap_or_default(), owner.name.clone());
        pod.orphaned = owners.get(&key) == Some(&false);
    }
    Ok(())
}

/// Asks the kubelets how much the emptyDir volumes hold. One that does not answer leaves it unknown.
pub async fn measure(cluster: &Cluster, pods: &mut [Pod]) {
    let cluster = cluster.with_timeout(STATS_TIMEOUT);
    let nodes: BTreeSet<String> =
        pods.iter().filter(|pod| !pod.empty_dirs.is_empty()).map(|pod| pod.node.clone()).collect();
    let asked = futures::stream::iter(nodes.into_iter().map(|node| async {
        let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
        let answer = cluster.send(&Method::GET, &path, Sent::Nothing).await;
        (node, answer)
    }));
    let answers: Vec<(String, Result<Value, ClusterError>)> = asked.buffer_unordered(AT_ONCE).collect().await;
    for (node, answer) in answers {
        let on_node = pods.iter_mut().filter(|pod| pod.node == node);
        match answer {
            Ok(stats) => on_node.for_each(|pod| count(pod, &stats)),
            Err(error) => on_node.flat_map(|pod| &mut pod.empty_dirs).for_each(|dir| {
                dir.used_bytes = Seen::Unknown(error.to_string());
            }),
        }
    }
}

fn count(pod: &mut Pod, stats: &Value) {
    let own = list(stats, "/pods").iter().find(|one| text(one, "/podRef/uid") == pod.object.uid);
    for dir in &mut pod.empty_dirs {
        let volume =
            own.and_then(|own| list(own, "/volume").iter().find(|one| text(one, "/name") == dir.name));
        let bytes = volume.and_then(|volume| volume.pointer("/usedBytes")?.as_u64());
        dir.used_bytes = bytes.map_or_else(|| Seen::Unknown("the kubelet does not tell".into()), Seen::Known);
    }
}

/// The budgets of these namespaces.
///
/// # Errors
/// A list can't be read.
pub async fn budgets(cluster: &Cluster, namespaces: BTreeSet<String>) -> Result<Vec<Budget>, ClusterError> {
    let lists = futures::stream::iter(namespaces.into_iter().map(|namespace| async move {
        cluster.list(&format!("/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets")).await
    }));
    let lists: Vec<Result<Vec<Value>, ClusterError>> = lists.buffered(AT_ONCE).collect().await;
    let mut budgets = Vec::new();
    for list in lists {
        budgets.extend(list?.iter().map(budget));
    }
    Ok(budgets)
}

fn budget(value: &Value) -> Budget {
    let selector = value.pointer("/spec/selector").cloned().unwrap_or_default();
    Budget {
        object: object("/apis/policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", value),
        selector: serde_json::from_value(selector).unwrap_or_default(),
        unhealthy_may_go: text(value, "/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow",
        disruptions_allowed: number(value, "/status/disruptionsAllowed"),
        current_healthy: number(value, "/status/currentHealthy"),
        desired_healthy: number(value, "/status/desiredHealthy"),
        expected_pods: number(value, "/status/expectedPods"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    // A pod of a Deployment writes to a share that it names itself, or to a claim that is made for it: a second copy of it
    // beside the first would write there too. What is on the node or in the cluster is no such volume.
    #[test]
    fn every_volume_that_outlives_a_node_counts() {
        let with = |volume: Value| {
            let mut volume = volume;
            volume["name"] = "data".into();
            pod(&json!({"metadata": {"name": "web-1"}, "spec": {"volumes": [volume]}}))
        };
        assert_eq!(with(json!({"persistentVolumeClaim": {"claimName": "shared"}})).claims, ["shared"]);
        let ephemeral = with(json!({"ephemeral": {"volumeClaimTemplate": {"spec": {}}}}));
        assert_eq!(
            (ephemeral.claims.as_slice(), ephemeral.network_volumes.len()),
            (&["web-1-data".to_owned()][..], 0)
        );
        for kind in ["nfs", "iscsi", "cephfs", "rbd", "fc", "glusterfs", "csi", "azureFile", "oneToCome"] {
            let pod = with(json!({ kind: {} }));
            assert!(pod.is_stateful() && pod.network_volumes == ["data"], "{kind}");
        }
        for kind in HARMLESS {
            assert!(!with(json!({ kind: {} })).is_stateful(), "{kind}");
        }
        assert!(!with(json!({"emptyDir": {}, "nfs": null})).is_stateful());
    }
}
