//! The story: a cluster is lost, and of a snapshot new clusters are made by Rekindle. Stock etcd of each line boots
//! from what was written and behaves as from a stock restore; the stock tools agree on every number.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Cluster, LINES, Member, etcd, fill_without_leases, parse, source, tool};
use etcd_disk::restore::{Form, RestoreOptions, RestoredDb, Target, restore_members, write_db};
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy, VerifyOptions};
use serde_json::Value;

/// Above every revision of the sources.
const RAISED: i64 = 5_000_000;

fn first_segment(key: &[u8]) -> &str {
    std::str::from_utf8(key).unwrap_or_default().split('/').nth(2).unwrap_or_default()
}

/// Restores all members of `cluster` and starts them.
fn restore(cluster: &mut Cluster, snapshot: &Path, form: Form) -> RestoredDb {
    let source = SnapshotFile::open(snapshot, TrailerPolicy::Required).unwrap();
    let targets: Vec<Target> = cluster
        .members
        .iter()
        .map(|m| Target { name: m.name.clone(), data_dir: m.data_dir.clone(), wal_dir: None })
        .collect();
    let options = RestoreOptions { group: Some(&first_segment), ..RestoreOptions::default() };
    let restored =
        restore_members(&source, form, &cluster.founded(), &options, &targets, &mut |_, _| {}).unwrap();
    assert!(restored.sha256_checked);
    restored
}

