//! What the writer promises about its files beyond "it comes back": refusals, the shape of its pages, its size.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
use std::io::{Read, Seek};

use boltfile::{BoltFile, Error, WriteFault, Writer};

fn writer(page_size: u32) -> (std::fs::File, Writer) {
    let file = tempfile::tempfile().unwrap();
    let writer = Writer::create("new.db", file.try_clone().unwrap(), page_size).unwrap();
    (file, writer)
}

fn bytes_of(mut file: std::fs::File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn fault<T>(result: Result<T, Error>) -> WriteFault {
    match result.map(|_| ()) {
        Err(e @ Error::Rejected { fault, .. }) => {
            assert!(e.to_string().starts_with("new.db: cannot write "), "{e}");
            fault
        }
        other => panic!("{other:?}"),
    }
}

/// Rows and buckets that are out of order, or that bbolt could not hold, are refused by name; what was written before
/// them stays good.
#[test]
fn rows_that_no_database_can_hold_are_refused() {
    let (file, mut w) = writer(4096);
    assert_eq!(fault(w.bucket(b"")), WriteFault::EmptyKey);
    let mut b = w.bucket(b"b").unwrap();
    b.put(b"k2", b"v").unwrap();
    assert_eq!(fault(b.put(b"k2", b"again")), WriteFault::Order);
    assert_eq!(fault(b.put(b"k1", b"before")), WriteFault::Order);
    assert_eq!(fault(b.put(b"", b"")), WriteFault::EmptyKey);
    assert_eq!(fault(b.put(&[b'z'; 32_769], b"")), WriteFault::KeyTooLong);
    assert_eq!(fault(b.put(b"k3", &vec![0; (128 << 20) + 1])), WriteFault::ValueTooLong);
    b.put(&[b'z'; 32_768], b"longest").unwrap();
    assert_eq!(fault(w.bucket(b"b")), WriteFault::Order);
    assert_eq!(fault(w.bucket(b"a")), WriteFault::Order);
    w.finish().unwrap();
    let bytes = bytes_of(file);
    let len = bytes.len() as u64;
    let report = BoltFile::from_source("new.db", bytes, len).unwrap().check();
    assert!(report.is_clean() && report.rows == 2, "{report:?}");
}

/// Page sizes that bbolt would not find again are refused.
#[test]
fn impossible_page_sizes_are_refused() {
    for size in [0, 512, 1000, 4097, 1 << 25] {
        assert_eq!(
            fault(Writer::create("new.db", tempfile::tempfile().unwrap(), size)),
            WriteFault::PageSize
        );
    }
}

/// A writer that breaks off leaves a file that nobody takes for a database: the meta pages come last.
#[test]
fn an_unfinished_file_is_no_database() {
    let (file, mut w) = writer(4096);
    let mut b = w.bucket(b"b").unwrap();
    for i in 0..3000u32 {
        b.put(&i.to_be_bytes(), &[1; 1000]).unwrap();
    }
    drop(w);
    let bytes = bytes_of(file);
    assert!(bytes.len() > 1 << 20, "something was written");
    let len = bytes.len() as u64;
    assert!(matches!(BoltFile::from_source("half", bytes, len), Err(Error::NoValidMeta { .. })));
}

/// A full disk is an error that names the file, at the latest at the end, and later calls fail too.
#[test]
fn a_full_disk_is_an_error() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut w = Writer::create("new.db", full, 4096).unwrap();
    let mut b = w.bucket(b"b").unwrap();
    let failed = (0..20_000u32).find_map(|i| b.put(&i.to_be_bytes(), &[1; 1000]).err());
    for e in [failed.expect("20 MB went to a full disk"), w.finish().unwrap_err()] {
        assert!(matches!(&e, Error::Io { file, .. } if file == "new.db"), "{e}");
    }
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut w = Writer::create("new.db", full, 4096).unwrap();
    w.bucket(b"b").unwrap();
    assert!(matches!(w.finish(), Err(Error::Io { .. })));
}

/// The sequence number of a bucket is kept.
#[test]
fn a_bucket_keeps_its_sequence() {
    let (file, mut w) = writer(4096);
    w.bucket(b"b").unwrap().set_sequence(42);
    w.finish().unwrap();
    let bytes = bytes_of(file);
    let len = bytes.len() as u64;
    let db = BoltFile::from_source("new.db", bytes, len).unwrap();
    assert_eq!(db.bucket(b"b").unwrap().unwrap().sequence(), 42);
}

/// bbolt asserts that a branch has two children when it merges pages after deletes (`node.rebalance`): a file with a
/// lonely child at the end of a level would crash etcd at its first compaction. Every number of rows around the points
/// where a level fills up is tried.
#[test]
fn no_branch_has_a_lonely_child() {
    let value = [7u8; 500];
    let mut branches = 0;
    for rows in (1..200).chain(1200..1400) {
        let (file, mut w) = writer(1024);
        let mut b = w.bucket(b"b").unwrap();
        for i in 0..rows as u32 {
            let mut key = i.to_be_bytes().to_vec();
            key.resize(150, b'_');
            b.put(&key, &value).unwrap();
        }
        w.finish().unwrap();
        let bytes = bytes_of(file);
        for page in bytes.chunks(1024).skip(2) {
            let (flags, count) = (page[8], u16::from_le_bytes([page[10], page[11]]));
            if flags == 1 {
                branches += 1;
                assert!(count >= 2, "{rows} rows: a branch page with {count} children");
            }
        }
    }
    assert!(branches > 10_000, "{branches}");
}

/// Leaves are packed full, and rows go into the rest of a large value's last page: the file is hardly larger than its
/// rows.
#[test]
fn files_are_packed() {
    let (_, mut w) = writer(4096);
    let mut b = w.bucket(b"b").unwrap();
    let mut payload = 0;
    for i in 0..20_000u32 {
        let value = vec![1; if i % 100 == 0 { 9000 } else { 150 }];
        b.put(&i.to_be_bytes(), &value).unwrap();
        payload += 16 + 4 + value.len() as u64;
    }
    let finished = w.finish().unwrap();
    assert!(finished.bytes < payload * 105 / 100, "{} bytes for {payload}", finished.bytes);
}
