//! A snapshot file: any bytes are verified or refused, and what verifies can be restored and read again.
#![no_main]

use std::io::Write;

use etcd_disk::restore::{Form, NewCluster, RestoreOptions, write_db};
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy, VerifyOptions};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    let path = dir.path().join("snapshot");
    std::fs::File::create(&path).and_then(|mut file| file.write_all(bytes)).expect("written");
    let Ok(source) = SnapshotFile::open(&path, TrailerPolicy::Skip) else { return };
    let verified = source.verify(&VerifyOptions::default(), &mut |_, _| {});
    let cluster = NewCluster::from_initial_cluster("m=http://127.0.0.1:2380", "fuzz").expect("a cluster");
    let options = RestoreOptions { allow_corrupt_alarm: true, ..RestoreOptions::default() };
    let out = dir.path().join("out");
    let form = Form::Bumped { to_revision: i64::MAX - 1 };
    let restored = write_db(&source, form, &cluster, &options, &out, &mut |_, _| {});
    if let (Ok(_), Ok(restored)) = (&verified, &restored) {
        let again = SnapshotFile::open(&out, TrailerPolicy::Skip).expect("a database was written");
        let again = again.verify(&VerifyOptions::default(), &mut |_, _| {}).expect("it verifies");
        assert_eq!((again.hash_kv, again.rows), (restored.hash_kv, restored.rows));
    }
    assert_eq!(out.exists(), restored.is_ok());
});
