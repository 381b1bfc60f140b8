//! When nothing is written there is nothing to store; that nothing was written is told instead, so that a time in a quiet hour
//! can be restored to, with its bound, from the vault alone.

use super::Agent;
use crate::failure::{Doing, Failure};
use rekindle_agent::Rpo;
use std::sync::Arc;
use std::time::Duration;

const LOOK: Duration = Duration::from_secs(2);
/// The first time it is told after this long without a change; then after as long again, and
const FIRST_MS: i64 = 5_000;
/// never less often than this.
const EVERY_MS: i64 = 60_000;

/// Since when a revision is the newest, and until when that was told.
struct Quiet {
    timeline: String,
    revision: i64,
    since_ms: i64,
    told_ms: i64,
}

/// Runs until it is dropped.
pub(super) async fn run(agent: Arc<Agent>) {
    let mut known: Option<Quiet> = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let (timeline, stored) = {
            let state = agent.state();
            let full = state.last_full.map(|full| full.revision);
            (state.timeline.id.clone(), state.stored_revision.max(full))
        };
        let (revision, rpo) = {
            let health = agent.health.borrow();
            (health.durable_revision, health.rpo.clone())
        };
        let quiet = match &mut known {
            Some(quiet) if quiet.revision == revision && quiet.timeline == timeline => quiet,
            _ => {
                let now_ms = jiff::Timestamp::now().as_millisecond();
                known = Some(Quiet { timeline, revision, since_ms: now_ms, told_ms: now_ms });
                continue;
            }
        };
        let Rpo::Known { proved_ms } = rpo else { continue };
        let due_ms = quiet.told_ms + (quiet.told_ms - quiet.since_ms).clamp(FIRST_MS, EVERY_MS);
        if stored < Some(revision) || proved_ms < due_ms {
            continue;
        }
        match tell(&agent, quiet, proved_ms).await {
            Ok(()) => quiet.told_ms = proved_ms,
            Err(failure) => agent.failed(&failure),
        }
    }
}

async fn tell(agent: &Agent, quiet: &Quiet, proved_ms: i64) -> Result<(), Failure> {
    let (_, writer) = &*agent.vault().await?;
    let told = writer.put_quiet(&quiet.timeline, quiet.revision, proved_ms).await;
    told.doing(|| format!("cannot tell {} that nothing changed", agent.settings.vault))?;
    agent.succeeded();
    Ok(())
}
