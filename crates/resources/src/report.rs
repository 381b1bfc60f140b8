//! What would be done, and what was.

use crate::folder::Folder;
use crate::index::{ClusterFacts, Problem};
use crate::journal::{Done, Outcome, Run};
use crate::paths;
use crate::plan::{Action, Choices, Plan};
use rekindle_model::API_VERSION;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// What a restore would do, or did: in which cluster, from which backup.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupFacts {
    /// The cluster that the backup is of.
    pub cluster: ClusterFacts,
    /// When it was taken, ms since 1970.
    pub taken_ms: i64,
    /// SHA-256 of its list of files.
    pub digest: String,
    /// What is asked for here, and could not be read when the backup was taken.
    pub problems: Vec<Problem>,
}

impl BackupFacts {
    fn new(folder: &Folder, choices: &Choices) -> Self {
        let index = &folder.index;
        let problems = index.problems.iter().filter(|problem| choices.selection.lacks(problem));
        Self {
            cluster: index.cluster.clone(),
            taken_ms: index.started_ms,
            digest: folder.digest().to_owned(),
            problems: problems.cloned().collect(),
        }
    }
}

/// What a restore would do.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiffReport {
    /// `rekindle/v1alpha1`.
    pub api_version: &'static str,
    /// `ResourceDiff`.
    pub kind: &'static str,
    /// The backup.
    pub backup: BackupFacts,
    /// The cluster that is compared.
    pub cluster: ClusterFacts,
    /// How it would be restored.
    pub choices: Choices,
    /// How many objects each action is for.
    pub counts: BTreeMap<Action, u64>,
    /// Each object that is not as in the backup, in the order in which it would be restored.
    pub objects: Vec<Difference>,
}

/// One object that is not as in the backup.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// `resource.group`.
    pub kind: String,
    /// Empty for what lies in no namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What would be done.
    pub action: Action,
    /// Where it differs, as JSON pointers: `+` only in the backup, `-` only in the cluster, `~` different. Or why it can't
    /// be restored.
    pub places: Vec<String>,
}

impl DiffReport {
    /// Of a plan.
    #[must_use]
    pub fn new(plan: &Plan, folder: &Folder) -> Self {
        let differing = plan.entries.iter().filter(|entry| entry.action != Action::Unchanged);
        let objects = differing.map(|entry| {
            let place = plan.choices.changes.target(&entry.place);
            Difference {
                kind: place.kind,
                namespace: place.namespace,
                name: place.name,
                action: entry.action,
                places: entry.places.clone(),
            }
        });
        Self {
            api_version: API_VERSION,
            kind: "ResourceDiff",
            backup: BackupFacts::new(folder, &plan.choices),
            cluster: plan.cluster.clone(),
            choices: plan.choices.clone(),
            counts: plan.counts(),
            objects: objects.collect(),
        }
    }

    /// Whether carrying it out would change anything.
    #[must_use]
    pub fn changes_something(&self) -> bool {
        self.counts.keys().any(|action| matches!(action, Action::Create | Action::Update | Action::Recreate))
    }
}

/// What a restore did.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreReport {
    /// `rekindle/v1alpha1`.
    pub api_version: &'static str,
    /// `ResourceRestore`.
    pub kind: &'static str,
    /// Id of the run; `resume` and `undo` take it.
    pub run: String,
    /// Its folder.
    pub folder: String,
    /// The backup.
    pub backup: BackupFacts,
    /// The cluster that was restored into.
    pub cluster: ClusterFacts,
    /// When it began, ms since 1970; of a resumed run, when it was taken up again.
    pub started_ms: i64,
    /// When it ended, ms since 1970.
    pub ended_ms: i64,
    /// How many objects came out how.
    pub counts: BTreeMap<Outcome, u64>,
    /// Each object.
    pub objects: Vec<Restored>,
}

/// What became of one object.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// `resource.group`.
    pub kind: String,
    /// Empty for what lies in no namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How it came out.
    pub result: Outcome,
    /// What a person should know, or why it failed.
    pub notes: Vec<String>,
}

impl RestoreReport {
    pub(crate) fn new(plan: &Plan, run: &Run, folder: &Folder, started_ms: i64, done: Vec<Done>) -> Self {
        let mut counts = BTreeMap::new();
        let restored = |done: Done| {
            *counts.entry(done.result).or_default() += 1;
            let place = plan.choices.changes.target(&paths::parse(&done.path)?);
            let paths::Place { namespace, kind, name } = place;
            Some(Restored { kind, namespace, name, result: done.result, notes: done.notes })
        };
        let objects = done.into_iter().filter_map(restored).collect();
        Self {
            api_version: API_VERSION,
            kind: "ResourceRestore",
            run: run.id().to_owned(),
            folder: run.dir().to_string(),
            backup: BackupFacts::new(folder, &plan.choices),
            cluster: plan.cluster.clone(),
            started_ms,
            ended_ms: crate::backup::now_ms(),
            counts,
            objects,
        }
    }

    /// Whether everything that was asked for could be read when the backup was taken.
    #[must_use]
    pub fn is_of_whole(&self) -> bool {
        self.backup.problems.is_empty()
    }

    /// Whether everything of the backup that should be restored is.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.counts.contains_key(&Outcome::Failed)
    }
}
