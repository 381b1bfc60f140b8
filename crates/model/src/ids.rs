//! Identifiers with types of their own, so that a host is never passed where a run is meant.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The version every JSON and YAML document of Rekindle carries as `apiVersion`.
pub const API_VERSION: &str = "rekindle/v1alpha1";

/// A host as the user names it: `local`, or an OpenSSH destination such as `root@10.0.0.11`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct HostId(pub String);

impl HostId {
    /// The host the program itself runs on.
    pub fn local() -> Self {
        Self("local".into())
    }
    /// Whether this is the host the program itself runs on.
    pub fn is_local(&self) -> bool {
        self.0 == "local"
    }
    /// Its own name or address, as it stands in what the user calls it: `10.0.0.13` of `root@10.0.0.13`.
    pub fn bare(&self) -> &str {
        let bare = self.0.rsplit('@').next().unwrap_or(&self.0);
        bare.trim_start_matches("ssh://")
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An etcd member or cluster id; shown, and serialised, as etcd does: lowercase hex without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String")]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl Serialize for MemberId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MemberId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        u64::from_str_radix(&text, 16).map(MemberId).map_err(serde::de::Error::custom)
    }
}

/// A recovery run: a UUIDv7 in text, so that ids sort by time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RunId(pub String);

impl RunId {
    /// The last 8 characters: what names of folders moved aside carry (`rekindle-<short>`).
    pub fn short(&self) -> &str {
        let start = self.0.len().saturating_sub(8);
        self.0.get(start..).unwrap_or(&self.0)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An absolute path as a host names it (before any `--root` is put in front).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(with = "String")]
pub struct HostPath(pub camino::Utf8PathBuf);

impl HostPath {
    /// This path with a relative part behind it.
    pub fn join(&self, part: impl AsRef<camino::Utf8Path>) -> Self {
        Self(self.0.join(part))
    }
}

impl<T: Into<camino::Utf8PathBuf>> From<T> for HostPath {
    fn from(path: T) -> Self {
        Self(path.into())
    }
}

impl std::ops::Deref for HostPath {
    type Target = camino::Utf8Path;
    fn deref(&self) -> &camino::Utf8Path {
        &self.0
    }
}

impl AsRef<camino::Utf8Path> for HostPath {
    fn as_ref(&self) -> &camino::Utf8Path {
        &self.0
    }
}

impl Default for HostPath {
    fn default() -> Self {
        Self("/".into())
    }
}

impl fmt::Display for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
