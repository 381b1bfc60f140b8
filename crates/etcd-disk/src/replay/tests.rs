//! Apply rules that a killed etcd hardly ever leaves in its log (it commits its database at once when it deletes from
//! it), and logs that do not fit. What it does leave is held against etcd itself in `tests/stock_replay.rs`.

use std::path::{Path, PathBuf};

use boltfile::{BoltFile, Writer};
use prost::Message;

use super::{CommittedBy, Replayed, replay};
use crate::live::for_each_row;
use crate::proto::*;
use crate::wal::{Encoder, kind};

const ALONE: &[u64] = &[1];

/// A member with an empty store that has applied entries up to 10, in a cluster of `voters`; it is number 1.
fn member(dir: &Path, voters: &[u64], more: &[(&str, &[u8], &[u8])]) -> PathBuf {
    let path = dir.join("db");
    let file = crate::files::create_private(&path).unwrap();
    let mut writer = Writer::create("db", file, 4096).unwrap();
    for name in ["alarm", "auth", "cluster", "key", "lease", "members", "meta"] {
        let mut bucket = writer.bucket(name.as_bytes()).unwrap();
        for (_, key, value) in more.iter().filter(|(bucket, ..)| *bucket == name) {
            bucket.put(key, value).unwrap();
        }
        if name == "members" {
            for id in voters {
                bucket.put(format!("{id:x}").as_bytes(), format!(r#"{{"id":{id}}}"#).as_bytes()).unwrap();
            }
        }
        if name == "meta" {
            bucket.put(b"consistent_index", &10u64.to_be_bytes()).unwrap();
            bucket.put(b"term", &2u64.to_be_bytes()).unwrap();
        }
    }
    writer.finish().unwrap();
    path
}

/// A log whose entries begin at `first`.
fn log(dir: &Path, first: u64, commit: u64, requests: &[InternalRaftRequest]) -> PathBuf {
    let wal_dir = dir.join("wal");
    std::fs::create_dir(&wal_dir).unwrap();
    let mut log = Encoder::default();
    log.record(kind::CRC, None);
    let ids = WalMetadata { node_id: Some(1), cluster_id: Some(2) };
    log.record(kind::METADATA, Some(ids.encode_to_vec()));
    for (index, request) in (first..).zip(requests) {
        let data = InternalRaftRequest { id: index, ..request.clone() }.encode_to_vec();
        let entry = Entry { entry_type: Some(0), term: Some(3), index: Some(index), data: Some(data) };
        log.record(kind::ENTRY, Some(entry.encode_to_vec()));
    }
    let state = HardState { term: Some(3), vote: Some(1), commit: Some(commit) };
    log.record(kind::STATE, Some(state.encode_to_vec()));
    std::fs::write(wal_dir.join("0000000000000000-0000000000000001.wal"), log.bytes).unwrap();
    wal_dir
}

fn put(key: &str, lease: i64) -> InternalRaftRequest {
    let put = PutRequest { key: key.into(), value: b"v".to_vec(), lease, ..PutRequest::default() };
    InternalRaftRequest { put: Some(put), ..InternalRaftRequest::default() }
}

fn grant(id: i64) -> InternalRaftRequest {
    let lease_grant = Some(LeaseGrantRequest { id, ttl: 60 });
    InternalRaftRequest { lease_grant, ..InternalRaftRequest::default() }
}

fn revoke(id: i64) -> InternalRaftRequest {
    InternalRaftRequest { lease_revoke: Some(LeaseRevokeRequest { id }), ..InternalRaftRequest::default() }
}

fn compact(revision: i64) -> InternalRaftRequest {
    let compaction = Some(CompactionRequest { revision, physical: false });
    InternalRaftRequest { compaction, ..InternalRaftRequest::default() }
}

fn no_space(action: i32) -> InternalRaftRequest {
    let alarm = Some(AlarmRequest { action, member_id: 1, alarm: 1 });
    InternalRaftRequest { alarm, ..InternalRaftRequest::default() }
}

fn operation(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn put_op(key: &str) -> RequestOp {
    operation(Request::Put(put(key, 0).put.unwrap()))
}

/// Replays and lists the rows as "main.sub key" with a minus before a deleted key.
fn rows_after(requests: &[InternalRaftRequest]) -> (Replayed, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let db = member(dir.path(), ALONE, &[]);
    let wal_dir = log(dir.path(), 11, 0, requests);
    let out = dir.path().join("out");
    let replayed = replay(&db, &wal_dir, &out).unwrap();
    let mut rows = Vec::new();
    for_each_row(&BoltFile::open(&out).unwrap(), &out, &mut |row, kv| {
        let sign = if row.tombstone { "-" } else { "" };
        let key = String::from_utf8_lossy(kv.key);
        rows.push(format!("{}.{} {sign}{key}", row.revision.main, row.revision.sub));
        Ok(())
    })
    .unwrap();
    (replayed, rows)
}

#[test]
fn a_revoked_lease_deletes_its_keys_in_order_at_one_revision() {
    let requests =
        [grant(7), put("b", 7), put("a", 7), put("c", 7), put("c", 0), revoke(7), revoke(7), put("d", 7)];
    let (replayed, rows) = rows_after(&requests);
    assert_eq!(rows, ["2.0 b", "3.0 a", "4.0 c", "5.0 c", "6.0 -a", "6.1 -b"]);
    assert_eq!((replayed.revision, replayed.live_keys, replayed.changes), (6, 1, 5));
    assert_eq!((replayed.from_index, replayed.to_index), (10, 18));
}

#[test]
fn a_compaction_moves_the_compact_revision_within_its_bounds() {
    let (replayed, _) = rows_after(&[put("a", 0), put("a", 0), compact(2), compact(1), compact(99)]);
    assert_eq!((replayed.compact_revision, replayed.revision), (2, 3));
    assert_eq!(replayed.hash_kv.compact_revision, 2);
}

#[test]
fn a_full_store_takes_deletions_only() {
    let delete = DeleteRangeRequest { key: b"a".to_vec(), ..DeleteRangeRequest::default() };
    let delete = InternalRaftRequest { delete_range: Some(delete), ..InternalRaftRequest::default() };
    let txn = TxnRequest { failure: vec![put_op("t")], ..TxnRequest::default() };
    let txn = InternalRaftRequest { txn: Some(txn), ..InternalRaftRequest::default() };
    let requests = [put("a", 0), no_space(1), put("b", 0), grant(5), txn, delete, no_space(2), put("c", 0)];
    let (_, rows) = rows_after(&requests);
    assert_eq!(rows, ["2.0 a", "3.0 -a", "4.0 c"]);
}

#[test]
fn nested_transactions_compare_with_the_state_before_and_apply_in_order() {
    let missing = |key: &str| Compare { target: 0, result: 0, key: key.into(), ..Compare::default() };
    let inner = TxnRequest {
        compare: vec![missing("a")],
        success: vec![put_op("inner-success")],
        failure: vec![put_op("inner-failure")],
    };
    let outer = TxnRequest {
        compare: vec![missing("a")],
        success: vec![put_op("a"), operation(Request::Txn(inner)), put_op("z")],
        failure: vec![],
    };
    let (_, rows) = rows_after(&[InternalRaftRequest { txn: Some(outer), ..InternalRaftRequest::default() }]);
    assert_eq!(rows, ["2.0 a", "2.1 inner-success", "2.2 z"]);
}

#[test]
fn a_put_that_is_refused_undoes_its_whole_transaction() {
    let refused = operation(Request::Put(put("x", 404).put.unwrap()));
    let txn = TxnRequest { success: vec![put_op("a"), refused], ..TxnRequest::default() };
    let txn = InternalRaftRequest { txn: Some(txn), ..InternalRaftRequest::default() };
    let (replayed, rows) = rows_after(&[txn]);
    assert!(rows.is_empty());
    assert_eq!(replayed.revision, 1);
}

#[test]
fn of_several_voters_only_what_is_committed_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    let db = member(dir.path(), &[1, 2, 3], &[]);
    let wal_dir =
        log(dir.path(), 9, 12, &[put("old", 0), put("old", 0), put("a", 0), put("b", 0), put("c", 0)]);
    let replayed = replay(&db, &wal_dir, &dir.path().join("out")).unwrap();
    assert_eq!(replayed.committed_by, CommittedBy::HardState);
    assert_eq!((replayed.to_index, replayed.uncommitted, replayed.live_keys), (12, 1, 2));
}

/// The message says why, and no file is left.
fn refusal(more: &[(&str, &[u8], &[u8])], first: u64, commit: u64, request: InternalRaftRequest) -> String {
    let dir = tempfile::tempdir().unwrap();
    let db = member(dir.path(), ALONE, more);
    let wal_dir = log(dir.path(), first, commit, &[request]);
    let out = dir.path().join("out");
    let error = replay(&db, &wal_dir, &out).unwrap_err().to_string();
    assert!(!out.exists());
    error
}

#[test]
fn what_cannot_be_applied_is_refused_with_its_reason() {
    let gap = refusal(&[], 12, 0, put("a", 0));
    assert!(gap.contains("12") && gap.contains("up to entry 10"), "{gap}");
    let lost = refusal(&[], 11, 40, put("a", 0));
    assert!(lost.contains("committed (up to 40)"), "{lost}");
    let auth = InternalRaftRequest { auth_enable: Some(Vec::new()), ..InternalRaftRequest::default() };
    assert!(refusal(&[], 11, 0, auth).contains("authentication"));
    assert!(refusal(&[], 11, 0, InternalRaftRequest::default()).contains("does not know"));
    let on = refusal(&[("auth", b"authEnabled", &[1])], 11, 0, put("a", 0));
    assert!(on.contains("authentication is on"), "{on}");
    let alarm = AlarmMember { member_id: 1, alarm: 2 }.encode_to_vec();
    let corrupt = refusal(&[("alarm", &alarm, b"")], 11, 0, put("a", 0));
    assert!(corrupt.contains("CORRUPT"), "{corrupt}");
}
