//! One object into the cluster: made, changed or made anew, never over something that the plan did not see.
//!
//! New objects are made by POST with the field manager `rekindle`: only that fails when somebody was quicker, where a
//! server-side apply would change what is there. What is there is changed by server-side apply with the same manager.

use crate::backup::is_secret;
use crate::error::{Error, Result, refusal};
use crate::journal::{Outcome, Run};
use crate::kinds::Kind;
use crate::list::{is_passing, patiently};
use crate::owners;
use crate::plan::{Action, Entry, Plan, differing, of_existing};
use crate::prepare;
use crate::restore::may_help_later;
use http::Method;
use rekindle_world::cluster::{Cluster, ClusterError, Sent};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Name under which the API server keeps which fields were restored.
const MANAGER: &str = "fieldManager=rekindle";
/// How long a deleted object may take to be gone.
pub(crate) const GONE_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 30 });

/// One object on its way.
pub(crate) struct Writing<'a> {
    pub(crate) cluster: &'a Cluster,
    /// As the cluster serves it.
    pub(crate) kind: &'a Kind,
    pub(crate) plan: &'a Plan,
    pub(crate) run: &'a Run,
    pub(crate) entry: &'a Entry,
}

/// What was written.
pub(crate) struct Written {
    pub(crate) result: Outcome,
    pub(crate) uid: Option<String>,
    pub(crate) before: Option<u64>,
    pub(crate) notes: Vec<String>,
}

/// Why not.
pub(crate) struct NotWritten {
    pub(crate) why: String,
    /// Trying again later does not help.
    pub(crate) is_for_good: bool,
    /// UID of the object that is there all the same.
    pub(crate) uid: Option<String>,
}

type Tried = std::result::Result<Written, NotWritten>;

