//! `rekindle check`: observe, diagnose, render. A managed cluster is looked at through its API alone.

use super::managed;
use crate::args::{Check, FailOn};
use crate::connect;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::render;
use rekindle_model::API_VERSION;
use rekindle_model::finding::{CheckLine, Finding, Severity};
use rekindle_model::report::CheckReport;
use rekindle_world::observe::{ObserveOptions, observe};

pub(super) fn run(args: &Check, output: &Output) -> Result<Exit, Failure> {
    let (taken_ms, checks, findings) = connect::runtime()?.block_on(look(args, output))?;
    let worst = findings.iter().map(|f| f.severity).max();
    let report = CheckReport {
        api_version: API_VERSION.into(),
        kind: "CheckReport".into(),
        taken_ms,
        success: worst != Some(Severity::Failure),
        checks,
        findings,
    };
    output.document(&report, |short| render::check::report(&report, short))?;
    Ok(match worst {
        Some(Severity::Failure) => Exit::Findings,
        Some(Severity::Warning) if args.fail_on == FailOn::Warn => Exit::Warnings,
        _ => Exit::Ok,
    })
}

/// When it was looked, and what was found: on hosts, or through the API alone where the hosts are a provider's.
async fn look(args: &Check, output: &Output) -> Result<(i64, Vec<CheckLine>, Vec<Finding>), Failure> {
    if let Some(managed) = managed::of(&args.hosts, output).await {
        let facts = managed.look().await;
        let (checks, findings) = rekindle_diagnose::managed::judge(&facts);
        return Ok((facts.now_ms, checks, findings));
    }
    let world = connect::world(&args.hosts).await?;
    let inventory = observe(&world, &options(&args.hosts, args.snapshot.as_ref(), None)).await;
    let diagnosis = rekindle_diagnose::diagnose(&inventory);
    Ok((inventory.taken_ms, diagnosis.checks, diagnosis.findings))
}

/// What is asked of `observe` by the flags common to all verbs that look at hosts.
pub(super) fn options(
    hosts: &crate::args::Hosts,
    snapshot: Option<&camino::Utf8PathBuf>,
    data_dir: Option<&camino::Utf8PathBuf>,
) -> ObserveOptions {
    ObserveOptions {
        snapshot: snapshot.cloned(),
        point: None,
        lost: hosts.lost.iter().map(|h| rekindle_model::HostId(h.clone())).collect(),
        kubeconfig: hosts.api.kubeconfig.clone(),
        context: hosts.api.context.clone(),
        state_dir: hosts.state_dir.clone(),
        data_dir: data_dir.cloned(),
    }
}
