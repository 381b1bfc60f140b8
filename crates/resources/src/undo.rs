//! Takes a restore back: what it made goes, what it changed is as it was. What holds other things, or data, stays.

use crate::backup::is_secret;
use crate::error::{Error, Result, refusal};
use crate::journal::{Done, Outcome, Run};
use crate::kinds::{Kind, Kinds};
use crate::list::patiently;
use crate::paths::{self, Place};
use crate::write::{GONE_WITHIN, is_ours, uid_of};
use crate::{order, owners, prepare};
use http::Method;
use rekindle_model::API_VERSION;
use rekindle_world::cluster::{Cluster, ClusterError, Sent};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// Why an object is not taken back that does not go.
const HELD: &str = "it is being deleted, and a finalizer holds it: undo again when it is gone";
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
    let undoing = Undoing { cluster, run, kinds: &kinds };
    let mut going = Vec::new();
    for (done, place, kind) in in_order(run, &deeds, &listable) {
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
        let back = if dry_run { Ok(Back::Done) } else { undoing.take_back(done, kind, &place).await };
        match refused(back, kind)? {
            Ok(Back::Done) if done.result == Outcome::Created => report.deleted += 1,
            Ok(Back::Done) => report.put_back += 1,
            Ok(Back::Going) => going.push((object, done, kind, place)),
            Ok(Back::Not(why)) => report.failed.push(Left { object, why: why.to_owned() }),
            Err(why) => report.failed.push(Left { object, why }),
        }
    }
    let deadline = Instant::now() + GONE_WITHIN;
    for (object, done, kind, place) in going {
        let path = kind.object(&place.namespace, &place.name);
        match refused(undoing.is_gone(&path, done.uid.as_deref(), deadline).await, kind)? {
            Ok(true) => report.deleted += 1,
            Ok(false) => report.failed.push(Left { object, why: HELD.to_owned() }),
            Err(why) => report.failed.push(Left { object, why }),
        }
    }
    Ok(report)
}

/// A refusal of one object is told, and is no end of the work.
fn refused<T>(back: Result<T>, kind: &Kind) -> Result<std::result::Result<T, String>> {
    match back {
        Err(Error::Cluster { source: source @ ClusterError::Refused { .. }, .. })
            if source.status() != Some(401) =>
        {
            Ok(Err(refusal(&source, is_secret(kind))))
        }
        other => other.map(Ok),
    }
}

/// The last wave first. What is put back and has owners comes at the end, the first wave first: the owners are there then,
/// and have the UIDs that they keep.
fn in_order<'a>(run: &Run, deeds: &'a [Done], kinds: &'a [Kind]) -> Vec<(&'a Done, Place, Option<&'a Kind>)> {
    let is_owned = |done: &Done| {
        let kept = done.before.and_then(|before| run.kept(before).ok());
        kept.is_some_and(|kept| kept.pointer("/metadata/ownerReferences").is_some())
    };
    let mut ordered: Vec<_> = deeds
        .iter()
        .filter_map(|done| {
            let place = run.request.choices.changes.target(&paths::parse(&done.path)?);
            let kind = kinds.iter().find(|kind| kind.name() == place.kind);
            let (wave, owned) = (kind.map_or(0, order::wave), is_owned(done));
            let turn = (owned, if owned { wave } else { order::Wave::MAX - wave });
            Some((turn, done, place, kind))
        })
        .collect();
    ordered.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.path.cmp(&b.1.path)));
    ordered.into_iter().map(|(_, done, place, kind)| (done, place, kind)).collect()
}

struct Undoing<'a> {
    cluster: &'a Cluster,
    run: &'a Run,
    kinds: &'a Kinds,
}

/// What became of one object.
enum Back {
    Done,
    /// It is deleted, and not gone yet.
    Going,
    /// It is not taken back, and why.
    Not(&'static str),
}

impl Undoing<'_> {
    async fn take_back(&self, done: &Done, kind: &Kind, place: &Place) -> Result<Back> {
        let path = &kind.object(&place.namespace, &place.name);
        if done.result != Outcome::Updated {
            let policy = if done.result == Outcome::Created { "Background" } else { "Orphan" };
            let options = json!({
                "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy, "preconditions": {"uid": done.uid},
            });
            let is_going = match self.send(&Method::DELETE, path, &options).await {
                // gone, or another object of that name
                Err(error) if matches!(error.status(), Some(404 | 409)) => false,
                // a Status says that it is gone
                other => other.map_err(failed(path))?.get("kind") != Some(&Value::from("Status")),
            };
            if done.before.is_none() {
                return Ok(if is_going { Back::Going } else { Back::Done });
            }
            if !self.is_gone(path, done.uid.as_deref(), Instant::now() + GONE_WITHIN).await? {
                return Ok(Back::Not(HELD));
            }
        }
        let Some(before) = done.before else { return Ok(Back::Done) };
        let mut object = self.run.kept(before)?;
        prepare::without_identity(&mut object);
        owners::renew(self.cluster, self.kinds, &place.namespace, &mut object).await?;
        match self.send(&Method::PUT, path, &object).await {
            Ok(is) if is.pointer("/metadata/deletionTimestamp").is_none() => return Ok(Back::Done),
            // what is being deleted takes what is put into it along
            Ok(is) => {
                if !self.is_gone(path, uid_of(&is).as_deref(), Instant::now() + GONE_WITHIN).await? {
                    return Ok(Back::Not(HELD));
                }
            }
            Err(error) if error.status() == Some(404) => {}
            Err(error) => return Err(failed(path)(error)),
        }
        let made = self.send(&Method::POST, &kind.collection(&place.namespace), &object).await;
        made.map(|_| Back::Done).map_err(failed(path))
    }

