//! The steps: for each variant of [`Step`] what is looked at before, what is done, and how it is taken back.
//!
//! Three functions dispatch: [`prepare`] reads what undo will need and is journaled with the step's start, [`apply`]
//! acts, [`undo`] restores. Each can be called again after it was cut off at any point. [`Ctx`] is all they get.

mod api;
mod build;
mod certificates;
mod context;
mod etcd;
mod files;
mod kube;
mod kubeadm;
mod leases;
mod members;
mod nodes;
mod prove;
mod save;
mod services;
mod stage;
mod text;

pub(crate) use context::Ctx;

use crate::error::StepError;
use rekindle_model::event::Outputs;
use rekindle_model::step::Step;

/// Reads what undo will need. Changes nothing.
pub(crate) async fn prepare(ctx: &Ctx<'_>) -> Result<Outputs, StepError> {
    match &ctx.planned.step {
        Step::Rename { from, to, optional } => files::before_rename(ctx, from, to, *optional).await,
        Step::ReplaceFile { path, old_sha256, text, .. } => {
            files::before_replace(ctx, path, old_sha256.as_deref(), text).await
        }
        Step::InstallCertificates { renewals, set_aside } => {
            certificates::before_install(ctx, renewals, set_aside).await
        }
        Step::StopUnit { unit, .. } => services::before_stop(ctx, unit).await,
        Step::StartUnit { unit, .. } => services::before_start(ctx, unit).await,
        Step::ChangeObject { object, changes } => kube::change::before_change(ctx, object, changes).await,
        Step::DeleteObject { object, .. } | Step::WaitGone { object, .. } => {
            kube::change::before_delete(ctx, object).await
        }
        _ => Ok(Outputs::new()),
    }
}

/// Does it. Done already is success.
pub(crate) async fn apply(ctx: &Ctx<'_>) -> Result<Outputs, StepError> {
    match &ctx.planned.step {
        Step::SaveServed { endpoint, file, min_revision } => {
            save::served(ctx, endpoint, file, *min_revision).await
        }
        Step::SaveOpenDb { pid, start_ticks, fd, file } => {
            save::open_db(ctx, *pid, *start_ticks, *fd, file).await
        }
        Step::SaveStore { data_dir, wal_dir, file, min_revision } => {
            save::store(ctx, data_dir, wal_dir.as_ref(), file, *min_revision).await
        }
        Step::BuildDb { .. } => build::build_db(ctx).await,
        Step::StageMember { .. } => stage::stage_member(ctx).await,
        Step::Rename { from, to, optional } => files::rename(ctx, from, to, *optional).await,
        Step::ReplaceFile { path, old_sha256, text, aside, mode } => {
            files::replace(ctx, path, old_sha256.as_deref(), text, aside, *mode).await
        }
        Step::StopUnit { unit, kill } => services::stop_unit(ctx, unit, *kill).await,
        Step::StartUnit { unit, reload } => services::start_unit(ctx, unit, *reload).await,
        Step::StopContainers { components } => services::stop_containers(ctx, components).await,
        Step::ProveMember { endpoint, members } => prove::prove_member(ctx, endpoint, *members).await,
        Step::WaitPeersServed { endpoint } => etcd::wait_peers_served(ctx, endpoint).await,
        Step::DeleteStaleMasterleases { endpoint } => leases::delete_masterleases(ctx, endpoint).await,
        Step::WaitApiReady {} => api::wait_ready(ctx).await,
        Step::ReleaseLeaderLeases { leases } => leases::release(ctx, leases).await,
        Step::WaitNodes { except, timeout_seconds } => nodes::wait_nodes(ctx, except, *timeout_seconds).await,
        Step::WaitComponent { component } => api::wait_component(ctx, *component).await,
        Step::RemoveMember { endpoint, member } => members::remove(ctx, endpoint, member).await,
        Step::AddLearner { endpoint, peer_urls } => members::add_learner(ctx, endpoint, peer_urls).await,
        Step::PromoteLearner { endpoint, peer_urls, timeout_seconds } => {
            members::promote(ctx, endpoint, peer_urls, *timeout_seconds).await
        }
        Step::SetKubeadmDataDir { data_dir, old_data_dir } => {
            kubeadm::set_data_dir(ctx, old_data_dir, data_dir).await
        }
        Step::RemovePods {} => services::remove_pods(ctx).await,
        Step::DeleteNode { name } => nodes::delete(ctx, name).await,
        Step::RequestCertificates { renewals } => certificates::request(ctx, renewals).await,
        Step::SignCertificates { for_host, renewals } => certificates::sign(ctx, for_host, renewals).await,
        Step::InstallCertificates { renewals, set_aside } => {
            certificates::install(ctx, renewals, set_aside).await
        }
        Step::ProveCertificates { pki_dir, renewals, served } => {
            certificates::prove(ctx, pki_dir, renewals, served).await
        }
        step => apply_kube(ctx, step).await,
    }
}

