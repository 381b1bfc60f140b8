//! A watch over all pods of a [`Fleet`](crate::fleet::Fleet): where they are, and whether a budget was ever broken.

use crate::fleet::GUARDED;
use crate::plane::Plane;
use crate::{cache, cmd, components, ports};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long what happened may take to be seen.
const PATIENCE: Duration = Duration::from_secs(300);
/// Before a watch that ended is asked for again.
const PAUSE: Duration = Duration::from_millis(100);

/// A watch over all pods: where they are, and after each change how many of each guarded Deployment are healthy, as the
/// disruption controller counts them (Ready, and not being deleted). Changes of one type come in the order of their revisions, so
/// each count was true of the store at one moment, and none is missed: an API server that lets go of a watch that is slow (it
/// does so on a machine that is busy) is asked again from the last revision seen.
pub struct BudgetWatch {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    counts: Mutex<Counts>,
    following: Mutex<Following>,
}

/// The kubectl that follows the pods.
#[derive(Default)]
struct Following {
    kubectl: Option<Child>,
    ended: bool,
}

/// A pod: where it is, and whether it is a healthy one of a guarded Deployment.
struct Pod {
    node: String,
    healthy: bool,
}

#[derive(Default)]
struct Counts {
    /// By UID.
    pods: BTreeMap<String, Pod>,
    healthy: BTreeMap<String, usize>,
    /// Fewest at any time since the watch began.
    fewest: BTreeMap<String, usize>,
    /// The marks seen on pods.
    marks: BTreeSet<String>,
    /// The revision of what was seen last.
    revision: String,
    /// Why changes may have been missed.
    broken: Option<String>,
}

/// `PodList`, as far as it is looked at.
#[derive(Deserialize)]
struct List {
    metadata: Metadata,
    items: Vec<Object>,
}

#[derive(Deserialize)]
struct Change {
    #[serde(rename = "type")]
    kind: String,
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: serde_json::Value,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    uid: String,
    resource_version: String,
    deletion_timestamp: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
}

