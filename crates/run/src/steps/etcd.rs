//! Looks at a running etcd that several steps need, and `WaitPeerPort`.

use super::context::{Ctx, Polled, outputs};
use crate::error::StepError;
use rekindle_model::etcd::{EtcdEndpoint, EtcdMember};
use rekindle_model::event::Outputs;
use rekindle_world::host::HostErrorKind;
use std::time::Duration;

/// Longest wait for a member to serve its peers: longer than etcd's own checks at its start take when nobody answers.
const SERVES: Duration = Duration::from_secs(20);
const EVERY: Duration = Duration::from_millis(50);

/// Waits until a member shows its certificate to peers. One that does not, or can't be asked, holds up nothing for long:
/// the proof of the member decides, not this.
pub(super) async fn wait_peer_port(ctx: &Ctx<'_>, address: &str) -> Result<Outputs, StepError> {
    let served = ctx
        .poll("etcd to serve its peers", EVERY, SERVES, || async {
            match ctx.host.shows_certificate(address).await {
                Ok(true) => Ok(Polled::Ready(true)),
                Ok(false) => Ok(Polled::Pending(format!("{address} shows no certificate yet"))),
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
