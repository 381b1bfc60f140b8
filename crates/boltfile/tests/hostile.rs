//! Files that nobody should believe: each test makes one and tells what a reader must not do with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::cast_possible_truncation)]
mod common;

use boltfile::{BoltFile, Damage, Error, MetaFault, ReadAt, VIOLATIONS_KEPT_MAX, Violation};
use common::*;

/// Bucket `b` with a branch over three leaves: pages 2 (root), 3 (branch), 4, 5, 6.
fn sound() -> Vec<Vec<u8>> {
    vec![
        leaf(2, &[(1, b"b", &bucket(3))]),
        branch(3, &[(b"a", 4), (b"g", 5), (b"p", 6)]),
        leaf(4, &[(0, b"a", b"1"), (0, b"c", b"2")]),
        leaf(5, &[(0, b"g", b"3"), (0, b"h", b"4")]),
        leaf(6, &[(0, b"p", b"5"), (0, b"z", b"6")]),
    ]
}

fn sound_image() -> Vec<u8> {
    image(2, NO_FREELIST, &sound())
}

fn with(page: u64, bytes: Vec<u8>) -> Vec<u8> {
    let mut pages = sound();
    pages[page as usize - 2] = bytes;
    image(2, NO_FREELIST, &pages)
}

/// The offset and stack an error names.
fn refused(image: Vec<u8>) -> (u64, Vec<u64>, Damage) {
    match rows(&open(image)) {
        Err(Error::Damaged { violation: v, file }) => {
            assert_eq!(file, "image");
            (v.offset_bytes, v.stack, v.damage)
        }
        other => panic!("read as {other:?}"),
    }
}

#[test]
fn the_image_the_others_start_from_is_sound() {
    let report = check(sound_image());
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.pages, report.pages_reachable, report.pages_free), (7, 7, 0));
    assert_eq!((report.buckets, report.rows), (1, 6));
    assert_eq!(rows(&open(sound_image())).unwrap().len(), 6);
}

#[test]
fn a_branch_that_points_at_itself_is_no_endless_descent() {
    let cyclic = with(3, branch(3, &[(b"a", 4), (b"g", 3), (b"p", 6)]));
    let shared = Damage::Shared { shared: 3 };
    assert_eq!(found(cyclic.clone()), [(3, vec![2, 3, 3], shared.clone())]);
    assert_eq!(refused(cyclic), (3 * 4096, vec![2, 3, 3], shared));
}

#[test]
fn a_seek_into_a_cycle_ends_too() {
    let cyclic = with(3, branch(3, &[(b"a", 4), (b"g", 3), (b"p", 6)]));
    let db = open(cyclic);
    let bucket = db.bucket(b"b").unwrap().unwrap();
    assert!(matches!(bucket.get(b"h"), Err(Error::Damaged { .. })));
    assert_eq!(bucket.get(b"z").unwrap().unwrap(), b"6");
}

#[test]
fn a_bucket_that_contains_itself_is_entered_once() {
    let nested =
        image(2, NO_FREELIST, &[leaf(2, &[(1, b"b", &bucket(3))]), leaf(3, &[(1, b"b", &bucket(3))])]);
    assert_eq!(found(nested), [(3, vec![2, 3, 3], Damage::Shared { shared: 3 })]);
}

#[test]
fn two_parents_of_one_page_are_reported_once_and_its_rows_come_once() {
    let shared = with(3, branch(3, &[(b"a", 4), (b"g", 5), (b"p", 5)]));
    let (report, rows) = checked_rows(&open(shared.clone()));
    assert_eq!(report.violations[0].damage, Damage::Shared { shared: 5 });
    assert_eq!(report.violations_total, 1);
    assert_eq!(rows.len(), 4);
    assert_eq!(refused(shared).1, [2, 3, 5]);
}

#[test]
fn overflow_pages_that_cover_a_neighbour_are_reported() {
    let mut over = leaf(4, &[(0, b"a", b"1")]);
    over[12] = 1;
    assert_eq!(found(with(4, over)), [(5, vec![2, 3, 5], Damage::Shared { shared: 5 })]);
}

#[test]
fn absurd_overflow_is_an_error_and_not_an_allocation() {
    for (overflow, damage) in [
        (u32::MAX, Damage::OverflowOutOfRange { overflow: u32::MAX, high_water_mark: 7 }),
        (4, Damage::OverflowOutOfRange { overflow: 4, high_water_mark: 7 }),
    ] {
        let mut page = leaf(4, &[(0, b"a", b"1")]);
        page[12..16].copy_from_slice(&overflow.to_le_bytes());
        assert_eq!(found(with(4, page.clone())), [(4, vec![2, 3, 4], damage.clone())]);
        assert_eq!(refused(with(4, page)), (4 * 4096, vec![2, 3, 4], damage));
    }
}

