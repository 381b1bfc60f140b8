//! The story: members and agents are killed while clients write. Whatever dies, the spool has every revision once, and
//! what a client was told a second ago is in it. A member of another history is never followed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::print_stdout)] // the figures

mod common;

use camino::Utf8Path;
use common::cluster::{Cluster, LINES};
use common::{Agent, Following, TIMELINE, Workload, config, durable, spooled, until, utf8};
use etcd_disk::changes::{Changes, Point};
use etcd_disk::restore::{Form, RestoreOptions, write_db};
use etcd_disk::segment::GapCause;
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy, Verified, VerifyOptions};
use rand::Rng;
use rekindle_agent::spool::{Spool, bytes, closed};
use rekindle_agent::{Health, Rpo};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use testbed::disk::Probe;

/// When each revision was acknowledged to the client.
type Acknowledged = Arc<Mutex<Vec<(Instant, i64)>>>;

/// A run of kills has at least so many revisions to compare.
const REVISIONS_MIN: i64 = 300;

/// Writes until told to stop, whatever fails.
fn keep_writing(urls: Vec<String>, seed: u64) -> (Acknowledged, tokio::task::JoinHandle<()>) {
    let acknowledged = Acknowledged::default();
    let log = Arc::clone(&acknowledged);
    let task = tokio::spawn(async move {
        let mut work = Workload::new(&urls, seed).await;
        loop {
            let step = tokio::time::timeout(Duration::from_secs(2), work.step()).await;
            if let Ok(Ok(revision)) = step {
                log.lock().unwrap().push((Instant::now(), revision));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    (acknowledged, task)
}

fn leader(cluster: &Cluster) -> usize {
    let all = cluster.endpoints();
    for (index, url) in all.iter().enumerate() {
        let told = cluster.raw(&[url], &["endpoint", "status", "-w", "json"], "");
        let Ok(told) = serde_json::from_slice::<serde_json::Value>(&told.stdout) else { continue };
        let status = &told[0]["Status"];
        if !status["leader"].is_null() && status["leader"] == status["header"]["member_id"] {
            return index;
        }
    }
    0
}

/// A snapshot of what the cluster holds now: what was in flight when a writer was stopped may be in it.
fn lived(cluster: &Cluster, dir: &Path) -> Verified {
    let end = dir.join("end.db");
    cluster.ctl(&["snapshot", "save", end.to_str().unwrap()]);
    let file = SnapshotFile::open(&end, TrailerPolicy::Required).unwrap();
    file.verify(&VerifyOptions::default(), &mut |_, _| ()).unwrap()
}

fn store_is_rebuilt(cluster: &Cluster, lived: &Verified, base: &Path, spool: &Utf8Path, dir: &Path) -> i64 {
    let changes = Changes::open(&spooled(spool), Point::Revision(lived.revision)).unwrap();
    assert_eq!(changes.gaps(), []);
    let options = RestoreOptions { changes: Some(&changes), ..RestoreOptions::default() };
    let base = SnapshotFile::open(base, TrailerPolicy::Required).unwrap();
    let out = dir.join("rebuilt.db");
    let founded = cluster.founded();
    let rebuilt = write_db(&base, Form::Exact, &founded, &options, &out, &mut |_, _| ()).unwrap();
    // never compacted: equal HashKVs are equal rows
    assert_eq!((lived.compact_revision, rebuilt.compact_revision), (-1, -1));
    assert_eq!(
        (rebuilt.hash_kv, rebuilt.rows, rebuilt.live_keys),
        (lived.hash_kv, lived.rows, lived.live_keys)
    );
    rebuilt.reached.unwrap().rows_added as i64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_no_revision_is_lost_and_none_comes_twice() {
    for line in LINES {
        let dir = tempfile::tempdir().unwrap();
        let spool = utf8(dir.path()).join("spool");
        let mut cluster = Cluster::new(line, 3, dir.path(), "killed");
        cluster.start();
        let urls = cluster.endpoints();
        let mut agent = Agent::start(&spool, &urls);
        until("it follows", Duration::from_secs(20), async || spool.exists() && !spooled(&spool).is_empty())
            .await;
        let base = dir.path().join("base.db");
        let (acknowledged, writing) = keep_writing(urls.clone(), 5);
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.ctl(&["snapshot", "save", base.to_str().unwrap()]);
        let mut random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(3);
        for round in 0..9 {
            tokio::time::sleep(Duration::from_millis(random.random_range(200..1500))).await;
            match round % 3 {
                0 => {
                    agent.kill();
                    agent = Agent::start(&spool, &urls);
                }
                1 => {
                    let index = leader(&cluster);
                    cluster.members[index].kill();
                    tokio::time::sleep(Duration::from_millis(random.random_range(100..2500))).await;
                    cluster.spawn(index);
                }
                _ => {
                    agent.kill();
                    let index = random.random_range(0..3);
                    cluster.members[index].kill();
                    agent = Agent::start(&spool, &urls);
                    cluster.spawn(index);
                }
            }
        }
        cluster.wait_healthy();
        // however slow this disk is: enough was written, and some of it after the last kill
        let now = || acknowledged.lock().unwrap().last().map_or(0, |(_, revision)| *revision);
        let enough = REVISIONS_MIN.max(now() + 20);
        until("enough is written", Duration::from_secs(60), async || now() >= enough).await;
        writing.abort();
        let _ = writing.await;
        let lived = lived(&cluster, dir.path());
        let last = lived.revision;
        assert!(last >= now());
        until("all is durable", Duration::from_secs(20), async || durable(&spool) >= last).await;
        agent.stop();
        let replayed = store_is_rebuilt(&cluster, &lived, &base, &spool, dir.path());
        println!("{line}: 9 kills, {last} revisions, {replayed} rows replayed");
        assert!(replayed > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_a_second_ago_outlives_everything() {
    let dir = tempfile::tempdir().unwrap();
    let spool = utf8(dir.path()).join("spool");
    let mut cluster = Cluster::new("3.6", 3, dir.path(), "lost");
    cluster.start();
    let urls = cluster.endpoints();
    let probe = Probe::start(dir.path()).unwrap();
    let (acknowledged, writing) = keep_writing(urls.clone(), 9);
    let mut worst_ms = 0;
    for _ in 0..5 {
        let mut agent = Agent::start(&spool, &urls);
        tokio::time::sleep(Duration::from_millis(2700)).await;
        let killed = Instant::now();
        agent.kill();
        // opening seals what the killed agent left
        Spool::open(&spool).unwrap();
        worst_ms = worst_ms.max(oldest_lost_ms(&acknowledged, killed, durable(&spool)));
    }
    writing.abort();
    let written = acknowledged.lock().unwrap().len();
    let stall_ms = probe.stop().unwrap();
    println!("{written} writes, 5 kills: the oldest write lost was {worst_ms} ms old; disk: {stall_ms} ms");
    assert!(worst_ms < second_ms(stall_ms) && written > 30, "{worst_ms} ms, {stall_ms} ms, {written}");
}

/// The second that may be lost, on a disk that takes so long for one sync: the agent's writes wait their turn behind etcd's.
fn second_ms(stall_ms: u64) -> u128 {
    u128::from(1000 + 4 * stall_ms)
}

/// The oldest write, in ms before the end, that was acknowledged and is above the durable revision; 0: none is.
fn oldest_lost_ms(acknowledged: &Acknowledged, end: Instant, durable: i64) -> u128 {
    let log = acknowledged.lock().unwrap();
    let lost = log.iter().filter(|(at, revision)| *at <= end && *revision > durable);
    lost.map(|(at, _)| (end - *at).as_millis()).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_all_members_died_is_spooled() {
    let dir = tempfile::tempdir().unwrap();
    let spool = utf8(dir.path()).join("spool");
    let mut cluster = Cluster::new("3.6", 3, dir.path(), "gone");
    cluster.start();
    let urls = cluster.endpoints();
    let probe = Probe::start(dir.path()).unwrap();
    let mut following = Following::start(config(&urls, spool.clone()));
    let (acknowledged, writing) = keep_writing(urls, 11);
    let mut worst_ms = 0;
    for _ in 0..4 {
        following.wait("it is known", |health| matches!(health.rpo, Rpo::Known { .. })).await;
        tokio::time::sleep(Duration::from_millis(1300)).await;
        cluster.members.iter_mut().for_each(common::cluster::Member::kill);
        let end = Instant::now();
        // the agent lives on another machine: it has what it has received
        tokio::time::sleep(Duration::from_secs(1)).await;
        worst_ms = worst_ms.max(oldest_lost_ms(&acknowledged, end, durable(&spool)));
        (0..3).for_each(|index| cluster.spawn(index));
        cluster.wait_healthy();
    }
    writing.abort();
    following.stop().await;
    let written = acknowledged.lock().unwrap().len();
    let stall_ms = probe.stop().unwrap();
    println!(
        "{written} writes, 4 kills of all: the oldest write lost was {worst_ms} ms old; disk: {stall_ms} ms"
    );
    assert!(worst_ms < second_ms(stall_ms) && written > 30, "{worst_ms} ms, {stall_ms} ms, {written}");
}

fn refused(health: &Health, url: &str, why: &str) -> bool {
    let member = health.members.iter().find(|member| member.url == url);
    member.is_some_and(|member| member.state.as_ref().is_err_and(|told| told.contains(why)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_knows_the_rpo_or_says_that_it_does_not() {
    const IN_TWO_SECONDS: u32 = 40; // `until` looks every 50 ms
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new("3.6", 3, dir.path(), "health");
    cluster.start();
    let urls = cluster.endpoints();
    let mut following = Following::start(config(&urls, utf8(dir.path()).join("spool")));
    let (_, writing) = keep_writing(urls, 1);
    let known = |health: &Health| matches!(health.rpo, Rpo::Known { .. });
    following.wait("it is known", known).await;
    // it stays known under load: a stall of this disk is told as unknown, and passes
    let (mut seen, mut of, mut in_a_row) = (0u32, 0u32, 0u32);
    until("it stays known for two seconds", Duration::from_secs(60), async || {
        let is_known = known(&following.health.borrow());
        in_a_row = if is_known { in_a_row + 1 } else { 0 };
        seen += u32::from(is_known);
        of += 1;
        in_a_row == IN_TWO_SECONDS
    })
    .await;
    println!("RPO known in {seen} of {of} looks under load");
    // without a quorum nobody can say that nothing is missing
    cluster.members[0].kill();
    cluster.members[1].kill();
    following.wait("it is unknown", |health| !known(health)).await;
    cluster.spawn(0);
    cluster.spawn(1);
    cluster.wait_healthy();
    following.wait("it is known again", known).await;
    writing.abort();
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_another_cluster_or_history_are_never_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (dir.path().join("here"), dir.path().join("there"));
    std::fs::create_dir(&here).unwrap();
    std::fs::create_dir(&there).unwrap();
    let spool = utf8(dir.path()).join("spool");
    let mut cluster = Cluster::new("3.6", 1, &here, "one");
    let mut other = Cluster::new("3.6", 1, &there, "other");
    cluster.start();
    other.start();
    let puts = |cluster: &Cluster, from: usize, to: usize, value: &str| {
        (from..to).for_each(|n| drop(cluster.ctl(&["put", &format!("k{n}"), value])));
    };
    puts(&cluster, 0, 5, "v");
    puts(&other, 0, 40, "v");
    let url = cluster.endpoints()[0].clone();
    let mut following = Following::start(config(std::slice::from_ref(&url), spool.clone()));
    following.wait("it follows", |health| health.following.is_some()).await;
    puts(&cluster, 5, 8, "v");
    cluster.stop();
    let old = here.join("old");
    assert!(
        Command::new("cp").arg("-r").arg(&cluster.members[0].data_dir).arg(&old).status().unwrap().success()
    );
    cluster.spawn(0);
    cluster.wait_healthy();
    puts(&cluster, 8, 20, "v");
    let health = following.wait("all is durable", |health| health.durable_revision == 21).await;
    assert_eq!(health.durable_revision, 21);
    following.stop().await;
    // the other cluster is the first endpoint, and has more revisions
    let urls = [other.endpoints()[0].clone(), url.clone()];
    let mut following = Following::start(config(&urls, spool.clone()));
    let health = following.wait("it follows", |health| health.following.is_some()).await;
    assert_eq!(health.following.as_deref(), Some(url.as_str()));
    following.wait("it says so", |health| refused(health, &urls[0], "it is of the cluster")).await;
    // the member comes back from an old copy: the same cluster id, a lower revision
    cluster.stop();
    std::fs::remove_dir_all(&cluster.members[0].data_dir).unwrap();
    std::fs::rename(&old, &cluster.members[0].data_dir).unwrap();
    cluster.spawn(0);
    cluster.wait_healthy();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let health = following.health.borrow().clone();
    assert!(health.following.is_none() && matches!(health.rpo, Rpo::Unknown { .. }), "{health:?}");
    // it writes other things, and passes the durable revision
    puts(&cluster, 30, 50, "other history");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(following.health.borrow().durable_revision, 21);
    following.stop().await;
    assert_eq!(durable(&spool), 21);
    // and the same after the agent has restarted
    let mut following = Following::start(config(std::slice::from_ref(&url), spool.clone()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    following.wait("it says so", |health| health.durable_revision <= 21).await;
    following.stop().await;
    assert_eq!(durable(&spool), 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_compacted_before_it_was_received_is_a_named_gap() {
    let dir = tempfile::tempdir().unwrap();
    let spool = utf8(dir.path()).join("spool");
    let mut cluster = Cluster::new("3.6", 1, dir.path(), "gap");
    cluster.start();
    let urls = cluster.endpoints();
    let put = |n: usize| drop(cluster.ctl(&["put", "k", &format!("{n}")]));
    let mut following = Following::start(config(&urls, spool.clone()));
    following.wait("it follows", |health| health.following.is_some()).await;
    (0..5).for_each(put);
    following.wait("all is durable", |health| health.durable_revision == 6).await;
    following.stop().await;
    (5..25).for_each(put);
    cluster.ctl(&["compact", "20"]);
    let mut following = Following::start(config(&urls, spool.clone()));
    let health = following.wait("it goes on", |health| health.durable_revision == 26).await;
    let gap = health.gaps[0];
    assert_eq!((gap.first, gap.last, gap.cause), (7, 20, GapCause::Compacted));
    following.stop().await;
    let changes = Changes::open(&spooled(&spool), Point::Latest).unwrap();
    let gaps = changes.gaps();
    assert_eq!((gaps[0].0, gaps[0].1), (7, 20));
    assert_eq!(gaps[0].2.map(|gap| gap.cause), Some(GapCause::Compacted));
    assert_eq!(changes.origin().unwrap().timeline, TIMELINE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_stops_the_stream_until_segments_are_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let spool = utf8(dir.path()).join("spool");
    let mut cluster = Cluster::new("3.6", 1, dir.path(), "full");
    cluster.start();
    let urls = cluster.endpoints();
    let limits = |max: u64| rekindle_agent::FollowConfig {
        segment_bytes: 20_000,
        spool_bytes_max: max,
        ..config(&urls, spool.clone())
    };
    let mut following = Following::start(limits(200_000));
    following.wait("it follows", |health| health.following.is_some()).await;
    let value = "v".repeat(10_000);
    for n in 0..60 {
        cluster.ctl(&["put", &format!("k{}", n % 7), &value]);
    }
    let health = following.wait("it says so", |health| health.spool_full).await;
    assert!(health.durable_revision < 61, "{health:?}");
    following.wait("unknown", |health| matches!(health.rpo, Rpo::Unknown { .. })).await;
    assert!(bytes(&spool).unwrap() < 400_000);
    // whoever uploads takes closed segments away, and nothing was missed
    let away = dir.path().join("away");
    std::fs::create_dir(&away).unwrap();
    let mut all = Vec::new();
    let is_done = |health: &Health| health.durable_revision == 61 && !health.spool_full;
    while !is_done(&following.health.borrow()) {
        for path in closed(&spool).unwrap() {
            let to = away.join(path.file_name().unwrap());
            std::fs::rename(&path, &to).unwrap();
            all.push(to);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    following.stop().await;
    all.extend(spooled(&spool));
    let changes = Changes::open(&all, Point::Latest).unwrap();
    assert_eq!(changes.gaps(), []);
    assert_eq!(changes.segments().iter().map(|s| s.last_revision).max(), Some(61));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_larger_than_a_message_is_received_whole() {
    const KEYS: usize = 40_000;
    for line in LINES {
        let dir = tempfile::tempdir().unwrap();
        let spool = utf8(dir.path()).join("spool");
        let mut cluster = Cluster::new(line, 1, dir.path(), "large");
        cluster.start();
        let mut client = etcd_client::Client::connect(cluster.endpoints(), None).await.unwrap();
        for first in (0..KEYS).step_by(128) {
            let put = |n| etcd_client::TxnOp::put(format!("/registry/{n:060}"), vec![], None);
            let puts: Vec<etcd_client::TxnOp> = (first..KEYS.min(first + 128)).map(put).collect();
            client.txn(etcd_client::Txn::new().and_then(puts)).await.unwrap();
        }
        let base = dir.path().join("base.db");
        cluster.ctl(&["snapshot", "save", base.to_str().unwrap()]);
        let mut following = Following::start(config(&cluster.endpoints(), spool.clone()));
        following.wait("it follows", |health| health.following.is_some()).await;
        let options = etcd_client::DeleteOptions::new().with_prefix();
        let deleted = client.delete("/registry/", Some(options)).await.unwrap();
        assert_eq!(usize::try_from(deleted.deleted()), Ok(KEYS));
        let last = client.put("after", "", None).await.unwrap().header().unwrap().revision();
        following.wait("all is durable", |health| health.durable_revision == last).await;
        following.stop().await;
        let lived = lived(&cluster, dir.path());
        assert_eq!(store_is_rebuilt(&cluster, &lived, &base, &spool, dir.path()), KEYS as i64 + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_leaves_a_proof_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let spool = utf8(dir.path()).join("spool");
    let mut cluster = Cluster::new("3.6", 1, dir.path(), "proof");
    cluster.start();
    let put = |n: usize| drop(cluster.ctl(&["put", &format!("k{}", n % 3), &format!("{n}")]));
    (0..10).for_each(put);
    cluster.ctl(&["compact", "5"]);
    let mut following = Following::start(config(&cluster.endpoints(), spool.clone()));
    following.wait("it follows", |health| health.following.is_some()).await;
    // the first compaction is seen at the first look, ten seconds before the next
    tokio::time::sleep(Duration::from_secs(11)).await;
    let base = dir.path().join("base.db");
    cluster.ctl(&["snapshot", "save", base.to_str().unwrap()]);
    (10..30).for_each(put);
    cluster.ctl(&["compact", "25"]);
    until("a sample is spooled", Duration::from_secs(40), async || {
        let changes = Changes::open(&spooled(&spool), Point::Latest).unwrap();
        changes.segments().iter().any(|segment| !segment.samples.is_empty())
    })
    .await;
    following.stop().await;
    let changes = Changes::open(&spooled(&spool), Point::Revision(17)).unwrap();
    let options = RestoreOptions { changes: Some(&changes), ..RestoreOptions::default() };
    let base = SnapshotFile::open(&base, TrailerPolicy::Required).unwrap();
    let out = dir.path().join("rebuilt.db");
    let rebuilt = write_db(&base, Form::Exact, &cluster.founded(), &options, &out, &mut |_, _| ()).unwrap();
    let proof = rebuilt.reached.unwrap().proof.unwrap().hash_kv;
    assert_eq!((proof.revision, proof.compact_revision), (25, 5));
}
