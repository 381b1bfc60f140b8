//! `rekindle resources diff`, `restore`, `resume` and `undo`.

use super::args::{Diff, How, Restore, Resume, Source, Undo};
use super::vault::{self, Opened};
use super::{cluster, folder, of_flags, of_folder, tables};
use crate::args::Consent;
use crate::consent;
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use camino::{Utf8Path, Utf8PathBuf};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rekindle_resources::changes::Changes;
use rekindle_resources::folder::Folder;
use rekindle_resources::journal::{Request, Run};
use rekindle_resources::plan::{Choices, Plan};
use rekindle_resources::report::DiffReport;
use rekindle_resources::{Error, restore as resources};
use rekindle_world::cluster::{Cluster, ClusterOptions};
use std::sync::Arc;

pub(super) async fn diff(args: &Diff, output: &Output) -> Result<Exit, Failure> {
    let (opened, folder) = open(&args.source, None, output).await?;
    let (cluster, facts) = of_flags(&args.api).await?;
    let plan = Plan::make(&cluster, facts, folder.clone(), choices(&args.how)?).await;
    let plan = plan.map_err(|error| of_folder(error, &opened.folder))?;
    let report = DiffReport::new(&plan, &folder);
    output.document(&report, |short| tables::diff(&report, short))?;
    Ok(Exit::Ok)
}

fn choices(how: &How) -> Result<Choices, Failure> {
    let wrong = |error: Error| Failure::usage(error.to_string());
    let mut changes =
        Changes::new(&how.map_namespaces, &how.map_storage_classes, &how.map_images).map_err(wrong)?;
    if let Some(file) = &how.patches {
        let text = std::fs::read(file).doing(|| format!("cannot read {file}"))?;
        changes.add_patches(file.as_str(), &text).map_err(wrong)?;
    }
    let selection = how.select.selection();
    selection.labels().map_err(wrong)?;
    Ok(Choices { selection, changes, existing: how.existing.into(), with_status: how.with_status })
}

pub(super) async fn run(args: &Restore, output: &Output) -> Result<Exit, Failure> {
    let keep = Some(args.state.state_dir.as_path()).filter(|_| !args.consent.dry_run);
    let (mut opened, folder) = open(&args.source, keep, output).await?;
    let (cluster, facts) = of_flags(&args.api).await?;
    let choices = choices(&args.how)?;
    let uid = facts.uid.clone();
    let plan = Plan::make(&cluster, facts, folder.clone(), choices.clone()).await;
    let plan = plan.map_err(|error| of_folder(error, &opened.folder))?;
    if !shown(&plan, &folder, &args.consent, output)? {
        return Ok(Exit::Ok);
    }
    let request = Request {
        folder: absolute(&opened.folder)?,
        digest: folder.digest().to_owned(),
        accept_edited: args.source.accept_edited,
        identity: args.source.place.identity.as_deref().map(absolute).transpose()?,
        kubeconfig: args.api.kubeconfig.as_deref().map(absolute).transpose()?,
        context: args.api.context.clone(),
        server: cluster.server().to_owned(),
        cluster_uid: uid,
        choices,
    };
    let begun = Run::begin(&args.state.state_dir, request).map_err(|error| {
        Failure::new("the run can't be kept")
            .because(error)
            .hint("--state-dir names a folder you may write to")
    })?;
    opened.keep();
    carry_out(&cluster, folder, plan, &begun, &args.state.state_dir, output).await
}

/// Shows the plan and asks; false when only the plan was asked for.
fn shown(plan: &Plan, folder: &Folder, asked: &Consent, output: &Output) -> Result<bool, Failure> {
    let report = DiffReport::new(plan, folder);
    if asked.dry_run {
        output.document(&report, |short| tables::diff(&report, short))?;
        return Ok(false);
    }
    output.say(&tables::diff(&report, true));
    if report.changes_something() {
        consent::ask(asked, output, &format!("These objects will be changed in {}.", report.cluster.server))?;
    }
    Ok(true)
}

