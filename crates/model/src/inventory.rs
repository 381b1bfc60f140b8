//! The inventory: everything seen at one time, over all hosts. Potentially incomplete, and modelled so.

use crate::host::HostFacts;
use crate::source::SourceCandidate;
use crate::{HostId, RunId, Seen};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Everything seen at one time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// When the reading ended, milliseconds since the Unix epoch, by the clock of the machine Rekindle runs on.
    pub taken_ms: i64,
    /// The hosts asked for, in the order given.
    pub hosts: Vec<HostFacts>,
    /// Hosts the operator attests to be off for good (`--lost`).
    pub lost_hosts: Vec<HostId>,
    /// The cluster's objects, through the first API server that answers.
    pub cluster: ClusterFacts,
    /// Every candidate to restore from.
    pub sources: Vec<SourceCandidate>,
    /// Earlier runs on these hosts: their revision floors bound the next one from below.
    pub earlier_runs: Vec<EarlierRun>,
}

/// The label of `kube-system` by which the people of a cluster allow that drills break it: its value is `allowed`.
pub const DRILL_LABEL: &str = "rekindle.dev/drill";

/// What the API tells of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterFacts {
    /// The address in the admin kubeconfig (a VIP or load balancer where there are several API servers).
    pub control_plane_endpoint: Seen<String>,
    /// Status code of `/readyz` through that address.
    pub endpoint_readyz: Seen<u16>,
    /// UID of `kube-system`.
    pub kube_system_uid: Seen<String>,
    /// Value of the label [`DRILL_LABEL`] of `kube-system`; empty when it is not there.
    #[serde(default)]
    pub drill_label: Seen<String>,
    /// Nodes.
    pub nodes: Seen<Vec<NodeFacts>>,
    /// Leader leases of `kube-system` (`kube-controller-manager`, `kube-scheduler`).
    pub leader_leases: Seen<Vec<LeaseFacts>>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeFacts {
    /// Name.
    pub name: String,
    /// Status of condition `Ready`: `True`, `False`, `Unknown`.
    pub ready: String,
    /// Reason and message of that condition.
    pub reason: String,
    /// Renewal time of its lease in `kube-node-lease`, milliseconds since the Unix epoch.
    pub lease_renewed_ms: Option<i64>,
    /// Whether it is marked unschedulable.
    pub unschedulable: bool,
    /// Internal addresses.
    pub addresses: Vec<String>,
}

/// One coordination lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseFacts {
    /// Name.
    pub name: String,
    /// Holder, empty when released.
    pub holder: String,
    /// Renewal time, milliseconds since the Unix epoch.
    pub renewed_ms: Option<i64>,
    /// Duration in seconds.
    pub duration_seconds: i64,
}

/// What an earlier run left to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EarlierRun {
    /// The run.
    pub id: RunId,
    /// Revision its restore was raised to: clients may have seen that and more.
    pub raised_to_revision: i64,
    /// Highest revision seen of the cluster when that run ended.
    pub last_revision: i64,
    /// When it ended, milliseconds since the Unix epoch.
    pub ended_ms: i64,
}

impl NodeFacts {
    /// Whether it has a host's name.
    pub fn is_named(&self, host: &HostFacts) -> bool {
        host.hostname.known().is_some_and(|name| name.eq_ignore_ascii_case(&self.name))
    }

    /// Whether it has an address of a host.
    pub fn has_address_of(&self, host: &HostFacts) -> bool {
        host.addresses.known().is_some_and(|all| self.addresses.iter().any(|a| all.contains(a)))
    }

    /// Whether it is that host, by name or address.
    pub fn is_on(&self, host: &HostFacts) -> bool {
        self.is_named(host) || self.has_address_of(host)
    }
}

impl Inventory {
    /// The host of an id.
    pub fn host(&self, id: &HostId) -> Option<&HostFacts> {
        self.hosts.iter().find(|h| &h.id == id)
    }

    /// The node that a host is, where the nodes are known: by what the user calls the host, else by the host's own name
    /// (whatever its case), else by its addresses.
    pub fn node_on(&self, host: &HostFacts) -> Option<&NodeFacts> {
        let nodes = self.cluster.nodes.known()?;
        let bare = host.id.bare();
        let called = |node: &&NodeFacts| node.name == bare || node.addresses.iter().any(|a| a == bare);
        let named = |node: &&NodeFacts| node.is_named(host);
        let at = |node: &&NodeFacts| node.has_address_of(host);
        let find = |wanted: &dyn Fn(&&NodeFacts) -> bool| nodes.iter().find(wanted);
        find(&called).or_else(|| find(&named)).or_else(|| find(&at))
    }

    /// A host's own time at the reading, seconds since the Unix epoch: its certificates are judged by its clock.
    pub fn host_now_s(&self, host: &HostFacts) -> i64 {
        let offset_ms = host.clock.known().map_or(0, |clock| clock.offset_ms);
        self.taken_ms.saturating_add(offset_ms).div_euclid(1000)
    }

    /// SHA-256 (hex) over what decisions rest on and what does not move by itself: manifests, settings, identities of
    /// data dirs, processes and units, and the source files. Clocks, logs, free space and revisions are left out.
    pub fn decision_digest(&self) -> String {
        let mut sum = Sha256::new();
        let mut add = |text: String| {
            sum.update((text.len() as u64).to_le_bytes());
            sum.update(text.as_bytes());
        };
        for host in &self.hosts {
            add(format!("host {} {:?} {:?}", host.id, host.unreachable.is_some(), host.layout));
            for manifest in host.manifests.known().into_iter().flatten().filter(|m| m.in_place) {
                add(format!("manifest {} {}", manifest.path, manifest.sha256));
            }
            for (name, unit) in &host.units {
                add(format!("unit {name} {:?}", unit.known().map(|u| (&u.load_state, &u.fragment_path))));
            }
            if let Some(config) = host.etcd_config.known() {
                add(format!("etcd {} {} {:?}", config.name, config.data_dir, config.peer_urls));
            }
            if let Some(data) = host.etcd_data.known() {
                let db = data.db.known().map(|d| (d.violations.is_empty(), d.kube_system_uid.known()));
                add(format!(
                    "data {} {} {:?} {}",
                    data.exists,
                    data.has_member,
                    db,
                    data.wal.known().is_some()
                ));
            }
            add(format!("ca {:?}", host.ca_sha256.known()));
            for file in host.certificates.known().into_iter().flat_map(|c| &c.files) {
                let sha256 = file.certificate.known().map(|c| &c.sha256);
                add(format!("certificate {} {sha256:?} {:?}", file.path(), file.key));
            }
        }
        for lost in &self.lost_hosts {
            add(format!("lost {lost}"));
        }
        for source in &self.sources {
            add(format!("source {} {:?}", source.kind, source.sha256));
        }
        sum.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}
