//! `ProveMember`: a started member holds exactly what was restored. HashKV decides, not the member's word.

use super::context::{Ctx, field, outputs};
use super::etcd::in_quorum;
use crate::error::StepError;
use rekindle_model::etcd::{EtcdEndpoint, HashKv};
use rekindle_model::event::Outputs;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(180);
const EVERY: Duration = Duration::from_millis(100);

pub(super) async fn prove_member(
    ctx: &Ctx<'_>,
    endpoint: &EtcdEndpoint,
    members: usize,
) -> Result<Outputs, StepError> {
    let what = format!("etcd at {} on {} to be in quorum", endpoint.url, ctx.host_id());
    let listed = ctx.poll(&what, EVERY, TIMEOUT, || in_quorum(ctx, endpoint)).await?;
    if listed.len() != members {
        let names: Vec<&str> = listed.iter().map(|member| member.name.as_str()).collect();
        return Err(StepError::NotProved(format!(
            "the cluster has {members} members; it has {}: {}",
            listed.len(),
            names.join(", ")
        )));
    }
    let Some(built) = ctx.built() else {
        // Nothing is restored by this plan: that the member answers in its quorum is all there is to prove.
        return Ok(outputs! { "members" => listed.len() });
    };
    let native = HashKv {
        hash: field(built, "hash").unwrap_or_default(),
        revision: field(built, "hashRevision").unwrap_or_default(),
        compact_revision: field(built, "compactRevision").unwrap_or_default(),
    };
    let status = ctx.ask("its status", || ctx.host.etcd_status(endpoint)).await?;
    if status.revision < native.revision {
        return Err(StepError::NotProved(format!(
            "its revision is at least {}: it is {}",
            native.revision, status.revision
        )));
    }
    let answered = ctx.ask("its HashKV", || ctx.host.etcd_hash_kv(endpoint, native.revision)).await?;
    if answered.hash != native.hash || answered.compact_revision != native.compact_revision {
        return Err(StepError::NotProved(format!(
            "HashKV of {} at revision {} equals the native value: it is {} (compacted {}), native {} \
             (compacted {})",
            ctx.host_id(),
            native.revision,
            answered.hash,
            answered.compact_revision,
            native.hash,
            native.compact_revision
        )));
    }
    let live_keys = ctx.ask("its number of keys", || ctx.host.etcd_count_keys(endpoint)).await?;
    let expected: u64 = field(built, "liveKeys").unwrap_or_default();
    if live_keys != expected {
        // Restored leases can run out meanwhile (addresses of old API servers); that makes new revisions.
        let after = ctx.ask("its status", || ctx.host.etcd_status(endpoint)).await?;
        if after.revision == native.revision {
            return Err(StepError::NotProved(format!("{expected} keys are live: there are {live_keys}")));
        }
    }
    Ok(outputs! {
        "revision" => native.revision,
        "hash" => answered.hash,
        "nativeHash" => native.hash,
        "liveKeys" => live_keys,
        "nativeLiveKeys" => expected,
        "members" => listed.len(),
        "memberId" => status.member_id,
        "clusterId" => status.cluster_id,
    })
}
