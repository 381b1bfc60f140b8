//! The story: a snapshot comes from a bad disk or from somebody who means harm. Whatever its bytes are, it is verified or
//! refused with the file and the place, nothing is left behind, and nobody panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::path::{Path, PathBuf};

use boltfile::Writer;
use etcd_disk::Error;
use etcd_disk::data_dir::{MembersFrom, Seen, inspect};
use etcd_disk::proto::{AlarmMember, KeyValue};
use etcd_disk::restore::{Form, NewCluster, RestoreOptions, Target, restore_members, write_db};
use etcd_disk::rows::{Revision, row_key, tombstone_key};
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy, Verified, VerifyOptions};
use proptest::prelude::*;
use prost::Message;
use sha2::{Digest, Sha256};

type Entry = (Vec<u8>, Vec<u8>);

fn row(main: i64, sub: i64, key: &str) -> Entry {
    let kv = KeyValue {
        key: key.into(),
        create_revision: main,
        mod_revision: main,
        version: 1,
        value: vec![b'v'; 300],
        lease: 0,
    };
    (row_key(Revision { main, sub }).to_vec(), kv.encode_to_vec())
}

fn tombstone(main: i64, key: &str) -> Entry {
    let kv = KeyValue { key: key.into(), ..KeyValue::default() };
    (tombstone_key(Revision { main, sub: 0 }).to_vec(), kv.encode_to_vec())
}

/// A database with these rows and meta entries, without a trailer.
fn database(rows: &[Entry], meta: &[Entry]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = Writer::create("db", file.reopen().unwrap(), 4096).unwrap();
    for (name, entries) in [("key", rows), ("lease", &[]), ("meta", meta)] {
        let mut bucket = writer.bucket(name.as_bytes()).unwrap();
        for (key, value) in entries {
            bucket.put(key, value).unwrap();
        }
    }
    writer.finish().unwrap();
    std::fs::read(file.path()).unwrap()
}

fn some_rows() -> Vec<Entry> {
    let mut rows: Vec<Entry> = (2..60).map(|main| row(main, 0, &format!("/k/{}", main % 20))).collect();
    rows.push(row(60, 0, "/k/a"));
    rows.push(row(60, 1, "/k/b"));
    rows.push(tombstone(61, "/k/3"));
    rows
}

fn with_trailer(mut db: Vec<u8>) -> Vec<u8> {
    let sha = Sha256::digest(&db);
    db.extend_from_slice(&sha);
    db
}

