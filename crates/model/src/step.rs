//! Steps: the closed set of things a run can do. A step makes no choices; everything it needs stands in it.
//!
//! Each is idempotent (done twice = done once), names its precondition in its data (digests, process identities,
//! revisions), and has an undo that is idempotent too. Where it is carried out: `run::steps`.

use crate::HostId;
use crate::HostPath;
use crate::certificate::{Renewal, ServedCertificate};
use crate::etcd::{EtcdEndpoint, EtcdMember};
use crate::host::Component;
use crate::kube::nodes::{DrainMethod, DrainPod, DrainScope};
use crate::kube::{Change, ObjectRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far a step can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Reversibility {
    /// Undo restores exactly what was.
    Reversible,
    /// Undo restores an equivalent state.
    Compensated,
    /// Can't be taken back: the point of no return.
    Final,
}

/// A member of the new cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewMember {
    /// Host it runs on.
    pub host: HostId,
    /// Name.
    pub name: String,
    /// Peer URLs.
    pub peer_urls: Vec<String>,
}

/// What is restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum RestoreForm {
    /// Every row kept, revision unchanged.
    Exact,
    /// Revision raised to this; everything below compacted.
    Bumped {
        /// The revision the restored store starts at.
        to_revision: i64,
    },
}

/// A file that holds the data to restore, on the machine Rekindle runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceFile {
    /// The file.
    pub path: HostPath,
    /// Whether it ends with its SHA-256 (a stock snapshot); a copied db does not.
    pub has_trailer: bool,
    /// The SHA-256 (hex) of its db bytes the plan was made with; none when an earlier step of this plan makes it.
    pub sha256: Option<String>,
    /// The revision it must at least hold.
    pub min_revision: i64,
    /// The `kube-system` UID it must hold; none = not known.
    pub kube_system_uid: Option<String>,
}

