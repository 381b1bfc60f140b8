//! What is seen and changed through the Kubernetes API: which cluster, which object, and changes that can be inverted.
//!
//! Facts the planner decides by: [`nodes`] (nodes, pods, budgets) and [`stuck`] (objects that will not go away).

pub mod change;
pub mod nodes;
pub mod stuck;

pub use change::Change;

use crate::HostPath;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The cluster a plan works on through its API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRef {
    /// kubeconfig on the machine Rekindle runs on; none = the usual places.
    pub kubeconfig: Option<HostPath>,
    /// Context of it; none = the current one.
    pub context: Option<String>,
    /// URL of the API server when the plan was made, for people: the UID decides.
    pub server: String,
    /// UID of the `kube-system` namespace: a run refuses to work on a cluster with another one.
    pub kube_system_uid: String,
}

/// One object, by where it is served and its UID: a later object of the same name is another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// Path of the collection it is in: `/api/v1/namespaces/shop/pods`.
    pub collection: String,
    /// Kind: `Pod`.
    pub kind: String,
    /// Namespace; none for objects of the cluster.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

impl ObjectRef {
    /// Path of the object.
    pub fn path(&self) -> String {
        format!("{}/{}", self.collection, self.name)
    }

    /// Namespace and name as people write them: `shop/web-1`, or the name alone.
    pub fn full_name(&self) -> String {
        self.namespace.as_ref().map_or_else(|| self.name.clone(), |ns| format!("{ns}/{}", self.name))
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.full_name())
    }
}
