//! Owner references: they name an owner by UID, and a restored owner has another one.
//!
//! Owners are restored before what they own. A reference to an owner that is nowhere would make the garbage collector delete
//! the object at once: such a reference is left out, and the report says so.

use crate::error::{Error, Result};
use crate::folder::SEALED;
use crate::journal::{Outcome, Run};
use crate::kinds::{Kind, Kinds, split};
use crate::list::patiently;
use crate::paths::{self, Place};
use crate::plan::{Action, Entry, Plan};
use http::Method;
use rekindle_world::cluster::{Cluster, Sent};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
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
        // what failed is tried again, and may get another
        let done = |entry: &Entry| run.done.get(&entry.path).filter(|done| done.result != Outcome::Failed);
        let state = |entry: &Entry| match (&entry.uid, done(entry).and_then(|done| done.uid.clone())) {
            (_, Some(uid)) => State::Is(uid),
            (None, None) => State::Waited,
            // recreated ones get another
            (Some(_), None) if entry.action == Action::Recreate => State::Waited,
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
        if let Some(path) = path_of(&plan.kinds, &entry.place, api_version, kind, name) {
            let known = lock(&self.restored).get(&path).cloned();
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

/// Path in the backup, without `.age`, of an owner of what lies in this place; none when its kind is not in the backup.
fn path_of(kinds: &[Kind], place: &Place, api_version: &str, kind: &str, name: &str) -> Option<String> {
    let of = kinds.iter().find(|k| k.group == split(api_version).0 && k.kind == kind)?;
    Some(paths::of(of, if of.namespaced { &place.namespace } else { "" }, name))
}

/// What is as it should be loses its owner when that is deleted to be made anew: it is updated, so that it has the new one.
pub(crate) fn follow(kinds: &[Kind], entries: &mut [Entry]) {
    let anew = entries.iter().filter(|entry| entry.action == Action::Recreate);
    let anew: HashSet<String> = anew.map(|entry| plain(&entry.path).to_owned()).collect();
    for entry in entries.iter_mut().filter(|entry| entry.action == Action::Unchanged) {
        let is_anew = |owner: &Value| {
            let text = |field: &str| owner.get(field).and_then(Value::as_str).unwrap_or_default();
            let path = path_of(kinds, &entry.place, text("apiVersion"), text("kind"), text("name"));
            path.is_some_and(|path| anew.contains(&path))
        };
        if entry.owners.iter().any(is_anew) {
            entry.action = Action::Update;
            entry.places = vec!["~/metadata/ownerReferences".to_owned()];
        }
    }
}

/// Gives the references of an object that is put back the UIDs that its owners have by now; one to an owner that is gone
/// goes, too: the garbage collector would delete the object.
pub(crate) async fn renew(
    cluster: &Cluster,
    kinds: &Kinds,
    namespace: &str,
    object: &mut Value,
) -> Result<()> {
    let owners = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut);
    let Some(owners) = owners else { return Ok(()) };
    let mut kept = Vec::new();
    for mut owner in std::mem::take(owners) {
        let text = |field: &str| owner.get(field).and_then(Value::as_str).unwrap_or_default();
        let of = kinds.of_group(split(text("apiVersion")).0, text("kind"));
        let Some(path) = of.map(|of| of.object(namespace, text("name"))) else { continue };
        let asked = patiently(|| cluster.get(&path)).await;
        let is = asked.map_err(Error::cluster(format!("ask for the owner {path}")))?;
        let uid = is.as_ref().and_then(|is| is.pointer("/metadata/uid")).cloned();
        if let (Some(uid), Some(fields)) = (uid, owner.as_object_mut()) {
            fields.insert("uid".into(), uid);
            kept.push(owner);
        }
    }
    *owners = kept;
    Ok(())
}

fn plain(path: &str) -> &str {
    path.strip_suffix(SEALED).unwrap_or(path)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::for_tests;
    use serde_json::json;

    // A shelf is deleted and made anew; the API server takes it off its items, which were as they should be. They are given
    // the new one.
    #[test]
    fn what_an_owner_made_anew_owns_follows_it() {
        let kinds = [
            for_tests("x.io", "v1", "Shelf", "shelves", true),
            for_tests("", "v1", "ConfigMap", "configmaps", true),
        ];
        let entry = |path: &str, action, owner: Option<&str>| Entry {
            path: path.into(),
            place: paths::parse(path).unwrap(),
            kind: 0,
            needed: false,
            action,
            uid: Some("u".into()),
            places: Vec::new(),
            owners: owner
                .map(|name| json!({"apiVersion": "x.io/v1", "kind": "Shelf", "name": name}))
                .into_iter()
                .collect(),
        };
        let mut entries = [
            entry("namespaces/shop/shelves.x.io/front.yaml", Action::Recreate, None),
            entry("namespaces/shop/configmaps/items.yaml", Action::Unchanged, Some("front")),
            entry("namespaces/shop/configmaps/others.yaml", Action::Unchanged, Some("back")),
            entry("namespaces/back/configmaps/items.yaml", Action::Unchanged, Some("front")),
        ];
        follow(&kinds, &mut entries);
        let actions = entries.each_ref().map(|entry| entry.action);
        assert_eq!(actions, [Action::Recreate, Action::Update, Action::Unchanged, Action::Unchanged]);
        assert_eq!(entries[1].places, ["~/metadata/ownerReferences"]);
    }
}
