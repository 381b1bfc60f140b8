//! What is written is read back: random sorted maps against `BTreeMap`, by cursor, by seek, by get and by check.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use boltfile::{BoltFile, Writer};
use proptest::prelude::*;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
type Buckets = BTreeMap<Vec<u8>, Rows>;

fn write(buckets: &Buckets, page_size: u32) -> (tempfile::NamedTempFile, u64) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = Writer::create("test", file.reopen().unwrap(), page_size).unwrap();
    for (name, rows) in buckets {
        let mut bucket = writer.bucket(name).unwrap();
        for (key, value) in rows {
            bucket.put(key, value).unwrap();
        }
    }
    let finished = writer.finish().unwrap();
    assert_eq!(finished.bytes, finished.pages * u64::from(page_size));
    (file, finished.bytes)
}

fn read(db: &BoltFile) -> Buckets {
    let mut all = Buckets::new();
    for name in db.bucket_names().unwrap() {
        let mut rows = Rows::new();
        let bucket = db.bucket(&name).unwrap().unwrap();
        let mut cursor = bucket.cursor();
        while let Some((key, value)) = cursor.next().unwrap() {
            rows.insert(key.to_vec(), value.to_vec());
        }
        all.insert(name, rows);
    }
    all
}

fn rows_by_check(db: &BoltFile) -> Buckets {
    let mut all = Buckets::new();
    let report = db.check_rows(&mut |bucket, key, value| {
        all.entry(bucket.to_vec()).or_default().insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    });
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.rows, all.values().map(|rows| rows.len() as u64).sum::<u64>());
    assert_eq!(report.pages_reachable, report.pages);
    all
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![8 => 0usize..200, 2 => 200usize..3000, 1 => 3000usize..40_000];
    (len, any::<u8>()).prop_map(|(len, fill)| vec![fill; len])
}

fn rows() -> impl Strategy<Value = Rows> {
    let key = prop_oneof![9 => prop::collection::vec(any::<u8>(), 1..24), 1 => prop::collection::vec(any::<u8>(), 1..900)];
    prop::collection::btree_map(key, value(), 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any set of buckets and rows comes back as it was given, by every way of reading, with a clean check.
    #[test]
    fn any_map_comes_back(
        buckets in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 1..12), rows(), 0..4),
        page_size in prop::sample::select(vec![1024u32, 4096, 65536]),
        probes in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..6), 16),
    ) {
        let (file, bytes) = write(&buckets, page_size);
        let db = BoltFile::open(file.path()).unwrap();
        prop_assert_eq!(db.len_bytes(), bytes);
        prop_assert_eq!(read(&db), buckets.clone());
        let filled: Buckets = buckets.clone().into_iter().filter(|(_, rows)| !rows.is_empty()).collect();
        prop_assert_eq!(rows_by_check(&db), filled);
        for (name, rows) in &buckets {
            let bucket = db.bucket(name).unwrap().unwrap();
            for probe in probes.iter().chain(rows.keys().step_by(7)) {
                prop_assert_eq!(bucket.get(probe).unwrap(), rows.get(probe).cloned());
                let mut cursor = bucket.cursor();
                let mut at = cursor.seek(probe).unwrap().map(|(k, _)| k.to_vec());
                for (expected, _) in rows.range(probe.clone()..).take(40) {
                    prop_assert_eq!(at.as_ref(), Some(expected));
                    at = cursor.next().unwrap().map(|(k, _)| k.to_vec());
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A copy of a database is gone on with: some buckets kept, others written anew, some left out. The rows are
    /// those, the structure is sound, and the copy is all that was changed.
    #[test]
    fn a_copy_is_gone_on_with(
        before in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 1..9), rows(), 1..6),
        after in rows(),
        anew: prop::sample::Index,
    ) {
        let (old, bytes) = write(&before, 4096);
        let base = BoltFile::open(old.path()).unwrap();
        let copy = tempfile::NamedTempFile::new().unwrap();
        std::fs::copy(old.path(), copy.path()).unwrap();
        let anew = before.keys().nth(anew.index(before.len())).unwrap().clone();
        let mut expected = before.clone();
        expected.insert(anew.clone(), after.clone());
        let mut writer = Writer::behind("copy", copy.reopen().unwrap(), &base).unwrap();
        for (name, rows) in &expected {
            if *name == anew {
                let mut bucket = writer.bucket(name).unwrap();
                for (key, value) in rows {
                    bucket.put(key, value).unwrap();
                }
            } else {
                prop_assert!(writer.keep_bucket(&base, name).unwrap());
            }
        }
        let finished = writer.finish().unwrap();
        prop_assert!(finished.bytes > bytes);
        let copy = BoltFile::open(copy.path()).unwrap();
        prop_assert!(copy.check().is_clean());
        prop_assert_eq!(read(&copy), expected);
        prop_assert_eq!(read(&base), before);
    }
}