#[test]
fn absurd_numbers_in_elements_are_errors() {
    // (byte in the page, bytes put there, damage): position, key size and value size of the first element, the count.
    let cases: [(usize, &[u8], Damage); 5] = [
        (20, &u32::MAX.to_le_bytes(), Damage::ElementOutOfBounds { index: 0 }),
        (24, &u32::MAX.to_le_bytes(), Damage::ElementOutOfBounds { index: 0 }),
        (28, &u32::MAX.to_le_bytes(), Damage::ElementOutOfBounds { index: 0 }),
        (10, &u16::MAX.to_le_bytes(), Damage::TableOutOfBounds { count: u16::MAX }),
        (16, &6u32.to_le_bytes(), Damage::ElementFlags { index: 0, flags: 6 }),
    ];
    for (at, bytes, damage) in cases {
        let mut page = sound()[2].clone();
        page[at..at + bytes.len()].copy_from_slice(bytes);
        let all = found(with(4, page.clone()));
        assert!(all.contains(&(4, vec![2, 3, 4], damage.clone())), "{damage:?} not in {all:?}");
        assert_eq!(refused(with(4, page)).0, 4 * 4096);
    }
}

#[test]
fn elements_that_overlap_or_leave_a_gap_are_reported() {
    let mut page = sound()[2].clone();
    page[28] = 2; // the first value grows into the second key
    let all = found(with(4, page));
    assert_eq!(all, [(4, vec![2, 3, 4], Damage::ElementMisplaced { index: 1, expected: 51, found: 50 })]);
}

#[test]
fn keys_out_of_order_or_out_of_range_are_reported() {
    type Rows<'a> = Vec<(u32, &'a [u8], &'a [u8])>;
    let cases: [(Rows<'_>, Damage); 6] = [
        (vec![(0, b"h", b""), (0, b"g", b"")], Damage::KeyOrder { index: 1 }),
        (vec![(0, b"g", b""), (0, b"g", b"")], Damage::KeyOrder { index: 1 }),
        (vec![(0, b"f", b""), (0, b"h", b"")], Damage::KeyBelowRange { index: 0 }),
        (vec![(0, b"g", b""), (0, b"p", b"")], Damage::KeyAboveRange { index: 1 }),
        (vec![(0, b"", b"x")], Damage::EmptyKey { index: 0 }),
        (vec![], Damage::EmptyLeaf),
    ];
    for (page, damage) in cases {
        let all = found(with(5, leaf(5, &page)));
        assert!(all.contains(&(5, vec![2, 3, 5], damage.clone())), "{damage:?} not in {all:?}");
    }
    let unsorted = with(3, branch(3, &[(b"a", 4), (b"p", 6), (b"g", 5)]));
    assert_eq!(found(unsorted)[0], (3, vec![2, 3], Damage::KeyOrder { index: 2 }));
    assert_eq!(found(with(3, branch(3, &[]))), [(3, vec![2, 3], Damage::EmptyBranch)]);
}

#[test]
fn a_branch_reference_that_skips_a_level_is_reported() {
    // One wrong bit in a page id, and a leaf stands where a branch over it and its siblings was: in range, in order.
    let pages = [
        leaf(2, &[(1, b"b", &bucket(3))]),
        branch(3, &[(b"a", 6), (b"p", 7)]),
        leaf(4, &[(0, b"a", b"1")]),
        leaf(5, &[(0, b"g", b"3")]),
        branch(6, &[(b"a", 4), (b"g", 5)]),
        leaf(7, &[(0, b"p", b"5")]),
    ];
    let damage = Damage::UnevenDepth { depth: 1, expected: 2 };
    assert_eq!(found(image(2, NO_FREELIST, &pages)), [(7, vec![2, 3, 7], damage)]);
}

#[test]
fn pages_of_another_id_or_type_are_not_used() {
    // Two leaves exchanged by a storage layer that lost track.
    let mut pages = sound();
    pages.swap(2, 3);
    let exchanged = image(2, NO_FREELIST, &pages);
    assert_eq!(found(exchanged)[0], (4, vec![2, 3, 4], Damage::WrongId { found: 5 }));
    let mut page = sound()[3].clone();
    page[8] = 3; // branch and leaf at once
    let expected = "a branch or leaf page";
    assert_eq!(found(with(5, page)), [(5, vec![2, 3, 5], Damage::WrongType { found: 3, expected })]);
    // Zeroed by a lost write.
    assert_eq!(found(with(5, vec![0; PAGE])), [(5, vec![2, 3, 5], Damage::WrongId { found: 0 })]);
}

#[test]
fn references_to_meta_pages_and_beyond_the_high_water_mark_are_not_followed() {
    for child in [0, 1, 7, u64::MAX] {
        let all = found(with(3, branch(3, &[(b"a", 4), (b"g", child), (b"p", 6)])));
        assert_eq!(all, [(child, vec![2, 3, child], Damage::OutOfRange { high_water_mark: 7 })]);
    }
}

#[test]
fn references_at_the_end_of_all_numbers_do_not_overflow() {
    let pages = [
        leaf(2, &[(1, b"b", &bucket(3))]),
        branch(3, &[(b"a", u64::MAX - 2), (b"g", u64::MAX - 1), (b"p", u64::MAX)]),
    ];
    let metas =
        [meta(PAGE as u32, 2, NO_FREELIST, u64::MAX, 0), meta(PAGE as u32, 2, NO_FREELIST, u64::MAX, 1)];
    let report = check([metas.concat(), pages.concat()].concat());
    assert_eq!(report.violations_total, 4, "{report:?}");
}

/// A disk that cannot read one page.
struct BadSector(Vec<u8>);

impl ReadAt for BadSector {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        if offset < 6 * 4096 && offset + buf.len() as u64 > 5 * 4096 {
            return Err(std::io::Error::other("bad sector"));
        }
        self.0.read_exact_at(buf, offset)
    }

    fn size(&self) -> std::io::Result<u64> {
        self.0.size()
    }
}