fn file_of(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("snapshot.db");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn verify(path: &Path, policy: TrailerPolicy) -> Result<Verified, Error> {
    SnapshotFile::open(path, policy)?.verify(&VerifyOptions::default(), &mut |_, _| {})
}

fn cluster() -> NewCluster {
    NewCluster::from_initial_cluster("m1=http://127.0.0.1:2380", "token").unwrap()
}

fn causes(error: &dyn std::error::Error) -> String {
    let below = error.source().map(causes).unwrap_or_default();
    format!("{error}: {below}")
}

#[test]
fn a_sound_snapshot_is_counted() {
    let (_dir, path) = file_of(&with_trailer(database(&some_rows(), &[])));
    let verified = verify(&path, TrailerPolicy::Required).unwrap();
    assert!(verified.trailer);
    assert_eq!((verified.rows, verified.live_keys, verified.revision), (61, 21, 61));
    assert_eq!((verified.compact_revision, verified.facts.members.len()), (-1, 0));
}

/// A revision that is only in the meta bucket counts: else a restore would go backwards.
#[test]
fn the_revision_is_the_highest_of_rows_and_compactions() {
    for name in ["finishedCompactRev", "scheduledCompactRev"] {
        let meta = [(name.into(), row_key(Revision { main: 900, sub: 0 }).to_vec())];
        let (_dir, path) = file_of(&with_trailer(database(&some_rows(), &meta)));
        let verified = verify(&path, TrailerPolicy::Required).unwrap();
        assert_eq!((verified.revision, verified.compact_revision), (900, 900), "{name}");
    }
}

#[test]
fn rows_that_would_make_etcd_panic_are_named() {
    let bad_rows: [Entry; 4] = [
        (b"zz".to_vec(), Vec::new()),
        (vec![b'_'; 40], Vec::new()),
        (vec![0xff; 17], Vec::new()),
        (row_key(Revision { main: 99, sub: 0 }).to_vec(), b"\xff\xff".to_vec()),
    ];
    for bad in bad_rows {
        let mut rows = some_rows();
        rows.push(bad);
        rows.sort();
        let (dir, path) = file_of(&with_trailer(database(&rows, &[])));
        let error = causes(&verify(&path, TrailerPolicy::Required).unwrap_err());
        assert!(error.contains("bucket key, row"), "{error}");
        let source = SnapshotFile::open(&path, TrailerPolicy::Required).unwrap();
        for form in [Form::Exact, Form::Bumped { to_revision: 1000 }, Form::StockBump { bump_revision: 9 }] {
            let out = dir.path().join("out");
            let options = RestoreOptions::default();
            assert!(write_db(&source, form, &cluster(), &options, &out, &mut |_, _| {}).is_err());
            assert!(!out.exists());
        }
    }
}

#[test]
fn what_is_no_snapshot_is_refused_with_the_reason() {
    let db = database(&some_rows(), &[]);
    let refused = |bytes: &[u8], policy| {
        let (_dir, path) = file_of(bytes);
        causes(&verify(&path, policy).unwrap_err())
    };
    assert!(refused(&db, TrailerPolicy::Required).contains("no sha256"));
    assert!(refused(b"", TrailerPolicy::Required).contains("no sha256"));
    assert!(refused(b"", TrailerPolicy::Skip).contains("not a bbolt database"));
    assert!(refused(&[0; 32], TrailerPolicy::Required).contains("not a bbolt database"));
    let mut swapped = with_trailer(db.clone());
    let last = swapped.len() - 1;
    swapped[last] ^= 1;
    assert!(refused(&swapped, TrailerPolicy::Required).contains("its trailer says"));
    let (_dir, path) = file_of(&db);
    assert_eq!(verify(&path, TrailerPolicy::Skip).unwrap().rows, 61);
}

/// Two restores into one folder, or over a folder with something in it, would lose what is there.
#[test]
fn an_occupied_folder_is_refused() {
    let (dir, path) = file_of(&with_trailer(database(&some_rows(), &[])));
    let source = SnapshotFile::open(&path, TrailerPolicy::Required).unwrap();
    let target = Target { name: "m1".into(), data_dir: dir.path().join("data"), wal_dir: None };
    let restore = |target: &Target| {
        let options = RestoreOptions::default();
        restore_members(
            &source,
            Form::Exact,
            &cluster(),
            &options,
            std::slice::from_ref(target),
            &mut |_, _| {},
        )
    };
    // what a restore that was killed has left is no reason to refuse
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::write(dir.path().join("data/.rekindle-db.tmp"), "half").unwrap();
    restore(&target).unwrap();
    let facts = inspect(&target.data_dir, None);
    assert!(facts.db.read().unwrap().is_sound());
    assert_eq!(facts.own_member().unwrap().name, "m1");
    let before = std::fs::read(dir.path().join("data/member/snap/db")).unwrap();
    let again = restore(&target).unwrap_err().to_string();
    assert!(again.contains("not empty"), "{again}");
    assert_eq!(std::fs::read(dir.path().join("data/member/snap/db")).unwrap(), before);
    let wal_dir = dir.path().join("wal");
    std::fs::create_dir_all(wal_dir.join("something")).unwrap();
    let elsewhere = Target { data_dir: dir.path().join("other"), wal_dir: Some(wal_dir), ..target.clone() };
    assert!(restore(&elsewhere).unwrap_err().to_string().contains("not empty"));
    let stranger = Target { name: "m9".into(), data_dir: dir.path().join("third"), wal_dir: None };
    assert!(restore(&stranger).unwrap_err().to_string().contains("m9"));
    assert!(!dir.path().join("third").exists());
}

/// A cluster that knew its members differed may have given the wrong copy: only with consent, and then without the alarm.
#[test]
fn a_corrupt_alarm_needs_consent() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = Writer::create("db", file.reopen().unwrap(), 4096).unwrap();
    let alarm = AlarmMember { member_id: 0xabc, alarm: 2 }.encode_to_vec();
    writer.bucket(b"alarm").unwrap().put(&alarm, &[]).unwrap();
    let mut rows = writer.bucket(b"key").unwrap();
    for (key, value) in some_rows() {
        rows.put(&key, &value).unwrap();
    }
    writer.finish().unwrap();
    let source = SnapshotFile::open(file.path(), TrailerPolicy::Skip).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (number, form) in
        [Form::Exact, Form::Bumped { to_revision: 99 }, Form::StockBump { bump_revision: 9 }]
            .iter()
            .enumerate()
    {
        let out = dir.path().join(number.to_string());
        let write = |options: &RestoreOptions<'_>| {
            write_db(&source, *form, &cluster(), options, &out, &mut |_, _| {})
        };
        let refused = write(&RestoreOptions::default()).unwrap_err().to_string();
        assert!(refused.contains("CORRUPT alarm of member abc"), "{refused}");
        let consent = RestoreOptions { allow_corrupt_alarm: true, ..RestoreOptions::default() };
        assert_eq!(write(&consent).unwrap().cleared_alarms.len(), 1);
        assert!(verify(&out, TrailerPolicy::Skip).unwrap().facts.alarms.is_empty());
    }
}

