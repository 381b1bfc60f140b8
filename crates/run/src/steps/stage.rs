//! `StageMember`: the restored db and this member's WAL and .snap, on the data dir's own file system and beside it: a full
//! disk is met here, with nothing touched.

use super::context::{Ctx, outputs};
use crate::error::StepError;
use rekindle_model::HostPath;
use rekindle_model::event::Outputs;
use rekindle_model::step::Step;
use rekindle_world::host::{HostErrorKind, Reply, Request};

/// What a fresh member needs beside its db: a WAL segment of 64 MB, and some air.
const ROOM_BYTES: u64 = 96 << 20;

pub(super) async fn stage_member(ctx: &Ctx<'_>) -> Result<Outputs, StepError> {
    let Step::StageMember { db, members, name, token, staging, wal_staging } = &ctx.planned.step else {
        return Err(StepError::Plan("not a StageMember step".into()));
    };
    let size = std::fs::metadata(&db.0).map_err(|source| StepError::File {
        doing: "look at",
        path: db.0.clone(),
        source,
    })?;
    unstage(ctx, staging, wal_staging.as_ref()).await?;
    let base = base_of(staging)?;
    check_room(ctx, &base, size.len() + ROOM_BYTES).await?;
    if let Some(wal_staging) = wal_staging {
        check_room(ctx, &base_of(wal_staging)?, ROOM_BYTES).await?;
        ctx.host.make_dir(&base_of(wal_staging)?, 0o700).await?;
    }
    ctx.host.make_dir(&base, 0o700).await?;
    let there = incoming(&base);
    ctx.host.put_file(db, &there, ctx.progress(format!("db to {}", ctx.host_id()))).await?;
    let request = Request::WriteMember {
        db: there,
        members: members.clone(),
        name: name.clone(),
        token: token.clone(),
        staging: staging.clone(),
        wal_staging: wal_staging.clone(),
    };
    match ctx.host.call(request).await? {
        Reply::Done => Ok(outputs! { "staging" => staging, "bytes" => size.len() }),
        other => Err(StepError::Plan(format!("WriteMember was answered with {other:?}"))),
    }
}

fn incoming(base: &HostPath) -> HostPath {
    base.join("incoming-db")
}

async fn check_room(ctx: &Ctx<'_>, base: &HostPath, need_bytes: u64) -> Result<(), StepError> {
    let disk = ctx.host.disk(base).await?;
    if disk.free_bytes < need_bytes {
        return Err(StepError::NotProved(format!(
            "there is room for the restored member: {need_bytes} bytes are needed for {base}, {} are free",
            disk.free_bytes
        )));
    }
    Ok(())
}

/// The run's own folder a staging folder lies in.
fn base_of(staging: &HostPath) -> Result<HostPath, StepError> {
    let base = staging.parent().filter(|base| {
        base.file_name().is_some_and(|name| name.trim_start_matches('.').starts_with("rekindle-"))
    });
    base.map(HostPath::from).ok_or_else(|| {
        StepError::Plan(format!("staging folder {staging} does not lie in a folder named rekindle-..."))
    })
}

/// Removes the staging folders, and the run's folder around them when nothing else lies in it.
pub(super) async fn unstage(
    ctx: &Ctx<'_>,
    staging: &HostPath,
    wal_staging: Option<&HostPath>,
) -> Result<(), StepError> {
    for folder in std::iter::once(staging).chain(wal_staging) {
        let base = base_of(folder)?;
        ctx.host.remove_own_tree(folder).await?;
        ctx.host.remove_own_tree(&incoming(&base)).await?;
        match ctx.host.list(&base).await {
            Ok(names) if names.is_empty() => ctx.host.remove_own_tree(&base).await?,
            Ok(_) => {}
            Err(error) if error.kind == HostErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
