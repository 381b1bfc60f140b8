//! Now and then a full HashKV, so that the newest minutes can be proved and not only what a compaction left a hash of. It
//! reads every row and holds up the member that computes it: never the leader is asked unless there is nobody else, never two
//! members at a time, and the one that is followed only when no other will do.

use camino::Utf8PathBuf;
use etcd_disk::hashkv::HashKv;
use etcd_disk::segment::HashSample;
use rekindle_model::etcd::{EtcdEndpoint, EtcdStatus};
use rekindle_world::etcd_client::{MemberClient, call};
use rekindle_world::host::{EtcdCall, Reply};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

use crate::health::{Health, Proof};
use crate::now_ms;
use crate::sink::Command;

/// Longest wait for a member's status.
const ANSWER: Duration = Duration::from_secs(2);

/// What the prover works with.
pub(crate) struct Prove {
    pub(crate) endpoints: Vec<EtcdEndpoint>,
    pub(crate) root: Utf8PathBuf,
    pub(crate) cluster_id: u64,
    pub(crate) every: Duration,
    pub(crate) health: Arc<watch::Sender<Health>>,
    pub(crate) commands: mpsc::Sender<Command>,
}

/// A member that answers.
struct Member {
    endpoint: EtcdEndpoint,
    client: MemberClient,
    status: EtcdStatus,
}

impl Prove {
    /// Proves until it is dropped.
    pub(crate) async fn run(self) {
        loop {
            tokio::time::sleep(self.every).await;
            let Some(member) = self.member().await else { continue };
            let begun = Instant::now();
            let Ok(told) = member.client.hash_kv(member.status.revision).await else { continue };
            let hash_kv =
                HashKv { hash: told.hash, revision: told.revision, compact_revision: told.compact_revision };
            let sample = HashSample { at_ms: now_ms(), hash_kv };
            if self.commands.send(Command::Sample(sample)).await.is_err() {
                return;
            }
            let proof = Proof { url: member.endpoint.url, revision: told.revision, took: begun.elapsed() };
            self.health.send_modify(|health| {
                health.proofs += 1;
                health.last_proof = Some(proof);
            });
        }
    }

    /// The member whose time is worth least.
    async fn member(&self) -> Option<Member> {
        let mut members = Vec::with_capacity(self.endpoints.len());
        for endpoint in &self.endpoints {
            if let Ok(Some(member)) = tokio::time::timeout(ANSWER, self.ask(endpoint)).await {
                members.push(member);
            }
        }
        // the cluster's own list: others may vote that are not among the endpoints
        let is_alone = match members.as_slice() {
            [only] => self.is_alone(&only.endpoint).await,
            _ => false,
        };
        let following = self.health.borrow().following.clone();
        let cost = |member: &Member| {
            let is_leader = member.status.leader == member.status.member_id;
            (is_leader, following.as_ref() == Some(&member.endpoint.url), !member.status.is_learner)
        };
        members.into_iter().filter(|member| is_alone || !cost(member).0).min_by_key(cost)
    }

    async fn ask(&self, endpoint: &EtcdEndpoint) -> Option<Member> {
        let client = MemberClient::open(endpoint, &self.root).await.ok()?;
        let status = client.status().await.ok()?;
        let fits = status.cluster_id.0 == self.cluster_id && status.leader.0 != 0;
        fits.then(|| Member { endpoint: endpoint.clone(), client, status })
    }

    async fn is_alone(&self, endpoint: &EtcdEndpoint) -> bool {
        let asked = EtcdCall::MemberList { linearizable: false };
        matches!(call(endpoint, &asked, &self.root).await, Ok(Reply::Members(members)) if members.len() == 1)
    }
}
