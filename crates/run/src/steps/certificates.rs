//! `RequestCertificates`, `SignCertificates`, `InstallCertificates`, `ProveCertificates`: keys stay on the host they are
//! made on; requests and certificates, which are public, go by way of the journal.
//!
//! Each file is moved in two renames: the old one into the run's folder, the new one into its place. Where the old one
//! lies tells how far it came, so that doing it again goes on, and taking it back puts everything back.

use super::context::{Ctx, Polled, field, outputs};
use crate::error::StepError;
use rekindle_model::certificate::{CertificateFacts, KeyState, Move, Renewal, ServedCertificate};
use rekindle_model::event::Outputs;
use rekindle_model::step::Step;
use rekindle_model::{HostId, HostPath, Seen};
use std::collections::BTreeSet;
use std::time::Duration;

const SERVED_TIMEOUT: Duration = Duration::from_secs(90);
const EVERY: Duration = Duration::from_millis(500);

pub(super) async fn request(ctx: &Ctx<'_>, renewals: &[Renewal]) -> Result<Outputs, StepError> {
    let requests = ctx.host.request_certificates(renewals.to_vec()).await?;
    Ok(outputs! { "requests" => requests })
}

/// Removes the keys, and folders that nothing else lies in.
pub(super) async fn undo_request(ctx: &Ctx<'_>, renewals: &[Renewal]) -> Result<(), StepError> {
    for folder in folders(renewals) {
        ctx.host.remove_own_tree(&folder.join("keys")).await?;
        remove_if_empty(ctx, &folder.join("old")).await?;
        remove_if_empty(ctx, &folder).await?;
    }
    Ok(())
}

fn folders(renewals: &[Renewal]) -> BTreeSet<HostPath> {
    renewals.iter().map(|renewal| renewal.folder.clone()).collect()
}

async fn remove_if_empty(ctx: &Ctx<'_>, folder: &HostPath) -> Result<(), StepError> {
    match ctx.host.stat(folder).await? {
        Some(_) if ctx.host.list(folder).await?.is_empty() => Ok(ctx.host.remove_own_tree(folder).await?),
        _ => Ok(()),
    }
}

/// PEM by name, of the steps that `wanted` picks.
fn pems(ctx: &Ctx<'_>, name: &str, wanted: impl Fn(&HostId, &Step) -> bool) -> Vec<(String, String)> {
    let local = HostId::local();
    let of_steps =
        ctx.outputs_where(|planned| wanted(planned.host.as_ref().unwrap_or(&local), &planned.step));
    of_steps.into_iter().filter_map(|o| field::<Vec<(String, String)>>(o, name)).flatten().collect()
}

pub(super) async fn sign(
    ctx: &Ctx<'_>,
    for_host: &HostId,
    renewals: &[Renewal],
) -> Result<Outputs, StepError> {
    if let Some(one) = renewals.iter().find(|one| for_host != ctx.host_id() && one.node.is_none()) {
        return Err(StepError::Moved(format!(
            "{} is no node's identity: it is signed on its own host",
            one.name
        )));
    }
    let requests = pems(ctx, "requests", |host, step| {
        host == for_host && matches!(step, Step::RequestCertificates { .. })
    });
    let signed = ctx.host.sign_certificates(renewals.to_vec(), requests).await?;
    Ok(outputs! { "signed" => signed })
}

/// Every file that is moved, in order.
fn moves(renewals: &[Renewal], set_aside: &[(HostPath, HostPath)]) -> Vec<Move> {
    let aside =
        set_aside.iter().map(|(place, old)| Move { place: place.clone(), old: Some(old.clone()), new: None });
    renewals.iter().flat_map(Renewal::moves).chain(aside).collect()
}

async fn exists(ctx: &Ctx<'_>, path: &HostPath) -> Result<bool, StepError> {
    Ok(ctx.host.stat(path).await?.is_some())
}

/// That every file is there, and none of what it is moved to.
pub(super) async fn before_install(
    ctx: &Ctx<'_>,
    renewals: &[Renewal],
    set_aside: &[(HostPath, HostPath)],
) -> Result<Outputs, StepError> {
    for one in moves(renewals, set_aside) {
        let there = exists(ctx, &one.place).await?;
        match &one.old {
            Some(old) if exists(ctx, old).await? => {
                return Err(StepError::Moved(format!("{old} exists, nothing is renamed over it")));
            }
            Some(_) if !there => return Err(StepError::Moved(format!("{} does not exist", one.place))),
            None if there => return Err(StepError::Moved(format!("{} exists already", one.place))),
            _ => {}
        }
    }
    Ok(outputs! { "begun" => true })
}

pub(super) async fn install(
    ctx: &Ctx<'_>,
    renewals: &[Renewal],
    set_aside: &[(HostPath, HostPath)],
) -> Result<Outputs, StepError> {
    let all = moves(renewals, set_aside);
    if !is_installed(ctx, &all).await? {
        let own = ctx.host_id();
        let signed = pems(
            ctx,
            "signed",
            |_, step| matches!(step, Step::SignCertificates { for_host, .. } if for_host == own),
        );
        ctx.host.stage_certificates(renewals.to_vec(), signed).await?;
        for one in &all {
            swap(ctx, one).await?;
        }
    }
    // What is left is copies of the new keys.
    for folder in folders(renewals) {
        ctx.host.remove_own_tree(&folder.join("new")).await?;
        ctx.host.remove_own_tree(&folder.join("keys")).await?;
    }
    let names: Vec<&String> = renewals.iter().map(|renewal| &renewal.name).collect();
    Ok(outputs! { "renewed" => names, "folders" => folders(renewals), "setAside" => set_aside })
}

