//! Manifests: what is said of a part, by whom, signed; and how they are sealed and opened.
//!
//! ```text
//! {"signer":"ed25519:...","signature":"<base64>","manifest":{...}}
//!                          over exactly the bytes of ▲ this value
//! ```
//! The value carries its cluster and sequence number, so that a signed manifest counts in its own place only.

use crate::error::{Error, Result};
use crate::keys::{Signer, SigningKey};
use crate::names::{self, ClusterName, PartKind, WriterName};
use rekindle_model::MemberId;
use rekindle_model::etcd::{EtcdMember, HashKv};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

/// Version of the format.
pub const API_VERSION: &str = "rekindle.dev/v1";
/// A manifest holds a few members and samples; one that is larger is none.
pub(crate) const MANIFEST_MAX_BYTES: u64 = 4 << 20;

/// A manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// `rekindle.dev/v1`.
    pub api_version: String,
    /// The cluster's folder.
    pub cluster: ClusterName,
    /// Its place in the cluster's chain, from 1.
    pub sequence: u64,
    /// The manifest before it.
    pub before: Option<Link>,
    /// Who wrote it.
    pub writer: WriterName,
    /// When, milliseconds since the Unix epoch.
    pub written_ms: i64,
    /// The program that wrote it.
    pub program: String,
    /// What it is about.
    #[serde(flatten)]
    pub content: Content,
}

/// A manifest, by place and digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// Its sequence number.
    pub sequence: u64,
    /// SHA-256 (hex) of the whole object.
    pub sha256: String,
}

/// What a manifest is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
#[allow(clippy::large_enum_variant)] // a few hundred at a time, and most are the large one
pub enum Content {
    /// A full backup.
    Full(Full),
    /// A stretch of the change stream.
    Segment(Segment),
    /// Files of a control-plane host.
    Bundle(Bundle),
    /// Objects, read through the API.
    Resources(Resources),
    /// Manifests that retention removed.
    Prune(Prune),
}

/// A stored object and what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// Name below the cluster's folder.
    pub name: String,
    /// Size as stored.
    pub size_bytes: u64,
    /// SHA-256 (hex) as stored.
    pub sha256: String,
    /// Size decrypted and decompressed.
    pub plain_size_bytes: u64,
    /// SHA-256 (hex) decrypted and decompressed.
    pub plain_sha256: String,
}

/// Whose data it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterIdentity {
    /// UID of the namespace `kube-system`; none when it was not found.
    pub kube_system_uid: Option<String>,
    /// etcd's cluster id; none when nobody answered.
    pub etcd_cluster_id: Option<MemberId>,
}

/// A history of revisions. Revisions of two timelines are never mixed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimelineRef {
    /// Its id, a UUID.
    pub id: String,
    /// The timeline it forked from.
    pub parent: Option<String>,
    /// The last revision both share, when known.
    pub fork_revision: Option<i64>,
}

/// A full backup: a stock etcd snapshot with its sha256 at the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Full {
    /// The stored object.
    pub part: Part,
    /// Whose data it is.
    pub identity: ClusterIdentity,
    /// Its timeline.
    pub timeline: TimelineRef,
    /// Revision of the store.
    pub revision: i64,
    /// Compact revision; -1: never compacted.
    pub compact_revision: i64,
    /// When it was begun to be taken, milliseconds since the Unix epoch: what is in it is at least as new.
    pub taken_ms: i64,
    /// Version of the server that served it.
    pub etcd_version: Option<String>,
    /// Cluster version in it.
    pub cluster_version: Option<String>,
    /// Storage version in it, from 3.6 on.
    pub storage_version: Option<String>,
    /// Members in it.
    pub members: Vec<EtcdMember>,
    /// HashKV: computed natively at its revision, and as members answered.
    pub hash_kv: Vec<HashKv>,
    /// Rows, tombstones included.
    pub rows: u64,
    /// Keys alive at its revision.
    pub live_keys: u64,
}

