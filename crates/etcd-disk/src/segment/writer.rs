//! Appending to a segment. Nothing is durable before [`SegmentWriter::sync`]; what is durable then can be read whatever
//! happens afterwards. After a crash [`seal`] ends the file, and a new segment goes on.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::frame::{self, FRAME_BYTES_MAX, MAGIC, ROWS_HEAD_BYTES};
use super::reader::SegmentReader;
use super::{GapSeen, HashSample, Header, LeaseSeen, SegmentFacts, WRITER_BYTES_MAX, survey};
use crate::error::{Error, Result, SegmentFault};
use crate::files;

/// A revision with more bytes of rows than this is spread over several frames.
const PART_BYTES: usize = 1 << 20;
/// Gathered before it is handed to the system.
const BUFFER_BYTES: usize = 1 << 20;

/// Appends to one segment.
#[derive(Debug)]
pub struct SegmentWriter {
    path: PathBuf,
    file: File,
    header: Header,
    /// Frames not yet written, and behind them the frame of rows under way.
    buffer: Vec<u8>,
    sha: Sha256,
    bytes: u64,
    next_revision: i64,
    next_sub: u32,
    last_received_ms: i64,
    rows: Option<Part>,
}

/// A frame of rows under way in the buffer.
#[derive(Debug, Clone, Copy)]
struct Part {
    at: usize,
    first_sub: u32,
}

