//! Frames as bytes: `| length u32 | CRC-32C u32 | kind u8 | body |`, and their bodies. Used by the writer and the reader.

use super::{GapCause, GapSeen, HashSample, Header, LeaseSeen, Origin, WRITER_BYTES_MAX};
use crate::error::SegmentFault;
use crate::hashkv::HashKv;

/// What a segment begins with.
pub(super) const MAGIC: &[u8; 8] = b"REKSEG01";
/// Length and checksum.
pub(super) const HEAD_BYTES: usize = 8;
/// Longest kind and body together: above etcd's largest requests, below what would strain memory.
pub(super) const FRAME_BYTES_MAX: usize = 64 << 20;

pub(super) const HEADER: u8 = 1;
pub(super) const ROWS: u8 = 2;
pub(super) const LEASE: u8 = 3;
pub(super) const COMPACTION: u8 = 4;
pub(super) const HASH_KV: u8 = 5;
pub(super) const PROGRESS: u8 = 6;
pub(super) const GAP: u8 = 7;
pub(super) const END: u8 = 15;

/// Revision, time of receipt, first sub revision, flags.
pub(super) const ROWS_HEAD_BYTES: usize = 21;
pub(super) const ENDS_REVISION: u8 = 1;
pub(super) const TOMBSTONE: u8 = 1;

/// Begins a frame at the end of `out`; [`finish`] fills in length and checksum.
pub(super) fn begin(out: &mut Vec<u8>, kind: u8) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    out.push(kind);
    at
}

/// Ends the frame that begins at `at`. A frame never grows beyond [`FRAME_BYTES_MAX`]: the writer refuses such rows.
pub(super) fn finish(out: &mut [u8], at: usize) {
    let Some((head, content)) = out.get_mut(at..).and_then(|frame| frame.split_at_mut_checked(HEAD_BYTES))
    else {
        return;
    };
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes();
    let crc = checksum(length, content).to_be_bytes();
    let (to_length, to_crc) = head.split_at_mut(4);
    to_length.copy_from_slice(&length);
    to_crc.copy_from_slice(&crc);
}

pub(super) fn checksum(length: [u8; 4], content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length), content)
}

/// Reads numbers from the front of a body.
pub(super) struct Fields<'b>(pub(super) &'b [u8]);

impl<'b> Fields<'b> {
    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], SegmentFault> {
        let (head, rest) = self.0.split_first_chunk().ok_or(SegmentFault::Body("shorter than its fields"))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn i64(&mut self) -> Result<i64, SegmentFault> {
        self.bytes().map(i64::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, SegmentFault> {
        self.bytes().map(u32::from_be_bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, SegmentFault> {
        self.bytes().map(|[byte]| byte)
    }

    pub(super) fn revision(&mut self) -> Result<i64, SegmentFault> {
        let revision = self.i64()?;
        if (0..i64::MAX).contains(&revision) {
            Ok(revision)
        } else {
            Err(SegmentFault::Body("an impossible revision"))
        }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'b [u8], SegmentFault> {
        let (head, rest) =
            self.0.split_at_checked(len).ok_or(SegmentFault::Body("a row longer than its frame"))?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn end(self) -> Result<(), SegmentFault> {
        if self.0.is_empty() { Ok(()) } else { Err(SegmentFault::Body("longer than its fields")) }
    }
}

pub(super) fn put_header(out: &mut Vec<u8>, header: &Header) {
    out.extend_from_slice(&header.origin.cluster_id.to_be_bytes());
    out.extend_from_slice(&header.origin.timeline);
    put(out, &[header.first_revision, header.created_ms]);
    out.extend_from_slice(header.writer.as_bytes());
}

pub(super) fn header(body: &[u8]) -> Result<Header, SegmentFault> {
    let mut fields = Fields(body);
    let origin = Origin { cluster_id: u64::from_be_bytes(fields.bytes()?), timeline: fields.bytes()? };
    let (first_revision, created_ms) = (fields.revision()?, fields.i64()?);
    if fields.0.len() > WRITER_BYTES_MAX {
        return Err(SegmentFault::Body("a writer's name that is too long"));
    }
    let writer =
        std::str::from_utf8(fields.0).map_err(|_| SegmentFault::Body("a writer's name not in UTF-8"))?;
    Ok(Header { origin, first_revision, created_ms, writer: writer.to_owned() })
}

pub(super) fn put(out: &mut Vec<u8>, numbers: &[i64]) {
    for number in numbers {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

pub(super) fn lease(body: &[u8]) -> Result<LeaseSeen, SegmentFault> {
    let mut fields = Fields(body);
    let lease = LeaseSeen {
        at_ms: fields.i64()?,
        id: fields.i64()?,
        granted_ttl_s: fields.i64()?,
        remaining_s: fields.i64()?,
    };
    fields.end().map(|()| lease)
}

/// Time and revision: of a compaction, or progress.
pub(super) fn at_revision(body: &[u8]) -> Result<(i64, i64), SegmentFault> {
    let mut fields = Fields(body);
    let told = (fields.i64()?, fields.revision()?);
    fields.end().map(|()| told)
}

pub(super) fn hash_sample(body: &[u8]) -> Result<HashSample, SegmentFault> {
    let mut fields = Fields(body);
    let (at_ms, revision, compact_revision) = (fields.i64()?, fields.revision()?, fields.i64()?);
    let hash_kv = HashKv { hash: fields.u32()?, revision, compact_revision };
    fields.end().map(|()| HashSample { at_ms, hash_kv })
}

pub(super) fn cause_byte(cause: GapCause) -> u8 {
    match cause {
        GapCause::Compacted => 1,
        GapCause::SpoolFull => 2,
    }
}

pub(super) fn gap(body: &[u8]) -> Result<GapSeen, SegmentFault> {
    let mut fields = Fields(body);
    let (at_ms, first, last) = (fields.i64()?, fields.revision()?, fields.revision()?);
    let cause = match fields.u8()? {
        1 => GapCause::Compacted,
        2 => GapCause::SpoolFull,
        _ => return Err(SegmentFault::Body("an unknown cause of a gap")),
    };
    fields.end().map(|()| GapSeen { at_ms, first, last, cause })
}
