//! Calls to one running etcd over gRPC, with the TLS identity that its host keeps in files.
//!
//! One connection per request, to one member alone: what is asked is always what *this* member says. Every wait is
//! bounded. Start with [`live`] (what an observer wants to know, partial by nature) and [`call`] (one request);
//! `connect` holds the transport, `live` the probe, `members` the changes of membership, `snapshot` the stream into
//! a file, `watch` a connection that is kept and the stream of changes. Semantics of the calls are those of etcd's `server/etcdserver/api/v3rpc` (3.5 to 3.7).

mod connect;
mod live;
mod members;
mod snapshot;
mod watch;

use crate::fault::{Fault, Outcome};
use crate::host::{EtcdCall, HostErrorKind, Reply};
use camino::Utf8Path;
use connect::Connection;
use etcd_client::{GetOptions, StatusResponse};
use rekindle_model::MemberId;
use rekindle_model::etcd::{EtcdEndpoint, EtcdStatus, HashKv};
use std::time::{Duration, Instant};

pub use live::{alarms, live};
pub use watch::{Change, LeaseTtl, MemberClient, Watch, WatchContent, WatchMessage};

/// Longest wait for the TCP connection and the TLS handshake.
const CONNECT: Duration = Duration::from_secs(2);
/// Longest wait for most calls: etcd itself gives up a proposal after 5 s and two election timeouts.
const CALL: Duration = Duration::from_secs(10);
/// `HashKV` reads every row: minutes on the largest stores and slowest disks.
const HASH: Duration = Duration::from_secs(300);
/// Counting walks the index in memory.
const COUNT: Duration = Duration::from_secs(30);
/// Most bytes of keys and values that one `Range` brings back.
const MAX_RANGE_BYTES: usize = 32 << 20;

/// How long an election under a call may last before it is told: a few of etcd's default election timeouts of 1 s.
const ELECTION: Duration = Duration::from_secs(10);
/// What etcd answers to a call that an election caught (`rpctypes`). A change of members that timed out this way may
/// have been made; each of them here does nothing when asked again.
const CAUGHT_BY_ELECTION: [&str; 2] =
    ["etcdserver: leader changed", "etcdserver: request timed out, possibly due to previous leader failure"];

/// Makes one call to the etcd behind `endpoint`, whose certificate files lie under `root`.
///
/// # Errors
/// Names the endpoint and the call. `Unavailable`: no connection, no answer in time, or etcd says that it can't
/// answer now; a call caught by an election is asked again until one is over. `NotFound` and `Refused`: etcd's own `NotFound` and `FailedPrecondition`. TLS trouble is `Failed`.
pub async fn call(endpoint: &EtcdEndpoint, call: &EtcdCall, root: &Utf8Path) -> Outcome<Reply> {
    let name = call_name(call);
    let named = |fault: Fault| Fault { what: format!("{}: {name}: {}", endpoint.url, fault.what), ..fault };
    let connection = Connection::open(endpoint, root).await.map_err(named)?;
    let deadline = Instant::now() + ELECTION;
    loop {
        match answer(&connection, call, root).await {
            Err(fault) if caught_by_election(&fault) && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            told => return told.map_err(named),
        }
    }
}

fn caught_by_election(fault: &Fault) -> bool {
    fault.kind == HostErrorKind::Unavailable
        && CAUGHT_BY_ELECTION.iter().any(|text| fault.what.contains(text))
}

async fn answer(connection: &Connection, call: &EtcdCall, root: &Utf8Path) -> Outcome<Reply> {
    Ok(match call {
        EtcdCall::Status => Reply::Status(status(connection).await?),
        EtcdCall::HashKv { revision } => Reply::HashKv(hash_kv(connection, *revision).await?),
        EtcdCall::CountKeys => Reply::Count(count_keys(connection).await?),
        EtcdCall::MemberList { linearizable } => {
            Reply::Members(members::list(connection, *linearizable).await?)
        }
        EtcdCall::AddLearner { peer_urls } => {
            Reply::Members(vec![members::add_learner(connection, peer_urls).await?])
        }
        EtcdCall::Promote { member } => {
            members::promote(connection, *member).await?;
            Reply::Done
        }
        EtcdCall::Remove { member } => {
            members::remove(connection, *member).await?;
            Reply::Done
        }
        EtcdCall::Range { prefix, limit } => Reply::Pairs(range(connection, prefix, *limit).await?),
        EtcdCall::DeleteKeys { keys } => {
            delete_keys(connection, keys).await?;
            Reply::Done
        }
        EtcdCall::Snapshot { to } => Reply::Saved(snapshot::save(connection, to, root).await?),
    })
}

/// The call as etcd names it, for error texts.
fn call_name(call: &EtcdCall) -> &'static str {
    match call {
        EtcdCall::Status => "Status",
        EtcdCall::HashKv { .. } => "HashKV",
        EtcdCall::CountKeys => "Range (count)",
        EtcdCall::MemberList { .. } => "MemberList",
        EtcdCall::AddLearner { .. } => "MemberAdd",
        EtcdCall::Promote { .. } => "MemberPromote",
        EtcdCall::Remove { .. } => "MemberRemove",
        EtcdCall::Range { .. } => "Range",
        EtcdCall::DeleteKeys { .. } => "DeleteRange",
        EtcdCall::Snapshot { .. } => "Snapshot",
    }
}

