//! Nodes, their pods and the budgets over them: what `node list`, `drain`, `fence` and `remove` decide by.

use super::ObjectRef;
use crate::Seen;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One node as the API has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// The object.
    pub object: ObjectRef,
    /// Zone (`topology.kubernetes.io/zone`), empty when it has none.
    pub zone: String,
    /// Roles from its labels, `control-plane` for one.
    pub roles: Vec<String>,
    /// Internal addresses.
    pub addresses: Vec<String>,
    /// Version of its kubelet.
    pub kubelet_version: String,
    /// Conditions.
    pub conditions: Vec<Condition>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Whether it is cordoned.
    pub unschedulable: bool,
    /// Since when it is cordoned, milliseconds since the Unix epoch, as the object's managed fields tell.
    pub cordoned_ms: Option<i64>,
    /// Who cordoned it (the field manager), empty when not told.
    pub cordoned_by: String,
    /// When its lease in `kube-node-lease` was renewed, milliseconds since the Unix epoch.
    pub lease_renewed_ms: Option<i64>,
    /// What came back when the API server was asked to reach the node's kubelet (`/healthz` through its proxy).
    pub kubelet: Reach,
}

/// One condition of a node or another object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Ready`
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Reason.
    pub reason: String,
    /// Message.
    pub message: String,
    /// When the status changed, milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
}

/// A taint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value, empty when it has none.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

/// What an API server found when it connected to a kubelet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Reach {
    /// Not asked: the node reports by itself.
    #[default]
    NotAsked,
    /// The kubelet answers that it is healthy.
    Healthy,
    /// The kubelet answers, and can't ask an API server whether it may say more: it is alive, and cut off.
    CannotAsk(String),
    /// The kubelet answers, and says that it is not.
    Unhealthy(String),
    /// The host refuses the connection: it runs, its kubelet does not.
    Refused(String),
    /// The host takes the connection, and nobody serves it: the kubelet's process is there and does nothing.
    Hung(String),
    /// Nothing answers: the host is off, or cut off.
    Silent(String),
    /// Could not be asked (not allowed, no such proxy).
    Unknown(String),
}

impl Node {
    /// Name.
    pub fn name(&self) -> &str {
        &self.object.name
    }

    /// The condition of that type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Whether `Ready` is `True`.
    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|ready| ready.status == "True")
    }

    /// Whether its kubelet is there: it is Ready, or its lease is not older than it may be (thresholds; none = not known).
    /// Either sign is enough: one that says that it is not Ready (its runtime is down) runs its pods all the same.
    pub fn has_kubelet(&self, thresholds: Option<&Thresholds>, now_ms: i64) -> bool {
        let lease = thresholds.zip(self.lease_renewed_ms);
        self.is_ready() || lease.is_some_and(|(thresholds, at)| thresholds.allow(at, now_ms))
    }

    /// Whether it has the taint with which an operator says that it is off.
    pub fn is_out_of_service(&self) -> bool {
        self.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE)
    }
}

/// The taint that says a node is off for certain: its pods are deleted by force and its volumes detached at once
/// (kubernetes.io, "Non-graceful node shutdown handling").
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What a node suffers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum NodeState {
    /// It works.
    Ready,
    /// It works under pressure.
    Pressure,
    /// It works, and is cordoned.
    Cordoned,
    /// Its host runs, its kubelet does not.
    KubeletDown,
    /// Its kubelet's process is there, and does nothing.
    KubeletFrozen,
    /// Its kubelet's client certificate has expired.
    CertificateExpired,
    /// Nothing of it answers: off, or cut off.
    HostSilent,
    /// It is alive and can't report: cut off from the API servers, or not let in.
    CutOff,
    /// Its kubelet says that the container runtime is down.
    RuntimeDown,
    /// Its kubelet says that the network plugin is not ready.
    NetworkNotReady,
    /// It says Ready, and has not renewed its lease.
    Stale,
    /// Not Ready for another reason, or for one that nothing tells.
    NotReady,
}

/// What is said of one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeVerdict {
    /// Name.
    pub name: String,
    /// State.
    pub state: NodeState,
    /// What tells it; empty when all is well.
    pub detail: String,
    /// Age of its lease in seconds, if it has one.
    pub lease_age_seconds: Option<i64>,
}

/// How long nodes may be silent, and from where that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Thresholds {
    /// After so many seconds without a renewed lease a node counts as not ready.
    pub grace_period_seconds: u64,
    /// From where: the pod and flag, or the default of the server's version.
    pub source: String,
}

impl Thresholds {
    /// Whether a lease that was renewed then still counts now; both in milliseconds since the Unix epoch.
    pub fn allow(&self, renewed_ms: i64, now_ms: i64) -> bool {
        let grace_ms =
            i64::try_from(self.grace_period_seconds).unwrap_or(i64::MAX / 1000).saturating_mul(1000);
        now_ms.saturating_sub(renewed_ms) <= grace_ms
    }
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// The object.
    pub object: ObjectRef,
    /// The node it is bound to, empty when none.
    pub node: String,
    /// Phase: `Running`.
    pub phase: String,
    /// Whether its `Ready` condition is true.
    pub ready: bool,
    /// When it was to be gone (deletion asked for, grace included), milliseconds since the Unix epoch.
    pub deleted_ms: Option<i64>,
    /// Its own grace period in seconds.
    pub grace_seconds: u64,
    /// Whether it is the image of a static pod.
    pub mirror: bool,
    /// The controller it belongs to.
    pub controller: Option<Owner>,
    /// Whether that controller is known not to exist any more.
    pub orphaned: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// emptyDir volumes.
    pub empty_dirs: Vec<EmptyDir>,
    /// Names of the volume claims it mounts, also of those made for it alone (`ephemeral`).
    pub claims: Vec<String>,
    /// Names of its volumes that are elsewhere and that it names itself (`nfs`, `iscsi`, `csi`, ...).
    pub network_volumes: Vec<String>,
    /// Finalizers.
    pub finalizers: Vec<String>,
}

