//! Reading a segment, frame by frame. The file is hostile: every length is checked against what is left, memory is
//! bounded by one frame, and what breaks the format is an error that names its place.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::frame::{self, FRAME_BYTES_MAX, Fields, HEAD_BYTES, MAGIC};
use super::{GapSeen, HashSample, Header, LeaseSeen};
use crate::error::{Error, Result, SegmentFault};
use crate::rows::{KvRef, Revision};

const BUFFER_BYTES: usize = 1 << 20;

/// A frame of a segment, lent.
#[derive(Debug)]
pub enum Record<'a> {
    /// Rows of one revision; more of it may follow.
    Rows(Rows<'a>),
    /// A lease was asked for.
    Lease(LeaseSeen),
    /// The cluster was seen to be compacted.
    Compaction {
        /// When, ms since the Unix epoch.
        at_ms: i64,
        /// The compact revision.
        revision: i64,
    },
    /// A member answered a HashKV.
    HashKv(HashSample),
    /// Nothing was missing behind the last revision.
    Progress {
        /// When, ms since the Unix epoch.
        at_ms: i64,
        /// The newest revision.
        revision: i64,
    },
    /// Revisions are missing in front of the segment.
    Gap(GapSeen),
}

/// Rows of one revision.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// The main revision.
    pub revision: i64,
    /// When it was received, ms since the Unix epoch.
    pub received_ms: i64,
    /// The revision ends with these rows.
    pub ends_revision: bool,
    pub(crate) first_sub: u32,
    rows: &'a [u8],
}

/// A row as etcd stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// Main and sub revision.
    pub revision: Revision,
    /// It deletes its key.
    pub tombstone: bool,
    /// `mvccpb.KeyValue`.
    pub value: &'a [u8],
}

impl<'a> Rows<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, SegmentFault> {
        let mut fields = Fields(body);
        let (revision, received_ms) = (fields.revision()?, fields.i64()?);
        let (first_sub, flags) = (fields.u32()?, fields.u8()?);
        if flags & !frame::ENDS_REVISION != 0 {
            return Err(SegmentFault::Body("unknown flags"));
        }
        let ends_revision = flags & frame::ENDS_REVISION != 0;
        Ok(Self { revision, received_ms, ends_revision, first_sub, rows: fields.0 })
    }

    /// Checks all rows: their number.
    fn check(&self) -> Result<u32, SegmentFault> {
        let (mut fields, mut rows) = (Fields(self.rows), 0u32);
        while !fields.0.is_empty() {
            let (tombstone, value) = row(&mut fields)?;
            let kv = KvRef::parse(value).map_err(SegmentFault::Row)?;
            let mod_revision = if tombstone { 0 } else { self.revision };
            if kv.key.is_empty() || kv.mod_revision != mod_revision {
                return Err(SegmentFault::Body("a row that is not of its revision"));
            }
            rows = rows.checked_add(1).ok_or(SegmentFault::Body("too many rows"))?;
        }
        if rows == 0 { Err(SegmentFault::Body("no rows")) } else { Ok(rows) }
    }

    /// The rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = Row<'a>> {
        let (mut fields, main) = (Fields(self.rows), self.revision);
        let mut sub = i64::from(self.first_sub);
        std::iter::from_fn(move || {
            // they have been checked
            let (tombstone, value) = row(&mut fields).ok()?;
            sub += 1;
            Some(Row { revision: Revision { main, sub: sub - 1 }, tombstone, value })
        })
    }
}

fn row<'a>(fields: &mut Fields<'a>) -> Result<(bool, &'a [u8]), SegmentFault> {
    let flags = fields.u8()?;
    if flags & !frame::TOMBSTONE != 0 {
        return Err(SegmentFault::Body("unknown flags of a row"));
    }
    let len = fields.u32()?;
    Ok((flags & frame::TOMBSTONE != 0, fields.take(usize::try_from(len).unwrap_or(usize::MAX))?))
}

/// Where reading stands between two frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Bytes of whole frames so far.
    pub(super) offset: u64,
    /// The revision expected next, or the one that is not complete.
    pub(super) next_revision: i64,
    next_sub: u32,
    pub(super) last_received_ms: i64,
}

impl Place {
    pub(super) fn between_revisions(&self) -> bool {
        self.next_sub == 0
    }
}

/// Reads one segment from its begin to its end.
#[derive(Debug)]
pub struct SegmentReader<R = File> {
    path: PathBuf,
    input: BufReader<R>,
    len: u64,
    header: Header,
    place: Place,
    content: Vec<u8>,
    sha: Option<Sha256>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Closed,
    Open,
    Torn,
}

