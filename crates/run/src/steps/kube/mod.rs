//! Steps through the Kubernetes API. Each object is named by its UID; one of the same name made since is never touched.
//!
//! [`change`] edits, deletes and waits for single objects, [`saved`] keeps what they were and makes them again,
//! [`drain`] empties nodes, [`fence`] proves that a host is off, [`remains`] that nothing is left.

pub(super) mod change;
pub(super) mod drain;
pub(super) mod fence;
mod newcomers;
pub(super) mod remains;
mod saved;
mod watch;

use super::context::Ctx;
use crate::error::StepError;
use rekindle_model::kube::ObjectRef;
use rekindle_world::Cluster;
use serde_json::Value;
use std::time::Duration;

/// How often something waited for is looked at.
const EVERY: Duration = Duration::from_millis(300);

/// An object with the wanted UID; none when it is gone, or another one has its name.
async fn get(cluster: &Cluster, object: &ObjectRef) -> Result<Option<Value>, StepError> {
    let found = cluster.get(&object.path()).await?;
    Ok(found.filter(|found| text(found, "/metadata/uid") == object.uid))
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

impl Ctx<'_> {
    /// The cluster the plan works on.
    fn cluster(&self) -> Result<&Cluster, StepError> {
        self.cluster.ok_or_else(|| StepError::Plan("a step through the API, and no cluster".into()))
    }
}
