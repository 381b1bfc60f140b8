//! What a restore would do: each object of the backup that is asked for, compared with what the cluster has. Changes nothing.

use crate::changes::Changes;
use crate::clean::clean;
use crate::compare::differences;
use crate::error::{Error, Result};
use crate::folder::{Folder, SEALED};
use crate::index::ClusterFacts;
use crate::kinds::{Kind, Kinds};
use crate::list::{Query, Work};
use crate::order::{self, Wave};
use crate::owners;
use crate::paths::{self, Place};
use crate::prepare::{self, Surroundings};
use crate::select::{self, Selection};
use futures::{StreamExt as _, TryStreamExt as _};
use rekindle_world::cluster::Cluster;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// Kinds compared at a time.
const KINDS_AT_A_TIME: usize = 4;
/// From so many namespaces on, a kind is listed whole instead of namespace by namespace.
const NAMESPACES_ONE_BY_ONE: usize = 5;
/// Objects in one answer.
const CHUNK_SIZE: u64 = 500;

/// What is done with an object that is there already, but different.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Existing {
    /// It stays as it is.
    #[default]
    Skip,
    /// The backup's fields are applied to it; what others added stays.
    Update,
    /// It is deleted and made anew; what can't be without loss (Namespaces, CustomResourceDefinitions, volumes and their
    /// claims) is updated.
    Recreate,
}

/// How a restore is made.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Choices {
    /// Which objects.
    pub selection: Selection,
    /// What is changed on the way.
    pub changes: Changes,
    /// What is done with an object that is there already, but different.
    pub existing: Existing,
    /// Also put back `status`, where it is in the backup.
    pub with_status: bool,
}

/// What is done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// It is not there and will be made.
    Create,
    /// It is there, different, and will be changed.
    Update,
    /// It is there, different, and will be deleted and made anew.
    Recreate,
    /// It is there as it should be.
    Unchanged,
    /// It is there, different, and stays.
    Skip,
    /// It can't be restored.
    Impossible,
}

/// One object of the plan.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Path in the backup.
    pub(crate) path: String,
    pub(crate) place: Place,
    /// Index into [`Plan::kinds`].
    pub(crate) kind: usize,
    /// Not asked for itself, but others can't be without it: made where it is missing, never changed.
    pub(crate) needed: bool,
    pub(crate) action: Action,
    /// UID of the object that is there.
    pub(crate) uid: Option<String>,
    /// Where it differs, or why it can't be restored.
    pub(crate) places: Vec<String>,
    /// Its owner references, where it is as it should be.
    pub(crate) owners: Vec<Value>,
}

/// What would be done.
pub struct Plan {
    /// The cluster that is restored into.
    pub cluster: ClusterFacts,
    /// How.
    pub choices: Choices,
    /// Kinds of the backup, as they are there.
    pub(crate) kinds: Vec<Kind>,
    /// What the cluster has.
    pub(crate) target: Kinds,
    /// In the order of restoring.
    pub(crate) entries: Vec<Entry>,
    pub(crate) around: Surroundings,
}

impl Plan {
    /// Compares the backup with the cluster.
    ///
    /// # Errors
    /// When the cluster does not answer, or Secrets are asked for and can't be decrypted.
    pub async fn make(
        cluster: &Cluster,
        facts: ClusterFacts,
        folder: Arc<Folder>,
        choices: Choices,
    ) -> Result<Self> {
        let target = Kinds::discover(cluster).await?;
        let kinds: Vec<Kind> = folder.index.kinds.iter().map(|entry| entry.of.clone()).collect();
        let entries = select_entries(&folder, &kinds, &target, &choices)?;
        let mut plan =
            Self { cluster: facts, choices, kinds, target, entries, around: Surroundings::default() };
        plan.around.volumes = plan.volumes(cluster, &folder).await?;
        let uid = &folder.index.cluster.uid;
        plan.around.is_other = uid.is_none() || *uid != plan.cluster.uid;
        plan.compare(cluster, folder).await?;
        let waves: Vec<Wave> = plan.kinds.iter().map(order::wave).collect();
        plan.entries.sort_by(|a, b| {
            let wave = |entry: &Entry| waves.get(entry.kind).copied().unwrap_or_default();
            wave(a).cmp(&wave(b)).then_with(|| a.path.cmp(&b.path))
        });
        Ok(plan)
    }