impl SegmentReader<File> {
    /// Opens a segment and reads its header.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Segment`] when it is none.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_owned(), action: "open the segment", source };
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        Self::new(path, file, len, false)
    }
}

impl<R: Read> SegmentReader<R> {
    /// Reads a segment of `len` bytes from `input`; `path` names it in errors. `check_sha256` computes the digest that a
    /// closed segment ends with; frames have checksums of their own.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Segment`] when it is none.
    pub fn new(path: &Path, input: R, len: u64, check_sha256: bool) -> Result<Self> {
        let mut reader = Self {
            path: path.to_owned(),
            input: BufReader::with_capacity(BUFFER_BYTES, input),
            len,
            header: Header {
                origin: super::Origin { cluster_id: 0, timeline: [0; 16] },
                first_revision: 0,
                created_ms: 0,
                writer: String::new(),
            },
            place: Place { offset: 0, next_revision: 0, next_sub: 0, last_received_ms: i64::MIN },
            content: Vec::new(),
            sha: check_sha256.then(Sha256::new),
            state: State::Reading,
        };
        reader.read_head()?;
        Ok(reader)
    }

    fn read_head(&mut self) -> Result<()> {
        let mut magic = [0; 8];
        if self.len < MAGIC.len() as u64 {
            return self.fault(SegmentFault::Magic);
        }
        self.fill(&mut magic)?;
        if magic != *MAGIC {
            return self.fault(SegmentFault::Magic);
        }
        if let Some(sha) = &mut self.sha {
            sha.update(magic);
        }
        self.place.offset = MAGIC.len() as u64;
        if self.frame()? != Some(frame::HEADER) {
            return self.fault(SegmentFault::Body("no header"));
        }
        let header = frame::header(self.body());
        self.header = header.or_else(|fault| self.fault(fault))?;
        self.place.next_revision = self.header.first_revision;
        Ok(())
    }

    /// Its head.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its writer ended it. Known at the end.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// It ends with a frame cut short or garbled. Known at the end.
    pub fn is_torn(&self) -> bool {
        self.state == State::Torn
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    fn body(&self) -> &[u8] {
        self.content.get(1..).unwrap_or_default()
    }

    /// The next frame, or `None` at the end: behind the end frame, behind the last frame of a segment that was not
    /// ended, or before a torn tail.
    ///
    /// # Errors
    /// [`Error::Segment`] on damage and on what breaks the format, [`Error::Io`].
    #[expect(clippy::should_implement_trait, reason = "frames are lent: no Iterator can do that")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>> {
        if self.state != State::Reading {
            return Ok(None);
        }
        let Some(kind) = self.frame()? else { return Ok(None) };
        match self.check(kind) {
            Ok(()) if kind == frame::END => Ok(None),
            Ok(()) => self.record(kind).or_else(|fault| self.fault(fault)).map(Some),
            Err(fault) => self.fault(fault),
        }
    }

