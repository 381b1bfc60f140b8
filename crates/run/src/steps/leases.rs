//! `DeleteStaleMasterleases` and `ReleaseLeaderLeases`: restored data names holders that no longer run.

use super::api::{Api, refused};
use super::context::{Ctx, field, outputs};
use crate::error::StepError;
use rekindle_model::etcd::EtcdEndpoint;
use rekindle_model::event::Outputs;
use rekindle_model::step::Step;
use rekindle_world::host::EtcdCall;
use serde_json::{Value, json};

/// More API servers than any cluster has.
const MAX_ADDRESSES: i64 = 1000;

/// Deletes every address: running API servers write theirs again within ten seconds.
pub(super) async fn delete_masterleases(
    ctx: &Ctx<'_>,
    endpoint: &EtcdEndpoint,
) -> Result<Outputs, StepError> {
    let prefix = kube_storage::masterlease_prefix(kube_storage::keys::DEFAULT_PREFIX);
    let pairs = ctx.host.etcd_range(endpoint, &prefix, MAX_ADDRESSES).await?;
    let keys: Vec<String> = pairs.into_iter().map(|(key, _)| key).collect();
    if !keys.is_empty() {
        ctx.host.etcd_do(endpoint, EtcdCall::DeleteKeys { keys: keys.clone() }).await?;
    }
    Ok(outputs! { "deleted" => keys })
}

/// From when on what is written is of those that live.
#[derive(Clone, Copy)]
pub(super) struct Since {
    /// Revision of the restored data, or of the first look through the API when it was ready again.
    revision: Option<i64>,
    /// When the first API server was ready again.
    ready_ms: Option<i64>,
}

impl Since {
    /// The API's coming back in this run; none when the run did not wait for it, because it was never seen to be away.
    pub(super) fn api_came_back(ctx: &Ctx<'_>) -> Option<Self> {
        let restored = ctx.built().and_then(|built| field::<i64>(built, "revision"));
        let ready = ctx.outputs_where(|step| matches!(step.step, Step::WaitApiReady {}));
        let lowest = |name: &str| ready.iter().filter_map(|outputs| field::<i64>(outputs, name)).min();
        let (seen, ready_ms) = (lowest("revision"), lowest("readyMs"));
        let since = Self { revision: restored.or(seen), ready_ms };
        (since.revision.is_some() || ready_ms.is_some()).then_some(since)
    }

    /// The revision of a look.
    pub(super) fn revision(revision: Option<i64>) -> Self {
        Self { revision, ready_ms: None }
    }

    /// Whether an object was written later: by its revision (no clock can lie about it), else by the time given in it.
    pub(super) fn is_before(self, object: &Value, time_pointer: &str) -> Option<bool> {
        if let (Some(floor), Some(revision)) = (self.revision, super::api::resource_version(object)) {
            return Some(revision > floor);
        }
        let time: jiff::Timestamp = object.pointer(time_pointer)?.as_str()?.parse().ok()?;
        Some(time.as_millisecond() > self.ready_ms?)
    }
}

pub(super) async fn release(ctx: &Ctx<'_>, leases: &[String]) -> Result<Outputs, StepError> {
    let api = Api::on_this_host(ctx).await?;
    let mut released = Vec::new();
    let mut left = Vec::new();
    for name in leases {
        match release_one(ctx, &api, name).await? {
            Ok(holder) => released.push(format!("{name} (held by {holder})")),
            Err(why) => left.push(format!("{name}: {why}")),
        }
    }
    Ok(outputs! { "released" => released, "left" => left })
}

/// Compare and swap: a conflict means that somebody renewed or took it meanwhile, and then it is not ours to release.
async fn release_one(ctx: &Ctx<'_>, api: &Api, name: &str) -> Result<Result<String, String>, StepError> {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{name}");
    for _ in 0..2 {
        let Some(mut lease) = api.get_json(ctx, &path).await? else {
            return Ok(Err("does not exist".into()));
        };
        let holder =
            lease.pointer("/spec/holderIdentity").and_then(Value::as_str).unwrap_or_default().to_owned();
        if holder.is_empty() {
            return Ok(Err("held by nobody".into()));
        }
        let since = Since::api_came_back(ctx);
        if since.and_then(|since| since.is_before(&lease, "/spec/renewTime")) == Some(true) {
            return Ok(Err(format!("renewed by {holder}")));
        }
        if let Some(spec) = lease.get_mut("spec") {
            spec["holderIdentity"] = json!("");
        }
        let answer = api.put_json(ctx, &path, &lease).await?;
        match answer.status {
            200 | 201 => return Ok(Ok(holder)),
            409 => {}
            _ => return Err(refused("PUT", &path, &answer)),
        }
    }
    Ok(Err("somebody else wrote it meanwhile".into()))
}
