//! The small segments of an hour become one in the vault, beside the stream and never in its way. They stay there as they
//! are until `backup prune` has read the merged one and found it good.

use super::{Agent, ship};
use crate::failure::{Doing, Failure};
use rekindle_agent::hold::{self, Due, Held};
use rekindle_vault::manifest::Content;
use rekindle_vault::{Error, PartSource, Vault};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at what is due.
const LOOK: Duration = Duration::from_secs(2);
/// Between two attempts when the vault fails; doubled each time.
const RETRY_MAX: Duration = Duration::from_secs(300);
/// Largest merged segment, bytes of content: what is held for it has its place on this disk twice.
const MERGED_BYTES: u64 = 256 << 20;

/// Runs until it is dropped.
pub(super) async fn run(agent: Arc<Agent>) {
    let mut wait = LOOK;
    loop {
        tokio::time::sleep(wait).await;
        wait = match merge_due(&agent).await {
            Ok(()) => LOOK,
            Err(failure) => {
                agent.failed(&failure);
                (wait * 2).min(RETRY_MAX)
            }
        };
    }
}

async fn merge_due(agent: &Agent) -> Result<(), Failure> {
    let dir = agent.settings.held();
    let bytes_max = MERGED_BYTES.min(agent.settings.spool_max_bytes / 2);
    loop {
        let held = hold::held(&dir).doing(|| format!("cannot read {dir}"))?;
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let Some(due) = held.iter().find_map(|timeline| hold::due(timeline, bytes_max, now_ms)) else {
            return Ok(());
        };
        merge(agent, due).await?;
    }
}

async fn merge(agent: &Agent, due: Due) -> Result<(), Failure> {
    let cleared = || format!("cannot clear {}", agent.settings.held());
    if due.parts.len() == 1 {
        return due.drop_parts().doing(cleared);
    }
    let (due, writer) = (Arc::new(due), agent.settings.writer.to_string());
    let merged = {
        let due = due.clone();
        tokio::task::spawn_blocking(move || hold::merge(&due, &writer)).await
    };
    let facts = match merged.doing(|| "segments could not be merged".into())? {
        Ok(facts) => facts,
        Err(error) => {
            // damage on this disk: the vault has them, small as they are
            due.drop_parts().doing(cleared)?;
            return Err(
                Failure::new("segments can't be merged, and stay in the vault as they are").because(error)
            );
        }
    };
    let Some((first_ms, last_ms)) = facts.received_ms else { return due.stored(&facts, 0).doing(cleared) };
    let (vault, writer) = &*agent.vault().await?;
    let mut meta = ship::meta(agent, &facts, first_ms, last_ms)?;
    meta.replaces =
        replaced(vault, &due.parts).await.doing(|| format!("cannot read {}", agent.settings.vault))?;
    let put = writer.put_segment(PartSource::File(facts.path.clone()), meta).await;
    let put = put.doing(|| format!("cannot put a merged segment into {}", agent.settings.vault))?;
    agent.succeeded();
    agent.tally().merged += 1;
    due.stored(&facts, put.sequence).doing(cleared)?;
    if due.is_final {
        writer.index().await.doing(|| format!("cannot put an index into {}", agent.settings.vault))?;
    }
    Ok(())
}

/// The numbers of the parts, and of what these were merged of.
async fn replaced(vault: &Vault, parts: &[Held]) -> rekindle_vault::Result<BTreeSet<u64>> {
    let mut numbers = BTreeSet::new();
    for part in parts {
        numbers.insert(part.sequence);
        if !part.is_merged {
            continue;
        }
        match vault.manifest(part.sequence).await {
            Ok(manifest) => {
                if let Content::Segment(segment) = manifest.content {
                    numbers.extend(segment.replaces.iter().flat_map(|run| run.first..=run.last));
                }
            }
            // removed already, and what it was merged of, too
            Err(Error::NoManifest { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(numbers)
}
