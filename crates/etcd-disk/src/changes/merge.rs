//! The rows of several segments in order. Segments may overlap: all that hold a revision are read side by side, and must
//! hold the same rows. Memory: one frame for each segment that is open.

use crate::error::{Error, Result};
use crate::rows::{Revision, row_key};
use crate::rows::{RowKey, tombstone_key};
use crate::segment::{Record, SegmentFacts, SegmentReader};

/// Segments over one revision at most; more would be no stream but an attempt on memory.
const OPEN_MAX: usize = 64;

/// A row of the stream, lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change<'a> {
    pub(crate) row: RowKey,
    /// The earliest time of receipt in any segment.
    pub(crate) received_ms: i64,
    pub(crate) value: &'a [u8],
}

impl Change<'_> {
    /// The key of its row in the bucket `key`.
    pub(crate) fn key<'b>(&self, buffer: &'b mut [u8; 18]) -> &'b [u8] {
        *buffer = tombstone_key(self.row.revision);
        let plain = row_key(self.row.revision).len();
        buffer.get(..if self.row.tombstone { buffer.len() } else { plain }).unwrap_or_default()
    }
}

/// Reads the stream from one revision to another.
pub(crate) struct Merge<'c> {
    waiting: &'c [SegmentFacts],
    open: Vec<Cursor<'c>>,
    from: i64,
    until: i64,
    /// The first main revision not yet begun.
    next: i64,
}

impl<'c> Merge<'c> {
    /// Rows of the revisions behind `base` up to `until`, both included; before them those of `base` itself, if a segment
    /// has them. Segments by first revision.
    pub(crate) fn new(segments: &'c [SegmentFacts], base: i64, until: i64) -> Self {
        let held = segments.iter().any(|s| s.header.first_revision <= base && base <= s.last_revision);
        let from = if held { base } else { base + 1 };
        Self { waiting: segments, open: Vec::new(), from, until, next: from }
    }

    /// The next row.
    pub(crate) fn next(&mut self) -> Result<Option<Change<'_>>> {
        let main = self.open.first().and_then(Cursor::main);
        for cursor in &mut self.open {
            cursor.advance()?;
        }
        // a revision ends in all of them or in none
        if main.is_some()
            && let [first, others @ ..] = self.open.as_slice()
            && let Some(other) = others.iter().find(|o| (o.main() == main) != (first.main() == main))
        {
            return Err(differ(first, other, main));
        }
        self.open.retain(|cursor| cursor.here.is_some());
        self.open_segments()?;
        let Some(here) = self.open.first().and_then(|cursor| cursor.here) else { return Ok(None) };
        let main = here.revision.main;
        if main > self.until {
            return Ok(None);
        }
        self.next = self.next.max(main + 1);
        self.refuse_differences()?;
        let received_ms = self.open.iter().filter_map(|cursor| cursor.here).map(|h| h.received_ms).min();
        let row = RowKey { revision: here.revision, tombstone: here.tombstone };
        let value = self.open.first().map(Cursor::value).unwrap_or_default();
        Ok(Some(Change { row, received_ms: received_ms.unwrap_or(here.received_ms), value }))
    }

    /// Opens those that begin no later than the revision that is due. Without one open, that is the next there is.
    fn open_segments(&mut self) -> Result<()> {
        let mut due = match self.open.first().and_then(|cursor| cursor.here) {
            // one that begins within a revision already begun would be behind the others
            Some(here) if here.revision.sub > 0 => return Ok(()),
            Some(here) => here.revision.main,
            None => self.next,
        };
        while let Some((segment, rest)) = self.waiting.split_first() {
            if segment.header.first_revision > due {
                break;
            }
            self.waiting = rest;
            if segment.last_revision < due || segment.last_revision < self.from {
                continue;
            }
            if self.open.len() >= OPEN_MAX {
                let what = format!("more than {OPEN_MAX} segments hold revision {due}");
                let other = self.open.first().map(|c| c.facts.path.clone()).unwrap_or_default();
                return Err(Error::Mixed { path: segment.path.clone(), other, what });
            }
            let cursor = Cursor::open(segment, due)?;
            due = cursor.here.map_or(due, |here| here.revision.main);
            self.open.push(cursor);
        }
        Ok(())
    }

    fn refuse_differences(&self) -> Result<()> {
        let Some((first, others)) = self.open.split_first() else { return Ok(()) };
        for other in others {
            let same = |a: Here, b: Here| (a.revision, a.tombstone) == (b.revision, b.tombstone);
            let equal = first.here.zip(other.here).is_some_and(|(a, b)| same(a, b));
            if !equal || first.value() != other.value() {
                return Err(differ(first, other, first.main()));
            }
        }
        Ok(())
    }
}

fn differ(first: &Cursor<'_>, other: &Cursor<'_>, revision: Option<i64>) -> Error {
    Error::Mixed {
        path: other.facts.path.clone(),
        other: first.facts.path.clone(),
        what: format!("they differ in revision {}", revision.unwrap_or(0)),
    }
}

/// A segment being read, on one of its rows.
struct Cursor<'c> {
    facts: &'c SegmentFacts,
    reader: SegmentReader,
    here: Option<Here>,
}

#[derive(Clone, Copy)]
struct Here {
    revision: Revision,
    received_ms: i64,
    tombstone: bool,
    /// Where the row and the next one begin in the frame.
    at: usize,
    next: usize,
}

impl<'c> Cursor<'c> {
    /// On the first row of the revision `from`, or the first of all.
    fn open(facts: &'c SegmentFacts, from: i64) -> Result<Self> {
        let mut cursor = Self { facts, reader: SegmentReader::open(&facts.path)?, here: None };
        cursor.next_frame(from)?;
        Ok(cursor)
    }

    fn main(&self) -> Option<i64> {
        self.here.map(|here| here.revision.main)
    }

    fn value(&self) -> &[u8] {
        let row = self.here.and_then(|here| self.reader.row_at(here.at));
        row.map(|(_, value, _)| value).unwrap_or_default()
    }

    fn advance(&mut self) -> Result<()> {
        let Some(here) = self.here else { return Ok(()) };
        let sub = here.revision.sub + 1;
        match self.row(here.next, Revision { sub, ..here.revision }, here.received_ms) {
            Some(next) => self.here = Some(next),
            None => self.next_frame(here.revision.main)?,
        }
        Ok(())
    }

    fn next_frame(&mut self, from: i64) -> Result<()> {
        let last = self.facts.last_revision;
        self.here = None;
        while let Some(record) = self.reader.next()? {
            let Record::Rows(rows) = record else { continue };
            if rows.revision > last {
                break;
            }
            if rows.revision >= from {
                let revision = Revision { main: rows.revision, sub: i64::from(rows.first_sub) };
                let received_ms = rows.received_ms;
                self.here = self.row(0, revision, received_ms);
                break;
            }
        }
        Ok(())
    }

    fn row(&self, at: usize, revision: Revision, received_ms: i64) -> Option<Here> {
        let (tombstone, _, next) = self.reader.row_at(at)?;
        Some(Here { revision, received_ms, tombstone, at, next })
    }
}