/// Steps through the Kubernetes API.
async fn apply_kube(ctx: &Ctx<'_>, step: &Step) -> Result<Outputs, StepError> {
    match step {
        Step::ChangeObject { object, changes } => kube::change::change(ctx, object, changes).await,
        Step::DeleteObject { object, grace_period_seconds, .. } => {
            kube::change::delete(ctx, object, *grace_period_seconds).await
        }
        Step::WaitGone { object, timeout_seconds, .. } => {
            kube::change::wait_gone(ctx, object, *timeout_seconds).await
        }
        Step::WaitCondition { object, condition, status, timeout_seconds } => {
            kube::change::wait_condition(ctx, object, condition, status, *timeout_seconds).await
        }
        Step::Drain { pods, scope, method, grace_period_seconds, timeout_seconds, stall_seconds } => {
            let timeouts = (*timeout_seconds, *stall_seconds);
            kube::drain::drain(ctx, pods, scope, *method, *grace_period_seconds, timeouts).await
        }
        Step::Fence { node, command } => kube::fence::fence(node, command).await,
        Step::WaitNodeEmpty { node, timeout_seconds } => {
            kube::fence::wait_empty(ctx, node, *timeout_seconds).await
        }
        Step::ProveNothingLeft { namespace } => kube::remains::prove(ctx, namespace).await,
        _ => Err(StepError::Plan("a step that nobody carries out".into())),
    }
}

/// Takes it back, also when it acted in part or not at all. Taken back already is success.
pub(crate) async fn undo(ctx: &Ctx<'_>) -> Result<(), StepError> {
    match &ctx.planned.step {
        Step::StageMember { staging, wal_staging, .. } => {
            stage::unstage(ctx, staging, wal_staging.as_ref()).await
        }
        Step::Rename { from, to, .. } => files::undo_rename(ctx, from, to).await,
        Step::ReplaceFile { path, old_sha256, text, aside, .. } => {
            files::undo_replace(ctx, path, old_sha256.as_deref(), text, aside).await
        }
        Step::StopUnit { unit, .. } => services::undo_stop_unit(ctx, unit).await,
        Step::StartUnit { unit, .. } => services::undo_start_unit(ctx, unit).await,
        Step::AddLearner { endpoint, peer_urls } => members::undo_add(ctx, endpoint, peer_urls).await,
        Step::SetKubeadmDataDir { data_dir, old_data_dir } => {
            kubeadm::set_data_dir(ctx, data_dir, old_data_dir).await.map(|_| ())
        }
        Step::RequestCertificates { renewals } => certificates::undo_request(ctx, renewals).await,
        Step::InstallCertificates { renewals, set_aside } => {
            certificates::undo_install(ctx, renewals, set_aside).await
        }
        Step::ChangeObject { object, changes } => kube::change::undo_change(ctx, object, changes).await,
        Step::DeleteObject { object, put_back: true, .. } | Step::WaitGone { object, put_back: true, .. } => {
            kube::change::put_back(ctx, object).await
        }
        // Copies harm nobody and are kept; waiting and proving changes nothing; stopped containers (and removed pods)
        // come back with their kubelet; API servers write their addresses and leader leases anew; a removed member held no data; pods that
        // left run elsewhere.
        Step::SaveServed { .. }
        | Step::SaveOpenDb { .. }
        | Step::SaveStore { .. }
        | Step::BuildDb { .. }
        | Step::StopContainers { .. }
        | Step::ProveMember { .. }
        | Step::WaitPeersServed { .. }
        | Step::DeleteStaleMasterleases { .. }
        | Step::WaitApiReady {}
        | Step::ReleaseLeaderLeases { .. }
        | Step::WaitNodes { .. }
        | Step::WaitComponent { .. }
        | Step::RemoveMember { .. }
        | Step::PromoteLearner { .. }
        | Step::RemovePods {}
        | Step::DeleteNode { .. }
        | Step::SignCertificates { .. }
        | Step::ProveCertificates { .. }
        | Step::DeleteObject { .. }
        | Step::WaitGone { .. }
        | Step::WaitCondition { .. }
        | Step::Drain { .. }
        | Step::Fence { .. }
        | Step::WaitNodeEmpty { .. }
        | Step::ProveNothingLeft { .. } => Ok(()),
    }
}
