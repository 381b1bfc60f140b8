//! Closed segments out of the spool into the vault, oldest first; a segment leaves the spool only when its manifest is
//! written and that is remembered.

use super::Agent;
use crate::failure::{Doing, Failure};
use camino::Utf8Path;
use etcd_disk::segment::{SegmentFacts, survey};
use rekindle_agent::{hold, spool};
use rekindle_model::MemberId;
use rekindle_model::etcd::HashKv;
use rekindle_vault::manifest::{ClusterIdentity, TimelineRef};
use rekindle_vault::{PartSource, SegmentMeta};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The spool is looked at this often.
const LOOK: Duration = Duration::from_millis(200);
/// Between two attempts when the vault fails; doubled each time.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Runs until the stream has ended and its last segment is stored, or can't be.
pub(super) async fn run(agent: Arc<Agent>, mut ended: watch::Receiver<bool>) {
    let mut wait = RETRY;
    loop {
        let last_look = *ended.borrow();
        let pause = match ship(&agent, last_look).await {
            Ok(()) => {
                wait = RETRY;
                LOOK
            }
            Err(failure) => {
                agent.failed(&failure);
                wait = (wait * 2).min(RETRY_MAX);
                wait
            }
        };
        if last_look {
            return;
        }
        // whichever comes first: the end is a reason to look at once
        let _ = tokio::time::timeout(pause, ended.changed()).await;
    }
}

/// Stores all that an agent has left, which follows no more.
pub(super) async fn all(agent: &Agent) -> Result<(), Failure> {
    ship(agent, true).await
}

/// Stores what is closed; at the end everything is.
async fn ship(agent: &Agent, ended: bool) -> Result<(), Failure> {
    let dir = agent.settings.spool();
    let listed = || format!("cannot list {dir}");
    let due = if ended { spool::segments(&dir) } else { spool::closed(&dir) }.doing(listed)?;
    agent.tally().spool_bytes = spool::bytes(&dir).doing(listed)?;
    // until a full has shown that the vault's folder is of this cluster, nothing goes there
    if agent.state().last_full.is_none() {
        return Ok(());
    }
    for path in due {
        store(agent, &path).await?;
    }
    Ok(())
}

async fn store(agent: &Agent, path: &Utf8Path) -> Result<(), Failure> {
    let surveyed = {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || survey(path.as_std_path())).await
    };
    let facts =
        surveyed.doing(|| format!("{path} could not be read"))?.doing(|| format!("{path} can't be used"))?;
    let mut sequence = None;
    if let Some((first_ms, last_ms)) = facts.received_ms {
        let (_, writer) = &*agent.vault().await?;
        let meta = meta(agent, &facts, first_ms, last_ms)?;
        let put = writer.put_segment(PartSource::File(facts.path.clone()), meta).await;
        let put = put.doing(|| format!("cannot put {path} into {}", agent.settings.vault))?;
        agent.succeeded();
        agent.tally().segments += 1;
        sequence = Some(put.sequence);
    }
    // one without changes says, too, where the stream stands
    if agent.state().timeline_id()? == facts.header.origin.timeline {
        let last = Some(facts.last_revision);
        agent.remember(|state| state.stored_revision = state.stored_revision.max(last))?;
    }
    let taken = match sequence {
        Some(sequence) => hold::keep(&agent.settings.held(), path, &facts, sequence),
        None => std::fs::remove_file(path),
    };
    taken.doing(|| format!("cannot take {path} away, which is stored"))
}

/// What is said of a segment in its manifest.
pub(super) fn meta(
    agent: &Agent,
    facts: &SegmentFacts,
    first_ms: i64,
    last_ms: i64,
) -> Result<SegmentMeta, Failure> {
    let state = agent.state();
    let origin = facts.header.origin;
    let (identity, timeline) = if state.timeline_id()? == origin.timeline {
        (state.identity.clone(), state.timeline.clone())
    } else {
        // left from before the cluster was set back: its timeline is in the vault already, with where it forked
        let id = uuid::Uuid::from_bytes(origin.timeline).to_string();
        let etcd_cluster_id = Some(MemberId(origin.cluster_id));
        (
            ClusterIdentity { kube_system_uid: None, etcd_cluster_id },
            TimelineRef { id, parent: None, fork_revision: None },
        )
    };
    let samples = facts.samples.iter().map(|sample| HashKv {
        hash: sample.hash_kv.hash,
        revision: sample.hash_kv.revision,
        compact_revision: sample.hash_kv.compact_revision,
    });
    Ok(SegmentMeta {
        identity,
        timeline,
        first_revision: facts.header.first_revision,
        last_revision: facts.last_revision,
        first_ms,
        last_ms,
        etcd_version: None,
        member: None,
        samples: samples.collect(),
        replaces: BTreeSet::new(),
    })
}