    pub(crate) fn kind(&self, entry: &Entry) -> Option<&Kind> {
        self.kinds.get(entry.kind)
    }

    /// How many objects each action is for.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Action, u64> {
        let mut counts = BTreeMap::new();
        for entry in &self.entries {
            *counts.entry(entry.action).or_default() += 1;
        }
        counts
    }

    /// The volumes that are there, and those that will be, with their claims.
    async fn volumes(&self, cluster: &Cluster, folder: &Folder) -> Result<BTreeMap<String, Option<String>>> {
        let of_kind = |name: &'static str| self.entries.iter().filter(move |entry| entry.place.kind == name);
        let mut volumes = BTreeMap::new();
        if of_kind("persistentvolumeclaims").next().is_none() {
            return Ok(volumes);
        }
        for entry in of_kind("persistentvolumes") {
            let (Some(kind), Ok(mut volume)) = (self.kind(entry), folder.object(&entry.path)) else {
                continue;
            };
            // a patch that does not fit is told when the volume itself is restored
            let _ = self.choices.changes.apply(kind, "", &entry.place.name, &mut volume);
            volumes.insert(entry.place.name.clone(), prepare::claim_of(&volume));
        }
        let Some(kind) = self.target.of("v1", "PersistentVolume") else { return Ok(volumes) };
        let found = Arc::new(Mutex::new(BTreeMap::new()));
        let into = found.clone();
        let work: Work = Arc::new(move |items| {
            for item in items {
                let volume: Value = serde_json::from_str(item.get()).unwrap_or_default();
                let Some(name) = volume.pointer("/metadata/name").and_then(Value::as_str) else { continue };
                let claim = prepare::claim_of(&volume);
                into.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), claim);
            }
            Ok(())
        });
        Query { cluster, kind, namespace: "", selector: None, chunk_size: CHUNK_SIZE }.pages(&work).await?;
        volumes.extend(std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner)));
        Ok(volumes)
    }

    /// Lists what is there of each kind, and compares page by page.
    async fn compare(&mut self, cluster: &Cluster, folder: Arc<Folder>) -> Result<()> {
        let mut by_kind: BTreeMap<usize, HashMap<String, usize>> = BTreeMap::new();
        for (at, entry) in self.entries.iter().enumerate() {
            let Some(kind) = self.kinds.get(entry.kind) else { continue };
            let target = self.choices.changes.target(&entry.place);
            let path = paths::of(kind, &target.namespace, &target.name);
            by_kind.entry(entry.kind).or_default().insert(path, at);
        }
        let shared = Arc::new(Shared {
            folder,
            choices: self.choices.clone(),
            around: self.around.clone(),
            entries: std::mem::take(&mut self.entries).into_iter().map(Mutex::new).collect(),
        });
        let comparing = by_kind.into_iter().filter_map(|(at, wanted)| {
            let kind = self.kinds.get(at)?;
            // a kind that is not served yet: its CustomResourceDefinition is in the backup, and nothing of it is there
            let served = self.target.of(&kind.api_version(), &kind.kind)?;
            Some(compare_kind(cluster, kind, served, wanted, shared.clone()))
        });
        let () = futures::stream::iter(comparing).buffer_unordered(KINDS_AT_A_TIME).try_collect().await?;
        let shared = Arc::into_inner(shared).ok_or_else(|| Error::Answer {
            doing: "compare".into(),
            why: "a part of the work has not ended".into(),
        })?;
        let inner = |entry: Mutex<Entry>| entry.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.entries = shared.entries.into_iter().map(inner).collect();
        owners::follow(&self.kinds, &mut self.entries);
        Ok(())
    }
}

