//! An object without noise: what the API server wrote about it goes, what somebody wants of it stays.

use crate::kinds::Kind;
use crate::policy;
use serde_json::{Map, Value};

/// Fields of `metadata` that the API server writes anew.
const METADATA: [&str; 8] = [
    "managedFields",
    "resourceVersion",
    "uid",
    "generation",
    "creationTimestamp",
    "selfLink",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// What is kept of an object. `apiVersion` and `kind` come first; items of a list have none of their own.
///
/// `status` stays only where nobody could write it anew from `spec`: on custom resources, and on Jobs (a finished one
/// must not run again).
#[must_use]
pub(crate) fn clean(kind: &Kind, object: Value) -> Value {
    let mut out = Map::new();
    out.insert("apiVersion".into(), kind.api_version().into());
    out.insert("kind".into(), kind.kind.clone().into());
    let Value::Object(fields) = object else { return Value::Object(out) };
    let keeps_status = !policy::is_built_in(kind) || kind.kind == "Job";
    for (name, mut value) in fields {
        match name.as_str() {
            "apiVersion" | "kind" => continue,
            "status" if !keeps_status => continue,
            "metadata" => clean_metadata(&mut value),
            _ => {}
        }
        out.insert(name, value);
    }
    Value::Object(out)
}

fn clean_metadata(metadata: &mut Value) {
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.retain(|name, _| !METADATA.contains(&name.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::for_tests;
    use serde_json::json;

    #[test]
    fn noise_goes_and_what_is_wanted_stays() {
        let object = json!({
            "metadata": {"name": "a", "uid": "1", "resourceVersion": "2", "managedFields": [], "labels": {"uid": "x"}},
            "spec": {"resourceVersion": "mine"}, "status": {"phase": "Bound"},
        });
        let kept = clean(&for_tests("apps", "v1", "Deployment", "deployments", true), object.clone());
        let wanted = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "a", "labels": {"uid": "x"}}, "spec": {"resourceVersion": "mine"},
        });
        assert_eq!(kept, wanted);
        let custom = clean(&for_tests("x.io", "v1", "Thing", "things", true), object);
        assert_eq!(custom["status"]["phase"], "Bound");
    }
}
