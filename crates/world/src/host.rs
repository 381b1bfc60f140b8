//! The seam: what can be asked of a host. The same requests are answered by this machine, over SSH, and in simulation.
//!
//! Requests are data (they travel over an SSH channel), coarse enough that one recovery needs few round trips, and
//! each changing one is idempotent: asked twice it does once. The typed methods below are what callers use.

use async_trait::async_trait;
use camino::Utf8Path;
use rekindle_model::certificate::{CertificateFacts, Renewal, ServedCertificate};
use rekindle_model::etcd::{DbFacts, EtcdDataFacts, EtcdEndpoint, EtcdLive, EtcdMember, EtcdStatus, HashKv};
use rekindle_model::host::{ContainerFacts, DiskFacts, ProcessFacts, UnitFacts};
use rekindle_model::step::NewMember;
use rekindle_model::{HostId, HostPath, MemberId, RunId, Seen};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Told how far a long request is: bytes (or items) done and in all (0 = not known).
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// What can be asked of a host. The fields are told in each variant's line.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Who and when: host name, addresses, clock.
    Identity,
    /// Claim the host for a run, until this end of the seam is gone; refused while another run holds it.
    Claim { run: RunId },
    /// State of a path (not following a last symlink); none = does not exist.
    Stat { path: HostPath },
    /// At most `max_bytes` of a file, from its end when `tail`.
    Read { path: HostPath, max_bytes: u64, tail: bool },
    /// Names in a folder.
    List { path: HostPath },
    /// Space on the file system a path (or its nearest existing parent) lies on.
    Disk { path: HostPath },
    /// Write a file durably: into `path` by way of `via` (same file system), which is renamed over it.
    Write {
        path: HostPath,
        via: HostPath,
        #[serde(with = "crate::base64_bytes")]
        content: Vec<u8>,
        mode: u32,
    },
    /// Rename durably; refuses to replace `to`. Done already (no `from`, but `to`) is success. What comes out of a run's
    /// own folder gets the owner of the folder it is put into.
    Rename { from: HostPath, to: HostPath },
    /// Make a folder and its parents, with a mode for the new ones.
    MakeDir { path: HostPath, mode: u32 },
    /// Remove a tree that a run made: some component of the path must begin with `rekindle-` or `.rekindle-`.
    RemoveOwnTree { path: HostPath },
    /// Processes with one of these program names.
    Processes { names: Vec<String> },
    /// SIGKILL to that very process; gone already is success.
    KillProcess { pid: u32, start_ticks: u64 },
    /// Copy an open file of a process through `/proc`, the process frozen meanwhile.
    SaveOpenFile { pid: u32, start_ticks: u64, fd: u32, to: HostPath },
    /// State of a systemd unit.
    Unit { name: String },
    /// Change a systemd unit's state and wait for it.
    UnitAction { name: String, action: UnitAction },
    /// Last journal lines of a unit, oldest first.
    Journal { unit: String, lines: u32 },
    /// Containers of the namespace `kube-system` through CRI, newest first.
    Containers,
    /// Stop a pod sandbox with its containers at once; gone already is success.
    StopPod { sandbox_id: String },
    /// Stop and remove every pod sandbox with its containers, of all namespaces.
    RemovePods,
    /// Facts of an etcd data dir; `deep` also checks the whole structure and computes HashKV.
    InspectEtcdData { data_dir: HostPath, wal_dir: Option<HostPath>, deep: bool },
    /// Replay a stopped member's db and WAL into one new db file.
    ReplayStore { data_dir: HostPath, wal_dir: Option<HostPath>, to: HostPath },
    /// Facts of a file with a db: a snapshot (with trailer) or a copied db.
    InspectSnapshot { path: HostPath, has_trailer: bool },
    /// Write `member/` of a new member: the db file (already on this host) plus WAL and .snap.
    WriteMember {
        db: HostPath,
        members: Vec<NewMember>,
        name: String,
        token: String,
        staging: HostPath,
        wal_staging: Option<HostPath>,
    },
    /// What an etcd answers; one request, all of it bounded in time.
    EtcdLive { endpoint: EtcdEndpoint },
    /// One call to an etcd.
    Etcd { endpoint: EtcdEndpoint, call: EtcdCall },
    /// One HTTP request to an API server with the identity of a kubeconfig on this host.
    Api(ApiRequest),
    /// A plain HTTP(S) GET on this host, certificate not verified (health endpoints on loopback).
    HttpGet { url: String, timeout_ms: u64 },
    /// Whether the etcd of this host answers its peers. Its port is open, and shakes hands, long before.
    ServesPeers { endpoint: EtcdEndpoint },
    /// Certificates in files (below `pki_dir`, in kubeadm's kubeconfigs, of kubelet), and those served at these addresses
    /// of this host. Of keys only digests of their public halves are told.
    Certificates { pki_dir: HostPath, served: Vec<ServedCertificate> },
    /// Make new keys in the run's folders (those that are there are kept), and a request for each certificate.
    RequestCertificates { renewals: Vec<Renewal> },
    /// Sign requests (by name, PEM) with authority keys of this host.
    SignCertificates { renewals: Vec<Renewal>, requests: Vec<(String, String)> },
    /// Put signed certificates (by name, PEM) and their keys together in the run's folders.
    StageCertificates { renewals: Vec<Renewal>, signed: Vec<(String, String)> },
}

