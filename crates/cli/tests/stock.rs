//! The snapshot verbs against stock etcd, etcdctl and etcdutl of every line: what one writes the other reads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use testbed::components::{ETCD_LINES, Etcd, etcd_line};
use testbed::ports::free_url;

struct Running {
    child: Child,
    url: String,
    tools: Etcd,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running etcd of this line on a data dir, alone or as restored.
fn boot(line: &str, data: &Path, peer: &str) -> Running {
    let tools = etcd_line(line).unwrap();
    let url = free_url();
    let child = Command::new(&tools.etcd)
        .args(["--name", "m1", "--data-dir", data.to_str().unwrap(), "--log-level", "error"])
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
        .args(["--initial-cluster", &format!("m1={peer}")])
        .env("ETCD_VERIFY", "all")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running { child, url, tools };
    let start = Instant::now();
    while running.ctl(&["endpoint", "health"]).is_none() {
        assert!(start.elapsed() < Duration::from_secs(60), "etcd {line} does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    running
}

impl Running {
    fn ctl(&self, args: &[&str]) -> Option<String> {
        let output = Command::new(&self.tools.etcdctl)
            .args(["--endpoints", &self.url, "--command-timeout=2s"])
            .args(args)
            .env("ETCDCTL_API", "3")
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }
    fn hash_kv(&self) -> Value {
        serde_json::from_str(&self.ctl(&["endpoint", "hashkv", "-w", "json"]).unwrap()).unwrap()
    }
}

fn rekindle(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rekindle")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn ok_json(args: &[&str]) -> Value {
    let output = rekindle(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn fill(etcd: &Running) {
    for i in 0..40 {
        etcd.ctl(&["put", &format!("/registry/secrets/ns/s{}", i % 13), &format!("value {i}")]).unwrap();
    }
    etcd.ctl(&["del", "/registry/secrets/ns/s3"]).unwrap();
}

// The round trip an operator relies on: saved by us, read by stock; restored by us, booted by stock, equal by HashKV.
#[test]
fn saved_verified_restored_and_booted() {
    for line in ETCD_LINES {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let peer = free_url();
        let etcd = boot(line, &dir.path().join("data"), &peer);
        fill(&etcd);
        // The first endpoint is dead: the next one is tried.
        let endpoints = format!("http://127.0.0.1:1,{}", etcd.url);
        let saved = ok_json(&["snapshot", "save", &path("snap.db"), "--endpoints", &endpoints, "-o", "json"]);
        assert_eq!(saved["keysByResource"]["secrets"], 12, "{line}: {saved}");
        assert_eq!(saved["hashKv"]["hash"], etcd.hash_kv()[0]["HashKV"]["hash"], "{line}");
        let status = Command::new(&etcd.tools.etcdutl)
            .args(["snapshot", "status", &path("snap.db"), "-w", "json"])
            .output()
            .unwrap();
        let status: Value = serde_json::from_slice(&status.stdout).unwrap();
        assert_eq!(status["revision"], saved["revision"], "{line}");
        drop(etcd);
        let verified = ok_json(&["snapshot", "verify", &path("snap.db"), "-o", "json"]);
        assert_eq!(verified["sha256Checked"], true);
        assert_eq!(verified["hashKv"], saved["hashKv"]);
        for (name, more) in
            [("exact", vec![]), ("bumped", vec!["--bump-revision", "1000", "--mark-compacted"])]
        {
            let data = path(name);
            let mut args = vec!["snapshot", "restore", "-o", "json", "--name", "m1", "--data-dir", &data];
            let (file, members) = (path("snap.db"), format!("m1={peer}"));
            args.extend(["--initial-cluster", &members, "--initial-advertise-peer-urls", &peer, &file]);
            args.extend(more);
            let restored = ok_json(&args);
            let etcd = boot(line, Path::new(&data), &peer);
            let live = etcd.hash_kv();
            assert_eq!(live[0]["HashKV"]["hash"], restored["hashKv"]["hash"], "{line} {name}");
            assert_eq!(
                etcd.ctl(&["get", "/registry/", "--prefix", "--keys-only"])
                    .unwrap()
                    .split_whitespace()
                    .count(),
                12
            );
            if name == "bumped" {
                let raised = restored["revision"].as_i64().unwrap();
                assert!(raised >= saved["revision"].as_i64().unwrap() + 1000);
            }
            etcd.ctl(&["put", "/registry/secrets/ns/after", "x"]).unwrap();
        }
    }
}

// Nothing that exists is overwritten, and a damaged file is refused with its reason.
#[test]
fn guards() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let peer = free_url();
    let etcd = boot("3.6", &dir.path().join("data"), &peer);
    fill(&etcd);
    std::fs::write(path("taken.db"), "mine").unwrap();
    let output = rekindle(&["snapshot", "save", &path("taken.db"), "--endpoints", &etcd.url]);
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(std::fs::read(path("taken.db")).unwrap(), b"mine");
    ok_json(&["snapshot", "save", &path("snap.db"), "--endpoints", &etcd.url, "-o", "json"]);
    let mut bytes = std::fs::read(path("snap.db")).unwrap();
    bytes[9000] ^= 1;
    std::fs::write(path("flipped.db"), &bytes).unwrap();
    let output = rekindle(&["snapshot", "verify", &path("flipped.db")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("flipped.db"));
    std::fs::create_dir_all(dir.path().join("full/member")).unwrap();
    let output = rekindle(&[
        "snapshot",
        "restore",
        &path("snap.db"),
        "--data-dir",
        &path("full"),
        "--name",
        "default",
    ]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    // The dead endpoint alone: an error, and no half file is left.
    let output = rekindle(&["snapshot", "save", &path("none.db"), "--endpoints", "http://127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1));
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("none.db")), "{left:?}");
}

// Lines for other tools: exported keys are the live ones, values in base64; a closed pipe is no error.
#[test]
fn export_gives_live_keys() {
    let dir = tempfile::tempdir().unwrap();
    let peer = free_url();
    let etcd = boot("3.6", &dir.path().join("data"), &peer);
    fill(&etcd);
    let snap = dir.path().join("snap.db");
    ok_json(&["snapshot", "save", snap.to_str().unwrap(), "--endpoints", &etcd.url, "-o", "json"]);
    let output =
        rekindle(&["snapshot", "export", snap.to_str().unwrap(), "--prefix", "/registry/secrets/ns/s1"]);
    let lines: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let mut keys: Vec<_> = lines.iter().map(|l| l["key"].as_str().unwrap().to_owned()).collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            "/registry/secrets/ns/s1",
            "/registry/secrets/ns/s10",
            "/registry/secrets/ns/s11",
            "/registry/secrets/ns/s12"
        ]
    );
    assert_eq!(
        lines.iter().find(|l| l["key"] == "/registry/secrets/ns/s1").unwrap()["value"],
        "dmFsdWUgMjc="
    );
}
