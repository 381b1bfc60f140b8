//! Membership: listing, adding a learner, promoting, removing; each change idempotent.

use super::CALL;
use super::connect::Connection;
use crate::fault::{Fault, Outcome};
use crate::host::HostErrorKind;
use etcd_client::{Client, Error, GetOptions, Member, MemberAddOptions};
use rekindle_model::MemberId;
use rekindle_model::etcd::EtcdMember;
use std::future::Future;
use std::time::{Duration, Instant};

/// Members as this one knows them; `linearizable`: not older than the moment of asking.
pub(super) async fn list(connection: &Connection, linearizable: bool) -> Outcome<Vec<EtcdMember>> {
    let mut client = connection.client().await?;
    if linearizable {
        // The client library can't set MemberListRequest.linearizable. The server does for it just what it does for
        // a linearizable read, LinearizableReadNotify, and then answers from memory (etcdserver/api/v3rpc/member.go):
        // on one connection, so to one member, a read before the list is the same.
        let options = GetOptions::new().with_count_only();
        connection.within(CALL, client.get("rekindle", Some(options))).await?;
    }
    let answer = connection.within(CALL, client.member_list()).await?;
    Ok(answer.members().iter().map(member).collect())
}

/// Longest wait for etcd to trust connections between its members: it wants each to have stood for 5 s
/// (`HealthInterval`) before it changes the membership, so right after a member's start it refuses.
const UNTIL_TRUSTED: Duration = Duration::from_secs(15);

/// Makes a change of membership, asking again while etcd says that the cluster is too young to be changed.
async fn change<T, F: Future<Output = Result<T, Error>>>(
    connection: &Connection,
    mut ask: impl FnMut(Client) -> F,
) -> Outcome<T> {
    let deadline = Instant::now() + UNTIL_TRUSTED;
    loop {
        let answer = connection.within(CALL, ask(connection.client().await?)).await;
        match &answer {
            Err(fault) if fault.what.contains("unhealthy cluster") && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            _ => return answer,
        }
    }
}

/// Adds a learner with these peer URLs; a member that has them already is the answer too.
pub(super) async fn add_learner(connection: &Connection, peer_urls: &[String]) -> Outcome<EtcdMember> {
    if let Some(found) = with_peer_urls(connection, peer_urls).await? {
        return Ok(found);
    }
    let options = MemberAddOptions::new().with_is_learner();
    let added = change(connection, |mut client| {
        let options = options.clone();
        async move { client.member_add(peer_urls, Some(options)).await }
    });
    match added.await {
        Ok(answer) => {
            answer.member().map(member).ok_or_else(|| Fault::failed("answered without the new member"))
        }
        // Asked twice at once, or the answer to the first time got lost.
        Err(fault) => with_peer_urls(connection, peer_urls).await.ok().flatten().ok_or(fault),
    }
}

async fn with_peer_urls(connection: &Connection, peer_urls: &[String]) -> Outcome<Option<EtcdMember>> {
    let mut wanted = peer_urls.to_vec();
    wanted.sort();
    Ok(list(connection, true).await?.into_iter().find(|m| {
        let mut urls = m.peer_urls.clone();
        urls.sort();
        urls == wanted
    }))
}

/// Promotes a learner to a voter; one that votes already is success.
pub(super) async fn promote(connection: &Connection, id: MemberId) -> Outcome<()> {
    let votes = |members: Vec<EtcdMember>| members.iter().any(|m| m.id == id && !m.is_learner);
    if votes(list(connection, true).await?) {
        return Ok(());
    }
    match change(connection, |mut client| async move { client.member_promote(id.0).await }).await {
        Ok(_) => Ok(()),
        Err(fault) if list(connection, true).await.is_ok_and(votes) => {
            drop(fault);
            Ok(())
        }
        Err(fault) => Err(Fault { what: format!("member {id}: {}", fault.what), ..fault }),
    }
}

/// Removes a member; one that is not there is success.
pub(super) async fn remove(connection: &Connection, id: MemberId) -> Outcome<()> {
    match change(connection, |mut client| async move { client.member_remove(id.0).await }).await {
        Ok(_) => Ok(()),
        Err(fault) if fault.kind == HostErrorKind::NotFound => Ok(()),
        Err(fault) => Err(Fault { what: format!("member {id}: {}", fault.what), ..fault }),
    }
}

/// A member as the seam tells it.
pub(super) fn member(m: &Member) -> EtcdMember {
    EtcdMember {
        id: MemberId(m.id()),
        name: m.name().to_owned(),
        peer_urls: m.peer_urls().to_vec(),
        client_urls: m.client_urls().to_vec(),
        is_learner: m.is_learner(),
    }
}
