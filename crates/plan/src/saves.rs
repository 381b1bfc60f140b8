//! Saving what holds data, before anything else.

use crate::build::Steps;
use crate::paths::file_part;
use crate::sources::{host_of, readable};
use crate::survey::Context;
use rekindle_model::host::{Component, HostFacts};
use rekindle_model::plan::Phase;
use rekindle_model::source::SourceKind;
use rekindle_model::step::{Reversibility, Step};
use rekindle_model::{HostId, HostPath};
use std::collections::BTreeMap;

/// The step that saves a candidate that is not a file, and the host it runs on; `stem` names the file in the run folder.
///
/// # Errors
/// A sentence when the inventory does not tell how to reach it.
pub(crate) fn save_step(
    context: &Context<'_>,
    kind: &SourceKind,
    stem: &str,
) -> Result<(HostId, Step), String> {
    let file = context.goal.run_dir.join(format!("{stem}.db"));
    let facts =
        |id: &HostId| context.inventory.host(id).ok_or_else(|| format!("{id} is not among the hosts"));
    let min_revision = context
        .inventory
        .sources
        .iter()
        .find(|s| &s.kind == kind)
        .and_then(|s| s.facts.known())
        .map_or(0, |f| f.revision);
    match kind {
        SourceKind::SnapshotFile(path) => Err(format!("{path} is a file already")),
        SourceKind::Served(id) => {
            let config = facts(id)?.etcd_config.known().ok_or("etcd's settings are not known there")?;
            Ok((id.clone(), Step::SaveServed { endpoint: config.endpoint.clone(), file, min_revision }))
        }
        SourceKind::Store(id) => {
            let config = facts(id)?.etcd_config.known().ok_or("etcd's settings are not known there")?;
            let step = Step::SaveStore {
                data_dir: config.data_dir.clone(),
                wal_dir: config.wal_dir.clone(),
                file,
                min_revision,
            };
            Ok((id.clone(), step))
        }
        SourceKind::OpenDb(id) => {
            let (pid, start_ticks, fd) =
                open_db(facts(id)?).ok_or("no etcd process there holds a deleted db open")?;
            Ok((id.clone(), Step::SaveOpenDb { pid, start_ticks, fd, file }))
        }
    }
}

/// The deleted but open db of an etcd process: process, its start, file descriptor.
pub(crate) fn open_db(host: &HostFacts) -> Option<(u32, u64, u32)> {
    let processes = host.processes.known()?;
    processes.iter().filter(|p| p.name == Component::Etcd.name()).find_map(|p| {
        let file = p.deleted_files.iter().find(|f| f.path.file_name() == Some("db"))?;
        Some((p.pid, p.start_ticks, file.fd))
    })
}

/// Saves every candidate that lies on a host and can be read, and every deleted but open db whether it can or not (it
/// dies with its process). Returns where each candidate, by its place in the inventory, was saved.
pub(crate) fn add_saves(
    context: &Context<'_>,
    steps: &mut Steps,
    wanted: impl Fn(&SourceKind) -> bool,
) -> BTreeMap<usize, HostPath> {
    let mut saved = BTreeMap::new();
    for (index, candidate) in context.inventory.sources.iter().enumerate() {
        let readable = readable(context.inventory, candidate).is_ok();
        let dies = matches!(candidate.kind, SourceKind::OpenDb(_));
        let on_hand = host_of(&candidate.kind).is_some_and(|h| !context.is_lost(h));
        if !on_hand || !(readable || dies) || !wanted(&candidate.kind) {
            continue;
        }
        let stem = save_stem(&candidate.kind, index);
        let Ok((host, step)) = save_step(context, &candidate.kind, &stem) else { continue };
        let summary = format!("save {} before anything is stopped", candidate.kind);
        steps.add(Some(&host), Phase::Save, Reversibility::Reversible, summary, step);
        saved.insert(index, context.goal.run_dir.join(format!("{stem}.db")));
    }
    saved
}

fn save_stem(kind: &SourceKind, index: usize) -> String {
    let (what, host) = match kind {
        SourceKind::SnapshotFile(_) => ("snapshot", String::new()),
        SourceKind::Served(host) => ("served", file_part(&host.0)),
        SourceKind::OpenDb(host) => ("open-db", file_part(&host.0)),
        SourceKind::Store(host) => ("store", file_part(&host.0)),
    };
    format!("saved-{}-{what}-{host}", index + 1)
}
