//! Every object of every resource, listed through the API at the restored revision and compared with what lies in the store:
//! the key, the revision that wrote it, and its UID. Page by page: memory for one resource's keys.

use super::native::{Native, Objects, Stored};
use super::served::{self, Resource};
use crate::commands::drill::report::{Check, Sentinel};
use crate::failure::Failure;
use http::Method;
use rekindle_world::cluster::{Cluster, ClusterError, Sent};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// Objects of a page.
const PAGE: usize = 500;
/// So long an API server may take to serve a CustomResourceDefinition after it is ready.
const SERVED_PATIENCE: Duration = Duration::from_secs(120);
/// Differences that are named.
const NAMED: usize = 3;
/// What API servers keep for themselves.
const INTERNAL: [&str; 6] = [
    "ranges/serviceips",
    "ranges/servicenodeports",
    "ranges/secondaryserviceips",
    "masterleases",
    "peerserverleases",
    "health",
];

/// What the comparison came to.
pub(super) struct Compared {
    pub(super) objects: u64,
    pub(super) sentinels: Vec<Sentinel>,
    pub(super) checks: Vec<Check>,
}

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct Page<T> {
    metadata: PageMeta,
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Deserialize)]
struct PageMeta {
    #[serde(default)]
    r#continue: String,
}

#[derive(Deserialize)]
struct Item {
    metadata: Meta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: String,
    #[serde(default)]
    namespace: String,
    uid: Option<String>,
    resource_version: String,
    creation_timestamp: Option<jiff::Timestamp>,
}

#[derive(Deserialize)]
struct Lease {
    metadata: Meta,
    #[serde(default)]
    spec: LeaseSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LeaseSpec {
    renew_time: Option<jiff::Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    metadata: Meta,
    last_timestamp: Option<jiff::Timestamp>,
    event_time: Option<jiff::Timestamp>,
}

impl Meta {
    fn key(&self) -> String {
        if self.namespace.is_empty() {
            self.name.clone()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }
}

/// Compares all.
pub(super) async fn all(cluster: &Cluster, native: &Native, revision: i64) -> Result<Compared, Failure> {
    let resources = served::all(cluster, revision).await?;
    let mut work = Work { cluster, revision, ..Work::begin(cluster) };
    for resource in &resources {
        let expected = native.resources.get(&resource.stored_as);
        work.compare(resource, expected.unwrap_or(&Objects::new())).await;
    }
    let listed: BTreeSet<&str> = resources.iter().map(|resource| resource.stored_as.as_str()).collect();
    let not_listed = native
        .resources
        .iter()
        .filter(|(stored, _)| !listed.contains(stored.as_str()) && !INTERNAL.contains(&stored.as_str()));
    let not_listed: Vec<String> =
        not_listed.map(|(stored, objects)| format!("{} of {stored}", objects.len())).collect();
    Ok(work.told(resources.len(), &not_listed))
}

struct Work<'a> {
    cluster: &'a Cluster,
    revision: i64,
    objects: u64,
    different: Vec<String>,
    refused: Vec<String>,
    not_proved: Vec<String>,
    newest: [Option<Sentinel>; 3],
}

impl<'a> Work<'a> {
    fn begin(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            revision: 0,
            objects: 0,
            different: Vec::new(),
            refused: Vec::new(),
            not_proved: Vec::new(),
            newest: [None, None, None],
        }
    }

    async fn compare(&mut self, resource: &Resource, expected: &Objects) {
        if resource.custom.is_some_and(|custom| !custom.established) {
            self.not_proved.push(format!("{}: its definition was not established", resource.stored_as));
            return;
        }
        match self.list(resource, expected).await {
            Ok(lost) => self.different.extend(lost),
            Err(error) if resource.custom.is_some_and(|custom| custom.by_webhook) => {
                let why = "a webhook converts it, which can't be reached from here";
                self.not_proved.push(format!("{}: {why} ({error})", resource.stored_as));
            }
            Err(error) => self.refused.push(format!("{}: {error}", resource.stored_as)),
        }
    }

    /// Lists one resource; what differs.
    async fn list(&mut self, resource: &Resource, expected: &Objects) -> Result<Vec<String>, ClusterError> {
        let (mut missing, mut different) = (expected.clone(), Vec::new());
        let mut page_token = String::new();
        loop {
            // a page that is asked for by its token is of the first page's revision
            let path = if page_token.is_empty() {
                let at = format!("resourceVersion={}&resourceVersionMatch=Exact", self.revision);
                format!("{}?limit={PAGE}&{at}", resource.path)
            } else {
                format!("{}?limit={PAGE}&continue={}", resource.path, escaped(&page_token))
            };
            let body = self.page(resource, &path).await?;
            let (items, next) = self.items(&resource.stored_as, &body, &path)?;
            for meta in items {
                self.objects += 1;
                let (key, uid) = (meta.key(), meta.uid);
                let stored = Stored { mod_revision: meta.resource_version.parse().unwrap_or(0), uid };
                let fits = missing.remove(&key).is_some_and(|expected| {
                    expected.mod_revision == stored.mod_revision
                        && (expected.uid.is_none() || expected.uid == stored.uid)
                });
                if !fits {
                    different
                        .push(format!("{} {key} is served otherwise than it is stored", resource.stored_as));
                }
            }
            if next.is_empty() {
                break;
            }
            page_token = next;
        }
        different.extend(missing.keys().map(|key| format!("{} {key} is not served", resource.stored_as)));
        Ok(different)
    }

