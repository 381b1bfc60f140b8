//! Objects of the API as facts: what the verbs over nodes and stuck objects decide by. Reads only.
//!
//! [`nodes`] (nodes, how long they may be silent, whether their kubelets answer), [`pods`] (pods and the budgets over
//! them), [`stuck`] (what will not go away, and who holds it). Objects are read field by field: what a field should be
//! and is not counts as missing.

mod deployments;
pub mod nodes;
pub mod pods;
pub mod stuck;

use rekindle_model::kube::ObjectRef;
use rekindle_model::kube::nodes::Condition;
use serde_json::Value;
use std::collections::BTreeMap;

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

fn list<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn texts(value: &Value, pointer: &str) -> Vec<String> {
    list(value, pointer).iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()
}

fn labels(value: &Value, pointer: &str) -> BTreeMap<String, String> {
    let map = value.pointer(pointer).and_then(Value::as_object);
    let pairs = map.into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn time_ms(value: &Value, pointer: &str) -> Option<i64> {
    let time = value.pointer(pointer)?.as_str()?;
    time.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

/// The reference to an object of a type served under `root` (`/api/v1`, `/apis/apps/v1`).
fn object(root: &str, plural: &str, kind: &str, value: &Value) -> ObjectRef {
    let namespace = Some(text(value, "/metadata/namespace")).filter(|namespace| !namespace.is_empty());
    let collection = match &namespace {
        Some(namespace) => format!("{root}/namespaces/{namespace}/{plural}"),
        None => format!("{root}/{plural}"),
    };
    ObjectRef {
        collection,
        kind: kind.to_owned(),
        namespace,
        name: text(value, "/metadata/name"),
        uid: text(value, "/metadata/uid"),
    }
}

fn conditions(value: &Value) -> Vec<Condition> {
    list(value, "/status/conditions")
        .iter()
        .map(|one| Condition {
            kind: text(one, "/type"),
            status: text(one, "/status"),
            reason: text(one, "/reason"),
            message: text(one, "/message"),
            since_ms: time_ms(one, "/lastTransitionTime"),
        })
        .collect()
}