async fn carry_out(
    cluster: &Cluster,
    folder: Arc<Folder>,
    plan: Plan,
    run: &Run,
    state_dir: &Utf8Path,
    output: &Output,
) -> Result<Exit, Failure> {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    if output.live {
        bar.set_draw_target(ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("  {bar:40} {pos}/{len} objects, {per_sec}") {
            bar.set_style(style);
        }
    }
    let progress = |done: u64, total: u64| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let report = resources::restore(cluster, folder, plan, run, &progress).await;
    bar.finish_and_clear();
    let report = report.map_err(|error| {
        let failure = Failure::new(format!("the restore was cut off; its journal is in {}", run.dir()));
        let hint = format!("`rekindle resources resume {}` goes on where it stopped", run.id());
        exiting(failure.because(error).hint(hint), Exit::Partial)
    })?;
    output.document(&report, |short| tables::restored(&report, short))?;
    if !report.is_complete() {
        return Ok(Exit::Partial);
    }
    vault::forget(&run.request.folder, &absolute(state_dir)?);
    Ok(if report.is_of_whole() { Exit::Ok } else { Exit::Partial })
}

/// The backup that is compared or restored, and where it is; fetched from its vault where it lies in one.
async fn open(
    source: &Source,
    keep: Option<&Utf8Path>,
    output: &Output,
) -> Result<(Opened, Arc<Folder>), Failure> {
    let opened = Opened::of_flags(&source.place, keep, output).await?;
    let folder = folder(&opened.folder, source.place.identity.as_deref(), source.accept_edited)?;
    Ok((opened, Arc::new(folder)))
}

pub(super) async fn resume(args: &Resume, output: &Output) -> Result<Exit, Failure> {
    let run = opened(&args.state.state_dir, args.id.as_deref())?;
    let request = run.request.clone();
    let folder = Arc::new(folder(&request.folder, request.identity.as_deref(), request.accept_edited)?);
    if folder.digest() != request.digest {
        return Err(Failure::refused(format!("{} holds another backup by now", request.folder))
            .hint("begin a new restore; objects that are as they should be stay as they are"));
    }
    let (cluster, facts) = the_same(&request).await?;
    let plan = Plan::make(&cluster, facts, folder.clone(), request.choices).await;
    let plan = plan.map_err(|error| of_folder(error, &request.folder))?;
    if !shown(&plan, &folder, &args.consent, output)? {
        return Ok(Exit::Ok);
    }
    carry_out(&cluster, folder, plan, &run, &args.state.state_dir, output).await
}

pub(super) async fn undo(args: &Undo, output: &Output) -> Result<Exit, Failure> {
    let run = opened(&args.state.state_dir, Some(&args.id))?;
    let (cluster, _) = the_same(&run.request).await?;
    let failed = || format!("{} can't be taken back", run.id());
    let would = rekindle_resources::undo::undo(&cluster, &run, true).await.doing(failed)?;
    if args.consent.dry_run {
        output.document(&would, |short| tables::undone(&would, short))?;
        return Ok(Exit::Ok);
    }
    output.say(&tables::undone(&would, true));
    consent::ask(&args.consent, output, &format!("This is done in {}.", cluster.server()))?;
    let report = rekindle_resources::undo::undo(&cluster, &run, false).await.map_err(|error| {
        let failure = Failure::new(failed()).because(error).hint("do it again: what is taken back stays so");
        exiting(failure, Exit::Partial)
    })?;
    output.document(&report, |short| tables::undone(&report, short))?;
    Ok(if report.failed.is_empty() { Exit::Ok } else { Exit::Partial })
}

fn opened(state_dir: &Utf8Path, id: Option<&str>) -> Result<Run, Failure> {
    Run::open(state_dir, id).map_err(|error| {
        let exit = if matches!(error, Error::Busy { .. }) { Exit::Refused } else { Exit::Error };
        exiting(Failure::new("there is no restore to take up").because(error), exit)
    })
}

/// The cluster of a run, which must be the one it was then.
async fn the_same(request: &Request) -> Result<(Cluster, rekindle_resources::index::ClusterFacts), Failure> {
    let options = ClusterOptions { kubeconfig: request.kubeconfig.clone(), context: request.context.clone() };
    let (cluster, facts) = cluster(&options).await?;
    if facts.uid != request.cluster_uid || (facts.uid.is_none() && cluster.server() != request.server) {
        return Err(Failure::refused(format!("{} is another cluster than then", cluster.server()))
            .hint("the UID of its namespace kube-system differs"));
    }
    Ok((cluster, facts))
}

fn exiting(mut failure: Failure, exit: Exit) -> Failure {
    failure.exit = exit;
    failure
}

fn absolute(path: &Utf8Path) -> Result<Utf8PathBuf, Failure> {
    camino::absolute_utf8(path).doing(|| format!("cannot find {path}"))
}
