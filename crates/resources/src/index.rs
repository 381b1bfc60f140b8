//! What a backup says of itself: `index.json`, written last. A folder without it is no backup.

use crate::error::{Error, Result};
use crate::kinds::Kind;
use crate::select::Selection;
use rekindle_world::cluster::Cluster;
use rekindle_world::provider;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Kind of the document.
pub const KIND: &str = "ResourceBackup";

/// A backup of resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// `rekindle/v1alpha1`.
    pub api_version: String,
    /// `ResourceBackup`.
    pub kind: String,
    /// Program and version that wrote it.
    pub program: String,
    /// When it began, ms since 1970.
    pub started_ms: i64,
    /// When the last object was read, ms since 1970.
    pub ended_ms: i64,
    /// Of which cluster it is.
    pub cluster: ClusterFacts,
    /// What was asked for.
    pub selection: Selection,
    /// To whom the Secrets are encrypted (age); empty when they lie in the clear.
    pub recipients: Vec<String>,
    /// Objects in it.
    pub objects: u64,
    /// Each kind that has objects in it.
    pub kinds: Vec<KindEntry>,
    /// What was left out on purpose, and why.
    pub left_out: Vec<LeftOut>,
    /// What could not be read. Not empty: the backup is partial.
    pub problems: Vec<Problem>,
    /// Folder beside this one with an earlier backup, which has what this one could not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// SHA-256 of the file `SHA256SUMS`, which has a line for each object.
    pub sums_sha256: String,
}

/// A cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterFacts {
    /// UID of its Namespace `kube-system`; none when it could not be read.
    pub uid: Option<String>,
    /// URL of its API server.
    pub server: String,
    /// Version of its API server.
    pub version: String,
    /// Whose managed service it is, where that was recognised.
    pub provider: Option<String>,
}

impl ClusterFacts {
    /// Asks the cluster. What it does not let us see is none.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn ask(cluster: &Cluster) -> Result<Self> {
        let (version, provider) =
            provider::ask(cluster).await.map_err(Error::cluster("ask the cluster for its version"))?;
        let namespace = match cluster.get("/api/v1/namespaces/kube-system").await {
            Ok(namespace) => namespace.unwrap_or_default(),
            Err(error) if error.status() == Some(403) => Value::Null,
            Err(error) => return Err(Error::cluster("ask the cluster who it is")(error)),
        };
        let uid = namespace.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned);
        let provider = provider.map(|provider| provider.name().to_owned());
        Ok(Self { uid, server: cluster.server().to_owned(), version, provider })
    }
}

/// A kind in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KindEntry {
    /// Which kind.
    #[serde(flatten)]
    pub of: Kind,
    /// Objects of it.
    pub objects: u64,
    /// The revision at which all of them were read: they are as they were at one moment. Several when they were read
    /// namespace by namespace.
    pub resource_versions: Vec<String>,
    /// How often its list was begun anew, because the revision it was of had been compacted away before its end.
    pub begun_anew: u32,
}

/// Something that was left out on purpose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// `resource.group`.
    pub what: String,
    /// Why.
    pub reason: String,
    /// How many objects; none when the whole kind was not read.
    pub objects: Option<u64>,
}

/// Something that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// `resource.group`, with its namespace where only that one failed; or `group/version` whose kinds are not known.
    pub what: String,
    /// Why not.
    pub why: String,
    /// The kind, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Kind>,
    /// The namespace, where only that one failed; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}
