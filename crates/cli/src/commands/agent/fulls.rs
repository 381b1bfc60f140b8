//! Fulls on a schedule, through the code of `backup run`. The stream is open before the first one is taken, so that no
//! revision lies between the two.

use super::Agent;
use super::state::LastFull;
use crate::commands::backup::take;
use crate::connect;
use crate::failure::{Doing, Failure};
use camino::Utf8PathBuf;
use rand::Rng;
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
    let mut jitter_ms = jitter_ms(agent.settings.full_interval);
    loop {
        // what the stream lost only a full has
        let seen = agent.health.borrow().gaps.len();
        let interval_ms = i64::try_from(agent.settings.full_interval.as_millis()).unwrap_or(i64::MAX);
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let last = agent.state().last_full;
        let due = last.is_none_or(|last| now_ms >= last.taken_ms.saturating_add(interval_ms + jitter_ms));
        // a clock that was set back must not keep fulls from being taken
        let ahead = last.is_some_and(|last| last.taken_ms > now_ms + MINUTE_MS);
        if !due && !ahead && seen == gaps {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        match full(&agent).await {
            Ok(last) => {
                agent.succeeded();
                agent.say(&format!("a full of revision {} is in the vault", last.revision));
                (wait, gaps) = (RETRY, seen);
                jitter_ms = self::jitter_ms(agent.settings.full_interval);
            }
            Err(failure) => {
                agent.failed(&failure);
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
        }
    }
}

/// Up to a tenth of the interval, so that agents that were started together do not burden the store together.
fn jitter_ms(interval: Duration) -> i64 {
    let tenth = i64::try_from(interval.as_millis() / 10).unwrap_or(i64::MAX);
    rand::rng().random_range(0..=tenth)
}

async fn full(agent: &Agent) -> Result<LastFull, Failure> {
    // the vault first: a snapshot costs etcd something
    let (vault, writer) = agent.vault().await?;
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
