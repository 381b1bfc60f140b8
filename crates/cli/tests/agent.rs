//! The story: an agent protects a real etcd under writes. The vault's folder goes away for some seconds, the agent is killed
//! meanwhile and started again, and killed some times more. Nothing is lost: when the vault is back all follows within seconds, without a gap, and a
//! revision of before, of within and of after the outage comes back as etcd answered then. SIGTERM leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::site::{Site, json, rekindle};
use common::{Member, Running, wait_for};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

impl Member {
    /// What the member answers now; only whoever writes may ask.
    fn now(&self) -> Then {
        let hash = self.try_ctl(&["endpoint", "hashkv", "-w", "json"]).unwrap();
        let hash: Value = serde_json::from_str(&hash).unwrap();
        Then {
            revision: hash[0]["HashKV"]["hash_revision"].as_i64().unwrap(),
            hash: hash[0]["HashKV"]["hash"].as_u64().unwrap(),
            keys: self.try_ctl(&["get", "", "--prefix"]).unwrap(),
        }
    }
}

/// What a member answered.
#[derive(Debug, PartialEq)]
struct Then {
    revision: i64,
    hash: u64,
    keys: String,
}

/// Writes, overwrites and deletes until told to stop, and notes now and then what etcd answers.
fn work(member: &Member, stop: &AtomicBool, thens: &Mutex<Vec<Then>>) {
    for i in 0.. {
        let key = format!("/registry/configmaps/ns/c{}", i % 40);
        if i % 11 == 10 {
            member.try_ctl(&["del", &key]).unwrap();
        } else {
            member.try_ctl(&["put", &key, &format!("{i} ").repeat(100)]).unwrap();
        }
        let last = stop.load(Ordering::Relaxed);
        if i % 7 == 0 || last {
            thens.lock().unwrap().push(member.now());
        }
        if last {
            return;
        }
    }
}