impl SegmentWriter {
    /// Begins a segment in a new file, mode 0600, and makes its name durable.
    ///
    /// # Errors
    /// [`Error::Io`], also when the file is there already; [`Error::Segment`] for a writer's name that is too long.
    pub fn create(path: &Path, header: Header) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_owned(), action: "create the segment", source };
        let mut writer = Self {
            path: path.to_owned(),
            file: files::create_private(path).map_err(io)?,
            buffer: MAGIC.to_vec(),
            sha: Sha256::new(),
            bytes: 0,
            next_revision: header.first_revision,
            next_sub: 0,
            last_received_ms: i64::MIN,
            rows: None,
            header,
        };
        if writer.header.writer.len() > WRITER_BYTES_MAX {
            return writer.unwritable("a writer's name that is too long");
        }
        let at = frame::begin(&mut writer.buffer, frame::HEADER);
        frame::put_header(&mut writer.buffer, &writer.header);
        frame::finish(&mut writer.buffer, at);
        writer.sync()?;
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), files::sync_dir)?;
        Ok(writer)
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its head.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The last whole revision appended (the one before the first, when there is none).
    pub fn last_revision(&self) -> i64 {
        self.next_revision - 1
    }

    /// Bytes of the file, those not yet written included.
    pub fn bytes(&self) -> u64 {
        self.bytes + self.buffer.len() as u64
    }

    /// Appends a row of the revision that is due. `value` is that of etcd's row: an `mvccpb.KeyValue`, of a tombstone
    /// with the key alone. A time of receipt below the last one is raised to it.
    ///
    /// # Errors
    /// [`Error::Segment`] for another revision, or a row above 64 MiB; [`Error::Io`].
    pub fn row(&mut self, revision: i64, received_ms: i64, tombstone: bool, value: &[u8]) -> Result<()> {
        if revision != self.next_revision {
            let fault =
                SegmentFault::Order { found: revision, expected: self.next_revision, sub: self.next_sub };
            return self.fault(fault);
        }
        if value.len() > FRAME_BYTES_MAX - PART_BYTES {
            return self.unwritable("a row above 63 MiB");
        }
        self.last_received_ms = self.last_received_ms.max(received_ms);
        let (part, next_sub) = match self.rows {
            Some(part) if self.buffer.len() - part.at < PART_BYTES => (part, self.next_sub),
            _ => (self.begin_part()?, self.next_sub),
        };
        self.rows = Some(part);
        let Some(next_sub) = next_sub.checked_add(1) else {
            return self.unwritable("too many rows in a revision");
        };
        self.next_sub = next_sub;
        self.buffer.push(if tombstone { frame::TOMBSTONE } else { 0 });
        let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.buffer.extend_from_slice(&len.to_be_bytes());
        self.buffer.extend_from_slice(value);
        Ok(())
    }

    /// The revision whose rows were appended is complete.
    ///
    /// # Errors
    /// [`Error::Segment`] without rows, [`Error::Io`].
    pub fn end_revision(&mut self) -> Result<()> {
        if self.rows.is_none() {
            return self.unwritable("a revision without rows");
        }
        self.end_part(frame::ENDS_REVISION);
        self.next_revision += 1;
        self.next_sub = 0;
        self.write_if_full()
    }

    fn begin_part(&mut self) -> Result<Part> {
        self.end_part(0);
        self.write_if_full()?;
        let part = Part { at: frame::begin(&mut self.buffer, frame::ROWS), first_sub: self.next_sub };
        // filled in when the part ends: only then are its flags known
        self.buffer.extend_from_slice(&[0; ROWS_HEAD_BYTES]);
        Ok(part)
    }

    fn end_part(&mut self, flags: u8) {
        let Some(part) = self.rows.take() else { return };
        let mut head = Vec::with_capacity(ROWS_HEAD_BYTES);
        frame::put(&mut head, &[self.next_revision, self.last_received_ms]);
        head.extend_from_slice(&part.first_sub.to_be_bytes());
        head.push(flags);
        let from = part.at + frame::HEAD_BYTES + 1;
        if let Some(place) = self.buffer.get_mut(from..from + ROWS_HEAD_BYTES) {
            place.copy_from_slice(&head);
        }
        frame::finish(&mut self.buffer, part.at);
    }

    /// Appends what is known of a lease.
    ///
    /// # Errors
    /// [`Error::Segment`] inside a revision, [`Error::Io`]; so with all that follow.
    pub fn lease(&mut self, lease: &LeaseSeen) -> Result<()> {
        self.numbers(frame::LEASE, &[lease.at_ms, lease.id, lease.granted_ttl_s, lease.remaining_s], &[])
    }

    /// Appends that the cluster was compacted to `revision`.
    pub fn compaction(&mut self, at_ms: i64, revision: i64) -> Result<()> {
        self.numbers(frame::COMPACTION, &[at_ms, revision], &[])
    }

    /// Appends a member's answer to HashKV.
    pub fn hash_kv(&mut self, sample: &HashSample) -> Result<()> {
        let of = sample.hash_kv;
        self.numbers(
            frame::HASH_KV,
            &[sample.at_ms, of.revision, of.compact_revision],
            &of.hash.to_be_bytes(),
        )
    }

    /// Appends that at `at_ms` nothing was missing behind the last revision. A time below the last one is raised to it.
    pub fn progress(&mut self, at_ms: i64) -> Result<()> {
        self.last_received_ms = self.last_received_ms.max(at_ms);
        self.numbers(frame::PROGRESS, &[self.last_received_ms, self.last_revision()], &[])
    }

    /// Appends, before the first revision, that those in front of it are missing.
    pub fn gap(&mut self, gap: &GapSeen) -> Result<()> {
        let first = self.header.first_revision;
        if self.next_revision != first || gap.last != first - 1 || gap.first > gap.last {
            return self.unwritable("a gap that is not in front of the segment");
        }
        self.numbers(frame::GAP, &[gap.at_ms, gap.first, gap.last], &[frame::cause_byte(gap.cause)])
    }

    fn numbers(&mut self, kind: u8, numbers: &[i64], rest: &[u8]) -> Result<()> {
        if self.rows.is_some() {
            return self.unwritable("a revision is not complete");
        }
        let at = frame::begin(&mut self.buffer, kind);
        frame::put(&mut self.buffer, numbers);
        self.buffer.extend_from_slice(rest);
        frame::finish(&mut self.buffer, at);
        self.write_if_full()
    }

    /// Hands all whole frames to the system and waits until they are on the disk: the last revision that is durable.
    /// Rows of a revision that is not complete stay behind.
    ///
    /// # Errors
    /// [`Error::Io`]: nothing is known of the frames since the last success; do not go on with this writer.
    pub fn sync(&mut self) -> Result<i64> {
        self.write()?;
        let io = |source| Error::Io { path: self.path.clone(), action: "sync the segment to disk", source };
        self.file.sync_data().map_err(io)?;
        Ok(self.last_revision())
    }

    /// Ends the segment: the last revision, and a digest of all before it; synced. Rows of a revision that is not
    /// complete are refused.
    ///
    /// # Errors
    /// [`Error::Segment`], [`Error::Io`].
    pub fn close(mut self) -> Result<SegmentFacts> {
        if self.rows.is_some() {
            return self.unwritable("a revision is not complete");
        }
        self.write()?;
        let digest = std::mem::take(&mut self.sha).finalize();
        let last = self.last_revision();
        write_end(&mut self.file, &self.path, last, &digest)?;
        survey(&self.path)
    }

    fn write_if_full(&mut self) -> Result<()> {
        if self.buffer.len() < BUFFER_BYTES { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<()> {
        let whole = self.rows.map_or(self.buffer.len(), |part| part.at);
        let frames = self.buffer.get(..whole).unwrap_or_default();
        let io = |source| Error::Io { path: self.path.clone(), action: "append to the segment", source };
        self.file.write_all(frames).map_err(io)?;
        self.sha.update(frames);
        self.bytes += whole as u64;
        self.buffer.drain(..whole);
        if let Some(part) = &mut self.rows {
            part.at = 0;
        }
        Ok(())
    }

    fn unwritable<T>(&self, why: &'static str) -> Result<T> {
        self.fault(SegmentFault::Unwritable(why))
    }

    fn fault<T>(&self, source: SegmentFault) -> Result<T> {
        Err(Error::Segment { path: self.path.clone(), offset: self.bytes(), source })
    }
}

fn write_end(file: &mut File, path: &Path, last_revision: i64, digest: &[u8]) -> Result<()> {
    let io = |source| Error::Io { path: path.to_owned(), action: "end the segment", source };
    let mut out = Vec::new();
    let at = frame::begin(&mut out, frame::END);
    frame::put(&mut out, &[last_revision]);
    out.extend_from_slice(digest);
    frame::finish(&mut out, at);
    file.write_all(&out).map_err(io)?;
    file.sync_all().map_err(io)
}

/// Ends a segment whose writer was killed: what is torn or incomplete at its end is cut off. One that is closed is left
/// as it is.
///
/// # Errors
/// [`Error::Segment`] on damage before the tail, [`Error::Io`].
pub fn seal(path: &Path) -> Result<SegmentFacts> {
    let mut reader = SegmentReader::open(path)?;
    let mut whole = reader.place();
    while reader.next()?.is_some() {
        if reader.place().between_revisions() {
            whole = reader.place();
        }
    }
    if reader.is_closed() {
        return survey(path);
    }
    let io =
        |source| Error::Io { path: path.to_owned(), action: "cut off the torn tail of the segment", source };
    let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
    file.set_len(whole.offset).map_err(io)?;
    let mut sha = Sha256::new();
    std::io::copy(&mut file, &mut HashWrite(&mut sha)).map_err(io)?;
    file.seek(SeekFrom::End(0)).map_err(io)?;
    write_end(&mut file, path, whole.next_revision - 1, &sha.finalize())?;
    survey(path)
}

struct HashWrite<'s>(&'s mut Sha256);

impl Write for HashWrite<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
