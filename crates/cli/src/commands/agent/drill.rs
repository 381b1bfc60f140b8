//! Drills on a schedule: `rekindle drill run` as a process of its own, so that what it takes of memory and what it opens goes
//! with it, and the stream is followed meanwhile.

use super::Agent;
use super::state::LastDrill;
use crate::failure::{Doing, Failure};
use crate::output::Level;
use serde::Deserialize;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;

/// Between two looks at what is due.
const LOOK: Duration = Duration::from_secs(1);

/// What is read of a report.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    started_ms: i64,
    outcome: String,
    failure: Option<String>,
    missed: Vec<String>,
    rto_verified_ms: Option<u64>,
    rpo: Rpo,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rpo {
    lost_ms: Option<i64>,
}

/// Runs until it is dropped.
pub(super) async fn run(agent: Arc<Agent>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let now_ms = jiff::Timestamp::now().as_millisecond();
        if agent.drill_due_ms().is_none_or(|due_ms| now_ms < due_ms) {
            continue;
        }
        let last = match drill(&agent).await {
            Ok(last) => last,
            Err(failure) => {
                agent.output.log(Level::Error, &format!("the drill failed: {}", failure.line()), &[]);
                LastDrill::failed(now_ms)
            }
        };
        // one that failed is due with the next time: it reads a backup and boots a cluster
        let last = LastDrill {
            passed_ms: last.passed_ms.or(agent.state().last_drill.and_then(|d| d.passed_ms)),
            ..last
        };
        if let Err(failure) = agent.remember(|state| state.last_drill = Some(last)) {
            agent.failed(&failure);
        }
    }
}

impl Agent {
    /// When the next drill is due, milliseconds since the Unix epoch; none: drills are not configured.
    pub(super) fn drill_due_ms(&self) -> Option<i64> {
        let live = self.live();
        let last_ms = self.state().last_drill.map_or(self.begun_ms, |last| last.at_ms);
        live.drill.as_ref()?.next_ms(last_ms)
    }
}

async fn drill(agent: &Agent) -> Result<LastDrill, Failure> {
    let (live, state_dir) = (agent.live(), &agent.settings.state_dir);
    let failed = || "a drill can't be started".to_owned();
    agent.say("a drill begins: the newest state in the vault is restored in a sandbox");
    let mut command = Command::new(std::env::current_exe().doing(failed)?);
    command.args(["drill", "run", "-o", "json", "--config", live.file.as_str()]);
    command.args([
        "--scratch",
        state_dir.join("drill").as_str(),
        "--report-dir",
        state_dir.join("drills").as_str(),
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let ended = command.spawn().doing(failed)?.wait_with_output().await.doing(failed)?;
    let report: Report = serde_json::from_slice(&ended.stdout)
        .doing(|| format!("no report; `rekindle drill run --config {}` says why", live.file))?;
    let passed = report.outcome == "passed";
    let why = report.failure.unwrap_or_else(|| report.missed.join("; "));
    let line = if passed { "the drill passed".to_owned() } else { format!("the drill failed: {why}") };
    agent.output.log(if passed { Level::Info } else { Level::Error }, &line, &[]);
    Ok(LastDrill {
        at_ms: report.started_ms,
        passed,
        passed_ms: passed.then_some(report.started_ms),
        rto_ms: report.rto_verified_ms,
        rpo_ms: report.rpo.lost_ms,
    })
}
