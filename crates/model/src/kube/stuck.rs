//! Objects that will not go away, or that keep others from working: who holds them, and what that protects.

use super::ObjectRef;
use super::nodes::{Node, Pod, Thresholds};
use crate::Seen;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kinds `unstick` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StuckKind {
    /// A pod that is Terminating past its grace period.
    Pod,
    /// A namespace that is Terminating.
    Namespace,
    /// A CustomResourceDefinition that is Terminating, or whose conversion webhook does not answer.
    Crd,
    /// A volume or a claim that is Terminating.
    Pvc,
    /// An admission webhook without a backend.
    Webhook,
    /// An APIService that is not available.
    ApiService,
}

impl StuckKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Pod, Self::Namespace, Self::Crd, Self::Pvc, Self::Webhook, Self::ApiService];
}

/// Everything read for `unstick`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StuckFacts {
    /// When it was read, milliseconds since the Unix epoch.
    pub taken_ms: i64,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// How long they may be silent; none = not looked at.
    pub thresholds: Option<Thresholds>,
    /// Pods that are being deleted.
    pub pods: Vec<Pod>,
    /// Objects being deleted that have finalizers, and namespaces being deleted: with what is left in them.
    pub terminating: Vec<Terminating>,
    /// APIServices of a backend that are not available.
    pub api_services: Vec<DeadApiService>,
    /// Conversion webhooks whose backend is gone or not ready.
    pub conversions: Vec<DeadConversion>,
    /// Admission webhooks whose backend is gone or not ready.
    pub webhooks: Vec<DeadWebhook>,
    /// What could not be read, and why.
    pub unread: Vec<String>,
}

/// An object that is being deleted and is held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Terminating {
    /// Which of the kinds asked for it stands under.
    pub under: StuckKind,
    /// The object.
    pub object: ObjectRef,
    /// When its deletion was asked for, milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// What its status says about it, as `Reason: message`.
    pub said: Vec<String>,
    /// What is left in it and held by finalizers (objects of a namespace, of a CRD).
    pub contents: Vec<Held>,
    /// What is left in it, being deleted or not, without a finalizer of its own.
    pub others: usize,
    /// Pods that use it (a claim).
    pub users: Vec<String>,
    /// Pods that are left in it (a namespace).
    pub pods: Seen<Vec<Pod>>,
}

/// An object held by finalizers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The object.
    pub object: ObjectRef,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// Who wrote them (field managers), when the object tells.
    pub managers: Vec<String>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The controller that wrote the finalizer, where it is found and scaled to none: starting it is the repair.
    pub controller: Option<ObjectRef>,
}

/// Where a backend stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Namespace of the service.
    pub namespace: String,
    /// Name of the service.
    pub service: String,
    /// Whether the service exists.
    pub exists: bool,
    /// Ready addresses behind it.
    pub ready_addresses: usize,
    /// A Deployment whose pods the service selects and that is scaled to none: starting it is the repair.
    pub scaled_down: Option<ObjectRef>,
}

impl Backend {
    /// `namespace/service`
    pub fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.service)
    }

    /// What is wrong with it, in words.
    pub fn fault(&self) -> String {
        match (&self.scaled_down, self.exists) {
            (_, false) => format!("service {} does not exist", self.name()),
            (Some(down), _) => {
                format!("service {} has no ready address: {} is scaled to 0", self.name(), down)
            }
            _ => format!("service {} has no ready address", self.name()),
        }
    }
}

/// An APIService that is not available.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadApiService {
    /// The object.
    pub object: ObjectRef,
    /// Its Available condition, as `Reason: message`.
    pub said: String,
    /// Its backend.
    pub backend: Backend,
}

/// A CRD whose conversion webhook does not answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadConversion {
    /// The CRD.
    pub object: ObjectRef,
    /// Its backend.
    pub backend: Backend,
    /// `spec.conversion`, as it is.
    pub conversion: serde_json::Value,
    /// `status.storedVersions`.
    pub stored_versions: Vec<String>,
    /// The version objects are stored in.
    pub storage_version: String,
    /// Versions that are served.
    pub served_versions: Vec<String>,
}

/// One admission webhook without a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadWebhook {
    /// The configuration it stands in.
    pub object: ObjectRef,
    /// Its place in the configuration's list.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// `Fail` or `Ignore`.
    pub failure_policy: String,
    /// What it is asked about: `pods, deployments.apps`.
    pub resources: Vec<String>,
    /// Seconds each request waits for it.
    pub timeout_seconds: i64,
    /// Its backend.
    pub backend: Backend,
}

/// Something that is stuck: what it is, who holds it, and the ways out, the safest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stuck {
    /// Kind.
    pub kind: StuckKind,
    /// The object.
    pub object: ObjectRef,
    /// Since when, milliseconds since the Unix epoch, where it is known.
    pub since_ms: Option<i64>,
    /// Code, evidence, remedy.
    pub finding: crate::finding::Finding,
    /// Who holds it, and what that protects: one line each.
    pub holders: Vec<String>,
    /// Ways out, the safest first.
    pub ladder: Vec<Rung>,
}

/// One way out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rung {
    /// What is done, and why it is safe or what it costs.
    pub text: String,
    /// What Rekindle can do of it.
    pub action: Action,
}

/// What can be done by Rekindle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "action")]
pub enum Action {
    /// Nothing: a person or another verb must.
    ByHand,
    /// Start the controller or backend again: Deployments without replicas get one.
    ScaleUp {
        /// The Deployments.
        deployments: Vec<ObjectRef>,
    },
    /// Take the finalizers off these objects.
    RemoveFinalizers {
        /// The objects.
        held: Vec<Held>,
    },
    /// Delete the pod without waiting for its kubelet.
    ForceDelete,
    /// Delete the object itself: its backend is gone.
    Delete,
    /// Let the CRD convert without its webhook.
    NoConversion {
        /// `spec.conversion` as it is.
        conversion: serde_json::Value,
    },
    /// Let requests pass while the webhook does not answer.
    Ignore {
        /// The webhook's place in its configuration.
        index: usize,
        /// Its name.
        name: String,
    },
}