/// What is done to a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnitAction {
    /// Start (after `reset-failed`).
    Start,
    /// Stop, giving it its stop time.
    Stop,
    /// SIGKILL to all its processes, then stop.
    Kill,
    /// Restart.
    Restart,
    /// Make systemd read its files again.
    Reload,
}

/// One call to an etcd. The fields are told in each variant's line.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum EtcdCall {
    /// `Maintenance.Status`
    Status,
    /// `Maintenance.HashKV` at a revision (0 = latest).
    HashKv { revision: i64 },
    /// Number of live keys at the latest revision, serializable.
    CountKeys,
    /// `Cluster.MemberList`
    MemberList { linearizable: bool },
    /// `Cluster.MemberAdd` as learner; an existing member with these peer URLs is the answer too.
    AddLearner { peer_urls: Vec<String> },
    /// `Cluster.MemberPromote`
    Promote { member: MemberId },
    /// `Cluster.MemberRemove`; not found is success.
    Remove { member: MemberId },
    /// Keys under a prefix with their values (bounded).
    Range { prefix: String, limit: i64 },
    /// Delete these very keys.
    DeleteKeys { keys: Vec<String> },
    /// `Maintenance.Snapshot` into a file on this host, its hash checked.
    Snapshot { to: HostPath },
}

/// One request to an API server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApiRequest {
    /// kubeconfig on this host.
    pub kubeconfig: HostPath,
    /// Context of it; none = the current one.
    pub context: Option<String>,
    /// Ask this server instead of the kubeconfig's (certificate checked against the kubeconfig's CA, name not).
    pub server: Option<String>,
    /// `GET`, `PUT`, `PATCH`, ...
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Content type of the body.
    pub content_type: String,
    /// Body.
    #[serde(with = "crate::base64_bytes")]
    pub body: Vec<u8>,
    /// Longest wait in milliseconds.
    pub timeout_ms: u64,
}

/// Answer of an HTTP request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpAnswer {
    /// Status code.
    pub status: u16,
    /// Body (bounded at 32 MiB).
    #[serde(with = "crate::base64_bytes")]
    pub body: Vec<u8>,
}

/// Who a host is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Host name.
    pub hostname: String,
    /// Addresses, loopback left out.
    pub addresses: Vec<String>,
    /// Its clock, milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// Whether it says its clock is synchronised.
    pub synchronized: Seen<bool>,
}

/// State of a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileStat {
    /// What it is.
    pub kind: FileKind,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Modification time, milliseconds since the Unix epoch.
    pub modified_ms: i64,
    /// Device number.
    pub device: u64,
    /// Whether another file system is mounted here.
    pub is_mount_point: bool,
}

