//! Membership: listing, adding a learner, promoting, removing; each change idempotent.

use super::CALL;
use super::connect::Connection;
use crate::fault::{Fault, Outcome};
use crate::host::HostErrorKind;
use etcd_client::{GetOptions, Member, MemberAddOptions};
use rekindle_model::MemberId;
use rekindle_model::etcd::EtcdMember;

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

/// Adds a learner with these peer URLs; a member that has them already is the answer too.
pub(super) async fn add_learner(connection: &Connection, peer_urls: &[String]) -> Outcome<EtcdMember> {
    if let Some(found) = with_peer_urls(connection, peer_urls).await? {
        return Ok(found);
    }
    let mut client = connection.client().await?;
    let options = MemberAddOptions::new().with_is_learner();
    let added = connection.within(CALL, client.member_add(peer_urls, Some(options))).await;
    match added {
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
    let mut client = connection.client().await?;
    match connection.within(CALL, client.member_promote(id.0)).await {
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
    let mut client = connection.client().await?;
    match connection.within(CALL, client.member_remove(id.0)).await {
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
