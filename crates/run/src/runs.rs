//! Runs on record: list, find, show, and what taking one up would do. Nothing here changes anything.

use crate::error::{RunError, outcome_word};
use crate::journal::{self, Record};
use crate::status::{RunState, StepStatus};
use crate::{folder, report};
use camino::{Utf8Path, Utf8PathBuf};
use rekindle_model::RunId;
use rekindle_model::inventory::EarlierRun;
use rekindle_model::plan::Plan;
use rekindle_model::report::RunReport;
use serde::Serialize;
use std::fmt::Write;

/// One run on record.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunEntry {
    /// The run.
    pub id: RunId,
    /// Its folder.
    pub dir: Utf8PathBuf,
    /// When it began, milliseconds since the Unix epoch; 0 = its journal does not tell.
    pub started_ms: i64,
    /// How it stands, for people: `recovered and verified`, `interrupted at step 7 of 24`, ...
    pub status: String,
}

/// All runs, oldest first. A run whose files are damaged is listed too, with what is wrong with it.
pub fn list(state_dir: &Utf8Path) -> Result<Vec<RunEntry>, RunError> {
    let dir = folder::runs_dir(state_dir);
    let failed = |source| RunError::File { doing: "list", path: dir.clone(), source };
    let mut entries = Vec::new();
    let read = match dir.read_dir_utf8() {
        Ok(read) => read,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(entries),
        Err(error) => return Err(failed(error)),
    };
    for entry in read {
        let entry = entry.map_err(failed)?;
        if entry.path().is_dir() {
            entries.push(entry_of(entry.path()));
        }
    }
    entries.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(entries)
}

/// The run with this id, or with an id that ends so.
pub fn find(state_dir: &Utf8Path, id: &str) -> Result<RunEntry, RunError> {
    let not_found = || RunError::NotFound { id: id.to_owned(), state_dir: state_dir.to_owned() };
    let all = list(state_dir)?;
    let mut matching = all.into_iter().filter(|run| !id.is_empty() && run.id.0.ends_with(id));
    match (matching.next(), matching.next()) {
        (Some(run), None) => Ok(run),
        _ => Err(not_found()),
    }
}

/// The plan of a run.
pub fn plan(run_dir: &Utf8Path) -> Result<Plan, RunError> {
    folder::read_json(&run_dir.join(folder::PLAN), "plan")
}

/// The report of a run as its journal has it now, also of one that was interrupted.
pub fn show(run_dir: &Utf8Path) -> Result<RunReport, RunError> {
    let (plan, records, state) = load(run_dir)?;
    Ok(report::of(&plan, run_dir, &state, &records))
}

/// What `resume` or `undo` would do, line by line.
pub fn preview(run_dir: &Utf8Path, undo: bool) -> Result<String, RunError> {
    let (plan, _, state) = load(run_dir)?;
    if let (true, Some(step)) = (undo, state.past_no_return(&plan)) {
        let (step, summary) = (step.number, step.summary.clone());
        return Err(RunError::PastNoReturn { run: plan.run_id, step, summary });
    }
    let back = undo || state.undoing;
    let mut text = String::new();
    let mut steps: Vec<_> = plan.steps.iter().collect();
    if back {
        steps.reverse();
    }
    for step in steps {
        let status = state.status(step.number);
        let verb = match (back, status) {
            (true, StepStatus::NotStarted | StepStatus::Undone) | (false, StepStatus::Done) => continue,
            (true, _) => "take back",
            (false, StepStatus::NotStarted) => "do",
            (false, _) => "do again",
        };
        let host = step.host.as_ref().map_or("local", |host| host.0.as_str());
        let _ = writeln!(text, "{verb} step {} on {host}: {}", step.number, step.summary);
    }
    Ok(if text.is_empty() { "nothing is left to do\n".into() } else { text })
}

/// What ended runs leave to know for the next one: revisions that clients may have seen.
pub fn earlier(state_dir: &Utf8Path) -> Result<Vec<EarlierRun>, RunError> {
    let mut runs = Vec::new();
    for entry in list(state_dir)? {
        // A damaged run tells nothing; `runs` shows what is wrong with it.
        let Ok((plan, records, state)) = load(&entry.dir) else { continue };
        let Some(raised) = report::built_at(&plan, &state) else { continue };
        runs.push(EarlierRun {
            id: entry.id,
            raised_to_revision: raised,
            last_revision: report::last_revision(&state).unwrap_or(raised).max(raised),
            ended_ms: records.last().map_or(0, |record| record.event.at_ms),
        });
    }
    Ok(runs)
}

fn load(run_dir: &Utf8Path) -> Result<(Plan, Vec<Record>, RunState), RunError> {
    let plan = plan(run_dir)?;
    let records = journal::read(run_dir)?;
    let state = RunState::replay(&plan, &run_dir.join(journal::FILE_NAME), &records)?;
    Ok((plan, records, state))
}

fn entry_of(dir: &Utf8Path) -> RunEntry {
    let id = RunId(dir.file_name().unwrap_or_default().to_owned());
    let (started_ms, status) = match load(dir) {
        Ok((plan, records, state)) => {
            (records.first().map_or(0, |record| record.event.at_ms), status_of(&plan, &state))
        }
        Err(error) => (0, crate::error::causes(&error).join(": ")),
    };
    RunEntry { id, dir: dir.to_owned(), started_ms, status }
}

fn status_of(plan: &Plan, state: &RunState) -> String {
    if let Some(outcome) = state.ended {
        return outcome_word(outcome).to_owned();
    }
    let at = plan.steps.iter().filter(|step| state.status(step.number) != StepStatus::NotStarted);
    let at = at.map(|step| step.number).max().unwrap_or(0);
    let what = if state.undoing { "interrupted while undoing; was" } else { "interrupted" };
    format!("{what} at step {at} of {}", plan.steps.len())
}
