//! Which objects are meant: by namespace, kind and label.

use crate::error::{Error, Result};
use crate::index::Problem;
use crate::kinds::{Kind, split};
use kube::core::{Expression, Selector, SelectorExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What is asked for. Empty means everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Selection {
    /// Only these namespaces: their objects, and the Namespaces themselves. With a backup also the CustomResourceDefinitions
    /// that these objects need and the PersistentVolumes that their claims are bound to.
    pub namespaces: Vec<String>,
    /// Not these namespaces.
    pub exclude_namespaces: Vec<String>,
    /// Only these kinds.
    pub include: Vec<String>,
    /// Not these kinds.
    pub exclude: Vec<String>,
    /// Only objects with these labels, as kubectl's `-l`.
    pub selector: Option<String>,
}

impl Selection {
    /// Whether objects of this kind are asked for at all.
    #[must_use]
    pub fn wants_kind(&self, kind: &Kind) -> bool {
        let called = |names: &[String]| names.iter().any(|name| kind.is_called(name));
        (self.include.is_empty() || called(&self.include)) && !called(&self.exclude)
    }

    /// Whether Secrets are asked for.
    #[must_use]
    pub fn wants_secrets(&self) -> bool {
        let text = str::to_owned;
        self.wants_kind(&Kind {
            group: String::new(),
            version: text("v1"),
            kind: text("Secret"),
            resource: text("secrets"),
            namespaced: true,
            aliases: vec![text("secret")],
            verbs: Vec::new(),
            has_status: false,
        })
    }

    /// Whether objects of this namespace are asked for.
    #[must_use]
    pub fn wants_namespace(&self, namespace: &str) -> bool {
        let among = |names: &[String]| names.iter().any(|name| name == namespace);
        (self.namespaces.is_empty() || among(&self.namespaces)) && !among(&self.exclude_namespaces)
    }

    /// Whether an object in this place is asked for. A Namespace counts as lying in itself; of what else lies in none,
    /// only what the selected namespaces need is in a backup of namespaces.
    #[must_use]
    pub fn wants_place(&self, kind: &Kind, namespace: &str, name: &str) -> bool {
        match (namespace.is_empty(), kind.name() == "namespaces") {
            (true, true) => self.wants_namespace(name),
            (true, false) => true,
            (false, _) => self.wants_namespace(namespace),
        }
    }

    /// Whether something that is asked for may be missing because this could not be read.
    #[must_use]
    pub fn lacks(&self, problem: &Problem) -> bool {
        // what comes along with namespaces
        const NEEDED: [&str; 3] =
            ["namespaces", "persistentvolumes", "customresourcedefinitions.apiextensions.k8s.io"];
        let Some(kind) = &problem.of else {
            if !problem.what.contains('/') {
                return true; // as an earlier version wrote it
            }
            // `group/version`, of which no kind is known
            let group = format!(".{}", split(&problem.what).0);
            let names = |list: &[String]| list.iter().any(|name| name.to_ascii_lowercase().ends_with(&group));
            let is_excluded = self.exclude.iter().any(|name| *name == format!("*{group}"));
            return (self.include.is_empty() || names(&self.include)) && !is_excluded;
        };
        let has_place = kind.namespaced || !self.is_of_namespaces() || NEEDED.contains(&kind.name().as_str());
        let is_of_place = problem.namespace.is_empty() || self.wants_namespace(&problem.namespace);
        self.wants_kind(kind) && has_place && is_of_place
    }

    /// What is asked for in words; empty: everything. The same words are the same selection.
    #[must_use]
    pub fn words(&self) -> String {
        let named = [
            ("namespaces", &self.namespaces),
            ("not namespaces", &self.exclude_namespaces),
            ("kinds", &self.include),
            ("not kinds", &self.exclude),
        ];
        let mut words: Vec<String> = Vec::new();
        for (what, names) in named.into_iter().filter(|(_, names)| !names.is_empty()) {
            let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
            words.push(format!("{what} {}", names.into_iter().collect::<Vec<_>>().join(", ")));
        }
        words.extend(self.selector.as_ref().map(|selector| format!("labels {selector}")));
        words.join("; ")
    }

    /// Whether it names namespaces, so that what lies in none is left out unless it is needed.
    #[must_use]
    pub fn is_of_namespaces(&self) -> bool {
        !self.namespaces.is_empty()
    }

    /// The labels asked for, ready to match.
    ///
    /// # Errors
    /// [`Error::Given`] for a selector that is none.
    pub fn labels(&self) -> Result<Option<Selector>> {
        self.selector.as_deref().map(parse).transpose()
    }
}

/// Whether an object has the labels.
#[must_use]
pub fn matches(selector: Option<&Selector>, object: &Value) -> bool {
    let Some(selector) = selector else { return true };
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let labels: BTreeMap<String, String> = labels
        .map(|labels| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            labels.iter().map(|(key, value)| (key.clone(), text(value))).collect()
        })
        .unwrap_or_default();
    selector.matches(&labels)
}

