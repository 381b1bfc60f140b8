//! The story: the vault lies in a bucket, served by a real S3 server that is stopped, slow to return, shared by two
//! writers, and locks objects. What was promised for a folder holds here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use base64::Engine;
use common::*;
use rekindle_vault::manifest::ClusterIdentity;
use rekindle_vault::{BundleMeta, Error, Retention, Store};
use sha2::{Digest, Sha256};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ACCESS: &str = "rekindle-test";
const SECRET: &str = "rekindle-test-secret";

/// A Versity gateway over a folder.
struct Gateway {
    root: tempfile::TempDir,
    port: u16,
    process: Option<Child>,
}

impl Gateway {
    fn start() -> Self {
        let port = testbed::ports::free();
        let mut gateway = Self { root: tempfile::tempdir().unwrap(), port, process: None };
        gateway.run();
        gateway
    }

    fn run(&mut self) {
        let binary = testbed::components::versitygw().unwrap().path("versitygw");
        let process = Command::new(binary)
            .args(["--access", ACCESS, "--secret", SECRET, "--quiet"])
            .args(["--port", &format!("127.0.0.1:{}", self.port), "posix"])
            .arg(self.root.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(30), "the gateway does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A request that object_store has no call for: by curl, signed.
    fn ask(&self, args: &[&str], path: &str) {
        assert!(testbed::needs::has("curl"), "curl is missing: apt-get install curl");
        let output = Command::new("curl")
            .args(["-s", "--fail-with-body", "--aws-sigv4", "aws:amz:us-east-1:s3"])
            .args(["--user", &format!("{ACCESS}:{SECRET}"), "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"])
            .args(args)
            .arg(format!("{}/{path}", self.url()))
            .output()
            .unwrap();
        assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stdout));
    }

    /// A vault in a new bucket, below a prefix.
    fn store(&self, bucket: &str) -> Store {
        self.ask(&["-X", "PUT", "-H", "x-amz-bucket-object-lock-enabled: true"], bucket);
        Self::store_at(&self.url(), bucket)
    }

    fn store_at(endpoint: &str, bucket: &str) -> Store {
        let settings = [
            ("aws_endpoint", endpoint),
            ("aws_allow_http", "true"),
            ("aws_region", "us-east-1"),
            ("aws_access_key_id", ACCESS),
            ("aws_secret_access_key", SECRET),
        ];
        Store::open_with(&format!("s3://{bucket}/backups/k8s"), settings.into_iter()).unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop();
    }
}

// Fulls of several pieces, segments and bundles; fetched byte for byte; verified both ways; a byte flipped below the
// server's nose is found; nothing unencrypted lies there.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_holds_a_vault() {
    let (keys, gateway) = (Keys::new(), Gateway::start());
    let store = gateway.store("vault");
    let writer = keys.writer(&store, "cp-1").await;
    let (path, verified) = snapshot(keys.dir.path(), 30, 1 << 20);
    let put = writer.put_full(&path, full_meta(verified, 1000)).await.unwrap();
    assert!(part(&put).size_bytes > 25 << 20, "a multipart upload");
    put_segment(&writer, 31, 40, 2000).await;
    put_bundle(&writer, keys.dir.path(), "cp-1", 1000).await;
    let vault = keys.vault(&store);
    let to = keys.dir.path().join("fetched.db");
    vault.fetch(part(&put), &keys.identities, &to).await.unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), std::fs::read(&path).unwrap());
    let (history, faults) = vault.history().await.unwrap();
    assert_eq!((faults.len(), history.timelines[0].restorable[0].last_revision), (0, 40));
    for content in [false, true] {
        let report = keys.verify(&vault, content).await;
        assert_eq!((report.parts, report.faults.clone()), (3, vec![]), "{report:?}");
    }
    let stored = gateway.root.path().join("vault/backups/k8s/prod").join(&part(&put).name);
    let mut bytes = std::fs::read(&stored).unwrap();
    bytes[9_999_999] ^= 1;
    std::fs::write(&stored, bytes).unwrap();
    let report = keys.verify(&vault, false).await;
    assert_eq!(report.faults.len(), 1);
    assert!(report.faults[0].object.starts_with("s3://vault/backups/k8s/prod/full/"), "{report:?}");
}

