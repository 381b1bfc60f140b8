//! Any bytes as a database: opening, checking, scanning and seeking neither panic nor hang, and a file that the check
//! calls clean is read by cursors as by the check.
//!
//! The meta pages carry a checksum that mutation never hits, so the input is the pages behind them; the first byte says
//! whether the page ids are put right as well, how large the pages are, and whether page 2 is a stored free list. The input is also
//! opened as it is.
#![no_main]
use std::ops::ControlFlow;

use boltfile::{BoltFile, Error};
use libfuzzer_sys::fuzz_target;

type Rows = Vec<(Vec<u8>, Vec<u8>, Vec<u8>)>;

fuzz_target!(|data: &[u8]| {
    read(data.to_vec());
    if let Some((choice, body)) = data.split_first() {
        read(image(*choice, body));
    }
});

fn meta(page_size: u32, root: u64, freelist: u64, high_water_mark: u64, txid: u64) -> Vec<u8> {
    let mut page = (txid % 2).to_le_bytes().to_vec();
    page.extend([4, 0, 0, 0, 0, 0, 0, 0]);
    for word in [0xED0C_DAEDu32, 2, page_size, 0] {
        page.extend(word.to_le_bytes());
    }
    for word in [root, 0, freelist, high_water_mark, txid] {
        page.extend(word.to_le_bytes());
    }
    let sum =
        page[16..].iter().fold(0xcbf29ce484222325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100000001b3));
    page.extend(sum.to_le_bytes());
    page.resize(page_size as usize, 0);
    page
}

fn image(choice: u8, body: &[u8]) -> Vec<u8> {
    let page_size = if choice & 1 == 0 { 1024usize } else { 4096 };
    let mut pages = body.to_vec();
    pages.resize(body.len().next_multiple_of(page_size), 0);
    let end = 2 + (pages.len() / page_size) as u64;
    if choice & 2 == 0 {
        for (id, page) in (2u64..).zip(pages.chunks_mut(page_size)) {
            page[..8].copy_from_slice(&id.to_le_bytes());
        }
    }
    // The root comes last in a file from the writer; the free list, if any, first.
    let root = if choice & 4 == 0 { end - 1 } else { 2 };
    let freelist = if choice & 8 == 0 { u64::MAX } else { 2 };
    let metas = (0..2).flat_map(|txid| meta(page_size as u32, root, freelist, end, txid));
    metas.chain(pages).collect()
}

fn read(image: Vec<u8>) {
    let len = image.len() as u64;
    let Ok(db) = BoltFile::from_source("fuzz", image, len) else { return };
    let mut checked = Rows::new();
    let report = db.check_rows(&mut |bucket, key, value| {
        checked.push((bucket.to_vec(), key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    });
    checked.sort();
    let scanned = scan(&db);
    if report.is_clean() {
        assert_eq!(scanned.expect("clean, so readable"), checked);
    }
    for (bucket, key, value) in checked.iter().take(50) {
        if let Ok(Some(bucket)) = db.bucket(bucket) {
            let got = bucket.get(key);
            assert!(!report.is_clean() || got.expect("readable").as_ref() == Some(value));
        }
    }
}

fn scan(db: &BoltFile<Vec<u8>>) -> Result<Rows, Error> {
    let mut rows = Rows::new();
    for name in db.bucket_names()? {
        let Some(bucket) = db.bucket(&name)? else { continue };
        for nested in bucket.bucket_names()? {
            bucket.bucket(&nested)?;
        }
        let nested = bucket.bucket_names()?;
        let mut cursor = bucket.cursor();
        while let Some((key, value)) = cursor.next()? {
            if !nested.iter().any(|n| n == key) {
                rows.push((name.clone(), key.to_vec(), value.to_vec()));
            }
        }
    }
    rows.sort();
    Ok(rows)
}
