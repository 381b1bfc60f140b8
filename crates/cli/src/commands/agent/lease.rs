//! Several agents, one writer: the Lease (`coordination.k8s.io/v1`) that one of them holds, as client-go's leader election
//! uses it. Times of other machines are never compared with this one's: a Lease is free when nobody has changed it for as
//! long as it lasts, by the clock here.
//!
//! The Lease spares work, nothing more: when the API does not answer an agent writes without it, and two writers do each
//! other no harm (`docs/formats/vault.md`).

use super::config::KubernetesConfig;
use crate::output::{Level, Output};
use camino::Utf8Path;
use rekindle_model::HostPath;
use rekindle_world::api::api;
use rekindle_world::host::ApiRequest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// So long a Lease is held that is not renewed.
const LASTS: Duration = Duration::from_secs(15);
/// It is renewed, and looked at by those who wait, this often.
const EVERY: Duration = Duration::from_secs(4);
/// Longest wait for an answer.
const ANSWER_MS: u64 = 3000;
/// When the API has not answered for this long, an agent that waits writes without the Lease.
const SILENCE: Duration = Duration::from_secs(40);

/// A writer that follows no member for this long leaves the Lease to others, which may reach one.
const UNABLE: Duration = Duration::from_secs(20);

/// The Lease, as this agent sees it.
pub(super) struct Lease {
    config: KubernetesConfig,
    /// Who this agent is: the same after a restart.
    identity: String,
    /// The state that somebody else left it in, and since when.
    seen: Option<(Spec, Instant)>,
}

/// The object, as the API has it; what is not understood is written back as it was.
#[derive(Debug, Deserialize, Serialize)]
struct Object {
    #[serde(default)]
    spec: Spec,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    holder_identity: String,
    #[serde(default)]
    lease_duration_seconds: u64,
    acquire_time: Option<String>,
    renew_time: Option<String>,
    #[serde(default)]
    lease_transitions: i64,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Who holds it.
#[derive(Debug, PartialEq)]
enum Holder {
    This,
    Other(String),
}

impl Lease {
    pub(super) fn new(config: KubernetesConfig, identity: String) -> Self {
        Self { config, identity, seen: None }
    }

