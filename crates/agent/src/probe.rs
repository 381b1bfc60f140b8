//! Every 300 ms: the revision of every member, beside what is durable here. Nobody's word is taken for "nothing is
//! missing" but that of a linearizable read, which no acknowledged write can be behind.

use camino::Utf8PathBuf;
use etcd_disk::hashkv::HashKv;
use etcd_disk::segment::HashSample;
use futures::future::join_all;
use rekindle_model::etcd::EtcdEndpoint;
use rekindle_world::etcd_client::{MemberClient, alarms};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::divergence;
use crate::health::{Health, MemberHealth, Rpo};
use crate::now_ms;
use crate::sink::Command;

const EVERY: Duration = Duration::from_millis(300);
/// Longest wait for a member's answer.
const ANSWER: Duration = Duration::from_millis(1000);
/// Without a proof for this long, what could be lost is not known.
const PROOF_MS: i64 = 1000;
/// A member that is followed without a proof is left after this long.
const SWITCH_AFTER: Duration = Duration::from_millis(1500);
/// Compactions are looked for this often.
const COMPACTIONS: Duration = Duration::from_secs(10);
/// Probes that wait for their revisions to become durable.
const PENDING_MAX: usize = 100;

/// A member's health, and the alarms that it knows of: member id and kind.
type Answer = (MemberHealth, Vec<(String, String)>);

/// What the prober works with.
pub(crate) struct Probe {
    pub(crate) endpoints: Vec<EtcdEndpoint>,
    pub(crate) root: Utf8PathBuf,
    pub(crate) cluster_id: u64,
    pub(crate) durable: watch::Receiver<i64>,
    pub(crate) followed: watch::Receiver<Option<Arc<MemberClient>>>,
    pub(crate) health: Arc<watch::Sender<Health>>,
    pub(crate) switch: Arc<Notify>,
    pub(crate) commands: mpsc::Sender<Command>,
}

