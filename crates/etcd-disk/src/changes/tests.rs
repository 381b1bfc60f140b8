//! The story: segments come from several watchers, with gaps, overlaps and lies. The point asked for is found, or
//! refused with the nearest ones.

use super::*;
use crate::error::PointFault;
use crate::hashkv::HashKv;
use crate::segment::{GapCause, HashSample, Header, SegmentWriter};
use prost::Message;

fn row(revision: i64) -> Vec<u8> {
    let key = format!("k{revision}");
    let (mod_revision, create_revision) = (revision, revision);
    let kv = crate::proto::KeyValue {
        key: key.into(),
        mod_revision,
        create_revision,
        version: 1,
        ..Default::default()
    };
    kv.encode_to_vec()
}

struct Folder(tempfile::TempDir, Vec<PathBuf>);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap(), Vec::new())
    }

    /// A segment with these revisions, received at 10 ms a revision, late by `late_ms`.
    fn add(&mut self, first: i64, last: i64, late_ms: i64) -> SegmentWriter {
        let path = self.0.path().join(format!("{}", self.1.len()));
        let origin = Origin { cluster_id: 1, timeline: [2; 16] };
        let header = Header { origin, first_revision: first, created_ms: 0, writer: String::new() };
        let mut writer = SegmentWriter::create(&path, header).unwrap();
        for revision in first..=last {
            writer.row(revision, revision * 10 + late_ms, false, &row(revision)).unwrap();
            writer.row(revision, revision * 10 + late_ms, false, &row(revision)).unwrap();
            writer.end_revision().unwrap();
        }
        writer.sync().unwrap();
        self.1.push(path);
        writer
    }

    fn plan(&self, base: i64, point: Point) -> Result<Plan, PointFault> {
        let base = Base { path: "base".into(), revision: base, compact_revision: 2 };
        Changes::open(&self.1, point).unwrap().plan(&base).map_err(|e| match e {
            Error::Point { source, .. } => source,
            other => panic!("{other}"),
        })
    }
}

fn rows_of(changes: &Changes, from: i64, until: i64) -> Result<Vec<(i64, i64, i64)>> {
    let mut merge = Merge::new(changes.segments(), from, until);
    let mut rows = Vec::new();
    while let Some(change) = merge.next()? {
        rows.push((change.row.revision.main, change.row.revision.sub, change.received_ms));
    }
    Ok(rows)
}

#[test]
fn overlapping_segments_are_one_stream_with_the_earliest_times() {
    let mut folder = Folder::new();
    folder.add(5, 20, 0);
    folder.add(15, 30, 3);
    folder.add(1, 8, 5);
    folder.add(16, 18, -4);
    let changes = Changes::open(&folder.1, Point::Latest).unwrap();
    let rows = rows_of(&changes, 3, 28).unwrap();
    let expected: Vec<(i64, i64, i64)> = (3..=28)
        .flat_map(|main| {
            let late = match main {
                3..5 => 5,
                16..=18 => -4,
                21.. => 3,
                _ => 0,
            };
            [(main, 0, main * 10 + late), (main, 1, main * 10 + late)]
        })
        .collect();
    assert_eq!(rows, expected);
    assert!(changes.gaps().is_empty());
    assert_eq!(folder.plan(4, Point::Latest).unwrap().to, 30);
}

#[test]
fn a_stream_that_begins_right_behind_the_snapshot_is_read() {
    let mut folder = Folder::new();
    folder.add(5, 6, 0);
    folder.add(7, 7, 0);
    let changes = Changes::open(&folder.1, Point::Latest).unwrap();
    let mains = |base| -> Vec<i64> {
        rows_of(&changes, base, 9).unwrap().iter().filter(|row| row.1 == 0).map(|row| row.0).collect()
    };
    assert_eq!(mains(4), [5, 6, 7]);
    assert_eq!(mains(6), [6, 7], "the snapshot's own revision too, to be compared");
    assert_eq!(mains(3), Vec::<i64>::new(), "never over a gap");
    assert_eq!(mains(7), [7]);
    assert_eq!(folder.plan(4, Point::Latest).unwrap().to, 7);
}

