//! Changes to an object that can be inverted, and the JSON patch that makes them: pure.
//!
//! Each says what it expects, so that it is made once, refused when somebody else was there, and taken back exactly.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One change to an object. Pointers are RFC 6901 (`/spec/unschedulable`); the parent of the last part must exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "change")]
pub enum Change {
    /// A field gets another value; null = the field is absent.
    Set {
        /// The field.
        pointer: String,
        /// What it is before.
        from: Value,
        /// What it is after.
        to: Value,
    },
    /// A list gets an item, unless it has it.
    AddItem {
        /// The list; it may be absent.
        pointer: String,
        /// The item. A present one that has all its fields (and perhaps more, which a server added) is the same item.
        item: Value,
    },
    /// A list loses an item, if it has it.
    RemoveItem {
        /// The list.
        pointer: String,
        /// The item, found as for `AddItem`.
        item: Value,
    },
}

impl Change {
    /// The change that takes this one back.
    pub fn inverse(&self) -> Self {
        match self.clone() {
            Self::Set { pointer, from, to } => Self::Set { pointer, from: to, to: from },
            Self::AddItem { pointer, item } => Self::RemoveItem { pointer, item },
            Self::RemoveItem { pointer, item } => Self::AddItem { pointer, item },
        }
    }

    /// Whether it changes nothing, and only says what must be so for the others to be made.
    pub fn is_guard(&self) -> bool {
        matches!(self, Self::Set { from, to, .. } if from == to)
    }

    /// Whether the object is already as this change makes it.
    pub fn is_made(&self, object: &Value) -> bool {
        match self {
            Self::Set { pointer, to, .. } => at(object, pointer) == *to,
            Self::AddItem { pointer, item } => items(object, pointer).iter().any(|one| same(one, item)),
            Self::RemoveItem { pointer, item } => !items(object, pointer).iter().any(|one| same(one, item)),
        }
    }

    /// The operation of a JSON patch that makes it; none when it is made already.
    ///
    /// # Errors
    /// The field holds what neither `from` nor `to` says: somebody else has changed it.
    pub fn operation(&self, object: &Value) -> Result<Option<Value>, String> {
        if self.is_made(object) {
            return Ok(None);
        }
        let operation = match self {
            Self::Set { pointer, from, to } => {
                let present = at(object, pointer);
                if present != *from {
                    return Err(format!("{pointer} is {present}, where {from} was expected"));
                }
                if to.is_null() {
                    json!({"op": "remove", "path": pointer})
                } else {
                    json!({"op": "add", "path": pointer, "value": to})
                }
            }
            Self::AddItem { pointer, item } => {
                let mut list = items(object, pointer).to_vec();
                list.push(item.clone());
                json!({"op": "add", "path": pointer, "value": list})
            }
            Self::RemoveItem { pointer, item } => {
                let list: Vec<&Value> =
                    items(object, pointer).iter().filter(|one| !same(one, item)).collect();
                json!({"op": "add", "path": pointer, "value": list})
            }
        };
        Ok(Some(operation))
    }
}

/// The JSON patch that makes all changes, tied to the version of the object it was made from; none when all are made.
///
/// # Errors
/// As [`Change::operation`].
pub fn patch(object: &Value, changes: &[Change]) -> Result<Option<Value>, String> {
    let mut operations = vec![
        json!({"op": "test", "path": "/metadata/uid", "value": at(object, "/metadata/uid")}),
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": at(object, "/metadata/resourceVersion")}),
    ];
    let tests = operations.len();
    for change in changes {
        operations.extend(change.operation(object)?);
    }
    Ok((operations.len() > tests).then_some(Value::Array(operations)))
}

fn at(object: &Value, pointer: &str) -> Value {
    object.pointer(pointer).cloned().unwrap_or_default()
}

fn items<'v>(object: &'v Value, pointer: &str) -> &'v [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether an item is the wanted one: equal, or an object with (at least) all fields of it.
fn same(present: &Value, wanted: &Value) -> bool {
    match (present, wanted) {
        (Value::Object(present), Value::Object(wanted)) => {
            wanted.iter().all(|(name, value)| present.get(name) == Some(value))
        }
        _ => present == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Value {
        json!({"metadata": {"uid": "u", "resourceVersion": "7"},
               "spec": {"taints": [{"key": "a", "effect": "NoExecute", "timeAdded": "t"}]}})
    }

    // A node is cordoned and gets a taint: one patch makes both, bound to what was read; made again it is none, and
    // taken back only what the change itself brought is gone.
    #[test]
    fn changes_are_made_once_and_taken_back() {
        let cordon =
            Change::Set { pointer: "/spec/unschedulable".into(), from: Value::Null, to: true.into() };
        let there = Change::AddItem {
            pointer: "/spec/taints".into(),
            item: json!({"key": "a", "effect": "NoExecute"}),
        };
        let taint = Change::AddItem {
            pointer: "/spec/taints".into(),
            item: json!({"key": "b", "effect": "NoExecute"}),
        };
        let made = patch(&node(), &[cordon.clone(), there.clone(), taint.clone()]).unwrap().unwrap();
        assert_eq!(made.as_array().unwrap().len(), 4, "two tests, the cordon and the new taint: {made}");
        assert_eq!(made[0], json!({"op": "test", "path": "/metadata/uid", "value": "u"}));
        assert_eq!(made[3]["value"][1], json!({"key": "b", "effect": "NoExecute"}));
        assert!(there.is_made(&node()) && !taint.is_made(&node()));
        let after = json!({"metadata": {"uid": "u", "resourceVersion": "8"},
            "spec": {"unschedulable": true, "taints": [{"key": "a"}, {"key": "b", "effect": "NoExecute"}]}});
        assert_eq!(patch(&after, &[cordon.clone(), taint.clone()]).unwrap(), None, "made already");
        let back = patch(&after, &[cordon.inverse(), taint.inverse()]).unwrap().unwrap();
        assert_eq!(back[2], json!({"op": "remove", "path": "/spec/unschedulable"}));
        assert_eq!(back[3]["value"], json!([{"key": "a"}]));
    }

    // Somebody set the field to a third value since the plan was made: that is not overwritten.
    #[test]
    fn a_third_value_is_refused() {
        let policy = Change::Set { pointer: "/spec/x".into(), from: "Fail".into(), to: "Ignore".into() };
        let object = json!({"metadata": {"uid": "u"}, "spec": {"x": "Other"}});
        let why = patch(&object, &[policy]).unwrap_err();
        assert!(why.contains("Other") && why.contains("Fail"), "{why}");
    }

    // A finalizer is a plain text in a list; taking out the last one leaves an empty list.
    #[test]
    fn a_finalizer_is_taken_out_alone() {
        let object = json!({"metadata": {"uid": "u", "finalizers": ["a/b", "c/d"]}});
        let out = Change::RemoveItem { pointer: "/metadata/finalizers".into(), item: "a/b".into() };
        assert_eq!(out.operation(&object).unwrap().unwrap()["value"], json!(["c/d"]));
        assert!(out.is_made(&json!({"metadata": {}})));
    }
}
