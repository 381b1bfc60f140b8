//! Owner references: they name an owner by UID, and a restored owner has another one.
//!
//! Owners are restored before what they own. A reference to an owner that is nowhere would make the garbage collector delete
//! the object at once: such a reference is left out, and the report says so.

use crate::error::{Error, Result};
use crate::folder::SEALED;
use crate::journal::{Outcome, Run};
use crate::kinds::split;
use crate::list::patiently;
use crate::paths;
use crate::plan::{Entry, Plan};
use http::Method;
use rekindle_world::cluster::{Cluster, Sent};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// UIDs of what is restored, and of other owners that were asked for.
pub(crate) struct Owners {
    /// By path in the backup, without `.age`: a UID, or none while it is not known.
    restored: Mutex<HashMap<String, State>>,
    /// By path in the API.
    others: Mutex<HashMap<String, Option<String>>>,
}

#[derive(Clone)]
enum State {
    Waited,
    Is(String),
    /// Failed, or left out.
    Not,
}

impl Owners {
    pub(crate) fn new(plan: &Plan, run: &Run) -> Self {
        let state = |entry: &Entry| match (&entry.uid, run.done.get(&entry.path).and_then(|d| d.uid.clone()))
        {
            (_, Some(uid)) => State::Is(uid),
            (None, None) => State::Waited,
            // recreated ones get another
            (Some(_), None) if entry.action == crate::plan::Action::Recreate => State::Waited,
            (Some(uid), None) => State::Is(uid.clone()),
        };
        let restored = plan.entries.iter().map(|entry| (plain(&entry.path).to_owned(), state(entry)));
        Self { restored: Mutex::new(restored.collect()), others: Mutex::default() }
    }

    pub(crate) fn concluded(&self, path: &str, uid: Option<&str>, result: Outcome) {
        let state = match (uid, result) {
            (Some(uid), _) => State::Is(uid.to_owned()),
            (None, _) => State::Not,
        };
        lock(&self.restored).insert(plain(path).to_owned(), state);
    }

    /// Gives the references the UIDs of their owners here. `Err` names an owner that is still to come.
    pub(crate) async fn resolve(
        &self,
        cluster: &Cluster,
        plan: &Plan,
        entry: &Entry,
        object: &mut Value,
    ) -> Result<std::result::Result<Vec<String>, String>> {
        let mut notes = Vec::new();
        let Some(owners) = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut)
        else {
            return Ok(Ok(notes));
        };
        let mut kept = Vec::new();
        for mut owner in std::mem::take(owners) {
            let text = |field: &str| owner.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (api_version, kind, name) = (text("apiVersion"), text("kind"), text("name"));
            let shown = format!("{kind} {name}");
            match self.uid(cluster, plan, entry, &api_version, &kind, &name).await? {
                State::Waited => return Ok(Err(shown)),
                State::Not => notes.push(format!("its owner {shown} is not there: it has no owner now")),
                State::Is(uid) => {
                    if let Some(fields) = owner.as_object_mut() {
                        fields.insert("uid".into(), uid.into());
                    }
                    kept.push(owner);
                }
            }
        }
        *owners = kept;
        Ok(Ok(notes))
    }

    async fn uid(
        &self,
        cluster: &Cluster,
        plan: &Plan,
        entry: &Entry,
        api_version: &str,
        kind: &str,
        name: &str,
    ) -> Result<State> {
        let (group, _) = split(api_version);
        let of = plan.kinds.iter().find(|k| k.group == group && k.kind == kind);
        if let Some(of) = of {
            let namespace = if of.namespaced { &entry.place.namespace } else { "" };
            let known = lock(&self.restored).get(&paths::of(of, namespace, name)).cloned();
            if let Some(state) = known {
                return Ok(state);
            }
        }
        let Some(of) = plan.target.of_group(group, kind) else { return Ok(State::Not) };
        let namespace =
            if of.namespaced { plan.choices.changes.namespace(&entry.place.namespace) } else { "" };
        let path = of.object(namespace, name);
        let cached = lock(&self.others).get(&path).cloned();
        let uid = match cached {
            Some(uid) => uid,
            None => {
                let found = patiently(|| cluster.send(&Method::GET, &path, Sent::Nothing)).await;
                let uid = match found {
                    Ok(owner) => owner.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned),
                    Err(error) if matches!(error.status(), Some(403 | 404)) => None,
                    Err(error) => {
                        return Err(Error::cluster(format!("ask for the owner {kind} {name}"))(error));
                    }
                };
                lock(&self.others).insert(path, uid.clone());
                uid
            }
        };
        Ok(uid.map_or(State::Not, State::Is))
    }
}

fn plain(path: &str) -> &str {
    path.strip_suffix(SEALED).unwrap_or(path)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
