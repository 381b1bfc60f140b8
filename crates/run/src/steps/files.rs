//! `Rename` and `ReplaceFile`: files and folders are moved on their own file system and can be moved back.

use super::context::{Ctx, field, outputs};
use super::text::sha256_hex;
use crate::error::StepError;
use rekindle_model::HostPath;
use rekindle_model::event::Outputs;
use rekindle_world::host::HostErrorKind;

/// Manifests and unit files are small; above this it is not one.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Folders made for what is moved aside hold secrets (etcd's data).
const ASIDE_MODE: u32 = 0o700;

pub(super) async fn before_rename(
    ctx: &Ctx<'_>,
    from: &HostPath,
    to: &HostPath,
    optional: bool,
) -> Result<Outputs, StepError> {
    let from_exists = ctx.host.stat(from).await?.is_some();
    let to_exists = ctx.host.stat(to).await?.is_some();
    match (from_exists, to_exists) {
        (true, true) => Err(StepError::Moved(format!("{to} exists, nothing is renamed over it"))),
        (false, _) if !optional => Err(StepError::Moved(format!("{from} does not exist"))),
        _ => Ok(outputs! { "fromExisted" => from_exists }),
    }
}

pub(super) async fn rename(
    ctx: &Ctx<'_>,
    from: &HostPath,
    to: &HostPath,
    optional: bool,
) -> Result<Outputs, StepError> {
    if field(&ctx.before, "fromExisted") == Some(false) && optional {
        return Ok(outputs! { "moved" => false });
    }
    move_to(ctx, from, to).await?;
    Ok(outputs! { "moved" => true, "from" => from, "to" => to })
}

pub(super) async fn undo_rename(ctx: &Ctx<'_>, from: &HostPath, to: &HostPath) -> Result<(), StepError> {
    // Nothing recorded: it ended before it could act.
    if field(&ctx.before, "fromExisted") != Some(true) {
        return Ok(());
    }
    let there = ctx.host.stat(to).await?.is_some();
    if !there && ctx.host.stat(from).await?.is_some() {
        return Ok(());
    }
    move_to(ctx, to, from).await
}

/// Renames, making the folder it goes to. The seam refuses to replace and takes "done already" for success.
async fn move_to(ctx: &Ctx<'_>, from: &HostPath, to: &HostPath) -> Result<(), StepError> {
    make_parent(ctx, to).await?;
    Ok(ctx.host.rename(from, to).await?)
}

async fn make_parent(ctx: &Ctx<'_>, path: &HostPath) -> Result<(), StepError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    Ok(ctx.host.make_dir(&HostPath::from(parent), ASIDE_MODE).await?)
}

/// SHA-256 (hex) of a file, none when there is no file.
async fn sha256_of(ctx: &Ctx<'_>, path: &HostPath) -> Result<Option<String>, StepError> {
    if ctx.host.stat(path).await?.is_none() {
        return Ok(None);
    }
    match ctx.host.read(path, MAX_FILE_BYTES).await {
        Ok(bytes) => Ok(Some(sha256_hex(&bytes))),
        Err(error) if error.kind == HostErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn before_replace(
    ctx: &Ctx<'_>,
    path: &HostPath,
    old_sha256: Option<&str>,
    text: &str,
) -> Result<Outputs, StepError> {
    let present = sha256_of(ctx, path).await?;
    let same_already = present.as_deref() == Some(&sha256_hex(text.as_bytes()));
    if present.as_deref() != old_sha256 && !same_already {
        return Err(moved(path, present.as_deref(), old_sha256));
    }
    Ok(outputs! { "sha256" => present })
}

fn moved(path: &HostPath, present: Option<&str>, expected: Option<&str>) -> StepError {
    let told = |sum: Option<&str>| sum.map_or_else(|| "no file".to_owned(), |sum| format!("SHA-256 {sum}"));
    StepError::Moved(format!("{path} is {}, expected {}", told(present), told(expected)))
}

/// Old file renamed to `aside`, new one written beside that and renamed in. Cut off in between there is no file at
/// `path`, the old one lies at `aside`, and doing it again (or undoing it) goes on from there.
pub(super) async fn replace(
    ctx: &Ctx<'_>,
    path: &HostPath,
    old_sha256: Option<&str>,
    text: &str,
    aside: &HostPath,
    mode: u32,
) -> Result<Outputs, StepError> {
    let new_sha256 = sha256_hex(text.as_bytes());
    let present = sha256_of(ctx, path).await?;
    let done = outputs! { "sha256" => new_sha256, "path" => path, "aside" => aside };
    if present.as_deref() == Some(&new_sha256) {
        return Ok(done);
    }
    let kept = sha256_of(ctx, aside).await?;
    make_parent(ctx, aside).await?;
    match (present.as_deref(), old_sha256) {
        (Some(present), Some(old)) if present == old => ctx.host.rename(path, aside).await?,
        (None, Some(old)) if kept.as_deref() == Some(old) => {}
        (None, None) => {}
        (present, old) => return Err(moved(path, present, old)),
    }
    make_parent(ctx, path).await?;
    ctx.host.write(path, &beside(aside, "next"), text.as_bytes().to_vec(), mode).await?;
    Ok(done)
}

/// A name beside the file kept aside: never in a manifest folder, where kubelet reads every file.
fn beside(aside: &HostPath, what: &str) -> HostPath {
    HostPath::from(format!("{aside}.{what}"))
}

pub(super) async fn undo_replace(
    ctx: &Ctx<'_>,
    path: &HostPath,
    old_sha256: Option<&str>,
    text: &str,
    aside: &HostPath,
) -> Result<(), StepError> {
    // Nothing recorded: it ended before it could act, and what is there now is not its work.
    if !ctx.before.contains_key("sha256") {
        return Ok(());
    }
    let new_sha256 = sha256_hex(text.as_bytes());
    let present = sha256_of(ctx, path).await?;
    let changed_nothing = old_sha256 == Some(new_sha256.as_str());
    if changed_nothing || present.as_deref() == old_sha256 {
        return Ok(());
    }
    match present.as_deref() {
        Some(present) if present == new_sha256 => {
            let away = beside(aside, "undone");
            make_parent(ctx, &away).await?;
            ctx.host.rename(path, &away).await?;
        }
        None => {}
        other => return Err(moved(path, other, Some(&new_sha256))),
    }
    if old_sha256.is_some() { Ok(ctx.host.rename(aside, path).await?) } else { Ok(()) }
}
