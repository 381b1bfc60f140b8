//! `ChangeObject`, `DeleteObject`, `WaitGone`, `WaitCondition`.

use super::super::context::{Ctx, Polled, field, outputs};
use super::{EVERY, fence, get, list, saved, text};
use crate::error::StepError;
use rekindle_model::event::Outputs;
use rekindle_model::kube::{Change, ObjectRef, change};
use rekindle_world::ClusterError;
use rekindle_world::cluster::{Method, Sent};
use serde_json::{Value, json};
use std::time::Duration;

/// How often a change is tried anew because somebody else changed the object in between.
const TRIES: u32 = 10;

/// Reads the object: what of the changes is so already must not be undone.
pub(in super::super) async fn before_change(
    ctx: &Ctx<'_>,
    object: &ObjectRef,
    changes: &[Change],
) -> Result<Outputs, StepError> {
    let present = present(ctx, object).await?;
    saved::save(ctx, &present)?;
    let made: Vec<bool> = changes.iter().map(|change| change.is_made(&present)).collect();
    Ok(outputs! { "madeBefore" => made, "uid" => object.uid })
}

pub(in super::super) async fn change(
    ctx: &Ctx<'_>,
    object: &ObjectRef,
    changes: &[Change],
) -> Result<Outputs, StepError> {
    fence::before_taint(ctx, object, changes).await?;
    match edit(ctx, object, changes).await? {
        Edited::Gone if was_deleting(ctx)? => Ok(outputs! { "gone" => true, "saved" => saved::file(ctx) }),
        Edited::Gone => Err(StepError::Moved(format!("{object} is gone"))),
        Edited::Done => Ok(outputs! { "saved" => saved::file(ctx) }),
    }
}

/// Takes back what was not so before.
pub(in super::super) async fn undo_change(
    ctx: &Ctx<'_>,
    object: &ObjectRef,
    changes: &[Change],
) -> Result<(), StepError> {
    let made_before: Vec<bool> = field(&ctx.before, "madeBefore").unwrap_or_default();
    if made_before.len() != changes.len() {
        return Ok(()); // it was never begun
    }
    let own = changes.iter().zip(made_before).filter(|(change, before)| !before || change.is_guard());
    let inverse: Vec<Change> = own.map(|(change, _)| change.inverse()).collect();
    // a finalizer is what kept the object: without it, it went
    let let_go = changes.iter().any(
        |change| matches!(change, Change::RemoveItem { pointer, .. } if pointer == "/metadata/finalizers"),
    );
    match edit(ctx, object, &inverse).await? {
        Edited::Gone if let_go => saved::make_again(ctx, object).await,
        // Gone by another hand: nothing of this step is left to take back.
        Edited::Gone | Edited::Done => Ok(()),
    }
}

enum Edited {
    Done,
    Gone,
}

/// Makes changes on the object as it is now, again when somebody was faster.
async fn edit(ctx: &Ctx<'_>, object: &ObjectRef, changes: &[Change]) -> Result<Edited, StepError> {
    let cluster = ctx.cluster()?;
    let mut last = None;
    for _ in 0..TRIES {
        let Some(present) = get(cluster, object).await? else { return Ok(Edited::Gone) };
        let patch = change::patch(&present, changes);
        let Some(patch) = patch.map_err(|why| StepError::Moved(format!("{object}: {why}")))? else {
            return Ok(Edited::Done);
        };
        match cluster.send(&Method::PATCH, &object.path(), Sent::JsonPatch(&patch)).await {
            Ok(_) => return Ok(Edited::Done),
            Err(error) if error.status() == Some(404) => return Ok(Edited::Gone),
            // 422: the patch's own test failed, the object has another version by now
            Err(error) if is_conflict(&error) => last = Some(error),
            Err(error) => return Err(error.into()),
        }
        ctx.interrupt.sleep(EVERY).await?;
    }
    Err(last.map_or_else(|| StepError::Moved(format!("{object} keeps changing")), StepError::from))
}

fn is_conflict(error: &ClusterError) -> bool {
    match error {
        ClusterError::Refused { status: 409, .. } => true,
        ClusterError::Refused { status: 422, message, .. } => message.contains("test"),
        _ => false,
    }
}

/// Whether the object was being deleted when it was saved: then its going was what somebody wanted.
fn was_deleting(ctx: &Ctx<'_>) -> Result<bool, StepError> {
    Ok(saved::load(ctx)?.is_some_and(|saved| !text(&saved, "/metadata/deletionTimestamp").is_empty()))
}

