//! Completion, manual page, schemas, and the far end of an SSH channel.

use super::backup::{BackupInit, BackupList, BackupPlan, BackupPrune, BackupReport, BackupVerification};
use super::snapshot::SnapshotReport;
use crate::args::{Args, Kind};
use crate::connect;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use clap::CommandFactory;
use rekindle_model::plan::Plan;
use rekindle_model::report::{CheckReport, RunReport};
use schemars::schema_for;

pub(super) fn completion(shell: clap_complete::Shell, output: &Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "rekindle", &mut script);
    output.data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}

pub(super) fn man(output: &Output) -> Result<Exit, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Args::command())
        .render(&mut page)
        .doing(|| "cannot render the manual page".into())?;
    output.data(&String::from_utf8_lossy(&page))?;
    Ok(Exit::Ok)
}

pub(super) fn schema(kind: Kind, output: &Output) -> Result<Exit, Failure> {
    let schema = match kind {
        Kind::CheckReport => schema_for!(CheckReport),
        Kind::Plan => schema_for!(Plan),
        Kind::RunReport => schema_for!(RunReport),
        Kind::SnapshotReport => schema_for!(SnapshotReport),
        Kind::BackupInit => schema_for!(BackupInit),
        Kind::BackupPlan => schema_for!(BackupPlan),
        Kind::BackupReport => schema_for!(BackupReport),
        Kind::BackupList => schema_for!(BackupList),
        Kind::BackupVerification => schema_for!(BackupVerification),
        Kind::BackupPrune => schema_for!(BackupPrune),
        Kind::BackupFind => schema_for!(super::from::BackupFind),
        Kind::CertificateReport => schema_for!(super::certs::CertificateReport),
        Kind::ResourceBackup => schema_for!(rekindle_resources::index::Index),
        Kind::ResourceDiff => schema_for!(rekindle_resources::report::DiffReport),
        Kind::ResourceRestore => schema_for!(rekindle_resources::report::RestoreReport),
        Kind::ResourceUndo => schema_for!(rekindle_resources::undo::UndoReport),
        Kind::NodeList => schema_for!(super::node::NodeList),
        Kind::StuckReport => schema_for!(super::unstick::StuckReport),
        Kind::DrillReport => schema_for!(super::drill::DrillReport),
        Kind::DrillHistory => schema_for!(super::drill::DrillHistory),
        Kind::Runbook => schema_for!(super::runbook::RunbookDocument),
        Kind::AgentConfig => schema_for!(super::agent::AgentConfig),
    };
    let text = serde_json::to_string_pretty(&schema).doing(|| "cannot render the schema".into())?;
    output.data(&(text + "\n"))?;
    Ok(Exit::Ok)
}

pub(super) fn serve() -> Result<Exit, Failure> {
    let host = connect::local("/".into());
    connect::runtime()?
        .block_on(rekindle_world::ssh::serve(host, tokio::io::stdin(), tokio::io::stdout()))
        .doing(|| "the channel broke".into())?;
    Ok(Exit::Ok)
}
