//! systemd units of a host: which there are, what state they are in, and what an etcd unit runs.

use super::ask::{QUICK, exists, seen, text, within};
use super::settings::Settings;
use super::unit_text::UnitText;
use crate::host::Host;
use camino::Utf8Path;
use futures::future::join_all;
use rekindle_model::host::{Component, TextFile, UnitFacts};
use rekindle_model::{HostPath, Seen};
use std::collections::{BTreeMap, BTreeSet};

/// Where unit files lie, the ones that win first (systemd.unit(5)).
const FOLDERS: [&str; 4] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// Units that are not components but matter.
const SERVICES: [&str; 3] = ["kubelet.service", "containerd.service", "crio.service"];
/// Most units looked at.
const MAX_UNITS: usize = 20;

/// Units by full name.
pub(super) type Units = BTreeMap<String, Seen<UnitFacts>>;

/// The units that matter, by their files, with their state.
pub(super) async fn find(host: &dyn Host) -> Units {
    let folders = FOLDERS.map(HostPath::from);
    let listed = join_all(folders.iter().map(|f| within(host, QUICK, "list units", host.list(f)))).await;
    let mut names: BTreeSet<String> = listed.into_iter().filter_map(Result::ok).flatten().collect();
    names.retain(|name| SERVICES.contains(&name.as_str()) || is_component(name));
    names.insert("kubelet.service".into());
    let asked = names.into_iter().take(MAX_UNITS).map(|name| async move {
        let facts = seen(within(host, QUICK, &format!("unit {name}"), host.unit(&name)).await);
        (name, facts)
    });
    let mut units: Units = join_all(asked).await.into_iter().collect();
    units.retain(|name, facts| !is_other_program(name, facts));
    units
}

fn is_component(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".service") else { return false };
    // A template (`etcd@.service`) is no unit itself.
    !stem.ends_with('@') && (stem.starts_with("etcd") || Component::ALL.iter().any(|c| c.name() == stem))
}

/// `etcd-backup.service` and the like run something else.
fn is_other_program(name: &str, facts: &Seen<UnitFacts>) -> bool {
    let named_like_etcd = name.starts_with("etcd") && name != "etcd.service";
    let program = facts.known().and_then(|f| f.exec_start.first()).and_then(|p| Utf8Path::new(p).file_name());
    named_like_etcd && program != Some("etcd")
}

/// The unit that runs a component, by its name.
pub(super) fn of(units: &Units, component: Component) -> Option<&String> {
    let exact = format!("{component}.service");
    let mut names =
        units.iter().filter(|(_, facts)| facts.known().is_none_or(|f| f.load_state != "not-found"));
    let found = names.clone().find(|(name, _)| **name == exact);
    found
        .or_else(|| names.find(|(name, _)| component == Component::Etcd && name.starts_with("etcd")))
        .map(|(n, _)| n)
}

/// What an etcd unit runs, and the files it comes from.
pub(super) struct EtcdUnit {
    pub(super) settings: Settings,
    /// In the order systemd reads them, a configuration file of etcd last.
    pub(super) files: Vec<HostPath>,
    pub(super) texts: BTreeMap<HostPath, Seen<TextFile>>,
}

/// Reads an etcd unit's texts.
pub(super) async fn etcd(host: &dyn Host, name: &str, facts: Option<&UnitFacts>, hostname: &str) -> EtcdUnit {
    let mut found = EtcdUnit {
        settings: Settings { command: Vec::new(), environment: BTreeMap::new(), file: None },
        files: unit_files(host, name, facts).await,
        texts: BTreeMap::new(),
    };
    let mut unit = UnitText::default();
    for file in found.files.clone() {
        if let Some(content) = found.take(host, &file).await {
            unit.take(&content);
        }
    }
    for file in unit.environment_files.clone() {
        if let Some(content) = found.take(host, &file).await {
            unit.take_environment(&content);
            found.files.push(file);
        }
    }
    (found.settings.command, found.settings.environment) = unit.resolve(hostname);
    if let Some(path) = found.settings.config_file().map(HostPath::from)
        && let Some(content) = found.take(host, &path).await
    {
        found.settings.file = serde_saphyr::from_str(&content).ok();
        found.files.push(path);
    }
    found
}

impl EtcdUnit {
    /// Reads a file and keeps its text.
    async fn take(&mut self, host: &dyn Host, path: &HostPath) -> Option<String> {
        let content = text(host, path).await;
        let mode =
            within(host, QUICK, "stat", host.stat(path)).await.ok().flatten().map_or(0o644, |s| s.mode);
        let file = content.map(|text| TextFile { sha256: super::sha256(text.as_bytes()), text, mode });
        let taken = file.as_ref().ok().map(|f| f.text.clone());
        self.texts.insert(path.clone(), seen(file));
        taken
    }
}

/// The unit file and its drop-ins: as systemd says, else by looking for them.
async fn unit_files(host: &dyn Host, name: &str, facts: Option<&UnitFacts>) -> Vec<HostPath> {
    if let Some(facts) = facts.filter(|f| f.exists()) {
        let drop_ins = facts.drop_in_paths.iter().cloned();
        return std::iter::once(facts.fragment_path.clone()).chain(drop_ins).collect();
    }
    let mut files = Vec::new();
    for folder in FOLDERS.map(HostPath::from) {
        let path = folder.join(name);
        if files.is_empty() && exists(host, &path).await {
            files.push(path);
        }
    }
    for folder in FOLDERS.map(HostPath::from) {
        let drop_ins = folder.join(format!("{name}.d"));
        let names = within(host, QUICK, "list drop-ins", host.list(&drop_ins)).await.unwrap_or_default();
        files.extend(names.iter().filter(|n| n.ends_with(".conf")).map(|n| drop_ins.join(n)));
    }
    files
}