/// A stretch of the change stream, without a hole between its first and last revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Segment {
    /// The stored object.
    pub part: Part,
    /// Whose data it is.
    pub identity: ClusterIdentity,
    /// Its timeline.
    pub timeline: TimelineRef,
    /// First revision in it.
    pub first_revision: i64,
    /// Last revision in it.
    pub last_revision: i64,
    /// When its first revision was received, milliseconds since the Unix epoch.
    pub first_ms: i64,
    /// When its last revision was received, milliseconds since the Unix epoch.
    pub last_ms: i64,
    /// Version of the server it came from.
    pub etcd_version: Option<String>,
    /// The member it came from.
    pub member: Option<MemberId>,
    /// HashKV as members answered for revisions in it.
    pub hash_kv: Vec<HashKv>,
    /// The manifests of the segments it was merged of: it holds all that they hold. Empty: it was not merged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<Numbers>,
}

/// Neighbouring sequence numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Numbers {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

impl Numbers {
    /// Numbers as runs of neighbours, in order.
    pub fn runs(numbers: &BTreeSet<u64>) -> Vec<Self> {
        let mut runs: Vec<Self> = Vec::new();
        for number in numbers {
            match runs.last_mut() {
                Some(run) if run.last.checked_add(1) == Some(*number) => run.last = *number,
                _ => runs.push(Self { first: *number, last: *number }),
            }
        }
        runs
    }
}

/// Sequence numbers, as runs that neither overlap nor touch: from the first of each to its last.
#[derive(Debug, Default)]
pub(crate) struct NumberSet(BTreeMap<u64, u64>);

impl NumberSet {
    pub(crate) fn add(&mut self, run: Numbers) {
        let Numbers { mut first, mut last } = run;
        while let Some((&from, &to)) = self.0.range(..=last.saturating_add(1)).next_back()
            && to.saturating_add(1) >= first
        {
            (first, last) = (first.min(from), last.max(to));
            self.0.remove(&from);
        }
        self.0.insert(first, last);
    }

    pub(crate) fn has(&self, number: u64) -> bool {
        self.0.range(..=number).next_back().is_some_and(|(_, last)| number <= *last)
    }
}

/// What a restore also needs of one control-plane host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// The stored object, a tar archive.
    pub part: Part,
    /// Whose it is.
    pub identity: ClusterIdentity,
    /// The host.
    pub host: String,
    /// When, milliseconds since the Unix epoch.
    pub taken_ms: i64,
}

/// Objects, read through the API: all of a cluster's, or some.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// The stored object, a tar archive.
    pub part: Part,
    /// Whose it is.
    pub identity: ClusterIdentity,
    /// Which objects were asked for, in words; empty: all. Retention counts each such series for itself.
    pub scope: String,
    /// When the first was read, milliseconds since the Unix epoch: all are at least as new.
    pub taken_ms: i64,
    /// Objects in it.
    pub objects: u64,
    /// Kinds, or parts of them, that could not be read. Not 0: it is partial.
    pub problems: u64,
    /// Version of the API server.
    pub server_version: String,
}

/// Manifests that retention removed: the chain may lack these and no others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Prune {
    /// All that were ever removed, in order, neighbours joined.
    pub removed: Vec<Run>,
}

/// Neighbours in the chain that were removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Sequence number of the first.
    pub first: u64,
    /// The last: what stays points to it.
    pub last: Link,
}

impl ClusterIdentity {
    /// Whether nothing that both know differs: what is not known speaks neither for nor against.
    pub fn agrees(&self, other: &Self) -> bool {
        agree(self.kube_system_uid.as_ref(), other.kube_system_uid.as_ref())
            && agree(self.etcd_cluster_id, other.etcd_cluster_id)
    }
}

fn agree<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
    one.is_none() || other.is_none() || one == other
}

