//! Looks at a running etcd that several steps need.

use super::context::{Ctx, Polled};
use crate::error::StepError;
use rekindle_model::etcd::{EtcdEndpoint, EtcdMember};

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