    /// Waits until this agent is to write. As long as it is not `able` to, it leaves the Lease to others.
    pub(super) async fn acquire(&mut self, output: &Output, able: impl AsyncFn() -> bool) {
        let (mut answered, mut told) = (Instant::now(), String::new());
        loop {
            if !able().await {
                let line = format!("no etcd answers: the {} is left to other agents", self.name());
                if line != told {
                    output.log(Level::Error, &line, &[]);
                    told = line;
                }
                answered = Instant::now();
                tokio::time::sleep(EVERY).await;
                continue;
            }
            let line = match self.look().await {
                Ok(Holder::This) => return output.say(&format!("this agent holds the {}", self.name())),
                Ok(Holder::Other(holder)) => {
                    answered = Instant::now();
                    format!("{holder} holds the {}: it writes, this agent stands by", self.name())
                }
                Err(why) if answered.elapsed() > SILENCE => {
                    let line =
                        format!("the {} can't be had, this agent writes without it: {why}", self.name());
                    return output.log(Level::Error, &line, &[]);
                }
                Err(why) => format!("the {} can't be had now: {why}", self.name()),
            };
            if line != told {
                output.say(&line);
                told = line;
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Renews it, as long as nobody else holds it and a member is followed. An API that does not answer is no reason to
    /// stop.
    pub(super) async fn keep(&mut self, output: &Output, following: impl Fn() -> bool) {
        let mut followed = Instant::now();
        loop {
            tokio::time::sleep(EVERY).await;
            if following() {
                followed = Instant::now();
            } else if followed.elapsed() > UNABLE {
                let line = format!("no member can be followed: the {} is left to other agents", self.name());
                return output.log(Level::Error, &line, &[]);
            }
            if let Ok(Holder::Other(holder)) = self.look().await {
                return output.say(&format!("{holder} holds the {} now: this agent stands by", self.name()));
            }
        }
    }

    /// Gives it up, so that another agent need not wait.
    pub(super) async fn release(&mut self) {
        let Ok(Some(lease)) = self.get().await else { return };
        if lease.spec.holder_identity == self.identity {
            // it is free soon in any case
            let _ = self.put(lease, "").await;
        }
    }

    fn name(&self) -> String {
        format!("Lease {}/{}", self.config.namespace, self.config.lease)
    }

    /// Takes or renews it if it is free or this agent's.
    async fn look(&mut self) -> Result<Holder, String> {
        let Some(lease) = self.get().await? else { return self.create().await };
        let holder = &lease.spec.holder_identity;
        if *holder != self.identity && !holder.is_empty() && !self.is_stale(&lease.spec) {
            return Ok(Holder::Other(lease.spec.holder_identity));
        }
        self.put(lease, &self.identity.clone()).await?;
        self.seen = None;
        Ok(Holder::This)
    }

    /// Nobody has changed it for as long as it lasts.
    fn is_stale(&mut self, spec: &Spec) -> bool {
        let since = match &self.seen {
            Some((seen, since)) if seen == spec => *since,
            _ => self.seen.insert((spec.clone(), Instant::now())).1,
        };
        since.elapsed() > Duration::from_secs(spec.lease_duration_seconds.clamp(1, 3600))
    }

    async fn get(&self) -> Result<Option<Object>, String> {
        let path = format!("{}/{}", self.folder(), self.config.lease);
        match self.ask("GET", path, Vec::new()).await? {
            (404, _) => Ok(None),
            (200, body) => {
                let lease = serde_json::from_slice(&body);
                lease.map(Some).map_err(|error| format!("the API server answered with no Lease: {error}"))
            }
            (status, body) => Err(refused(status, &body)),
        }
    }

    async fn create(&self) -> Result<Holder, String> {
        let now = now();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.config.lease, "namespace": self.config.namespace},
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": LASTS.as_secs(),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        });
        match self.ask("POST", self.folder(), lease.to_string().into_bytes()).await? {
            (201, _) => Ok(Holder::This),
            (status, body) => Err(refused(status, &body)),
        }
    }

    /// Writes it as read, with another holder or time: the API refuses that when somebody was faster.
    async fn put(&self, mut lease: Object, holder: &str) -> Result<(), String> {
        let spec = &mut lease.spec;
        let now = Some(now());
        if spec.holder_identity != holder {
            spec.acquire_time.clone_from(&now);
            spec.lease_transitions = spec.lease_transitions.saturating_add(1);
        }
        spec.holder_identity = holder.into();
        spec.lease_duration_seconds = LASTS.as_secs();
        spec.renew_time = now;
        let path = format!("{}/{}", self.folder(), self.config.lease);
        let body = serde_json::to_vec(&lease).map_err(|error| error.to_string())?;
        match self.ask("PUT", path, body).await? {
            (200, _) => Ok(()),
            (status, body) => Err(refused(status, &body)),
        }
    }

    fn folder(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.config.namespace)
    }

    async fn ask(&self, method: &str, path: String, body: Vec<u8>) -> Result<(u16, Vec<u8>), String> {
        let request = ApiRequest {
            kubeconfig: HostPath(self.config.kubeconfig.clone()),
            context: None,
            server: None,
            method: method.into(),
            path,
            content_type: "application/json".into(),
            body,
            timeout_ms: ANSWER_MS,
        };
        let answer = api(&request, Utf8Path::new("/")).await.map_err(|fault| fault.what)?;
        Ok((answer.status, answer.body))
    }
}

fn refused(status: u16, body: &[u8]) -> String {
    let why = serde_json::from_slice::<Value>(body).ok();
    let why = why.as_ref().and_then(|why| why.get("message")?.as_str());
    format!("the API server answered {status}: {}", why.unwrap_or("no reason given"))
}

/// As the API writes it (`MicroTime`).
fn now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}
