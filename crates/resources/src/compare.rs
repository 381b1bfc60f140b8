//! Where two objects differ.

use serde_json::Value;

/// Most places that are named; the rest is counted in the last.
const PLACES_MAX: usize = 20;

/// The places (JSON pointers) at which two objects differ: `+` only in `wanted`, `-` only in `is`, `~` different.
pub(crate) fn differences(wanted: &Value, is: &Value) -> Vec<String> {
    let mut places = Vec::new();
    let mut left = vec![(String::new(), wanted, is)];
    while let Some((at, wanted, is)) = left.pop() {
        match (wanted, is) {
            (Value::Object(wanted), Value::Object(is)) => {
                for (name, value) in wanted {
                    let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                    match is.get(name) {
                        Some(other) => left.push((at, value, other)),
                        None => places.push(format!("+{at}")),
                    }
                }
                let gone = is.keys().filter(|name| !wanted.contains_key(*name));
                places
                    .extend(gone.map(|name| format!("-{at}/{}", name.replace('~', "~0").replace('/', "~1"))));
            }
            (Value::Array(wanted), Value::Array(is)) if wanted.len() == is.len() => {
                let pairs = wanted.iter().zip(is).enumerate();
                left.extend(pairs.map(|(index, (wanted, is))| (format!("{at}/{index}"), wanted, is)));
            }
            _ if wanted == is => {}
            _ => places.push(format!("~{at}")),
        }
    }
    places.sort_by(|a, b| a.get(1..).cmp(&b.get(1..)));
    if let Some(more) = places.len().checked_sub(PLACES_MAX).filter(|more| *more > 0) {
        places.truncate(PLACES_MAX);
        places.push(format!("and {more} more"));
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn places_are_named_without_their_values() {
        let wanted = json!({"data": {"a/b": "secret", "same": 1}, "list": [1, 2], "other": [1]});
        let is = json!({"data": {"same": 1, "new": "hidden"}, "list": [1, 3], "other": [1, 2]});
        assert_eq!(differences(&wanted, &is), ["+/data/a~1b", "-/data/new", "~/list/1", "~/other"]);
        assert!(differences(&wanted, &wanted).is_empty());
        let many = Value::Object((0..30).map(|n| (format!("{n:02}"), Value::Null)).collect());
        assert_eq!(differences(&many, &json!({})).last().unwrap(), "and 10 more");
    }
}
