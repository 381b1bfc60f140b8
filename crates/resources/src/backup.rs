//! Every object of a cluster into a folder.

use crate::clean::clean;
use crate::error::{Error, Result};
use crate::folder::Writer;
use crate::index::{ClusterFacts, Index, KindEntry, LeftOut, Problem};
use crate::kinds::{Kind, Kinds};
use crate::list::{Query, Work};
use crate::select::Selection;
use crate::{paths, policy};
use camino::Utf8PathBuf;
use futures::{StreamExt as _, TryStreamExt as _};
use rekindle_model::API_VERSION;
use rekindle_vault::Recipients;
use rekindle_world::cluster::{Cluster, ClusterError};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Kinds read at a time. Each holds at most two pages.
const KINDS_AT_A_TIME: usize = 4;
/// How often a list that was compacted away is begun anew.
const LIST_ATTEMPTS: u32 = 5;

/// What is backed up, and where to.
pub struct Request {
    /// The folder.
    pub folder: Utf8PathBuf,
    /// Which objects.
    pub selection: Selection,
    /// To whom Secrets are encrypted, with their texts; none = they lie in the clear.
    pub recipients: Option<(Recipients, Vec<String>)>,
    /// Most objects in one answer.
    pub chunk_size: u64,
}

/// Takes the backup. The index says what is in it, what was left out and why, and what could not be read: then it is
/// partial.
///
/// # Errors
/// When the cluster does not answer, or the folder can't be written. The folder then holds what it held before.
pub async fn backup(cluster: &Cluster, facts: ClusterFacts, request: Request) -> Result<Index> {
    let started_ms = now_ms();
    request.selection.labels()?; // a selector that is none is told here, not by each kind's answer
    let kinds = Kinds::discover(cluster).await?;
    let (recipients, names) = request.recipients.map_or((None, Vec::new()), |(r, names)| (Some(r), names));
    let job = Job {
        cluster: cluster.clone(),
        selection: request.selection,
        chunk_size: request.chunk_size,
        state: Arc::new(State {
            writer: Writer::begin(&request.folder, recipients)?,
            found: Mutex::default(),
        }),
    };
    let mut listed = Vec::new();
    let (first, second) = job.order(kinds.listable());
    for kinds in [first, second] {
        let needed = Arc::new(job.needed());
        let reading = kinds.into_iter().map(|kind| job.kind(kind, needed.clone()));
        let done: Vec<Option<KindEntry>> =
            futures::stream::iter(reading).buffer_unordered(KINDS_AT_A_TIME).try_collect().await?;
        listed.extend(done.into_iter().flatten());
    }
    listed.sort_by_key(|entry| entry.of.name());
    let state = Arc::into_inner(job.state).ok_or_else(|| Error::Answer {
        doing: "list".into(),
        why: "a part of the work has not ended".into(),
    })?;
    let mut found = state.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.problems.extend(kinds.silent.iter().map(|version| Problem {
        what: version.clone(),
        why: "its API server does not answer: its kinds are not known".into(),
        ..Problem::default()
    }));
    for kind in kinds.list_only().into_iter().filter(|kind| job.selection.wants_kind(kind)) {
        let why = policy::kind_left_out(&kind).unwrap_or(policy::LIST_ONLY);
        found.left_out.insert((kind.name(), why), None);
    }
    found.problems.sort_by(|a, b| a.what.cmp(&b.what));
    let left_out = found.left_out.iter().map(|((what, reason), objects)| LeftOut {
        what: what.clone(),
        reason: (*reason).to_owned(),
        objects: *objects,
    });
    let index = Index {
        api_version: API_VERSION.to_owned(),
        kind: crate::index::KIND.to_owned(),
        program: format!("rekindle {}", env!("CARGO_PKG_VERSION")),
        started_ms,
        ended_ms: now_ms(),
        cluster: facts,
        selection: job.selection,
        recipients: names,
        objects: 0,
        kinds: listed,
        left_out: left_out.collect(),
        problems: found.problems,
        previous: None,
        sums_sha256: String::new(),
    };
    let finish = tokio::task::spawn_blocking(move || state.writer.finish(index));
    finish.await.map_err(Error::CutShort)?
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

struct Job {
    cluster: Cluster,
    selection: Selection,
    chunk_size: u64,
    state: Arc<State>,
}

/// What the pages are written to.
struct State {
    writer: Writer,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    /// Kinds that have objects in the backup.
    used: BTreeSet<String>,
    left_out: BTreeMap<(String, &'static str), Option<u64>>,
    problems: Vec<Problem>,
}

/// What the selected namespaces need of what lies in none.
struct Needed {
    /// Names of CustomResourceDefinitions; none = all.
    crds: Option<BTreeSet<String>>,
}

impl State {
    fn found(&self) -> std::sync::MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    /// Namespaced kinds before those that are not, where only namespaces were asked for: what they need is known then.
    fn order(&self, kinds: Vec<Kind>) -> (Vec<Kind>, Vec<Kind>) {
        if !self.selection.is_of_namespaces() {
            return (kinds, Vec::new());
        }
        let carried = ["namespaces", "customresourcedefinitions.apiextensions.k8s.io", "persistentvolumes"];
        let (namespaced, rest): (Vec<_>, Vec<_>) = kinds.into_iter().partition(|kind| kind.namespaced);
        (namespaced, rest.into_iter().filter(|kind| carried.contains(&kind.name().as_str())).collect())
    }

    fn needed(&self) -> Needed {
        let used = || self.state.found().used.clone();
        Needed { crds: self.selection.is_of_namespaces().then(used) }
    }

    /// Reads one kind, if it is wanted. What can't be read is noted, not an error.
    async fn kind(&self, kind: Kind, needed: Arc<Needed>) -> Result<Option<KindEntry>> {
        let of_namespaces = self.selection.is_of_namespaces();
        let excluded = self.selection.exclude.iter().any(|name| kind.is_called(name));
        let carried = of_namespaces && !kind.namespaced && !excluded;
        if !carried && !self.selection.wants_kind(&kind) {
            return Ok(None);
        }
        if let Some(reason) = policy::kind_left_out(&kind) {
            self.state.found().left_out.insert((kind.name(), reason), None);
            return Ok(None);
        }
        let namespaces = if kind.namespaced && of_namespaces {
            self.selection.namespaces.clone()
        } else {
            vec![String::new()]
        };
        let (kind, mut objects, mut begun_anew, mut versions) = (Arc::new(kind), 0, 0, BTreeSet::new());
        for namespace in namespaces {
            match self.list(&kind, &namespace, &needed).await {
                Ok((version, count, again)) => {
                    versions.insert(version);
                    objects += count;
                    begun_anew += again;
                }
                Err(Error::Cluster { source, .. }) if is_of_kind(&source) => {
                    self.problem(&kind, &namespace, source.to_string());
                }
                Err(error @ (Error::Gone { .. } | Error::Answer { .. })) => {
                    self.problem(&kind, &namespace, error.line());
                }
                Err(error) => return Err(error),
            }
        }
        let resource_versions = versions.into_iter().collect();
        Ok((objects > 0).then(|| KindEntry { of: (*kind).clone(), objects, resource_versions, begun_anew }))
    }

    fn problem(&self, kind: &Kind, namespace: &str, why: String) {
        let place = if namespace.is_empty() { String::new() } else { format!(" in {namespace}") };
        self.state.found().problems.push(Problem {
            what: format!("{}{place}", kind.name()),
            why,
            of: Some(kind.clone()),
            namespace: namespace.to_owned(),
        });
    }

    /// Reads the objects of a kind at one revision; begins anew when that was compacted away before the end.
    async fn list(
        &self,
        kind: &Arc<Kind>,
        namespace: &str,
        needed: &Arc<Needed>,
    ) -> Result<(String, u64, u32)> {
        // what a namespace needs has labels of its own
        let selector = self
            .selection
            .selector
            .as_deref()
            .filter(|_| kind.namespaced || !self.selection.is_of_namespaces());
        let query = Query { cluster: &self.cluster, kind, namespace, selector, chunk_size: self.chunk_size };
        for attempt in 0..LIST_ATTEMPTS {
            let tally = Arc::new(Mutex::new(Tally::default()));
            let page = Page {
                state: self.state.clone(),
                kind: kind.clone(),
                selection: self.selection.clone(),
                needed: needed.clone(),
                tally: tally.clone(),
            };
            let work: Work = Arc::new(move |items| items.into_iter().try_for_each(|item| page.keep(item)));
            match query.pages(&work).await {
                Err(Error::Cluster { source, .. }) if source.status() == Some(410) => {
                    self.state.writer.forget(&kind.name(), namespace)?;
                }
                Err(error) => {
                    // half a list is none
                    self.state.writer.forget(&kind.name(), namespace)?;
                    return Err(error);
                }
                Ok(version) => {
                    let tally = std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner));
                    return Ok((version, self.state.add(kind, tally), attempt));
                }
            }
        }
        Err(Error::Gone { kind: kind.name(), attempts: LIST_ATTEMPTS })
    }
}

