//! What a member's write-ahead log tells about its past: how it began, and each change of the membership.
//!
//! Source: etcd `server/storage/wal`, `server/etcdserver/api/membership` (`ConfigChangeContext`), raft `ConfChangeType`.

use super::data::id;
use camino::Utf8Path;
use etcd_disk::ids::EtcdId;
use etcd_disk::proto::{ConfChange, Entry};
use etcd_disk::wal::{self, Record};
use prost::Message as _;
use rekindle_model::etcd::{ConfChangeFacts, ConfChangeKind, WalBirth, WalFacts};
use std::time::UNIX_EPOCH;

/// Most membership changes kept, the newest.
const MAX_CHANGES: usize = 1000;
/// raft `EntryConfChange`.
const CONF_CHANGE: i32 = 1;

/// What is gathered on the way through the log.
#[derive(Default)]
struct Past {
    first_term: u64,
    first_snapshot_index: u64,
    last_index: u64,
    last_index_before_gap: Option<u64>,
    commit: u64,
    changes: Vec<ConfChangeFacts>,
}

/// Reads a whole log.
///
/// # Errors
/// As [`wal::read`].
pub(crate) fn read(dir: &Utf8Path) -> etcd_disk::Result<WalFacts> {
    let mut past = Past::default();
    let facts = wal::read(dir.as_std_path(), &mut |record| {
        past.take(record);
        Ok(())
    })?;
    Ok(WalFacts {
        member_id: facts.member_id.map(id),
        cluster_id: facts.cluster_id.map(id),
        first_index: facts.first_index,
        last_index: facts.last_index,
        last_term: facts.last_term,
        commit_index: facts.commit,
        birth: born(dir).map(|created_ms| WalBirth {
            created_ms,
            first_term: past.first_term,
            first_snapshot_index: past.first_snapshot_index,
            last_index_before_gap: past.last_index_before_gap,
        }),
        conf_changes: past.changes,
    })
}

impl Past {
    fn take(&mut self, record: Record) {
        match record {
            Record::HardState(state) => {
                self.commit = state.commit.unwrap_or(0);
                if self.first_term == 0 {
                    self.first_term = state.term.unwrap_or(0);
                }
            }
            Record::Snapshot { index, .. } => {
                if self.last_index == 0 {
                    if self.first_snapshot_index == 0 {
                        self.first_snapshot_index = index;
                    }
                } else if index > self.last_index && self.last_index_before_gap.is_none() {
                    self.last_index_before_gap = Some(self.last_index);
                }
            }
            Record::Entry(entry) => {
                self.last_index = entry.index.unwrap_or(0);
                self.entry(&entry);
            }
        }
    }

    fn entry(&mut self, entry: &Entry) {
        let index = entry.index.unwrap_or(0);
        // An entry overrides those read before from its index on.
        while self.changes.last().is_some_and(|c| c.index >= index) {
            self.changes.pop();
        }
        if entry.entry_type != Some(CONF_CHANGE) {
            return;
        }
        let Some((member, kind)) = change(entry.data.as_deref().unwrap_or_default()) else { return };
        if self.changes.len() == MAX_CHANGES {
            self.changes.remove(0);
        }
        let term = entry.term.unwrap_or(0);
        self.changes.push(ConfChangeFacts {
            index,
            term,
            member: id(member),
            kind,
            commit_before: self.commit,
        });
    }
}

/// Whom a change is about and what it does; none = a kind that etcd does not write.
fn change(data: &[u8]) -> Option<(EtcdId, ConfChangeKind)> {
    /// The part of `ConfigChangeContext` that tells a promotion.
    #[derive(serde::Deserialize)]
    struct Context {
        #[serde(default, rename = "isPromote")]
        is_promote: bool,
    }
    let change = ConfChange::decode(data).ok()?;
    let promotes = || {
        let context = serde_json::from_slice::<Context>(change.context.as_deref().unwrap_or_default());
        context.is_ok_and(|c| c.is_promote)
    };
    let kind = match change.change_type.unwrap_or(0) {
        0 if promotes() => ConfChangeKind::Promote,
        0 => ConfChangeKind::AddVoter,
        1 => ConfChangeKind::Remove,
        2 => ConfChangeKind::Update,
        3 => ConfChangeKind::AddLearner,
        _ => return None,
    };
    Some((EtcdId(change.node_id.unwrap_or(0)), kind))
}

/// Creation time of the log's first file; none = that file was purged.
#[allow(clippy::option_option)]
fn born(dir: &Utf8Path) -> Option<Option<i64>> {
    let first = dir.read_dir_utf8().ok()?.flatten().find(|e| {
        let name = e.file_name();
        name.starts_with("0000000000000000-") && name.ends_with(".wal")
    })?;
    let created = first.path().metadata().and_then(|m| m.created()).ok();
    let since = created.and_then(|c| c.duration_since(UNIX_EPOCH).ok());
    Some(since.and_then(|s| i64::try_from(s.as_millis()).ok()))
}
