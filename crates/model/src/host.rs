//! What one host tells: disk, clock, services, containers, manifests, processes, logs.

use crate::HostPath;
use crate::certificate::CertificateFacts;
use crate::etcd::{EtcdConfig, EtcdDataFacts, EtcdLive};
use crate::{HostId, Seen};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The parts of a control plane, as Kubernetes names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    /// `etcd`
    Etcd,
    /// `kube-apiserver`
    KubeApiserver,
    /// `kube-controller-manager`
    KubeControllerManager,
    /// `kube-scheduler`
    KubeScheduler,
}

impl Component {
    /// All of them, in the order they are started.
    pub const ALL: [Self; 4] =
        [Self::Etcd, Self::KubeApiserver, Self::KubeControllerManager, Self::KubeScheduler];

    /// Container name, process name and usual unit name: they are the same word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
        }
    }
}

impl std::fmt::Display for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How this host's control plane is kept running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Layout {
    /// kubelet runs static pods from a manifest folder (kubeadm).
    StaticPods,
    /// systemd units run the components.
    Units,
    /// No trace of a control plane was found.
    None,
}

/// Everything read on one host. Each part is partial: what could not be read says why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostFacts {
    /// The host, as the user names it.
    pub id: HostId,
    /// Why the host as a whole could not be read; every other field is then unknown.
    pub unreachable: Option<String>,
    /// The host's own name.
    pub hostname: Seen<String>,
    /// Addresses of its interfaces, loopback left out.
    pub addresses: Seen<Vec<String>>,
    /// Clock against the clock of the machine Rekindle runs on.
    pub clock: Seen<ClockFacts>,
    /// Space on the file systems recovery writes to: one entry per path asked for.
    pub disks: BTreeMap<HostPath, Seen<DiskFacts>>,
    /// How the control plane is run here.
    pub layout: Layout,
    /// The folder of static pod manifests, from the kubelet's configuration.
    pub manifest_dir: HostPath,
    /// Files in the manifest folder, parsed; also those found elsewhere that could be put back (`in_place` false).
    pub manifests: Seen<Vec<ManifestFacts>>,
    /// systemd units by full name (`kubelet.service`): kubelet, containerd, and the component units of a unit layout.
    pub units: BTreeMap<String, Seen<UnitFacts>>,
    /// Containers of the control plane, through CRI, running and exited, newest first.
    pub containers: Seen<Vec<ContainerFacts>>,
    /// Control-plane processes.
    pub processes: Seen<Vec<ProcessFacts>>,
    /// etcd's configuration, from its manifest or unit (also from a manifest that was moved away).
    pub etcd_config: Seen<EtcdConfig>,
    /// The files etcd's command line comes from in a unit layout (unit file, drop-ins, environment files), by path: the
    /// planner edits these texts.
    pub unit_files: BTreeMap<HostPath, Seen<TextFile>>,
    /// etcd's data folder.
    pub etcd_data: Seen<EtcdDataFacts>,
    /// What the etcd on this host answers.
    pub etcd_live: Seen<EtcdLive>,
    /// `/livez` and `/readyz?verbose` of the API server on this host, asked on the host itself.
    pub api: Seen<ApiProbe>,
    /// `/healthz` of controller-manager and scheduler (true = ok).
    pub healthz: BTreeMap<Component, Seen<bool>>,
    /// `http://127.0.0.1:10248/healthz` of the kubelet.
    pub kubelet_healthz: Seen<bool>,
    /// SHA-256 (hex) of the DER of the cluster CA certificate.
    pub ca_sha256: Seen<String>,
    /// Certificates in files and as served.
    #[serde(default)]
    pub certificates: Seen<CertificateFacts>,
    /// Last log lines by source (`journal:kubelet`, `/var/log/pods/...`), oldest first, bounded. A journal line begins
    /// with its time in RFC 3339, as the lines of `/var/log/pods` do.
    pub logs: BTreeMap<String, Vec<String>>,
}

impl HostFacts {
    /// A host that could not be reached at all.
    pub fn unreachable(id: HostId, why: String) -> Self {
        Self {
            id,
            unreachable: Some(why),
            hostname: Seen::default(),
            addresses: Seen::default(),
            clock: Seen::default(),
            disks: BTreeMap::new(),
            layout: Layout::None,
            manifest_dir: HostPath::from("/etc/kubernetes/manifests"),
            manifests: Seen::default(),
            units: BTreeMap::new(),
            containers: Seen::default(),
            processes: Seen::default(),
            etcd_config: Seen::default(),
            unit_files: BTreeMap::new(),
            etcd_data: Seen::default(),
            etcd_live: Seen::default(),
            api: Seen::default(),
            healthz: BTreeMap::new(),
            kubelet_healthz: Seen::default(),
            ca_sha256: Seen::default(),
            certificates: Seen::default(),
            logs: BTreeMap::new(),
        }
    }

    /// The manifest in place (not one moved away) of a component.
    pub fn manifest(&self, component: Component) -> Option<&ManifestFacts> {
        self.manifests.known()?.iter().find(|m| m.in_place && m.component == Some(component))
    }

    /// The newest container of a component.
    pub fn container(&self, component: Component) -> Option<&ContainerFacts> {
        self.containers.known()?.iter().find(|c| c.name == component.name())
    }

    /// The process of a component.
    pub fn process(&self, component: Component) -> Option<&ProcessFacts> {
        self.processes.known()?.iter().find(|p| p.name == component.name())
    }

    /// The unit of a name, with or without `.service`, when its state could be read.
    pub fn unit(&self, name: &str) -> Option<&UnitFacts> {
        self.units.get(name).or_else(|| self.units.get(&format!("{name}.service")))?.known()
    }