#[test]
fn a_page_that_the_disk_cannot_read_is_named() {
    let db = BoltFile::from_source("disk", BadSector(sound_image()), 7 * 4096).unwrap();
    let (report, rows) = checked_rows(&db);
    let damage = Damage::Unreadable { kind: std::io::ErrorKind::Other, message: "bad sector".to_owned() };
    let violation = Violation { page: 5, offset_bytes: 5 * 4096, stack: vec![2, 3, 5], damage };
    assert_eq!(report.violations, [violation]);
    assert_eq!(rows.len(), 4);
    let mut cursor = db.bucket(b"b").unwrap().unwrap().cursor();
    let e = loop {
        match cursor.next() {
            Ok(row) => assert!(row.is_some()),
            Err(e) => break e,
        }
    };
    assert!(e.to_string().contains("bad sector"), "{e}");
}

#[test]
fn a_row_where_a_bucket_must_be_is_reported() {
    let lost = with(2, leaf(2, &[(0, b"b", &bucket(3))]));
    assert!(matches!(&found(lost)[..], [(2, _, Damage::Bucket { index: 0, .. })]));
}

#[test]
fn bucket_values_that_are_no_buckets_are_errors() {
    let short_inline = [bucket(0), header(0, LEAF, 1, 0)[..15].to_vec()].concat();
    let wrong_inline = [bucket(0), header(0, BRANCH, 0, 0)].concat();
    let outside = [bucket(0), header(0, LEAF, 1, 0)].concat();
    let nested_inline = [bucket(0), leaf(0, &[(1, b"k", &bucket(0))])[..49].to_vec()].concat();
    for value in [
        &b"short"[..],
        &short_inline,
        &wrong_inline,
        &outside,
        &nested_inline,
        &[bucket(3), vec![0]].concat(),
    ] {
        let broken = with(2, leaf(2, &[(1, b"b", value)]));
        let all = found(broken.clone());
        assert!(
            matches!(&all[0], (2, stack, Damage::Bucket { index: 0, .. }) if stack[..] == [2]),
            "{all:?}"
        );
        assert!(open(broken).bucket(b"b").is_err(), "{value:?}");
    }
}

