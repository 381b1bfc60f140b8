//! Steps that several roads share: stopping and starting a control plane, manifests, settings, waits.

use crate::build::Steps;
use crate::manifest::{EtcdEdit, edit_manifest};
use crate::paths::{aside_in, parked_dir};
use crate::survey::{Context, Member, kubelet_unit};
use crate::unit::edit_unit_files;
use crate::words::and_list;
use rekindle_model::diagnosis::ComponentVerdict;
use rekindle_model::etcd::{EtcdConfig, EtcdDefinition};
use rekindle_model::host::{Component, HostFacts, Layout, ManifestFacts};
use rekindle_model::plan::Phase;
use rekindle_model::step::{Reversibility, Step};
use rekindle_model::{HostId, HostPath};

/// The three that talk to the API, without etcd, in the order they are started.
pub(crate) const CLIENTS: [Component; 3] =
    [Component::KubeApiserver, Component::KubeControllerManager, Component::KubeScheduler];

/// The manifests of API server, controller-manager and scheduler that are in place.
pub(crate) fn client_manifests(host: &HostFacts) -> Vec<(Component, &ManifestFacts)> {
    CLIENTS.iter().filter_map(|c| Some((*c, host.manifest(*c)?))).collect()
}

/// Where a manifest in place is parked.
pub(crate) fn parked(context: &Context<'_>, host: &HostFacts, manifest: &ManifestFacts) -> HostPath {
    let name = manifest.path.file_name().unwrap_or("manifest.yaml");
    parked_dir(&host.manifest_dir, &context.goal.run_id).join(name)
}

/// Stops the clients of etcd on a host: API server, controller-manager, scheduler. With static pods kubelet is stopped
/// first and the manifests are parked, so that nothing starts them again.
pub(crate) fn add_stop_clients(context: &Context<'_>, steps: &mut Steps, host: &HostFacts) {
    let id = Some(&host.id);
    if host.layout == Layout::Units {
        for component in CLIENTS {
            if let Some(unit) = host.unit_of(component) {
                add_stop_unit(steps, &host.id, unit, true);
            }
        }
        return;
    }
    add_stop_unit(steps, &host.id, kubelet_unit(host), false);
    for (component, manifest) in client_manifests(host) {
        add_repair(context, steps, host, component, Phase::Stop);
        let step = Step::Rename {
            from: manifest.path.clone(),
            to: parked(context, host, manifest),
            optional: false,
        };
        let summary = format!("park the manifest of {component}, so that it stays stopped");
        steps.add(id, Phase::Stop, Reversibility::Reversible, summary, step);
    }
}

/// Starts the clients of etcd on a host again: the API server comes `first`, the others once it serves. Until then they
/// could only wait for it, and would take processor time from its start.
pub(crate) fn add_start_clients(
    context: &Context<'_>,
    steps: &mut Steps,
    host: &HostFacts,
    first: bool,
    reversibility: Reversibility,
) {
    for component in CLIENTS.into_iter().filter(|c| (*c == Component::KubeApiserver) == first) {
        if host.layout == Layout::Units {
            if let Some(unit) = host.unit_of(component) {
                add_start_unit(steps, &host.id, unit, false, reversibility);
            }
        } else if let Some(manifest) = host.manifest(component) {
            let summary = format!("put the manifest of {component} back");
            let (from, to) = (parked(context, host, manifest), manifest.path.clone());
            let step = Step::Rename { from, to, optional: false };
            steps.add(Some(&host.id), Phase::Start, reversibility, summary, step);
        } else {
            add_found_manifest(context, steps, host, component, Phase::Start, reversibility);
        }
    }
}

/// Puts a broken manifest's repaired text in place, when the diagnosis has one.
pub(crate) fn add_repair(
    context: &Context<'_>,
    steps: &mut Steps,
    host: &HostFacts,
    component: Component,
    phase: Phase,
) {
    let verdict = context.diagnosis.components.get(&host.id).and_then(|c| c.get(&component));
    let Some(ComponentVerdict::ManifestBroken { path, sha256, repaired, repair }) = verdict else { return };
    let step = Step::ReplaceFile {
        path: path.clone(),
        old_sha256: Some(sha256.clone()),
        text: repaired.clone(),
        aside: aside_of_manifest(context, host, path),
        mode: MANIFEST_MODE,
    };
    let summary = format!("repair the manifest of {component}: {repair}");
    steps.add(Some(&host.id), phase, Reversibility::Reversible, summary, step);
}

