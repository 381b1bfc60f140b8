//! The log entries past a database: which there are, and which of them are committed.

use std::path::Path;

use super::CommittedBy;
use crate::error::{Error, Result};
use crate::facts::StoreFacts;
use crate::proto::Entry;
use crate::wal::{self, Record, WalFacts};

pub(super) struct Tail {
    applied_index: u64,
    applied_term: u64,
    /// Entries `applied_index + 1`, `+ 2`, and so on.
    entries: Vec<Entry>,
    commit: u64,
    committed_by: CommittedBy,
}

impl Tail {
    /// Reads the log for what follows on the database's consistent index.
    pub(super) fn read(wal_dir: &Path, facts: &StoreFacts) -> Result<Self> {
        let applied_index = facts.consistent_index.unwrap_or(0);
        let mut entries: Vec<Entry> = Vec::new();
        let log = wal::read(wal_dir, &mut |record| {
            let Record::Entry(entry) = record else { return Ok(()) };
            let index = entry.index.unwrap_or(0);
            let Some(position) = index.checked_sub(applied_index + 1) else {
                // an entry that the database has, written again by a newer leader: what followed it is void
                entries.clear();
                return Ok(());
            };
            let position = usize::try_from(position).unwrap_or(usize::MAX);
            if position > entries.len() {
                let reason = format!(
                    "the database has applied the log up to entry {applied_index}, and those between are not in the log"
                );
                return Err(Error::Replay { path: wal_dir.to_owned(), index, reason });
            }
            entries.truncate(position);
            entries.push(entry);
            Ok(())
        })?;
        if log.commit > applied_index + entries.len() as u64 {
            let reason = format!("it is committed (up to {}), but not in the log", log.commit);
            let index = applied_index + entries.len() as u64 + 1;
            return Err(Error::Replay { path: wal_dir.to_owned(), index, reason });
        }
        let (commit, committed_by) = committed(&log, facts, &entries, applied_index);
        let applied_term = facts.term.unwrap_or(0);
        Ok(Self { applied_index, applied_term, entries, commit, committed_by })
    }

    /// The entries to apply, in order.
    pub(super) fn committed(&self) -> &[Entry] {
        let count = usize::try_from(self.commit.saturating_sub(self.applied_index)).unwrap_or(usize::MAX);
        self.entries.get(..count.min(self.entries.len())).unwrap_or_default()
    }

    /// Index and term of the last entry applied, by the database or from the log.
    pub(super) fn last_committed(&self) -> (u64, u64) {
        self.committed().last().map_or((self.applied_index, self.applied_term), |entry| {
            (entry.index.unwrap_or(0), entry.term.unwrap_or(0))
        })
    }

    pub(super) fn uncommitted(&self) -> u64 {
        (self.entries.len() - self.committed().len()) as u64
    }

    pub(super) fn conf_changes(&self) -> u64 {
        self.committed().iter().filter(|entry| is_conf_change(entry)).count() as u64
    }

    pub(super) fn applied_index(&self) -> u64 {
        self.applied_index
    }

    pub(super) fn committed_by(&self) -> CommittedBy {
        self.committed_by
    }
}

fn is_conf_change(entry: &Entry) -> bool {
    entry.entry_type.unwrap_or(0) != 0
}

fn committed(
    log: &WalFacts,
    facts: &StoreFacts,
    entries: &[Entry],
    applied_index: u64,
) -> (u64, CommittedBy) {
    let mut voters = facts.members.iter().filter(|member| !member.is_learner);
    let alone = voters.next().is_some_and(|voter| Some(voter.id) == log.member_id) && voters.next().is_none();
    if alone && !entries.iter().any(is_conf_change) {
        (applied_index + entries.len() as u64, CommittedBy::SoleVoter)
    } else {
        (log.commit, CommittedBy::HardState)
    }
}