#[test]
fn inline_and_nested_buckets_are_read_and_checked() {
    let inline = leaf(0, &[(0, b"x", b"10"), (0, b"y", b"20")]);
    let inline = [7u64.to_le_bytes().to_vec(), inline[..16 + 2 * 16 + 6].to_vec()].concat();
    let inline = [0u64.to_le_bytes().to_vec(), inline].concat();
    let pages = [
        leaf(2, &[(1, b"in", &inline), (1, b"out", &bucket(3))]),
        leaf(3, &[(0, b"a", b"1"), (1, b"in", &inline)]),
    ];
    let db = open(image(2, NO_FREELIST, &pages));
    let report = db.check();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.buckets, report.rows), (3, 5));
    let bucket = db.bucket(b"in").unwrap().unwrap();
    assert_eq!((bucket.sequence(), bucket.get(b"y").unwrap().unwrap()), (7, b"20".to_vec()));
    assert_eq!(bucket.cursor().seek(b"xx").unwrap(), Some((&b"y"[..], &b"20"[..])));
    let outer = db.bucket(b"out").unwrap().unwrap();
    assert_eq!(outer.bucket_names().unwrap(), [b"in"]);
    assert_eq!(outer.get(b"in").unwrap(), None);
    assert_eq!(outer.bucket(b"in").unwrap().unwrap().get(b"x").unwrap().unwrap(), b"10");
    assert!(outer.bucket(b"a").unwrap().is_none());
    // A nested bucket shows in a cursor as a name without a value.
    let mut cursor = outer.cursor();
    assert_eq!(cursor.seek(b"in").unwrap(), Some((&b"in"[..], &b""[..])));
    // Only rows directly in top-level buckets go to the visitor.
    let (_, rows) = checked_rows(&db);
    assert_eq!(rows.iter().map(|r| &r.1[..]).collect::<Vec<_>>(), [b"x", b"y", b"a"]);
}

#[test]
fn a_chain_of_branches_deeper_than_any_tree_is_cut() {
    let mut pages = vec![leaf(2, &[(1, b"b", &bucket(3))])];
    pages.extend((3..203).map(|id| branch(id, &[(b"a", id + 1)])));
    pages.push(leaf(203, &[(0, b"a", b"1")]));
    let all = found(image(2, NO_FREELIST, &pages));
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].2, Damage::TooDeep { limit: 64 });
}

#[test]
fn buckets_nested_beyond_all_sense_are_cut() {
    let mut pages: Vec<_> = (2..1002).map(|id| leaf(id, &[(1, b"b", &bucket(id + 1))])).collect();
    pages.push(leaf(1002, &[]));
    let all = found(image(2, NO_FREELIST, &pages));
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].2, Damage::TooDeep { limit: 64 });
}

#[test]
fn a_fan_of_references_to_the_next_level_is_not_multiplied_out() {
    // 40 levels with 100 references each to the one page below: 100 to the power of 40 ways to the bottom.
    let keys: Vec<[u8; 2]> = (0..100u16).map(u16::to_be_bytes).map(|k| [k[0] + 1, k[1]]).collect();
    let mut pages = vec![leaf(2, &[(1, b"b", &bucket(3))])];
    for id in 3..43 {
        pages.push(branch(id, &keys.iter().map(|k| (&k[..], id + 1)).collect::<Vec<_>>()));
    }
    pages.push(leaf(43, &[]));
    let report = check(image(2, NO_FREELIST, &pages));
    assert!(report.violations_total > 40 * 98);
    assert_eq!(report.violations.len(), VIOLATIONS_KEPT_MAX);
    assert!(rows(&open(image(2, NO_FREELIST, &pages))).is_err());
}

#[test]
fn a_file_cut_short_says_so_and_where() {
    let whole = sound_image();
    for len in (0..whole.len()).step_by(512).chain([79, 80, 81, 4096 + 79, 4096 + 80]) {
        let cut = whole[..len].to_vec();
        match BoltFile::from_source("cut", cut.clone(), len as u64) {
            Err(Error::NoValidMeta { first: MetaFault::Unreadable, .. }) => assert!(len < 80, "{len}"),
            Err(e) => panic!("{e}"),
            Ok(db) => {
                let first = &db.check().violations[0];
                let short = Damage::FileTooShort { file_bytes: len as u64, high_water_mark: 7 };
                assert_eq!(first.damage, short);
                let Err(Error::Damaged { violation, .. }) = rows(&db) else { panic!("read at {len}") };
                assert_eq!(violation.damage, Damage::PastEndOfFile { file_bytes: len as u64 });
                assert!(violation.offset_bytes + 4096 > len as u64);
            }
        }
    }
    let e = BoltFile::from_source("snapshot", whole, 1 << 40).unwrap_err();
    assert!(matches!(e, Error::Truncated { have: 28672, .. }), "{e}");
}