impl Probe {
    /// Probes until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut clients: Vec<Option<MemberClient>> = self.endpoints.iter().map(|_| None).collect();
        let mut pending: VecDeque<(i64, i64)> = VecDeque::new();
        let mut proved_ms = None;
        let (mut tick, mut compactions) = (tokio::time::interval(EVERY), Compactions::default());
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut proved_at = Instant::now();
        let mut why = "not yet probed".to_owned();
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    let begun_ms = now_ms();
                    match self.revisions(&mut clients).await {
                        Ok(highest) if pending.len() < PENDING_MAX => pending.push_back((begun_ms, highest)),
                        Ok(_) => why = "what was received does not become durable".to_owned(),
                        Err(reason) => why = reason,
                    }
                    compactions.look(&self).await;
                }
                changed = self.durable.changed() => if changed.is_err() { return },
            }
            let durable = *self.durable.borrow_and_update();
            while let Some((at_ms, highest)) = pending.front().copied() {
                if durable < highest {
                    why = format!("revision {highest} is not durable yet, {durable} is");
                    break;
                }
                proved_ms = Some(at_ms);
                proved_at = Instant::now();
                pending.pop_front();
            }
            self.publish(durable, proved_ms, &why);
            if proved_at.elapsed() > SWITCH_AFTER {
                self.switch.notify_waiters();
                proved_at = Instant::now();
            }
        }
    }

    fn publish(&self, durable: i64, proved_ms: Option<i64>, why: &str) {
        let fresh = proved_ms.filter(|proved| now_ms() - proved <= PROOF_MS);
        let rpo = fresh.map_or_else(
            || Rpo::Unknown { why: why.to_owned(), last_proved_ms: proved_ms },
            |proved_ms| Rpo::Known { proved_ms },
        );
        self.health.send_modify(|health| {
            health.durable_revision = durable;
            health.rpo = rpo;
        });
    }

    /// The highest revision of any member, if one of them answered a linearizable read.
    async fn revisions(&self, clients: &mut [Option<MemberClient>]) -> Result<i64, String> {
        let followed = self.followed.borrow().clone();
        let agreed = async {
            let Some(client) = followed else { return Err("no member is followed".to_owned()) };
            let answer = tokio::time::timeout(ANSWER, client.agreed_revision()).await;
            answer.map_err(|_| "no agreed read in time".to_owned())?.map_err(|fault| fault.what)
        };
        let asked = self.endpoints.iter().zip(clients).map(|(endpoint, client)| self.ask(endpoint, client));
        let (agreed, answers) = futures::join!(agreed, join_all(asked));
        let (members, alarms): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
        let mut alarms: Vec<(String, String)> = alarms.into_iter().flatten().collect();
        alarms.sort_unstable();
        alarms.dedup();
        let told = members.iter().filter_map(|member| member.state.as_ref().ok().copied()).max();
        let highest = told.max(agreed.as_ref().ok().copied());
        self.health.send_modify(|health| {
            health.highest_revision = highest;
            health.members = members;
            health.alarms = alarms;
        });
        agreed.map(|agreed| told.map_or(agreed, |told| told.max(agreed)))
    }

    async fn ask(&self, endpoint: &EtcdEndpoint, client: &mut Option<MemberClient>) -> Answer {
        let asked = async {
            if client.is_none() {
                *client = Some(MemberClient::open(endpoint, &self.root).await.map_err(|fault| fault.what)?);
            }
            let Some(client) = client.as_ref() else { return Err("no connection".to_owned()) };
            let status = client.status().await.map_err(|fault| fault.what)?;
            if status.cluster_id.0 != self.cluster_id {
                return Err(format!(
                    "it is of the cluster {:x}, not {:x}",
                    status.cluster_id.0, self.cluster_id
                ));
            }
            Ok((status.revision, alarms(&status)))
        };
        let answer = tokio::time::timeout(ANSWER, asked).await;
        let state = answer.unwrap_or_else(|_| Err(format!("no answer within {} ms", ANSWER.as_millis())));
        if state.is_err() {
            *client = None;
        }
        let (state, alarms) =
            state.map_or_else(|why| (Err(why), Vec::new()), |(told, alarms)| (Ok(told), alarms));
        (MemberHealth { url: endpoint.url.clone(), state }, alarms)
    }
}

/// Watches for compactions: each leaves a HashKV cached in its member, which is then free to ask for.
#[derive(Default)]
struct Compactions {
    looked: Option<Instant>,
    known: Option<i64>,
    /// One that was seen a look before: by now its hash is there.
    hash_due: Option<i64>,
    /// The comparison under way; ends with this.
    comparing: JoinSet<()>,
}

impl Compactions {
    async fn look(&mut self, probe: &Probe) {
        if self.looked.is_some_and(|looked| looked.elapsed() < COMPACTIONS) {
            return;
        }
        self.looked = Some(Instant::now());
        let Some(client) = probe.followed.borrow().clone() else { return };
        let hash_due = self.hash_due.take();
        if let Some(revision) = hash_due {
            self.comparing.shutdown().await;
            self.comparing.spawn(divergence::compare(
                probe.endpoints.clone(),
                probe.root.clone(),
                revision,
                probe.health.clone(),
            ));
        }
        if let Some(revision) = hash_due
            && let Ok(told) = client.hash_kv(revision).await
        {
            let hash_kv =
                HashKv { hash: told.hash, revision: told.revision, compact_revision: told.compact_revision };
            let _ = probe.commands.send(Command::Sample(HashSample { at_ms: now_ms(), hash_kv })).await;
        }
        let Ok(Some(revision)) = client.compact_revision().await else { return };
        if self.known != Some(revision) {
            let _ = probe.commands.send(Command::Compaction { at_ms: now_ms(), revision }).await;
            // the first one seen may be old, and its hash not cached any more: that would read the whole store
            self.hash_due = self.known.map(|_| revision);
            self.known = Some(revision);
        }
    }
}
