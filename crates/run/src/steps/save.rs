//! `SaveServed`, `SaveOpenDb`, `SaveStore`: what still holds data is copied to the machine Rekindle runs on and verified
//! there, before anything is stopped.

use super::context::{Ctx, blocking, outputs, parent_of};
use crate::error::StepError;
use camino::Utf8Path;
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy, Verified, VerifyOptions};
use rekindle_model::HostPath;
use rekindle_model::etcd::EtcdEndpoint;
use rekindle_model::event::Outputs;
use rekindle_world::Progress;

/// Counts keys by resource, with the prefix API servers use unless told otherwise.
pub(super) fn resource(key: &[u8]) -> &str {
    kube_storage::resource_of(key, kube_storage::keys::DEFAULT_PREFIX)
}

/// Verifies a db file on the machine Rekindle runs on: sha256, structure, rows, HashKV.
pub(super) async fn verify(
    file: &Utf8Path,
    trailer: bool,
    progress: Progress,
) -> Result<Verified, StepError> {
    let path = file.to_owned();
    blocking(move || {
        let failed =
            |source| StepError::Disk { doing: "verify", path: path.clone(), source: Box::new(source) };
        let policy = if trailer { TrailerPolicy::Required } else { TrailerPolicy::Skip };
        let options = VerifyOptions { group: Some(&resource), ..VerifyOptions::default() };
        let snapshot = SnapshotFile::open(path.as_std_path(), policy).map_err(failed)?;
        snapshot.verify(&options, &mut |done, total| progress(done, total)).map_err(failed)
    })
    .await
}

pub(super) async fn served(
    ctx: &Ctx<'_>,
    endpoint: &EtcdEndpoint,
    file: &HostPath,
    min_revision: i64,
) -> Result<Outputs, StepError> {
    if let Some(done) = saved_already(ctx, file, true, min_revision).await {
        return Ok(done);
    }
    let scratch = scratch_file(ctx, file);
    ctx.host.make_dir(&ctx.scratch(), 0o700).await?;
    let saved = ctx.host.etcd_snapshot(endpoint, &scratch).await?;
    fetch(ctx, &scratch, file, saved.has_trailer, Some(&saved.sha256), min_revision).await
}

pub(super) async fn open_db(
    ctx: &Ctx<'_>,
    pid: u32,
    start_ticks: u64,
    fd: u32,
    file: &HostPath,
) -> Result<Outputs, StepError> {
    if let Some(done) = saved_already(ctx, file, false, 0).await {
        return Ok(done);
    }
    let scratch = scratch_file(ctx, file);
    ctx.host.make_dir(&ctx.scratch(), 0o700).await?;
    let saved = ctx.host.save_open_file(pid, start_ticks, fd, &scratch).await?;
    fetch(ctx, &scratch, file, saved.has_trailer, Some(&saved.sha256), 0).await
}

pub(super) async fn store(
    ctx: &Ctx<'_>,
    data_dir: &HostPath,
    wal_dir: Option<&HostPath>,
    file: &HostPath,
    min_revision: i64,
) -> Result<Outputs, StepError> {
    if let Some(done) = saved_already(ctx, file, false, min_revision).await {
        return Ok(done);
    }
    let scratch = scratch_file(ctx, file);
    // What an interrupted replay left is no store: begin anew.
    ctx.host.remove_own_tree(&scratch).await?;
    ctx.host.make_dir(&ctx.scratch(), 0o700).await?;
    let (_, sha256) = ctx.host.replay_store(data_dir, wal_dir, &scratch).await?;
    fetch(ctx, &scratch, file, false, Some(&sha256), min_revision).await
}

/// One name per step: two steps may save from the same host.
fn scratch_file(ctx: &Ctx<'_>, file: &HostPath) -> HostPath {
    ctx.scratch().join(format!("{}-{}", ctx.planned.number, file.file_name().unwrap_or("db")))
}

/// A file that an interrupted run completed: it has its final name only once it is verified.
async fn saved_already(ctx: &Ctx<'_>, file: &HostPath, trailer: bool, min_revision: i64) -> Option<Outputs> {
    if !file.exists() {
        return None;
    }
    let verified = verify(file, trailer, ctx.progress(format!("verify {file}"))).await.ok()?;
    (verified.revision >= min_revision).then(|| told(file, &verified))
}

async fn fetch(
    ctx: &Ctx<'_>,
    scratch: &HostPath,
    file: &HostPath,
    trailer: bool,
    sha256: Option<&str>,
    min_revision: i64,
) -> Result<Outputs, StepError> {
    let folder = parent_of(file)?;
    let part = folder.join(format!("{}.part", file.file_name().unwrap_or("db")));
    let label = format!("{} from {}", file.file_name().unwrap_or("db"), ctx.host_id());
    ctx.host.get_file(scratch, &part, ctx.progress(label)).await?;
    let verified = verify(&part, trailer, ctx.progress(format!("verify {file}"))).await?;
    if sha256.is_some_and(|sum| sum != verified.sha256) {
        return Err(StepError::NotProved(format!("{part} differs from {scratch} on {}", ctx.host_id())));
    }
    if verified.revision < min_revision {
        return Err(StepError::NotProved(format!(
            "{part} holds revision {}, needed is at least {min_revision}",
            verified.revision
        )));
    }
    let named = std::fs::rename(&part, &file.0).and_then(|()| crate::journal::sync_dir(&folder));
    named.map_err(|source| StepError::File { doing: "name", path: file.0.clone(), source })?;
    ctx.host.remove_own_tree(scratch).await?;
    if ctx.host.list(&ctx.scratch()).await?.is_empty() {
        ctx.host.remove_own_tree(&ctx.scratch()).await?;
    }
    Ok(told(file, &verified))
}

fn told(file: &HostPath, verified: &Verified) -> Outputs {
    outputs! {
        "file" => file,
        "sha256" => verified.sha256,
        "hasTrailer" => verified.trailer,
        "bytes" => verified.db_bytes,
        "revision" => verified.revision,
        "compactRevision" => verified.compact_revision,
        "hash" => verified.hash_kv.hash,
        "liveKeys" => verified.live_keys,
        "keysByResource" => verified.groups,
    }
}