/// Half of a data dir is gone or garbled: the rest is described all the same.
#[test]
fn a_broken_data_dir_is_described_part_by_part() {
    let (dir, path) = file_of(&with_trailer(database(&some_rows(), &[])));
    let source = SnapshotFile::open(&path, TrailerPolicy::Required).unwrap();
    let data_dir = dir.path().join("data");
    let target = Target { name: "m1".into(), data_dir: data_dir.clone(), wal_dir: None };
    let options = RestoreOptions::default();
    restore_members(&source, Form::Exact, &cluster(), &options, &[target], &mut |_, _| {}).unwrap();
    let whole = inspect(&data_dir, None);
    assert_eq!(
        (whole.members_from, whole.cluster_id),
        (Some(MembersFrom::Database), Some(cluster().cluster_id()))
    );

    std::fs::write(data_dir.join("member/snap/db"), [7; 5000]).unwrap();
    let no_db = inspect(&data_dir, None);
    assert!(matches!(&no_db.db, Seen::Failed(why) if why.contains("not a bbolt database")), "{:?}", no_db.db);
    assert_eq!((no_db.members.len(), no_db.members_from), (1, Some(MembersFrom::SnapFile)));
    assert_eq!(no_db.member_id, cluster().member_id("m1"));

    let segment = data_dir.join("member/wal/0000000000000000-0000000000000000.wal");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[100] ^= 0xff;
    std::fs::write(&segment, bytes).unwrap();
    let no_wal = inspect(&data_dir, None);
    assert!(matches!(&no_wal.wal, Seen::Failed(why) if why.contains("damaged at byte")), "{:?}", no_wal.wal);

    let nothing = inspect(&dir.path().join("nowhere"), None);
    assert!(!nothing.exists && nothing.db == Seen::Absent && nothing.wal == Seen::Absent);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Any change of a snapshot is found by its sha256, wherever it is.
    #[test]
    fn a_changed_byte_is_found(at: prop::sample::Index, flip in 1u8..) {
        let mut bytes = with_trailer(database(&some_rows(), &[]));
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let (_dir, path) = file_of(&bytes);
        prop_assert!(verify(&path, TrailerPolicy::Required).is_err());
    }

    /// Without a trailer a change may lie in a value; then all that is read is still a store, and else it is refused.
    #[test]
    fn a_changed_database_is_read_or_refused(at: prop::sample::Index, flip in 1u8.., cut: bool) {
        let mut bytes = database(&some_rows(), &[]);
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
        let (dir, path) = file_of(&bytes);
        let verified = verify(&path, TrailerPolicy::Skip);
        if let Ok(source) = SnapshotFile::open(&path, TrailerPolicy::Skip) {
            let form = Form::Bumped { to_revision: i64::MAX - 1 };
            let out = dir.path().join("out");
            let written = write_db(&source, form, &cluster(), &RestoreOptions::default(), &out, &mut |_, _| {});
            prop_assert!(verified.is_err() || written.is_ok());
            prop_assert_eq!(out.exists(), written.is_ok());
        }
    }
}
