//! What is seen of etcd: its configuration, its data on disk, and what a running member answers.

use crate::HostPath;
use crate::{MemberId, Seen};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An etcd's settings, from the static pod manifest or the unit that runs it. Paths are the host's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EtcdConfig {
    /// `--name`
    pub name: String,
    /// `--data-dir`, as a path of the host (container mounts resolved).
    pub data_dir: HostPath,
    /// `--wal-dir`, when it is not inside the data dir.
    pub wal_dir: Option<HostPath>,
    /// `--initial-advertise-peer-urls`
    pub peer_urls: Vec<String>,
    /// `--advertise-client-urls`
    pub client_urls: Vec<String>,
    /// `--initial-cluster`: name and peer URL, one entry per URL.
    pub initial_cluster: Vec<(String, String)>,
    /// `--initial-cluster-state`; empty when not given (etcd then takes `new`).
    pub initial_cluster_state: String,
    /// `--initial-cluster-token`; empty when not given.
    pub initial_cluster_token: String,
    /// `--quota-backend-bytes`; none when not given (etcd then takes 2 GiB).
    pub quota_bytes: Option<u64>,
    /// How to talk to it from its own host.
    pub endpoint: EtcdEndpoint,
    /// Where it listens to its peers, as seen from its own host, with its own identity towards them.
    pub peer_endpoint: EtcdEndpoint,
    /// Where it is defined.
    pub defined_in: EtcdDefinition,
}

/// Where an etcd is defined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum EtcdDefinition {
    /// A static pod manifest.
    Manifest(HostPath),
    /// A systemd unit: its name and the files its command line comes from.
    Unit {
        /// Unit name, for example `etcd.service`.
        name: String,
        /// Unit file, drop-ins and environment files, in the order systemd reads them.
        files: Vec<HostPath>,
    },
}

/// An etcd client endpoint with the files of its TLS identity (paths on the host that makes the call).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EtcdEndpoint {
    /// For example `https://127.0.0.1:2379`.
    pub url: String,
    /// CA certificate file.
    pub cacert: Option<HostPath>,
    /// Client certificate file.
    pub cert: Option<HostPath>,
    /// Client key file.
    pub key: Option<HostPath>,
}

/// A member as `MemberList` or the data dir names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EtcdMember {
    /// Member id.
    pub id: MemberId,
    /// Name; empty until it has started once.
    pub name: String,
    /// Peer URLs.
    pub peer_urls: Vec<String>,
    /// Client URLs.
    pub client_urls: Vec<String>,
    /// Whether it is a learner.
    pub is_learner: bool,
}

/// What was found in an etcd data dir. Revision and counts are of the db file as it lies there, without the WAL.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EtcdDataFacts {
    /// Whether the data dir exists.
    pub exists: bool,
    /// Whether it is a mount point (then nothing is renamed out of it).
    pub is_mount_point: bool,
    /// Whether `member/` exists and is not empty.
    pub has_member: bool,
    /// Whether another process holds the lock of `db`.
    pub locked: bool,
    /// The `db` file, or why it can't be used.
    pub db: Seen<DbFacts>,
    /// The WAL, or why it can't be used (file and offset).
    pub wal: Seen<WalFacts>,
    /// What was read and found damaged, one line each with file and offset: a `db` that is no database or too short, a
    /// WAL record with a wrong checksum, a `db` or a WAL that is missing from a `member/` that is there. Empty = nothing
    /// damaged was seen. What could not be looked at (locked, no permission) is not damage: it stands in `db` and `wal`.
    pub damage: Vec<String>,
}

/// Facts of one bbolt database that holds an etcd store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DbFacts {
    /// Size of the file.
    pub size_bytes: u64,
    /// Violations of the structure, at most a few; empty = none found.
    pub violations: Vec<String>,
    /// max(rows, finished compaction, scheduled compaction).
    pub revision: i64,
    /// Compact revision.
    pub compact_revision: i64,
    /// Live keys.
    pub live_keys: u64,
    /// Live keys by resource (`secrets`, `apps/deployments`, ...).
    pub keys_by_resource: BTreeMap<String, u64>,
    /// HashKV at `revision`, computed natively; 0 when it was not computed.
    pub hash_kv: u32,
    /// Applied raft index.
    pub consistent_index: u64,
    /// Raft term of that index.
    pub term: u64,
    /// Members by the `members` bucket.
    pub members: Vec<EtcdMember>,
    /// UID of the `kube-system` namespace.
    pub kube_system_uid: Seen<String>,
    /// When that namespace was created, seconds since the Unix epoch; none = not read.
    #[serde(default)]
    pub kube_system_created_s: Option<i64>,
    /// SHA-256 (hex) of the DER of the cluster CA certificate, as the store's own ConfigMaps hold it.
    #[serde(default)]
    pub ca_sha256: Seen<String>,
    /// `x.y.0` of the cluster.
    pub cluster_version: String,
    /// `x.y.z` of the storage format, empty before 3.6.
    pub storage_version: String,
    /// Alarms stored, for example `NOSPACE`.
    pub alarms: Vec<String>,
    /// Leases stored.
    pub leases: u64,
}

