//! Everything of one host, its parts read side by side; a part that can't be read says why and stops nothing.

use super::ask::{LONG, QUICK, seen, within};
use super::units::{self, Units};
use super::{EtcdDown, ObserveOptions, certificates, etcd, logs, manifests, probes};
use crate::host::{Host, HostError, Identity};
use crate::local::now_ms;
use futures::future::join_all;
use rekindle_model::etcd::{EtcdConfig, EtcdDataFacts, EtcdLive};
use rekindle_model::host::{
    ClockFacts, Component, ContainerFacts, DiskFacts, HostFacts, Layout, ManifestFacts, ProcessFacts,
};
use rekindle_model::{HostPath, Seen};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest wait for a host to say who it is: an SSH connection is made for it.
const CONNECT: Duration = Duration::from_secs(30);

/// Reads a host.
pub(super) async fn observe(host: &dyn Host, options: &ObserveOptions, etcd_down: &EtcdDown) -> HostFacts {
    let id = host.id().clone();
    let identity = match within(host, CONNECT, "who it is", host.identity()).await {
        Ok(identity) => identity,
        Err(error) => return HostFacts::unreachable(id, error.what),
    };
    let mut facts = HostFacts::unreachable(id, String::new());
    facts.unreachable = None;
    facts.hostname = Seen::Known(identity.hostname.clone());
    facts.addresses = Seen::Known(identity.addresses.clone());
    let (base, found, clock, ca, kubelet_healthz) =
        tokio::join!(base(host), units::find(host), clock(host), ca(host), probes::kubelet(host));
    (facts.clock, facts.ca_sha256, facts.kubelet_healthz) = (clock, ca, kubelet_healthz);
    (facts.units, facts.containers) = (found, base.containers);
    facts.manifest_dir = base.manifest_dir;
    facts.manifests = seen(base.manifests);
    let manifests = facts.manifests.known().cloned().unwrap_or_default();
    facts.layout = layout(&manifests, &facts.units);
    let etcd = etcd::find(host, &manifests, &facts.units, &identity.hostname).await;
    (facts.etcd_config, facts.unit_files) = (etcd.config, etcd.unit_files);
    let mut commands = commands(&manifests, &facts.units);
    facts.processes = seen(base.processes.map(|p| ours(p, &commands)));
    // What runs is asked where it listens, whatever its manifest says by now.
    for component in Component::ALL {
        commands.extend(facts.process(component).map(|p| (component, p.command.clone())));
    }
    deep(host, &mut facts, &commands, options, etcd_down).await;
    facts
}

/// What needs nothing else to be known.
struct Base {
    manifest_dir: HostPath,
    manifests: Result<Vec<ManifestFacts>, HostError>,
    processes: Result<Vec<ProcessFacts>, HostError>,
    containers: Seen<Vec<ContainerFacts>>,
}

async fn base(host: &dyn Host) -> Base {
    let names: Vec<&str> = Component::ALL.iter().map(|c| c.name()).chain(["kubelet"]).collect();
    let with_processes = async {
        let processes = within(host, QUICK, "processes", host.processes(&names)).await;
        let kubelet = processes.as_ref().ok().and_then(|p| p.iter().find(|p| p.name == "kubelet"));
        let manifest_dir = manifests::folder(host, kubelet).await;
        let manifests = manifests::find(host, &manifest_dir).await;
        (processes, manifest_dir, manifests)
    };
    let containers = within(host, QUICK, "containers", host.containers());
    let ((processes, manifest_dir, manifests), containers) = tokio::join!(with_processes, containers);
    let of_components = |found: Vec<ContainerFacts>| {
        let named = |c: &ContainerFacts| Component::ALL.iter().any(|k| k.name() == c.name);
        found.into_iter().filter(named).collect()
    };
    Base { manifest_dir, manifests, processes, containers: seen(containers.map(of_components)) }
}

/// What takes longer or rests on the configuration found: data, answers, disks, health, logs.
async fn deep(
    host: &dyn Host,
    facts: &mut HostFacts,
    commands: &Commands,
    options: &ObserveOptions,
    etcd_down: &EtcdDown,
) {
    let config = facts.etcd_config.known().cloned();
    let command = |component| commands.get(&component).map_or(&[] as &[String], Vec::as_slice);
    let has_control_plane = facts.layout != Layout::None;
    let healthz = async {
        let components = [Component::KubeControllerManager, Component::KubeScheduler];
        let asked =
            components.map(|c| async move { (c, probes::component(host, c, command(c), etcd_down).await) });
        if has_control_plane { join_all(asked).await } else { Vec::new() }
    };
    let api = async {
        if has_control_plane {
            let server = probes::api_server(command(Component::KubeApiserver));
            Seen::Known(probes::api(host, server, etcd_down).await)
        } else {
            Seen::Unknown("no control plane was found on this host".into())
        }
    };
    let logs = logs::read(host, &facts.units, facts.containers.known().map(Vec::as_slice), facts.layout);
    let (data, live, disks, api, healthz, logs, certificates) = tokio::join!(
        data(host, config.as_ref()),
        async {
            let live = live(host, config.as_ref()).await;
            let none = config.is_none() && !has_control_plane;
            if none || live.known().is_some() {
                etcd_down.tell(live.known());
            }
            live
        },
        disks(host, config.as_ref(), options),
        api,
        healthz,
        logs,
        certificates::read(host, facts, commands)
    );
    (facts.etcd_data, facts.etcd_live, facts.disks, facts.api) = (data, live, disks, api);
    facts.healthz = healthz.into_iter().collect();
    facts.logs = logs;
    facts.certificates = certificates;
}