/// Puts the copy of a manifest that is not in place where it belongs, when the diagnosis found one. The copy stays where
/// it is: it may lie on another file system.
pub(crate) fn add_found_manifest(
    context: &Context<'_>,
    steps: &mut Steps,
    host: &HostFacts,
    component: Component,
    phase: Phase,
    reversibility: Reversibility,
) {
    let verdict = context.diagnosis.components.get(&host.id).and_then(|c| c.get(&component));
    let Some(ComponentVerdict::ManifestMoved { found, belongs }) = verdict else { return };
    let known = host.manifests.known().into_iter().flatten();
    let Some(copy) = known.into_iter().find(|m| &m.path == found) else { return };
    let step = Step::ReplaceFile {
        path: belongs.clone(),
        old_sha256: None,
        text: copy.text.clone(),
        aside: aside_of_manifest(context, host, belongs),
        mode: MANIFEST_MODE,
    };
    let summary = format!("put the manifest of {component} back, as found in {found}");
    steps.add(Some(&host.id), phase, reversibility, summary, step);
}

/// Mode of a manifest, as kubeadm writes it.
pub(crate) const MANIFEST_MODE: u32 = 0o600;

/// Where the old version of a replaced manifest goes.
pub(crate) fn aside_of_manifest(context: &Context<'_>, host: &HostFacts, path: &HostPath) -> HostPath {
    let name = path.file_name().unwrap_or("manifest.yaml");
    parked_dir(&host.manifest_dir, &context.goal.run_id).join(format!("old-{name}"))
}

/// Stops a unit; `kill` when what it runs needs no grace.
pub(crate) fn add_stop_unit(steps: &mut Steps, host: &HostId, unit: &str, kill: bool) {
    let step = Step::StopUnit { unit: unit.to_owned(), kill };
    steps.add(Some(host), Phase::Stop, Reversibility::Compensated, format!("stop {unit}"), step);
}

/// Starts a unit.
pub(crate) fn add_start_unit(
    steps: &mut Steps,
    host: &HostId,
    unit: &str,
    reload: bool,
    reversibility: Reversibility,
) {
    let step = Step::StartUnit { unit: unit.to_owned(), reload };
    steps.add(Some(host), Phase::Start, reversibility, format!("start {unit}"), step);
}

/// Stops containers through CRI, at once.
pub(crate) fn add_stop_containers(steps: &mut Steps, host: &HostId, components: &[Component]) {
    let names: Vec<String> = components.iter().map(ToString::to_string).collect();
    let summary = format!("stop the containers of {} at once", and_list(&names));
    let step = Step::StopContainers { components: components.to_vec() };
    steps.add(Some(host), Phase::Stop, Reversibility::Compensated, summary, step);
}

/// Writes the new settings into the files a member's etcd is started from. Returns whether a unit file changed.
///
/// # Errors
/// A sentence naming host and file when a text is not understood.
pub(crate) fn add_settings(
    context: &Context<'_>,
    steps: &mut Steps,
    member: &Member<'_>,
    edit: &EtcdEdit,
) -> Result<bool, String> {
    match &member.config.defined_in {
        EtcdDefinition::Manifest(_) => {
            let step = manifest_settings(context, member.host, edit)?;
            if let Some(step) = step {
                let summary = "write all members and `existing` into etcd's manifest";
                steps.add(Some(&member.host.id), Phase::Restore, Reversibility::Reversible, summary, step);
            }
            Ok(false)
        }
        EtcdDefinition::Unit { files, .. } => {
            let mut texts = Vec::new();
            for path in files {
                let file = member
                    .host
                    .unit_files
                    .get(path)
                    .and_then(|f| f.known())
                    .ok_or_else(|| format!("the text of {path} on {} was not read", member.host.id))?;
                texts.push((path, file));
            }
            let changed = edit_unit_files(&texts, edit)
                .map_err(|why| format!("etcd's settings on {} can't be edited: {why}", member.host.id))?;
            for (path, text) in &changed {
                let Some((_, file)) = texts.iter().find(|(p, _)| *p == path) else { continue };
                let folder = path.parent().unwrap_or(path);
                let step = Step::ReplaceFile {
                    path: path.clone(),
                    old_sha256: Some(file.sha256.clone()),
                    text: text.clone(),
                    aside: aside_in(folder, &context.goal.run_id).join(path.file_name().unwrap_or("unit")),
                    mode: file.mode,
                };
                let summary = format!("write all members and `existing` into {path}");
                steps.add(Some(&member.host.id), Phase::Restore, Reversibility::Reversible, summary, step);
            }
            Ok(!changed.is_empty())
        }
    }
}

