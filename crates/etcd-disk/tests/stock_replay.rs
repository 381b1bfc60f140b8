//! The story: a member is killed before it has committed its database. Its newest writes are in its log alone. The
//! native replay of that log gives what etcd itself makes of it at its next start, and changes none of its files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Cluster, Member, fill};
use etcd_disk::data_dir::{MembersFrom, inspect};
use etcd_disk::replay::{CommittedBy, Replayed, replay};
use etcd_disk::restore::{Form, RestoreOptions, Target, restore_members};
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy, VerifyOptions};

/// All that a log can hold: each kind of write, compares of each kind that hold and that do not, leases.
fn write_the_tail(cluster: &Cluster) {
    fill(cluster);
    // a revoked lease and a compaction make etcd commit at once, so they come before all that stays in the log
    let lease = |ttl: &str| {
        let id = cluster.json(&["lease", "grant", ttl])["ID"].as_i64().unwrap();
        format!("{id:x}")
    };
    let (kept, gone) = (lease("3000"), lease("3000"));
    for n in 0..5 {
        cluster.ctl(&["put", &format!("l/{}", 9 - n), "x", &format!("--lease={gone}")]);
    }
    cluster.ctl(&["put", "l/7", "y", &format!("--lease={kept}")]);
    cluster.ctl(&["put", "l/6", "no lease any more"]);
    cluster.ctl(&["put", "l/8", "--ignore-lease", "same lease"]);
    cluster.ctl(&["put", "l/9", "--ignore-value", &format!("--lease={kept}")]);
    cluster.ctl(&["lease", "revoke", &gone]);
    let txn = |compare: &str, then: &str, otherwise: &str| {
        cluster.ctl_input(&["txn"], &format!("{compare}\n\n{then}\n\n{otherwise}\n\n"));
    };
    cluster.ctl(&["put", "t/a", "1"]);
    cluster.ctl(&["put", "t/a", "2"]);
    cluster.ctl(&["put", "t/b", "3"]);
    let revision = cluster.json(&["get", "t/a"])["kvs"][0]["mod_revision"].as_i64().unwrap();
    txn("value(\"t/a\") = \"2\"", "put t/hit value\nput t/hit2 value", "put t/miss value");
    txn("value(\"t/a\") > \"2\"", "put t/miss value", "put t/hit value-greater\ndel t/b");
    txn("value(\"t/none\") = \"\"", "put t/miss none", "put t/hit none");
    txn(&format!("mod(\"t/a\") = \"{revision}\""), "put t/hit mod\nget t/a", "put t/miss mod");
    txn(&format!("create(\"t/a\") < \"{revision}\""), "put t/hit create", "put t/miss create");
    txn("version(\"t/a\") != \"2\"", "put t/miss version", "put u/hit version\ndel t/ --prefix");
    txn("create(\"t/none\") = \"0\"\nversion(\"t/none\") = \"0\"", "put t/born here", "");
    txn("version(\"t/none\") > \"0\"", "put t/miss x", "get t/born");
    let refused = cluster.raw(&[&cluster.members[0].client_url()], &["put", "l/x", "y", "--lease=1234"], "");
    assert!(!refused.status.success(), "a put with an unknown lease is in the log and does nothing");
    cluster.ctl(&["del", "l/", "--prefix", "--prev-kv"]);
    cluster.ctl(&["put", "l/7", "again", &format!("--lease={kept}")]);
    cluster.ctl(&["del", "/registry/pods/ns1/n1", "/registry/pods/ns2/"]);
    cluster.ctl(&["del", "/registry/pods/ns6/", "--from-key"]);
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
}

/// The commit interval is so long that everything since the last compaction is in the log alone.
fn killed_cluster(line: &str, size: usize, dir: &Path) -> (Cluster, usize) {
    let mut cluster = Cluster::new(line, size, dir, "killed");
    cluster.flags = vec!["--backend-batch-interval=1h".into(), "--backend-batch-limit=1000000".into()];
    cluster.start();
    write_the_tail(&cluster);
    let data_dir = cluster.members[0].data_dir.clone();
    let running = inspect(&data_dir, None);
    assert!(running.db.read().unwrap().locked, "a running member's database is in use");
    for member in &mut cluster.members {
        member.kill();
    }
    (cluster, size)
}

