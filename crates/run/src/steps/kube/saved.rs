//! What an object was before a step touched it: a file of the run, `objects/step-N.json` (0600: it may be a Secret), and
//! making the object again from it.

use super::super::context::{Ctx, Polled};
use super::EVERY;
use crate::error::StepError;
use camino::Utf8PathBuf;
use rekindle_model::kube::ObjectRef;
use rekindle_world::cluster::{Method, Sent};
use serde_json::Value;
use std::time::Duration;

/// Saved objects above this size are not such: an API server takes 3 MiB at most.
const MAX_BYTES: u64 = 16 << 20;

/// How long a type may take to be served after its definition was made again.
const SERVED_TIMEOUT: Duration = Duration::from_secs(60);

/// Where this step keeps its object.
pub(super) fn file(ctx: &Ctx<'_>) -> Utf8PathBuf {
    ctx.dir.join("objects").join(format!("step-{}.json", ctx.planned.number))
}

/// Saves what was read, unless it was saved before: the first look counts.
pub(super) fn save(ctx: &Ctx<'_>, object: &Value) -> Result<Utf8PathBuf, StepError> {
    let path = file(ctx);
    super::super::context::parent_of(&path)?;
    if !path.is_file() {
        let text = serde_json::to_vec_pretty(object)
            .map_err(|error| StepError::Plan(format!("an object that is no JSON: {error}")))?;
        crate::folder::write(&path, &text)
            .map_err(|error| StepError::Plan(crate::error::causes(&error).join(": ")))?;
    }
    Ok(path)
}

/// What was saved, if anything was.
pub(super) fn load(ctx: &Ctx<'_>) -> Result<Option<Value>, StepError> {
    use std::io::Read;
    let path = file(ctx);
    let failed = |source| StepError::File { doing: "read", path: path.clone(), source };
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    let value = serde_json::from_slice(&bytes)
        .map_err(|error| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))?;
    Ok(Some(value))
}

/// Makes the object again, alive, from what was saved; there already (by whoever's hand) is success.
pub(super) async fn make_again(ctx: &Ctx<'_>, object: &ObjectRef) -> Result<(), StepError> {
    let cluster = ctx.cluster()?;
    let Some(saved) = load(ctx)? else { return Ok(()) };
    if cluster.get(&object.path()).await?.is_some() {
        return Ok(());
    }
    let anew = anew(saved);
    let make = || async {
        match cluster.send(&Method::POST, &object.collection, Sent::Object(&anew)).await {
            Ok(_) => Ok(Polled::Ready(())),
            // somebody was faster
            Err(_) if cluster.get(&object.path()).await?.is_some() => Ok(Polled::Ready(())),
            // a type that was just made again is served a moment later
            Err(error) if matches!(error.status(), Some(404 | 429)) => Ok(Polled::Pending(error.to_string())),
            Err(error) => Err(error.into()),
        }
    };
    ctx.poll(&format!("{object} to be made again"), EVERY, SERVED_TIMEOUT, make).await
}

/// An object as it is sent to be made: without what the server fills in, and without what said that it was to go.
/// Owners are left out: they have other UIDs by now, and an object with a missing owner is collected as garbage.
fn anew(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in [
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "managedFields",
            "selfLink",
            "ownerReferences",
        ] {
            metadata.remove(field);
        }
    }
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
        if map.get("kind").and_then(Value::as_str) == Some("Namespace") {
            map.remove("spec");
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    // An object that was being deleted comes back alive, with its labels and finalizers and nothing of its old life.
    #[test]
    fn what_comes_back_is_alive() {
        let object = json!({"kind": "Widget", "metadata": {"name": "w", "uid": "u", "resourceVersion": "3",
            "labels": {"a": "b"}, "finalizers": ["x/y"], "deletionTimestamp": "t", "ownerReferences": [{}]},
            "spec": {"size": 1}, "status": {"phase": "x"}});
        let expected = json!({"kind": "Widget", "metadata": {"name": "w", "labels": {"a": "b"},
            "finalizers": ["x/y"]}, "spec": {"size": 1}});
        assert_eq!(anew(object), expected);
        assert_eq!(
            anew(json!({"kind": "Namespace", "spec": {"finalizers": ["kubernetes"]}})),
            json!({"kind": "Namespace"})
        );
    }
}
