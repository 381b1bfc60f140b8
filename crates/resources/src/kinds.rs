//! Which kinds an API server has: aggregated discovery, one request for the core group and one for all others.
//!
//! Source: `k8s.io/api/apidiscovery/v2`; served by default since Kubernetes 1.27, stable since 1.30.

use crate::error::{Error, Result};
use rekindle_world::cluster::Cluster;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write as _;

const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                      application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// One kind in one version of its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Kind {
    /// API group; empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// `Deployment`.
    pub kind: String,
    /// The plural of the path: `deployments`.
    pub resource: String,
    /// Whether its objects lie in namespaces.
    pub namespaced: bool,
    /// What else it is called: singular and short names.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Verbs that the server has for it.
    #[serde(skip)]
    pub verbs: Vec<String>,
    /// It has a subresource `status`: without one, `status` is a field like others.
    #[serde(default)]
    pub has_status: bool,
}

impl Kind {
    /// `deployments.apps`; `secrets` in the core group.
    #[must_use]
    pub fn name(&self) -> String {
        if self.group.is_empty() {
            self.resource.clone()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }

    /// `apps/v1`; `v1` in the core group.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The path of all its objects, or of those of one namespace.
    #[must_use]
    pub fn collection(&self, namespace: &str) -> String {
        let root = if self.group.is_empty() { "api" } else { "apis" };
        let api_version = self.api_version();
        if namespace.is_empty() || !self.namespaced {
            format!("/{root}/{api_version}/{}", self.resource)
        } else {
            format!("/{root}/{api_version}/namespaces/{}/{}", encoded(namespace), self.resource)
        }
    }

    /// The path of one object.
    #[must_use]
    pub fn object(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.collection(namespace), encoded(name))
    }

    fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// Whether a person means it by `text`: resource, kind, singular or short name, any of them with the group behind a
    /// dot, or `*.GROUP`.
    #[must_use]
    pub fn is_called(&self, text: &str) -> bool {
        let text = text.to_ascii_lowercase();
        let (name, group) = text.split_once('.').map_or((&*text, None), |(name, group)| (name, Some(group)));
        if group.is_some_and(|group| group != self.group) {
            return false;
        }
        let own = [self.resource.as_str(), self.kind.as_str()];
        let mut names = own.into_iter().chain(self.aliases.iter().map(String::as_str));
        (name == "*" && group.is_some()) || names.any(|own| own.eq_ignore_ascii_case(name))
    }
}

/// A path segment as it stands in a URL: names of RBAC objects may hold anything but `/` and `%`.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// What the API server has.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    /// Every kind in every version served, the preferred version of a group first.
    pub all: Vec<Kind>,
    /// Groups and versions whose server does not answer: their kinds may be missing above.
    pub silent: Vec<String>,
}

impl Kinds {
    /// Asks the API server.
    ///
    /// # Errors
    /// When it does not answer, or has no aggregated discovery (before Kubernetes 1.27).
    pub async fn discover(cluster: &Cluster) -> Result<Self> {
        let mut kinds = Self::default();
        for path in ["/api", "/apis"] {
            let doing = || format!("ask for the kinds at {path}");
            let body = cluster.bytes_as(path, ACCEPT).await.map_err(Error::cluster(doing()))?;
            let answer: Answer = serde_json::from_slice(&body)
                .map_err(|error| Error::Answer { doing: doing(), why: error.to_string() })?;
            if answer.kind != "APIGroupDiscoveryList" {
                let why = "no aggregated discovery; Kubernetes has it since 1.27".to_owned();
                return Err(Error::Answer { doing: doing(), why });
            }
            answer.items.into_iter().for_each(|group| kinds.add(group));
        }
        Ok(kinds)
    }

    fn add(&mut self, group: Group) {
        let name = group.metadata.name;
        for version in group.versions {
            if version.freshness == "Stale" {
                self.silent.push(format!("{name}/{}", version.version));
            }
            for resource in version.resources {
                let Some(response) = resource.response_kind else { continue };
                let aliases = resource.short_names.into_iter().chain([resource.singular_resource]);
                self.all.push(Kind {
                    group: name.clone(),
                    version: version.version.clone(),
                    kind: response.kind,
                    resource: resource.resource,
                    namespaced: resource.scope == "Namespaced",
                    aliases: aliases.filter(|alias| !alias.is_empty()).collect(),
                    verbs: resource.verbs,
                    has_status: resource.subresources.iter().any(|s| s.subresource == "status"),
                });
            }
        }
    }

