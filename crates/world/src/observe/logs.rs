//! Last log lines as evidence: journals of units, and the files kubelet keeps of its containers' output.

use super::ask::{QUICK, within};
use super::units::Units;
use crate::host::Host;
use futures::future::join_all;
use rekindle_model::HostPath;
use rekindle_model::host::{Component, ContainerFacts, Layout};
use std::collections::{BTreeMap, BTreeSet};

/// Lines kept of each source.
const LINES: u32 = 50;
/// Bytes read from the end of a container's log.
const TAIL_BYTES: u64 = 32 << 10;
/// Most characters of a line that are kept.
const MAX_LINE_CHARS: usize = 2000;
/// Where kubelet keeps containers' output: `NAMESPACE_POD_UID/CONTAINER/ATTEMPT.log`.
const PODS: &str = "/var/log/pods";

/// Lines by source.
pub(super) async fn read(
    host: &dyn Host,
    units: &Units,
    containers: Option<&[ContainerFacts]>,
    layout: Layout,
) -> BTreeMap<String, Vec<String>> {
    let (journals, files) = tokio::join!(journals(host, units), container_logs(host, containers, layout));
    journals.into_iter().chain(files).filter(|(_, lines)| !lines.is_empty()).collect()
}

async fn journals(host: &dyn Host, units: &Units) -> Vec<(String, Vec<String>)> {
    let there = units.iter().filter(|(_, facts)| facts.known().is_some_and(|f| f.load_state != "not-found"));
    join_all(there.map(|(name, _)| async move {
        let lines = within(host, QUICK, "journal", host.journal(name, LINES)).await.unwrap_or_default();
        (format!("journal:{}", name.strip_suffix(".service").unwrap_or(name)), lines)
    }))
    .await
}

async fn container_logs(
    host: &dyn Host,
    containers: Option<&[ContainerFacts]>,
    layout: Layout,
) -> Vec<(String, Vec<String>)> {
    let paths = match containers {
        Some(containers) => of_containers(containers),
        None if layout == Layout::StaticPods => in_folder(host).await,
        None => BTreeSet::new(),
    };
    join_all(paths.into_iter().map(|path| async move {
        let bytes = within(host, QUICK, "log", host.read_tail(&path, TAIL_BYTES)).await.unwrap_or_default();
        (path.to_string(), last_lines(&bytes))
    }))
    .await
}

/// The newest container of each component, and the newest that exited: that one has the last words.
fn of_containers(containers: &[ContainerFacts]) -> BTreeSet<HostPath> {
    let logs = Component::ALL.into_iter().flat_map(|component| {
        let own = || containers.iter().filter(move |c| c.name == component.name());
        [own().next(), own().find(|c| !c.running)]
    });
    logs.flatten()
        .map(|c| c.log_path.clone())
        .filter(|p| p.as_str() != "/" && !p.as_str().is_empty())
        .collect()
}

/// The runtime does not answer: the newest log of each component's folders.
async fn in_folder(host: &dyn Host) -> BTreeSet<HostPath> {
    let top = HostPath::from(PODS);
    let pods = within(host, QUICK, "list", host.list(&top)).await.unwrap_or_default();
    let mut paths = BTreeSet::new();
    for component in Component::ALL {
        let prefix = format!("kube-system_{component}-");
        for pod in pods.iter().filter(|p| p.starts_with(&prefix)).take(5) {
            let folder = top.join(pod).join(component.name());
            let names = within(host, QUICK, "list", host.list(&folder)).await.unwrap_or_default();
            let number = |name: &String| name.strip_suffix(".log").and_then(|n| n.parse::<u32>().ok());
            paths.extend(
                names.iter().filter_map(|n| Some((number(n)?, n))).max().map(|(_, n)| folder.join(n)),
            );
        }
    }
    paths
}

fn last_lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines: Vec<&str> = text.lines().collect();
    // The tail begins somewhere within a line.
    if bytes.len() as u64 == TAIL_BYTES {
        lines.drain(..1.min(lines.len()));
    }
    let skip = lines.len().saturating_sub(LINES as usize);
    lines.into_iter().skip(skip).map(|l| l.chars().take(MAX_LINE_CHARS).collect()).collect()
}