async fn present(ctx: &Ctx<'_>, object: &ObjectRef) -> Result<Value, StepError> {
    let found = get(ctx.cluster()?, object).await?;
    found.ok_or_else(|| StepError::Moved(format!("{object} is gone, or another one has its name")))
}

/// Saves the object; gone already is fine.
pub(in super::super) async fn before_delete(ctx: &Ctx<'_>, object: &ObjectRef) -> Result<Outputs, StepError> {
    match get(ctx.cluster()?, object).await? {
        Some(present) => {
            saved::save(ctx, &present)?;
            Ok(outputs! { "there" => true })
        }
        None => Ok(outputs! { "there" => false }),
    }
}

pub(in super::super) async fn delete(
    ctx: &Ctx<'_>,
    object: &ObjectRef,
    grace_period_seconds: Option<u64>,
) -> Result<Outputs, StepError> {
    let cluster = ctx.cluster()?;
    let mut options = json!({"apiVersion": "v1", "kind": "DeleteOptions",
        "preconditions": {"uid": object.uid}, "propagationPolicy": "Background"});
    if let (Some(seconds), Some(map)) = (grace_period_seconds, options.as_object_mut()) {
        map.insert("gracePeriodSeconds".into(), seconds.into());
    }
    match cluster.send(&Method::DELETE, &object.path(), Sent::Object(&options)).await {
        Ok(_) => Ok(outputs! { "saved" => saved::file(ctx) }),
        Err(error) if error.status() == Some(404) => Ok(outputs! { "saved" => saved::file(ctx) }),
        // the UID did not match: the object is gone, and another one has its name
        Err(error) if error.status() == Some(409) && get(cluster, object).await?.is_none() => {
            Ok(Outputs::new())
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes a deleted object again, if it was there before this step.
pub(in super::super) async fn put_back(ctx: &Ctx<'_>, object: &ObjectRef) -> Result<(), StepError> {
    if field::<bool>(&ctx.before, "there") != Some(true) || get(ctx.cluster()?, object).await?.is_some() {
        return Ok(());
    }
    saved::make_again(ctx, object).await
}

pub(in super::super) async fn wait_gone(
    ctx: &Ctx<'_>,
    object: &ObjectRef,
    timeout_seconds: u64,
) -> Result<Outputs, StepError> {
    let cluster = ctx.cluster()?;
    let timeout = Duration::from_secs(timeout_seconds);
    let look = || async {
        Ok(match get(cluster, object).await? {
            None => Polled::Ready(outputs! { "gone" => object.full_name() }),
            Some(present) => Polled::Pending(holding(&present)),
        })
    };
    ctx.poll(&format!("{object} to go"), EVERY, timeout, look).await
}

/// What an object says of why it is still there.
fn holding(object: &Value) -> String {
    let mut said: Vec<String> = list(object, "/metadata/finalizers")
        .iter()
        .chain(list(object, "/spec/finalizers"))
        .filter_map(Value::as_str)
        .map(|finalizer| format!("finalizer {finalizer}"))
        .collect();
    for condition in list(object, "/status/conditions") {
        if text(condition, "/status") == "True" && !text(condition, "/message").is_empty() {
            said.push(text(condition, "/message").to_owned());
        }
    }
    if said.is_empty() { "nothing tells what holds it".into() } else { said.join("; ") }
}

pub(in super::super) async fn wait_condition(
    ctx: &Ctx<'_>,
    object: &ObjectRef,
    kind: &str,
    status: &str,
    timeout_seconds: u64,
) -> Result<Outputs, StepError> {
    let cluster = ctx.cluster()?;
    let timeout = Duration::from_secs(timeout_seconds);
    let look = || async {
        let Some(present) = get(cluster, object).await? else {
            return Err(StepError::Moved(format!("{object} is gone")));
        };
        let found = list(&present, "/status/conditions").iter().find(|one| text(one, "/type") == kind);
        Ok(match found {
            Some(one) if text(one, "/status") == status => {
                Polled::Ready(outputs! { "condition" => format!("{kind}={status}") })
            }
            Some(one) => {
                Polled::Pending(format!("{kind}={}: {}", text(one, "/status"), text(one, "/message")))
            }
            None => Polled::Pending(format!("no condition {kind}")),
        })
    };
    ctx.poll(&format!("{object} to be {kind}={status}"), EVERY, timeout, look).await
}
