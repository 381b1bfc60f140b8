//! The story: while a member of three is stopped, one value in its db is changed on the disk. It boots, joins and serves, and
//! nobody notices: etcd checks no row. At the next compaction the agent does, and names that member alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::print_stdout)] // the figures

mod common;

use common::cluster::Cluster;
use common::{Following, config, utf8};
use rekindle_agent::Compared;
use std::path::Path;
use std::time::{Duration, Instant};

const VALUE: &str = "the value that will not stay as it is";
/// A compaction every so often: the agent looks for them each ten seconds.
const EVERY: Duration = Duration::from_secs(4);

/// Compacts until the agent has compared the members and found this.
async fn compacted_until(cluster: &Cluster, following: &Following, diverged: &[String]) -> Compared {
    let begun = Instant::now();
    loop {
        let compared = following.health.borrow().compared.clone();
        if let Some(compared) = compared.filter(|compared| compared.diverged == diverged) {
            return compared;
        }
        assert!(begun.elapsed() < Duration::from_secs(180), "{:?}", following.health.borrow().clone());
        let put = cluster.json(&["put", "/registry/configmaps/ns/tick", &format!("{:?}", begun.elapsed())]);
        cluster.ctl(&["compaction", &put["header"]["revision"].to_string()]);
        tokio::time::sleep(EVERY).await;
    }
}

/// Changes a value wherever the file has it, its pages else as they were.
fn altered(db: &Path) -> usize {
    let mut bytes = std::fs::read(db).unwrap();
    let found: Vec<usize> = (0..bytes.len() - VALUE.len())
        .filter(|at| bytes[*at] == VALUE.as_bytes()[0] && bytes[*at..].starts_with(VALUE.as_bytes()))
        .collect();
    found.iter().for_each(|at| bytes[*at] = b'T');
    std::fs::write(db, bytes).unwrap();
    found.len()
}

async fn the_altered_member_is_named(line: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(line, 3, dir.path(), "diverged");
    cluster.start();
    cluster.ctl(&["put", "/registry/secrets/ns/s", VALUE]);
    let urls = cluster.endpoints();
    let following = Following::start(config(&urls, utf8(dir.path()).join("spool")));
    compacted_until(&cluster, &following, &[]).await;

    cluster.members[2].stop();
    assert!(altered(&cluster.members[2].data_dir.join("member/snap/db")) > 0);
    cluster.spawn(2);
    cluster.wait_healthy();
    let read = cluster.raw(&[&urls[2]], &["get", "/registry/secrets/ns/s", "--consistency=s"], "");
    assert!(String::from_utf8_lossy(&read.stdout).contains("The value"), "it serves what it should not");
    let begun = Instant::now();
    let compared = compacted_until(&cluster, &following, &urls[2..]).await;
    println!(
        "{line}: named {} ms after its start, at revision {}",
        begun.elapsed().as_millis(),
        compared.revision
    );
    following.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_altered_member_of_3_5_is_named() {
    the_altered_member_is_named("3.5").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_altered_member_of_3_6_is_named() {
    the_altered_member_is_named("3.6").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_altered_member_of_3_7_is_named() {
    the_altered_member_is_named("3.7").await;
}
