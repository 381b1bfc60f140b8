//! What each request in the log does to the store. A request that etcd answers with an error changes nothing.
//!
//! Source: `EtcdServer.applyEntryNormal`, `uberApplier.dispatch`, `applierV3Capped` (NOSPACE), `applierV3Corrupt`, and
//! `mvcctxn` (compares, checks, order of a transaction) in etcd `server/etcdserver`. As at its start, etcd leaves out
//! the reads of a transaction whose client is gone.

use std::cmp::Ordering;

use prost::Message;

use super::store::{Live, Store};
use crate::facts::{AlarmKind, parse_alarm};
use crate::proto::{
    AlarmMember, AlarmRequest, Compare, CompareTarget, Entry, InternalRaftRequest, LeaseGrantRequest,
    PutRequest, Request, RequestOp, TxnRequest,
};

/// etcd's `MaxLeaseTTL`, seconds.
const LEASE_TTL_MAX_S: i64 = 9_000_000_000;
/// 1.5 election timeouts of the default configuration, rounded up, seconds.
const LEASE_TTL_MIN_S: i64 = 2;

/// Applies one entry; an error says why it cannot be applied natively.
pub(super) fn entry(store: &mut Store<'_>, entry: &Entry) -> Result<(), String> {
    let data = entry.data.as_deref().unwrap_or_default();
    // a new leader's empty entry, or a change of membership, which the caller counts
    if data.is_empty() || entry.entry_type.unwrap_or(0) != 0 {
        return Ok(());
    }
    match InternalRaftRequest::decode(data) {
        Ok(request) => self::request(store, request),
        Err(_) if is_v2(data) => Ok(()),
        Err(e) => Err(format!("it is no request: {e}")),
    }
}

/// Requests of the v2 API carry membership attributes and the cluster version, no rows. Bare ones are an
/// `etcdserverpb.Request` with a method in field 2.
fn is_v2(data: &[u8]) -> bool {
    #[derive(Clone, PartialEq, Message)]
    struct V2 {
        #[prost(string, tag = "2")]
        method: String,
    }
    let method = V2::decode(data).map(|request| request.method).unwrap_or_default();
    matches!(method.as_str(), "PUT" | "POST" | "DELETE" | "QGET" | "SYNC")
}

fn request(store: &mut Store<'_>, request: InternalRaftRequest) -> Result<(), String> {
    if let Some(what) = unsupported(&request) {
        return Err(format!("it changes {what}; let an etcd apply the log"));
    }
    if alarmed(store, AlarmKind::Corrupt) && changes_data(&request) {
        return Ok(());
    }
    let full = alarmed(store, AlarmKind::NoSpace);
    if let Some(put) = &request.put {
        if !full {
            apply_put(store, put)?;
        }
    } else if let Some(delete) = &request.delete_range {
        store.delete_range(&delete.key, &delete.range_end);
    } else if let Some(txn) = &request.txn {
        if !(full && puts_something(txn)) {
            apply_txn(store, txn)?;
        }
    } else if let Some(compaction) = &request.compaction {
        store.compact(compaction.revision);
    } else if let Some(grant) = &request.lease_grant {
        if !full {
            apply_grant(store, grant);
        }
    } else if let Some(revoke) = &request.lease_revoke {
        store.revoke(revoke.id);
    } else if let Some(checkpoints) = &request.lease_checkpoint {
        if keeps_checkpoints(store.cluster_version()) {
            for checkpoint in &checkpoints.checkpoints {
                store.checkpoint(checkpoint.id, checkpoint.remaining_ttl);
            }
        }
    } else if let Some(alarm) = &request.alarm {
        apply_alarm(store, alarm);
    } else if let Some(version) = request.cluster_version_set {
        store.set_cluster_version(version.ver);
    } else if !is_without_effect(&request) {
        return Err("it is of a kind that this version does not know".into());
    }
    store.end();
    Ok(())
}

/// Users and roles decide what is applied after them; nothing here can decide that.
fn unsupported(request: &InternalRaftRequest) -> Option<&'static str> {
    let auth = [
        &request.auth_enable,
        &request.auth_disable,
        &request.auth_user_add,
        &request.auth_user_delete,
        &request.auth_user_change_password,
        &request.auth_user_grant_role,
        &request.auth_user_revoke_role,
        &request.auth_role_add,
        &request.auth_role_delete,
        &request.auth_role_grant_permission,
        &request.auth_role_revoke_permission,
    ];
    auth.iter().any(|request| request.is_some()).then_some("users, roles or authentication")
}

/// Reads, and what concerns the members alone.
fn is_without_effect(request: &InternalRaftRequest) -> bool {
    let reads = [
        &request.v2,
        &request.range,
        &request.authenticate,
        &request.auth_status,
        &request.auth_user_get,
        &request.auth_user_list,
        &request.auth_role_get,
        &request.auth_role_list,
        &request.downgrade_version_test,
    ];
    reads.iter().any(|request| request.is_some())
        || request.cluster_member_attr_set.is_some()
        || request.downgrade_info_set.is_some()
}

fn changes_data(request: &InternalRaftRequest) -> bool {
    request.put.is_some()
        || request.delete_range.is_some()
        || request.txn.is_some()
        || request.compaction.is_some()
        || request.lease_grant.is_some()
        || request.lease_revoke.is_some()
}

fn alarmed(store: &Store<'_>, kind: AlarmKind) -> bool {
    store.alarms().keys().any(|stored| parse_alarm(stored).is_ok_and(|alarm| alarm.kind == kind))
}

