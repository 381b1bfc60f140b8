//! What a segment holds: revisions, times, leases, samples; from one pass over it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::reader::{Record, SegmentReader};
use super::{GapSeen, HashSample, Header, LeaseSeen};
use crate::error::{Error, Result};

/// A segment that was read to its end. Memory: its leases and samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFacts {
    /// Its file.
    pub path: PathBuf,
    /// Its head.
    pub header: Header,
    /// The last complete revision (the one before the first, when there is none).
    pub last_revision: i64,
    /// [`RowsDigest`] of the last complete revision; `None` without one.
    pub last_digest: Option<u32>,
    /// Times of receipt of the first and the last revision, ms since the Unix epoch.
    pub received_ms: Option<(i64, i64)>,
    /// The newest time at which nothing was missing, with the newest revision then.
    pub newest: Option<Evidence>,
    /// The newest known state of each lease.
    pub leases: BTreeMap<i64, LeaseSeen>,
    /// HashKV samples, in their order.
    pub samples: Vec<HashSample>,
    /// The highest compact revision seen.
    pub compact_revision: Option<i64>,
    /// The gap in front of it.
    pub gap: Option<GapSeen>,
    /// Its writer ended it.
    pub closed: bool,
    /// Its tail is torn: what a killed writer leaves.
    pub torn: bool,
    /// Bytes up to the last whole frame.
    pub bytes: u64,
}

/// A short digest of the rows of one revision: whoever has the same revision with other rows is of another history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowsDigest(u32);

impl RowsDigest {
    /// Takes the next row: whether it is a tombstone, and its value.
    pub fn add(&mut self, tombstone: bool, value: &[u8]) {
        let flagged = crc32c::crc32c_append(self.0, &[u8::from(tombstone)]);
        self.0 = crc32c::crc32c_append(flagged, value);
    }

    /// CRC-32C of all that was taken.
    pub fn value(self) -> u32 {
        self.0
    }
}

/// A revision existed at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// When it was received, or told, ms since the Unix epoch.
    pub at_ms: i64,
    /// The revision.
    pub revision: i64,
}

/// Reads a segment to its end, its digest included.
///
/// # Errors
/// [`Error::Segment`] on damage, [`Error::Io`].
pub fn survey(path: &Path) -> Result<SegmentFacts> {
    survey_with(path, &mut |_| ())
}

/// The same, and tells the evidence of each revision and each progress, in order.
pub(crate) fn survey_with(path: &Path, tell: &mut dyn FnMut(Evidence)) -> Result<SegmentFacts> {
    let io = |source| Error::Io { path: path.to_owned(), action: "open the segment", source };
    let file = File::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    read_all(SegmentReader::new(path, file, len, true)?, tell)
}

/// Reads a segment that is in memory: for the fuzz target.
#[doc(hidden)]
pub fn survey_bytes(bytes: &[u8]) -> Result<SegmentFacts> {
    let reader = SegmentReader::new(Path::new("segment"), bytes, bytes.len() as u64, true)?;
    read_all(reader, &mut |_| ())
}

fn read_all<R: Read>(mut reader: SegmentReader<R>, tell: &mut dyn FnMut(Evidence)) -> Result<SegmentFacts> {
    let header = reader.header().clone();
    let mut facts = SegmentFacts {
        path: reader.path().to_owned(),
        last_revision: header.first_revision - 1,
        header,
        last_digest: None,
        received_ms: None,
        newest: None,
        leases: BTreeMap::new(),
        samples: Vec::new(),
        compact_revision: None,
        gap: None,
        closed: false,
        torn: false,
        bytes: 0,
    };
    let mut digest = RowsDigest::default();
    while let Some(record) = reader.next()? {
        if let Record::Rows(rows) = &record {
            rows.iter().for_each(|row| digest.add(row.tombstone, row.value));
        }
        match record {
            Record::Rows(rows) if rows.ends_revision => {
                facts.last_digest = Some(std::mem::take(&mut digest).value());
                facts.last_revision = rows.revision;
                let first = facts.received_ms.map_or(rows.received_ms, |(first, _)| first);
                facts.received_ms = Some((first, rows.received_ms));
                facts.evidence(rows.received_ms, rows.revision, tell);
            }
            Record::Rows(_) => {}
            Record::Lease(lease) => {
                facts.leases.insert(lease.id, lease);
            }
            Record::HashKv(sample) => facts.samples.push(sample),
            Record::Compaction { revision, .. } => {
                facts.compact_revision = facts.compact_revision.max(Some(revision));
            }
            Record::Progress { at_ms, revision } => facts.evidence(at_ms, revision, tell),
            Record::Gap(gap) => facts.gap = Some(gap),
        }
    }
    facts.closed = reader.is_closed();
    facts.torn = reader.is_torn();
    facts.bytes = reader.place().offset;
    Ok(facts)
}

impl SegmentFacts {
    fn evidence(&mut self, at_ms: i64, revision: i64, tell: &mut dyn FnMut(Evidence)) {
        let evidence = Evidence { at_ms, revision };
        if self.newest.is_none_or(|newest| at_ms >= newest.at_ms) {
            self.newest = Some(evidence);
        }
        tell(evidence);
    }
}
