//! The story: an etcd is backed up into a vault and followed; keys are deleted by mistake. Any revision and any second of
//! it comes back, exactly, also while a part of the stream is still only in the spool; what can't be had is refused with
//! the nearest points; what a member's answer disproves is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{Member, Running};
use rekindle_agent::{FollowConfig, Health, follow};
use rekindle_model::etcd::{EtcdEndpoint, HashKv};
use rekindle_vault::manifest::{ClusterIdentity, TimelineRef};
use rekindle_vault::{
    ClusterName, FullMeta, PartSource, Recipients, SegmentMeta, SigningKey, Store, Vault, Writer, WriterName,
};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use testbed::components::age;
use tokio::sync::{oneshot, watch};

impl Member {
    fn ctl(&self, args: &[&str]) -> String {
        self.try_ctl(args).unwrap()
    }

    /// What the member answers now: its revision, its HashKV, and all its keys.
    fn now(&self) -> Then {
        let hash: Value = serde_json::from_str(&self.ctl(&["endpoint", "hashkv", "-w", "json"])).unwrap();
        let keys = self.ctl(&["get", "", "--prefix"]);
        Then {
            at_ms: jiff::Timestamp::now().as_millisecond(),
            revision: hash[0]["HashKV"]["hash_revision"].as_i64().unwrap(),
            hash: hash[0]["HashKV"]["hash"].as_u64().unwrap(),
            keys,
        }
    }
}

/// What a member answered at a time.
#[derive(Debug, PartialEq)]
struct Then {
    at_ms: i64,
    revision: i64,
    hash: u64,
    keys: String,
}

/// A vault with one full, and a stream behind it that is only in the spool.
struct World {
    dir: tempfile::TempDir,
    member: Member,
    signer: String,
    recipient: String,
    full: Value,
    segments: Vec<PathBuf>,
}

