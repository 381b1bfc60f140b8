//! Database images made page by page, so that tests can make files that no writer would.
//! Written from the drawing in `docs/formats/bbolt.md`, apart from the crate's own code on purpose.
#![allow(dead_code, unreachable_pub)]
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use boltfile::{BoltFile, CheckReport, Damage, Error, ReadAt};

pub const PAGE: usize = 4096;
pub const BRANCH: u16 = 1;
pub const LEAF: u16 = 2;
pub const FREELIST: u16 = 0x10;
pub const NO_FREELIST: u64 = u64::MAX;

pub fn header(id: u64, flags: u16, count: u16, overflow: u32) -> Vec<u8> {
    let mut out = id.to_le_bytes().to_vec();
    out.extend(flags.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(overflow.to_le_bytes());
    out
}

fn pad(mut page: Vec<u8>) -> Vec<u8> {
    page.resize(page.len().next_multiple_of(PAGE), 0);
    page
}

/// A leaf page: `(element flags, key, value)`.
pub fn leaf(id: u64, rows: &[(u32, &[u8], &[u8])]) -> Vec<u8> {
    let mut out = header(id, LEAF, rows.len() as u16, 0);
    let mut data = Vec::new();
    for (i, (flags, key, value)) in rows.iter().enumerate() {
        let pos = ((rows.len() - i) * 16 + data.len()) as u32;
        for word in [*flags, pos, key.len() as u32, value.len() as u32] {
            out.extend(word.to_le_bytes());
        }
        data.extend([*key, *value].concat());
    }
    out.extend(data);
    pad(out)
}

/// A branch page: `(key, child page)`.
pub fn branch(id: u64, children: &[(&[u8], u64)]) -> Vec<u8> {
    let mut out = header(id, BRANCH, children.len() as u16, 0);
    let mut data: Vec<u8> = Vec::new();
    for (i, (key, child)) in children.iter().enumerate() {
        let pos = ((children.len() - i) * 16 + data.len()) as u32;
        out.extend(pos.to_le_bytes());
        out.extend((key.len() as u32).to_le_bytes());
        out.extend(child.to_le_bytes());
        data.extend(*key);
    }
    out.extend(data);
    pad(out)
}

pub fn freelist(id: u64, ids: &[u64]) -> Vec<u8> {
    let mut out = header(id, FREELIST, ids.len() as u16, 0);
    ids.iter().for_each(|id| out.extend(id.to_le_bytes()));
    pad(out)
}

/// The value of a bucket whose root page is `root`.
pub fn bucket(root: u64) -> Vec<u8> {
    [root.to_le_bytes(), 0u64.to_le_bytes()].concat()
}

pub fn meta(page_size: u32, root: u64, freelist: u64, high_water_mark: u64, txid: u64) -> Vec<u8> {
    let mut out = header(txid % 2, 4, 0, 0);
    for word in [0xED0C_DAEDu32, 2, page_size, 0] {
        out.extend(word.to_le_bytes());
    }
    for word in [root, 0, freelist, high_water_mark, txid] {
        out.extend(word.to_le_bytes());
    }
    let sum =
        out[16..].iter().fold(0xcbf29ce484222325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100000001b3));
    out.extend(sum.to_le_bytes());
    pad(out)
}

/// An image of meta pages and the given pages from page 2 on.
pub fn image(root: u64, freelist: u64, pages: &[Vec<u8>]) -> Vec<u8> {
    let body = pages.concat();
    let end = (2 + body.len() / PAGE) as u64;
    [meta(PAGE as u32, root, freelist, end, 0), meta(PAGE as u32, root, freelist, end, 1), body].concat()
}

pub fn open(image: Vec<u8>) -> BoltFile<Vec<u8>> {
    let len = image.len() as u64;
    BoltFile::from_source("image", image, len).unwrap()
}

/// Checks an image; whatever is in it, that takes no longer than a few seconds.
pub fn check(image: Vec<u8>) -> CheckReport {
    let start = Instant::now();
    let report = open(image).check();
    assert!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
    report
}

/// The check's violations as (page, stack, damage).
pub fn found(image: Vec<u8>) -> Vec<(u64, Vec<u64>, Damage)> {
    check(image).violations.into_iter().map(|v| (v.page, v.stack, v.damage)).collect()
}

/// Bucket, key, value.
pub type OwnedRow = (Vec<u8>, Vec<u8>, Vec<u8>);

/// All rows of all top-level buckets through cursors.
pub fn rows(db: &BoltFile<Vec<u8>>) -> Result<Vec<OwnedRow>, Error> {
    let mut all = Vec::new();
    for name in db.bucket_names()? {
        let Some(bucket) = db.bucket(&name)? else { continue };
        let mut cursor = bucket.cursor();
        while let Some((key, value)) = cursor.next()? {
            all.push((name.clone(), key.to_vec(), value.to_vec()));
        }
    }
    Ok(all)
}

/// All rows of all top-level buckets through the check.
pub fn checked_rows<S: ReadAt>(db: &BoltFile<S>) -> (CheckReport, Vec<OwnedRow>) {
    let mut all = Vec::new();
    let report = db.check_rows(&mut |bucket, key, value| {
        all.push((bucket.to_vec(), key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    });
    all.sort();
    (report, all)
}
