//! Fulls on a schedule, through the code of `backup run`. The stream is open before the first one is taken, so that no
//! revision lies between the two.

use super::Agent;
use super::state::LastFull;
use crate::commands::backup::take;
use crate::connect;
use crate::failure::{Doing, Failure};
use crate::output::Level;
use camino::Utf8PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at what is due.
const LOOK: Duration = Duration::from_millis(500);
/// Between two attempts; doubled each time.
const RETRY: Duration = Duration::from_secs(2);
const RETRY_MAX: Duration = Duration::from_secs(300);
const MINUTE_MS: i64 = 60_000;

/// Runs until it is dropped.
pub(super) async fn run(agent: Arc<Agent>) {
    let mut health = agent.health.clone();
    if health.wait_for(|health| health.following.is_some()).await.is_err() {
        return;
    }
    let (mut wait, mut gaps) = (RETRY, 0);
    let mut late_ms = agent.live().full.jitter_ms();
    loop {
        // what the stream lost only a full has
        let seen = agent.health.borrow().gaps.len();
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let last = agent.state().last_full;
        // the schedule may be another one since
        late_ms = late_ms.min(agent.live().full.jitter_max_ms());
        let due = agent.full_due_ms().is_none_or(|due_ms| now_ms >= due_ms.saturating_add(late_ms));
        // a clock that was set back must not keep fulls from being taken
        let ahead = last.is_some_and(|last| last.taken_ms > now_ms + MINUTE_MS);
        if !due && !ahead && seen == gaps {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        match full(&agent).await {
            Ok(last) => {
                agent.succeeded();
                let line = format!("a full of revision {} is in the vault", last.revision);
                agent.output.log(Level::Info, &line, &[("revision", last.revision.into())]);
                (wait, gaps) = (RETRY, seen);
                late_ms = agent.live().full.jitter_ms();
            }
            Err(failure) => {
                agent.failed(&failure);
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
        }
    }
}

impl Agent {
    /// When the next full is due, milliseconds since the Unix epoch; none: at once.
    pub(super) fn full_due_ms(&self) -> Option<i64> {
        let last = self.state().last_full?;
        Some(self.live().full.next_ms(last.taken_ms).unwrap_or(i64::MAX))
    }
}

async fn full(agent: &Agent) -> Result<LastFull, Failure> {
    // the vault first: a snapshot costs etcd something
    let (vault, writer) = &*agent.vault().await?;
    let url = &agent.settings.vault;
    // a killed agent's snapshot, unencrypted, is in there
    let folder = agent.settings.state_dir.join("full");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).doing(|| format!("cannot clear {folder}"))?;
    }
    std::fs::create_dir_all(&folder).doing(|| format!("cannot make {folder}"))?;
    let file: Utf8PathBuf = folder.join("snapshot.db");
    let host = connect::local("/".into());
    let taken = take::take(&agent.settings.endpoints, &*host, &file, &agent.output).await?;
    let (timeline, etcd_cluster_id) = {
        let state = agent.state();
        (state.timeline.clone(), state.identity.etcd_cluster_id)
    };
    if taken.identity.etcd_cluster_id != etcd_cluster_id {
        return Err(Failure::refused("the snapshot is of another cluster than the stream")
            .hint("the endpoints must be of one cluster"));
    }
    let (history, _) = vault.history().await.doing(|| format!("cannot read {url}"))?;
    take::same_cluster(&history, &taken.identity, url)?;
    let (identity, taken_ms, revision) = (taken.identity.clone(), taken.taken_ms, taken.revision());
    let put = take::put(writer, &file, taken, timeline).await;
    put.doing(|| format!("cannot put a full into {url}"))?;
    let last = LastFull { revision, taken_ms };
    agent.remember(|state| (state.last_full, state.identity) = (Some(last), identity))?;
    std::fs::remove_dir_all(&folder).doing(|| format!("cannot clear {folder}"))?;
    Ok(last)
}
