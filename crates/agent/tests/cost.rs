//! The story: an agent beside a busy etcd must not be noticed. 500 writes a second of 1 KB, with it and without it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::print_stdout)] // the figures

mod common;

use common::cluster::Cluster;
use common::{Agent, durable, until, utf8};
use etcd_client::Client;
use std::time::{Duration, Instant};

const SECONDS: u64 = 20;
const WRITES_PER_S: u64 = 500;
const MEMORY_KIB_MAX: u64 = 64 << 10;

/// Writes at a steady rate: the median and the 99th percentile of the latency, and the last revision.
async fn write(url: &str) -> (Duration, Duration, i64) {
    let client = Client::connect([url], None).await.unwrap();
    let (mut tick, begun) =
        (tokio::time::interval(Duration::from_micros(1_000_000 / WRITES_PER_S)), Instant::now());
    let mut writes = tokio::task::JoinSet::new();
    for n in 0..WRITES_PER_S * SECONDS {
        tick.tick().await;
        let mut client = client.clone();
        writes.spawn(async move {
            let sent = Instant::now();
            let put =
                client.put(format!("/registry/pods/p{}", n % 5000), vec![b'x'; 1024], None).await.unwrap();
            (sent.elapsed(), put.header().unwrap().revision())
        });
    }
    let done = writes.join_all().await;
    let mut latencies: Vec<Duration> = done.iter().map(|(latency, _)| *latency).collect();
    latencies.sort();
    let rate = done.len() as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:.0} writes/s");
    let last = done.iter().map(|(_, revision)| *revision).max().unwrap();
    (latencies[latencies.len() / 2], latencies[latencies.len() * 99 / 100], last)
}

/// CPU time so far, in hundredths of a second (`USER_HZ` on Linux), and the peak of its memory in KiB.
fn used(pid: u32) -> (u64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    (ticks, peak.trim().trim_end_matches("kB").trim().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_costs_little() {
    let dir = tempfile::tempdir().unwrap();
    let spool = utf8(dir.path()).join("spool");
    let mut cluster = Cluster::new("3.6", 1, dir.path(), "busy");
    cluster.start();
    let urls = cluster.endpoints();
    let (alone_median, alone_p99, _) = write(&urls[0]).await;
    let agent = Agent::start(&spool, &urls);
    until("it follows", Duration::from_secs(20), async || spool.exists() && durable(&spool) > 0).await;
    let before = used(agent.id()).0;
    let (median, p99, last) = write(&urls[0]).await;
    until("all is durable", Duration::from_secs(5), async || durable(&spool) >= last).await;
    let (after, peak_kib) = used(agent.id());
    let percent = (after - before) as f64 / SECONDS as f64;
    println!(
        "agent: {percent:.1} % of a core, {} MiB at most; latency median {median:?} (alone {alone_median:?}), p99 {p99:?} (alone {alone_p99:?})",
        peak_kib >> 10
    );
    assert!(peak_kib < MEMORY_KIB_MAX, "{peak_kib} KiB");
    agent.stop();
}