    /// Each kind that can be listed and read, once: in the preferred version of its group, or in the first that has it.
    #[must_use]
    pub fn listable(&self) -> Vec<Kind> {
        once(self.all.iter().filter(|kind| kind.can("list") && kind.can("get")))
    }

    /// Each kind that can be listed, but not read, in no version of its group.
    pub(crate) fn list_only(&self) -> Vec<Kind> {
        let listable = self.listable();
        let is_listable = |kind: &Kind| listable.iter().any(|l| l.name() == kind.name());
        once(self.all.iter().filter(|kind| kind.can("list") && !is_listable(kind)))
    }

    /// The kind of an object by its `apiVersion` and `kind`.
    #[must_use]
    pub fn of(&self, api_version: &str, kind: &str) -> Option<&Kind> {
        let (group, version) = split(api_version);
        self.all.iter().find(|k| k.group == group && k.version == version && k.kind == kind)
    }

    /// The kind in the preferred version of its group: an owner is named with any version.
    #[must_use]
    pub fn of_group(&self, group: &str, kind: &str) -> Option<&Kind> {
        self.all.iter().find(|k| k.group == group && k.kind == kind)
    }
}

fn once<'a>(kinds: impl Iterator<Item = &'a Kind>) -> Vec<Kind> {
    let mut seen = BTreeSet::new();
    kinds.filter(|kind| seen.insert((&kind.group, &kind.resource))).cloned().collect()
}

/// `apps/v1` -> `apps`, `v1`; `v1` -> ``, `v1`.
pub(crate) fn split(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<Resource>,
    #[serde(default)]
    freshness: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    resource: String,
    response_kind: Option<ResponseKind>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    singular_resource: String,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    subresources: Vec<Subresource>,
}

#[derive(Deserialize)]
struct ResponseKind {
    kind: String,
}

#[derive(Deserialize)]
struct Subresource {
    subresource: String,
}

#[cfg(test)]
pub(crate) fn for_tests(group: &str, version: &str, kind: &str, resource: &str, namespaced: bool) -> Kind {
    Kind {
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
        resource: resource.into(),
        namespaced,
        aliases: Vec::new(),
        verbs: vec!["list".into(), "get".into()],
        has_status: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // People type kinds as kubectl takes them.
    #[test]
    fn a_kind_goes_by_many_names() {
        let mut kind = for_tests("apps", "v1", "Deployment", "deployments", true);
        kind.aliases = vec!["deploy".into(), "deployment".into()];
        for text in ["deployments", "Deployment", "deploy", "deployments.apps", "Deployment.apps", "*.apps"] {
            assert!(kind.is_called(text), "{text}");
        }
        for text in ["deployments.extensions", "*", "deployments.app", "pods", ""] {
            assert!(!kind.is_called(text), "{text}");
        }
        assert_eq!(
            kind.object("a b", "system:x/y"),
            "/apis/apps/v1/namespaces/a%20b/deployments/system:x%2Fy"
        );
    }

    // A resource that only an older version of its group has is not forgotten, and none is listed twice.
    #[test]
    fn each_kind_is_listed_once() {
        let kinds = Kinds {
            all: vec![
                for_tests("x.io", "v1", "A", "as", true),
                for_tests("x.io", "v1beta1", "A", "as", true),
                for_tests("x.io", "v1beta1", "B", "bs", false),
            ],
            silent: Vec::new(),
        };
        let names: Vec<_> = kinds.listable().iter().map(|k| format!("{} {}", k.kind, k.version)).collect();
        assert_eq!(names, ["A v1", "B v1beta1"]);
        assert_eq!(kinds.of("x.io/v1beta1", "A").unwrap().version, "v1beta1");
        assert!(kinds.of("x.io/v2", "A").is_none());
    }

    // An aggregated API server lists a kind whose objects it gives to nobody: it is known, not just missing.
    #[test]
    fn a_kind_that_can_only_be_listed_is_told() {
        let mut kinds = Kinds::default();
        for (resource, verbs) in [("as", vec!["list", "get"]), ("bs", vec!["list"]), ("cs", vec!["create"])] {
            for version in ["v1", "v1beta1"] {
                let mut kind = for_tests("x.io", version, "X", resource, true);
                kind.verbs = verbs.iter().map(|verb| (*verb).to_owned()).collect();
                kinds.all.push(kind);
            }
        }
        let names = |kinds: Vec<Kind>| kinds.iter().map(Kind::name).collect::<Vec<_>>();
        assert_eq!(names(kinds.listable()), ["as.x.io"]);
        assert_eq!(names(kinds.list_only()), ["bs.x.io"]);
    }
}