/// What is wrong with this kind alone; anything else (no answer at all) is wrong with the whole backup.
fn is_of_kind(error: &ClusterError) -> bool {
    matches!(error, ClusterError::Refused { status, .. } if *status != 401)
}

/// What one reading of a list found.
#[derive(Default)]
struct Tally {
    objects: u64,
    left_out: BTreeMap<&'static str, u64>,
}

impl State {
    fn add(&self, kind: &Kind, tally: Tally) -> u64 {
        let mut found = self.found();
        if tally.objects > 0 {
            found.used.insert(kind.name());
        }
        for (reason, count) in tally.left_out {
            *found.left_out.entry((kind.name(), reason)).or_default().get_or_insert(0) += count;
        }
        tally.objects
    }
}

/// What is done with each object of a page.
struct Page {
    state: Arc<State>,
    kind: Arc<Kind>,
    selection: Selection,
    needed: Arc<Needed>,
    tally: Arc<Mutex<Tally>>,
}

impl Page {
    fn keep(&self, item: &RawValue) -> Result<()> {
        let object: Value = serde_json::from_str(item.get()).map_err(|error| Error::Answer {
            doing: format!("list {}", self.kind.name()),
            why: error.to_string(),
        })?;
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        if name.is_empty() {
            let why = "an object without a name".to_owned();
            return Err(Error::Answer { doing: format!("list {}", self.kind.name()), why });
        }
        if !self.selection.wants_place(&self.kind, namespace, name) || !self.is_needed(&object, name) {
            return Ok(());
        }
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = policy::object_left_out(&self.kind, &object) {
            *tally.left_out.entry(reason).or_default() += 1;
            return Ok(());
        }
        tally.objects += 1;
        drop(tally);
        let path = paths::of(&self.kind, namespace, name);
        self.state.writer.object(&path, &clean(&self.kind, object), is_secret(&self.kind))
    }

    /// Of what lies in no namespace, only what the selected ones need.
    fn is_needed(&self, object: &Value, name: &str) -> bool {
        match (&self.needed.crds, self.kind.name().as_str()) {
            (Some(crds), "customresourcedefinitions.apiextensions.k8s.io") => crds.contains(name),
            (Some(_), "persistentvolumes") => {
                let claim = object.pointer("/spec/claimRef/namespace").and_then(Value::as_str);
                claim.is_some_and(|namespace| self.selection.wants_namespace(namespace))
            }
            _ => true,
        }
    }
}

/// Whether its objects are encrypted.
pub(crate) fn is_secret(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.kind == "Secret"
}
