//! The story: three members under writes, and an agent that asks for proof now and then. A follower gives it, never the
//! leader, whoever leads; and the newest revisions, which no compaction has proved, come back proved.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::print_stdout)] // the figures

mod common;

use common::cluster::Cluster;
use common::{Following, Workload, config, spooled, utf8};
use etcd_disk::changes::{Changes, Point};
use etcd_disk::restore::{Form, RestoreOptions, write_db};
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy};
use rekindle_agent::{FollowConfig, Health};
use std::time::Duration;

/// The endpoint of the leader, while all members agree on it.
fn leader(cluster: &Cluster) -> Option<String> {
    let leads = |url: &String| {
        let told = cluster.raw(&[url], &["endpoint", "status", "-w", "json"], "");
        let told: serde_json::Value = serde_json::from_slice(&told.stdout).ok()?;
        let status = &told[0]["Status"];
        Some(!status["leader"].is_null() && status["leader"] == status["header"]["member_id"])
    };
    let urls = cluster.endpoints();
    let leaders: Vec<&String> = urls.iter().filter(|url| leads(url) == Some(true)).collect();
    (leaders.len() == 1).then(|| leaders[0].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_proves_the_newest_revisions() {
    let dir = tempfile::tempdir().unwrap();
    let spool = utf8(dir.path()).join("spool");
    let mut cluster = Cluster::new("3.6", 3, dir.path(), "proved");
    cluster.start();
    let urls = cluster.endpoints();
    let base = dir.path().join("base.db");
    let every = Duration::from_millis(300);
    let follows = FollowConfig { prove_every: Some(every), ..config(&urls, spool.clone()) };
    let mut following = Following::start(follows);
    following.wait("it follows", |health| health.following.is_some()).await;
    cluster.ctl(&["snapshot", "save", base.to_str().unwrap()]);
    let mut work = Workload::new(&urls, 11).await;
    let (mut seen, mut last) = (0, 0);
    while seen < 8 {
        let leads = leader(&cluster);
        last = work.step().await.unwrap_or(last);
        let health = following.health.borrow().clone();
        if health.proofs > seen && leads == leader(&cluster) {
            let proof = health.last_proof.unwrap();
            assert_ne!(Some(&proof.url), leads.as_ref(), "the leader was asked");
            assert_ne!(Some(&proof.url), health.following.as_ref(), "another follower was there");
        }
        seen = health.proofs.max(seen);
    }
    let is_proved = |health: &Health| health.last_proof.as_ref().is_some_and(|proof| proof.revision >= last);
    let proof = following.wait("a last proof", is_proved).await.last_proof.unwrap();
    following.wait("it is durable", |health| health.durable_revision >= proof.revision).await;
    following.stop().await;
    let changes = Changes::open(&spooled(&spool), Point::Latest).unwrap();
    let options = RestoreOptions { changes: Some(&changes), ..RestoreOptions::default() };
    let base = SnapshotFile::open(&base, TrailerPolicy::Required).unwrap();
    let out = dir.path().join("rebuilt.db");
    let rebuilt = write_db(&base, Form::Exact, &cluster.founded(), &options, &out, &mut |_, _| ()).unwrap();
    let reached = rebuilt.reached.unwrap();
    let sample = reached.proof.expect("the newest revision is proved");
    assert_eq!((reached.revision, sample.hash_kv.revision), (last, last));
    println!("{seen} proofs by followers; revision {last} proved, the last one took {:?}", proof.took);
}

// A cluster of one has nobody else to ask: asked it is, because its operator said so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_only_member_is_asked_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new("3.6", 1, dir.path(), "alone");
    cluster.start();
    let urls = cluster.endpoints();
    let every = Some(Duration::from_millis(200));
    let follows = FollowConfig { prove_every: every, ..config(&urls, utf8(dir.path()).join("spool")) };
    let mut following = Following::start(follows);
    let health = following.wait("no proof", |health| health.proofs > 0).await;
    assert_eq!(health.last_proof.unwrap().url, urls[0]);
    following.stop().await;
}
