//! How high a restored store is raised: above every revision any client may have seen.
//!
//! Clients (API server watch caches, controllers) remember revisions. A store that answers with a lower one is taken
//! for the past, and watches silently miss events. So the floor is taken from evidence and a room is put on top for
//! what was written after the evidence; the same number is never used twice, because earlier runs are evidence too.

use rekindle_model::Seen;
use rekindle_model::inventory::Inventory;

/// Room when the age of the source is not known.
pub const ROOM_UNKNOWN: i64 = 1_000_000_000;
/// Least room.
pub const ROOM_LEAST: i64 = 1_000_000;
/// Revisions a busy cluster writes in a second: more than etcd was seen to sustain under Kubernetes.
pub const ROOM_PER_SECOND: i64 = 1_500;
/// Most room: over twenty years of that; beyond it a clock is wrong.
pub const ROOM_MOST: i64 = 1_000_000_000_000;
/// Evidence above this is no revision that counting from 1 ever reached: something is damaged.
pub const REVISION_MOST: i64 = 1 << 60;

/// The revision a restore is raised to, and the highest evidence for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    /// Raise to this.
    pub to_revision: i64,
    /// Highest revision in any evidence.
    pub highest: i64,
    /// Where that was seen.
    pub evidence: String,
}

/// Every revision the inventory tells, with where it was seen: survivors' live and on-disk revisions, all candidates
/// (also those of another identity: too high harms nobody), earlier runs.
pub fn evidence(inventory: &Inventory) -> Vec<(i64, String)> {
    let mut seen = Vec::new();
    for host in &inventory.hosts {
        if let Some(status) = host.etcd_live.known().and_then(|l| l.status.known()) {
            seen.push((status.revision, format!("etcd on {} answers with it", host.id)));
        }
        if let Some(db) = host.etcd_data.known().and_then(|d| d.db.known()) {
            seen.push((db.revision, format!("the db on {} holds it", host.id)));
            seen.push((db.compact_revision, format!("the db on {} was compacted there", host.id)));
        }
    }
    for source in &inventory.sources {
        if let Seen::Known(facts) = &source.facts {
            seen.push((facts.revision, format!("{} holds it", source.kind)));
        }
    }
    for run in &inventory.earlier_runs {
        seen.push((run.raised_to_revision, format!("run {} raised the store to it", run.id)));
        seen.push((run.last_revision, format!("it was seen when run {} ended", run.id)));
    }
    seen
}

/// The revision to raise to, for a source whose data was current at `taken_ms`.
///
/// # Errors
/// A sentence when some evidence is beyond every real revision: then nothing can be raised above it.
pub fn floor(inventory: &Inventory, taken_ms: &Seen<i64>, now_ms: i64) -> Result<Floor, String> {
    let (highest, evidence) = evidence(inventory)
        .into_iter()
        .max_by_key(|(revision, _)| *revision)
        .unwrap_or((0, "nothing seen tells a revision".into()));
    if highest > REVISION_MOST {
        return Err(format!("revision {highest} can't be real ({evidence})"));
    }
    let highest = highest.max(0);
    Ok(Floor { to_revision: highest + room(taken_ms, now_ms), highest, evidence })
}

/// Room above the evidence; a time in the future tells nothing.
fn room(taken_ms: &Seen<i64>, now_ms: i64) -> i64 {
    let age_seconds =
        taken_ms.known().and_then(|t| now_ms.checked_sub(*t)).filter(|a| *a >= 0).map(|a| a / 1000);
    match age_seconds {
        Some(age) => {
            age.saturating_add(1).saturating_mul(ROOM_PER_SECOND).saturating_add(ROOM_LEAST).min(ROOM_MOST)
        }
        None => ROOM_UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_grows_with_the_age_of_the_source() {
        assert_eq!(room(&Seen::Known(0), 0), 1_001_500);
        assert_eq!(room(&Seen::Known(0), 3_600_000), 1_000_000 + 1500 * 3601);
    }

    // A clock that is ahead, or a file without a time, tells nothing about how long clients went on writing.
    #[test]
    fn an_unknown_or_future_time_takes_the_large_room() {
        assert_eq!(room(&Seen::Unknown("no time".into()), 1), ROOM_UNKNOWN);
        assert_eq!(room(&Seen::Known(10_000), 5_000), ROOM_UNKNOWN);
        assert_eq!(room(&Seen::Known(i64::MIN), i64::MAX), ROOM_UNKNOWN);
        assert_eq!(room(&Seen::Known(0), i64::MAX), ROOM_MOST);
    }
}
