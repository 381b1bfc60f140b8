//! Names of clusters, writers, parts and manifests; each can be part of an object's name in every store.

use crate::error::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest name of a cluster or writer.
const NAME_MAX: usize = 64;
/// Digits of a sequence number in the name of a manifest.
const SEQUENCE_DIGITS: usize = 12;
/// Longest sequence number that its name can hold.
pub(crate) const SEQUENCE_MAX: u64 = 999_999_999_999;

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// From text.
            ///
            /// # Errors
            /// [`Error::Name`] unless it is 1 to 64 of `a-z`, `0-9`, `.`, `_`, `-`, beginning with a letter or digit.
            pub fn new(name: &str) -> Result<Self> {
                if is_name(name) { Ok(Self(name.to_owned())) } else {
                    Err(Error::Name { what: $what, name: name.to_owned() })
                }
            }
            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = Error;
            fn try_from(name: String) -> Result<Self> {
                Self::new(&name)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A cluster's folder in the vault.
    ClusterName,
    "cluster"
);
name!(
    /// Who writes: a host, or an agent on it.
    WriterName,
    "writer"
);

fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    starts && name.len() <= NAME_MAX && name.chars().all(fits)
}

/// What a part is: the folder it lies in, and the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// A stock etcd snapshot.
    Full,
    /// A stretch of the change stream.
    Segment,
    /// Files of a control-plane host.
    Bundle,
    /// Objects, read through the API.
    Resources,
}

impl PartKind {
    pub(crate) const ALL: [Self; 4] = [Self::Full, Self::Segment, Self::Bundle, Self::Resources];

    /// The folder below the cluster's.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Segment => "segment",
            Self::Bundle => "bundle",
            Self::Resources => "resources",
        }
    }

    fn ending(self) -> &'static str {
        match self {
            Self::Full => "db.zst.age",
            Self::Segment => "seg.zst.age",
            Self::Bundle | Self::Resources => "tar.zst.age",
        }
    }
}

/// A new part's name, below the cluster's folder: no other writer, and no other time, has the same.
pub(crate) fn new_part(kind: PartKind, writer: &WriterName) -> String {
    part(kind, &uuid::Uuid::now_v7().to_string(), writer)
}

/// A part's name; `id`: a UUID, or what stands for one that is not made yet.
pub(crate) fn part(kind: PartKind, id: &str, writer: &WriterName) -> String {
    format!("{}/{id}-{writer}.{}", kind.folder(), kind.ending())
}

/// Whether a name in a manifest is one of a part of this kind: never a way out of the cluster's folder.
pub(crate) fn is_part(kind: PartKind, name: &str) -> bool {
    name.strip_prefix(kind.folder())
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|rest| rest.strip_suffix(kind.ending()))
        .and_then(|rest| rest.strip_suffix('.'))
        .and_then(|rest| rest.split_at_checked(36))
        .and_then(|(id, writer)| Some((id, writer.strip_prefix('-')?)))
        .is_some_and(|(id, writer)| uuid::Uuid::try_parse(id).is_ok() && is_name(writer))
}

/// The name of a manifest, below the cluster's folder.
pub(crate) fn manifest(sequence: u64) -> String {
    format!("manifest/{sequence:0SEQUENCE_DIGITS$}.json")
}

/// The sequence number in a manifest's file name.
pub(crate) fn sequence_of(file: &str) -> Option<u64> {
    let digits = file.strip_suffix(".json")?;
    let plain = digits.len() == SEQUENCE_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    // A name from a manifest or a flag becomes part of a path: nothing may lead out of the cluster's folder.
    #[test]
    fn no_name_leads_elsewhere() {
        for bad in ["", ".", "..", "a/b", "-a", "A", "a b", "a\0", "ä", &"a".repeat(65)] {
            assert!(ClusterName::new(bad).is_err(), "{bad:?}");
        }
        let writer = WriterName::new("cp-1.example").unwrap();
        for kind in PartKind::ALL {
            let name = new_part(kind, &writer);
            assert!(is_part(kind, &name), "{name}");
            assert!(PartKind::ALL.iter().filter(|k| is_part(**k, &name)).count() == 1);
            assert!(!is_part(kind, &name.replace("cp-1", "../x")));
            assert!(!is_part(kind, &format!("x/../{name}")));
        }
        assert_eq!(manifest(7), "manifest/000000000007.json");
        assert_eq!(sequence_of("000000000007.json"), Some(7));
        assert_eq!(sequence_of("+00000000007.json"), None);
        assert_eq!(sequence_of("7.json"), None);
    }
}