/// Whether every new file is in its place.
async fn is_installed(ctx: &Ctx<'_>, all: &[Move]) -> Result<bool, StepError> {
    for one in all {
        let aside = match &one.old {
            Some(old) => exists(ctx, old).await?,
            None => true,
        };
        if !aside || (one.new.is_some() && !exists(ctx, &one.place).await?) {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn swap(ctx: &Ctx<'_>, one: &Move) -> Result<(), StepError> {
    if let Some(old) = &one.old
        && !exists(ctx, old).await?
    {
        ctx.host.rename(&one.place, old).await?;
    }
    match &one.new {
        Some(new) if !exists(ctx, &one.place).await? => Ok(ctx.host.rename(new, &one.place).await?),
        _ => Ok(()),
    }
}

pub(super) async fn undo_install(
    ctx: &Ctx<'_>,
    renewals: &[Renewal],
    set_aside: &[(HostPath, HostPath)],
) -> Result<(), StepError> {
    // Nothing recorded: it ended before it could act.
    if field(&ctx.before, "begun") != Some(true) {
        return Ok(());
    }
    for one in moves(renewals, set_aside).into_iter().rev() {
        let place = exists(ctx, &one.place).await?;
        let Some(old) = &one.old else {
            if place {
                ctx.host.rename(&one.place, &undone(&one.place, renewals)).await?;
            }
            continue;
        };
        if exists(ctx, old).await? {
            if place {
                ctx.host.rename(&one.place, &HostPath::from(format!("{old}.undone"))).await?;
            }
            ctx.host.rename(old, &one.place).await?;
        }
    }
    for folder in folders(renewals) {
        ctx.host.remove_own_tree(&folder.join("new")).await?;
        ctx.host.remove_own_tree(&folder.join("old")).await?;
    }
    for folder in set_aside.iter().filter_map(|(_, old)| old.parent().map(HostPath::from)) {
        ctx.host.remove_own_tree(&folder).await?;
        if let Some(base) = folder.parent() {
            remove_if_empty(ctx, &HostPath::from(base)).await?;
        }
    }
    Ok(())
}

/// Where a file that had no predecessor goes.
fn undone(place: &HostPath, renewals: &[Renewal]) -> HostPath {
    let own = renewals.iter().find(|renewal| renewal.moves().iter().any(|one| &one.place == place));
    let folder = own.map_or_else(HostPath::default, |renewal| renewal.folder.clone());
    folder.join("new").join(format!("{}.undone", place.file_name().unwrap_or("file")))
}

pub(super) async fn prove(
    ctx: &Ctx<'_>,
    pki_dir: &HostPath,
    renewals: &[Renewal],
    served: &[ServedCertificate],
) -> Result<Outputs, StepError> {
    let facts = ctx
        .poll("the ports to serve the new certificates", EVERY, SERVED_TIMEOUT, || async {
            let facts = ctx.host.certificates(pki_dir, served.to_vec()).await?;
            Ok(match unproved(&facts, renewals) {
                Some(why) => Polled::Pending(why),
                None => Polled::Ready(facts),
            })
        })
        .await?;
    let first = renewals.iter().map(|renewal| renewal.not_after_s).min();
    Ok(outputs! {
        "certificates" => renewals.len(),
        "ports" => facts.served.len(),
        "firstEndS" => first,
    })
}

/// What is not as it should be.
fn unproved(facts: &CertificateFacts, renewals: &[Renewal]) -> Option<String> {
    for renewal in renewals {
        let name = &renewal.name;
        let Some(file) = facts.file(name) else { return Some(format!("{name} is not there")) };
        let held = match &file.certificate {
            Seen::Known(held) => held,
            Seen::Unknown(why) => return Some(format!("{name}: {why}")),
        };
        // A kubelet that found more than two thirds of the life gone has its own by now.
        let kept = held.not_after_s >= renewal.not_after_s && held.subject == renewal.old.subject;
        if held.sha256 == renewal.old.sha256 || !kept {
            return Some(format!("{} does not hold the new certificate", file.path()));
        }
        if file.key != KeyState::Matches || file.signed_by_authority != Some(true) {
            return Some(format!("{}: its key or its authority is not the right one", file.path()));
        }
    }
    facts.served.iter().find_map(|one| match &one.certificate {
        Seen::Unknown(why) => Some(format!("{}: {why}", one.service)),
        Seen::Known(shown) => {
            let mut files = facts.files.iter().filter(|file| one.names.contains(&file.name));
            let held = files.any(|f| f.certificate.known().is_some_and(|c| c.sha256 == shown.sha256));
            (!held).then(|| format!("{} at {} serves another certificate", one.service, one.address))
        }
    })
}