/// From cluster version 3.6 on a lease's remaining time is stored.
fn keeps_checkpoints(cluster_version: Option<&str>) -> bool {
    let mut parts = cluster_version.unwrap_or_default().split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else { return false };
    (major, minor) >= (3, 6)
}

fn apply_grant(store: &mut Store<'_>, grant: &LeaseGrantRequest) {
    if grant.id != 0 && grant.ttl <= LEASE_TTL_MAX_S && !store.lease_exists(grant.id) {
        store.grant(grant.id, grant.ttl.max(LEASE_TTL_MIN_S));
    }
}

fn apply_alarm(store: &mut Store<'_>, request: &AlarmRequest) {
    let stored = AlarmMember { member_id: request.member_id, alarm: request.alarm }.encode_to_vec();
    match request.action {
        1 if request.alarm != 0 => store.set_alarm(stored, true),
        2 => store.set_alarm(stored, false),
        _ => {}
    }
}

fn apply_put(store: &mut Store<'_>, put: &PutRequest) -> Result<(), String> {
    if is_allowed(store, put) { write(store, put) } else { Ok(()) }
}

/// A lease must exist; a value or lease to be kept needs a key that has one.
fn is_allowed(store: &Store<'_>, put: &PutRequest) -> bool {
    let kept = put.ignore_value || put.ignore_lease;
    (put.lease == 0 || store.lease_exists(put.lease)) && (!kept || store.get(&put.key).is_some())
}

fn write(store: &mut Store<'_>, put: &PutRequest) -> Result<(), String> {
    let before = store.get(&put.key).copied();
    let kept = match before {
        Some(live) if put.ignore_value => Some(store.value(&live)?),
        _ => None,
    };
    let lease = before.filter(|_| put.ignore_lease).map_or(put.lease, |live| live.lease);
    store.put(&put.key, kept.as_deref().unwrap_or(&put.value), lease);
    Ok(())
}

/// NOSPACE refuses a transaction with a put in either branch, on its first level.
fn puts_something(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| matches!(op.request, Some(Request::Put(_))))
}

fn apply_txn(store: &mut Store<'_>, txn: &TxnRequest) -> Result<(), String> {
    let operations = chosen(store, txn)?;
    let refused = |op: &&Request| matches!(op, Request::Put(put) if !is_allowed(store, put));
    if operations.iter().any(refused) {
        return Ok(());
    }
    for operation in operations {
        match operation {
            Request::Put(put) => write(store, put)?,
            Request::DeleteRange(delete) => store.delete_range(&delete.key, &delete.range_end),
            Request::Range(_) | Request::Txn(_) => {}
        }
    }
    Ok(())
}

/// The operations of the branches taken, in order. All compares see the state before the transaction.
fn chosen<'t>(store: &Store<'_>, txn: &'t TxnRequest) -> Result<Vec<&'t Request>, String> {
    let mut operations = Vec::new();
    let mut levels = vec![branch(store, txn)?.iter()];
    while let Some(level) = levels.last_mut() {
        match level.next().map(|op| &op.request) {
            None => {
                levels.pop();
            }
            Some(Some(Request::Txn(nested))) => levels.push(branch(store, nested)?.iter()),
            Some(Some(operation)) => operations.push(operation),
            Some(None) => {}
        }
    }
    Ok(operations)
}

fn branch<'t>(store: &Store<'_>, txn: &'t TxnRequest) -> Result<&'t [RequestOp], String> {
    for compare in &txn.compare {
        if !holds(store, compare)? {
            return Ok(&txn.failure);
        }
    }
    Ok(&txn.success)
}

/// A compare over a range holds if it does for each key; of a missing key all numbers are 0, and no value holds.
fn holds(store: &Store<'_>, compare: &Compare) -> Result<bool, String> {
    let keys = store.range(&compare.key, &compare.range_end);
    if keys.is_empty() {
        return Ok(compare.target != 3 && number_holds(compare, None));
    }
    for live in keys.iter().filter_map(|key| store.get(key)) {
        let held = if compare.target == 3 {
            let wanted = match &compare.target_union {
                Some(CompareTarget::Value(value)) => value.as_slice(),
                _ => &[],
            };
            verdict(compare.result, store.value(live)?.as_slice().cmp(wanted))
        } else {
            number_holds(compare, Some(live))
        };
        if !held {
            return Ok(false);
        }
    }
    Ok(true)
}

fn number_holds(compare: &Compare, live: Option<&Live>) -> bool {
    let wanted = match (compare.target, &compare.target_union) {
        (0, Some(CompareTarget::Version(n)))
        | (1, Some(CompareTarget::CreateRevision(n)))
        | (2, Some(CompareTarget::ModRevision(n)))
        | (4, Some(CompareTarget::Lease(n))) => *n,
        _ => 0,
    };
    let found = live.map_or(0, |live| match compare.target {
        0 => live.version,
        1 => live.create_revision,
        2 => live.revision.main,
        4 => live.lease,
        // a target that etcd does not have compares as equal
        _ => wanted,
    });
    verdict(compare.result, found.cmp(&wanted))
}

fn verdict(result: i32, ordering: Ordering) -> bool {
    match result {
        0 => ordering == Ordering::Equal,
        1 => ordering == Ordering::Greater,
        2 => ordering == Ordering::Less,
        3 => ordering != Ordering::Equal,
        _ => true,
    }
}
