//! Where things may be moved: on their own file system, out of folders that are watched, and back again.

use super::{View, named};
use rekindle_model::HostPath;
use rekindle_model::host::{Component, HostFacts};
use rekindle_model::plan::PlannedStep;
use rekindle_model::step::Step;

/// A rename stays on its folder's file system, and no name is used twice.
pub(super) fn renames(view: &View<'_>, notes: &mut Vec<String>) {
    let mut targets: Vec<(&PlannedStep, &HostPath)> = Vec::new();
    for step in view.steps() {
        let (from, to) = match &step.step {
            Step::Rename { from, to, .. } => (from, to),
            Step::ReplaceFile { path, aside, old_sha256: Some(_), .. } => (path, aside),
            _ => continue,
        };
        if let Some(host) = view.host(step) {
            if let Some(why) = leaves_file_system(host, from, to) {
                notes.push(format!("{} may leave its file system: {why}", named(step)));
            }
            if matches!(step.step, Step::ReplaceFile { .. }) && to.starts_with(&host.manifest_dir.0) {
                notes.push(format!("{} keeps the old file where kubelet reads it", named(step)));
            }
        }
        if targets.iter().any(|(other, name)| other.host == step.host && *name == to) {
            notes.push(format!("{} moves to {to}, as another step does", named(step)));
        }
        targets.push((step, to));
    }
}

/// Why a rename may cross file systems: out of or into a mount point, or between folders seen on different devices.
fn leaves_file_system(host: &HostFacts, from: &HostPath, to: &HostPath) -> Option<String> {
    if let (Some(config), Some(data)) = (host.etcd_config.known(), host.etcd_data.known()) {
        let inside = |path: &HostPath| path.starts_with(&config.data_dir.0);
        if data.is_mount_point && inside(from) != inside(to) {
            return Some(format!("{} is a mount point", config.data_dir));
        }
    }
    let (a, b) = (device(host, from)?, device(host, to)?);
    (a != b).then(|| format!("{from} and {to} were seen on different devices"))
}

/// The device a path's folder was seen on; a folder further up may lie on another one.
fn device(host: &HostFacts, path: &HostPath) -> Option<u64> {
    Some(host.disks.get(&HostPath::from(path.parent()?))?.known()?.device)
}

/// Exactly the manifests that were parked are put back; a manifest that was not in place comes from its copy.
pub(super) fn parked_come_back(view: &View<'_>, notes: &mut Vec<String>) {
    let mut parked: Vec<(&PlannedStep, &HostPath, &HostPath)> = Vec::new();
    for step in view.steps() {
        let Some(host) = view.host(step) else { continue };
        let inside = |path: &HostPath| path.parent() == Some(host.manifest_dir.0.as_path());
        match &step.step {
            Step::Rename { from, to, .. } if inside(from) => {
                if to.starts_with(&host.manifest_dir.0) {
                    notes.push(format!("{} parks a manifest where kubelet reads it", named(step)));
                }
                parked.push((step, from, to));
            }
            Step::Rename { from, to, .. } if inside(to) => {
                let at = parked
                    .iter()
                    .position(|(p, home, away)| p.host == step.host && *home == to && *away == from);
                match at {
                    Some(at) => drop(parked.remove(at)),
                    None => notes.push(format!("{} puts back a manifest that was not parked", named(step))),
                }
            }
            Step::ReplaceFile { path, old_sha256: None, .. } if inside(path) && in_place(host, path) => {
                notes.push(format!("{} writes {path} as a new file, but it is there", named(step)));
            }
            _ => {}
        }
    }
    for (step, home, _) in parked {
        notes.push(format!("{home}, parked by {}, is never put back", named(step)));
    }
    clients_complete(view, notes);
}

fn in_place(host: &HostFacts, path: &HostPath) -> bool {
    host.manifests.known().is_some_and(|all| all.iter().any(|m| m.in_place && &m.path == path))
}

/// After a restore with static pods every client's manifest stays parked until the proofs: none may be forgotten.
fn clients_complete(view: &View<'_>, notes: &mut Vec<String>) {
    for member in view.built().iter().flat_map(|b| b.members) {
        let Some(host) = view.inventory.host(&member.host) else { continue };
        for component in
            [Component::KubeApiserver, Component::KubeControllerManager, Component::KubeScheduler]
        {
            let Some(manifest) = host.manifest(component) else { continue };
            let is_parked = view.steps().any(|s| {
                s.host.as_ref() == Some(&host.id)
                    && matches!(&s.step, Step::Rename { from, .. } if from == &manifest.path)
            });
            if !is_parked {
                notes.push(format!(
                    "the manifest of {component} on {} is not parked during the restore",
                    host.id
                ));
            }
        }
    }
}
