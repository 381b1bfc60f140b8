//! `rekindle check`: observe, diagnose, render.

use crate::args::{Check, FailOn};
use crate::connect;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::render;
use rekindle_model::API_VERSION;
use rekindle_model::finding::Severity;
use rekindle_model::report::CheckReport;
use rekindle_world::observe::{ObserveOptions, observe};

pub(super) fn run(args: &Check, output: &Output) -> Result<Exit, Failure> {
    let inventory = connect::runtime()?.block_on(async {
        let world = connect::world(&args.hosts).await?;
        Ok::<_, Failure>(observe(&world, &options(&args.hosts, args.snapshot.as_ref(), None)).await)
    })?;
    let diagnosis = rekindle_diagnose::diagnose(&inventory);
    let worst = diagnosis.findings.iter().map(|f| f.severity).max();
    let report = CheckReport {
        api_version: API_VERSION.into(),
        kind: "CheckReport".into(),
        taken_ms: inventory.taken_ms,
        success: worst != Some(Severity::Failure),
        checks: diagnosis.checks,
        findings: diagnosis.findings,
    };
    output.document(&report, |short| render::check::report(&report, short))?;
    Ok(match worst {
        Some(Severity::Failure) => Exit::Findings,
        Some(Severity::Warning) if args.fail_on == FailOn::Warn => Exit::Warnings,
        _ => Exit::Ok,
    })
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
        kubeconfig: hosts.kubeconfig.clone(),
        state_dir: hosts.state_dir.clone(),
        data_dir: data_dir.cloned(),
    }
}