    /// The name of the systemd unit that runs a component: one of that name, else one that starts its program.
    pub fn unit_of(&self, component: Component) -> Option<&str> {
        self.unit_named(component.name()).or_else(|| {
            self.units.iter().find_map(|(name, unit)| {
                let program = unit.known().filter(|u| u.exists())?.exec_start.first()?;
                (program.rsplit('/').next() == Some(component.name())).then_some(name.as_str())
            })
        })
    }

    /// The name of a unit, given without `.service`, unless it is known not to exist.
    pub fn unit_named(&self, stem: &str) -> Option<&str> {
        self.units
            .iter()
            .find(|(name, unit)| {
                name.strip_suffix(".service").unwrap_or(name) == stem
                    && unit.known().is_none_or(|u| u.exists())
            })
            .map(|(name, _)| name.as_str())
    }
}

/// A small text file as it was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TextFile {
    /// SHA-256 (hex) of the file.
    pub sha256: String,
    /// Its text (bounded).
    pub text: String,
    /// Permission bits.
    pub mode: u32,
}

/// A clock reading.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClockFacts {
    /// Host clock minus ours, in milliseconds, with half the round trip taken off.
    pub offset_ms: i64,
    /// Half the round trip: the reading is no better than this.
    pub uncertainty_ms: i64,
    /// Whether the host says that its clock is synchronised.
    pub synchronized: Seen<bool>,
}

/// Space on the file system a path lies on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskFacts {
    /// Free bytes for root.
    pub free_bytes: u64,
    /// Size in bytes.
    pub total_bytes: u64,
    /// Free inodes; none where the file system makes them as they are needed.
    pub free_inodes: Option<u64>,
    /// Whether it is mounted read-only.
    pub read_only: bool,
    /// Device number of the file system: two paths with the same one can be renamed into each other.
    pub device: u64,
}

/// One static pod manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManifestFacts {
    /// The file.
    pub path: HostPath,
    /// Whether it lies in the manifest folder, where kubelet reads it.
    pub in_place: bool,
    /// The control-plane component it runs, if any.
    pub component: Option<Component>,
    /// SHA-256 (hex) of the file.
    pub sha256: String,
    /// The file's text (bounded); manifests hold no secrets.
    pub text: String,
    /// Why it does not parse as a pod.
    pub parse_error: Option<String>,
    /// The component's command line as in the manifest, first the program.
    pub command: Vec<String>,
    /// Modification time, milliseconds since the Unix epoch.
    pub modified_ms: i64,
}

/// State of one systemd unit, as `systemctl show` gives it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnitFacts {
    /// `loaded`, `not-found`, `masked`, ...
    pub load_state: String,
    /// `active`, `inactive`, `failed`, `activating`, ...
    pub active_state: String,
    /// `running`, `dead`, `auto-restart`, ...
    pub sub_state: String,
    /// Process id of the main process, 0 for none.
    pub main_pid: u32,
    /// `success`, `exit-code`, `signal`, `oom-kill`, ...
    pub result: String,
    /// Exit status of the last main process.
    pub exit_status: i32,
    /// How often systemd restarted it.
    pub restarts: u32,
    /// The unit file.
    pub fragment_path: HostPath,
    /// Drop-in files.
    pub drop_in_paths: Vec<HostPath>,
    /// The command line it runs (`ExecStart`, first command, environment files not expanded).
    pub exec_start: Vec<String>,
}

impl UnitFacts {
    /// Whether systemd says it runs.
    pub fn is_active(&self) -> bool {
        self.active_state == "active"
    }
    /// Whether the unit exists here.
    pub fn exists(&self) -> bool {
        self.load_state == "loaded"
    }
}

/// One container, as CRI tells it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerFacts {
    /// Container id.
    pub id: String,
    /// Sandbox id of its pod.
    pub sandbox_id: String,
    /// Container name, for example `kube-apiserver`.
    pub name: String,
    /// Pod name.
    pub pod: String,
    /// Whether it runs.
    pub running: bool,
    /// Restart attempt, from 0.
    pub attempt: u32,
    /// Exit code of an exited one.
    pub exit_code: Option<i32>,
    /// Reason of an exited one, for example `Error`, `OOMKilled`.
    pub reason: String,
    /// Start, milliseconds since the Unix epoch (0 = never).
    pub started_ms: i64,
    /// End, milliseconds since the Unix epoch (0 = not yet).
    pub finished_ms: i64,
    /// Its log file on the host.
    pub log_path: HostPath,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessFacts {
    /// Base name of the program.
    pub name: String,
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot: with the pid it names this very process.
    pub start_ticks: u64,
    /// Start, milliseconds since the Unix epoch by the host's clock.
    #[serde(default)]
    pub started_ms: i64,
    /// Command line.
    pub command: Vec<String>,
    /// Whether a signal holds it (SIGSTOP, a debugger): it is there, and does nothing.
    #[serde(default)]
    pub frozen: bool,
    /// Open files that were deleted: an etcd `db` among them may be the only copy.
    pub deleted_files: Vec<OpenFile>,
}

/// A file that a process holds open though its name is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenFile {
    /// File descriptor number in that process.
    pub fd: u32,
    /// The path it had.
    pub path: HostPath,
    /// Its size.
    pub size_bytes: u64,
}

/// What an API server answers about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiProbe {
    /// The address asked, for example `https://127.0.0.1:6443`.
    pub server: String,
    /// Status code of `/livez`.
    pub livez: Seen<u16>,
    /// Status code of `/readyz`.
    pub readyz: Seen<u16>,
    /// The lines of `/readyz?verbose` that are not ok.
    pub failing_checks: Vec<String>,
}

impl ApiProbe {
    /// Whether `/readyz` said 200.
    pub fn is_ready(&self) -> bool {
        self.readyz.known() == Some(&200)
    }
}
