//! The runbook kept current: made anew by `rekindle runbook` as a process of its own (what it reads of hosts goes with it),
//! and put in the place of the kept one when every host could be read. One of which a host could not be read would lack that
//! host's commands on the night they are needed: the kept one stays then, and its age tells.
//!
//! It does not go into the vault from here: the agent may read certificates and write one folder, no more. `rekindle backup
//! bundle`, which has the host's rights, takes the folder along.

use super::Agent;
use super::config::{KeptRunbook, Live};
use crate::commands::runbook::{FILES, INVENTORY, saved};
use crate::failure::{Doing, Failure};
use crate::output::Level;
use camino::Utf8Path;
use serde::Deserialize;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;

/// Between two looks at what is due.
const LOOK: Duration = Duration::from_secs(1);
/// Every wait of an observation is bounded; this is for what was not thought of.
const PATIENCE: Duration = Duration::from_secs(900);
/// The folder in which it is made, below the kept one's.
const NEW: &str = ".new";

/// What is read of the answer.
#[derive(Deserialize)]
struct Made {
    missing: Vec<String>,
}

/// Runs until it is dropped: once at the start, with each changed configuration, and when it is due.
pub(super) async fn run(agent: Arc<Agent>) {
    let mut looked: Option<(Arc<Live>, i64)> = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let live = agent.live();
        let Some(kept) = &live.runbook else { continue };
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let is_due = looked.as_ref().is_none_or(|(by, at_ms)| {
            !Arc::ptr_eq(by, &live) || kept.schedule.next_ms(*at_ms).is_some_and(|due_ms| due_ms <= now_ms)
        });
        if !is_due {
            continue;
        }
        match make(&live, kept).await {
            Ok(true) => agent.say(&format!("the runbook in {} is of today's cluster", kept.dir)),
            Ok(false) => {}
            Err(failure) => agent.output.log(
                Level::Error,
                &format!("the runbook in {} stays as it is: {}", kept.dir, failure.line()),
                &[("file", kept.dir.as_str().into())],
            ),
        }
        // one that failed is due with the next time: it looks at whole hosts
        looked = Some((live, now_ms));
    }
}

impl Agent {
    /// When the kept runbook was made, milliseconds since the Unix epoch; while there is none, when the agent began. None:
    /// none is to be kept.
    pub(super) fn runbook_made_ms(&self) -> Option<i64> {
        let live = self.live();
        let dir = &live.runbook.as_ref()?.dir;
        let made = FILES.iter().map(|name| modified_ms(&dir.join(name))).min().flatten();
        Some(made.unwrap_or(self.begun_ms))
    }
}

fn modified_ms(path: &Utf8Path) -> Option<i64> {
    let modified = std::fs::metadata(path).and_then(|meta| meta.modified()).ok()?;
    jiff::Timestamp::try_from(modified).ok().map(jiff::Timestamp::as_millisecond)
}

/// Makes it, and says whether the cluster is another than the kept one knows.
async fn make(live: &Live, kept: &KeptRunbook) -> Result<bool, Failure> {
    let failed = || "a look at the cluster can't be started".to_owned();
    let new = kept.dir.join(NEW);
    let mut command = Command::new(std::env::current_exe().doing(failed)?);
    command.args(["runbook", "-o", "json", "--config", live.file.as_str(), "--out", new.as_str()]);
    command.args(kept.hosts.iter().flat_map(|host| ["--host", host]));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let ended = command.spawn().doing(failed)?.wait_with_output();
    let late = || Failure::new(format!("no answer within {} s", PATIENCE.as_secs()));
    let ended = tokio::time::timeout(PATIENCE, ended).await.map_err(|_| late())?.doing(failed)?;
    let made: Made = serde_json::from_slice(&ended.stdout)
        .doing(|| format!("none was made; `rekindle runbook --config {}` says why", live.file))?;
    if !made.missing.is_empty() {
        return Err(Failure::new(format!("{} could not be read", made.missing.join(", "))));
    }
    let (known, found) = (saved(&kept.dir.join(INVENTORY)).ok(), saved(&new.join(INVENTORY))?);
    for name in FILES {
        let (from, to) = (new.join(name), kept.dir.join(name));
        std::fs::rename(&from, &to).doing(|| format!("cannot rename {from} to {to}"))?;
    }
    let _ = std::fs::remove_dir(&new);
    Ok(known.is_none_or(|known| known.decision_digest() != found.decision_digest()))
}