impl Object {
    fn is_ready(&self) -> bool {
        let conditions = self.status.get("conditions").and_then(|conditions| conditions.as_array());
        let is = |condition: &serde_json::Value| {
            condition.get("type").is_some_and(|kind| kind == "Ready")
                && condition.get("status").is_some_and(|status| status == "True")
        };
        conditions.is_some_and(|conditions| conditions.iter().any(is))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BudgetWatch {
    /// Watches from now on, when so many pods are there.
    pub(crate) fn start(plane: &Plane, pods: usize) -> Result<Self> {
        let path = format!("/api/v1/namespaces/default/pods?labelSelector={GUARDED}");
        let list: List = serde_json::from_str(&plane.kubectl(&["get", "--raw", &path])?)?;
        ensure!(list.items.len() == pods, "{} of {pods} pods", list.items.len());
        let mut counts = Counts { revision: list.metadata.resource_version, ..Counts::default() };
        list.items.into_iter().for_each(|pod| counts.take("ADDED", pod));
        counts.fewest = counts.healthy.clone();
        let shared = Arc::new(Shared { counts: Mutex::new(counts), following: Mutex::default() });
        let kubectl = components::kubernetes()?.path("kubectl");
        let kubeconfig = plane.kubeconfig();
        let again = move |revision: &str| {
            let path = format!("{path}&watch=true&resourceVersion={revision}");
            let args = ["--kubeconfig", kubeconfig.as_str(), "get", "--raw", &path];
            let mut command = cmd::command(kubectl.as_str(), args);
            command.stdout(Stdio::piped()).stderr(Stdio::null());
            command
        };
        let follower = Arc::clone(&shared);
        let reader = std::thread::spawn(move || follower.follow(&again));
        Ok(Self { shared, reader: Some(reader) })
    }

    /// How many pods there are on these nodes.
    #[must_use]
    pub fn on(&self, nodes: &[String]) -> usize {
        locked(&self.shared.counts).pods.values().filter(|pod| nodes.contains(&pod.node)).count()
    }

    /// Ends the watch when it has seen all that has happened until now: the fewest healthy pods that any guarded
    /// Deployment had at any time, and how many pods are on these nodes.
    ///
    /// # Errors
    /// When the watch broke: then nothing is known.
    pub fn end(mut self, plane: &Plane, nodes: &[String]) -> Result<(usize, usize)> {
        // a pod that no controller makes, and no scheduler takes: the last that happens
        let mark = format!("seen-{}", ports::free());
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": mark, "namespace": "default",
            "labels": {"app": "mark", GUARDED: "false"}, "annotations": {"mark": mark}}, "spec": {
            "schedulerName": "none", "containers": [{"name": "main", "image": "none"}]}});
        let file = plane.dir().join("mark.json");
        cache::write(&file, pod.to_string())?;
        plane.kubectl(&["create", "-f", file.as_str()])?;
        let broken = cmd::wait_for("the watch to see the last change", PATIENCE, || {
            let counts = locked(&self.shared.counts);
            Ok((counts.broken.is_some() || counts.marks.contains(&mark)).then(|| counts.broken.clone()))
        })?;
        if let Some(why) = broken {
            anyhow::bail!("the watch over all pods broke, whether a budget was broken is not known: {why}");
        }
        self.stop();
        plane.kubectl(&["delete", "--wait=false", "-f", file.as_str()])?;
        let fewest = locked(&self.shared.counts).fewest.values().min().copied();
        Ok((fewest.context("no guarded Deployment")?, self.on(nodes)))
    }

    fn stop(&mut self) {
        let mut following = locked(&self.shared.following);
        following.ended = true;
        if let Some(kubectl) = &mut following.kubectl {
            let _ = kubectl.kill();
        }
        drop(following);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for BudgetWatch {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// Follows the pods, again and again from what was seen last, until the watch is ended or broken.
    fn follow(&self, again: &dyn Fn(&str) -> Command) {
        loop {
            let revision = locked(&self.counts).revision.clone();
            let output = {
                let mut following = locked(&self.following);
                if following.ended {
                    return;
                }
                match again(&revision).spawn() {
                    Ok(child) => following.kubectl.insert(child).stdout.take(),
                    Err(error) => {
                        locked(&self.counts).broken = Some(format!("cannot start kubectl: {error}"));
                        return;
                    }
                }
            };
            let Some(output) = output else { return };
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let mut counts = locked(&self.counts);
                counts.see(&line);
                if counts.broken.is_some() {
                    return;
                }
            }
            if let Some(mut ended) = locked(&self.following).kubectl.take() {
                let _ = ended.wait();
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Counts {
    /// One event of the watch.
    fn see(&mut self, line: &str) {
        match serde_json::from_str::<Change>(line) {
            Ok(change) if change.kind != "ERROR" => {
                self.revision.clone_from(&change.object.metadata.resource_version);
                self.take(&change.kind, change.object);
            }
            // the revision is gone, or the line was cut short where the stream ended; the latter is not an ERROR
            Ok(_) => self.broken = Some(line.to_owned()),
            Err(error) if error.is_eof() => {}
            Err(error) => self.broken = Some(format!("{error}: {line}")),
        }
    }

    fn take(&mut self, kind: &str, object: Object) {
        let healthy_now = object.is_ready();
        let Metadata { uid, deletion_timestamp, mut labels, mut annotations, .. } = object.metadata;
        self.marks.extend(annotations.remove("mark"));
        let is_guarded = labels.get(GUARDED).is_some_and(|guarded| guarded == "true");
        let healthy = is_guarded && kind != "DELETED" && deletion_timestamp.is_none() && healthy_now;
        let pod = Pod { node: object.spec.node_name, healthy };
        let before = match kind {
            "DELETED" => self.pods.remove(&uid),
            _ => self.pods.insert(uid, pod),
        };
        if !is_guarded {
            return;
        }
        let was = before.is_some_and(|pod| pod.healthy);
        let app = labels.remove("app").unwrap_or_default();
        let count = self.healthy.entry(app.clone()).or_default();
        match (was, healthy) {
            (false, true) => *count += 1,
            (true, false) => *count -= 1,
            _ => {}
        }
        if let Some(fewest) = self.fewest.get_mut(&app) {
            *fewest = (*fewest).min(*count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: &str, app: &str, uid: &str, node: &str, more: serde_json::Value, ready: &str) -> String {
        let mut metadata = json!({"uid": uid, "resourceVersion": "7", "labels": {"app": app,
            GUARDED: (app == "web").to_string()}});
        metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"type": kind, "object": {"metadata": metadata, "spec": {"nodeName": node}, "status": {
            "conditions": [{"type": "Ready", "status": ready}]}}})
        .to_string()
    }

    // A pod that is deleted is healthy no more from the moment it has a deletion time, and counted once; one without a
    // budget is counted nowhere, and one that is gone is on no node. A line that was cut short with its stream comes again,
    // and an error breaks the watch.
    #[test]
    fn the_fewest_are_kept() {
        let mut counts = Counts::default();
        let none = json!({});
        let leaving = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        for uid in ["a", "b", "c"] {
            counts.see(&change("ADDED", "web", uid, "n1", none.clone(), "True"));
        }
        counts.fewest = counts.healthy.clone();
        counts.see(&change("MODIFIED", "web", "a", "n1", leaving.clone(), "True"));
        counts.see(&change("DELETED", "web", "a", "n1", leaving, "True"));
        counts.see(&change("MODIFIED", "web", "b", "n1", none.clone(), "False"));
        counts.see(&change("ADDED", "web", "d", "n2", json!({"annotations": {"mark": "here"}}), "True"));
        counts.see(&change("ADDED", "free", "e", "", none.clone(), "False"));
        let whole = change("ADDED", "web", "f", "n2", none, "True");
        counts.see(&whole[..whole.len() / 2]);
        assert_eq!((counts.fewest["web"], counts.healthy["web"], counts.marks.len()), (1, 2, 1));
        assert!(counts.pods.len() == 4 && !counts.healthy.contains_key("free"));
        assert_eq!((counts.revision.as_str(), &counts.broken), ("7", &None));
        counts.see(r#"{"type":"ERROR","object":{"kind":"Status","code":410}}"#);
        assert!(counts.broken.is_some());
    }
}
