//! What the tests of the agent share: real etcd, a follower in the background, and a random workload.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    dead_code
)]

#[path = "../../../etcd-disk/tests/common/mod.rs"]
pub mod cluster;

use camino::{Utf8Path, Utf8PathBuf};
use etcd_client::{Client, Compare, CompareOp, DeleteOptions, PutOptions, Txn, TxnOp};
use etcd_disk::changes::{Changes, Point};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rekindle_agent::spool::segments;
use rekindle_agent::{Error, FollowConfig, Health, follow};
use rekindle_model::etcd::EtcdEndpoint;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

pub const TIMELINE: [u8; 16] = [7; 16];

pub fn utf8(path: &std::path::Path) -> &Utf8Path {
    Utf8Path::from_path(path).unwrap()
}

pub fn endpoint(url: &str) -> EtcdEndpoint {
    EtcdEndpoint { url: url.to_owned(), cacert: None, cert: None, key: None }
}

pub fn config(urls: &[String], spool: Utf8PathBuf) -> FollowConfig {
    FollowConfig {
        endpoints: urls.iter().map(|url| endpoint(url)).collect(),
        root: "/".into(),
        spool,
        timeline: TIMELINE,
        cluster_id: None,
        from_revision: None,
        writer: "test".into(),
        segment_bytes: 4 << 20,
        segment_age: Duration::from_secs(3),
        spool_bytes_max: 1 << 30,
        prove_every: None,
    }
}

/// A follower at work.
pub struct Following {
    pub health: watch::Receiver<Health>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), Error>>,
}

impl Following {
    pub fn start(config: FollowConfig) -> Self {
        let (publish, health) = watch::channel(Health::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move { follow(config, publish, async { drop(stopped.await) }).await });
        Self { health, stop: Some(stop), task }
    }

    pub async fn wait(&mut self, what: &str, holds: impl FnMut(&Health) -> bool) -> Health {
        let waited = tokio::time::timeout(Duration::from_secs(120), self.health.wait_for(holds)).await;
        let found = waited.map(|seen| seen.unwrap().clone());
        found.unwrap_or_else(|_| panic!("{what}: {:?}", self.health.borrow().clone()))
    }

    pub async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

pub async fn until(what: &str, limit: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !holds().await {
        assert!(begin.elapsed() < limit, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An agent in a process of its own.
pub struct Agent(Child);

impl Agent {
    pub fn start(spool: &Utf8Path, urls: &[String]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_follow-for-tests"));
        command.arg(spool).args(urls).stdin(Stdio::piped()).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Ends by itself, its last segment closed.
    pub fn stop(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn spooled(spool: &Utf8Path) -> Vec<PathBuf> {
    segments(spool).unwrap().into_iter().map(Into::into).collect()
}

/// The newest revision in a spool, its agent at work or not.
pub fn durable(spool: &Utf8Path) -> i64 {
    Changes::open(&spooled(spool), Point::Latest)
        .map_or(0, |changes| changes.segments().iter().map(|s| s.last_revision).max().unwrap_or(0))
}

/// Random writes of every kind; every key is one of a few, so that they meet.
pub struct Workload {
    pub client: Client,
    random: StdRng,
    pub leases: Vec<i64>,
    pub with_leases: bool,
}

impl Workload {
    pub async fn new(urls: &[String], seed: u64) -> Self {
        let client = Client::connect(urls, None).await.unwrap();
        Self { client, random: StdRng::seed_from_u64(seed), leases: Vec::new(), with_leases: false }
    }

    pub fn random(&mut self) -> &mut StdRng {
        &mut self.random
    }

    fn key(&mut self) -> String {
        let n = self.random.random_range(0..60);
        format!("/registry/r{}/k{n}", n % 5)
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.random.random_range(0..100) {
            0..10 => 0,
            10..95 => self.random.random_range(1..2000),
            95..98 => self.random.random_range(2000..70_000),
            _ => self.random.random_range(400_000..1_450_000),
        };
        let byte = self.random.random();
        vec![byte; len]
    }

    /// One write; the revision after it.
    pub async fn step(&mut self) -> Result<i64, etcd_client::Error> {
        let (key, value) = (self.key(), self.value());
        Ok(match self.random.random_range(0..100) {
            0..12 => revision(self.client.delete(key, None).await?.header()),
            12..15 => {
                let prefix = format!("/registry/r{}/", self.random.random_range(0..5));
                let options = DeleteOptions::new().with_prefix();
                revision(self.client.delete(prefix, Some(options)).await?.header())
            }
            15..35 => self.txn().await?,
            35..50 if self.with_leases => {
                if self.leases.len() < 6 {
                    let ttl = self.random.random_range(600..9000);
                    self.leases.push(self.client.lease_grant(ttl, None).await?.id());
                }
                let lease = *self.leases.choose(&mut self.random).unwrap();
                let options = PutOptions::new().with_lease(lease);
                revision(self.client.put(key, value, Some(options)).await?.header())
            }
            50..53 if !self.leases.is_empty() => {
                let lease = self.leases.swap_remove(0);
                revision(self.client.lease_revoke(lease).await?.header())
            }
            _ => revision(self.client.put(key, value, None).await?.header()),
        })
    }

    async fn txn(&mut self) -> Result<i64, etcd_client::Error> {
        let mut keys: Vec<String> = (0..self.random.random_range(2..40)).map(|_| self.key()).collect();
        keys.sort();
        keys.dedup();
        let mut operations = Vec::new();
        for key in keys {
            operations.push(if self.random.random_range(0..4) == 0 {
                TxnOp::delete(key, None)
            } else {
                let len = self.random.random_range(0..300);
                TxnOp::put(key, vec![b't'; len], None)
            });
        }
        let never = Compare::version("/registry/never", CompareOp::Equal, 0);
        let txn = Txn::new().when([never]).and_then(operations);
        Ok(revision(self.client.txn(txn).await?.header()))
    }
}

fn revision(header: Option<&etcd_client::ResponseHeader>) -> i64 {
    header.unwrap().revision()
}