impl Content {
    /// The stored object it names, and what kind it is.
    pub(crate) fn part(&self) -> Option<(PartKind, &Part)> {
        match self {
            Self::Full(full) => Some((PartKind::Full, &full.part)),
            Self::Segment(segment) => Some((PartKind::Segment, &segment.part)),
            Self::Bundle(bundle) => Some((PartKind::Bundle, &bundle.part)),
            Self::Resources(resources) => Some((PartKind::Resources, &resources.part)),
            Self::Prune(_) => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    signer: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    signature: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    manifest: &'a RawValue,
}

/// Signs a value: the bytes of its object, one line.
pub(crate) fn signed(object: &str, value: &impl Serialize, key: &SigningKey) -> Result<Vec<u8>> {
    let broken = |source| Error::Manifest { object: object.to_owned(), source };
    let raw = serde_json::value::to_raw_value(value).map_err(broken)?;
    let envelope = Envelope {
        signer: key.signer().to_string().into(),
        signature: key.sign(raw.get().as_bytes()).into(),
        manifest: &raw,
    };
    let mut bytes = serde_json::to_vec(&envelope).map_err(broken)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The value in an object's bytes: signer trusted, signature good.
pub(crate) fn opened_by<'b>(object: &str, bytes: &'b [u8], trusted: &[Signer]) -> Result<&'b RawValue> {
    let object = || object.to_owned();
    let envelope: Envelope<'b> =
        serde_json::from_slice(bytes).map_err(|source| Error::Manifest { object: object(), source })?;
    let signer = envelope.signer.to_string();
    let known = trusted.iter().find(|trusted| trusted.to_string() == signer);
    let Some(known) = known else {
        return Err(Error::UnknownSigner { object: object(), signer });
    };
    if !known.signed(envelope.manifest.get().as_bytes(), &envelope.signature) {
        return Err(Error::Signature { object: object(), signer });
    }
    Ok(envelope.manifest)
}

impl Manifest {
    /// Its name below the cluster's folder.
    pub fn name(&self) -> String {
        names::manifest(self.sequence)
    }

    /// Signs it: the object's bytes.
    pub(crate) fn sealed(&self, key: &SigningKey) -> Result<Vec<u8>> {
        signed(&self.name(), self, key)
    }

    /// Opens an object's bytes: signer trusted, signature good, in its own place, in itself consistent.
    pub(crate) fn opened(
        object: &str,
        bytes: &[u8],
        cluster: &ClusterName,
        sequence: u64,
        trusted: &[Signer],
    ) -> Result<Self> {
        let value = opened_by(object, bytes, trusted)?;
        let object = || object.to_owned();
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            api_version: String,
        }
        let parse = |source| Error::Manifest { object: object(), source };
        let Version { api_version } = serde_json::from_str(value.get()).map_err(parse)?;
        if api_version != API_VERSION {
            return Err(Error::Version { object: object(), version: api_version });
        }
        let manifest: Self = serde_json::from_str(value.get()).map_err(parse)?;
        if manifest.cluster != *cluster || manifest.sequence != sequence {
            let says = format!("{}/{}", manifest.cluster, manifest.name());
            return Err(Error::Misplaced { object: object(), says });
        }
        match manifest.contradiction() {
            Some(what) => Err(Error::Contradiction { object: object(), what }),
            None => Ok(manifest),
        }
    }

    fn contradiction(&self) -> Option<String> {
        if let Some((kind, part)) = self.content.part()
            && !names::is_part(kind, &part.name)
        {
            return Some(format!("{:?} is not the name of a {}", part.name, kind.folder()));
        }
        if self.before.as_ref().map_or(0, |before| before.sequence).checked_add(1) != Some(self.sequence) {
            return Some("it does not name the manifest before it".into());
        }
        match &self.content {
            Content::Segment(s) if s.first_revision < 1 || s.first_revision > s.last_revision => {
                Some(format!("revisions {} to {}", s.first_revision, s.last_revision))
            }
            Content::Segment(s) if s.replaces.iter().any(|r| r.first > r.last || r.last >= self.sequence) => {
                Some("it replaces manifests that are not before it".into())
            }
            Content::Full(f) if f.revision < 1 => Some(format!("revision {}", f.revision)),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
