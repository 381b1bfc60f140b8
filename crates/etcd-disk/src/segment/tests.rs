//! The story: a watcher is killed, or a disk lies, at any byte of a segment. What was whole can be read, nothing else is.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::error::{Error, SegmentFault};
use crate::proto::KeyValue;

const MAGIC_AND_HEADER: usize = 8 + 9 + 8 + 16 + 16 + 4;

pub(crate) fn header(first_revision: i64) -> Header {
    let origin = Origin { cluster_id: 7, timeline: [1; 16] };
    Header { origin, first_revision, created_ms: 5, writer: "test".into() }
}

pub(crate) fn put_row(revision: i64, key: &str, value_bytes: usize, lease: i64) -> Vec<u8> {
    let value = vec![b'v'; value_bytes];
    KeyValue { key: key.into(), create_revision: revision, mod_revision: revision, version: 1, value, lease }
        .encode_to_vec()
}

pub(crate) fn tombstone(key: &str) -> Vec<u8> {
    KeyValue { key: key.into(), ..KeyValue::default() }.encode_to_vec()
}

/// Revisions 10 to 14: one row, three rows, a tombstone, rows of 3 MB in parts, one row; and one of each other record.
fn write(writer: &mut SegmentWriter) {
    let sample = HashKv { hash: 0xabcd, revision: 10, compact_revision: 4 };
    writer.progress(90).unwrap();
    writer.row(10, 100, false, &put_row(10, "a", 10, 0)).unwrap();
    writer.end_revision().unwrap();
    writer.lease(&LeaseSeen { at_ms: 101, id: 77, granted_ttl_s: 30, remaining_s: 20 }).unwrap();
    for key in ["a", "b", "c"] {
        writer.row(11, 110, false, &put_row(11, key, 0, 77)).unwrap();
    }
    writer.end_revision().unwrap();
    writer.row(12, 105, true, &tombstone("b")).unwrap();
    writer.end_revision().unwrap();
    writer.compaction(111, 9).unwrap();
    writer.hash_kv(&HashSample { at_ms: 112, hash_kv: sample }).unwrap();
    for _ in 0..3 {
        writer.row(13, 120, false, &put_row(13, "large", 1 << 20, 0)).unwrap();
    }
    writer.end_revision().unwrap();
    writer.row(14, 121, false, &put_row(14, "a", 1, 0)).unwrap();
    writer.end_revision().unwrap();
    writer.progress(130).unwrap();
}

fn whole() -> (tempfile::TempDir, std::path::PathBuf, SegmentFacts) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut writer = SegmentWriter::create(&path, header(10)).unwrap();
    write(&mut writer);
    let facts = writer.close().unwrap();
    (dir, path, facts)
}

#[test]
fn what_was_written_is_read() {
    let (_dir, path, facts) = whole();
    assert_eq!((facts.last_revision, facts.closed, facts.torn), (14, true, false));
    assert_eq!(facts.received_ms, Some((100, 121)), "a clock that goes back does not take times back");
    assert_eq!(facts.newest, Some(Evidence { at_ms: 130, revision: 14 }));
    assert_eq!(facts.leases.get(&77).unwrap().granted_ttl_s, 30);
    assert_eq!((facts.samples.len(), facts.compact_revision), (1, Some(9)));
    assert_eq!(facts.bytes, std::fs::metadata(&path).unwrap().len());
    let mut reader = SegmentReader::open(&path).unwrap();
    let mut rows = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        if let Record::Rows(part) = record {
            rows.extend(part.iter().map(|row| (row.revision.main, row.revision.sub, row.tombstone)));
        }
    }
    let expected = [(10, 0), (11, 0), (11, 1), (11, 2), (12, 0), (13, 0), (13, 1), (13, 2), (14, 0)];
    let read: Vec<(i64, i64)> = rows.iter().map(|(main, sub, _)| (*main, *sub)).collect();
    assert_eq!(read, expected);
    assert_eq!(rows.iter().filter(|row| row.2).count(), 1);
}

#[test]
fn what_is_out_of_order_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SegmentWriter::create(&dir.path().join("s"), header(10)).unwrap();
    let fault = |result: crate::Result<()>| match result.unwrap_err() {
        Error::Segment { source, .. } => source,
        other => panic!("{other}"),
    };
    let row = put_row(11, "a", 1, 0);
    assert!(matches!(fault(writer.row(11, 1, false, &row)), SegmentFault::Order { found: 11, .. }));
    assert!(matches!(fault(writer.end_revision()), SegmentFault::Unwritable(_)));
    writer.row(10, 1, false, &row).unwrap();
    assert!(matches!(fault(writer.progress(5)), SegmentFault::Unwritable(_)));
    let gap = GapSeen { at_ms: 1, first: 3, last: 8, cause: GapCause::Compacted };
    assert!(matches!(fault(writer.gap(&gap)), SegmentFault::Unwritable(_)));
    assert!(SegmentWriter::create(&dir.path().join("s"), header(10)).is_err(), "never over another file");
}

/// A segment of one row for each of some revisions, with progress before and behind them.
fn plain(dir: &std::path::Path, revisions: std::ops::Range<i64>, gap: Option<GapSeen>) -> std::path::PathBuf {
    let path = dir.join(format!("{}-{}", revisions.start, gap.is_some()));
    let mut writer = SegmentWriter::create(&path, header(revisions.start)).unwrap();
    gap.iter().for_each(|gap| writer.gap(gap).unwrap());
    writer.progress(revisions.start * 10).unwrap();
    for revision in revisions {
        writer.row(revision, revision * 10 + 5, false, &put_row(revision, "p", 3, 0)).unwrap();
        writer.end_revision().unwrap();
    }
    writer.progress(i64::MAX).unwrap();
    writer.close().unwrap();
    path
}

