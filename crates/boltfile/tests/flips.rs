//! Random damage to a valid file: whatever byte is changed or cut off, nothing panics or hangs, and what the check calls
//! clean reads without error. A change to the structure is either reported or makes no difference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::cast_possible_truncation)]
mod common;

use std::io::Read;
use std::sync::LazyLock;

use boltfile::{BoltFile, Error, Writer};
use common::*;
use proptest::prelude::*;

/// A file with everything in it: several levels, overflow pages, small and empty buckets.
static VALID: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = Writer::create("valid", file.reopen().unwrap(), 1024).unwrap();
    writer.bucket(b"alarm").unwrap();
    let mut key = writer.bucket(b"key").unwrap();
    for i in 0..900u64 {
        let len = if i % 50 == 0 { 3000 } else { (i * 37 % 300) as usize };
        key.put(&[&i.to_be_bytes()[..], b"_"].concat(), &vec![i as u8; len]).unwrap();
    }
    let mut meta = writer.bucket(b"meta").unwrap();
    meta.put(b"consistent_index", &7u64.to_be_bytes()).unwrap();
    meta.put(b"term", &1u64.to_be_bytes()).unwrap();
    writer.finish().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
});

fn page_u16(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()))
}

/// Where a change shows: headers and element tables of all pages of the tree, and the fields of the meta pages.
/// Not: the count of a bucket's only page (bbolt has empty buckets) and the lengths of a leaf's last row (it may end
/// anywhere in the page), neither of which can be told from what a writer meant.
static STRUCTURE: LazyLock<Vec<usize>> = LazyLock::new(|| {
    let bytes = &*VALID;
    let mut places: Vec<usize> = (0..80).chain(1024..1104).collect();
    let mut page = 2048;
    while page < bytes.len() {
        let (flags, count) = (page_u16(bytes, page + 8), page_u16(bytes, page + 10));
        places.extend((page..page + 16).filter(|at| count > 2 || !(page + 10..page + 12).contains(at)));
        let table = if flags == usize::from(LEAF) { 16 * count.max(1) - 8 } else { 16 * count };
        if count > 0 {
            places.extend(page + 16..page + 16 + table);
        }
        page += 1024 * (1 + page_u16(bytes, page + 12));
    }
    places
});

fn survives(image: Vec<u8>) -> bool {
    let len = image.len() as u64;
    let db = match BoltFile::from_source("flipped", image, len) {
        Ok(db) => db,
        Err(Error::NoValidMeta { .. }) => return false,
        Err(e) => panic!("{e}"),
    };
    let (report, by_check) = checked_rows(&db);
    let by_cursor = rows(&db);
    for probe in [&b"key"[..], b"meta", b"zzz"] {
        if let Ok(Some(bucket)) = db.bucket(probe) {
            let _ = bucket.get(&[&450u64.to_be_bytes()[..], b"_"].concat());
            let _ = bucket.get(b"term");
        }
    }
    if report.is_clean() {
        assert_eq!(by_cursor.expect("clean, so readable"), by_check);
    }
    report.is_clean()
}

#[test]
fn the_file_is_valid_before_it_is_damaged() {
    assert!(survives(VALID.clone()));
    assert_eq!(rows(&open(VALID.clone())).unwrap().len(), 902);
    assert!(STRUCTURE.len() > 10_000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any bytes changed anywhere.
    #[test]
    fn changed_bytes_never_panic(changes in prop::collection::vec((0usize..VALID.len(), any::<u8>()), 1..6)) {
        let mut image = VALID.clone();
        for (at, byte) in changes {
            image[at] = byte;
        }
        survives(image);
    }

    /// One changed byte of the structure is reported, or nothing has changed for a reader.
    #[test]
    fn changed_structure_is_reported_or_harmless(place in 0usize..STRUCTURE.len(), flip in 1u8..) {
        let mut image = VALID.clone();
        image[STRUCTURE[place]] ^= flip;
        if survives(image.clone()) {
            prop_assert!(rows(&open(image)).unwrap() == rows(&open(VALID.clone())).unwrap(), "other rows, none missed");
        }
    }

    /// Cut off anywhere: never clean.
    #[test]
    fn truncation_is_never_clean(len in 0usize..VALID.len()) {
        prop_assert!(!survives(VALID[..len].to_vec()));
    }
}
