//! What one running etcd says of itself: everything at once, each part for itself, all within [`LIMIT`].

use super::connect::{CLOSED, Connection};
use super::{count_keys, members, status};
use crate::fault::{Fault, Outcome};
use crate::host::HostErrorKind;
use camino::Utf8Path;
use etcd_client::GetOptions;
use rekindle_model::Seen;
use rekindle_model::etcd::{EtcdEndpoint, EtcdLive, EtcdStatus};
use std::future::Future;
use std::time::Duration;

/// Longest wait for the parts, after the connection stands (whose own limit is 2 s).
const LIMIT: Duration = Duration::from_secs(3);

/// Asks the etcd behind `endpoint` for all that [`EtcdLive`] holds, in at most 5 s. Nothing is written: alarms are
/// taken from its status, because `Alarm` with GET is a raft proposal, which needs a quorum and grows the log.
pub async fn live(endpoint: &EtcdEndpoint, root: &Utf8Path) -> EtcdLive {
    let connection = match Connection::open(endpoint, root).await {
        Ok(connection) => connection,
        Err(fault) => return nothing(endpoint, &fault),
    };
    let (status, members, quorum, live_keys, kube_system) = tokio::join!(
        bounded(status(&connection)),
        bounded(members::list(&connection, false)),
        bounded(linearizable_read(&connection)),
        bounded(count_keys(&connection)),
        bounded(kube_system(&connection)),
    );
    let trouble = [status.as_ref().err(), members.as_ref().err(), live_keys.as_ref().err()];
    let note = trouble.into_iter().flatten().find_map(note);
    let known = status.as_ref().ok();
    let (kube_system_uid, kube_system_created_s) = match kube_system {
        Ok((uid, created_s)) => (Ok(uid), created_s),
        Err(fault) => (Err(fault), None),
    };
    EtcdLive {
        kube_system_created_s,
        quorum: in_quorum(known, quorum),
        alarms: alarms_seen(known),
        members: seen(endpoint, "MemberList", members),
        live_keys: seen(endpoint, "Range (count)", live_keys),
        kube_system_uid: seen(endpoint, "Range (kube-system)", kube_system_uid),
        status: seen(endpoint, "Status", status),
        note,
    }
}

fn nothing(endpoint: &EtcdEndpoint, fault: &Fault) -> EtcdLive {
    let why = format!("{}: {}", endpoint.url, fault.what);
    EtcdLive {
        status: Seen::Unknown(why.clone()),
        members: Seen::Unknown(why.clone()),
        quorum: Seen::Unknown(why.clone()),
        alarms: Seen::Unknown(why.clone()),
        live_keys: Seen::Unknown(why.clone()),
        kube_system_uid: Seen::Unknown(why),
        kube_system_created_s: None,
        note: note(fault),
    }
}

/// Trouble worth telling: everything but "nobody there" and "not now".
fn note(fault: &Fault) -> Option<String> {
    let expected = matches!(fault.kind, HostErrorKind::Unavailable | HostErrorKind::Refused);
    (!expected || fault.what.contains(CLOSED)).then(|| fault.what.clone())
}

async fn bounded<T>(part: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let late = || Fault::unavailable(format!("no answer within {} s", LIMIT.as_secs()));
    tokio::time::timeout(LIMIT, part).await.unwrap_or_else(|_| Err(late()))
}

fn seen<T>(endpoint: &EtcdEndpoint, part: &str, outcome: Outcome<T>) -> Seen<T> {
    match outcome {
        Ok(value) => Seen::Known(value),
        Err(fault) => Seen::Unknown(format!("{}: {part}: {}", endpoint.url, fault.what)),
    }
}

/// The read that etcd's own `/health` makes: of a key that need not exist, but through the quorum.
async fn linearizable_read(connection: &Connection) -> Outcome<()> {
    let mut client = connection.client().await?;
    let options = GetOptions::new().with_count_only();
    connection.within(LIMIT, client.get("health", Some(options))).await.map(|_| ())
}

/// A refused or late linearizable read means "no quorum" only beside a status that names no leader: a leader that
/// lost its quorum steps down within an election timeout, and a slow member still knows its leader.
fn in_quorum(status: Option<&EtcdStatus>, read: Outcome<()>) -> Seen<bool> {
    let Err(fault) = read else { return Seen::Known(true) };
    match status {
        Some(status) if status.leader.0 == 0 => Seen::Known(false),
        _ => Seen::Unknown(format!("linearizable read: {}", fault.what)),
    }
}

/// Alarms out of `Status.errors`, where etcd puts each as the text of an `AlarmMember`: member id and kind (`NOSPACE`,
/// `CORRUPT`).
pub fn alarms(status: &EtcdStatus) -> Vec<(String, String)> {
    status.errors.iter().filter_map(|error| alarm(error)).collect()
}

fn alarms_seen(status: Option<&EtcdStatus>) -> Seen<Vec<String>> {
    let Some(status) = status else { return Seen::Unknown("no status".into()) };
    let known = alarms(status).into_iter().map(|(member, kind)| format!("{member} {kind}"));
    Seen::Known(known.collect())
}

/// `memberID:<decimal> alarm:<NAME>`, with any number of blanks: protobuf's text form varies them on purpose.
fn alarm(error: &str) -> Option<(String, String)> {
    let field =
        |name: &str| error.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix(':'));
    let kind = field("alarm")?;
    let member = field("memberID").and_then(|id| id.parse::<u64>().ok()).unwrap_or(0);
    Some((format!("{member:x}"), kind.to_owned()))
}

/// UID of `kube-system`, and when it was created.
async fn kube_system(connection: &Connection) -> Outcome<(String, Option<i64>)> {
    let mut client = connection.client().await?;
    let options = GetOptions::new().with_serializable();
    let key = kube_storage::kube_system_key(kube_storage::keys::DEFAULT_PREFIX);
    let answer = connection.within(LIMIT, client.get(key.as_str(), Some(options))).await?;
    let row = answer.kvs().first().ok_or_else(|| Fault::not_found(format!("no key {key}")))?;
    let uid = kube_storage::namespace_uid(row.value());
    let uid = uid.map_err(|e| Fault::from_error(HostErrorKind::Failed, key, &e))?;
    Ok((uid, kube_storage::namespace_created_s(row.value())))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Status.errors mixes plain errors with alarms in protobuf text; only alarms must come out, ids as etcd shows them.
    #[test]
    fn alarms_are_told_apart_from_other_errors() {
        let told = |error| alarm(error).map(|(member, kind)| format!("{member} {kind}"));
        let raised = "memberID:10276657743932975437 alarm:NOSPACE ";
        assert_eq!(told(raised).as_deref(), Some("8e9e05c52164694d NOSPACE"));
        assert_eq!(told("memberID:1  alarm:CORRUPT").as_deref(), Some("1 CORRUPT"));
        assert_eq!(alarm("etcdserver: no leader"), None);
    }
}