    async fn send(
        &self,
        method: &Method,
        path: &str,
        object: &Value,
    ) -> std::result::Result<Value, ClusterError> {
        patiently(|| self.cluster.send(method, path, Sent::Object(object))).await
    }

    /// Waits until the object of this UID is gone: what is put into its place before that would go with it. False when it
    /// is still there at the deadline.
    async fn is_gone(&self, path: &str, uid: Option<&str>, deadline: Instant) -> Result<bool> {
        loop {
            let is = self.cluster.get(path).await.map_err(failed(path))?;
            if is.is_none_or(|is| uid_of(&is).as_deref() != uid) {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn failed(path: &str) -> impl FnOnce(ClusterError) -> Error {
    Error::cluster(format!("take back {path}"))
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
        let uid = uid_of(&is);
        if is_ours(&is) && run.before(path).is_none() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, Order, Stage};

    fn done(path: &str, result: Outcome, uid: &str, before: Option<u64>) -> Done {
        Done { path: path.into(), result, uid: Some(uid.into()), before, notes: Vec::new() }
    }

    // A finalizer holds what the restore made: nothing is counted as taken back that is still there, and nothing is put
    // into an object that is about to vanish.
    #[tokio::test]
    async fn what_does_not_go_is_told() {
        let stage = Stage::new();
        let fake = Fake::default();
        let cluster = fake.serve(&stage.dir).await;
        let run = stage.run();
        for name in ["made", "anew"] {
            let path = format!("/api/v1/namespaces/shop/configmaps/{name}");
            fake.put(&path, json!({"metadata": {"name": name, "namespace": "shop", "uid": "u"}}));
            fake.order(Method::DELETE, &path, Order::Hold);
        }
        let old = json!({"metadata": {"name": "anew", "namespace": "shop", "uid": "old"}});
        let before = run.keep("namespaces/shop/configmaps/anew.yaml", &old).unwrap();
        run.done(done("namespaces/shop/configmaps/made.yaml", Outcome::Created, "u", None)).unwrap();
        run.done(done("namespaces/shop/configmaps/anew.yaml", Outcome::Recreated, "u", Some(before)))
            .unwrap();
        let report = undo(&cluster, &stage.again(run), false).await.unwrap();
        assert_eq!((report.deleted, report.put_back), (0, 0));
        let failed: Vec<_> = report.failed.iter().map(|left| (&*left.object, &*left.why)).collect();
        assert_eq!(failed, [("configmaps shop/anew", HELD), ("configmaps shop/made", HELD)]);
        assert!(!fake.0.lock().unwrap().asked.iter().any(|asked| asked.starts_with("PUT")));
    }

    // The server quotes a Secret's value when it refuses it: the report of undo does not, no more than that of a restore.
    #[tokio::test]
    async fn a_refusal_does_not_quote_a_secret() {
        let stage = Stage::new();
        let fake = Fake::default();
        let cluster = fake.serve(&stage.dir).await;
        let run = stage.run();
        let at = "/api/v1/namespaces/shop/secrets/a";
        let old = json!({"metadata": {"name": "a", "namespace": "shop", "uid": "u"}});
        fake.put(at, old.clone());
        fake.order(Method::PUT, at, Order::Refuse(422, "Invalid", "data: \"hunter2\" is too short"));
        let path = "namespaces/shop/secrets/a.yaml.age";
        let before = run.keep(path, &old).unwrap();
        run.done(done(path, Outcome::Updated, "u", Some(before))).unwrap();
        let report = undo(&cluster, &stage.again(run), false).await.unwrap();
        assert!(report.failed[0].why.starts_with("422 Invalid (the message is withheld"), "{report:?}");
    }

    // An owner was made anew, and its child follows it. Taken back, the owner has a third UID: the child names that one,
    // not the first, which is gone: the garbage collector would take the child.
    #[tokio::test]
    async fn a_child_that_is_put_back_has_its_owner() {
        let stage = Stage::new();
        let fake = Fake::default();
        let cluster = fake.serve(&stage.dir).await;
        let run = stage.run();
        let owner = |uid: &str| json!({"metadata": {"name": "owner", "namespace": "shop", "uid": uid}});
        let child = |uid: &str| {
            json!({"metadata": {"name": "child", "namespace": "shop", "uid": "c", "ownerReferences":
            [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]}})
        };
        let at = |name: &str| format!("/api/v1/namespaces/shop/configmaps/{name}");
        let path = |name: &str| format!("namespaces/shop/configmaps/{name}.yaml");
        for (name, result, before, now, uid) in [
            ("owner", Outcome::Recreated, owner("first"), owner("second"), "second"),
            ("child", Outcome::Updated, child("first"), child("second"), "c"),
        ] {
            fake.put(&at(name), now);
            let before = run.keep(&path(name), &before).unwrap();
            run.done(done(&path(name), result, uid, Some(before))).unwrap();
        }
        let report = undo(&cluster, &stage.again(run), false).await.unwrap();
        assert_eq!((report.put_back, report.failed.len()), (2, 0), "{report:?}");
        let uid = fake.object(&at("owner")).unwrap()["metadata"]["uid"].clone();
        assert_eq!(uid, "new-1");
        let child = fake.object(&at("child")).unwrap();
        assert_eq!(child["metadata"]["ownerReferences"][0]["uid"], uid);
    }
}