/// `a=b,c!=d,e in (f,g),h notin (i),j,!k`, as kubectl takes it.
fn parse(text: &str) -> Result<Selector> {
    let wrong = |why: &str| Error::Given { what: "selector", text: text.into(), why: why.into() };
    let mut expressions = Vec::new();
    for part in parts(text) {
        let part = part.trim();
        let expression = if let Some((key, values)) = set(part, " notin ") {
            Expression::NotIn(key, values)
        } else if let Some((key, values)) = set(part, " in ") {
            Expression::In(key, values)
        } else if let Some((key, value)) = part.split_once("!=") {
            Expression::NotEqual(key.trim().into(), value.trim().into())
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            Expression::Equal(key.trim().into(), value.trim().into())
        } else if let Some(key) = part.strip_prefix('!') {
            Expression::DoesNotExist(key.trim().into())
        } else if part.is_empty() || part.contains(['(', ')', ' ']) {
            return Err(wrong("expected a=b, a!=b, a in (b,c), a notin (b,c), a or !a, with commas between"));
        } else {
            Expression::Exists(part.into())
        };
        expressions.push(expression);
    }
    Ok(expressions.into_iter().collect())
}

/// Split at the commas outside parentheses.
fn parts(text: &str) -> Vec<&str> {
    let mut inside = false;
    text.split(|c| {
        inside = (inside || c == '(') && c != ')';
        c == ',' && !inside
    })
    .collect()
}

fn set(part: &str, word: &str) -> Option<(String, BTreeSet<String>)> {
    let (key, values) = part.split_once(word)?;
    let values = values.trim().strip_prefix('(')?.strip_suffix(')')?;
    Some((key.trim().to_owned(), values.split(',').map(|value| value.trim().to_owned()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::for_tests;
    use serde_json::json;

    // A backup is partial for who asks for what it lacks, and whole for all others.
    #[test]
    fn what_a_backup_lacks_counts_for_who_asks_for_it() {
        let things = for_tests("x.io", "v1", "Thing", "things", true);
        let of = |kind: Option<&Kind>, namespace: &str, what: &str| Problem {
            what: what.into(),
            why: String::new(),
            of: kind.cloned(),
            namespace: namespace.into(),
        };
        let classes = for_tests("x.io", "v1", "Class", "classes", false);
        let [kind, place, class] =
            [of(Some(&things), "", ""), of(Some(&things), "shop", ""), of(Some(&classes), "", "")];
        let silent = of(None, "", "y.io/v1");
        let select = |namespaces: &[&str], include: &[&str], exclude: &[&str]| {
            let [namespaces, include, exclude] =
                [namespaces, include, exclude].map(|list| list.iter().map(|s| (*s).to_owned()).collect());
            Selection { namespaces, include, exclude, ..Selection::default() }
        };
        let lacks = |selection: &Selection| [&kind, &place, &class, &silent].map(|p| selection.lacks(p));
        assert_eq!(lacks(&Selection::default()), [true; 4]);
        assert_eq!(lacks(&select(&["shop"], &[], &[])), [true, true, false, true]);
        assert_eq!(lacks(&select(&["back"], &[], &[])), [true, false, false, true]);
        assert_eq!(lacks(&select(&[], &["secrets"], &[])), [false; 4]);
        assert_eq!(lacks(&select(&[], &["Thing", "as.y.io"], &[])), [true, true, false, true]);
        assert_eq!(lacks(&select(&[], &[], &["things.x.io", "*.y.io"])), [false, false, true, false]);
    }

    // The same text selects the same objects from a folder as kubectl selects from a cluster.
    #[test]
    fn labels_are_matched_as_kubectl_does() {
        let object = json!({"metadata": {"labels": {"app": "web", "tier": "front"}}});
        for (text, expected) in [
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (web, api),tier notin (back)", true),
            ("app,!missing", true),
            ("app=api", false),
            ("!app", false),
            ("tier in (back)", false),
            ("missing!=x", true),
        ] {
            let selector =
                Selection { selector: Some(text.into()), ..Selection::default() }.labels().unwrap();
            assert_eq!(matches(selector.as_ref(), &object), expected, "{text}");
        }
        for text in ["", "a,,b", "a in web", "a b"] {
            let selection = Selection { selector: Some(text.into()), ..Selection::default() };
            assert!(selection.labels().is_err(), "{text:?}");
        }
        assert!(matches(None, &object));
    }

    #[test]
    fn secrets_are_asked_for_in_many_ways() {
        let wants = |include: &[&str], exclude: &[&str]| {
            let texts = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
            Selection { include: texts(include), exclude: texts(exclude), ..Selection::default() }
                .wants_secrets()
        };
        assert!(
            wants(&[], &[]) && wants(&["Secret"], &[]) && wants(&["*."], &[]) && wants(&["secrets."], &[])
        );
        assert!(!wants(&["configmaps"], &[]) && !wants(&[], &["secret"]) && !wants(&["*.apps"], &[]));
    }

    #[test]
    fn a_namespace_lies_in_itself() {
        let selection = Selection { namespaces: vec!["shop".into()], ..Selection::default() };
        let namespaces = for_tests("", "v1", "Namespace", "namespaces", false);
        let maps = for_tests("", "v1", "ConfigMap", "configmaps", true);
        assert!(selection.wants_place(&namespaces, "", "shop"));
        assert!(!selection.wants_place(&namespaces, "", "other"));
        assert!(selection.wants_place(&maps, "shop", "x"));
        assert!(!selection.wants_place(&maps, "other", "x"));
    }
}