#[test]
fn nothing_is_lost() {
    let etcd = tempfile::tempdir().unwrap();
    let member = Arc::new(Member::boot(&etcd.path().join("data"), &testbed::ports::free_url()));
    let site = Site::new(&member.url);
    let good = rekindle(&["agent", "--check-config", "--config", &site.path("agent.yaml")]);
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));

    let (stop, thens) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let writing = {
        let (member, stop, thens) = (member.clone(), stop.clone(), thens.clone());
        std::thread::spawn(move || work(&member, &stop, &thens))
    };
    let mut agent = site.agent();
    wait_for("the agent is not healthy", || site.is_healthy());
    wait_for("less than two seconds are at stake", || {
        site.metric("rpo_seconds").is_some_and(|rpo| rpo < 2.0)
    });
    wait_for("no segment is stored", || site.metric("segments_stored_total") > Some(1.0));
    let newest = || thens.lock().unwrap().last().map_or(0, |then| then.revision);
    let before = newest();

    // the vault's disk goes away
    let (vault, aside) = (site.vault.clone(), site.path("vault-aside"));
    std::fs::rename(&vault, &aside).unwrap();
    std::fs::write(&vault, "no folder").unwrap();
    wait_for("the outage is not told", || site.metric("store_errors_total") > Some(1.0));
    assert!(site.get("/metrics").unwrap().contains("rekindle_agent_last_error_info{error=\""));
    agent.0.kill().unwrap();
    agent.0.wait().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    agent = site.agent();
    wait_for("it does not follow without the vault", || {
        site.metric("durable_revision") >= Some(newest() as f64)
            && site.metric("store_errors_total") > Some(0.0)
    });
    std::thread::sleep(Duration::from_secs(2));
    let (within, stored) = (newest(), site.metric("stored_revision").unwrap());
    assert!(stored < within as f64, "{stored} {within}");
    std::fs::remove_file(&vault).unwrap();
    std::fs::rename(&aside, &vault).unwrap();

    let back =
        wait_for("what was spooled is not stored", || site.metric("stored_revision") >= Some(within as f64));
    // somebody takes a full by hand, while younger changes than its own are stored: it is of the same timeline
    let (key, scratch, to) = (site.path("sign.key"), site.path("scratch"), &site.recipient);
    let by_hand =
        ["--signing-key", &key, "--scratch", &scratch, "--recipient", to, "--endpoints", &member.url];
    json(&[&["backup", "run", "--vault", &vault, "--cluster", "prod"], &by_hand[..]].concat());
    for _ in 0..4 {
        let moment_ms = 200 + 5 * u64::from(uuid::Uuid::now_v7().as_bytes()[15]);
        std::thread::sleep(Duration::from_millis(moment_ms));
        agent.0.kill().unwrap();
        agent.0.wait().unwrap();
        agent = site.agent();
    }
    wait_for("the agent is not healthy", || site.is_healthy());
    let probe = testbed::disk::Probe::start(site.dir.path()).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    stop.store(true, Ordering::Relaxed);
    writing.join().unwrap();
    let last = newest();
    let late =
        wait_for("the last write is not stored", || site.metric("stored_revision") >= Some(last as f64));
    let stall_ms = probe.stop().unwrap();
    println!(
        "stored {} ms after the vault was back; the last write {} ms after it; disk: {stall_ms} ms",
        back.as_millis(),
        late.as_millis()
    );
    // a segment is synced in the spool, then its part and its manifest in the vault
    assert!(late < Duration::from_millis(5000 + 10 * stall_ms), "{late:?}, disk: {stall_ms} ms");

    // a last write that only the end of the agent brings into the vault
    member.try_ctl(&["put", "/registry/configmaps/ns/end", "end"]).unwrap();
    let end = member.now();
    wait_for("the last write is not durable", || {
        site.metric("durable_revision") >= Some(end.revision as f64)
    });
    let pid = agent.0.id().to_string();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    println!("agent: {}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap());
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(agent.0.wait().unwrap().success(), "{}", site.log());
    let left = std::fs::read_dir(site.path("state/spool")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"], "{}", site.log());

    let log = site.log();
    let told =
        ["error: cannot ", "the vault takes backups again", "following "].map(|told| log.contains(told));
    assert_eq!(told, [true; 3], "{log}");
    assert!(log.lines().count() < 40, "an outage is said once, not at each attempt: {log}");

    let (identity, mut points) = (site.path("identity.txt"), thens.lock().unwrap());
    points.push(end);
    let list = json(&["backup", "list", "--vault", &vault, "--signer", &site.signer]);
    let timelines = list["timelines"].as_array().unwrap();
    assert_eq!((timelines.len(), &timelines[0]["gaps"]), (1, &serde_json::json!([])), "{list}");
    let full = timelines[0]["fulls"][0]["revision"].as_i64().unwrap();
    let random = |range: std::ops::Range<i64>| {
        let found: Vec<&Then> = points.iter().filter(|then| range.contains(&then.revision)).collect();
        found[uuid::Uuid::now_v7().as_bytes()[15] as usize % found.len()]
    };
    let (outage, after) = (random(before + 1..within), random(within + 1..last));
    for then in [random(full..before + 1), outage, after, points.last().unwrap()] {
        let (data, peer) = (site.path(&format!("restored-{}", then.revision)), testbed::ports::free_url());
        let (cluster, to) = (format!("default={peer}"), then.revision.to_string());
        let report = json(&[
            "snapshot",
            "restore",
            "--from",
            &vault,
            "--identity",
            &identity,
            "--trusted-signer",
            &site.signer,
            "--to",
            &to,
            "--data-dir",
            &data,
            "--initial-cluster",
            &cluster,
            "--initial-advertise-peer-urls",
            &peer,
        ]);
        assert_eq!(
            (&report["revision"], &report["hashKv"]["hash"]),
            (&then.revision.into(), &then.hash.into())
        );
        assert_eq!(Member::boot(Path::new(&data), &peer).now(), *then);
    }
}

// The same with a bucket of a real S3 server that is gone for some seconds: what was on its way is stored when it is back.
#[test]
fn a_bucket_that_goes_away() {
    let etcd = tempfile::tempdir().unwrap();
    let member = Arc::new(Member::boot(&etcd.path().join("data"), &testbed::ports::free_url()));
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("backups")).unwrap();
    let port = testbed::ports::free();
    let gateway = || common::gateway(port, root.path(), "test-secret");
    let first = gateway();
    let env = [
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test-secret"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT", &format!("http://127.0.0.1:{port}")),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    let env = env.map(|(name, value)| (name, value.to_owned())).to_vec();
    let site = Site::over(tempfile::tempdir().unwrap(), "s3://backups/k8s".into(), env, &member.url);
    let (stop, thens) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let writing = {
        let (member, stop, thens) = (member.clone(), stop.clone(), thens.clone());
        std::thread::spawn(move || work(&member, &stop, &thens))
    };
    let mut agent = site.agent();
    wait_for("no segment is stored", || site.metric("segments_stored_total") > Some(1.0));
    drop(first);
    std::thread::sleep(Duration::from_secs(12));
    wait_for("an outage of the vault slows the stream", || {
        site.metric("rpo_seconds").is_some_and(|rpo| rpo < 2.0)
    });
    let waits = site.metric("durable_revision").unwrap();
    assert!(site.metric("stored_revision").unwrap() < waits);
    let _second = gateway();
    let back = wait_for("what waited is not stored", || site.metric("stored_revision") >= Some(waits));
    stop.store(true, Ordering::Relaxed);
    writing.join().unwrap();
    let last = thens.lock().unwrap().last().unwrap().revision;
    let late =
        wait_for("the last write is not stored", || site.metric("stored_revision") >= Some(last as f64));
    println!(
        "bucket: stored {} ms after it was back; the last write {} ms after it",
        back.as_millis(),
        late.as_millis()
    );
    assert!(Command::new("kill").args(["-TERM", &agent.0.id().to_string()]).status().unwrap().success());
    assert!(agent.0.wait().unwrap().success(), "{}", site.log());
    let list = Command::new(env!("CARGO_BIN_EXE_rekindle"))
        .args(["backup", "list", "--vault", &site.vault, "--signer", &site.signer, "-o", "json"])
        .envs(site.env.clone())
        .output();
    let list: Value = serde_json::from_slice(&list.unwrap().stdout).unwrap();
    let timelines = list["timelines"].as_array().unwrap();
    assert_eq!((timelines.len(), &timelines[0]["gaps"]), (1, &serde_json::json!([])), "{list}");
    assert_eq!(timelines[0]["restorable"][0]["lastRevision"], last, "{list}");
}