impl Changes {
    /// Where an object of the backup will be.
    pub(crate) fn target(&self, place: &Place) -> Place {
        let is_namespace = place.kind == "namespaces";
        let name = if is_namespace { self.namespace(&place.name) } else { &place.name };
        Place {
            namespace: self.namespace(&place.namespace).to_owned(),
            kind: place.kind.clone(),
            name: name.to_owned(),
        }
    }
}

/// What the comparing threads share.
struct Shared {
    folder: Arc<Folder>,
    choices: Choices,
    around: Surroundings,
    entries: Vec<Mutex<Entry>>,
}

async fn compare_kind(
    cluster: &Cluster,
    kind: &Kind,
    served: &Kind,
    wanted: HashMap<String, usize>,
    shared: Arc<Shared>,
) -> Result<()> {
    let namespaces: BTreeSet<String> =
        wanted.keys().filter_map(|path| paths::parse(path)).map(|place| place.namespace).collect();
    let (of, wanted) = (Arc::new(kind.clone()), Arc::new(wanted));
    let work: Work = Arc::new(move |items| {
        items.into_iter().try_for_each(|item| compare_object(&of, item, &wanted, &shared))
    });
    let one_by_one = kind.namespaced && namespaces.len() <= NAMESPACES_ONE_BY_ONE;
    let namespaces = if one_by_one { namespaces.into_iter().collect() } else { vec![String::new()] };
    for namespace in namespaces {
        let query =
            Query { cluster, kind: served, namespace: &namespace, selector: None, chunk_size: CHUNK_SIZE };
        query.pages(&work).await?;
    }
    Ok(())
}

/// Fills in what is found out about an object that is there.
fn compare_object(
    kind: &Arc<Kind>,
    item: &RawValue,
    wanted: &HashMap<String, usize>,
    shared: &Shared,
) -> Result<()> {
    let is: Value = serde_json::from_str(item.get())
        .map_err(|e| Error::Answer { doing: format!("list {}", kind.name()), why: e.to_string() })?;
    let text = |pointer: &str| is.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let path = paths::of(kind, text("/metadata/namespace"), text("/metadata/name"));
    let entry = wanted.get(&path).and_then(|at| shared.entries.get(*at));
    let Some(mut entry) = entry.map(|e| e.lock().unwrap_or_else(PoisonError::into_inner)) else {
        return Ok(());
    };
    let uid = text("/metadata/uid").to_owned();
    let found = shared.folder.object(&entry.path).map_err(|error| error.line()).and_then(|mut object| {
        let place = &entry.place;
        shared.choices.changes.apply(kind, &place.namespace, &place.name, &mut object)?;
        prepare::detach(kind, &mut object, &shared.around);
        let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        Ok((owners.cloned().unwrap_or_default(), differing(kind, &object, is)))
    });
    entry.uid = Some(uid);
    match found {
        Err(why) => (entry.action, entry.places) = (Action::Impossible, vec![why]),
        Ok(_) if entry.needed => entry.action = Action::Unchanged,
        Ok((owners, places)) if places.is_empty() => {
            (entry.action, entry.owners) = (Action::Unchanged, owners);
        }
        Ok((_, places)) => {
            entry.action = of_existing(kind, &entry.place, shared.choices.existing);
            entry.places = places;
        }
    }
    Ok(())
}

/// Where an object that is there differs from what is wanted, leaving out what may.
pub(crate) fn differing(kind: &Kind, wanted: &Value, is: Value) -> Vec<String> {
    let (mut wanted, mut is) = (wanted.clone(), clean(kind, is));
    prepare::neutral(kind, &mut wanted);
    prepare::neutral(kind, &mut is);
    differences(&wanted, &is)
}

