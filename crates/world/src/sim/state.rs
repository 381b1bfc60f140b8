//! What runs in the simulated world: units, kubelet and its containers. Kubelet reads the real manifest files.

use super::etcd::{Cluster, Instance};
use crate::fault::{Fault, Outcome};
use crate::host::UnitAction;
use crate::words;
use camino::{Utf8Path, Utf8PathBuf};
use rekindle_model::host::{Component, ContainerFacts, UnitFacts};
use rekindle_model::{HostId, HostPath, MemberId};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Name of kubelet's unit.
pub(super) const KUBELET: &str = "kubelet.service";
/// A component that is given a flag beginning so exits at once, as one does that does not know a flag.
const UNKNOWN_FLAG: &str = "--unknown-";

/// Everything that is not in files.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) hosts: BTreeMap<HostId, HostState>,
    pub(super) clusters: BTreeMap<MemberId, Cluster>,
    made: u64,
}

/// One host.
#[derive(Debug)]
pub(super) struct HostState {
    pub(super) root: Utf8PathBuf,
    pub(super) hostname: String,
    pub(super) manifest_dir: HostPath,
    pub(super) units: BTreeMap<String, Unit>,
    pub(super) containers: BTreeMap<Component, Container>,
    pub(super) etcd: Option<Instance>,
}

/// A unit as systemd has it in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Unit {
    pub(super) active: bool,
    pub(super) failed: bool,
    pub(super) fragment: HostPath,
    pub(super) exec_start: Vec<String>,
}

/// The newest container of a component.
#[derive(Clone, Debug)]
pub(super) struct Container {
    id: String,
    sandbox: String,
    pub(super) running: bool,
    manifest_sha256: Vec<u8>,
}

/// A manifest file that kubelet takes for a pod.
struct Manifest {
    component: Component,
    sha256: Vec<u8>,
    command: Vec<String>,
}

impl HostState {
    fn manifests(&self) -> Vec<Manifest> {
        let dir = self.root.join(self.manifest_dir.as_str().trim_start_matches('/'));
        let Ok(entries) = dir.read_dir_utf8() else { return Vec::new() };
        let files = entries.flatten().filter(|e| !e.file_name().starts_with('.') && e.path().is_file());
        files.filter_map(|e| parse(&std::fs::read_to_string(e.path()).ok()?)).collect()
    }

    pub(super) fn unit_active(&self, name: &str) -> bool {
        self.units.get(name).is_some_and(|unit| unit.active)
    }

    /// Whether a component runs, in a container or a unit.
    pub(super) fn runs(&self, component: Component) -> bool {
        self.containers.get(&component).is_some_and(|c| c.running)
            || self.unit_active(&format!("{component}.service"))
    }

    /// Makes systemd read its files again.
    fn reload(&mut self) {
        for unit in self.units.values_mut() {
            let path = self.root.join(unit.fragment.as_str().trim_start_matches('/'));
            let Ok(text) = std::fs::read_to_string(path) else { continue };
            let line = text.lines().find_map(|line| line.strip_prefix("ExecStart="));
            unit.exec_start = line.map(words::split).unwrap_or_default();
        }
    }
}

fn parse(text: &str) -> Option<Manifest> {
    if !text.contains("kind: Pod") {
        return None;
    }
    let named = |c: &Component| text.lines().any(|line| line.trim() == format!("component: {c}"));
    let component = Component::ALL.into_iter().find(named)?;
    let flags = text.lines().filter_map(|line| line.trim().strip_prefix("- --"));
    let command = std::iter::once(component.name().to_owned()).chain(flags.map(|flag| format!("--{flag}")));
    Some(Manifest { component, sha256: Sha256::digest(text).to_vec(), command: command.collect() })
}

impl State {
    pub(super) fn host(&mut self, id: &HostId) -> Outcome<&mut HostState> {
        self.hosts.get_mut(id).ok_or_else(|| Fault::failed(format!("{id} is not in this world")))
    }

