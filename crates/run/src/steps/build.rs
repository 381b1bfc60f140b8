//! `BuildDb`: the one database all members will start from, written on the machine Rekindle runs on.

use super::context::{Ctx, blocking, field, outputs, parent_of};
use super::save::{resource, verify};
use super::text::hex;
use crate::error::StepError;
use camino::Utf8Path;
use etcd_disk::restore::{Form, NewCluster, NewMember, RestoreOptions, RestoredDb, write_db};
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy};
use rekindle_model::event::Outputs;
use rekindle_model::step::{self, RestoreForm, SourceFile, Step};
use rekindle_world::Progress;
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

pub(super) async fn build_db(ctx: &Ctx<'_>) -> Result<Outputs, StepError> {
    let Step::BuildDb { source, form, members, token, quota_bytes, allow_corrupt_alarm, file } =
        &ctx.planned.step
    else {
        return Err(StepError::Plan("not a BuildDb step".into()));
    };
    let source_revision = check_source(ctx, source).await?;
    parent_of(file)?;
    match std::fs::remove_file(&file.0) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(StepError::File {
                doing: "remove the unfinished",
                path: file.0.clone(),
                source: error,
            });
        }
        _ => {}
    }
    let job = Job {
        source: source.clone(),
        form: match form {
            RestoreForm::Exact => Form::Exact,
            RestoreForm::Bumped { to_revision } => Form::Bumped { to_revision: *to_revision },
        },
        cluster: new_cluster(token, members).map_err(disk(&source.path))?,
        quota_bytes: *quota_bytes,
        allow_corrupt_alarm: *allow_corrupt_alarm,
        out: file.0.clone(),
    };
    let progress = ctx.progress(format!("restore {}", source.path.file_name().unwrap_or("db")));
    let restored = blocking(move || job.run(&progress)).await?;
    let cleared: Vec<String> =
        restored.cleared_alarms.iter().map(|alarm| format!("{:?}", alarm.kind)).collect();
    Ok(outputs! {
        "file" => file,
        "source" => source.path,
        "sourceRevision" => source_revision,
        "revision" => restored.revision,
        "compactRevision" => restored.hash_kv.compact_revision,
        "hash" => restored.hash_kv.hash,
        "hashRevision" => restored.hash_kv.revision,
        "liveKeys" => readable_keys(&restored.groups),
        "keysByResource" => restored.groups,
        "rows" => restored.rows,
        "bytes" => restored.bytes,
        "clearedAlarms" => cleared,
    })
}

/// Live keys as a client counts them: the empty key that a raised revision writes is in no group, and `Range` never
/// returns it.
fn readable_keys(groups: &BTreeMap<String, u64>) -> u64 {
    groups.values().sum()
}

/// The new cluster as etcd-disk takes it.
fn new_cluster(token: &str, members: &[step::NewMember]) -> etcd_disk::Result<NewCluster> {
    let members = members.iter();
    let members =
        members.map(|m| NewMember { name: m.name.clone(), peer_urls: m.peer_urls.clone() }).collect();
    NewCluster::new(token, members)
}

fn disk(path: &Utf8Path) -> impl Fn(etcd_disk::Error) -> StepError {
    let path = path.to_owned();
    move |source| StepError::Disk { doing: "restore from", path: path.clone(), source: Box::new(source) }
}

struct Job {
    source: SourceFile,
    form: Form,
    cluster: NewCluster,
    quota_bytes: u64,
    allow_corrupt_alarm: bool,
    out: camino::Utf8PathBuf,
}

impl Job {
    fn run(&self, progress: &Progress) -> Result<RestoredDb, StepError> {
        let failed = disk(&self.source.path);
        let policy = if self.source.has_trailer { TrailerPolicy::Required } else { TrailerPolicy::Skip };
        let snapshot = SnapshotFile::open(self.source.path.as_std_path(), policy).map_err(&failed)?;
        let options = RestoreOptions {
            quota_bytes: Some(self.quota_bytes),
            allow_corrupt_alarm: self.allow_corrupt_alarm,
            group: Some(&resource),
            ..RestoreOptions::default()
        };
        let out = self.out.as_std_path();
        write_db(&snapshot, self.form, &self.cluster, &options, out, &mut |done, total| progress(done, total))
            .map_err(failed)
    }
}