    async fn page(&self, resource: &Resource, path: &str) -> Result<Vec<u8>, ClusterError> {
        let since = Instant::now();
        loop {
            match self.cluster.bytes(&Method::GET, path, Sent::Nothing).await {
                // a definition takes a moment to be served
                Err(error)
                    if error.status() == Some(404)
                        && resource.custom.is_some()
                        && since.elapsed() < SERVED_PATIENCE =>
                {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                answer => return answer,
            }
        }
    }

    /// The items of a page, and the token of the next.
    fn items(
        &mut self,
        stored_as: &str,
        body: &[u8],
        path: &str,
    ) -> Result<(Vec<Meta>, String), ClusterError> {
        let bad = |source| ClusterError::NotJson { what: format!("GET {path}"), source };
        let (metas, next): (Vec<Meta>, String) = match stored_as {
            "leases" => {
                let page: Page<Lease> = serde_json::from_slice(body).map_err(bad)?;
                for lease in &page.items {
                    self.sentinel(0, "lease renewed", stored_as, &lease.metadata, lease.spec.renew_time);
                }
                (page.items.into_iter().map(|lease| lease.metadata).collect(), page.metadata.r#continue)
            }
            "events" => {
                let page: Page<Event> = serde_json::from_slice(body).map_err(bad)?;
                for event in &page.items {
                    let at = event.last_timestamp.max(event.event_time);
                    self.sentinel(1, "event", stored_as, &event.metadata, at);
                }
                (page.items.into_iter().map(|event| event.metadata).collect(), page.metadata.r#continue)
            }
            _ => {
                let page: Page<Item> = serde_json::from_slice(body).map_err(bad)?;
                (page.items.into_iter().map(|item| item.metadata).collect(), page.metadata.r#continue)
            }
        };
        for meta in &metas {
            self.sentinel(2, "object created", stored_as, meta, meta.creation_timestamp);
        }
        Ok((metas, next))
    }

    fn sentinel(
        &mut self,
        place: usize,
        what: &str,
        resource: &str,
        meta: &Meta,
        at: Option<jiff::Timestamp>,
    ) {
        let (Some(at), Some(newest)) = (at, self.newest.get_mut(place)) else { return };
        let at_ms = at.as_millisecond();
        if newest.as_ref().is_none_or(|newest| newest.at_ms < at_ms) {
            *newest =
                Some(Sentinel { what: what.into(), object: format!("{resource} {}", meta.key()), at_ms });
        }
    }

    fn told(self, resources: usize, not_listed: &[String]) -> Compared {
        let mut checks = Vec::new();
        let every = "every stored object is served: key, revision and UID are equal";
        let counted = format!("{} objects of {resources} resources", self.objects);
        checks.push(match self.different.as_slice() {
            [] => Check::passed(every, counted),
            different => Check::failed(every, some(different)),
        });
        let decodes = "every kind that is stored can be listed";
        checks.push(match self.refused.as_slice() {
            [] => Check::passed(decodes, format!("{resources} resources")),
            refused => Check::failed(decodes, some(refused)),
        });
        if !self.not_proved.is_empty() {
            checks.push(Check::not_proved("every custom resource can be listed", some(&self.not_proved)));
        }
        if !not_listed.is_empty() {
            let why = "this API server serves no such resources, or has no definition of them";
            checks.push(Check::not_proved("nothing else is stored", format!("{}: {why}", some(not_listed))));
        }
        Compared { objects: self.objects, sentinels: self.newest.into_iter().flatten().collect(), checks }
    }
}

/// The first few, and how many more.
fn some(all: &[String]) -> String {
    let mut text = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
    if let Some(more) = all.len().checked_sub(NAMED).filter(|more| *more > 0) {
        let _ = write!(text, "; and {more} more");
    }
    text
}

/// A page's token as part of a query: it is base64.
fn escaped(token: &str) -> String {
    token.replace('%', "%25").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D").replace('&', "%26")
}

#[cfg(test)]
mod tests {
    use super::*;

    // A report names what differs, and stays short whatever happened.
    #[test]
    fn differences_are_named_and_counted() {
        let all: Vec<String> = (0..5).map(|n| format!("secrets a/{n} is not served")).collect();
        assert_eq!(some(&all[..1]), "secrets a/0 is not served");
        assert!(some(&all).ends_with("a/2 is not served; and 2 more"));
        assert_eq!(escaped("a+b/c="), "a%2Bb%2Fc%3D");
    }
}