    fn made(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{what}-{:06}", self.made)
    }

    /// Starts a component's program: etcd reads its disk and may refuse, the others run.
    fn launch(&mut self, id: &HostId, component: Component, command: &[String]) -> Outcome<()> {
        if let Some(unknown) = command.iter().find(|word| word.starts_with(UNKNOWN_FLAG)) {
            return Err(Fault::failed(format!("unknown flag: {unknown}")));
        }
        if component != Component::Etcd {
            return Ok(());
        }
        self.join(id, command)?;
        let host = self.host(id)?;
        let instance = Instance::boot(&host.root, command)?;
        let (cluster, member, on_disk) = (instance.cluster, instance.member, instance.cluster_on_disk());
        if self.clusters.get(&cluster).is_some_and(|c| c.members.iter().all(|m| m.id != member)) {
            return Err(Fault::failed(format!("member {member} was removed from its cluster")));
        }
        self.host(id)?.etcd = Some(instance);
        let known = self.clusters.entry(cluster).or_insert(on_disk);
        if let Some(own) = known.members.iter_mut().find(|m| m.id == member) {
            own.name = words::flag(command, "name").unwrap_or_default().to_owned();
            own.client_urls =
                vec![words::flag(command, "advertise-client-urls").unwrap_or_default().to_owned()];
        }
        let revision = self.hosts.get(id).and_then(|h| h.etcd.as_ref()).map_or(0, |i| i.verified.revision);
        known.revision = known.revision.max(revision);
        Ok(())
    }

    /// What kubelet does when it runs: the containers become what the manifests say.
    pub(super) fn settle(&mut self, id: &HostId) -> Outcome<()> {
        let host = self.host(id)?;
        if !host.unit_active(KUBELET) {
            return Ok(());
        }
        let manifests = host.manifests();
        for component in Component::ALL {
            let wanted = manifests.iter().find(|m| m.component == component);
            let present = self.host(id)?.containers.get(&component).filter(|c| c.running);
            match (wanted, present) {
                (Some(wanted), Some(present)) if wanted.sha256 == present.manifest_sha256 => continue,
                (None, None) => continue,
                _ => {}
            }
            self.stop_component(id, component)?;
            if let Some(wanted) = wanted {
                let running = self.launch(id, component, &wanted.command).is_ok();
                let container = Container {
                    id: self.made("container"),
                    sandbox: self.made("sandbox"),
                    running,
                    manifest_sha256: wanted.sha256.clone(),
                };
                self.host(id)?.containers.insert(component, container);
            }
        }
        Ok(())
    }

    fn stop_component(&mut self, id: &HostId, component: Component) -> Outcome<()> {
        let host = self.host(id)?;
        if let Some(container) = host.containers.get_mut(&component) {
            container.running = false;
        }
        if component == Component::Etcd {
            host.etcd = None;
        }
        Ok(())
    }

    pub(super) fn stop_pod(&mut self, id: &HostId, sandbox: &str) -> Outcome<()> {
        let host = self.host(id)?;
        let found =
            host.containers.iter().find(|(_, c)| c.sandbox == sandbox).map(|(component, _)| *component);
        match found {
            Some(component) => {
                self.stop_component(id, component)?;
                self.settle(id)
            }
            None => Ok(()),
        }
    }

    pub(super) fn remove_pods(&mut self, id: &HostId) -> Outcome<()> {
        for component in Component::ALL {
            self.stop_component(id, component)?;
        }
        self.host(id)?.containers.clear();
        self.settle(id)
    }