// Many small segments become one in the vault while the agent goes on; a point within comes back out of that one, and out of the
// small ones when it is lost.
#[test]
fn small_segments_become_one() {
    let etcd = tempfile::tempdir().unwrap();
    let member = Arc::new(Member::boot(&etcd.path().join("data"), &testbed::ports::free_url()));
    let site = Site::new(&member.url);
    let config = site.path("agent.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("segmentAgeMs: 1000", "segmentAgeMs: 100")).unwrap();
    let (stop, thens) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let writing = {
        let (member, stop, thens) = (member.clone(), stop.clone(), thens.clone());
        std::thread::spawn(move || work(&member, &stop, &thens))
    };
    let _agent = site.agent();
    for count in [10.0, 20.0, 30.0, 40.0, 48.0] {
        wait_for("too few segments are stored", || site.metric("segments_stored_total") >= Some(count));
    }
    wait_for("nothing is merged", || site.metric("merged_segments_stored_total") >= Some(1.0));
    stop.store(true, Ordering::Relaxed);
    writing.join().unwrap();
    let list = json(&["backup", "list", "--vault", &site.vault, "--signer", &site.signer]);
    let timeline = &list["timelines"][0];
    let segments = timeline["segments"].as_array().unwrap();
    let merged = segments.iter().find(|segment| !segment["replaces"].is_null()).expect("a merged one");
    let full = timeline["fulls"][0]["revision"].as_i64().unwrap();
    let (first, last) =
        (&merged["firstRevision"].as_i64().unwrap(), &merged["lastRevision"].as_i64().unwrap());
    let thens = thens.lock().unwrap();
    let within = |then: &&Then| (*first.max(&full)..=*last).contains(&then.revision);
    let then = thens.iter().rfind(within).unwrap();
    let (identity, to) = (site.path("identity.txt"), then.revision.to_string());
    let restore = |name: &str| {
        let data = site.path(name);
        let from = ["snapshot", "restore", "--from", &site.vault, "--identity", &identity];
        let point = ["--trusted-signer", &site.signer, "--to", &to, "--data-dir", &data, "-o", "json"];
        let output = rekindle(&[&from[..], &point[..]].concat());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&report["revision"], &report["hashKv"]["hash"]),
            (&then.revision.into(), &then.hash.into())
        );
        told
    };
    assert!(!restore("of-the-merged-one").contains("others that hold the same"));
    let part = merged["part"]["name"].as_str().unwrap();
    std::fs::remove_file(Path::new(&site.vault).join("prod").join(part)).unwrap();
    let told = restore("of-the-small-ones");
    assert!(told.contains("others that hold the same are taken"), "{told}");
}

