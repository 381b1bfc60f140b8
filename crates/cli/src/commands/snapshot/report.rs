//! What the snapshot verbs tell.

use super::size;
use etcd_disk::snapshot::Verified;
use rekindle_model::API_VERSION;
use rekindle_model::etcd::HashKv;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What a snapshot holds and what was proved of it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SnapshotReport {
    /// `rekindle/v1alpha1`.
    api_version: &'static str,
    /// `SnapshotReport`.
    kind: &'static str,
    /// The file or data dir.
    file: String,
    /// SHA-256 (hex) of the db bytes.
    sha256: String,
    /// Whether the sha256 at the end of the file was there and equal.
    sha256_checked: bool,
    /// Size of the db.
    size_bytes: u64,
    /// Revision of the store.
    revision: i64,
    /// Compact revision.
    compact_revision: i64,
    /// Rows (revisions kept).
    rows: u64,
    /// Live keys.
    live_keys: u64,
    /// HashKV at the revision.
    hash_kv: HashKv,
    /// Live keys per Kubernetes resource.
    keys_by_resource: BTreeMap<String, u64>,
    /// Names of the members it came from.
    members: Vec<String>,
    /// Cluster version.
    cluster_version: Option<String>,
    /// Storage version, from 3.6 on.
    storage_version: Option<String>,
    /// Alarms stored in it.
    alarms: Vec<String>,
    /// Leases.
    leases: u64,
}

impl SnapshotReport {
    /// From a verified snapshot.
    pub(crate) fn new(file: &str, verified: Verified) -> Self {
        Self {
            api_version: API_VERSION,
            kind: "SnapshotReport",
            file: file.to_owned(),
            sha256: verified.sha256,
            sha256_checked: verified.trailer,
            size_bytes: verified.db_bytes,
            revision: verified.revision,
            compact_revision: verified.compact_revision,
            rows: verified.rows,
            live_keys: verified.live_keys,
            hash_kv: HashKv {
                hash: verified.hash_kv.hash,
                revision: verified.hash_kv.revision,
                compact_revision: verified.hash_kv.compact_revision,
            },
            keys_by_resource: verified.groups,
            members: verified.facts.members.iter().map(|m| m.name.clone()).collect(),
            cluster_version: verified.facts.cluster_version,
            storage_version: verified.facts.storage_version,
            alarms: verified.facts.alarms.iter().map(|a| format!("{} {:?}", a.member, a.kind)).collect(),
            leases: verified.facts.leases,
        }
    }

    /// For people; the largest resources first.
    pub(crate) fn table(&self, short: bool) -> String {
        let mut text = String::new();
        let checked =
            if self.sha256_checked { "equal to the one in the file" } else { "the file carries none" };
        let _ = writeln!(text, "file             {}", self.file);
        let _ = writeln!(text, "size             {}", size(self.size_bytes));
        let _ = writeln!(text, "sha256           {} ({checked})", self.sha256);
        let _ = writeln!(text, "structure        sound");
        let _ = writeln!(text, "revision         {} (compacted at {})", self.revision, self.compact_revision);
        let _ = writeln!(text, "hashKV           {}", self.hash_kv.hash);
        let _ = writeln!(text, "rows             {}", self.rows);
        let _ = writeln!(text, "live keys        {}", self.live_keys);
        let _ = writeln!(text, "leases           {}", self.leases);
        let _ = writeln!(text, "members          {}", self.members.join(", "));
        let unset = "not set".to_owned();
        let _ = writeln!(text, "cluster version  {}", self.cluster_version.as_ref().unwrap_or(&unset));
        let _ = writeln!(text, "storage version  {}", self.storage_version.as_ref().unwrap_or(&unset));
        if !self.alarms.is_empty() {
            let _ = writeln!(text, "‼ alarms         {}", self.alarms.join(", "));
        }
        if !short {
            let mut by_count: Vec<_> = self.keys_by_resource.iter().collect();
            by_count.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
            for (resource, count) in by_count {
                let name = if resource.is_empty() { "(outside /registry)" } else { resource };
                let _ = writeln!(text, "{count:>9}  {name}");
            }
        }
        text
    }
}
