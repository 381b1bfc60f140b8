//! Which resources the restored API server serves out of its store, and how each is listed.

use crate::failure::{Doing, Failure};
use rekindle_world::cluster::Cluster;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

/// A resource of the API.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Resource {
    /// `/apis/apps/v1/deployments`
    pub(super) path: String,
    /// As it is stored: `deployments`.
    pub(super) stored_as: String,
    /// What defines it, when that is a CustomResourceDefinition.
    pub(super) custom: Option<Custom>,
}

/// What matters of a CustomResourceDefinition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Custom {
    /// The API server had accepted its names when the backup was taken; else it serves nothing.
    pub(super) established: bool,
    /// Its versions are converted by a webhook, which can't be reached from here.
    pub(super) by_webhook: bool,
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    preferred_version: Option<Version>,
    versions: Vec<Version>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Version {
    group_version: String,
}

#[derive(Deserialize)]
pub(super) struct Resources {
    pub(super) resources: Vec<Named>,
}

#[derive(Deserialize)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) kind: String,
    #[serde(default)]
    pub(super) namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}

#[derive(Deserialize)]
struct List<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Deserialize)]
struct ApiService {
    spec: ApiServiceSpec,
}

#[derive(Deserialize)]
struct ApiServiceSpec {
    #[serde(default)]
    group: String,
    version: String,
    service: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Definition {
    spec: DefinitionSpec,
    #[serde(default)]
    status: DefinitionStatus,
}

#[derive(Deserialize)]
struct DefinitionSpec {
    group: String,
    names: Names,
    #[serde(default)]
    versions: Vec<DefinedVersion>,
    conversion: Option<Conversion>,
}

#[derive(Deserialize)]
struct Names {
    plural: String,
}

#[derive(Deserialize)]
struct DefinedVersion {
    name: String,
    served: bool,
    storage: bool,
}

#[derive(Deserialize)]
struct Conversion {
    strategy: String,
}

#[derive(Default, Deserialize)]
struct DefinitionStatus {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

/// Listed though not stored.
const NOT_STORED: &str = "componentstatuses";

async fn read<T: DeserializeOwned>(cluster: &Cluster, path: &str) -> Result<T, Failure> {
    let doing = || format!("cannot read {path} of the restored API server");
    let value = cluster.get(path).await.doing(doing)?.ok_or_else(|| Failure::new(doing()))?;
    serde_json::from_value(value).doing(doing)
}

/// The resources of one group and version (`v1`, `apps/v1`).
pub(super) async fn of_version(cluster: &Cluster, group_version: &str) -> Result<Resources, Failure> {
    read(cluster, &root(group_version)).await
}

/// Where a group and version is served.
pub(super) fn root(group_version: &str) -> String {
    match group_version.split_once('/') {
        Some((group, version)) => format!("/apis/{group}/{version}"),
        None => format!("/api/{group_version}"),
    }
}

/// What is served, each resource once, in its preferred version, as of `revision`.
pub(super) async fn all(cluster: &Cluster, revision: i64) -> Result<Vec<Resource>, Failure> {
    let at = format!("?resourceVersion={revision}&resourceVersionMatch=Exact");
    let services: List<ApiService> =
        read(cluster, &format!("/apis/apiregistration.k8s.io/v1/apiservices{at}")).await?;
    // served by other API servers, which are not here; what they serve is not in this store
    let aggregated: BTreeSet<String> = services
        .items
        .iter()
        .filter(|service| service.spec.service.is_some())
        .map(|service| format!("{}/{}", service.spec.group, service.spec.version))
        .collect();
    let definitions: List<Definition> =
        read(cluster, &format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions{at}")).await?;
    let custom: Vec<Resource> = definitions.items.iter().filter_map(custom).collect();
    let mut found: BTreeMap<String, Resource> =
        custom.into_iter().map(|resource| (resource.stored_as.clone(), resource)).collect();
    let groups: Groups = read(cluster, "/apis").await?;
    let mut versions = vec!["v1".to_owned()];
    for group in groups.groups {
        let preferred = group.preferred_version.into_iter();
        versions.extend(preferred.chain(group.versions).map(|version| version.group_version));
    }
    let mut seen = BTreeSet::new();
    versions.retain(|version| !aggregated.contains(version) && seen.insert(version.clone()));
    for version in versions {
        let group = version.split_once('/').map_or("", |(group, _)| group);
        for named in of_version(cluster, &version).await?.resources {
            let listed = named.verbs.iter().any(|verb| verb == "list") && !named.name.contains('/');
            let defined = found.contains_key(&kube_storage::stored_as(group, &named.name, true));
            if !listed || defined || named.name == NOT_STORED {
                continue;
            }
            let stored_as = kube_storage::stored_as(group, &named.name, false);
            let path = format!("{}/{}", root(&version), named.name);
            found.entry(stored_as.clone()).or_insert(Resource { path, stored_as, custom: None });
        }
    }
    Ok(found.into_values().collect())
}

fn custom(definition: &Definition) -> Option<Resource> {
    let spec = &definition.spec;
    let served = || spec.versions.iter().filter(|version| version.served);
    // in the version that is stored nothing has to be converted, if all were written since that became it
    let version = served().find(|version| version.storage).or_else(|| served().next())?;
    let (group, plural) = (&spec.group, &spec.names.plural);
    let is = |condition: &Condition| condition.r#type == "Established" && condition.status == "True";
    Some(Resource {
        path: format!("/apis/{group}/{}/{plural}", version.name),
        stored_as: kube_storage::stored_as(group, plural, true),
        custom: Some(Custom {
            established: definition.status.conditions.iter().any(is),
            by_webhook: spec.conversion.as_ref().is_some_and(|conversion| conversion.strategy == "Webhook"),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // The storage version is taken where it is served: an older one may need a webhook that is not there.
    #[test]
    fn definitions_are_listed_as_they_are_stored() {
        let definition: Definition = serde_json::from_value(serde_json::json!({
            "spec": {
                "group": "shop.example.org", "names": {"plural": "orders"}, "conversion": {"strategy": "Webhook"},
                "versions": [
                    {"name": "v1alpha1", "served": true, "storage": false},
                    {"name": "v1", "served": true, "storage": true},
                ],
            },
            "status": {"conditions": [{"type": "Established", "status": "True"}]},
        }))
        .unwrap();
        let resource = custom(&definition).unwrap();
        assert_eq!(resource.path, "/apis/shop.example.org/v1/orders");
        assert_eq!(resource.stored_as, "shop.example.org/orders");
        assert_eq!(resource.custom, Some(Custom { established: true, by_webhook: true }));
    }
}