impl Writing<'_> {
    /// Writes it as the plan says. `retried`: an earlier attempt of this run may have made it.
    ///
    /// # Errors
    /// Only what ends the whole run: no answer from the cluster, no journal.
    pub(crate) async fn object(&self, object: Value, status: Option<Value>, retried: bool) -> Result<Tried> {
        let written = match self.entry.action {
            Action::Create => self.create(object, retried).await?,
            action => self.change(object, action).await?,
        };
        let mut written = match written {
            Ok(written) => written,
            Err(error) => return Ok(Err(error)),
        };
        let Some(status) = status else { return Ok(Ok(written)) };
        if matches!(written.result, Outcome::Created | Outcome::Updated | Outcome::Recreated)
            && self.kind.has_status
        {
            let path = format!("{}/status?{MANAGER}", self.path());
            let patch = json!({ "status": status });
            if let Err(error) = self.send(&Method::PATCH, &path, Sent::MergePatch(&patch)).await? {
                written.notes.push(format!("its status is not restored: {}", error.why));
            }
        }
        Ok(Ok(written))
    }

    fn path(&self) -> String {
        let place = self.plan.choices.changes.target(&self.entry.place);
        self.kind.object(&place.namespace, &place.name)
    }

    async fn create(&self, object: Value, retried: bool) -> Result<Tried> {
        match self.post(object.clone()).await? {
            Err(error) if error.already_exists => {}
            Err(error) => return Ok(Err(self.not_made(error).await?)),
            Ok((uid, mut notes)) => {
                notes.extend(self.free_volume(&object, uid.as_deref()).await?);
                // deleted by an earlier try, which did not come to making it anew
                let before = self.run.before(&self.entry.path);
                let result = if before.is_some() { Outcome::Recreated } else { Outcome::Created };
                return Ok(Ok(Written { result, uid, before, notes }));
            }
        }
        // somebody was quicker: a controller, a person, or an earlier attempt of this run
        let Some(is) = self.live().await? else {
            let why = "it was there, and is gone again".to_owned();
            return Ok(Err(NotWritten { why, is_for_good: false, uid: None }));
        };
        let uid = uid_of(&is);
        let is_same = differing(self.kind, &object, is).is_empty();
        match (is_same, of_existing(self.kind, &self.entry.place, self.plan.choices.existing)) {
            (true, _) => {
                let result = if retried { Outcome::Created } else { Outcome::Unchanged };
                Ok(Ok(Written { result, uid, before: None, notes: Vec::new() }))
            }
            (false, Action::Skip) => {
                let notes = vec!["made by another meanwhile, and different".to_owned()];
                Ok(Ok(Written { result: Outcome::Skipped, uid, before: None, notes }))
            }
            (false, action) => self.change(object, action).await,
        }
    }

    /// A claim's volume that outlived the claim waits for the old one's UID, for ever: it is freed for the new one.
    async fn free_volume(&self, claim: &Value, uid: Option<&str>) -> Result<Option<String>> {
        let volume = claim.pointer("/spec/volumeName").and_then(Value::as_str);
        let (true, Some(name)) = (self.kind.name() == "persistentvolumeclaims", volume) else {
            return Ok(None);
        };
        let Some(kind) = self.plan.target.of("v1", "PersistentVolume") else { return Ok(None) };
        let path = kind.object("", name);
        let Ok(volume) = self.send(&Method::GET, &path, Sent::Nothing).await? else { return Ok(None) };
        let place = self.plan.choices.changes.target(&self.entry.place);
        let is_ours = prepare::claim_of(&volume) == Some(format!("{}/{}", place.namespace, place.name));
        let old = volume.pointer("/spec/claimRef/uid").and_then(Value::as_str);
        if !is_ours || old.is_none() || old == uid {
            return Ok(None);
        }
        let version = volume.pointer("/metadata/resourceVersion");
        let patch = json!({
            "metadata": {"resourceVersion": version}, "spec": {"claimRef": {"uid": null, "resourceVersion": null}},
        });
        Ok(Some(match self.send(&Method::PATCH, &path, Sent::MergePatch(&patch)).await? {
            Ok(_) => format!("its volume {name} was kept for the lost claim, and is freed for this one"),
            Err(error) => format!("its volume {name} is kept for the lost claim: {}", error.why),
        }))
    }

    /// Changes what is there, after it was saved.
    async fn change(&self, object: Value, action: Action) -> Result<Tried> {
        let Some(is) = self.live().await? else { return Box::pin(self.create(object, true)).await };
        let uid = uid_of(&is);
        let before = Some(self.run.keep(&self.entry.path, &is)?);
        if action == Action::Recreate {
            if let Err(error) = self.delete(uid.as_deref()).await? {
                return Ok(Err(error));
            }
            return Ok(match self.post(object).await? {
                Ok((uid, notes)) => Ok(Written { result: Outcome::Recreated, uid, before, notes }),
                Err(error) => Err(self.not_made(error).await?),
            });
        }
        let path = format!("{}?{MANAGER}&force=true", self.path());
        let mut object = object;
        let mut notes = Vec::new();
        let mut applied = self.send(&Method::PATCH, &path, Sent::Apply(&object)).await?;
        if let Err(error) = &applied
            && self.is_service()
            && error.is_for_good
        {
            prepare::without_given(&mut object, true, true);
            notes.push("its address and ports stay those it has".into());
            applied = self.send(&Method::PATCH, &path, Sent::Apply(&object)).await?;
        }
        Ok(match applied {
            Ok(is) => Ok(Written { result: Outcome::Updated, uid: uid_of(&is), before, notes }),
            Err(error) => Err(self.not_written(error)),
        })
    }

    fn not_written(&self, refused: Failed) -> NotWritten {
        NotWritten { why: refused.why, is_for_good: refused.is_for_good, uid: self.entry.uid.clone() }
    }

    /// It could not be made. If it was deleted for that, it is put back as it was; tried no more then, so that what runs is
    /// not deleted again and again.
    async fn not_made(&self, refused: Failed) -> Result<NotWritten> {
        let before = self.run.before(&self.entry.path).filter(|_| !refused.already_exists);
        let Some(before) = before else { return Ok(self.not_written(refused)) };
        let place = self.plan.choices.changes.target(&self.entry.place);
        let mut kept = self.run.kept(before)?;
        prepare::without_identity(&mut kept);
        owners::renew(self.cluster, &self.plan.target, &place.namespace, &mut kept).await?;
        let path = format!("{}?{MANAGER}", self.kind.collection(&place.namespace));
        Ok(match self.send(&Method::POST, &path, Sent::Object(&kept)).await? {
            Ok(is) => {
                let why = format!("{}; it was deleted, and is put back as it was", refused.why);
                NotWritten { why, is_for_good: true, uid: uid_of(&is) }
            }
            Err(error) => {
                let (why, id) = (format!("{}; it is deleted", refused.why), self.run.id());
                let hint = format!("`rekindle resources undo {id}` makes it as it was");
                let why = format!("{why}, and could not be put back ({}): {hint}", error.why);
                NotWritten { why, is_for_good: refused.is_for_good, uid: None }
            }
        })
    }

    /// Deletes the object of this UID, leaves what it owns, and waits until it is gone.
    async fn delete(&self, uid: Option<&str>) -> Result<std::result::Result<(), NotWritten>> {
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Orphan", "preconditions": {"uid": uid},
        });
        match self.send(&Method::DELETE, &self.path(), Sent::Object(&options)).await? {
            Err(error) if error.status != Some(404) => return Ok(Err(self.not_written(error))),
            _ => {}
        }
        let deadline = tokio::time::Instant::now() + GONE_WITHIN;
        loop {
            match self.live().await? {
                Some(is) if uid_of(&is).as_deref() == uid => {}
                _ => return Ok(Ok(())),
            }
            if tokio::time::Instant::now() > deadline {
                let why = "it is being deleted, and a finalizer holds it".to_owned();
                return Ok(Err(NotWritten { why, is_for_good: false, uid: uid.map(str::to_owned) }));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Makes it; a Service keeps its address and ports where they are free.
    async fn post(
        &self,
        mut object: Value,
    ) -> Result<std::result::Result<(Option<String>, Vec<String>), Failed>> {
        let place = self.plan.choices.changes.target(&self.entry.place);
        let path = format!("{}?{MANAGER}", self.kind.collection(&place.namespace));
        let mut notes = Vec::new();
        loop {
            let error = match self.send(&Method::POST, &path, Sent::Object(&object)).await? {
                Ok(made) => return Ok(Ok((uid_of(&made), notes))),
                Err(error) => error,
            };
            if error.already_exists && error.may_be_done {
                // an answer was lost, not the request
                let is = self.live().await?.filter(is_ours);
                return Ok(is.map(|is| (uid_of(&is), notes)).ok_or(error));
            }
            if !self.is_service() || error.status != Some(422) || notes.len() > 1 {
                return Ok(Err(error));
            }
            let before = object.clone();
            let of_ports = error.why.contains("nodePort") || error.why.contains("healthCheckNodePort");
            if of_ports {
                prepare::without_given(&mut object, false, true);
                notes.push("its node ports are not free here: it has new ones".to_owned());
            } else {
                prepare::without_given(&mut object, true, false);
                notes.push("its cluster IP is not free here: it has a new one".to_owned());
            }
            if before == object {
                return Ok(Err(error));
            }
        }
    }

    async fn live(&self) -> Result<Option<Value>> {
        match self.send(&Method::GET, &self.path(), Sent::Nothing).await? {
            Ok(is) => Ok(Some(is)),
            Err(error) if error.status == Some(404) => Ok(None),
            Err(Failed { source, .. }) => {
                Err(Error::Cluster { doing: format!("read {}", self.shown()), source })
            }
        }
    }

    /// One request, tried again while the server is busy. What the server refuses is told to the caller; no answer, or no
    /// longer being let in, ends the run.
    async fn send(
        &self,
        method: &Method,
        path: &str,
        sent: Sent<'_>,
    ) -> Result<std::result::Result<Value, Failed>> {
        let may_be_done = AtomicBool::new(false);
        let once = || async {
            let answer = self.cluster.send(method, path, sent).await;
            // too many requests: it was not even looked at
            if answer.as_ref().is_err_and(|error| is_passing(error) && error.status() != Some(429)) {
                may_be_done.store(true, Ordering::Relaxed);
            }
            answer
        };
        match patiently(once).await {
            Ok(value) => Ok(Ok(value)),
            Err(error @ ClusterError::Refused { .. }) if error.status() != Some(401) => {
                Ok(Err(Failed::new(error, is_secret(self.kind), may_be_done.into_inner())))
            }
            Err(source) => Err(Error::Cluster { doing: format!("write {}", self.shown()), source }),
        }
    }

    fn shown(&self) -> String {
        let place = &self.entry.place;
        format!(
            "{} {}{}{}",
            place.kind,
            place.namespace,
            if place.namespace.is_empty() { "" } else { "/" },
            place.name
        )
    }

    fn is_service(&self) -> bool {
        self.kind.name() == "services"
    }
}

/// A refusal of the API server.
struct Failed {
    status: Option<u16>,
    already_exists: bool,
    /// An earlier try of the same request got no clear answer.
    may_be_done: bool,
    is_for_good: bool,
    why: String,
    source: ClusterError,
}

impl Failed {
    fn new(source: ClusterError, secret: bool, may_be_done: bool) -> Self {
        let already_exists =
            matches!(&source, ClusterError::Refused { reason, .. } if reason == "AlreadyExists");
        let (status, why) = (source.status(), refusal(&source, secret));
        Self { status, already_exists, may_be_done, is_for_good: !may_help_later(&source), why, source }
    }
}

/// Whether a restore wrote the object.
pub(crate) fn is_ours(object: &Value) -> bool {
    let managers = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    managers.into_iter().flatten().any(|m| m.get("manager") == Some(&Value::from("rekindle")))
}

pub(crate) fn uid_of(object: &Value) -> Option<String> {
    object.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, Order, Stage};
    use crate::kinds::{Kinds, for_tests};
    use crate::paths;
    use crate::plan::{Choices, Existing};

    const PATH: &str = "namespaces/shop/configmaps/a.yaml";
    const AT: &str = "/api/v1/namespaces/shop/configmaps/a";
    const ALL: &str = "/api/v1/namespaces/shop/configmaps";

    fn map(data: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "shop"}, "data": {"text": data}})
    }

    /// Writes the object `new` as planned.
    async fn write(fake: &Fake, stage: &Stage, run: &Run, action: Action) -> Tried {
        let cluster = fake.serve(&stage.dir).await;
        let kind = for_tests("", "v1", "ConfigMap", "configmaps", true);
        let entry = Entry {
            path: PATH.into(),
            place: paths::parse(PATH).unwrap(),
            kind: 0,
            needed: false,
            action,
            uid: Some("old".into()),
            places: Vec::new(),
            owners: Vec::new(),
        };
        let plan = Plan {
            cluster: crate::index::ClusterFacts::default(),
            choices: Choices { existing: Existing::Recreate, ..Choices::default() },
            kinds: vec![kind.clone()],
            target: Kinds { all: vec![kind.clone()], silent: Vec::new() },
            entries: Vec::new(),
            around: prepare::Surroundings::default(),
        };
        let writing = Writing { cluster: &cluster, kind: &kind, plan: &plan, run, entry: &entry };
        writing.object(map("new"), None, false).await.unwrap()
    }

    fn there(fake: &Fake) {
        let mut old = map("old");
        old["metadata"]["uid"] = "old".into();
        fake.put(AT, old);
    }

    // An object is deleted to be made anew, and an admission rule refuses the new one: the old one is back, and the report
    // says both. It is not deleted again.
    #[tokio::test]
    async fn what_cannot_be_made_anew_is_put_back() {
        let (stage, fake) = (Stage::new(), Fake::default());
        there(&fake);
        fake.order(Method::POST, ALL, Order::Refuse(403, "Forbidden", "a policy says no"));
        let refused = write(&fake, &stage, &stage.run(), Action::Recreate).await.err().unwrap();
        assert_eq!(refused.why, "a policy says no; it was deleted, and is put back as it was");
        assert!(refused.is_for_good);
        let is = fake.object(AT).unwrap();
        assert_eq!((&is["data"]["text"], uid_of(&is)), (&json!("old"), refused.uid));
    }

    // That is refused, too: the report says that the object is gone, and what brings it back. The next try makes it.
    #[tokio::test]
    async fn what_cannot_be_put_back_is_told() {
        let (stage, fake) = (Stage::new(), Fake::default());
        there(&fake);
        for _ in 0..2 {
            fake.order(Method::POST, ALL, Order::Refuse(403, "Forbidden", "a policy says no"));
        }
        let run = stage.run();
        let refused = write(&fake, &stage, &run, Action::Recreate).await.err().unwrap();
        let undo = format!("`rekindle resources undo {}`", run.id());
        assert!(refused.why.contains("it is deleted") && refused.why.contains(&undo), "{}", refused.why);
        assert!(!refused.is_for_good && refused.uid.is_none() && fake.object(AT).is_none());
        let written = write(&fake, &stage, &run, Action::Recreate).await.ok().unwrap();
        assert_eq!((written.result, written.before), (Outcome::Recreated, Some(0)));
    }

    // The API server makes the object, and its answer is lost on the way: the second try is told that it is there. It was
    // made by this restore, and `undo` must know; one that another made at that moment is not ours.
    #[tokio::test]
    async fn a_create_whose_answer_is_lost_is_a_create() {
        let (stage, fake) = (Stage::new(), Fake::default());
        fake.order(Method::POST, ALL, Order::DoneBut(504));
        let written = write(&fake, &stage, &stage.run(), Action::Create).await.ok().unwrap();
        assert_eq!((written.result, written.uid.as_deref()), (Outcome::Created, Some("new-1")));

        let (stage, fake) = (Stage::new(), Fake::default());
        fake.put(AT, map("new"));
        fake.order(Method::POST, ALL, Order::Refuse(504, "", ""));
        let written = write(&fake, &stage, &stage.run(), Action::Create).await.ok().unwrap();
        assert_eq!(written.result, Outcome::Unchanged);
    }
}