/// The same by etcdutl, as a cluster of one, started.
fn stock_restore(line: &str, snapshot: &Path, dir: &Path, bump: Option<i64>) -> Cluster {
    let mut cluster = Cluster::new(line, 1, dir, "stock");
    let member = &cluster.members[0];
    let mut args = vec![
        "snapshot".to_owned(),
        "restore".into(),
        snapshot.display().to_string(),
        format!("--data-dir={}", member.data_dir.display()),
        format!("--name={}", member.name),
        format!("--initial-cluster={}", cluster.initial_cluster()),
        format!("--initial-advertise-peer-urls={}", member.peer_url()),
        "--initial-cluster-token=stock".into(),
    ];
    if let Some(bump) = bump {
        args.extend([format!("--bump-revision={bump}"), "--mark-compacted".into()]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    tool(&cluster.etcd.etcdutl, &args);
    cluster.start();
    cluster
}

fn db_of(member: &Member) -> PathBuf {
    member.data_dir.join("member/snap/db")
}

/// What the offline tools say about a written database is what the restore said.
fn stock_tools_agree(line: &str, db: &Path, restored: &RestoredDb) {
    let tools = etcd(line);
    let db = db.to_str().unwrap();
    assert_eq!(tool(&tools.bbolt, &["check", db]).trim(), "OK");
    let status = parse(&tool(&tools.etcdutl, &["snapshot", "status", db, "-w", "json"]));
    assert_eq!(status["totalSize"].as_u64(), Some(restored.bytes));
    if line != "3.5" {
        // 3.5 counts the entries of all buckets
        assert_eq!(status["totalKey"].as_u64(), Some(restored.live_keys));
    }
    assert_eq!(status["revision"].as_i64(), Some(restored.revision));
}

/// Every member answers the HashKV that was computed natively.
fn members_agree(cluster: &Cluster, restored: &RestoredDb) {
    for (hash, compact, revision) in cluster.hash_kvs(0) {
        assert_eq!((hash, revision), (restored.hash_kv.hash, restored.revision));
        assert_eq!(compact, restored.compact_revision);
    }
}

fn without_the_empty_key(mut kvs: Vec<Value>) -> Vec<Value> {
    kvs.retain(|kv| !kv["key"].as_str().unwrap_or_default().is_empty());
    kvs
}

/// Writes, reads, watches, leases: what clients do.
fn clients_are_served(cluster: &Cluster, raised: bool) {
    cluster.ctl(&["put", "/registry/after", "restore"]);
    let got = cluster.json(&["get", "/registry/after"]);
    assert_eq!(got["count"].as_i64(), Some(1));
    let revision = got["header"]["revision"].as_i64().unwrap();
    let new = cluster.json(&["lease", "grant", "600"])["ID"].as_i64().unwrap();
    let leases = cluster.json(&["lease", "list"])["leases"].as_array().unwrap().len();
    assert_eq!(leases, 3, "two inherited, one new");
    cluster.ctl(&["lease", "revoke", &format!("{new:x}")]);
    let watch = |rev: i64| {
        let url = cluster.members[0].client_url();
        let output = Command::new("timeout")
            .arg("2")
            .arg(&cluster.etcd.etcdctl)
            .args([&format!("--endpoints={url}"), "watch", "--prefix", "/registry/", &format!("--rev={rev}")])
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        format!("{out}{err}")
    };
    assert!(watch(revision).contains("restore"), "a watch from now on sees the write");
    if raised {
        assert!(watch(revision - 2).contains("compacted"), "{}", watch(revision - 2));
        assert!(watch(100).contains("compacted"));
    }
}

/// A member is removed, a new one joins and gets the whole store from the leader.
fn membership_changes(cluster: &mut Cluster, dir: &Path) {
    let mut gone = cluster.members.pop().unwrap();
    let list = cluster.json(&["member", "list"]);
    let id =
        list["members"].as_array().unwrap().iter().find(|m| m["name"] == gone.name.as_str()).unwrap()["ID"]
            .as_u64()
            .unwrap();
    gone.stop();
    cluster.ctl(&["member", "remove", &format!("{id:x}")]);
    let new = Member::new("late", dir);
    let add = ["member", "add", "late", &format!("--peer-urls={}", new.peer_url())];
    let begin = Instant::now();
    // etcd refuses while it does not yet see enough started members
    while !cluster.raw(&[&cluster.members[0].client_url()], &add, "").status.success() {
        assert!(begin.elapsed() < Duration::from_secs(20), "the member was not added");
        std::thread::sleep(Duration::from_millis(300));
    }
    cluster.members.push(new);
    cluster.state = "existing";
    cluster.spawn(cluster.members.len() - 1);
    cluster.wait_healthy();
    cluster.ctl(&["put", "/registry/after", "membership"]);
    let hashes = cluster.hash_kvs(0);
    assert!(hashes.iter().all(|answer| answer.0 == hashes[0].0), "{hashes:?}");
}

fn restart(cluster: &mut Cluster) {
    let before = cluster.hash_kvs(0)[0];
    cluster.stop();
    cluster.start();
    assert!(cluster.hash_kvs(0).iter().all(|answer| answer.0 == before.0 && answer.2 == before.2));
    cluster.ctl(&["put", "/registry/after", "restart"]);
}

fn whole_story(line: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (mut lost, snapshot) = source(line, dir.path());
    native_numbers_are_the_members(&lost, &snapshot, line);
    lost.stop();
    let verified = SnapshotFile::open(&snapshot, TrailerPolicy::Required)
        .unwrap()
        .verify(&VerifyOptions { group: Some(&first_segment), ..VerifyOptions::default() }, &mut |_, _| {})
        .unwrap();
    let bump = RAISED - verified.revision;
    let exact_stock = stock_restore(line, &snapshot, &subdir(dir.path(), "stock-exact"), None);
    let raised_stock = stock_restore(line, &snapshot, &subdir(dir.path(), "stock-raised"), Some(bump));
    let forms = [
        (Form::Exact, &exact_stock),
        (Form::Bumped { to_revision: RAISED }, &raised_stock),
        (Form::StockBump { bump_revision: bump.unsigned_abs() }, &raised_stock),
    ];
    for (number, (form, stock)) in forms.into_iter().enumerate() {
        for size in [1, 3, 5] {
            if matches!(form, Form::StockBump { .. }) && size > 1 {
                continue;
            }
            let dir = subdir(dir.path(), &format!("{number}-{size}"));
            let mut cluster = Cluster::new(line, size, &dir, &format!("token-{number}-{size}"));
            let restored = restore(&mut cluster, &snapshot, form);
            assert_eq!(restored.groups, verified.groups);
            if form == Form::Exact {
                assert_eq!(restored.hash_kv, verified.hash_kv);
                assert_eq!(restored.rows, verified.rows);
            }
            for member in &cluster.members {
                stock_tools_agree(line, &db_of(member), &restored);
            }
            cluster.start();
            members_agree(&cluster, &restored);
            ids_agree(&cluster);
            assert_eq!(cluster.content(), stock.content(), "{form:?}");
            assert_eq!(cluster.hash_kvs(0)[0], stock.hash_kvs(0)[0], "{form:?}");
            assert!(without_the_empty_key(cluster.content()).len() > 400);
            clients_are_served(&cluster, form != Form::Exact);
            if size == 3 {
                membership_changes(&mut cluster, &dir);
            }
            restart(&mut cluster);
        }
    }
}

fn subdir(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::create_dir(&path).unwrap();
    path
}

fn ids_agree(cluster: &Cluster) {
    let founded = cluster.founded();
    let list = cluster.json(&["member", "list"]);
    assert_eq!(list["header"]["cluster_id"].as_u64(), Some(founded.cluster_id().0));
    for member in list["members"].as_array().unwrap() {
        let id = founded.member_id(member["name"].as_str().unwrap()).unwrap();
        assert_eq!(member["ID"].as_u64(), Some(id.0));
    }
}

/// The snapshot, read natively, is what the running member says it is, at its newest and at older revisions.
fn native_numbers_are_the_members(member: &Cluster, snapshot: &Path, line: &str) {
    let file = SnapshotFile::open(snapshot, TrailerPolicy::Required).unwrap();
    let verified = file.verify(&VerifyOptions::default(), &mut |_, _| {}).unwrap();
    let (hash, compact, revision) = member.hash_kvs(0)[0];
    assert_eq!((verified.hash_kv.hash, verified.revision), (hash, revision));
    assert_eq!(verified.compact_revision, compact);
    for older in [compact + 1, revision - 1, revision - 3] {
        let options = VerifyOptions { hash_revision: Some(older), ..VerifyOptions::default() };
        let native = file.verify(&options, &mut |_, _| {}).unwrap().hash_kv;
        assert_eq!(native.hash, member.hash_kvs(older)[0].0, "at revision {older}");
    }
    let status =
        parse(&tool(&member.etcd.etcdutl, &["snapshot", "status", snapshot.to_str().unwrap(), "-w", "json"]));
    assert_eq!(status["revision"].as_i64(), Some(verified.revision));
    if line != "3.5" {
        assert_eq!(status["totalKey"].as_u64(), Some(verified.live_keys));
        assert_eq!(status["version"].as_str(), verified.facts.storage_version.as_deref());
    }
    assert_eq!(verified.facts.leases, 2);
    assert_eq!(verified.facts.members.len(), 1);
}

/// `etcdutl hashkv` (3.6 on) agrees; it panics on any store with a leased key ("no lessor to attach lease"), so this
/// source has none. It writes to the file it reads, so it gets a copy.
#[test]
fn etcdutl_hashkv_agrees() {
    for line in ["3.6", "3.7"] {
        let dir = tempfile::tempdir().unwrap();
        let mut lost = Cluster::new(line, 1, dir.path(), "source");
        lost.start();
        fill_without_leases(&lost);
        let snapshot = dir.path().join("snapshot.db");
        lost.ctl(&["snapshot", "save", snapshot.to_str().unwrap()]);
        lost.stop();
        let forms =
            [Form::Exact, Form::Bumped { to_revision: RAISED }, Form::StockBump { bump_revision: 1_000_000 }];
        for (number, form) in forms.into_iter().enumerate() {
            let mut cluster = Cluster::new(line, 1, &subdir(dir.path(), &number.to_string()), "hashkv");
            let restored = restore(&mut cluster, &snapshot, form);
            let copy = dir.path().join(format!("copy-{number}"));
            std::fs::copy(db_of(&cluster.members[0]), &copy).unwrap();
            let answer =
                parse(&tool(&cluster.etcd.etcdutl, &["hashkv", copy.to_str().unwrap(), "-w", "json"]));
            assert_eq!(answer["hash"].as_u64(), Some(u64::from(restored.hash_kv.hash)), "{form:?} {answer}");
            assert_eq!(answer["compactRevision"].as_i64(), Some(restored.compact_revision), "{form:?}");
        }
    }
}

/// The story: the database outgrew its quota, the cluster takes no writes, and the snapshot carries the alarm. A stock
/// restore brings the alarm back; here it is cleared when the new file has room, else refused with what to do.
#[test]
fn a_full_store_takes_writes_again() {
    const QUOTA: u64 = 8 << 20;
    for line in LINES {
        let dir = tempfile::tempdir().unwrap();
        let mut full = Cluster::new(line, 1, dir.path(), "full");
        full.flags = vec![format!("--quota-backend-bytes={QUOTA}")];
        full.start();
        let big = "x".repeat(1 << 20);
        let url = full.members[0].client_url();
        let mut puts = 0;
        while full.raw(&[&url], &["put", "big"], &big).status.success() {
            puts += 1;
            assert!(puts < 30, "the quota is never reached");
        }
        assert!(full.ctl(&["alarm", "list"]).contains("NOSPACE"));
        let snapshot = dir.path().join("full.db");
        full.ctl(&["snapshot", "save", snapshot.to_str().unwrap()]);
        full.stop();

        let stock = stock_restore(line, &snapshot, &subdir(dir.path(), "stock"), None);
        assert!(!stock.raw(&[&stock.members[0].client_url()], &["put", "k", "v"], "").status.success());

        let source = SnapshotFile::open(&snapshot, TrailerPolicy::Required).unwrap();
        let mut cluster = Cluster::new(line, 1, &subdir(dir.path(), "new"), "room");
        cluster.flags.clone_from(&full.flags);
        // etcd raises the alarm before a write that would not fit, so the file itself may still be below the quota
        let quota_bytes = Some(source.db_bytes() - 1);
        let options = RestoreOptions { quota_bytes, ..RestoreOptions::default() };
        let out = dir.path().join("refused.db");
        let refused =
            write_db(&source, Form::Exact, &cluster.founded(), &options, &out, &mut |_, _| {}).unwrap_err();
        assert!(refused.to_string().contains("--quota-backend-bytes"), "{refused}");
        assert!(!out.exists(), "nothing half-written is left");

        let restored = restore(&mut cluster, &snapshot, Form::Bumped { to_revision: RAISED });
        assert_eq!(restored.cleared_alarms.len(), 1);
        assert!(restored.bytes < QUOTA);
        cluster.start();
        assert_eq!(cluster.ctl(&["alarm", "list"]).trim(), "");
        cluster.ctl(&["put", "k", "v"]);
    }
}

/// The story: a restored cluster is lost again, and its snapshot restored with another raise. The first one's empty
/// key must not stay beside the second's, and a raise that does not go up is refused.
#[test]
fn a_restored_store_is_restored_again() {
    let line = "3.6";
    let dir = tempfile::tempdir().unwrap();
    let (mut first, snapshot) = source(line, dir.path());
    first.stop();
    let mut second = Cluster::new(line, 1, &subdir(dir.path(), "second"), "second");
    restore(&mut second, &snapshot, Form::Bumped { to_revision: RAISED });
    second.start();
    second.ctl(&["put", "/registry/second", "life"]);
    let again = dir.path().join("again.db");
    second.ctl(&["snapshot", "save", again.to_str().unwrap()]);
    let kept = without_the_empty_key(second.content());
    second.stop();
    let mut third = Cluster::new(line, 3, &subdir(dir.path(), "third"), "third");
    let source = SnapshotFile::open(&again, TrailerPolicy::Required).unwrap();
    let out = dir.path().join("lower.db");
    let lower = Form::Bumped { to_revision: RAISED };
    let options = RestoreOptions::default();
    let refused = write_db(&source, lower, &third.founded(), &options, &out, &mut |_, _| {}).unwrap_err();
    assert!(refused.to_string().contains("not above"), "{refused}");
    let restored = restore(&mut third, &again, Form::Bumped { to_revision: 2 * RAISED });
    third.start();
    members_agree(&third, &restored);
    assert_eq!(without_the_empty_key(third.content()), kept);
}

#[test]
fn etcd_3_5_boots_from_what_is_restored() {
    whole_story(LINES[0]);
}

#[test]
fn etcd_3_6_boots_from_what_is_restored() {
    whole_story(LINES[1]);
}

#[test]
fn etcd_3_7_boots_from_what_is_restored() {
    whole_story(LINES[2]);
}
