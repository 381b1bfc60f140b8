//! `StopUnit`, `StartUnit`, `StopContainers`: units through systemd, containers through CRI.

use super::context::{Ctx, Polled, field, outputs};
use crate::error::StepError;
use rekindle_model::event::Outputs;
use rekindle_model::host::{Component, ContainerFacts, UnitFacts};
use rekindle_world::host::UnitAction;
use std::time::Duration;

const UNIT_TIMEOUT: Duration = Duration::from_secs(120);
const CONTAINERS_TIMEOUT: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_millis(100);

/// Whether systemd runs it or is about to: what was so before is so again after an undo.
fn wanted(unit: &UnitFacts) -> bool {
    matches!(unit.active_state.as_str(), "active" | "activating" | "reloading")
}

pub(super) async fn before_stop(ctx: &Ctx<'_>, unit: &str) -> Result<Outputs, StepError> {
    let facts = ctx.host.unit(unit).await?;
    if !facts.exists() {
        return Err(StepError::Moved(format!("unit {unit} is {} on {}", facts.load_state, ctx.host_id())));
    }
    Ok(outputs! { "wasActive" => wanted(&facts), "activeState" => facts.active_state })
}

pub(super) async fn stop_unit(ctx: &Ctx<'_>, unit: &str, kill: bool) -> Result<Outputs, StepError> {
    let action = if kill { UnitAction::Kill } else { UnitAction::Stop };
    ctx.host.unit_action(unit, action).await?;
    let what = format!("{unit} to stop");
    ctx.poll(&what, EVERY, UNIT_TIMEOUT, || async {
        let facts = ctx.host.unit(unit).await?;
        Ok(match facts.active_state.as_str() {
            "inactive" | "failed" => Polled::Ready(outputs! { "activeState" => facts.active_state }),
            _ => Polled::Pending(format!("{} ({})", facts.active_state, facts.sub_state)),
        })
    })
    .await
}

pub(super) async fn undo_stop_unit(ctx: &Ctx<'_>, unit: &str) -> Result<(), StepError> {
    if field(&ctx.before, "wasActive") != Some(true) {
        return Ok(());
    }
    // Unit files may have been put back since.
    ctx.host.unit_action(unit, UnitAction::Reload).await?;
    Ok(ctx.host.unit_action(unit, UnitAction::Start).await?)
}

/// Running control-plane containers: those that are not among them later were started through this unit.
pub(super) async fn before_start(ctx: &Ctx<'_>, unit: &str) -> Result<Outputs, StepError> {
    let facts = ctx.host.unit(unit).await?;
    let mut before = outputs! { "wasActive" => wanted(&facts), "activeState" => facts.active_state };
    if runs_containers(unit) {
        let running: Vec<String> = running(ctx, &Component::ALL).await?.into_iter().map(|c| c.id).collect();
        before.extend(outputs! { "running" => running });
    }
    Ok(before)
}

/// The kubelet's containers go on when it stops.
fn runs_containers(unit: &str) -> bool {
    unit.trim_end_matches(".service") == "kubelet"
}

pub(super) async fn start_unit(ctx: &Ctx<'_>, unit: &str, reload: bool) -> Result<Outputs, StepError> {
    if reload {
        ctx.host.unit_action(unit, UnitAction::Reload).await?;
    }
    ctx.host.unit_action(unit, UnitAction::Start).await?;
    let what = format!("{unit} to be active");
    ctx.poll(&what, EVERY, UNIT_TIMEOUT, || async {
        let facts = ctx.host.unit(unit).await?;
        Ok(match facts.active_state.as_str() {
            "active" => Polled::Ready(outputs! { "activeState" => facts.active_state }),
            _ => Polled::Pending(format!("{} ({})", facts.active_state, facts.sub_state)),
        })
    })
    .await
}

pub(super) async fn undo_start_unit(ctx: &Ctx<'_>, unit: &str) -> Result<(), StepError> {
    // Active before, or nothing recorded because it ended before it could act.
    if field(&ctx.before, "wasActive") != Some(false) {
        return Ok(());
    }
    stop_unit(ctx, unit, false).await?;
    if runs_containers(unit) {
        let kept: Vec<String> = field(&ctx.before, "running").unwrap_or_default();
        stop_running(ctx, &Component::ALL, &kept).await?;
    }
    Ok(())
}

pub(super) async fn stop_containers(ctx: &Ctx<'_>, components: &[Component]) -> Result<Outputs, StepError> {
    let stopped = stop_running(ctx, components, &[]).await?;
    Ok(outputs! { "stopped" => stopped })
}

pub(super) async fn remove_pods(ctx: &Ctx<'_>) -> Result<Outputs, StepError> {
    ctx.host.remove_pods().await?;
    Ok(Outputs::new())
}

async fn running(ctx: &Ctx<'_>, components: &[Component]) -> Result<Vec<ContainerFacts>, StepError> {
    let all = ctx.host.containers().await?;
    let named = |c: &ContainerFacts| components.iter().any(|component| component.name() == c.name);
    Ok(all.into_iter().filter(|c| c.running && named(c)).collect())
}

/// Stops their pods until none runs in two looks: a start that was on its way when kubelet ended may still come.
async fn stop_running(
    ctx: &Ctx<'_>,
    components: &[Component],
    keep: &[String],
) -> Result<Vec<String>, StepError> {
    let stopped = std::cell::RefCell::new(Vec::new());
    let clean = std::cell::Cell::new(0);
    ctx.poll("the containers to stop", EVERY, CONTAINERS_TIMEOUT, || async {
        let mut left = running(ctx, components).await?;
        left.retain(|container| !keep.contains(&container.id));
        if left.is_empty() {
            clean.set(clean.get() + 1);
            return Ok(if clean.get() > 1 {
                Polled::Ready(())
            } else {
                Polled::Pending("a last look".into())
            });
        }
        clean.set(0);
        let stops = left.iter().map(|container| ctx.host.stop_pod(&container.sandbox_id));
        for result in futures::future::join_all(stops).await {
            result?;
        }
        let names: Vec<String> = left.iter().map(|container| container.name.clone()).collect();
        let told = names.join(", ");
        stopped.borrow_mut().extend(names);
        Ok(Polled::Pending(format!("running: {told}")))
    })
    .await?;
    Ok(stopped.into_inner())
}
