//! An agent as a process of its own, to be killed by tests: `follow-for-tests SPOOL URL...`. It says `durable N` whenever
//! more is durable, until its input ends.
#![allow(clippy::print_stdout)] // how it talks to the test

use rekindle_agent::{FollowConfig, Health, follow};
use rekindle_model::etcd::EtcdEndpoint;
use std::time::Duration;
use tokio::sync::watch;

#[tokio::main]
async fn main() -> Result<(), rekindle_agent::Error> {
    let mut args = std::env::args().skip(1);
    let spool = args.next().unwrap_or_default().into();
    let endpoint = |url| EtcdEndpoint { url, cacert: None, cert: None, key: None };
    let config = FollowConfig {
        endpoints: args.map(endpoint).collect(),
        root: "/".into(),
        spool,
        timeline: [7; 16],
        cluster_id: None,
        from_revision: None,
        writer: "test".into(),
        segment_bytes: 4 << 20,
        segment_age: Duration::from_secs(3),
        spool_bytes_max: 1 << 30,
        prove_every: None,
    };
    let (publish, mut health) = watch::channel(Health::default());
    tokio::spawn(async move {
        let mut told = 0;
        while health.changed().await.is_ok() {
            let durable = health.borrow_and_update().durable_revision;
            if durable > told {
                told = durable;
                println!("durable {durable}");
            }
        }
    });
    let stop = tokio::task::spawn_blocking(|| drop(std::io::read_to_string(std::io::stdin())));
    follow(config, publish, async { drop(stop.await) }).await
}
