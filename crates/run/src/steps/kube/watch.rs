//! Which pods are gone: one watch over all pods from the moment of the first list on, so that a drain of many nodes asks
//! for no pod again and again.

use futures::StreamExt as _;
use rekindle_world::Cluster;
use rekindle_world::cluster::Watched;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Pause before a broken watch is begun anew.
const PAUSE: Duration = Duration::from_millis(500);

/// The few fields of a pod that tell whether it is there.
#[derive(Clone, Deserialize)]
struct Seen {
    metadata: Meta,
}

#[derive(Clone, Deserialize)]
struct Meta {
    uid: String,
}

/// Pods (by UID) that are waited for.
#[derive(Clone)]
pub(super) struct Gone {
    left: Arc<Mutex<BTreeSet<String>>>,
    changed: Arc<tokio::sync::Notify>,
}

/// Watches while it lives.
pub(super) struct Watching(tokio::task::JoinHandle<()>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Gone {
    /// Of these UIDs, on these nodes.
    pub(super) fn start(
        cluster: &Cluster,
        uids: BTreeSet<String>,
        nodes: BTreeSet<String>,
    ) -> (Self, Watching) {
        let this = Self { left: Arc::new(Mutex::new(uids)), changed: Arc::default() };
        let (gone, cluster) = (this.clone(), cluster.clone());
        let watching = tokio::spawn(async move {
            loop {
                if let Some(version) = gone.look(&cluster, &nodes).await {
                    gone.follow(&cluster, &version).await;
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        (this, Watching(watching))
    }

    fn left(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a pod is gone.
    pub(super) fn is_gone(&self, uid: &str) -> bool {
        !self.left().contains(uid)
    }

    /// A pod is known to be gone.
    pub(super) fn set_gone(&self, uid: &str) {
        if self.left().remove(uid) {
            self.changed.notify_waiters();
        }
    }

    /// Until some pod went, or the time is over.
    pub(super) async fn change(&self, longest: Duration) {
        let _ = tokio::time::timeout(longest, self.changed.notified()).await;
    }

    /// Lists the pods of each node; those not listed are gone. The version to watch from; none when it can't be told.
    async fn look(&self, cluster: &Cluster, nodes: &BTreeSet<String>) -> Option<String> {
        // owned by each question: a task that borrows can't be sent
        let asked: Vec<_> = nodes
            .iter()
            .map(|node| {
                let (cluster, path) =
                    (cluster.clone(), format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}"));
                async move { cluster.get(&path).await.ok().flatten() }
            })
            .collect();
        let lists = futures::stream::iter(asked);
        let lists: Vec<Option<Value>> = lists.buffered(8).collect().await;
        let mut there = BTreeSet::new();
        let mut version: Option<(u64, String)> = None;
        for list in lists {
            let list = list?;
            for pod in super::list(&list, "/items") {
                there.insert(super::text(pod, "/metadata/uid").to_owned());
            }
            let text = super::text(&list, "/metadata/resourceVersion").to_owned();
            let number = text.parse::<u64>().ok()?;
            // the oldest of the lists: nothing after it is missed
            if version.as_ref().is_none_or(|(oldest, _)| number < *oldest) {
                version = Some((number, text));
            }
        }
        let gone: Vec<String> = self.left().iter().filter(|uid| !there.contains(*uid)).cloned().collect();
        gone.iter().for_each(|uid| self.set_gone(uid));
        version.map(|(_, text)| text)
    }

    /// Follows the changes until the watch breaks.
    async fn follow(&self, cluster: &Cluster, version: &str) {
        let path = format!("/api/v1/pods?watch=1&resourceVersion={version}");
        let Ok(events) = cluster.watch::<Seen>(&path).await else { return };
        let mut events = std::pin::pin!(events);
        while let Some(Ok(event)) = events.next().await {
            if let Watched::Gone(pod) = event {
                self.set_gone(&pod.metadata.uid);
            }
        }
    }
}
