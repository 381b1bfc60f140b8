//! Findings: what is wrong, by what evidence, why, and what to do; and the check lines they are shown under.

use crate::HostId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Will hurt, or already does a little.
    Warning,
    /// Broken.
    Failure,
}

/// Layers, from the lowest: the lowest failing one holds the root cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Layer {
    /// Host: reachable, disk, clock.
    Host,
    /// Certificates and keys.
    Certificates,
    /// Container runtime.
    Runtime,
    /// kubelet.
    Kubelet,
    /// Static pods and units of the control plane.
    ControlPlane,
    /// etcd.
    Etcd,
    /// API server on its own host.
    ApiServer,
    /// The address in front of the API servers.
    Vip,
    /// Leader leases of controller-manager and scheduler.
    Leases,
    /// Nodes.
    Nodes,
    /// Objects of the API that will not go away, or keep others from working.
    Objects,
}

impl Layer {
    /// Title for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Certificates => "certificates",
            Self::Runtime => "container runtime",
            Self::Kubelet => "kubelet",
            Self::ControlPlane => "control plane",
            Self::Etcd => "etcd",
            Self::ApiServer => "api server",
            Self::Vip => "control-plane endpoint",
            Self::Leases => "leader leases",
            Self::Nodes => "nodes",
            Self::Objects => "api objects",
        }
    }
}

/// A quoted line and where it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// File, journal, object or call, with its host, for example `root@10.0.0.1:/var/lib/etcd/member/snap/db`.
    pub source: String,
    /// The text as read.
    pub text: String,
}

/// Something found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Stable code, `RK-E03`.
    pub code: String,
    /// How bad.
    pub severity: Severity,
    /// Layer.
    pub layer: Layer,
    /// Host it is about; none = the cluster.
    pub host: Option<HostId>,
    /// One line for people: what is wrong with what.
    pub summary: String,
    /// What it rests on: never empty.
    pub evidence: Vec<Evidence>,
    /// Index (in the report's findings) of the finding this follows from; none = a root cause.
    pub caused_by: Option<usize>,
    /// What to do.
    pub remedy: String,
}

/// Result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CheckResult {
    /// Fine.
    Ok,
    /// Fine, with a warning.
    Warning,
    /// Failed.
    Failed,
    /// Could not be told.
    Unknown,
}

/// One line of `rekindle check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckLine {
    /// Layer it stands under.
    pub layer: Layer,
    /// Host; none = the cluster.
    pub host: Option<HostId>,
    /// What was checked, in a few words: `etcd member answers and is in quorum`.
    pub title: String,
    /// Result.
    pub result: CheckResult,
    /// What was seen, or why it is unknown; may be empty for ok.
    pub detail: String,
    /// Index of the finding behind it.
    pub finding: Option<usize>,
}