// Nothing is written for a while, and then all is gone: a time in that quiet comes back from the vault alone, and it is told
// until when nothing had changed.
#[test]
fn a_quiet_time_comes_back() {
    let etcd = tempfile::tempdir().unwrap();
    let member = Member::boot(&etcd.path().join("data"), &testbed::ports::free_url());
    let site = Site::new(&member.url);
    // when which revision was the newest, as the vault has it
    let quiet = || {
        let mut files = std::fs::read_dir(Path::new(&site.vault).join("prod/quiet")).ok()?;
        let told: Value = serde_json::from_slice(&std::fs::read(files.next()?.ok()?.path()).ok()?).ok()?;
        Some((told["manifest"]["revision"].as_i64()?, told["manifest"]["atMs"].as_i64()?))
    };
    member.try_ctl(&["put", "k", "before the full"]).unwrap();
    let of_full = member.now();
    let mut agent = site.agent();
    wait_for("the quiet behind the full is not told", || {
        quiet().is_some_and(|(revision, _)| revision == of_full.revision)
    });
    let of_full_ms = quiet().unwrap().1;
    (0..5).for_each(|i| drop(member.try_ctl(&["put", "k", &i.to_string()]).unwrap()));
    let then = member.now();
    wait_for("it is not stored", || site.metric("stored_revision") >= Some(then.revision as f64));
    wait_for("the quiet behind it is not told", || {
        quiet().is_some_and(|(revision, _)| revision == then.revision)
    });
    // SIGKILL: it has no time to store the end of its stream
    agent.0.kill().unwrap();
    agent.0.wait().unwrap();
    drop(member);
    let at_ms = quiet().unwrap().1;
    let restore = |name: &str, at_ms: i64| {
        let time = jiff::Timestamp::from_millisecond(at_ms).unwrap().to_string();
        let (data, identity) = (site.path(name), site.path("identity.txt"));
        let from = ["snapshot", "restore", "--from", &site.vault, "--identity", &identity];
        let point = ["--trusted-signer", &site.signer, "--to", &time, "--data-dir", &data, "-o", "json"];
        rekindle(&[&from[..], &point[..]].concat())
    };
    for (name, then, at_ms) in [("behind-full", &of_full, of_full_ms), ("behind-stream", &then, at_ms)] {
        let restored = restore(name, at_ms - 1);
        assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
        let report: Value = serde_json::from_slice(&restored.stdout).unwrap();
        let expected = (&then.revision.into(), &then.hash.into());
        assert_eq!((&report["revision"], &report["hashKv"]["hash"]), expected, "{name}");
        let (current, next) = (&report["point"]["currentMs"], &report["point"]["nextReceivedMs"]);
        // what came next is the bound, or until when nothing had come
        assert!(next.as_i64().or(current.as_i64()).unwrap() >= at_ms, "{name}: {report}");
    }
    assert_eq!(restore("later", at_ms + 3_600_000).status.code(), Some(5), "what was then nobody knows");
}