    pub(super) fn containers(&mut self, id: &HostId) -> Outcome<Vec<ContainerFacts>> {
        let host = self.host(id)?;
        let facts = host.containers.iter().map(|(component, container)| ContainerFacts {
            id: container.id.clone(),
            sandbox_id: container.sandbox.clone(),
            name: component.name().into(),
            pod: format!("{component}-{}", host.hostname),
            running: container.running,
            attempt: 0,
            exit_code: (!container.running).then_some(1),
            reason: if container.running { String::new() } else { "Error".into() },
            started_ms: 1,
            finished_ms: i64::from(!container.running),
            log_path: HostPath::from(format!("/var/log/pods/{component}/0.log")),
        });
        Ok(facts.collect())
    }

    /// A container that ran when the world was made.
    pub(super) fn found_running(&mut self, id: &HostId, component: Component) -> Outcome<()> {
        let manifest = self.host(id)?.manifests().into_iter().find(|m| m.component == component);
        let container = Container {
            id: self.made("container"),
            sandbox: self.made("sandbox"),
            running: true,
            manifest_sha256: manifest.as_ref().map(|m| m.sha256.clone()).unwrap_or_default(),
        };
        if let Some(manifest) = manifest {
            self.launch(id, component, &manifest.command)?;
        }
        self.host(id)?.containers.insert(component, container);
        Ok(())
    }

    pub(super) fn unit(&mut self, id: &HostId, name: &str) -> Outcome<UnitFacts> {
        let host = self.host(id)?;
        let Some(unit) = host.units.get(name) else {
            return Ok(UnitFacts {
                load_state: "not-found".into(),
                active_state: "inactive".into(),
                ..UnitFacts::default()
            });
        };
        let (active, sub) = match (unit.active, unit.failed) {
            (true, _) => ("active", "running"),
            (false, true) => ("failed", "failed"),
            (false, false) => ("inactive", "dead"),
        };
        Ok(UnitFacts {
            load_state: "loaded".into(),
            active_state: active.into(),
            sub_state: sub.into(),
            result: if unit.failed { "exit-code".into() } else { "success".into() },
            fragment_path: unit.fragment.clone(),
            exec_start: unit.exec_start.clone(),
            ..UnitFacts::default()
        })
    }

    pub(super) fn unit_action(&mut self, id: &HostId, name: &str, action: UnitAction) -> Outcome<()> {
        let host = self.host(id)?;
        if action == UnitAction::Reload {
            host.reload();
            return Ok(());
        }
        let unit = host.units.get(name).cloned();
        let unit = unit.ok_or_else(|| Fault::not_found(format!("unit {name} not found")))?;
        if matches!(action, UnitAction::Stop | UnitAction::Kill | UnitAction::Restart) {
            self.set_unit(id, name, false, false)?;
        }
        if matches!(action, UnitAction::Start | UnitAction::Restart) && !self.host(id)?.unit_active(name) {
            self.start_unit(id, name, &unit)?;
        }
        Ok(())
    }

    pub(super) fn start_unit(&mut self, id: &HostId, name: &str, unit: &Unit) -> Outcome<()> {
        if let Some(component) = component_of(name)
            && let Err(fault) = self.launch(id, component, &unit.exec_start)
        {
            self.set_unit(id, name, false, true)?;
            return Err(Fault::failed(format!("start {name}: {}", fault.what)));
        }
        self.set_unit(id, name, true, false)?;
        if name == KUBELET { self.settle(id) } else { Ok(()) }
    }

    fn set_unit(&mut self, id: &HostId, name: &str, active: bool, failed: bool) -> Outcome<()> {
        let host = self.host(id)?;
        if let Some(unit) = host.units.get_mut(name) {
            (unit.active, unit.failed) = (active, failed);
        }
        if component_of(name) == Some(Component::Etcd) && !active {
            host.etcd = None;
        }
        Ok(())
    }
}

pub(super) fn component_of(unit: &str) -> Option<Component> {
    Component::ALL.into_iter().find(|c| unit == format!("{c}.service"))
}

/// A path of a host under its root.
pub(super) fn under(root: &Utf8Path, path: &HostPath) -> Utf8PathBuf {
    root.join(path.as_str().trim_start_matches('/'))
}