impl Pod {
    /// Whether it has ended by itself.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Whether it keeps an identity or data that a second copy would harm: of a StatefulSet, or with a volume of its own.
    pub fn is_stateful(&self) -> bool {
        let of_set = self.controller.as_ref().is_some_and(|owner| owner.kind == "StatefulSet");
        of_set || !self.claims.is_empty() || !self.network_volumes.is_empty()
    }

    /// Whether it stays where its node stays: the image of a static pod, or of a DaemonSet.
    pub fn is_of_its_node(&self) -> bool {
        self.mirror || self.is_of_daemonset()
    }

    /// Whether a DaemonSet made it.
    pub fn is_of_daemonset(&self) -> bool {
        self.controller.as_ref().is_some_and(|owner| owner.kind == "DaemonSet")
    }
}

/// The controller of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// `apps/v1`
    pub api_version: String,
    /// `ReplicaSet`
    pub kind: String,
    /// Name.
    pub name: String,
}

/// An emptyDir volume of a pod: its data ends with the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDir {
    /// Name of the volume.
    pub name: String,
    /// Bytes in it, as the node's kubelet counts.
    pub used_bytes: Seen<u64>,
}

/// A PodDisruptionBudget with its status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// The object.
    pub object: ObjectRef,
    /// Which pods of its namespace it is over.
    pub selector: Selector,
    /// Whether pods that are not ready may always go (`unhealthyPodEvictionPolicy: AlwaysAllow`).
    pub unhealthy_may_go: bool,
    /// Pods that may go now.
    pub disruptions_allowed: i64,
    /// Healthy pods there are.
    pub current_healthy: i64,
    /// Healthy pods there must be.
    pub desired_healthy: i64,
    /// Pods there should be.
    pub expected_pods: i64,
}

impl Budget {
    /// Whether it permits nothing even when every pod is healthy: as many must be healthy as there are.
    pub fn never_permits(&self) -> bool {
        self.expected_pods > 0 && self.desired_healthy >= self.expected_pods
    }
}

/// A label selector (`metav1.LabelSelector`); the empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Selector {
    /// Labels with these values.
    pub match_labels: BTreeMap<String, String>,
    /// Expressions, all of which must hold.
    pub match_expressions: Vec<Requirement>,
}

/// One expression of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Requirement {
    /// Label.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// Values.
    #[serde(default)]
    pub values: Vec<String>,
}

impl Selector {
    /// Whether it selects an object with these labels. An operator that is not known selects nothing.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let equal = self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value));
        equal && self.match_expressions.iter().all(|one| one.holds(labels.get(&one.key)))
    }
}

impl Requirement {
    fn holds(&self, value: Option<&String>) -> bool {
        let listed = value.is_some_and(|value| self.values.contains(value));
        match self.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    }
}

/// What a drain does with a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainPod {
    /// The pod.
    pub pod: ObjectRef,
    /// The node it is on.
    pub node: String,
    /// What becomes of it.
    pub fate: Fate,
    /// The budget over it, if any.
    pub budget: Option<ObjectRef>,
    /// Its grace period in seconds: how long its end may take.
    pub grace_seconds: u64,
    /// emptyDir volumes whose data ends with it.
    pub empty_dirs: Vec<EmptyDir>,
    /// Why, for people; may be empty.
    pub why: String,
}

/// Which nodes a drain empties, and whose pods: by this it is told at its end whether they are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainScope {
    /// Names of the nodes.
    pub nodes: Vec<String>,
    /// Only pods that this label selector takes (`--pod-selector`); none = all.
    pub pod_selector: Option<String>,
    /// Whether pods of DaemonSets stay (`--ignore-daemonsets`).
    pub ignore_daemonsets: bool,
}

/// What becomes of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Fate {
    /// Its controller makes another one elsewhere.
    Moves,
    /// Nothing makes another one: it is gone for good.
    Lost,
    /// It has finished, or is being deleted already.
    Ends,
    /// A budget permits it as little now as later, unless somebody changes something.
    Blocked,
    /// It stays on the node.
    Stays,
}

/// How a pod is made to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum DrainMethod {
    /// The eviction API, which keeps budgets.
    Evict,
    /// Plain deletion, past all budgets (`--disable-eviction`).
    Delete,
}

#[cfg(test)]
mod tests {
    use super::*;

    // A budget's selector is read as the API server reads it, also where a label is missing.
    #[test]
    fn selectors_select_as_the_server_does() {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let expression = |key: &str, operator: &str, values: &[&str]| Selector {
            match_expressions: vec![Requirement {
                key: key.into(),
                operator: operator.into(),
                values: values.iter().map(|v| (*v).to_owned()).collect(),
            }],
            ..Selector::default()
        };
        assert!(Selector::default().selects(&labels));
        assert!(Selector { match_labels: labels.clone(), ..Selector::default() }.selects(&labels));
        assert!(expression("app", "In", &["web", "db"]).selects(&labels));
        assert!(!expression("app", "NotIn", &["web"]).selects(&labels));
        assert!(expression("tier", "NotIn", &["x"]).selects(&labels), "a missing label is in no list");
        assert!(expression("app", "Exists", &[]).selects(&labels));
        assert!(expression("tier", "DoesNotExist", &[]).selects(&labels));
        assert!(!expression("app", "Almost", &[]).selects(&labels));
    }
}
