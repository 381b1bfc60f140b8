//! What the small buckets of a store say: members, versions, alarms, leases, how far it had applied the log.
//!
//! Source: etcd `server/storage/schema/{membership,alarm,cindex,version,auth}.go`.

use std::path::Path;

use boltfile::{BoltFile, ReadAt};
use prost::Message;
use serde::Deserialize;

use crate::bucket;
use crate::error::{Error, Result};
use crate::ids::EtcdId;
use crate::proto::AlarmMember;
use crate::rows::RowKey;

/// A bucket of members, alarms or meta data with more entries than this is none of etcd's.
const ENTRIES_MAX: usize = 100_000;

/// A member of the cluster a store belonged to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: EtcdId,
    /// Its name; empty until it has started once.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// It does not vote.
    pub is_learner: bool,
}

/// Kinds of alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlarmKind {
    /// The database has outgrown its quota: the cluster takes no writes.
    NoSpace,
    /// A member's data differs from the others': the cluster serves nothing.
    Corrupt,
    /// One that etcd 3.7 does not have.
    Other(i32),
}

/// An alarm stored in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alarm {
    /// The member that raised it.
    pub member: EtcdId,
    /// What it is about.
    pub kind: AlarmKind,
}

/// What a store says about itself outside its rows. Absent entries are `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreFacts {
    /// Members of its cluster (in etcd 3.5 the `.snap` file and the log are the truth).
    pub members: Vec<Member>,
    /// Ids of members removed from its cluster.
    pub members_removed: Vec<EtcdId>,
    /// The cluster's version, "3.6.0".
    pub cluster_version: Option<String>,
    /// The format's version, "3.6.0"; etcd 3.5 writes none.
    pub storage_version: Option<String>,
    /// Alarms that are on.
    pub alarms: Vec<Alarm>,
    /// Number of leases.
    pub leases: u64,
    /// Raft index of the last entry applied to it.
    pub consistent_index: Option<u64>,
    /// Raft term of that entry.
    pub term: Option<u64>,
    /// Revision up to which it is compacted.
    pub finished_compact: Option<i64>,
    /// Revision up to which it was being compacted.
    pub scheduled_compact: Option<i64>,
    /// Requests need a login.
    pub auth_enabled: bool,
}

impl StoreFacts {
    /// The compact revision an etcd booted from this store has; -1: never compacted.
    pub fn compact_revision(&self) -> i64 {
        let finished = self.finished_compact.unwrap_or(-1);
        self.scheduled_compact.map_or(finished, |scheduled| finished.max(scheduled))
    }

    /// The revision an etcd booted from this store has, given that of the last row (0 without rows).
    pub fn revision(&self, last_row_main: i64) -> i64 {
        last_row_main.max(self.compact_revision()).max(1)
    }
}

/// Reads the small buckets of an open database; `path` names it in errors. Missing buckets are empty ones.
///
/// # Errors
/// [`Error::Bolt`] on a damaged page, [`Error::Entry`] on an entry that breaks etcd's format.
pub fn read_facts<S: ReadAt>(db: &BoltFile<S>, path: &Path) -> Result<StoreFacts> {
    let mut facts = StoreFacts::default();
    for (name, take) in [
        (bucket::META, meta_entry as fn(&mut StoreFacts, &[u8], &[u8]) -> Result<(), String>),
        (bucket::MEMBERS, member_entry),
        (bucket::MEMBERS_REMOVED, removed_entry),
        (bucket::CLUSTER, cluster_entry),
        (bucket::ALARM, alarm_entry),
        (bucket::AUTH, auth_entry),
    ] {
        for_each_entry(db, path, name, ENTRIES_MAX, &mut |key, value| take(&mut facts, key, value))?;
    }
    for_each_entry(db, path, bucket::LEASE, usize::MAX, &mut |_, _| {
        facts.leases += 1;
        Ok(())
    })?;
    Ok(facts)
}

/// Takes an entry, or says what is wrong with it.
pub(crate) type TakeEntry<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), String> + 'a;