// Two writers race for every place in the chain: the conditional puts decide, nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn two_writers_race_for_each_place() {
    let (keys, gateway) = (Keys::new(), Gateway::start());
    let store = gateway.store("race");
    let mut tasks = Vec::new();
    for host in 0..2i64 {
        let writer = keys.writer(&store, &format!("cp-{host}")).await;
        tasks.push(tokio::spawn(async move {
            for i in 0..20 {
                let first = 1 + host * 1000 + i * 10;
                put_segment(&writer, first, first + 9, 1000 + i).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let report = keys.verify(&keys.vault(&store), true).await;
    assert_eq!((report.manifests, report.parts, report.faults.len()), (40, 40, 0), "{report:?}");
}

// The server goes away for 20 seconds while a backup is under way and returns: the backup is finished without anybody's help.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_goes_away_and_returns() {
    let (keys, mut gateway) = (Keys::new(), Gateway::start());
    let store = gateway.store("outage");
    let writer = keys.writer(&store, "cp-1").await;
    let (path, verified) = snapshot(keys.dir.path(), 60, 1 << 20);
    let upload = tokio::spawn({
        let (path, meta) = (path.clone(), full_meta(verified, 1000));
        async move { (writer.put_full(&path, meta).await, writer) }
    });
    let pieces = gateway.root.path().join("outage/.sgwtmp");
    while !pieces.exists() {
        assert!(!upload.is_finished(), "it was stored before the server could go away");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    gateway.stop();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!upload.is_finished(), "it waits for the server");
    gateway.run();
    let (put, writer) = upload.await.unwrap();
    put.unwrap();
    put_segment(&writer, 61, 70, 2000).await;
    let report = keys.verify(&keys.vault(&store), true).await;
    assert_eq!((report.parts, report.faults.clone()), (2, vec![]), "{report:?}");
}

// The server is killed for a moment at every point of a backup, whatever request it was answering then: each backup is
// stored, once.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_with_the_server() {
    let (keys, mut gateway) = (Keys::new(), Gateway::start());
    let store = gateway.store("blink");
    let mut writer = keys.writer(&store, "cp-1").await;
    let (path, verified) = snapshot(keys.dir.path(), 20, 1 << 20);
    const TIMES: u64 = 24;
    for n in 0..TIMES {
        let upload = tokio::spawn({
            let (path, meta) = (path.clone(), full_meta(verified.clone(), 1000));
            async move { (writer.put_full(&path, meta).await, writer) }
        });
        tokio::time::sleep(Duration::from_millis(n * 8)).await;
        gateway.stop();
        tokio::time::sleep(Duration::from_millis(100)).await;
        gateway.run();
        let (put, back) = upload.await.unwrap();
        put.unwrap_or_else(|e| panic!("killed after {} ms: {}", n * 8, chain(&e)));
        writer = back;
    }
    let report = keys.verify(&keys.vault(&store), true).await;
    assert_eq!((report.parts, report.faults.clone()), (TIMES, vec![]), "{report:?}");
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

// Objects under a lock stay: prune says so, goes on with the rest, and leaves a vault without a fault.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_object_is_told_and_skipped() {
    let (keys, gateway) = (Keys::new(), Gateway::start());
    let store = gateway.store("locked");
    let writer = keys.writer(&store, "cp-1").await;
    for i in 1..=6 {
        put_full(&writer, keys.dir.path(), i * 10, i * 1000).await;
    }
    let lock = "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>COMPLIANCE</Mode>\
                <RetainUntilDate>2099-01-01T00:00:00Z</RetainUntilDate></Retention>";
    let locked = "backups/k8s/prod/manifest/000000000003.json";
    let sum = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(lock));
    let sum = format!("x-amz-checksum-sha256: {sum}");
    gateway.ask(&["-X", "PUT", "-H", &sum, "-d", lock], &format!("locked/{locked}?retention="));
    let one = Retention { last: 1, hourly: 0, daily: 0, weekly: 0, monthly: 0, ..Retention::default() };
    age_files(&gateway.root.path().join("locked/backups"));
    let report = writer.prune(&one, now_ms(), false).await.unwrap();
    assert_eq!(report.removed.iter().map(|removed| removed.sequence).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(report.skipped.len(), 1, "{report:?}");
    assert!(report.skipped[0].object.ends_with("000000000003.json"));
    assert!(report.skipped[0].error.iter().any(|line| line.contains("object lock")), "{report:?}");
    let verified = keys.verify(&keys.vault(&store), true).await;
    assert_eq!((verified.faults.clone(), verified.good_fulls), (vec![], vec![1, 2, 3, 6]));
}

// A bucket that is not there is named, and so is a server that is not there, before anybody waits for long.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_is_named() {
    let (keys, gateway) = (Keys::new(), Gateway::start());
    let store = gateway.store("there");
    std::fs::remove_dir_all(gateway.root.path().join("there")).unwrap();
    let error = keys.vault(&store).history().await.unwrap_err();
    assert!(matches!(error, Error::Store { .. }), "{error:?}");
    assert!(error.to_string().contains("s3://there/backups/k8s/prod/manifest"), "{error}");
    let start = Instant::now();
    drop(gateway);
    let error = keys.vault(&store).history().await.unwrap_err();
    assert!(error.to_string().contains("s3://there/backups/k8s/prod/manifest"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

/// Most memory this process ever had.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Not a test by itself: what `memory_is_bounded` starts, so that its memory is its own.
#[tokio::test(flavor = "multi_thread")]
async fn one_large_part() {
    let Ok(endpoint) = std::env::var("VAULT_ENDPOINT") else { return };
    let (keys, store) = (Keys::new(), Gateway::store_at(&endpoint, "large"));
    let path = keys.dir.path().join("large.tar");
    let mut random = std::io::Read::take(std::fs::File::open("/dev/urandom").unwrap(), LARGE_BYTES);
    std::io::copy(&mut random, &mut std::fs::File::create(&path).unwrap()).unwrap();
    let writer = keys.writer(&store, "cp-1").await;
    let meta = BundleMeta { identity: ClusterIdentity::default(), host: "cp-1".into(), taken_ms: 1000 };
    let put = writer.put_bundle(path.clone(), meta).await.unwrap();
    let to = keys.dir.path().join("fetched");
    keys.vault(&store).fetch(part(&put), &keys.identities, &to).await.unwrap();
    assert_eq!(std::fs::metadata(to).unwrap().len(), LARGE_BYTES);
    assert_eq!(keys.verify(&keys.vault(&store), true).await.parts, 1);
    println!("peak {} MiB", peak_bytes() >> 20);
    assert!(peak_bytes() < LARGE_BYTES / 3, "{} bytes", peak_bytes());
}

const LARGE_BYTES: u64 = 384 << 20;

// However large a part is, it passes through: into the bucket, out of it, and through verification.
#[test]
fn memory_is_bounded() {
    let gateway = Gateway::start();
    gateway.store("large");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "one_large_part", "--nocapture"])
        .env("VAULT_ENDPOINT", gateway.url())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && told.contains("peak"),
        "{told}{}",
        String::from_utf8_lossy(&child.stderr)
    );
    println!("{told}");
}