    fn record(&self, kind: u8) -> Result<Record<'_>, SegmentFault> {
        let body = self.body();
        Ok(match kind {
            frame::ROWS => Record::Rows(Rows::parse(body)?),
            frame::LEASE => Record::Lease(frame::lease(body)?),
            frame::HASH_KV => Record::HashKv(frame::hash_sample(body)?),
            frame::GAP => Record::Gap(frame::gap(body)?),
            frame::COMPACTION => {
                let (at_ms, revision) = frame::at_revision(body)?;
                Record::Compaction { at_ms, revision }
            }
            frame::PROGRESS => {
                let (at_ms, revision) = frame::at_revision(body)?;
                Record::Progress { at_ms, revision }
            }
            other => return Err(SegmentFault::Kind(other)),
        })
    }

    /// What must hold of the frame at its place.
    fn check(&mut self, kind: u8) -> Result<(), SegmentFault> {
        let place = self.place;
        if kind == frame::ROWS {
            let rows = Rows::parse(self.body())?;
            let count = rows.check()?;
            if (rows.revision, rows.first_sub) != (place.next_revision, place.next_sub) {
                return Err(SegmentFault::Order {
                    found: rows.revision,
                    expected: place.next_revision,
                    sub: place.next_sub,
                });
            }
            if rows.received_ms < place.last_received_ms {
                return Err(SegmentFault::Body("a time before that of the revision before"));
            }
            let (received_ms, ends) = (rows.received_ms, rows.ends_revision);
            let next_sub =
                place.next_sub.checked_add(count).ok_or(SegmentFault::Body("too many rows in a revision"))?;
            self.place.last_received_ms = received_ms;
            self.place.next_sub = if ends { 0 } else { next_sub };
            self.place.next_revision += i64::from(ends);
            return Ok(());
        }
        if !place.between_revisions() {
            return Err(SegmentFault::Body("a revision is interrupted"));
        }
        match kind {
            frame::END => self.check_end(),
            frame::GAP => {
                let gap = frame::gap(self.body())?;
                let first = self.header.first_revision;
                if place.next_revision != first || gap.last != first - 1 || gap.first > gap.last {
                    return Err(SegmentFault::Body("a gap that is not in front of the segment"));
                }
                Ok(())
            }
            frame::PROGRESS => {
                let (at_ms, revision) = frame::at_revision(self.body())?;
                if revision != place.next_revision - 1 || at_ms < place.last_received_ms {
                    return Err(SegmentFault::Body("progress to another revision or time"));
                }
                self.place.last_received_ms = at_ms;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check_end(&mut self) -> Result<(), SegmentFault> {
        let mut fields = Fields(self.body());
        let (last, expected) = (fields.i64()?, fields.bytes::<32>()?);
        fields.end()?;
        if last != self.place.next_revision - 1 {
            return Err(SegmentFault::Body("an end that names another last revision"));
        }
        if let Some(sha) = self.sha.take()
            && sha.finalize().as_slice() != expected
        {
            return Err(SegmentFault::Sha256);
        }
        if self.place.offset != self.len {
            return Err(SegmentFault::Body("bytes behind the end"));
        }
        self.state = State::Closed;
        Ok(())
    }

    /// Reads the next whole frame into `content`: its kind.
    fn frame(&mut self) -> Result<Option<u8>> {
        let left = self.len.saturating_sub(self.place.offset);
        let whole = if left == 0 { None } else { self.try_frame(left)? };
        let Some(length) = whole else {
            self.state = if left == 0 { State::Open } else { State::Torn };
            return Ok(None);
        };
        let kind = self.content.first().copied();
        if kind != Some(frame::END)
            && let Some(sha) = &mut self.sha
        {
            sha.update(length);
            sha.update(frame::checksum(length, &self.content).to_be_bytes());
            sha.update(&self.content);
        }
        self.place.offset += (HEAD_BYTES + self.content.len()) as u64;
        Ok(kind)
    }

    /// A frame where `left` bytes are left: its length as written, or `None` if the tail is torn there.
    fn try_frame(&mut self, left: u64) -> Result<Option<[u8; 4]>> {
        let Some((length, expected)) = self.frame_head(left)? else { return Ok(None) };
        let actual = frame::checksum(length, &self.content);
        if actual == expected {
            return Ok(Some(length));
        }
        let left = left - (HEAD_BYTES + self.content.len()) as u64;
        if let Some((length, behind)) = self.frame_head(left)?
            && frame::checksum(length, &self.content) == behind
        {
            return self.fault(SegmentFault::Crc { expected, actual });
        }
        Ok(None)
    }

    /// Reads length, checksum and content, unless no whole frame can be there.
    fn frame_head(&mut self, left: u64) -> Result<Option<([u8; 4], u32)>> {
        let mut head = [0; HEAD_BYTES];
        if left <= HEAD_BYTES as u64 {
            return Ok(None);
        }
        self.fill(&mut head)?;
        let [l0, l1, l2, l3, crc @ ..] = head;
        let length = [l0, l1, l2, l3];
        let bytes = u32::from_be_bytes(length) as usize;
        if bytes == 0 || bytes > FRAME_BYTES_MAX || bytes as u64 > left - HEAD_BYTES as u64 {
            return Ok(None);
        }
        self.content.resize(bytes, 0);
        let mut content = std::mem::take(&mut self.content);
        self.fill(&mut content)?;
        self.content = content;
        Ok(Some((length, u32::from_be_bytes(crc))))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        let io = |source| Error::Io { path: self.path.clone(), action: "read the segment", source };
        self.input.read_exact(buffer).map_err(io)
    }

    fn fault<T>(&self, fault: SegmentFault) -> Result<T> {
        Err(Error::Segment { path: self.path.clone(), offset: self.place.offset, source: fault })
    }

    /// The row `at` bytes into the rows of the frame read last: tombstone, value, and where the next one begins.
    pub(crate) fn row_at(&self, at: usize) -> Option<(bool, &[u8], usize)> {
        let rows = self.body().get(frame::ROWS_HEAD_BYTES..)?;
        let mut fields = Fields(rows.get(at..).filter(|rest| !rest.is_empty())?);
        let (tombstone, value) = row(&mut fields).ok()?;
        Some((tombstone, value, rows.len() - fields.0.len()))
    }
}