/// Facts of a WAL.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WalFacts {
    /// This member's id, from the metadata record.
    pub member_id: Option<MemberId>,
    /// The cluster's id, from the metadata record.
    pub cluster_id: Option<MemberId>,
    /// Index of the first entry.
    pub first_index: u64,
    /// Index of the last entry.
    pub last_index: u64,
    /// Term of the last entry.
    pub last_term: u64,
    /// Commit index of the last hard state.
    pub commit_index: u64,
    /// How the log began; none when its first file (sequence 0) was purged: then it can't be told.
    pub birth: Option<WalBirth>,
    /// Membership changes among the entries, oldest first (the newest 1,000).
    pub conf_changes: Vec<ConfChangeFacts>,
}

/// The first things a member ever wrote: they tell whether it was there from the start or lost its log in between.
///
/// A bootstrapped member writes the entries that add the members, all in term 1, and a hard state of term 1 (raft
/// `RawNode.Bootstrap`); one that joins writes the term of the leader it meets, and may begin with a snapshot it was sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WalBirth {
    /// Creation time of the first file, milliseconds since the Unix epoch, where the file system keeps one.
    pub created_ms: Option<i64>,
    /// Term of the first hard state record that has a term.
    pub first_term: u64,
    /// Index of the first snapshot record above 0 that stands before every entry: what the member was sent to begin
    /// with. 0 = its log begins with entry 1.
    pub first_snapshot_index: u64,
    /// Index of the last entry before the first snapshot record that lies beyond it: the member was sent a snapshot in
    /// place of the entries in between. None = its log has no such gap.
    pub last_index_before_gap: Option<u64>,
}

/// One membership change in a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfChangeFacts {
    /// Index of the entry.
    pub index: u64,
    /// Term of the entry.
    pub term: u64,
    /// The member it is about.
    pub member: MemberId,
    /// What it does.
    pub kind: ConfChangeKind,
    /// Commit index of the last hard state record that stands before the entry in this WAL, 0 = none. A learner is
    /// promoted only when it holds nine tenths of the leader's log, so that an honest one has a high value here.
    pub commit_before: u64,
}

/// Kinds of membership change (raft `ConfChangeType`; a promotion is an addition whose context has `isPromote`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ConfChangeKind {
    /// Added with a vote.
    AddVoter,
    /// Added as learner.
    AddLearner,
    /// A learner got its vote.
    Promote,
    /// Removed.
    Remove,
    /// Its peer URLs were changed.
    Update,
}

/// What a running member answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EtcdLive {
    /// `Maintenance.Status` (needs no quorum).
    pub status: Seen<EtcdStatus>,
    /// `Cluster.MemberList`, not linearizable (needs no quorum).
    pub members: Seen<Vec<EtcdMember>>,
    /// Whether a linearizable read was answered: the member is in a quorum.
    pub quorum: Seen<bool>,
    /// Alarms, each `<member id> <NOSPACE|CORRUPT>`.
    pub alarms: Seen<Vec<String>>,
    /// Number of live keys (serializable count over the whole key space).
    pub live_keys: Seen<u64>,
    /// UID of `kube-system`, read serializable from this member.
    pub kube_system_uid: Seen<String>,
    /// When that namespace was created, seconds since the Unix epoch; none = not read.
    #[serde(default)]
    pub kube_system_created_s: Option<i64>,
    /// Certificate or transport trouble that is not simply "refused".
    pub note: Option<String>,
}

/// `Maintenance.Status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EtcdStatus {
    /// Cluster id.
    pub cluster_id: MemberId,
    /// Member id.
    pub member_id: MemberId,
    /// Server version.
    pub version: String,
    /// Revision of the store.
    pub revision: i64,
    /// Size of the db file.
    pub db_size_bytes: i64,
    /// The member it takes for the leader; 0 = none.
    pub leader: MemberId,
    /// Raft index.
    pub raft_index: u64,
    /// Applied raft index.
    pub raft_applied_index: u64,
    /// Raft term.
    pub raft_term: u64,
    /// Whether it is a learner.
    pub is_learner: bool,
    /// Errors it reports, for example `etcdserver: no leader`.
    pub errors: Vec<String>,
}

/// Answer of `Maintenance.HashKV`, and the native value for the same question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HashKv {
    /// The hash.
    pub hash: u32,
    /// Revision hashed up to.
    pub revision: i64,
    /// Compact revision it was computed with.
    pub compact_revision: i64,
}