async fn status(connection: &Connection) -> Outcome<EtcdStatus> {
    let mut client = connection.client().await?;
    let answer = connection.within(CALL, client.status()).await?;
    Ok(status_of(&answer))
}

fn status_of(answer: &StatusResponse) -> EtcdStatus {
    let header = answer.header();
    EtcdStatus {
        cluster_id: MemberId(header.map_or(0, |h| h.cluster_id())),
        member_id: MemberId(header.map_or(0, |h| h.member_id())),
        version: answer.version().to_owned(),
        revision: header.map_or(0, |h| h.revision()),
        db_size_bytes: answer.db_size(),
        leader: MemberId(answer.leader()),
        raft_index: answer.raft_index(),
        raft_applied_index: answer.raft_applied_index(),
        raft_term: answer.raft_term(),
        is_learner: answer.is_learner(),
        errors: answer.errors().to_vec(),
    }
}

async fn hash_kv(connection: &Connection, revision: i64) -> Outcome<HashKv> {
    let mut client = connection.client().await?;
    let answer = connection.within(HASH, client.hash_kv(revision)).await?;
    // 3.5 has no hash_revision: there the header's revision is the store's at the time of the hash.
    let hashed_to = match (answer.hash_revision(), revision) {
        (0, 0) => answer.header().map_or(0, |h| h.revision()),
        (0, asked) => asked,
        (told, _) => told,
    };
    Ok(HashKv { hash: answer.hash(), revision: hashed_to, compact_revision: answer.compact_version() })
}

async fn count_keys(connection: &Connection) -> Outcome<u64> {
    let mut client = connection.client().await?;
    let options = GetOptions::new().with_all_keys().with_count_only().with_serializable();
    let answer = connection.within(COUNT, client.get("", Some(options))).await?;
    u64::try_from(answer.count()).map_err(|_| Fault::failed(format!("{} keys counted", answer.count())))
}

/// Keys under a prefix, linearizable, in key order, at most `limit` of them (0 = all), page by page.
async fn range(connection: &Connection, prefix: &str, limit: i64) -> Outcome<Vec<(String, Vec<u8>)>> {
    const PAGE: i64 = 500;
    let mut client = connection.client().await?.kv_client().max_decoding_message_size(MAX_RANGE_BYTES);
    let end = prefix_end(prefix.as_bytes());
    let mut from = if prefix.is_empty() { vec![0] } else { prefix.as_bytes().to_vec() };
    let mut pairs: Vec<(String, Vec<u8>)> = Vec::new();
    let mut bytes = 0_usize;
    let mut revision = 0;
    loop {
        let left = limit.saturating_sub(i64::try_from(pairs.len()).unwrap_or(i64::MAX));
        if limit > 0 && left <= 0 {
            return Ok(pairs);
        }
        let page = if limit > 0 { left.min(PAGE) } else { PAGE };
        let options = GetOptions::new().with_range(end.clone()).with_limit(page).with_revision(revision);
        let mut answer = connection.within(CALL, client.get(from.clone(), Some(options))).await?;
        // all pages of one moment
        revision = if revision == 0 { answer.header().map_or(0, |h| h.revision()) } else { revision };
        let more = answer.more();
        let rows = answer.take_kvs();
        if let Some(last) = rows.last() {
            from = last.key().to_vec();
            from.push(0);
        } else if more {
            return Err(Fault::failed("an empty page, and more to come"));
        }
        for row in rows {
            bytes = bytes.saturating_add(row.key().len()).saturating_add(row.value().len());
            if bytes > MAX_RANGE_BYTES {
                return Err(Fault::refused(format!("more than {MAX_RANGE_BYTES} bytes under {prefix:?}")));
            }
            let (key, value) = row.into_key_value();
            let key = String::from_utf8(key)
                .map_err(|e| Fault::failed(format!("key {:?} is not UTF-8", e.as_bytes())))?;
            pairs.push((key, value));
        }
        if !more {
            return Ok(pairs);
        }
    }
}

/// End of the range of keys with a prefix, as etcd's clients compute it: last byte below 0xff raised by one.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0] // no end
}

async fn delete_keys(connection: &Connection, keys: &[String]) -> Outcome<()> {
    let mut client = connection.client().await?;
    for key in keys {
        connection
            .within(CALL, client.delete(key.as_str(), None))
            .await
            .map_err(|fault| Fault { what: format!("key {key}: {}", fault.what), ..fault })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // The end of a prefix decides what a range over it returns (and would delete): edges are 0xff and the empty one.
    #[test]
    fn the_end_of_a_prefix_is_the_next_key_that_does_not_have_it() {
        assert_eq!(prefix_end(b"/registry/masterleases/"), b"/registry/masterleases0");
        assert_eq!(prefix_end(b"a\xff\xff"), b"b");
        assert_eq!(prefix_end(b"\xff"), b"\0");
        assert_eq!(prefix_end(b""), b"\0");
    }
}