/// Kind of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Folder.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Anything else.
    Other,
}

/// Result of saving a file: a copy of a db or a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// Bytes written.
    pub bytes: u64,
    /// SHA-256 (hex) of the file's db bytes.
    pub sha256: String,
    /// Whether the file ends with its SHA-256.
    pub has_trailer: bool,
}

/// Answers, one variant per kind of request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// To `Identity`.
    Identity(Identity),
    /// To `Stat`.
    Stat(Option<FileStat>),
    /// To `Read`.
    Bytes(#[serde(with = "crate::base64_bytes")] Vec<u8>),
    /// To `List`.
    Names(Vec<String>),
    /// To `Disk`.
    Disk(DiskFacts),
    /// To everything that only changes something.
    Done,
    /// To `Processes`.
    Processes(Vec<ProcessFacts>),
    /// To `SaveOpenFile` and `EtcdCall::Snapshot`.
    Saved(Saved),
    /// To `Unit`.
    Unit(UnitFacts),
    /// To `Journal`.
    Lines(Vec<String>),
    /// To `Containers`.
    Containers(Vec<ContainerFacts>),
    /// To `InspectEtcdData`.
    EtcdData(Box<EtcdDataFacts>),
    /// To `InspectSnapshot` and `ReplayStore`: facts, SHA-256 (hex) of the db bytes.
    Db(Box<DbFacts>, String),
    /// To `EtcdLive`.
    EtcdLive(Box<EtcdLive>),
    /// To `EtcdCall::Status`.
    Status(EtcdStatus),
    /// To `EtcdCall::HashKv`.
    HashKv(HashKv),
    /// To `EtcdCall::CountKeys`.
    Count(u64),
    /// To `EtcdCall::MemberList` and `AddLearner` (the learner alone).
    Members(Vec<EtcdMember>),
    /// To `EtcdCall::Range`.
    Pairs(#[serde(with = "crate::base64_bytes::pairs")] Vec<(String, Vec<u8>)>),
    /// To `Api` and `HttpGet`.
    Http(HttpAnswer),
    /// To `ServesPeers`.
    Serves(bool),
    /// To `Certificates`.
    Certificates(Box<CertificateFacts>),
    /// To `RequestCertificates` and `SignCertificates`: PEM by name.
    Pems(Vec<(String, String)>),
}

/// Why a host did not do what was asked.
#[derive(Clone, Debug, thiserror::Error, Serialize, Deserialize)]
#[error("{host}: {what}")]
pub struct HostError {
    /// The host.
    pub host: HostId,
    /// What failed, on what, with the causes found there: errors cross the SSH channel as text.
    pub what: String,
    /// Kind, for callers that decide by it.
    pub kind: HostErrorKind,
}

/// Kinds of host errors that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostErrorKind {
    /// The host can't be reached, or the channel broke: nothing is known about whether the request was done.
    Unreachable,
    /// The path, unit, process or tool does not exist.
    NotFound,
    /// Refused by a guard (a name in use, another process under that pid, a locked data dir, a full disk).
    Refused,
    /// Asked service did not answer in time or refused the connection.
    Unavailable,
    /// Any other failure.
    Failed,
}

/// One host. `call` answers requests; files cross with `put_file` and `get_file`.
#[async_trait]
pub trait Host: Send + Sync {
    /// The host's id, as the user names it.
    fn id(&self) -> &HostId;
    /// Answers a request. Dropping the future does not undo what was begun.
    async fn call(&self, request: Request) -> Result<Reply, HostError>;
    /// Copies a file of the machine Rekindle runs on to this host: mode 0600, synced, content checked by SHA-256.
    async fn put_file(&self, from: &Utf8Path, to: &HostPath, progress: Progress) -> Result<(), HostError>;
    /// Copies a file of this host to the machine Rekindle runs on: mode 0600, synced, content checked by SHA-256.
    async fn get_file(&self, from: &HostPath, to: &Utf8Path, progress: Progress) -> Result<(), HostError>;
}