#[test]
fn the_newer_meta_page_counts_and_a_torn_one_leaves_the_older() {
    let pages = sound();
    let newer = || meta(PAGE as u32, 2, NO_FREELIST, 7, 9);
    let older = || meta(PAGE as u32, 4, NO_FREELIST, 7, 8);
    let db = open([older(), newer(), pages.concat()].concat());
    assert_eq!((db.meta().txid, db.meta().root), (9, 2));
    let mut torn = [older(), newer(), pages.concat()].concat();
    torn[PAGE + 60] ^= 1;
    let db = open(torn);
    assert_eq!((db.meta().txid, db.meta().root), (8, 4));
    assert!(matches!(db.check().violations[0].damage, Damage::Meta(MetaFault::Checksum { .. })));
    // The other way round: page 0 torn, page 1 found without being told the page size.
    let mut torn = [older(), newer(), pages.concat()].concat();
    torn[20] = 9;
    let db = open(torn.clone());
    assert_eq!((db.meta().txid, db.meta().page_size), (9, 4096));
    assert_eq!(db.check().violations_total, 1);
    assert_eq!(rows(&db).unwrap().len(), 6);
    torn[PAGE + 16] ^= 1;
    let e = BoltFile::from_source("both", torn.clone(), torn.len() as u64).unwrap_err();
    assert!(e.to_string().contains("format version 9, not 2"), "{e}");
}

#[test]
fn impossible_page_sizes_are_refused() {
    for size in [0, 1, 512, 4095, 1 << 25, u32::MAX] {
        let bytes = [meta(size, 2, NO_FREELIST, 7, 0), vec![0; 8192]].concat();
        let e = BoltFile::from_source("size", bytes, 12288).unwrap_err();
        assert!(
            matches!(e, Error::NoValidMeta { first: MetaFault::PageSize { found }, .. } if found == size),
            "{e}"
        );
    }
}

#[test]
fn an_absurd_high_water_mark_costs_neither_time_nor_memory() {
    for (mark, list) in
        [(1 << 60, NO_FREELIST), (u64::MAX, NO_FREELIST), (u64::MAX, 4), (1 << 60, u64::MAX - 1)]
    {
        let metas = [meta(PAGE as u32, 2, list, mark, 0), meta(PAGE as u32, 2, list, mark, 1)].concat();
        let bytes = [metas, sound().concat()].concat();
        let report = check(bytes.clone());
        let short = Damage::FileTooShort { file_bytes: 28672, high_water_mark: mark };
        assert_eq!(report.violations[0].damage, short);
        assert_eq!(rows(&open(bytes)).unwrap().len(), 6);
    }
}

#[test]
fn a_stored_free_list_must_fit_the_tree() {
    // Page 7 holds the free list, page 8 is free.
    let make = |list: Vec<u8>| {
        let mut pages = sound();
        pages.extend([list, vec![0; PAGE]]);
        image(2, 7, &pages)
    };
    let report = check(make(freelist(7, &[8])));
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.pages, report.pages_reachable, report.pages_free), (9, 8, 1));

    assert_eq!(found(make(freelist(7, &[]))), [(8, vec![], Damage::Unreachable { last: 8 })]);
    assert_eq!(found(make(freelist(7, &[5, 8]))), [(5, vec![2, 3, 5], Damage::ReachableFree { freed: 5 })]);
    let entry = |freed, fault| (7, vec![7], Damage::FreelistEntry { freed, fault });
    assert_eq!(found(make(freelist(7, &[8, 8]))), [entry(8, "named twice")]);
    assert_eq!(found(make(freelist(7, &[1, 8]))), [entry(1, "no page of the database")]);
    assert_eq!(found(make(freelist(7, &[8, 1 << 50]))), [entry(1 << 50, "no page of the database")]);
    assert_eq!(found(make(freelist(7, &[7, 8]))), [entry(7, "part of the free list itself")]);

    let mut long = freelist(7, &[8]);
    long[10..12].copy_from_slice(&[0xFF, 0xFF]);
    long[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(found(make(long.clone()))[0], (7, vec![7], Damage::FreelistTooLong { count: u64::MAX }));
    // The same form, sound: the count as the first number.
    long[16..24].copy_from_slice(&1u64.to_le_bytes());
    long[24..32].copy_from_slice(&8u64.to_le_bytes());
    assert!(check(make(long)).is_clean());
    assert_eq!(found(make(leaf(7, &[]))).len(), 2);
}

#[test]
fn rows_after_a_stop_are_not_called_checked() {
    let db = open(sound_image());
    let mut seen = 0;
    let report = db.check_rows(&mut |_, _, _| {
        seen += 1;
        if seen == 3 { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) }
    });
    assert_eq!(seen, 3);
    assert!(report.stopped && !report.is_clean());
}

#[test]
fn bytes_behind_the_database_are_not_part_of_it() {
    // An etcd snapshot: the database and 32 bytes of sha256.
    let mut bytes = sound_image();
    let len = bytes.len() as u64;
    bytes.extend([0xAB; 32]);
    let db = BoltFile::from_source("snapshot", bytes, len).unwrap();
    assert_eq!(db.len_bytes(), len);
    assert!(db.check().is_clean());
}
