//! Static pod manifests of a host: those kubelet reads, and copies elsewhere that could be put back.

use super::ask::{MAX_TEXT_BYTES, QUICK, text, within};
use super::pod::Pod;
use crate::host::{FileKind, Host, HostError};
use futures::future::join_all;
use rekindle_model::HostPath;
use rekindle_model::host::{Component, ManifestFacts, ProcessFacts};
use serde::Deserialize;

/// The folder kubeadm configures.
const DEFAULT_FOLDER: &str = "/etc/kubernetes/manifests";
const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";
/// Where people and tools put manifests they take away, and how deep to look there.
const OTHER_FOLDERS: [(&str, usize); 4] =
    [("/etc/kubernetes", 3), ("/var/lib/rekindle", 3), ("/root", 1), ("/tmp", 1)];
/// Most files read per folder tree, and most folders listed.
const MAX_FILES: usize = 100;
const MAX_FOLDERS: usize = 100;

/// The manifest folder, from the configuration of the kubelet that runs here or would.
pub(super) async fn folder(host: &dyn Host, kubelet: Option<&ProcessFacts>) -> HostPath {
    #[derive(Deserialize)]
    struct KubeletConfig {
        #[serde(rename = "staticPodPath")]
        path: Option<String>,
    }
    let command = kubelet.map_or(&[] as &[String], |p| &p.command);
    if let Some(path) = crate::words::flag(command, "pod-manifest-path") {
        return HostPath::from(path);
    }
    let config = HostPath::from(crate::words::flag(command, "config").unwrap_or(KUBELET_CONFIG));
    let config =
        text(host, &config).await.ok().and_then(|t| serde_saphyr::from_str::<KubeletConfig>(&t).ok());
    let path = config.and_then(|c| c.path).filter(|p| p.starts_with('/'));
    HostPath::from(path.unwrap_or_else(|| DEFAULT_FOLDER.into()))
}

/// The manifests in the folder, then the copies elsewhere.
///
/// # Errors
/// When the folder is there and can't be listed.
pub(super) async fn find(host: &dyn Host, folder: &HostPath) -> Result<Vec<ManifestFacts>, HostError> {
    let names = match within(host, QUICK, "list manifests", host.list(folder)).await {
        Ok(names) => names,
        Err(error) if error.kind == crate::host::HostErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    // kubelet passes over names that begin with a dot, and takes every other file whatever its ending.
    let names = names.into_iter().filter(|n| !n.starts_with('.')).take(MAX_FILES);
    let mut found = read_all(host, names.map(|n| folder.join(n)).collect(), true).await;
    let copies = join_all(OTHER_FOLDERS.map(|(path, depth)| copies(host, path.into(), depth, folder))).await;
    found.extend(copies.into_iter().flatten());
    Ok(found)
}

/// Manifests of components in a folder tree.
async fn copies(host: &dyn Host, top: HostPath, depth: usize, manifests: &HostPath) -> Vec<ManifestFacts> {
    let mut files = Vec::new();
    let mut level = vec![top];
    let mut listed = 0;
    for remaining in (0..=depth).rev() {
        level.truncate(MAX_FOLDERS.saturating_sub(listed));
        listed += level.len();
        let lists = join_all(level.iter().map(|f| within(host, QUICK, "list", host.list(f)))).await;
        let mut next = Vec::new();
        for (folder, names) in level.iter().zip(lists) {
            for name in names.unwrap_or_default() {
                let path = folder.join(&name);
                if looks_like_manifest(&name) {
                    files.push(path);
                } else if remaining > 0 && could_be_folder(&name) && path != *manifests {
                    next.push(path);
                }
            }
        }
        level = next;
    }
    files.truncate(MAX_FILES);
    let mut found = read_all(host, files, false).await;
    found.retain(|m| m.component.is_some() && m.parse_error.is_none());
    found
}

/// A YAML or JSON file, or any file that has a component's name in its own (`etcd.yaml.bak`).
fn looks_like_manifest(name: &str) -> bool {
    let ending = [".yaml", ".yml", ".json"].iter().any(|e| name.ends_with(e));
    // `etcd` alone is a folder of certificates; a copy of its manifest has an ending.
    ending || (name.contains('.') && Component::ALL.iter().any(|c| name.contains(c.name())))
}

/// Folders that hold manifests are seldom hidden, and never these.
fn could_be_folder(name: &str) -> bool {
    let ours = name.starts_with(".rekindle-");
    let file = [".conf", ".crt", ".key", ".pub", ".log", ".db", ".gz", ".sock", ".jsonl", ".md"];
    ours || (!name.starts_with('.') && name != "pki" && !file.iter().any(|e| name.ends_with(e)))
}

async fn read_all(host: &dyn Host, paths: Vec<HostPath>, in_place: bool) -> Vec<ManifestFacts> {
    join_all(paths.into_iter().map(|p| read(host, p, in_place))).await.into_iter().flatten().collect()
}

async fn read(host: &dyn Host, path: HostPath, in_place: bool) -> Option<ManifestFacts> {
    let stat = within(host, QUICK, "stat", host.stat(&path)).await.ok()??;
    if stat.kind == FileKind::Dir || stat.size_bytes > MAX_TEXT_BYTES {
        return None;
    }
    let text = text(host, &path).await.ok()?;
    let mut facts = ManifestFacts {
        component: None,
        sha256: super::sha256(text.as_bytes()),
        in_place,
        parse_error: None,
        command: Vec::new(),
        modified_ms: stat.modified_ms,
        text,
        path,
    };
    match Pod::parse(&facts.text) {
        Ok(pod) => {
            facts.component = pod.component();
            facts.command = pod.command();
        }
        Err(why) => {
            // Whose manifest it was meant to be, its name tells.
            let stem = facts.path.file_stem();
            facts.component = Component::ALL.into_iter().find(|c| Some(c.name()) == stem);
            facts.parse_error = Some(why);
        }
    }
    Some(facts)
}