/// What etcd makes of a copy of the first member's folder, alone.
fn booted_by_etcd(line: &str, killed: &Cluster, dir: &Path) -> Cluster {
    let mut alone = Cluster::new(line, 1, dir, "killed");
    let first = &killed.members[0];
    let member = &mut alone.members[0];
    member.name.clone_from(&first.name);
    member.data_dir = dir.join("booted");
    (member.client, member.peer) = (testbed::ports::free(), testbed::ports::free());
    copy(&first.data_dir, &member.data_dir);
    if killed.members.len() == 1 {
        (member.client, member.peer) = (first.client, first.peer);
    } else {
        alone.flags = vec!["--force-new-cluster".into()];
    }
    alone.start();
    alone
}

fn folder_is_described(killed: &Cluster, size: usize, line: &str) {
    let first = &killed.members[0];
    let facts = inspect(&first.data_dir, None);
    let db = facts.db.read().unwrap();
    assert!(db.is_sound(), "{db:?}");
    let wal = facts.wal.read().unwrap();
    assert!(wal.commit > db.store.as_ref().unwrap().consistent_index.unwrap(), "the log is ahead");
    assert_eq!(facts.members.len(), size);
    assert_eq!(facts.own_member().unwrap().peer_urls, [first.peer_url()]);
    assert_eq!(facts.member_id, Some(killed.founded().member_id(&first.name).unwrap()));
    assert_eq!(facts.cluster_id, Some(killed.founded().cluster_id()));
    assert_eq!(facts.members_from, Some(MembersFrom::Database), "no .snap yet, {line}");
}

fn store_is_restored(line: &str, db: &Path, replayed: &Replayed, booted: &Cluster, dir: &Path) {
    let source = SnapshotFile::open(db, TrailerPolicy::Skip).unwrap();
    let verified = source.verify(&VerifyOptions::default(), &mut |_, _| {}).unwrap();
    assert_eq!(verified.hash_kv, replayed.hash_kv);
    assert_eq!(verified.live_keys, replayed.live_keys);
    let mut cluster = Cluster::new(line, 1, dir, "salvaged");
    let target = Target {
        name: cluster.members[0].name.clone(),
        data_dir: cluster.members[0].data_dir.clone(),
        wal_dir: None,
    };
    let options = RestoreOptions::default();
    restore_members(&source, Form::Exact, &cluster.founded(), &options, &[target], &mut |_, _| {}).unwrap();
    cluster.start();
    assert_eq!(cluster.content(), booted.content());
    let leases = |cluster: &Cluster| cluster.json(&["lease", "list"])["leases"].clone();
    assert_eq!(leases(&cluster), leases(booted));
}

fn whole_story(line: &str, size: usize) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (killed, size) = killed_cluster(line, size, dir);
    folder_is_described(&killed, size, line);
    let member: &Member = &killed.members[0];
    let (db, wal) = (member.data_dir.join("member/snap/db"), member.data_dir.join("member/wal"));
    let before = std::fs::read(&db).unwrap();
    let out = dir.join("replayed.db");
    let replayed = replay(&db, &wal, &out).unwrap();
    assert_eq!(std::fs::read(&db).unwrap(), before, "the member's own files are only read");
    let rule = if size == 1 { CommittedBy::SoleVoter } else { CommittedBy::HardState };
    assert_eq!(replayed.committed_by, rule);
    assert!(replayed.rows_added > 50, "{replayed:?}");
    let booted = booted_by_etcd(line, &killed, dir);
    let (hash, compact, revision) = booted.hash_kvs(0)[0];
    assert_eq!((replayed.hash_kv.hash, replayed.revision), (hash, revision), "{replayed:?}");
    assert_eq!(replayed.compact_revision, compact);
    let restored = dir.join("restored");
    std::fs::create_dir(&restored).unwrap();
    store_is_restored(line, &out, &replayed, &booted, &restored);
}

#[test]
fn a_sole_members_log_is_replayed_as_by_etcd() {
    for line in common::LINES {
        whole_story(line, 1);
    }
}

#[test]
fn a_survivors_log_is_replayed_up_to_its_commit_index() {
    for line in common::LINES {
        whole_story(line, 3);
    }
}
