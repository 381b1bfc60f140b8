//! Takes a restore back: what it made goes, what it changed is as it was. What holds other things, or data, stays.

use crate::error::{Error, Result};
use crate::journal::{Done, Outcome, Run};
use crate::kinds::{Kind, Kinds};
use crate::list::patiently;
use crate::order;
use crate::paths;
use http::Method;
use rekindle_model::API_VERSION;
use rekindle_world::cluster::{Cluster, ClusterError, Sent};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Duration;

/// How long a deleted object may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(30);
/// Kinds whose objects stay though the restore made them, and why.
const STAYS: &[(&str, &str)] = &[
    ("namespaces", "what was made in it since would go with it"),
    ("customresourcedefinitions.apiextensions.k8s.io", "all objects of its kind would go with it"),
    ("persistentvolumes", "its data could go with it"),
    ("persistentvolumeclaims", "its data could go with it"),
];

/// What was taken back.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UndoReport {
    /// `rekindle/v1alpha1`.
    pub api_version: &'static str,
    /// `ResourceUndo`.
    pub kind: &'static str,
    /// The restore.
    pub run: String,
    /// Whether only shown.
    pub dry_run: bool,
    /// Objects that the restore made, deleted.
    pub deleted: u64,
    /// Objects that it changed, as they were.
    pub put_back: u64,
    /// Objects that stay, and why.
    pub stays: Vec<Left>,
    /// Objects that could not be taken back, and why.
    pub failed: Vec<Left>,
}

/// An object, and why it is not taken back.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Left {
    /// `resource.group`, namespace and name.
    pub object: String,
    /// Why.
    pub why: String,
}

/// Takes back what the run did, the last wave first; only tells what it would do with `dry_run`.
///
/// # Errors
/// When the cluster does not answer. It can be done again.
pub async fn undo(cluster: &Cluster, run: &Run, dry_run: bool) -> Result<UndoReport> {
    let kinds = Kinds::discover(cluster).await?;
    let mut report = UndoReport {
        api_version: API_VERSION,
        kind: "ResourceUndo",
        run: run.id().to_owned(),
        dry_run,
        deleted: 0,
        put_back: 0,
        stays: Vec::new(),
        failed: Vec::new(),
    };
    let listable = kinds.listable();
    let deeds = deeds(cluster, run, &listable).await?;
    let mut done: Vec<_> = deeds
        .iter()
        .filter_map(|done| {
            let place = run.request.choices.changes.target(&paths::parse(&done.path)?);
            let kind = listable.iter().find(|kind| kind.name() == place.kind);
            Some((kind.map_or(0, order::wave), done, place, kind))
        })
        .collect();
    done.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.path.cmp(&b.1.path)));
    for (_, done, place, kind) in done {
        let object = format!("{} {}/{}", place.kind, place.namespace, place.name);
        let Some(kind) = kind else {
            report.failed.push(Left { object, why: "this cluster does not serve its kind now".into() });
            continue;
        };
        let stays = STAYS.iter().find(|(of, _)| *of == place.kind && done.result == Outcome::Created);
        if let Some((_, why)) = stays {
            report.stays.push(Left { object, why: (*why).into() });
            continue;
        }
        let path = kind.object(&place.namespace, &place.name);
        let back = if dry_run {
            Ok(())
        } else {
            take_back(cluster, run, done, &path, &kind.collection(&place.namespace)).await
        };
        match back {
            Ok(()) if done.result == Outcome::Created => report.deleted += 1,
            Ok(()) => report.put_back += 1,
            Err(Error::Cluster { source: source @ ClusterError::Refused { .. }, .. })
                if source.status() != Some(401) =>
            {
                report.failed.push(Left { object, why: source.to_string() });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(report)
}

async fn take_back(cluster: &Cluster, run: &Run, done: &Done, path: &str, collection: &str) -> Result<()> {
    let send = async |method: Method, path: &str, object: &Value| {
        patiently(|| cluster.send(&method, path, Sent::Object(object))).await
    };
    let failed = || Error::cluster(format!("take back {path}"));
    if done.result != Outcome::Updated {
        let policy = if done.result == Outcome::Created { "Background" } else { "Orphan" };
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy, "preconditions": {"uid": done.uid},
        });
        match send(Method::DELETE, path, &options).await {
            // gone, or another object of that name
            Err(error) if matches!(error.status(), Some(404 | 409)) => {}
            other => drop(other.map_err(failed())?),
        }
        if done.before.is_some() {
            until_gone(cluster, path, done.uid.as_deref()).await.map_err(failed())?;
        }
    }
    let Some(before) = done.before else { return Ok(()) };
    let mut object = run.kept(before)?;
    if let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        for field in ["resourceVersion", "uid"] {
            metadata.shift_remove(field);
        }
    }
    let put = match send(Method::PUT, path, &object).await {
        Err(error) if error.status() == Some(404) => send(Method::POST, collection, &object).await,
        other => other,
    };
    put.map(drop).map_err(failed())
}

/// Waits until the object of this UID is gone: what is put into its place before that would go with it.
async fn until_gone(
    cluster: &Cluster,
    path: &str,
    uid: Option<&str>,
) -> std::result::Result<(), ClusterError> {
    let deadline = tokio::time::Instant::now() + GONE_WITHIN;
    while tokio::time::Instant::now() < deadline {
        let is = cluster.get(path).await?.unwrap_or_default();
        if is.pointer("/metadata/uid").and_then(Value::as_str) != uid {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// What the run did, its last moments before a death included: an object that was about to be made, and is there under the
/// name of the run's field manager, was made.
async fn deeds(cluster: &Cluster, run: &Run, kinds: &[Kind]) -> Result<Vec<Done>> {
    let is_deed =
        |done: &&Done| matches!(done.result, Outcome::Created | Outcome::Updated | Outcome::Recreated);
    let mut deeds: Vec<Done> = run.done.values().filter(is_deed).cloned().collect();
    let unconcluded = |path: &&String| run.done.get(*path).is_none_or(|done| done.result == Outcome::Failed);
    for path in run.changed().iter().filter(unconcluded) {
        let before = run.before(path);
        deeds.push(Done {
            path: path.clone(),
            result: Outcome::Updated,
            uid: None,
            before,
            notes: Vec::new(),
        });
    }
    for path in run.intended.iter().filter(unconcluded) {
        let Some(place) = paths::parse(path).map(|place| run.request.choices.changes.target(&place)) else {
            continue;
        };
        let Some(kind) = kinds.iter().find(|kind| kind.name() == place.kind) else { continue };
        let at = kind.object(&place.namespace, &place.name);
        let is = patiently(|| cluster.send(&Method::GET, &at, Sent::Nothing)).await;
        let is = match is {
            Err(error) if error.status() == Some(404) => continue,
            other => other.map_err(Error::cluster(format!("read {at}")))?,
        };
        let managers = is.pointer("/metadata/managedFields").and_then(Value::as_array);
        let is_ours =
            managers.into_iter().flatten().any(|m| m.get("manager") == Some(&Value::from("rekindle")));
        let uid = is.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned);
        if is_ours && run.before(path).is_none() {
            deeds.push(Done {
                path: path.clone(),
                result: Outcome::Created,
                uid,
                before: None,
                notes: Vec::new(),
            });
        }
    }
    Ok(deeds)
}
