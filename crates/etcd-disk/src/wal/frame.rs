//! One segment of the log, frame by frame, with the running checksum and the rules that tell a torn write from damage.
//!
//! Source: `decoder.decodeRecord` and `decoder.isTornEntry` in etcd `server/storage/wal/decoder.go`.

use std::io::{self, Read};

use prost::Message;

use super::kind;
use crate::error::WalFault;
use crate::proto::WalRecord;

/// Writes smaller than this never tear (`minSectorSize`).
const SECTOR_BYTES: u64 = 512;
const FRAME_BYTES: u64 = 8;
/// No record is longer; etcd's requests end at a few MiB, gRPC at 2 GiB.
const RECORD_MAX_BYTES: u64 = 256 << 20;

/// What follows in a segment.
pub(super) enum Frame {
    /// A record whose checksum fits (or a crc record, which the caller compares).
    Record(WalRecord),
    /// The end of the file or of what was written of it.
    End,
    /// A record cut short, at the end of the last segment.
    Torn,
}

/// Why a segment cannot be read on.
pub(super) enum FrameError {
    Fault(WalFault),
    Io(io::Error),
}

impl From<WalFault> for FrameError {
    fn from(fault: WalFault) -> Self {
        Self::Fault(fault)
    }
}

/// Reads the frames of one segment.
pub(super) struct Segment<R> {
    reader: R,
    size: u64,
    /// Only there can a record be torn.
    is_last: bool,
    /// Where the next frame begins.
    pub(super) offset: u64,
    /// The running checksum.
    pub(super) crc: u32,
    buffer: Vec<u8>,
}

impl<R: Read> Segment<R> {
    pub(super) fn new(reader: R, size: u64, is_last: bool, crc: u32) -> Self {
        Self { reader, size, is_last, offset: 0, crc, buffer: Vec::new() }
    }

    /// The next frame. After anything but a record, do not ask again.
    pub(super) fn next(&mut self) -> Result<Frame, FrameError> {
        let left = self.size.saturating_sub(self.offset);
        if left == 0 {
            return Ok(Frame::End);
        }
        if left < FRAME_BYTES {
            return self.torn_or(WalFault::Length { len: FRAME_BYTES, left }, true);
        }
        let mut head = [0u8; 8];
        self.fill(&mut head)?;
        let field = u64::from_le_bytes(head);
        if field == 0 {
            return Ok(Frame::End);
        }
        let (len, pad) = split_length(field);
        let left = left - FRAME_BYTES;
        if len + pad > left {
            return self.torn_or(WalFault::Length { len, left }, true);
        }
        if len > RECORD_MAX_BYTES {
            return Err(WalFault::Length { len, left }.into());
        }
        let whole = usize::try_from(len + pad).unwrap_or(usize::MAX);
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(whole, 0);
        let read = self.fill(&mut buffer);
        let outcome = read.and_then(|()| self.decode(&buffer, usize::try_from(len).unwrap_or(usize::MAX)));
        self.buffer = buffer;
        if matches!(outcome, Ok(Frame::Record(_))) {
            self.offset += FRAME_BYTES + len + pad;
        }
        outcome
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), FrameError> {
        self.reader.read_exact(buffer).map_err(FrameError::Io)
    }

    fn decode(&mut self, padded: &[u8], len: usize) -> Result<Frame, FrameError> {
        let torn = self.has_zero_sector(padded);
        let record = match WalRecord::decode(padded.get(..len).unwrap_or_default()) {
            Ok(record) => record,
            Err(e) => return self.torn_or(WalFault::Record(e.to_string()), torn),
        };
        if record.kind.unwrap_or(0) != kind::CRC {
            let actual = crc32c::crc32c_append(self.crc, record.data.as_deref().unwrap_or_default());
            let expected = record.crc.unwrap_or(0);
            if actual != expected {
                return self.torn_or(WalFault::Crc { expected, actual }, torn);
            }
            self.crc = actual;
        }
        Ok(Frame::Record(record))
    }

    fn torn_or(&self, fault: WalFault, torn: bool) -> Result<Frame, FrameError> {
        if torn && self.is_last { Ok(Frame::Torn) } else { Err(fault.into()) }
    }

    /// A sector that is all zeros was preallocated and never written: the record's write was torn.
    fn has_zero_sector(&self, padded: &[u8]) -> bool {
        let first = usize::try_from(SECTOR_BYTES - (self.offset + FRAME_BYTES) % SECTOR_BYTES).unwrap_or(0);
        let (head, rest) = padded.split_at(first.min(padded.len()));
        let sector = usize::try_from(SECTOR_BYTES).unwrap_or(1);
        std::iter::once(head).chain(rest.chunks(sector)).any(|s| !s.is_empty() && s.iter().all(|&b| b == 0))
    }
}

/// Splits a frame's length field into the record's length and the padding after it, bytes.
fn split_length(field: u64) -> (u64, u64) {
    let len = field & 0x00ff_ffff_ffff_ffff;
    let pad = if field >> 63 == 1 { field >> 56 & 0x7 } else { 0 };
    (len, pad)
}

/// The length field of a record and its padding: records start at multiples of 8 so that no length field tears.
pub(super) fn join_length(len: usize) -> (u64, usize) {
    let pad = (8 - len % 8) % 8;
    let field = len as u64;
    (if pad == 0 { field } else { field | (0x80 | pad as u64) << 56 }, pad)
}

/// Reads the records of one segment held in memory; how many are whole, or the fault and its offset.
///
/// For tests and fuzzing of the frame rules; logs on disk are read with [`super::read`].
pub fn decode_bytes(bytes: &[u8], is_last: bool) -> Result<u64, (u64, WalFault)> {
    let mut segment = Segment::new(bytes, bytes.len() as u64, is_last, 0);
    let mut records = 0;
    loop {
        match segment.next() {
            Ok(Frame::Record(record)) => {
                records += 1;
                if record.kind == Some(kind::CRC) {
                    segment.crc = record.crc.unwrap_or(0);
                }
            }
            Ok(Frame::End | Frame::Torn) => return Ok(records),
            Err(FrameError::Fault(fault)) => return Err((segment.offset, fault)),
            Err(FrameError::Io(e)) => return Err((segment.offset, WalFault::Record(e.to_string()))),
        }
    }
}