// What etcd compacted while no agent ran is named, and a full follows it at once. Another etcd in its place is a timeline of
// its own.
#[test]
fn what_is_missing_is_named() {
    let etcd = tempfile::tempdir().unwrap();
    let member = Member::boot(&etcd.path().join("data"), &testbed::ports::free_url());
    let site = Site::new(&member.url);
    let put = |member: &Member, i: u32| member.try_ctl(&["put", &format!("k{i}"), "v"]).unwrap();
    let list = || json(&["backup", "list", "--vault", &site.vault, "--signer", &site.signer]);
    let end = |mut agent: Running| {
        assert!(Command::new("kill").args(["-TERM", &agent.0.id().to_string()]).status().unwrap().success());
        assert!(agent.0.wait().unwrap().success(), "{}", site.log());
    };
    put(&member, 0);
    let agent = site.agent();
    wait_for("the agent is not healthy", || site.is_healthy());
    end(agent);
    let before = member.now().revision;
    (0..20).for_each(|i| drop(put(&member, i)));
    let compacted = member.now().revision;
    member.try_ctl(&["compaction", &compacted.to_string()]).unwrap();
    put(&member, 99);
    let agent = site.agent();
    wait_for("the gap is not told", || site.metric("gaps_total") == Some(1.0));
    let fulls = || list()["timelines"][0]["fulls"].as_array().map_or(0, Vec::len);
    wait_for("no full follows the gap", || fulls() == 2);
    end(agent);
    let told = format!("error: revisions {} to {compacted} were compacted", before + 1);
    assert!(site.log().contains(&told), "{}", site.log());
    let timelines = list()["timelines"].clone();
    assert_eq!(timelines[0]["gaps"][0]["firstRevision"], before + 1, "{timelines}");
    assert_eq!(timelines[0]["gaps"].as_array().unwrap().len(), 1, "{timelines}");

    let other = Member::boot(&etcd.path().join("other"), &testbed::ports::free_url());
    put(&other, 0);
    let config = site.path("agent.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace(&member.url, &other.url)).unwrap();
    let agent = site.agent();
    wait_for("the agent is not healthy", || site.is_healthy());
    end(agent);
    let timelines = list()["timelines"].clone();
    let (first, second) = (&timelines[0]["id"], &timelines[1]);
    assert_eq!((&second["parent"], second["fulls"].as_array().unwrap().len()), (first, 1), "{timelines}");
}

// A setting with a typo, and a key that is not there, are told before anything is followed.
#[test]
fn what_is_wrong_is_told() {
    let site = Site::new("http://127.0.0.1:1");
    let config = site.path("agent.yaml");
    let good = std::fs::read_to_string(&config).unwrap();
    for (wrong, told) in [("segmentAge: 1\n", "segmentAge"), ("trustedSigners: [x]\n", "signer")] {
        std::fs::write(&config, format!("{good}{wrong}")).unwrap();
        let output = rekindle(&["agent", "--check-config", "--config", &config]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && text.contains(told), "{text}");
    }
    std::fs::write(&config, good.replace("sign.key", "no.key")).unwrap();
    let output = rekindle(&["agent", "--check-config", "--config", &config]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no.key"));
    assert_eq!(output.status.code(), Some(1));
}

// systemd takes the unit as it is shipped, but for the program's place.
#[test]
fn the_unit_is_sound() {
    assert!(testbed::needs::has("systemd-analyze"), "systemd-analyze is missing: apt-get install systemd");
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/rekindle-agent.service");
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("rekindle-agent.service");
    let text = std::fs::read_to_string(unit).unwrap();
    std::fs::write(&copy, text.replace("/usr/local/bin/rekindle", env!("CARGO_BIN_EXE_rekindle"))).unwrap();
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output().unwrap();
    let told = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && !told.contains("rekindle-agent"), "{told}");
}
