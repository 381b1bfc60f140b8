//! Objects as YAML that people and git can read, and back.
//!
//! Every text is read back before it counts: where a reader would see anything else than what was written, the object is
//! written as JSON instead, which is YAML, too.

use serde_json::Value;

/// The text of an object.
#[must_use]
pub(crate) fn write(object: &Value) -> String {
    match pretty(object) {
        Some(text) if read(text.as_bytes()).as_ref() == Some(object) => text,
        _ => format!("{object:#}\n"),
    }
}

/// An object from its text; none when it is not one.
#[must_use]
pub(crate) fn read(text: &[u8]) -> Option<Value> {
    if text.first() == Some(&b'{') {
        return serde_json::from_slice(text).ok();
    }
    let value: Value = serde_saphyr::from_slice(text).ok()?;
    value.is_object().then_some(value)
}

/// Long lines stay whole (a folded scalar is hard to read and to compare); several lines become a literal block, where
/// every reader takes that as it is meant.
fn pretty(object: &Value) -> Option<String> {
    let options = serde_saphyr::ser_options! {
        folded_wrap_chars: usize::MAX,
        prefer_block_scalars: !has_awkward_lines(object),
    };
    let mut text = String::new();
    serde_saphyr::to_fmt_writer_with_options(&mut text, object, options).ok()?;
    Some(text)
}

/// Whether a text of several lines is in it that kubectl's reader (go-yaml) refuses or changes in a literal block: one that
/// begins with white space, or has characters that are not printed.
fn has_awkward_lines(object: &Value) -> bool {
    let mut left = vec![object];
    while let Some(value) = left.pop() {
        match value {
            Value::Array(items) => left.extend(items),
            Value::Object(fields) => left.extend(fields.values()),
            Value::String(text) if text.contains('\n') => {
                let unprinted = |c: char| {
                    (c.is_control() && c != '\n' && c != '\t')
                        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
                };
                if text.starts_with([' ', '\t', '\n']) || text.contains(unprinted) {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn people_can_read_it() {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"},
            "data": {"yes": "no", "config": "a: b\nc:\n\td\n", "number": "1e3", "null": "~"},
        });
        let expected = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: web\ndata:\n  \"yes\": \"no\"\n  config: |\n    a: b\n    c:\n    \td\n  number: \"1e3\"\n  \"null\": \"~\"\n";
        assert_eq!(write(&object), expected);
        assert_eq!(read(expected.as_bytes()), Some(object));
        assert_eq!(read(b"a: [b"), None);
        assert_eq!(read(b"text"), None);
    }

    fn value() -> impl Strategy<Value = Value> {
        let text = prop_oneof!["\\PC{0,12}", "[ \\t\\r\\n:#'\"|>a-]{0,12}", any::<String>()];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..5)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        // Whatever an object holds, it comes back as it was; whatever a file holds, nothing panics.
        #[test]
        fn every_object_comes_back(fields in prop::collection::btree_map("[a-z]{1,5}", value(), 1..5)) {
            let object: Value = fields.into_iter().collect();
            let text = write(&object);
            prop_assert_eq!(read(text.as_bytes()), Some(object));
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}