impl World {
    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn rekindle(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_rekindle")).args(args).stdin(Stdio::null()).output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.rekindle(&[args, &["-o", "json"]].concat());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// `verb --from VAULT ... more`
    fn with_vault(&self, verb: &[&str], more: &[&str]) -> Vec<String> {
        let (vault, identity) = (self.path("vault"), self.path("identity.txt"));
        let from = ["--from", &vault, "--identity", &identity, "--trusted-signer", &self.signer];
        [verb, &from[..], more].concat().into_iter().map(str::to_owned).collect()
    }

    fn from(&self, verb: &[&str], more: &[&str]) -> Output {
        let args = self.with_vault(verb, more);
        self.rekindle(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Restores a point into a new data dir and boots an etcd from it: it answers what the live one answered then.
    fn assert_comes_back(&self, name: &str, point: &[&str], then: &Then) -> Value {
        let (data, peer) = (self.path(name), testbed::ports::free_url());
        let cluster = format!("default={peer}");
        let flags =
            ["--data-dir", &data, "--initial-cluster", &cluster, "--initial-advertise-peer-urls", &peer];
        let args = self.with_vault(&["snapshot", "restore"], &[&flags[..], point].concat());
        let report = self.json(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(report["revision"], then.revision, "{point:?}: {report}");
        assert_eq!(report["hashKv"]["hash"], then.hash, "{point:?}");
        let back = Member::boot(Path::new(&data), &peer).now();
        assert_eq!(
            (back.revision, back.hash, &back.keys),
            (then.revision, then.hash, &then.keys),
            "{point:?}"
        );
        report
    }

    async fn writer(&self) -> (Vault, Writer) {
        let key = SigningKey::read(Path::new(&self.path("sign.key"))).unwrap();
        let store = Store::open(&self.path("vault")).unwrap();
        let vault = Vault::new(&store, ClusterName::new("prod").unwrap(), &[key.signer()]).unwrap();
        let recipients = Recipients::new([self.recipient.as_str()]).unwrap();
        let writer = vault.writer(WriterName::new("agent").unwrap(), key, recipients).await.unwrap();
        (vault, writer)
    }

    /// Takes one segment of the spool to the vault.
    async fn publish(&self, segment: &Path) {
        let facts = etcd_disk::segment::survey(segment).unwrap();
        let Some((first_ms, last_ms)) = facts.received_ms else { return };
        let identity: ClusterIdentity =
            serde_json::from_value(self.full["manifest"]["identity"].clone()).unwrap();
        let timeline: TimelineRef =
            serde_json::from_value(self.full["manifest"]["timeline"].clone()).unwrap();
        let meta = SegmentMeta {
            identity,
            timeline,
            first_revision: facts.header.first_revision,
            last_revision: facts.last_revision,
            first_ms,
            last_ms,
            etcd_version: None,
            member: None,
            samples: Vec::new(),
            replaces: BTreeSet::new(),
        };
        self.writer().await.1.put_segment(PartSource::File(segment.to_owned()), meta).await.unwrap();
    }
}

fn refused(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{text}");
    text
}

/// Puts, overwrites, deletes and transactions; told what it came to.
fn work(member: &Member, round: usize) -> Then {
    for i in 0..12 {
        member.ctl(&[
            "put",
            &format!("/registry/configmaps/ns{round}/c{i}"),
            &format!("{round} {i} ").repeat(40),
        ]);
    }
    member.ctl(&["put", "/registry/configmaps/ns0/shared", &format!("round {round}")]);
    member.ctl(&["del", &format!("/registry/configmaps/ns{round}/c3")]);
    member.ctl(&["put", &format!("/registry/configmaps/ns{round}/empty"), ""]);
    member.now()
}

/// An etcd with some keys, an empty spool, and one full in a vault.
fn backed_up() -> World {
    let dir = tempfile::tempdir().unwrap();
    let member = Member::boot(&dir.path().join("etcd"), &testbed::ports::free_url());
    work(&member, 0);
    let identity = dir.path().join("identity.txt");
    let age = age().unwrap();
    assert!(Command::new(age.path("age-keygen")).arg("-o").arg(&identity).output().unwrap().status.success());
    let public = Command::new(age.path("age-keygen")).arg("-y").arg(&identity).output().unwrap();
    let recipient = String::from_utf8(public.stdout).unwrap().trim().to_owned();
    std::fs::create_dir(dir.path().join("vault")).unwrap();
    let (signer, full) = (String::new(), Value::Null);
    let mut world = World { dir, member, signer, recipient, full, segments: Vec::new() };
    let (vault, key, id) = (world.path("vault"), world.path("sign.key"), world.path("identity.txt"));
    let keys = ["--vault", &vault, "--signing-key", &key, "--recipient", &world.recipient];
    let made = world.json(&[&["backup", "init", "--identity", &id], &keys[..]].concat());
    world.signer = made["signer"].as_str().unwrap().to_owned();
    let scratch = world.path("scratch");
    let take =
        ["backup", "run", "--cluster", "prod", "--endpoints", &world.member.url, "--scratch", &scratch];
    world.full = world.json(&[&take[..], &keys[..]].concat());
    world
}

/// An agent that follows from the full on.
struct Following {
    health: watch::Receiver<Health>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), rekindle_agent::Error>>,
}

impl World {
    fn follow(&self, segment_bytes: u64) -> Following {
        let timeline = self.full["manifest"]["timeline"]["id"].as_str().unwrap();
        let config = FollowConfig {
            endpoints: vec![EtcdEndpoint {
                url: self.member.url.clone(),
                cacert: None,
                cert: None,
                key: None,
            }],
            root: "/".into(),
            spool: self.path("spool").into(),
            timeline: uuid::Uuid::parse_str(timeline).unwrap().into_bytes(),
            cluster_id: None,
            from_revision: self.full["manifest"]["revision"].as_i64().map(|revision| revision + 1),
            writer: "test".into(),
            segment_bytes,
            segment_age: Duration::from_millis(500),
            spool_bytes_max: 1 << 30,
            prove_every: None,
        };
        let (publish, health) = watch::channel(Health::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(follow(config, publish, async { drop(stopped.await) }));
        Following { health, stop, task }
    }
}

/// The whole life: a full, then four rounds of work that are followed, with a deletion by mistake between.
async fn live() -> (World, Vec<Then>, i64) {
    let mut world = tokio::task::block_in_place(backed_up);
    let Following { mut health, stop, task } = world.follow(4000);
    let mut thens = Vec::new();
    let mut deleted = 0;
    for round in 1..=4 {
        let then = tokio::task::block_in_place(|| work(&world.member, round));
        thens.push(then);
        tokio::time::sleep(Duration::from_millis(1200)).await;
        if round == 3 {
            // the mistake
            tokio::task::block_in_place(|| {
                world.member.ctl(&["del", "/registry/configmaps/ns2/", "--prefix"])
            });
            deleted = tokio::task::block_in_place(|| world.member.now()).revision;
        }
    }
    let last = thens.last().unwrap().revision;
    let wait = health.wait_for(|health| health.durable_revision >= last);
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    stop.send(()).unwrap();
    task.await.unwrap().unwrap();
    world.segments = rekindle_agent::spool::segments(world.path("spool").as_str().into())
        .unwrap()
        .into_iter()
        .map(Into::into)
        .collect();
    world.segments.retain(|path| etcd_disk::segment::survey(path).unwrap().received_ms.is_some());
    assert!(world.segments.len() > 4, "{:?}", world.segments);
    (world, thens, deleted)
}

fn time(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_point_comes_back() {
    let (world, thens, deleted) = live().await;
    let spool = world.path("spool");
    let to = |revision: i64| revision.to_string();

    // nothing of the stream is in the vault yet: without the spool there is only the full
    let outside = refused(&world.from(&["snapshot", "restore"], &["--to", &to(thens[0].revision)]));
    let full = world.full["manifest"]["revision"].as_i64().unwrap();
    assert!(outside.contains(&format!("the nearest point is revision {full}")), "{outside}");
    let report =
        world.assert_comes_back("of-spool", &["--to", &to(thens[0].revision), "--spool", &spool], &thens[0]);
    assert!(report["point"]["segments"].as_u64().unwrap() > 0, "{report}");

    // the third piece is missing: what lies in the gap or behind it is refused with the nearest points, also by time
    for (number, segment) in world.segments.iter().enumerate() {
        if number != 2 {
            world.publish(segment).await;
        }
    }
    let missing = etcd_disk::segment::survey(&world.segments[2]).unwrap();
    let before = format!("revision {} (", missing.header.first_revision - 1);
    let gap = refused(&world.from(&["snapshot", "restore"], &["--to", &to(missing.last_revision)]));
    assert!(gap.contains("in a gap") && gap.contains(&before), "{gap}");
    refused(&world.from(&["snapshot", "restore"], &["--to", &time(thens[3].at_ms)]));
    world.publish(&world.segments[2]).await;

    for (number, then) in thens.iter().enumerate() {
        world.assert_comes_back(&format!("by-revision-{number}"), &["--to", &to(then.revision)], then);
        if number == 3 {
            // nothing was received after the last write: what was there then is not known
            let behind = refused(&world.from(&["snapshot", "restore"], &["--to", &time(then.at_ms + 9000)]));
            assert!(behind.contains(&format!("the nearest point is revision {}", then.revision)), "{behind}");
            continue;
        }
        let report =
            world.assert_comes_back(&format!("by-time-{number}"), &["--to", &time(then.at_ms)], then);
        assert!(report["point"]["receivedMs"].as_i64().unwrap() <= then.at_ms, "{report}");
    }
    world.assert_comes_back("latest", &[], &thens[3]);
    let next = to(thens[1].revision + 1);
    world.assert_comes_back("before", &["--before", &next], &thens[1]);

    // what was deleted by mistake, by its key alone
    let lost = "/registry/configmaps/ns2/c5";
    world.assert_comes_back("before-delete", &["--before-delete-of", lost], &thens[2]);
    let exported = world
        .from(&["snapshot", "export"], &["--before-delete-of", lost, "--scratch", &world.path("scratch")]);
    let exported = String::from_utf8(exported.stdout).unwrap();
    assert!(exported.lines().any(|line| line.contains(lost)), "{exported}");
    let scratch = world.path("scratch");
    let (vault, identity) = (world.path("vault"), world.path("identity.txt"));
    let found = world.json(&[
        "backup",
        "find",
        lost,
        "--vault",
        &vault,
        "--signer",
        &world.signer,
        "--identity",
        &identity,
        "--scratch",
        &scratch,
    ]);
    let events = found["timelines"][0]["events"].as_array().unwrap();
    assert_eq!(events.len(), 2, "{found}");
    assert_eq!((&events[0]["deleted"], &events[0]["version"]), (&Value::Bool(false), &Value::from(1)));
    assert_eq!((&events[1]["deleted"], &events[1]["revision"]), (&Value::Bool(true), &Value::from(deleted)));
    assert!(events[1]["receivedMs"].as_i64().unwrap() >= thens[2].at_ms, "{found}");
    let never = refused(&world.from(&["snapshot", "restore"], &["--before-delete-of", "/registry/none"]));
    assert!(never.contains("no backup tells of a deletion"), "{never}");
}

// A member once answered another HashKV than the stream leads to: refused, unless the operator insists.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_disproved_is_refused() {
    let (world, thens, _) = live().await;
    for segment in &world.segments {
        world.publish(segment).await;
    }
    let (snapshot, data) = (world.path("later.db"), world.path("restored"));
    world.member.ctl(&["snapshot", "save", &snapshot]);
    let file = etcd_disk::snapshot::SnapshotFile::open(
        Path::new(&snapshot),
        etcd_disk::snapshot::TrailerPolicy::Required,
    );
    let verified =
        file.unwrap().verify(&etcd_disk::snapshot::VerifyOptions::default(), &mut |_, _| ()).unwrap();
    let wrong =
        HashKv { hash: 1, revision: thens[2].revision, compact_revision: verified.hash_kv.compact_revision };
    let meta = FullMeta {
        identity: serde_json::from_value(world.full["manifest"]["identity"].clone()).unwrap(),
        timeline: serde_json::from_value(world.full["manifest"]["timeline"].clone()).unwrap(),
        taken_ms: thens[3].at_ms,
        etcd_version: None,
        samples: vec![wrong],
        verified,
    };
    world.writer().await.1.put_full(Path::new(&snapshot), meta).await.unwrap();
    let to = thens[2].revision.to_string();
    let point = ["--to", &to, "--data-dir", &data];
    let told = refused(&world.from(&["snapshot", "restore"], &point));
    assert!(told.contains("--accept-unproved") && told.contains("answered 00000001"), "{told}");
    let _ = std::fs::remove_dir_all(&data);
    let insisted =
        world.from(&["snapshot", "restore"], &[&point[..], &["--accept-unproved", "-o", "json"]].concat());
    assert!(insisted.status.success(), "{}", String::from_utf8_lossy(&insisted.stderr));
    let report: Value = serde_json::from_slice(&insisted.stdout).unwrap();
    assert_eq!(report["point"]["proof"]["different"]["hash"], 1, "{report}");
    // the same snapshot with its own HashKV proves what lies before it
    let report = world.assert_comes_back("proved", &["--to", &thens[3].revision.to_string()], &thens[3]);
    assert_eq!(report["point"]["proof"]["equal"]["hash"], thens[3].hash, "{report}");
}

// Under load etcd is killed and its disk is gone; of its backups there are the full in the vault and the spool on this
// machine. What clients were told to be written is back, but for the last second at most.
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout)] // the figures
async fn what_a_killed_etcd_acknowledged_is_back() {
    const CLIENTS: usize = 4;
    let world = tokio::task::block_in_place(backed_up);
    let following = world.follow(64 << 10);
    let mut health = following.health.clone();
    let known = health.wait_for(|health| health.following.is_some());
    tokio::time::timeout(Duration::from_secs(30), known).await.unwrap().unwrap();
    let World { dir, member, signer, recipient, full, segments } = world;
    let Member { etcd, url: endpoint, process } = member;
    let probe = testbed::disk::Probe::start(dir.path()).unwrap();
    let (ctl, until) = (etcd.etcdctl.clone(), Instant::now() + Duration::from_secs(8));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (ctl, endpoint) = (ctl.clone(), endpoint.clone());
            std::thread::spawn(move || {
                let mut acknowledged: Vec<(i64, String)> = Vec::new();
                for i in 0.. {
                    let key = format!("/load/{client}/{i}");
                    let put = ["--endpoints", &endpoint, "--command-timeout=5s", "put", &key, "x"];
                    let done = Command::new(&ctl).args(put).output().unwrap().status.success();
                    if !done || Instant::now() > until + Duration::from_secs(5) {
                        break;
                    }
                    acknowledged.push((jiff::Timestamp::now().as_millisecond(), key));
                }
                acknowledged
            })
        })
        .collect();
    tokio::time::sleep_until(until.into()).await;
    let killed_ms = jiff::Timestamp::now().as_millisecond();
    let stall_ms = probe.stop().unwrap();
    drop(process);
    // the agent's machine goes with it: it gets no chance to end its segment in peace
    following.task.abort();
    std::fs::remove_dir_all(dir.path().join("etcd")).unwrap();
    let acknowledged: Vec<(i64, String)> =
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    let member = Member { etcd, url: endpoint, process: Running(Command::new("true").spawn().unwrap()) };
    let world = World { dir, member, signer, recipient, full, segments };

    let scratch = world.path("scratch");
    let spool = world.path("spool");
    let exported = world
        .from(&["snapshot", "export"], &["--prefix", "/load/", "--spool", &spool, "--scratch", &scratch]);
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let back: std::collections::BTreeSet<String> = String::from_utf8(exported.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["key"].as_str().unwrap().to_owned())
        .collect();
    let lost: Vec<i64> = acknowledged
        .iter()
        .filter(|(_, key)| !back.contains(key))
        .map(|(at_ms, _)| killed_ms - at_ms)
        .collect();
    println!(
        "{} writes acknowledged, {} lost, the oldest {:?} ms before the kill; disk: {stall_ms} ms",
        acknowledged.len(),
        lost.len(),
        lost.iter().max()
    );
    assert!(acknowledged.len() > 20, "{} writes are no load", acknowledged.len());
    // a second, and what this machine's disk took for a sync of its own
    let bound_ms = 1000 + 4 * i64::try_from(stall_ms).unwrap();
    assert!(lost.iter().all(|age_ms| *age_ms <= bound_ms), "{lost:?}, disk: {stall_ms} ms");
}
