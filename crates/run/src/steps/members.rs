//! `RemoveMember`, `AddLearner`, `PromoteLearner`: a member is replaced while the others keep quorum.

use super::context::{Ctx, Polled, outputs};
use super::etcd::in_quorum;
use crate::error::StepError;
use rekindle_model::MemberId;
use rekindle_model::etcd::{EtcdEndpoint, EtcdMember, HashKv};
use rekindle_model::event::Outputs;
use rekindle_world::host::{EtcdCall, HostErrorKind};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(120);
const EVERY: Duration = Duration::from_millis(250);
/// Members compact at slightly different moments: so often equal hashes are looked for before they count as different.
const HASH_LOOKS: usize = 20;

async fn members(ctx: &Ctx<'_>, endpoint: &EtcdEndpoint) -> Result<Vec<EtcdMember>, StepError> {
    let what = format!("etcd at {} on {} to be in quorum", endpoint.url, ctx.host_id());
    ctx.poll(&what, EVERY, TIMEOUT, || in_quorum(ctx, endpoint)).await
}

fn same_urls(a: &[String], b: &[String]) -> bool {
    let sorted = |urls: &[String]| {
        let mut urls = urls.to_vec();
        urls.sort();
        urls
    };
    sorted(a) == sorted(b)
}

pub(super) async fn remove(
    ctx: &Ctx<'_>,
    endpoint: &EtcdEndpoint,
    member: &EtcdMember,
) -> Result<Outputs, StepError> {
    if members(ctx, endpoint).await?.iter().any(|listed| listed.id == member.id) {
        ctx.host.etcd_do(endpoint, EtcdCall::Remove { member: member.id }).await?;
    }
    Ok(outputs! { "removed" => member.id })
}

pub(super) async fn add_learner(
    ctx: &Ctx<'_>,
    endpoint: &EtcdEndpoint,
    peer_urls: &[String],
) -> Result<Outputs, StepError> {
    let listed = members(ctx, endpoint).await?;
    if let Some(voter) = listed.iter().find(|m| same_urls(&m.peer_urls, peer_urls) && !m.is_learner) {
        return Err(StepError::Moved(format!("member {} has these peer URLs and votes already", voter.id)));
    }
    // etcd refuses changes for a moment after the last one ("unhealthy cluster"): that passes.
    ctx.poll("the learner to be added", EVERY, TIMEOUT, || async {
        Ok(match ctx.host.etcd_add_learner(endpoint, peer_urls.to_vec()).await {
            Ok(added) => match added.iter().find(|m| same_urls(&m.peer_urls, peer_urls)) {
                Some(learner) => Polled::Ready(outputs! { "memberId" => learner.id }),
                None => Polled::Pending("the answer does not name the learner".into()),
            },
            Err(error) if error.kind == HostErrorKind::Refused => return Err(error.into()),
            Err(error) => Polled::Pending(error.to_string()),
        })
    })
    .await
}

pub(super) async fn undo_add(
    ctx: &Ctx<'_>,
    endpoint: &EtcdEndpoint,
    peer_urls: &[String],
) -> Result<(), StepError> {
    let listed = members(ctx, endpoint).await?;
    for learner in listed.iter().filter(|m| m.is_learner && same_urls(&m.peer_urls, peer_urls)) {
        ctx.host.etcd_do(endpoint, EtcdCall::Remove { member: learner.id }).await?;
    }
    Ok(())
}

pub(super) async fn promote(
    ctx: &Ctx<'_>,
    endpoint: &EtcdEndpoint,
    peer_urls: &[String],
    timeout_seconds: u64,
) -> Result<Outputs, StepError> {
    let timeout = Duration::from_secs(timeout_seconds);
    let last = std::cell::RefCell::new(String::from("not asked yet"));
    let promoted: MemberId = ctx
        .poll("the learner to catch up", EVERY, timeout, || async {
            let listed = match in_quorum(ctx, endpoint).await? {
                Polled::Ready(listed) => listed,
                Polled::Pending(why) => return Ok(Polled::Pending(why)),
            };
            let Some(member) = listed.iter().find(|m| same_urls(&m.peer_urls, peer_urls)) else {
                return Err(StepError::Moved(format!("no member has the peer URLs {}", peer_urls.join(","))));
            };
            if !member.is_learner {
                return Ok(Polled::Ready(member.id));
            }
            // Refused until it is in sync with the leader.
            if let Err(error) = ctx.host.etcd_do(endpoint, EtcdCall::Promote { member: member.id }).await {
                *last.borrow_mut() = error.to_string();
            }
            Ok(Polled::Pending(last.borrow().clone()))
        })
        .await?;
    let equal = hashes_equal(ctx, endpoint).await?;
    Ok(outputs! {
        "memberId" => promoted,
        "revision" => equal.hash.revision,
        "hash" => equal.hash.hash,
        "compactRevision" => equal.hash.compact_revision,
        "compared" => equal.members,
    })
}

struct Equal {
    hash: HashKv,
    members: usize,
}

/// HashKV of all members at the lowest revision any of them has.
async fn hashes_equal(ctx: &Ctx<'_>, endpoint: &EtcdEndpoint) -> Result<Equal, StepError> {
    let mut differ = String::new();
    for _ in 0..HASH_LOOKS {
        let listed = members(ctx, endpoint).await?;
        let urls: Vec<&String> = listed.iter().filter_map(|m| m.client_urls.first()).collect();
        if urls.len() == listed.len() {
            let endpoints: Vec<EtcdEndpoint> =
                urls.into_iter().map(|url| EtcdEndpoint { url: url.clone(), ..endpoint.clone() }).collect();
            match look(ctx, &endpoints).await {
                Ok(Ok(hash)) => return Ok(Equal { hash, members: endpoints.len() }),
                Ok(Err(why)) => differ = why,
                Err(error) => differ = crate::error::causes(&error).join(": "),
            }
        } else {
            // A member publishes its client URLs shortly after its start.
            differ = "not every member tells yet where its clients reach it".into();
        }
        ctx.interrupt.sleep(EVERY).await?;
    }
    Err(StepError::NotProved(format!("HashKV of all members is equal: {differ}")))
}

async fn look(ctx: &Ctx<'_>, endpoints: &[EtcdEndpoint]) -> Result<Result<HashKv, String>, StepError> {
    let mut revision = i64::MAX;
    for endpoint in endpoints {
        revision = revision.min(ctx.host.etcd_status(endpoint).await?.revision);
    }
    let mut hashes = Vec::new();
    for endpoint in endpoints {
        hashes.push((endpoint.url.clone(), ctx.host.etcd_hash_kv(endpoint, revision).await?));
    }
    let Some((_, first)) = hashes.first() else { return Ok(Err("there are no members".into())) };
    // `HashKV.revision` is the answering member's current one and differs while writes go on.
    let same = |hash: &HashKv| hash.hash == first.hash && hash.compact_revision == first.compact_revision;
    if hashes.iter().all(|(_, hash)| same(hash)) {
        return Ok(Ok(HashKv { revision, ..*first }));
    }
    let told: Vec<String> = hashes.iter().map(|(url, hash)| format!("{url} {}", hash.hash)).collect();
    Ok(Err(format!("at revision {revision}: {}", told.join(", "))))
}
