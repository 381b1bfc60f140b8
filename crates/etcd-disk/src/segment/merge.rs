//! Several segments that follow each other as one that holds all they hold: rows, times, leases, samples, progress.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::facts::RowsDigest;
use super::reader::{Record, SegmentReader};
use super::writer::SegmentWriter;
use super::{Header, SegmentFacts};
use crate::error::{Error, Result, SegmentFault};

/// Writes one segment in the place of `parts`, which are given in order: ended ones of one cluster and timeline, each
/// beginning with the revision behind the one before. A gap may stand in front of the first one only. What was written
/// is read again and compared with them. Memory: a frame.
///
/// # Errors
/// [`Error::Mixed`] when they do not follow each other; [`Error::Segment`] on damage, on a gap between them, and when one
/// was not ended; [`Error::Io`], also when `to` exists. A file that was begun is left.
pub fn merge(parts: &[PathBuf], to: &Path, writer: &str) -> Result<SegmentFacts> {
    let mut merged: Option<(SegmentWriter, &Path)> = None;
    let mut taken = Taken::default();
    for path in parts {
        let mut reader = open(path)?;
        let mut out = match merged.take() {
            Some((out, before)) => {
                follows(reader.header(), out.header(), out.last_revision(), path, before)?;
                out
            }
            None => {
                SegmentWriter::create(to, Header { writer: writer.to_owned(), ..reader.header().clone() })?
            }
        };
        while let Some(record) = reader.next()? {
            taken.add(&record);
            copy(record, &mut out)?;
        }
        if !reader.is_closed() {
            return Err(unwritable(path, "a part that its writer has not ended"));
        }
        merged = Some((out, path));
    }
    let Some((out, _)) = merged else { return Err(unwritable(to, "a merge of nothing")) };
    let facts = out.close()?;
    let (mut reader, mut written) = (open(to)?, Taken::default());
    while let Some(record) = reader.next()? {
        written.add(&record);
    }
    if written == taken { Ok(facts) } else { Err(unwritable(to, "it does not hold what its parts hold")) }
}

/// What the records hold, as digest and counts.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Taken {
    digest: RowsDigest,
    rows: u64,
    beside: u64,
}

impl Taken {
    fn add(&mut self, record: &Record<'_>) {
        let Record::Rows(rows) = record else {
            self.beside += 1;
            return;
        };
        for row in rows.iter() {
            self.digest.add(row.tombstone, row.value);
            self.rows += 1;
        }
    }
}

fn open(path: &Path) -> Result<SegmentReader> {
    let io = |source| Error::Io { path: path.to_owned(), action: "open the segment", source };
    let file = File::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    SegmentReader::new(path, file, len, true)
}

fn follows(header: &Header, first: &Header, last_revision: i64, path: &Path, before: &Path) -> Result<()> {
    let what = if header.origin != first.origin {
        "another cluster or timeline".to_owned()
    } else if header.first_revision != last_revision + 1 {
        format!("revision {} where {} is due", header.first_revision, last_revision + 1)
    } else {
        return Ok(());
    };
    Err(Error::Mixed { path: path.to_owned(), other: before.to_owned(), what })
}

fn copy(record: Record<'_>, out: &mut SegmentWriter) -> Result<()> {
    match record {
        Record::Rows(rows) => {
            for row in rows.iter() {
                out.row(rows.revision, rows.received_ms, row.tombstone, row.value)?;
            }
            if rows.ends_revision { out.end_revision() } else { Ok(()) }
        }
        Record::Lease(lease) => out.lease(&lease),
        Record::Compaction { at_ms, revision } => out.compaction(at_ms, revision),
        Record::HashKv(sample) => out.hash_kv(&sample),
        Record::Progress { at_ms, .. } => out.progress(at_ms),
        Record::Gap(gap) => out.gap(&gap),
    }
}

fn unwritable(path: &Path, why: &'static str) -> Error {
    Error::Segment { path: path.to_owned(), offset: 0, source: SegmentFault::Unwritable(why) }
}