macro_rules! ask {
    ($self:ident, $request:expr, $pattern:pat => $value:expr) => {
        match $self.call($request).await? {
            $pattern => Ok($value),
            other => Err(HostError {
                host: $self.id().clone(),
                what: format!("answered something else than was asked: {other:?}"),
                kind: HostErrorKind::Failed,
            }),
        }
    };
}

/// Typed requests.
impl dyn Host + '_ {
    /// See [`Request::Identity`].
    pub async fn identity(&self) -> Result<Identity, HostError> {
        ask!(self, Request::Identity, Reply::Identity(v) => v)
    }
    /// See [`Request::Claim`].
    pub async fn claim(&self, run: &RunId) -> Result<(), HostError> {
        ask!(self, Request::Claim { run: run.clone() }, Reply::Done => ())
    }
    /// See [`Request::Stat`].
    pub async fn stat(&self, path: &HostPath) -> Result<Option<FileStat>, HostError> {
        ask!(self, Request::Stat { path: path.clone() }, Reply::Stat(v) => v)
    }
    /// The start of a file, at most `max_bytes`.
    pub async fn read(&self, path: &HostPath, max_bytes: u64) -> Result<Vec<u8>, HostError> {
        ask!(self, Request::Read { path: path.clone(), max_bytes, tail: false }, Reply::Bytes(v) => v)
    }
    /// The end of a file, at most `max_bytes`.
    pub async fn read_tail(&self, path: &HostPath, max_bytes: u64) -> Result<Vec<u8>, HostError> {
        ask!(self, Request::Read { path: path.clone(), max_bytes, tail: true }, Reply::Bytes(v) => v)
    }
    /// See [`Request::List`].
    pub async fn list(&self, path: &HostPath) -> Result<Vec<String>, HostError> {
        ask!(self, Request::List { path: path.clone() }, Reply::Names(v) => v)
    }
    /// See [`Request::Disk`].
    pub async fn disk(&self, path: &HostPath) -> Result<DiskFacts, HostError> {
        ask!(self, Request::Disk { path: path.clone() }, Reply::Disk(v) => v)
    }
    /// See [`Request::Write`].
    pub async fn write(
        &self,
        path: &HostPath,
        via: &HostPath,
        content: Vec<u8>,
        mode: u32,
    ) -> Result<(), HostError> {
        ask!(self, Request::Write { path: path.clone(), via: via.clone(), content, mode }, Reply::Done => ())
    }
    /// See [`Request::Rename`].
    pub async fn rename(&self, from: &HostPath, to: &HostPath) -> Result<(), HostError> {
        ask!(self, Request::Rename { from: from.clone(), to: to.clone() }, Reply::Done => ())
    }
    /// See [`Request::MakeDir`].
    pub async fn make_dir(&self, path: &HostPath, mode: u32) -> Result<(), HostError> {
        ask!(self, Request::MakeDir { path: path.clone(), mode }, Reply::Done => ())
    }
    /// See [`Request::RemoveOwnTree`].
    pub async fn remove_own_tree(&self, path: &HostPath) -> Result<(), HostError> {
        ask!(self, Request::RemoveOwnTree { path: path.clone() }, Reply::Done => ())
    }
    /// See [`Request::Processes`].
    pub async fn processes(&self, names: &[&str]) -> Result<Vec<ProcessFacts>, HostError> {
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        ask!(self, Request::Processes { names }, Reply::Processes(v) => v)
    }
    /// See [`Request::KillProcess`].
    pub async fn kill_process(&self, pid: u32, start_ticks: u64) -> Result<(), HostError> {
        ask!(self, Request::KillProcess { pid, start_ticks }, Reply::Done => ())
    }
    /// See [`Request::SaveOpenFile`].
    pub async fn save_open_file(
        &self,
        pid: u32,
        start_ticks: u64,
        fd: u32,
        to: &HostPath,
    ) -> Result<Saved, HostError> {
        ask!(self, Request::SaveOpenFile { pid, start_ticks, fd, to: to.clone() }, Reply::Saved(v) => v)
    }
    /// See [`Request::Unit`].
    pub async fn unit(&self, name: &str) -> Result<UnitFacts, HostError> {
        ask!(self, Request::Unit { name: name.into() }, Reply::Unit(v) => v)
    }
    /// See [`Request::UnitAction`].
    pub async fn unit_action(&self, name: &str, action: UnitAction) -> Result<(), HostError> {
        ask!(self, Request::UnitAction { name: name.into(), action }, Reply::Done => ())
    }
    /// See [`Request::Journal`].
    pub async fn journal(&self, unit: &str, lines: u32) -> Result<Vec<String>, HostError> {
        ask!(self, Request::Journal { unit: unit.into(), lines }, Reply::Lines(v) => v)
    }
    /// See [`Request::Containers`].
    pub async fn containers(&self) -> Result<Vec<ContainerFacts>, HostError> {
        ask!(self, Request::Containers, Reply::Containers(v) => v)
    }
    /// See [`Request::StopPod`].
    pub async fn stop_pod(&self, sandbox_id: &str) -> Result<(), HostError> {
        ask!(self, Request::StopPod { sandbox_id: sandbox_id.into() }, Reply::Done => ())
    }
    /// See [`Request::RemovePods`].
    pub async fn remove_pods(&self) -> Result<(), HostError> {
        ask!(self, Request::RemovePods, Reply::Done => ())
    }
    /// See [`Request::InspectEtcdData`].
    pub async fn inspect_etcd_data(
        &self,
        data_dir: &HostPath,
        wal_dir: Option<&HostPath>,
        deep: bool,
    ) -> Result<EtcdDataFacts, HostError> {
        let request =
            Request::InspectEtcdData { data_dir: data_dir.clone(), wal_dir: wal_dir.cloned(), deep };
        ask!(self, request, Reply::EtcdData(v) => *v)
    }
    /// See [`Request::ReplayStore`].
    pub async fn replay_store(
        &self,
        data_dir: &HostPath,
        wal_dir: Option<&HostPath>,
        to: &HostPath,
    ) -> Result<(DbFacts, String), HostError> {
        let request =
            Request::ReplayStore { data_dir: data_dir.clone(), wal_dir: wal_dir.cloned(), to: to.clone() };
        ask!(self, request, Reply::Db(v, sha256) => (*v, sha256))
    }
    /// See [`Request::InspectSnapshot`].
    pub async fn inspect_snapshot(
        &self,
        path: &HostPath,
        has_trailer: bool,
    ) -> Result<(DbFacts, String), HostError> {
        let request = Request::InspectSnapshot { path: path.clone(), has_trailer };
        ask!(self, request, Reply::Db(v, sha256) => (*v, sha256))
    }
    /// See [`Request::EtcdLive`].
    pub async fn etcd_live(&self, endpoint: &EtcdEndpoint) -> Result<EtcdLive, HostError> {
        ask!(self, Request::EtcdLive { endpoint: endpoint.clone() }, Reply::EtcdLive(v) => *v)
    }
    /// `Maintenance.Status`.
    pub async fn etcd_status(&self, endpoint: &EtcdEndpoint) -> Result<EtcdStatus, HostError> {
        let request = Request::Etcd { endpoint: endpoint.clone(), call: EtcdCall::Status };
        ask!(self, request, Reply::Status(v) => v)
    }
    /// `Maintenance.HashKV` at a revision, 0 = latest.
    pub async fn etcd_hash_kv(&self, endpoint: &EtcdEndpoint, revision: i64) -> Result<HashKv, HostError> {
        let request = Request::Etcd { endpoint: endpoint.clone(), call: EtcdCall::HashKv { revision } };
        ask!(self, request, Reply::HashKv(v) => v)
    }
    /// Number of live keys, serializable.
    pub async fn etcd_count_keys(&self, endpoint: &EtcdEndpoint) -> Result<u64, HostError> {
        let request = Request::Etcd { endpoint: endpoint.clone(), call: EtcdCall::CountKeys };
        ask!(self, request, Reply::Count(v) => v)
    }
    /// `Cluster.MemberList`.
    pub async fn etcd_members(
        &self,
        endpoint: &EtcdEndpoint,
        linearizable: bool,
    ) -> Result<Vec<EtcdMember>, HostError> {
        let request =
            Request::Etcd { endpoint: endpoint.clone(), call: EtcdCall::MemberList { linearizable } };
        ask!(self, request, Reply::Members(v) => v)
    }
    /// Any call that answers with `Done`: promote, remove, delete keys.
    pub async fn etcd_do(&self, endpoint: &EtcdEndpoint, call: EtcdCall) -> Result<(), HostError> {
        ask!(self, Request::Etcd { endpoint: endpoint.clone(), call }, Reply::Done => ())
    }
    /// `Cluster.MemberAdd` as learner.
    pub async fn etcd_add_learner(
        &self,
        endpoint: &EtcdEndpoint,
        peer_urls: Vec<String>,
    ) -> Result<Vec<EtcdMember>, HostError> {
        let request = Request::Etcd { endpoint: endpoint.clone(), call: EtcdCall::AddLearner { peer_urls } };
        ask!(self, request, Reply::Members(v) => v)
    }
    /// Keys under a prefix with their values.
    pub async fn etcd_range(
        &self,
        endpoint: &EtcdEndpoint,
        prefix: &str,
        limit: i64,
    ) -> Result<Vec<(String, Vec<u8>)>, HostError> {
        let call = EtcdCall::Range { prefix: prefix.into(), limit };
        ask!(self, Request::Etcd { endpoint: endpoint.clone(), call }, Reply::Pairs(v) => v)
    }
    /// `Maintenance.Snapshot` into a file on the host.
    pub async fn etcd_snapshot(&self, endpoint: &EtcdEndpoint, to: &HostPath) -> Result<Saved, HostError> {
        let call = EtcdCall::Snapshot { to: to.clone() };
        ask!(self, Request::Etcd { endpoint: endpoint.clone(), call }, Reply::Saved(v) => v)
    }
    /// One request to an API server.
    pub async fn api(&self, request: ApiRequest) -> Result<HttpAnswer, HostError> {
        ask!(self, Request::Api(request), Reply::Http(v) => v)
    }
    /// A plain GET on the host.
    pub async fn http_get(&self, url: &str, timeout_ms: u64) -> Result<HttpAnswer, HostError> {
        ask!(self, Request::HttpGet { url: url.into(), timeout_ms }, Reply::Http(v) => v)
    }
    /// See [`Request::ServesPeers`].
    pub async fn serves_peers(&self, endpoint: &EtcdEndpoint) -> Result<bool, HostError> {
        ask!(self, Request::ServesPeers { endpoint: endpoint.clone() }, Reply::Serves(v) => v)
    }
    /// See [`Request::Certificates`].
    pub async fn certificates(
        &self,
        pki_dir: &HostPath,
        served: Vec<ServedCertificate>,
    ) -> Result<CertificateFacts, HostError> {
        let request = Request::Certificates { pki_dir: pki_dir.clone(), served };
        ask!(self, request, Reply::Certificates(v) => *v)
    }
    /// See [`Request::RequestCertificates`].
    pub async fn request_certificates(
        &self,
        renewals: Vec<Renewal>,
    ) -> Result<Vec<(String, String)>, HostError> {
        ask!(self, Request::RequestCertificates { renewals }, Reply::Pems(v) => v)
    }
    /// See [`Request::SignCertificates`].
    pub async fn sign_certificates(
        &self,
        renewals: Vec<Renewal>,
        requests: Vec<(String, String)>,
    ) -> Result<Vec<(String, String)>, HostError> {
        ask!(self, Request::SignCertificates { renewals, requests }, Reply::Pems(v) => v)
    }
    /// See [`Request::StageCertificates`].
    pub async fn stage_certificates(
        &self,
        renewals: Vec<Renewal>,
        signed: Vec<(String, String)>,
    ) -> Result<(), HostError> {
        ask!(self, Request::StageCertificates { renewals, signed }, Reply::Done => ())
    }
}