/// The source must be the very data the plan was made with, or what an earlier step of this run saved and verified.
/// Returns its revision.
async fn check_source(ctx: &Ctx<'_>, source: &SourceFile) -> Result<i64, StepError> {
    let Some(planned) = &source.sha256 else { return saved_here(ctx, source).await };
    if source.has_trailer {
        // The restore checks the data against the trailer; that the trailer is the planned one is checked here.
        let trailer = trailer_of(&source.path)?;
        if &trailer != planned {
            return Err(changed(source, &trailer, planned));
        }
        let candidates = ctx.plan.candidates.iter().map(|(candidate, _)| candidate);
        let mut same = candidates.filter(|candidate| candidate.sha256.as_ref() == Some(planned));
        let revision = same.find_map(|candidate| candidate.facts.known()).map(|facts| facts.revision);
        return Ok(revision.or(ctx.plan.cost.restored_revision).unwrap_or(source.min_revision));
    }
    let progress = ctx.progress(format!("verify {}", source.path));
    let verified = verify(&source.path, false, progress).await?;
    if &verified.sha256 != planned {
        return Err(changed(source, &verified.sha256, planned));
    }
    Ok(verified.revision)
}

fn changed(source: &SourceFile, seen: &str, planned: &str) -> StepError {
    StepError::Moved(format!("{} has SHA-256 {seen}, the plan was made with {planned}", source.path))
}

/// The outputs of the step that saved this file.
async fn saved_here(ctx: &Ctx<'_>, source: &SourceFile) -> Result<i64, StepError> {
    let saved = ctx.outputs_where(|step| {
        matches!(&step.step, Step::SaveServed { file, .. } | Step::SaveOpenDb { file, .. } | Step::SaveStore { file, .. }
            if *file == source.path)
    });
    let saved = saved.last().ok_or_else(|| {
        StepError::Plan(format!(
            "{} is neither known by its SHA-256 nor saved by an earlier step",
            source.path
        ))
    })?;
    let revision: i64 = field(saved, "revision").unwrap_or_default();
    if revision < source.min_revision {
        return Err(StepError::NotProved(format!(
            "{} holds revision {revision}, needed is at least {}",
            source.path, source.min_revision
        )));
    }
    if let Some(expected) = source.kube_system_uid.clone() {
        let path = source.path.0.clone();
        let found = blocking(move || kube_system_uid(&path)).await?;
        if found != expected {
            return Err(StepError::Moved(format!(
                "{} is of the cluster with kube-system UID {found}, this one has {expected}",
                source.path
            )));
        }
    }
    Ok(revision)
}

fn kube_system_uid(path: &Utf8Path) -> Result<String, StepError> {
    let failed = |source| StepError::Disk { doing: "read", path: path.to_owned(), source: Box::new(source) };
    let snapshot = SnapshotFile::open(path.as_std_path(), TrailerPolicy::Skip).map_err(failed)?;
    let key = kube_storage::kube_system_key(kube_storage::keys::DEFAULT_PREFIX);
    let found = etcd_disk::live::get(snapshot.bolt(), path.as_std_path(), key.as_bytes()).map_err(failed)?;
    let found = found.ok_or_else(|| StepError::Moved(format!("{path} has no namespace kube-system")))?;
    kube_storage::namespace_uid(&found.value)
        .map_err(|fault| StepError::Moved(format!("{path}: the UID of kube-system can't be read: {fault}")))
}

/// The last 32 bytes in hex.
fn trailer_of(path: &Utf8Path) -> Result<String, StepError> {
    let read = || -> std::io::Result<[u8; 32]> {
        let mut file = std::fs::File::open(path)?;
        file.seek(SeekFrom::End(-32))?;
        let mut trailer = [0; 32];
        file.read_exact(&mut trailer)?;
        Ok(trailer)
    };
    let trailer = read().map_err(|source| StepError::File {
        doing: "read the end of",
        path: path.to_owned(),
        source,
    })?;
    Ok(hex(&trailer))
}