#[test]
fn overlaps_that_differ_and_other_clusters_are_refused() {
    let mut folder = Folder::new();
    folder.add(5, 20, 0);
    let path = folder.0.path().join("other");
    let header = |cluster_id| Header {
        origin: Origin { cluster_id, timeline: [2; 16] },
        first_revision: 10,
        created_ms: 0,
        writer: String::new(),
    };
    let mut writer = SegmentWriter::create(&path, header(1)).unwrap();
    writer.row(10, 100, false, &row(10)).unwrap();
    writer.end_revision().unwrap();
    writer.close().unwrap();
    folder.1.push(path.clone());
    let changes = Changes::open(&folder.1, Point::Latest).unwrap();
    let told = rows_of(&changes, 5, 20).unwrap_err().to_string();
    assert!(told.contains("revision 10"), "{told}");
    std::fs::remove_file(&path).unwrap();
    SegmentWriter::create(&path, header(9)).unwrap().close().unwrap();
    let told = Changes::open(&folder.1, Point::Latest).unwrap_err().to_string();
    assert!(told.contains("cluster 9 instead of 1"), "{told}");
}

#[test]
fn a_point_in_a_gap_is_refused_with_the_nearest() {
    let mut folder = Folder::new();
    folder.add(5, 20, 0).progress(205).unwrap();
    let mut behind = folder.add(31, 30, 0);
    behind.gap(&GapSeen { at_ms: 300, first: 21, last: 30, cause: GapCause::Compacted }).unwrap();
    behind.row(31, 310, false, &row(31)).unwrap();
    behind.end_revision().unwrap();
    behind.progress(320).unwrap();
    behind.close().unwrap();
    let gap = PointFault::Gap { first: 21, last: 30, before: 20, cause: Some(GapCause::Compacted) };
    assert!(gap.to_string().contains("the nearest point before is revision 20"), "{gap}");
    for point in
        [Point::Revision(21), Point::Revision(31), Point::Latest, Point::TimeMs(206), Point::TimeMs(315)]
    {
        assert_eq!(folder.plan(5, point), Err(gap.clone()), "{point}");
    }
    assert_eq!(folder.plan(5, Point::TimeMs(199)).unwrap().to, 19);
    assert_eq!(folder.plan(5, Point::TimeMs(200)).unwrap().to, 20);
    assert_eq!(folder.plan(30, Point::TimeMs(315)).unwrap().to, 31);
    let behind_end = |result: Result<Plan, PointFault>| matches!(result, Err(PointFault::BehindEnd { .. }));
    assert!(behind_end(folder.plan(30, Point::TimeMs(321))));
    assert!(behind_end(folder.plan(30, Point::Revision(32))));
    assert_eq!(folder.plan(15, Point::Revision(10)), Err(PointFault::BeforeBase { base: 15 }));
    assert!(matches!(
        folder.plan(5, Point::TimeMs(40)),
        Err(PointFault::BeforeStream { earliest_ms: 50, .. })
    ));
}

#[test]
fn the_first_usable_sample_behind_the_point_proves_it() {
    let mut folder = Folder::new();
    let mut writer = folder.add(5, 20, 0);
    for (revision, compact_revision) in [(20, 19), (18, 1), (19, 2), (12, 2)] {
        let hash_kv = HashKv { hash: 1, revision, compact_revision };
        writer.hash_kv(&HashSample { at_ms: 0, hash_kv }).unwrap();
    }
    writer.close().unwrap();
    let plan = folder.plan(5, Point::Revision(13)).unwrap();
    // the one at 18 is of rows that the snapshot (compacted to 2) does not have any more
    assert_eq!((plan.to, plan.until()), (13, 19));
    assert_eq!(folder.plan(5, Point::Revision(12)).unwrap().until(), 12);
    assert_eq!(folder.plan(5, Point::Latest).unwrap().until(), 20);
}
