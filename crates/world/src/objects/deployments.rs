//! Deployments that are scaled to none: a controller or a backend that only has to be started again.

use super::{labels, list, number, object, text};
use crate::cluster::Cluster;
use rekindle_model::kube::ObjectRef;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of a cluster's Deployments.
#[derive(Default)]
pub(super) struct Deployments {
    /// Those without replicas.
    scaled_down: Vec<Value>,
    /// How many of all go by a name.
    named: BTreeMap<String, usize>,
}

impl Deployments {
    /// Of the whole cluster; what can't be read is told.
    pub(super) async fn read(cluster: &Cluster, unread: &mut Vec<String>) -> Self {
        let take = |one: Value| {
            let names = names(&one);
            Some((names, (number(&one, "/spec/replicas") == 0).then_some(one)))
        };
        match cluster.list_of("/apis/apps/v1/deployments", take).await {
            Ok(found) => Self::of(found),
            Err(error) => {
                unread.push(rekindle_model::seen::chain(&error));
                Self::default()
            }
        }
    }

    fn of(found: Vec<(BTreeSet<String>, Option<Value>)>) -> Self {
        let mut this = Self::default();
        for (names, scaled_down) in found {
            for name in names {
                *this.named.entry(name).or_default() += 1;
            }
            this.scaled_down.extend(scaled_down);
        }
        this
    }

    /// The one without replicas that goes by the name of who wrote finalizers. A name that several go by, running or not,
    /// tells nothing: `manager` is what kubebuilder calls every controller's container.
    pub(super) fn controller(&self, managers: &[String]) -> Option<ObjectRef> {
        let telling = |name: &String| managers.contains(name) && self.named.get(name) == Some(&1);
        let mut found = self.scaled_down.iter().filter(|one| names(one).iter().any(telling));
        let first = found.next()?;
        found.next().is_none().then(|| reference(first))
    }

    /// The one without replicas whose pods a service selects.
    pub(super) fn behind(&self, namespace: &str, service: &Value) -> Option<&Value> {
        let selector = labels(service, "/spec/selector");
        self.scaled_down.iter().find(|one| {
            let labels = labels(one, "/spec/template/metadata/labels");
            let selected = selector.iter().all(|(key, value)| labels.get(key) == Some(value));
            !selector.is_empty() && selected && text(one, "/metadata/namespace") == namespace
        })
    }
}

/// What a Deployment's program may call itself: as its containers, or as the Deployment.
fn names(deployment: &Value) -> BTreeSet<String> {
    let containers = list(deployment, "/spec/template/spec/containers").iter();
    containers.map(|one| text(one, "/name")).chain([text(deployment, "/metadata/name")]).collect()
}

pub(super) fn reference(value: &Value) -> ObjectRef {
    object("/apis/apps/v1", "deployments", "Deployment", value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn all(of: &[(&str, &str, i64)]) -> Deployments {
        let found = of.iter().map(|(name, container, replicas)| {
            let one = json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"replicas": replicas,
                "template": {"spec": {"containers": [{"name": container}]}}}});
            (names(&one), (*replicas == 0).then_some(one))
        });
        Deployments::of(found.collect())
    }

    // Two operators are made with kubebuilder, whose container is `manager`, and only one is scaled down. Who wrote the
    // finalizer can't be told by that name, also when the other one runs: the wrong controller is never started. A name
    // that is one Deployment's alone tells.
    #[test]
    fn a_name_that_several_go_by_tells_no_controller() {
        let by = |deployments: &Deployments, manager: &str| {
            deployments.controller(&[manager.to_owned()]).map(|one| one.name)
        };
        let both_down = all(&[("widgets", "manager", 0), ("gadgets", "manager", 0)]);
        let one_runs = all(&[("widgets", "manager", 0), ("gadgets", "manager", 1)]);
        for deployments in [both_down, one_runs] {
            assert_eq!(by(&deployments, "manager"), None);
            assert_eq!(by(&deployments, "widgets"), Some("widgets".into()));
        }
        assert_eq!(by(&all(&[("widgets", "manager", 0)]), "manager"), Some("widgets".into()));
        assert_eq!(by(&all(&[("widgets", "widgets", 0)]), "widgets"), Some("widgets".into()));
        assert_eq!(by(&all(&[("widgets", "manager", 1)]), "widgets"), None, "it runs");
    }
}
