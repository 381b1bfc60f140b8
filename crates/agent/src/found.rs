//! Which members may be followed: those of the right cluster that have all that is durable here.

use rekindle_model::etcd::EtcdEndpoint;
use rekindle_world::etcd_client::MemberClient;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

use crate::follow::FollowConfig;
use crate::health::Health;

/// Longest wait for a member's status before it is followed.
const STATUS: Duration = Duration::from_secs(2);

/// What is known of the cluster.
pub(crate) struct Found {
    pub(crate) cluster_id: Option<u64>,
    /// The last revision that was received.
    pub(crate) last: Option<i64>,
    /// The endpoint to be tried first.
    pub(crate) next: usize,
}

impl Found {
    /// A member that can be followed; the endpoints in turn.
    pub(crate) async fn member(
        &mut self,
        config: &FollowConfig,
        health: &watch::Sender<Health>,
    ) -> Option<(Arc<MemberClient>, String)> {
        for _ in &config.endpoints {
            let endpoint = config.endpoints.get(self.next % config.endpoints.len())?;
            self.next += 1;
            let tried = tokio::time::timeout(STATUS, self.try_member(config, endpoint)).await;
            match tried.unwrap_or_else(|_| Err("no status in time".to_owned())) {
                Ok(client) => return Some((client, endpoint.url.clone())),
                Err(why) => health.send_modify(|health| {
                    health.following = None;
                    if let Some(member) = health.members.iter_mut().find(|m| m.url == endpoint.url) {
                        member.state = Err(why);
                    }
                }),
            }
        }
        None
    }

    async fn try_member(
        &mut self,
        config: &FollowConfig,
        endpoint: &EtcdEndpoint,
    ) -> Result<Arc<MemberClient>, String> {
        let client = MemberClient::open(endpoint, &config.root).await.map_err(|fault| fault.what)?;
        let status = client.status().await.map_err(|fault| fault.what)?;
        let id = status.cluster_id.0;
        if let Some(known) = self.cluster_id.filter(|known| *known != id) {
            return Err(format!("it is of the cluster {id:x}, not {known:x}"));
        }
        if status.is_learner || status.leader.0 == 0 {
            return Err("it is a learner, or has no leader".to_owned());
        }
        // one that came back empty, or from an old copy, or is behind: what it will write at these revisions is not ours
        if let Some(last) = self.last.filter(|last| status.revision < *last) {
            return Err(format!("its revision {} is below {last}, which is durable here", status.revision));
        }
        self.cluster_id = Some(id);
        self.last.get_or_insert(status.revision);
        Ok(Arc::new(client))
    }
}
