//! Where an object lies in the folder: `cluster/KIND/NAME.yaml` or `namespaces/NAMESPACE/KIND/NAME.yaml`.

use crate::kinds::Kind;
use std::fmt::Write as _;

/// Longest file name without its endings; file systems take 255 bytes, names of objects have up to 253, and more with what
/// is written `%XX`.
const NAME_MAX_BYTES: usize = 200;
/// At the end of a folder's name: what follows below it is the rest of the name. No `%XX` ends so.
const GOES_ON: char = '%';

/// The path of an object, relative to the folder, without `.age`.
#[must_use]
pub(crate) fn of(kind: &Kind, namespace: &str, name: &str) -> String {
    at(&kind.name(), namespace, name)
}

/// The same for a kind by its name, `resource.group`.
pub(crate) fn at(kind: &str, namespace: &str, name: &str) -> String {
    let (kind, name) = (file_name(kind), file_name(name));
    if namespace.is_empty() {
        format!("cluster/{kind}/{name}.yaml")
    } else {
        format!("namespaces/{}/{kind}/{name}.yaml", file_name(namespace))
    }
}

/// What a path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Empty for what lies in no namespace.
    pub(crate) namespace: String,
    /// `resource.group`.
    pub(crate) kind: String,
    /// As the object has it.
    pub(crate) name: String,
}

/// The reverse of [`of`]; `.age` at the end does not count.
pub(crate) fn parse(path: &str) -> Option<Place> {
    let path = path.strip_suffix(crate::folder::SEALED).unwrap_or(path).strip_suffix(".yaml")?;
    let path = path.replace("%/", "");
    let parts: Vec<&str> = path.split('/').collect();
    let (namespace, kind, name) = match parts.as_slice() {
        ["cluster", kind, name] => ("", kind, name),
        ["namespaces", namespace, kind, name] => (*namespace, kind, name),
        _ => return None,
    };
    Some(Place { namespace: plain(namespace), kind: plain(kind), name: plain(name) })
}

/// `%XX` back into what it stands for.
fn plain(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if first == b'%' => {
                out.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A name as a file's: what file systems or shells could take amiss is written `%XX`, and what is too long for one file name
/// goes on in folders.
fn file_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut length = 0;
    for byte in name.bytes() {
        if length + 3 > NAME_MAX_BYTES {
            out.push(GOES_ON);
            out.push('/');
            length = 0;
        }
        let before = out.len();
        let leading = length == 0 && byte == b'.';
        if !leading && (byte.is_ascii_alphanumeric() || b"-._:@+".contains(&byte)) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        length += out.len() - before;
    }
    out
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::for_tests;
    use proptest::prelude::*;

    #[test]
    fn paths_are_readable() {
        let roles = for_tests("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false);
        let path = of(&roles, "", "system:node a/b");
        assert_eq!(path, "cluster/clusterroles.rbac.authorization.k8s.io/system:node%20a%2Fb.yaml");
        let maps = for_tests("", "v1", "ConfigMap", "configmaps", true);
        assert_eq!(of(&maps, "shop", "web"), "namespaces/shop/configmaps/web.yaml");
        assert_eq!(file_name(".."), "%2E.");
        let place =
            parse("cluster/clusterroles.rbac.authorization.k8s.io/system:node%20a%2Fb.yaml.age").unwrap();
        assert_eq!(place.name, "system:node a/b");
        assert_eq!((&*place.namespace, &*place.kind), ("", "clusterroles.rbac.authorization.k8s.io"));
        assert_eq!(parse("namespaces/a/b.yaml"), None);
    }

    // A name of 253 bytes is no file name with its endings: it comes back whole all the same, for it is what the API is
    // asked for.
    #[test]
    fn a_long_name_comes_back_whole() {
        let roles = for_tests("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false);
        let dots = format!("{}...", "a".repeat(198));
        for name in ["n".repeat(253), ":%/ü".repeat(60), "x.".repeat(300), dots] {
            let path = of(&roles, "", &name);
            assert!(path.split('/').all(|part| part.len() <= 210 && !part.starts_with('.')), "{path}");
            assert_eq!(parse(&path).unwrap().name, name);
            assert_eq!(parse(&format!("{path}.age")).unwrap().kind, roles.name());
        }
    }

    proptest! {
        // No name leaves its folder, none is too long for a file system, and two names never share a file.
        #[test]
        fn every_name_is_one_file(a in "\\PC{1,253}", b in "\\PC{1,253}") {
            let (x, y) = (file_name(&a), file_name(&b));
            prop_assert!(x.split('/').all(|part| !part.starts_with('.') && (1..=201).contains(&part.len())));
            prop_assert_eq!(a == b, x == y);
            prop_assert_eq!(plain(&x.replace("%/", "")), a);
        }
    }
}