/// What the policy means for a kind: deleting some objects deletes what belongs to them.
pub(crate) fn of_existing(kind: &Kind, place: &Place, existing: Existing) -> Action {
    const HOLDERS: [&str; 4] = [
        "namespaces",
        "customresourcedefinitions.apiextensions.k8s.io",
        "persistentvolumes",
        "persistentvolumeclaims",
    ];
    match existing {
        // every namespace has one from its first moment: what it was given (image pull secrets) is wanted back
        Existing::Skip if kind.name() == "serviceaccounts" && place.name == "default" => Action::Update,
        Existing::Skip => Action::Skip,
        Existing::Recreate if !HOLDERS.contains(&kind.name().as_str()) => Action::Recreate,
        Existing::Update | Existing::Recreate => Action::Update,
    }
}

/// The objects that are asked for, and what they can't be without.
fn select_entries(folder: &Folder, kinds: &[Kind], target: &Kinds, choices: &Choices) -> Result<Vec<Entry>> {
    let labels = choices.selection.labels()?;
    let by_name: HashMap<String, usize> =
        kinds.iter().enumerate().map(|(at, kind)| (kind.name(), at)).collect();
    let (mut entries, mut others) = (Vec::new(), HashMap::new());
    for path in folder.paths() {
        let Some(place) = paths::parse(path) else { continue };
        let Some(&kind_at) = by_name.get(&place.kind) else { continue };
        let Some(kind) = kinds.get(kind_at) else { continue };
        let selection = &choices.selection;
        let of_place = selection.wants_place(kind, &place.namespace, &place.name)
            && !(selection.is_of_namespaces() && place.namespace.is_empty() && place.kind != "namespaces");
        let entry = Entry {
            path: path.to_owned(),
            kind: kind_at,
            needed: false,
            action: Action::Create,
            uid: None,
            places: Vec::new(),
            owners: Vec::new(),
            place,
        };
        let is_wanted = selection.wants_kind(kind) && of_place;
        if is_wanted && path.ends_with(SEALED) && !folder.can_decrypt() {
            return Err(Error::folder(path.into(), "is encrypted, and no identity was given"));
        }
        if is_wanted && (labels.is_none() || select::matches(labels.as_ref(), &folder.object(path)?)) {
            entries.push(entry);
        } else if ["namespaces", "persistentvolumes", CRDS].contains(&entry.place.kind.as_str()) {
            others.insert((entry.place.kind.clone(), entry.place.name.clone()), entry);
        }
    }
    add_needed(&mut entries, others, folder, kinds, target);
    for entry in &mut entries {
        let Some(kind) = kinds.get(entry.kind) else { continue };
        if target.of(&kind.api_version(), &kind.kind).is_none() && !has_crd(folder, kind) {
            entry.action = Action::Impossible;
            entry.places = vec![format!("this cluster does not serve {} {}", kind.api_version(), kind.kind)];
        }
    }
    Ok(entries)
}

const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

fn has_crd(folder: &Folder, kind: &Kind) -> bool {
    folder.has(&paths::at(CRDS, "", &kind.name()))
}

/// Adds the Namespaces of what is asked for, the volumes of its claims, and the CustomResourceDefinitions of kinds that the
/// cluster does not have.
fn add_needed(
    entries: &mut Vec<Entry>,
    mut others: HashMap<(String, String), Entry>,
    folder: &Folder,
    kinds: &[Kind],
    target: &Kinds,
) {
    let mut needed = BTreeSet::new();
    for entry in entries.iter() {
        if !entry.place.namespace.is_empty() {
            needed.insert(("namespaces".to_owned(), entry.place.namespace.clone()));
        }
        if entry.place.kind == "persistentvolumeclaims"
            && let Ok(claim) = folder.object(&entry.path)
            && let Some(volume) = claim.pointer("/spec/volumeName").and_then(Value::as_str)
        {
            needed.insert(("persistentvolumes".to_owned(), volume.to_owned()));
        }
        if let Some(kind) = kinds.get(entry.kind)
            && target.of(&kind.api_version(), &kind.kind).is_none()
        {
            needed.insert((CRDS.to_owned(), kind.name()));
        }
    }
    let needed = needed.into_iter().filter_map(|key| others.remove(&key));
    entries.extend(needed.map(|entry| Entry { needed: true, ..entry }));
}