/// The step that puts the edited etcd manifest in place; none when it says all of it already.
fn manifest_settings(
    context: &Context<'_>,
    host: &HostFacts,
    edit: &EtcdEdit,
) -> Result<Option<Step>, String> {
    let known = host.manifests.known().map(Vec::as_slice).unwrap_or_default();
    let in_place = host.manifest(Component::Etcd);
    let repaired = match context.diagnosis.components.get(&host.id).and_then(|c| c.get(&Component::Etcd)) {
        Some(ComponentVerdict::ManifestBroken { path, repaired, .. }) => Some((path, repaired)),
        _ => None,
    };
    // The manifest in place, else a copy found elsewhere; a text that does not parse starts nothing.
    let mut copies =
        in_place.into_iter().chain(known.iter().filter(|m| m.component == Some(Component::Etcd)));
    let copy = copies.find(|m| m.parse_error.is_none()).map(|m| (&m.path, &m.text));
    let (from, old_text) = repaired
        .or(copy)
        .ok_or_else(|| format!("no manifest of etcd that parses was found on {}", host.id))?;
    let text = edit_manifest(old_text, edit)
        .map_err(|why| format!("{from} on {} can't be edited: {why}", host.id))?;
    if in_place.is_some_and(|m| m.text == text) {
        return Ok(None);
    }
    let path = in_place.map_or_else(|| host.manifest_dir.join("etcd.yaml"), |m| m.path.clone());
    Ok(Some(Step::ReplaceFile {
        aside: aside_of_manifest(context, host, &path),
        path,
        old_sha256: in_place.map(|m| m.sha256.clone()),
        text,
        mode: MANIFEST_MODE,
    }))
}

/// Waits until a member answers its peers, before the next one is started.
pub(crate) fn add_wait_peers_served(steps: &mut Steps, host: &HostId, config: &EtcdConfig) {
    let summary = format!("wait until member {} answers its peers", config.name);
    let step = Step::WaitPeersServed { endpoint: config.peer_endpoint.clone() };
    steps.add(Some(host), Phase::Start, Reversibility::Reversible, summary, step);
}

/// Waits for a component's health on a host.
pub(crate) fn add_wait_component(steps: &mut Steps, host: &HostId, component: Component) {
    let summary = format!("wait until {component} is healthy");
    steps.add(
        Some(host),
        Phase::Verify,
        Reversibility::Reversible,
        summary,
        Step::WaitComponent { component },
    );
}

/// Waits for the nodes.
pub(crate) fn add_wait_nodes(steps: &mut Steps, host: &HostId, except: Vec<String>) {
    let summary = if except.is_empty() {
        "wait until all nodes are Ready with renewed leases".to_owned()
    } else {
        format!("wait until all nodes but {} are Ready with renewed leases", and_list(&except))
    };
    let step = Step::WaitNodes { except, timeout_seconds: 300 };
    steps.add(Some(host), Phase::Verify, Reversibility::Reversible, summary, step);
}

/// Whether an API server runs (or ran) on a host.
pub(crate) fn has_api_server(host: &HostFacts) -> bool {
    match host.layout {
        Layout::Units => host.unit_of(Component::KubeApiserver).is_some(),
        Layout::StaticPods | Layout::None => host
            .manifests
            .known()
            .is_some_and(|all| all.iter().any(|m| m.component == Some(Component::KubeApiserver))),
    }
}