/// What a segment tells, frame by frame; rows as whole revisions, however they were cut.
fn told(path: &std::path::Path) -> Vec<String> {
    let mut reader = SegmentReader::open(path).unwrap();
    let (mut told, mut revision) = (Vec::new(), String::new());
    while let Some(record) = reader.next().unwrap() {
        let Record::Rows(rows) = record else {
            told.push(format!("{record:?}"));
            continue;
        };
        for row in rows.iter() {
            revision.push_str(&format!("{:?} {} {:?} ", row.revision, row.tombstone, row.value));
        }
        if rows.ends_revision {
            told.push(format!("{} {}", rows.received_ms, std::mem::take(&mut revision)));
        }
    }
    told
}

/// An hour of small segments becomes one: it tells what they told, in the same order, a gap in front of the first
/// included. What does not follow without a hole, is of another history or was not ended is not merged.
#[test]
fn a_merged_segment_tells_what_its_parts_tell() {
    let (dir, path, _) = whole();
    let at = |name: &str| dir.path().join(name);
    let merged = merge(&[path.clone(), plain(dir.path(), 15..18, None)], &at("merged"), "merger").unwrap();
    assert_eq!((merged.header.first_revision, merged.last_revision, merged.closed), (10, 17, true));
    assert_eq!((merged.samples.len(), merged.leases.len(), merged.header.writer.as_str()), (1, 1, "merger"));
    let parts = [told(&path), told(&at("15-false"))].concat();
    assert_eq!(told(&at("merged")), parts);

    let gap = |last| Some(GapSeen { at_ms: 3, first: 8, last, cause: GapCause::Compacted });
    let (behind, next) = (plain(dir.path(), 10..12, gap(9)), plain(dir.path(), 12..14, None));
    let with_gap = merge(&[behind.clone(), next.clone()], &at("gap"), "m").unwrap();
    assert_eq!((with_gap.gap, with_gap.last_revision), (gap(9), 13));

    let unended = at("unended");
    drop(SegmentWriter::create(&unended, header(14)).unwrap());
    let foreign = at("foreign");
    let other = Header { origin: Origin { cluster_id: 7, timeline: [2; 16] }, ..header(14) };
    SegmentWriter::create(&foreign, other).unwrap().close().unwrap();
    let gap_between = plain(dir.path(), 14..15, gap(13));
    let cases: [(&[std::path::PathBuf], &str); 6] = [
        (&[path.clone(), at("15-false"), path.clone()], "revision 10 where 18 is due"),
        (&[behind, at("15-false")], "revision 15 where 12 is due"),
        (&[next.clone(), foreign], "another cluster or timeline"),
        (&[next.clone(), unended], "has not ended"),
        (&[next, gap_between], "a gap that is not in front"),
        (&[], "a merge of nothing"),
    ];
    for (number, (parts, expected)) in cases.into_iter().enumerate() {
        let refused = merge(parts, &at(&format!("refused-{number}")), "m").unwrap_err();
        let text = format!("{refused}: {:?}", std::error::Error::source(&refused).map(ToString::to_string));
        assert!(text.contains(expected), "{text}");
    }
}

/// Every cut of the file: the revisions whole before it are there, and sealing it makes a closed segment of them.
#[test]
fn a_writer_killed_at_any_byte_leaves_whole_revisions() {
    let (dir, path, _) = whole();
    let bytes = std::fs::read(&path).unwrap();
    let cut_path = dir.path().join("cut");
    let mut last = 9;
    let cuts: Vec<usize> =
        (0..600).chain((600..bytes.len()).step_by(99_991)).chain([bytes.len() - 1]).collect();
    for cut in cuts {
        std::fs::write(&cut_path, &bytes[..cut]).unwrap();
        let surveyed = survey(&cut_path);
        if cut < MAGIC_AND_HEADER {
            assert!(surveyed.is_err(), "{cut}");
            continue;
        }
        let facts = surveyed.unwrap();
        assert!(facts.last_revision >= last && !facts.closed, "{cut}");
        last = facts.last_revision;
        let sealed = seal(&cut_path).unwrap();
        assert_eq!((sealed.last_revision, sealed.closed, sealed.torn), (last, true, false), "{cut}");
        assert_eq!(seal(&cut_path).unwrap(), sealed, "sealing twice changes nothing");
    }
    assert_eq!(last, 14);
}

/// A flipped bit is damage, or ends the readable part; it is never read as data.
#[test]
fn a_flipped_bit_is_never_data() {
    let (_dir, path, facts) = whole();
    let bytes = std::fs::read(&path).unwrap();
    for at in (0..700).chain((700..bytes.len()).step_by(77_773)) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        match survey_bytes(&flipped) {
            Err(_) => {}
            Ok(read) => {
                assert!(!read.closed, "{at}");
                assert!(read.last_revision <= facts.last_revision && read.bytes <= at as u64, "{at}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, header_first: bool) {
        let mut all = if header_first { std::fs::read(whole().1).unwrap_or_default() } else { Vec::new() };
        all.truncate(MAGIC_AND_HEADER);
        all.extend(bytes);
        let _ = survey_bytes(&all);
    }
}
