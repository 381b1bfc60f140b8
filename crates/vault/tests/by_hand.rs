//! The story: Rekindle is not at hand, but a copy of the vault, an identity and stock tools are. The commands of
//! `docs/formats/vault.md` are run as they stand there, and bring back the snapshot of a real etcd.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use base64::Engine;
use common::*;
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy, VerifyOptions};
use rekindle_vault::SigningKey;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use testbed::components::{ETCD_LINES, age, etcd_line};
use testbed::ports::free_url;

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {told}{}", String::from_utf8_lossy(&output.stdout));
    output
}

/// A snapshot of a real etcd of this line, and the number of its keys.
fn stock_snapshot(line: &str, dir: &Path) -> u64 {
    let tools = etcd_line(line).unwrap();
    let (client, peer) = (free_url(), free_url());
    let _etcd = Killed(
        Command::new(&tools.etcd)
            .args(["--data-dir", dir.join("data").to_str().unwrap(), "--log-level", "error"])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let ctl = || {
        let mut ctl = Command::new(&tools.etcdctl);
        ctl.args(["--endpoints", &client]);
        ctl
    };
    let start = Instant::now();
    while !ctl().args(["endpoint", "health"]).output().unwrap().status.success() {
        assert!(start.elapsed() < Duration::from_secs(60), "etcd {line} does not answer");
    }
    for i in 0..25 {
        run(ctl().args(["put", &format!("/registry/secrets/{i}"), "value"]));
    }
    run(ctl().args(["snapshot", "save", dir.join("snapshot.db").to_str().unwrap()]));
    25
}

/// The shell block under "By hand".
fn commands() -> String {
    let page = include_str!("../../../docs/formats/vault.md");
    let block = page.split("## By hand").nth(1).unwrap().split("```sh\n").nth(1).unwrap();
    block.split("```").next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_brings_back_a_stock_snapshot() {
    for (tool, package) in [("jq", "jq"), ("zstd", "zstd"), ("openssl", "openssl")] {
        assert!(testbed::needs::has(tool), "{tool} is missing: apt-get install {package}");
    }
    let (age, keys) = (age().unwrap(), Keys::new());
    for line in ETCD_LINES {
        let (folder, store) = folder();
        let dir = tempfile::tempdir().unwrap();
        let live_keys = stock_snapshot(line, dir.path());
        let path = dir.path().join("snapshot.db");
        let file = SnapshotFile::open(&path, TrailerPolicy::Required).unwrap();
        let verified = file.verify(&VerifyOptions::default(), &mut |_, _| ()).unwrap();
        let writer = keys.writer(&store, "cp-1").await;
        put_full(&writer, dir.path(), 9, 1000).await;
        writer.put_full(&path, full_meta(verified.clone(), 2000)).await.unwrap();
        put_segment(&writer, 100, 110, 3000).await;

        let tools = etcd_line(line).unwrap();
        let out = tempfile::tempdir().unwrap();
        let paths = format!(
            "{}:{}:{}",
            age.dir,
            tools.etcdutl.parent().unwrap(),
            std::env::var("PATH").unwrap_or_default()
        );
        let by_hand = || {
            let mut sh = Command::new("sh");
            sh.args(["-c", &commands()])
                .env("PATH", &paths)
                .env("VAULT", folder.path())
                .env("CLUSTER", "prod")
                .env("IDENTITY", &keys.identity_file)
                .env("SIGNER", keys.key.signer().to_string())
                .env("OUT", out.path());
            sh
        };
        run(&mut by_hand());
        let restored = out.path().join("snapshot.db");
        assert_eq!(std::fs::read(&restored).unwrap(), std::fs::read(&path).unwrap(), "{line}");
        let status =
            run(Command::new(&tools.etcdutl).args(["snapshot", "status", "-w", "json"]).arg(&restored));
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        assert_eq!(status["revision"], verified.revision, "{line}");
        assert_eq!(verified.live_keys, live_keys, "{line}");
        assert!(out.path().join("restored.etcd/member/snap/db").is_file(), "{line}");

        // a manifest that somebody changed does not pass by hand either
        let manifest = folder.path().join("prod/manifest/000000000002.json");
        let text = std::fs::read_to_string(&manifest).unwrap();
        std::fs::write(&manifest, text.replace("\"takenMs\":2000", "\"takenMs\":2001")).unwrap();
        std::fs::remove_dir_all(out.path().join("restored.etcd")).unwrap();
        std::fs::remove_file(&restored).unwrap();
        assert!(!by_hand().output().unwrap().status.success());
        assert!(!restored.exists(), "{line}");
    }
}

// A signing key that openssl made signs, and our own is one that openssl reads.
#[test]
fn signing_keys_are_those_of_openssl() {
    assert!(testbed::needs::has("openssl"), "openssl is missing: apt-get install openssl");
    let dir = tempfile::tempdir().unwrap();
    let (theirs, ours) = (dir.path().join("theirs.key"), dir.path().join("ours.key"));
    run(Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&theirs));
    SigningKey::create(&ours).unwrap();
    for path in [theirs, ours] {
        let signer = SigningKey::read(&path).unwrap().signer().to_string();
        let public =
            run(Command::new("openssl").args(["pkey", "-pubout", "-outform", "DER", "-in"]).arg(&path));
        let key = base64::engine::general_purpose::STANDARD.encode(&public.stdout[12..]);
        assert_eq!(signer, format!("ed25519:{key}"), "{}", path.display());
    }
}