/// Host clock against ours, by the better of two readings: the first may have waited for other things.
async fn clock(host: &dyn Host) -> Seen<ClockFacts> {
    let mut best: Option<ClockFacts> = None;
    let mut why = String::new();
    for _ in 0..2 {
        let before = now_ms();
        match within(host, QUICK, "clock", host.identity()).await {
            Ok(Identity { now_ms: theirs, synchronized, .. }) => {
                let half = (now_ms() - before) / 2;
                let reading = ClockFacts {
                    offset_ms: theirs - before - half,
                    uncertainty_ms: half.max(1),
                    synchronized,
                };
                if best.as_ref().is_none_or(|b| reading.uncertainty_ms < b.uncertainty_ms) {
                    best = Some(reading);
                }
            }
            Err(error) => why = error.what,
        }
    }
    best.map_or(Seen::Unknown(why), Seen::Known)
}

async fn ca(host: &dyn Host) -> Seen<String> {
    let path = HostPath::from("/etc/kubernetes/pki/ca.crt");
    match super::ask::text(host, &path).await {
        Ok(text) => crate::ca::sha256_of_first(text.as_bytes())
            .map_or_else(|| Seen::Unknown(format!("{path}: holds no certificate")), Seen::Known),
        Err(error) => Seen::Unknown(error.what),
    }
}

/// Static pods where a manifest lies in place; units where they run a component; else what is left tells.
fn layout(manifests: &[ManifestFacts], units: &Units) -> Layout {
    let of_component = |m: &&ManifestFacts| m.component.is_some();
    if manifests.iter().filter(of_component).any(|m| m.in_place) {
        return Layout::StaticPods;
    }
    if Component::ALL.into_iter().any(|c| units::of(units, c).is_some()) {
        return Layout::Units;
    }
    if manifests.iter().any(|m| m.component.is_some()) { Layout::StaticPods } else { Layout::None }
}

/// Command line of each component as configured.
pub(super) type Commands = BTreeMap<Component, Vec<String>>;

fn commands(manifests: &[ManifestFacts], units: &Units) -> Commands {
    let mut commands = Commands::new();
    for component in Component::ALL {
        let mut own: Vec<&ManifestFacts> =
            manifests.iter().filter(|m| m.component == Some(component) && m.parse_error.is_none()).collect();
        own.sort_by_key(|m| (!m.in_place, std::cmp::Reverse(m.modified_ms)));
        let unit = units::of(units, component).and_then(|name| units.get(name)?.known());
        let in_place = own.first().filter(|m| m.in_place).map(|m| &m.command);
        let found = in_place.or(unit.map(|u| &u.exec_start)).or(own.first().map(|m| &m.command));
        if let Some(command) = found {
            commands.insert(component, command.clone());
        }
    }
    commands
}

/// The control plane's own processes, and a kubelet that is frozen: of one that runs, its unit and its health tell.
fn ours(mut processes: Vec<ProcessFacts>, commands: &Commands) -> Vec<ProcessFacts> {
    processes.retain(|p| {
        let component = Component::ALL.into_iter().find(|c| c.name() == p.name);
        let expected = component.and_then(|c| commands.get(&c));
        match (component, expected) {
            (Some(Component::Etcd), Some(expected)) => etcd::is_ours(p, expected),
            (Some(_), _) => true,
            (None, _) => p.frozen,
        }
    });
    processes
}

async fn data(host: &dyn Host, config: Option<&EtcdConfig>) -> Seen<EtcdDataFacts> {
    let Some(config) = config else { return Seen::Unknown("where its data dir is, is not known".into()) };
    let inspect = host.inspect_etcd_data(&config.data_dir, config.wal_dir.as_ref(), true);
    seen(within(host, LONG, &format!("read {}", config.data_dir), inspect).await)
}

async fn live(host: &dyn Host, config: Option<&EtcdConfig>) -> Seen<EtcdLive> {
    let Some(config) = config else { return Seen::Unknown("where it listens is not known".into()) };
    seen(within(host, QUICK, "ask etcd", host.etcd_live(&config.endpoint)).await)
}

async fn disks(
    host: &dyn Host,
    config: Option<&EtcdConfig>,
    options: &ObserveOptions,
) -> BTreeMap<HostPath, Seen<DiskFacts>> {
    let mut paths = vec![HostPath::from("/etc/kubernetes"), HostPath(options.state_dir.clone())];
    paths.extend(options.data_dir.clone().map(HostPath));
    if let Some(config) = config {
        for dir in std::iter::once(&config.data_dir).chain(&config.wal_dir) {
            paths.push(dir.clone());
            // Where the old data goes, unless the folder is a file system of its own.
            paths.extend(dir.parent().map(HostPath::from));
        }
    }
    join_all(paths.into_iter().map(|path| async move {
        let disk = seen(within(host, QUICK, &format!("space at {path}"), host.disk(&path)).await);
        (path, disk)
    }))
    .await
    .into_iter()
    .collect()
}
