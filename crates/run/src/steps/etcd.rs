//! Looks at a running etcd that several steps need, and `WaitPeersServed`.

use super::context::{Ctx, Polled, outputs};
use crate::error::StepError;
use rekindle_model::etcd::{EtcdEndpoint, EtcdMember};
use rekindle_model::event::Outputs;
use rekindle_world::host::HostErrorKind;
use std::time::Duration;

/// Longest wait for a member to serve its peers: etcd's own checks at its start take 15 s when nobody answers, and a store
/// of 8 GB as long to be read.
const SERVES: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_millis(50);

/// Waits until a member answers its peers. One that does not, or can't be asked, holds up nothing for long: the proof of
/// the member decides, not this.
pub(super) async fn wait_peers_served(ctx: &Ctx<'_>, endpoint: &EtcdEndpoint) -> Result<Outputs, StepError> {
    let served = ctx
        .poll("etcd to serve its peers", EVERY, SERVES, || async {
            match ctx.host.serves_peers(endpoint).await {
                Ok(true) => Ok(Polled::Ready(true)),
                Ok(false) => Ok(Polled::Pending(format!("{} does not answer yet", endpoint.url))),
                Err(error) if error.kind == HostErrorKind::Unreachable => Err(error.into()),
                Err(_) => Ok(Polled::Ready(false)),
            }
        })
        .await;
    match served {
        Ok(served) => Ok(outputs! { "served" => served }),
        Err(StepError::Timeout { .. }) => Ok(outputs! { "served" => false }),
        Err(error) => Err(error),
    }
}

/// One look: a linearizable answer needs quorum. Not yet answering is not a failure.
pub(super) async fn in_quorum(
    ctx: &Ctx<'_>,
    endpoint: &EtcdEndpoint,
) -> Result<Polled<Vec<EtcdMember>>, StepError> {
    Ok(match ctx.host.etcd_members(endpoint, true).await {
        Ok(members) => Polled::Ready(members),
        Err(error) => Polled::Pending(error.to_string()),
    })
}
