//! `rekindle runs`: list, show, resume, undo.

use super::recover::finish;
use crate::args::{Format, Runs, RunsAct, RunsVerb};
use crate::exit::Exit;
use crate::failure::{Doing, Failure, of_run};
use crate::output::Output;
use crate::progress::Renderer;
use crate::render::units::time;
use crate::{connect, consent};
use camino::Utf8Path;
use rekindle_run::runs;
use std::fmt::Write;
use std::sync::Arc;

pub(super) fn run(args: &Runs, output: &Output) -> Result<Exit, Failure> {
    match &args.verb {
        None => list(&args.state_dir, output),
        Some(RunsVerb::Show { id }) => show(&args.state_dir, id, output),
        Some(RunsVerb::Resume(act)) => take_up(&args.state_dir, act, false, output),
        Some(RunsVerb::Undo(act)) => take_up(&args.state_dir, act, true, output),
    }
}

fn list(state_dir: &Utf8Path, output: &Output) -> Result<Exit, Failure> {
    let runs = runs::list(state_dir).doing(|| format!("cannot list the runs in {state_dir}"))?;
    output.document(&runs, |_| {
        let mut text = String::new();
        let _ = writeln!(text, "{:<38} {:<21} STATUS", "NAME", "STARTED");
        for run in &runs {
            let _ = writeln!(text, "{:<38} {:<21} {}", run.id, time(run.started_ms), run.status);
        }
        text
    })?;
    Ok(Exit::Ok)
}

fn show(state_dir: &Utf8Path, id: &str, output: &Output) -> Result<Exit, Failure> {
    let run = runs::find(state_dir, id).doing(|| format!("no run {id} in {state_dir}"))?;
    let report = runs::show(&run.dir).doing(|| format!("cannot read run {}", run.id))?;
    match output.format {
        Format::Table | Format::Short => output.data(&rekindle_run::report::markdown(&report))?,
        _ => output.document(&report, |_| String::new())?,
    }
    Ok(Exit::Ok)
}

fn take_up(state_dir: &Utf8Path, act: &RunsAct, undo: bool, output: &Output) -> Result<Exit, Failure> {
    let run = runs::find(state_dir, &act.id).doing(|| format!("no run {} in {state_dir}", act.id))?;
    let plan = runs::plan(&run.dir).doing(|| format!("cannot read the plan of run {}", run.id))?;
    let verb = if undo { "Take back" } else { "Finish" };
    output.say(&format!("run {}: {}\n{}", run.id, run.status, plan.summary));
    if act.consent.dry_run {
        output.data(&runs::preview(&run.dir, undo).doing(|| format!("cannot read run {}", run.id))?)?;
        return Ok(Exit::Ok);
    }
    consent::ask(&act.consent, output, &format!("{verb} run {}?", run.id))?;
    let runtime = connect::runtime()?;
    let world = runtime.block_on(connect::world_of(&plan.hosts, &act.ssh.options(), act.root.clone()))?;
    let renderer = Arc::new(Renderer::new(output));
    let sink: rekindle_run::Sink = Arc::new(move |event| renderer.show(event));
    let report = runtime
        .block_on(async {
            if undo {
                rekindle_run::undo(&run.dir, &world, state_dir, &sink).await
            } else {
                rekindle_run::resume(&run.dir, &world, state_dir, &sink).await
            }
        })
        .map_err(|error| of_run(error, format!("run {} was not taken up", run.id)))?;
    if undo && report.outcome == rekindle_model::event::Outcome::Undone {
        // What was asked for was done.
        output.data(&rekindle_run::report::markdown(&report))?;
        return Ok(Exit::Ok);
    }
    finish(&report, output)
}
