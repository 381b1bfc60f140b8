//! Which types an API server serves: every group at its preferred version, with what could not be told.
//!
//! A group whose backend is dead fails alone: that is what `unstick` looks for, and what keeps namespaces from going.

use crate::cluster::{Cluster, ClusterError};
use futures::StreamExt as _;
use serde_json::Value;

/// Group versions asked side by side.
const AT_ONCE: usize = 8;

/// What is served.
#[derive(Clone, Debug, Default)]
pub struct Discovered {
    /// Types, without subresources.
    pub resources: Vec<Resource>,
    /// Group versions that did not answer, each with why.
    pub failed: Vec<(String, String)>,
}

/// One served type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// `apps`; empty for the core group.
    pub group: String,
    /// `v1`
    pub version: String,
    /// `deployments`
    pub plural: String,
    /// `Deployment`
    pub kind: String,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
    /// `get`, `list`, ...
    pub verbs: Vec<String>,
}

impl Resource {
    /// Whether a verb is served.
    #[must_use]
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|one| one == verb)
    }

    /// `deployments.apps`, as in messages of the API server.
    #[must_use]
    pub fn full_name(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Path of its collection: of a namespace, or of all.
    #[must_use]
    pub fn collection(&self, namespace: Option<&str>) -> String {
        let group = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{group}/namespaces/{namespace}/{}", self.plural),
            None => format!("{group}/{}", self.plural),
        }
    }
}

/// Asks for everything served.
///
/// # Errors
/// The list of groups itself can't be read.
pub async fn discover(cluster: &Cluster) -> Result<Discovered, ClusterError> {
    let groups = cluster.get("/apis").await?.unwrap_or_default();
    let mut versions = vec![(String::new(), "v1".to_owned())];
    for group in groups.get("groups").and_then(Value::as_array).into_iter().flatten() {
        versions.push((text(group, "/name"), text(group, "/preferredVersion/version")));
    }
    let asked = futures::stream::iter(versions).map(|(group, version)| async move {
        let path =
            if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let answer = cluster.get(&path).await;
        (group, version, answer)
    });
    let mut found = Discovered::default();
    for (group, version, answer) in asked.buffered(AT_ONCE).collect::<Vec<_>>().await {
        match answer {
            Ok(Some(list)) => found.resources.extend(resources(&group, &version, &list)),
            Ok(None) => found.failed.push((format!("{group}/{version}"), "it is not served (404)".into())),
            Err(error) => {
                found.failed.push((format!("{group}/{version}"), rekindle_model::seen::chain(&error)));
            }
        }
    }
    Ok(found)
}

fn resources(group: &str, version: &str, list: &Value) -> Vec<Resource> {
    let listed = list.get("resources").and_then(Value::as_array).into_iter().flatten();
    let whole = listed.filter(|one| !text(one, "/name").contains('/'));
    whole
        .map(|one| Resource {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: text(one, "/name"),
            kind: text(one, "/kind"),
            namespaced: one.get("namespaced").and_then(Value::as_bool).unwrap_or_default(),
            verbs: one
                .get("verbs")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|verb| verb.as_str().map(str::to_owned))
                .collect(),
        })
        .collect()
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