/// Shows all entries of a bucket; an error text of `take` becomes an [`Error::Entry`].
pub(crate) fn for_each_entry<S: ReadAt>(
    db: &BoltFile<S>,
    path: &Path,
    name: &'static str,
    limit: usize,
    take: &mut TakeEntry<'_>,
) -> Result<()> {
    let bolt = |source| Error::Bolt { path: path.to_owned(), source };
    let Some(found) = db.bucket(name.as_bytes()).map_err(bolt)? else { return Ok(()) };
    let mut cursor = found.cursor();
    let mut count = 0;
    while let Some((key, value)) = cursor.next().map_err(bolt)? {
        count += 1;
        let taken = if count > limit { Err(format!("more than {limit} entries")) } else { take(key, value) };
        taken.map_err(|fault| Error::Entry {
            path: path.to_owned(),
            bucket: name,
            entry: key.escape_ascii().to_string(),
            fault,
        })?;
    }
    Ok(())
}

fn meta_entry(facts: &mut StoreFacts, key: &[u8], value: &[u8]) -> Result<(), String> {
    match key {
        b"consistent_index" => facts.consistent_index = Some(be_u64(value)?),
        b"term" => facts.term = Some(be_u64(value)?),
        b"storageVersion" => facts.storage_version = Some(text(value)?),
        b"finishedCompactRev" => facts.finished_compact = Some(revision(value)?),
        b"scheduledCompactRev" => facts.scheduled_compact = Some(revision(value)?),
        _ => {}
    }
    Ok(())
}

fn be_u64(value: &[u8]) -> Result<u64, String> {
    value.try_into().map(u64::from_be_bytes).map_err(|_| format!("{} bytes instead of 8", value.len()))
}

fn text(value: &[u8]) -> Result<String, String> {
    std::str::from_utf8(value).map(str::to_owned).map_err(|_| "not UTF-8".to_owned())
}

fn revision(value: &[u8]) -> Result<i64, String> {
    RowKey::parse(value).map(|row| row.revision.main).map_err(|e| e.to_string())
}

#[derive(Deserialize)]
struct MemberJson {
    id: u64,
    #[serde(default)]
    name: String,
    #[serde(rename = "peerURLs", default)]
    peer_urls: Option<Vec<String>>,
    #[serde(rename = "clientURLs", default)]
    client_urls: Option<Vec<String>>,
    #[serde(rename = "isLearner", default)]
    is_learner: bool,
}

fn member_entry(facts: &mut StoreFacts, key: &[u8], value: &[u8]) -> Result<(), String> {
    let id = id_of(key)?;
    let json: MemberJson = serde_json::from_slice(value).map_err(|e| e.to_string())?;
    if json.id != id.0 {
        return Err(format!("its value has the id {}", EtcdId(json.id)));
    }
    facts.members.push(Member {
        id,
        name: json.name,
        peer_urls: json.peer_urls.unwrap_or_default(),
        client_urls: json.client_urls.unwrap_or_default(),
        is_learner: json.is_learner,
    });
    Ok(())
}

fn removed_entry(facts: &mut StoreFacts, key: &[u8], _value: &[u8]) -> Result<(), String> {
    facts.members_removed.push(id_of(key)?);
    Ok(())
}

fn id_of(key: &[u8]) -> Result<EtcdId, String> {
    std::str::from_utf8(key).ok().and_then(EtcdId::parse_hex).ok_or_else(|| "its key is no id".to_owned())
}

fn cluster_entry(facts: &mut StoreFacts, key: &[u8], value: &[u8]) -> Result<(), String> {
    if key == b"clusterVersion" {
        facts.cluster_version = Some(text(value)?);
    }
    Ok(())
}

fn alarm_entry(facts: &mut StoreFacts, key: &[u8], _value: &[u8]) -> Result<(), String> {
    facts.alarms.push(parse_alarm(key)?);
    Ok(())
}

/// An alarm is a key of its bucket, without a value.
pub(crate) fn parse_alarm(key: &[u8]) -> Result<Alarm, String> {
    let alarm = AlarmMember::decode(key).map_err(|e| e.to_string())?;
    let kind = match alarm.alarm {
        1 => AlarmKind::NoSpace,
        2 => AlarmKind::Corrupt,
        other => AlarmKind::Other(other),
    };
    Ok(Alarm { member: EtcdId(alarm.member_id), kind })
}

fn auth_entry(facts: &mut StoreFacts, key: &[u8], value: &[u8]) -> Result<(), String> {
    if key == b"authEnabled" {
        facts.auth_enabled = value == [1];
    }
    Ok(())
}