/// One thing a run can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "do")]
pub enum Step {
    /// Save what a running etcd still serves (`Maintenance.Snapshot`) to `file` on the machine Rekindle runs on, and
    /// verify it. Undo: nothing (a copy harms nobody).
    SaveServed {
        /// The etcd, as seen from its host.
        endpoint: EtcdEndpoint,
        /// Where to save, on the machine Rekindle runs on.
        file: HostPath,
        /// The revision it must at least hold.
        min_revision: i64,
    },
    /// Save a deleted but open `db` through `/proc/PID/fd/FD`, the process frozen meanwhile.
    SaveOpenDb {
        /// Process id.
        pid: u32,
        /// Its start time in ticks: another process under the same pid is refused.
        start_ticks: u64,
        /// File descriptor.
        fd: u32,
        /// Where to save, on the machine Rekindle runs on.
        file: HostPath,
    },
    /// Save a stopped member's db and WAL, replayed natively into one db file.
    SaveStore {
        /// Data dir.
        data_dir: HostPath,
        /// WAL dir when it lies elsewhere.
        wal_dir: Option<HostPath>,
        /// Where to save, on the machine Rekindle runs on.
        file: HostPath,
        /// The revision it must at least hold.
        min_revision: i64,
    },
    /// Write the restored `db` (one for all members) from the source, on the machine Rekindle runs on.
    BuildDb {
        /// The data.
        source: SourceFile,
        /// Exact or bumped.
        form: RestoreForm,
        /// The members of the new cluster.
        members: Vec<NewMember>,
        /// A token never used before.
        token: String,
        /// The smallest quota of all members, for the NOSPACE rule.
        quota_bytes: u64,
        /// Consent to a source with a CORRUPT alarm.
        allow_corrupt_alarm: bool,
        /// The db file to write.
        file: HostPath,
    },
    /// Put the restored db and this member's WAL and .snap into a staging folder on the data dir's file system.
    StageMember {
        /// The db file made by `BuildDb`, on the machine Rekindle runs on.
        db: HostPath,
        /// All members of the new cluster.
        members: Vec<NewMember>,
        /// This member's name.
        name: String,
        /// The cluster token.
        token: String,
        /// Folder that will hold `member/`; made by this step.
        staging: HostPath,
        /// Staging folder for the WAL when `--wal-dir` lies elsewhere.
        wal_staging: Option<HostPath>,
    },
    /// Rename `from` to `to` on one file system; `to` must not exist. Undo: rename back.
    Rename {
        /// Present name.
        from: HostPath,
        /// New name.
        to: HostPath,
        /// When the source need not exist (an old data dir that is gone).
        optional: bool,
    },
    /// Put a new text in a file's place: written aside, old one renamed to `aside`, new one renamed in.
    ReplaceFile {
        /// The file.
        path: HostPath,
        /// SHA-256 (hex) the present file must have; none = there must be no file.
        old_sha256: Option<String>,
        /// New text.
        text: String,
        /// Where the old file goes (same file system, outside a manifest folder).
        aside: HostPath,
        /// Mode of the new file.
        mode: u32,
    },
    /// Stop a systemd unit. With `kill` it is not given its stop time (an API server without storage needs none).
    StopUnit {
        /// Unit name.
        unit: String,
        /// Send SIGKILL to all its processes instead of waiting.
        kill: bool,
    },
    /// Start a systemd unit (clears a `failed` state and a restart delay first).
    StartUnit {
        /// Unit name.
        unit: String,
        /// `systemctl daemon-reload` first (a unit file was replaced).
        reload: bool,
    },
    /// Stop the containers of these components (and their sandboxes) at once, through CRI; done when none runs.
    StopContainers {
        /// Components.
        components: Vec<Component>,
    },
    /// Wait for a member to answer at the restored revision, and prove it: HashKV equal to the native value in the
    /// run's outputs, live keys equal. In a plan without `BuildDb` nothing was restored: then that the member answers
    /// and is in a quorum of that many members.
    ProveMember {
        /// The etcd, as seen from its host.
        endpoint: EtcdEndpoint,
        /// Number of members the cluster must have.
        members: usize,
    },
    /// Wait until etcd answers its peers, some seconds at most. A member that starts first asks each of the others for its
    /// hash (`InitialCorruptCheck`, which kubeadm turns on) and serves nobody until it has an answer: two that start at
    /// once would each wait for the other until that times out.
    WaitPeersServed {
        /// Where this host's member listens to its peers.
        endpoint: EtcdEndpoint,
    },
    /// Delete the address leases of API servers that no longer run (`/registry/masterleases/`).
    DeleteStaleMasterleases {
        /// The etcd, as seen from its host.
        endpoint: EtcdEndpoint,
    },
    /// Wait until `/readyz` of the API server on this host says ok. From here on clients may write.
    WaitApiReady {},
    /// Release the leader leases whose holders this run stopped, compare and swap.
    ReleaseLeaderLeases {
        /// Lease names in `kube-system`.
        leases: Vec<String>,
    },
    /// Wait until all nodes are Ready with leases renewed after the API server came back.
    WaitNodes {
        /// Node names that are lost with their hosts and not waited for.
        except: Vec<String>,
        /// Longest wait in seconds.
        timeout_seconds: u64,
    },
    /// Wait until the component answers its health check on this host.
    WaitComponent {
        /// Component.
        component: Component,
    },
    /// Remove a member from a cluster that has quorum.
    RemoveMember {
        /// A member in quorum, as seen from this step's host.
        endpoint: EtcdEndpoint,
        /// The member to remove.
        member: EtcdMember,
    },
    /// Add a member as learner; its id is an output of the step.
    AddLearner {
        /// A member in quorum, as seen from this step's host.
        endpoint: EtcdEndpoint,
        /// Peer URLs of the learner.
        peer_urls: Vec<String>,
    },
    /// Promote the learner with these peer URLs once it has caught up; then HashKV of all members is compared.
    PromoteLearner {
        /// A member in quorum, as seen from this step's host.
        endpoint: EtcdEndpoint,
        /// Peer URLs of the learner.
        peer_urls: Vec<String>,
        /// Longest wait in seconds.
        timeout_seconds: u64,
    },
    /// Set `etcd.local.dataDir` in the kubeadm-config ConfigMap, so that the next upgrade keeps it.
    SetKubeadmDataDir {
        /// The new data dir.
        data_dir: HostPath,
        /// The one it had.
        old_data_dir: HostPath,
    },
    /// Make new keys on the host they are for (they never leave it) and requests for certificates of the same profile,
    /// which are the step's outputs. Undo: the keys are removed.
    RequestCertificates {
        /// The certificates.
        renewals: Vec<Renewal>,
    },
    /// Sign the requests of a host with the authorities' keys on this step's host, each only when it asks for what the
    /// old certificate is for. The certificates are the step's outputs.
    SignCertificates {
        /// The host the requests come from.
        for_host: HostId,
        /// The certificates.
        renewals: Vec<Renewal>,
    },
    /// Put the signed certificates with their keys in place; the old ones are renamed into the run's folders. Undo:
    /// they are renamed back.
    InstallCertificates {
        /// The certificates.
        renewals: Vec<Renewal>,
        /// Files that are moved away without a successor (from, to): their owner makes new ones when it starts.
        set_aside: Vec<(HostPath, HostPath)>,
    },
    /// Prove that the files hold the new certificates with their keys, signed by the present authorities, and that each
    /// port that was asked before serves what lies in the file.
    ProveCertificates {
        /// The folder of the control plane's certificates.
        pki_dir: HostPath,
        /// The certificates.
        renewals: Vec<Renewal>,
        /// The ports.
        served: Vec<ServedCertificate>,
    },
    /// Stop and remove all pods of the host through CRI, of every namespace; kubelet is stopped before.
    RemovePods {},
    /// Delete a Node object through the API server on this step's host. Gone already is success.
    DeleteNode {
        /// Name.
        name: String,
    },
    /// Change an object through the API; it is saved first. Undo: the inverse of what was not so before; an object that
    /// was let go by it (its last finalizer) is made again from what was saved.
    ChangeObject {
        /// The object.
        object: ObjectRef,
        /// The changes, in order.
        changes: Vec<Change>,
    },
    /// Delete an object through the API; it is saved first.
    DeleteObject {
        /// The object; another one of the same name is not touched.
        object: ObjectRef,
        /// Grace period in seconds; none = the object's own. 0 removes a pod without waiting for its kubelet.
        grace_period_seconds: Option<u64>,
        /// Whether undo makes it again from what was saved.
        put_back: bool,
    },
    /// Wait until an object that is being deleted is gone; it is saved first.
    WaitGone {
        /// The object.
        object: ObjectRef,
        /// Longest wait in seconds.
        timeout_seconds: u64,
        /// Whether undo makes it again from what was saved.
        put_back: bool,
    },
    /// Wait until a condition of an object has a status.
    WaitCondition {
        /// The object.
        object: ObjectRef,
        /// Type of the condition: `Available`.
        condition: String,
        /// Wanted status: `True`.
        status: String,
        /// Longest wait in seconds.
        timeout_seconds: u64,
    },
    /// Make pods leave their nodes. Done only when each of them is gone and no other has come to the nodes since they were
    /// listed; stops with the reason for each one that is there.
    Drain {
        /// The pods, each with what becomes of it; those that stay are only told.
        pods: Vec<DrainPod>,
        /// Which nodes are to be empty in the end, and of which pods.
        #[serde(default)]
        scope: DrainScope,
        /// Eviction or deletion.
        method: DrainMethod,
        /// Grace period in seconds for all; none = each pod's own.
        grace_period_seconds: Option<u64>,
        /// Longest time in seconds for all of it; none = as long as something moves.
        timeout_seconds: Option<u64>,
        /// A pod is given up when for so many seconds neither it nor its budget has moved.
        stall_seconds: u64,
    },
    /// Prove that a node's host is off: a command of the operator's that must succeed, run on the machine Rekindle runs on.
    Fence {
        /// The node.
        node: ObjectRef,
        /// Program and arguments; `{node}` stands for the node's name.
        command: Vec<String>,
    },
    /// Wait until a node that is off holds nothing any more: no pod of it is left that does not tolerate the
    /// out-of-service taint, and no volume is attached to it.
    WaitNodeEmpty {
        /// The node.
        node: ObjectRef,
        /// Longest wait in seconds.
        timeout_seconds: u64,
    },
    /// Prove that no object of any served type is left in a namespace that is gone.
    ProveNothingLeft {
        /// The namespace.
        namespace: String,
    },
}
