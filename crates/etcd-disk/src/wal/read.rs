//! Reads a whole log: the segments in order, the checksum chain across them, the records.
//!
//! Source: `WAL.ReadAll`, `readWALNames` and `isValidSeq` in etcd `server/storage/wal`.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use prost::Message;

use super::frame::{Frame, FrameError, Segment};
use super::{Record, Tail, WalFacts, kind};
use crate::error::{Error, Result, WalFault};
use crate::ids::EtcdId;
use crate::proto::{Entry, HardState, WalMetadata, WalRecord, WalSnapshot};

const READ_BUFFER_BYTES: usize = 256 << 10;

/// Reads the log in `wal_dir` and shows every record that carries something to `visit`.
///
/// Entries are shown as written: one with an index seen before overrides it and all after it, and entries above the
/// last hard state's commit index are not committed.
///
/// # Errors
/// [`Error::Wal`] with segment and offset where the log is damaged; a torn last record is no error but
/// [`Tail::Torn`]. [`Error::Io`] when there is no log or it cannot be read.
pub fn read(wal_dir: &Path, visit: &mut dyn FnMut(Record) -> Result<()>) -> Result<WalFacts> {
    let segments = segment_paths(wal_dir)?;
    let mut log = Log { facts: WalFacts::default(), metadata: None, newest_snapshot: 0, visit };
    let mut crc = 0;
    for (position, path) in segments.iter().enumerate() {
        let is_last = position + 1 == segments.len();
        crc = log.segment(path, is_last, crc)?;
        log.facts.segments += 1;
    }
    Ok(log.facts)
}

/// Reads the whole log for its facts alone.
///
/// # Errors
/// As [`read`].
pub fn facts(wal_dir: &Path) -> Result<WalFacts> {
    read(wal_dir, &mut |_| Ok(()))
}

/// The segments in order; names that are no segment's are passed over, as etcd does.
fn segment_paths(wal_dir: &Path) -> Result<Vec<PathBuf>> {
    let io = |source| Error::Io { path: wal_dir.to_owned(), action: "list the write-ahead log", source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(wal_dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        if let Some(sequence) = entry.file_name().to_str().and_then(segment_sequence) {
            found.push((sequence, entry.path()));
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(io(std::io::Error::new(std::io::ErrorKind::NotFound, "no segment (*.wal) in it")));
    }
    for pair in found.windows(2) {
        if let [(last, _), (next, path)] = pair
            && *next != last + 1
        {
            let fault = WalFault::Sequence { found: *next, last: *last };
            return Err(Error::Wal { path: path.clone(), offset: 0, fault });
        }
    }
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The sequence number in a segment's name `%016x-%016x.wal`.
fn segment_sequence(name: &str) -> Option<u64> {
    let (sequence, index) = name.strip_suffix(".wal")?.split_once('-')?;
    u64::from_str_radix(index, 16).ok()?;
    // the highest sequence could not be followed by another
    u64::from_str_radix(sequence, 16).ok().filter(|&s| s < u64::MAX)
}

struct Log<'a> {
    facts: WalFacts,
    metadata: Option<Vec<u8>>,
    newest_snapshot: u64,
    visit: &'a mut dyn FnMut(Record) -> Result<()>,
}

impl Log<'_> {
    /// Reads one segment from the running checksum `crc` on; gives the checksum at its end.
    fn segment(&mut self, path: &Path, is_last: bool, crc: u32) -> Result<u32> {
        let io = |source| Error::Io { path: path.to_owned(), action: "read it", source };
        let file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let reader = BufReader::with_capacity(READ_BUFFER_BYTES, file);
        let mut segment = Segment::new(reader, size, is_last, crc);
        loop {
            let offset = segment.offset;
            let damaged = |fault| Error::Wal { path: path.to_owned(), offset, fault };
            match segment.next() {
                Ok(Frame::End) => return Ok(segment.crc),
                Ok(Frame::Torn) => {
                    self.facts.tail = Tail::Torn { path: path.to_owned(), offset };
                    return Ok(segment.crc);
                }
                Ok(Frame::Record(record)) if record.kind == Some(kind::CRC) => {
                    let expected = record.crc.unwrap_or(0);
                    // only the oldest segment still there may begin with a checksum of what is gone
                    let begins_log = self.facts.segments == 0 && offset == 0;
                    if !begins_log && segment.crc != expected {
                        return Err(damaged(WalFault::Crc { expected, actual: segment.crc }));
                    }
                    segment.crc = expected;
                }
                Ok(Frame::Record(record)) => match self.record(record) {
                    Ok(Some(shown)) => (self.visit)(shown)?,
                    Ok(None) => {}
                    Err(fault) => return Err(damaged(fault)),
                },
                Err(FrameError::Fault(fault)) => return Err(damaged(fault)),
                Err(FrameError::Io(source)) => return Err(io(source)),
            }
        }
    }

    fn record(&mut self, record: WalRecord) -> Result<Option<Record>, WalFault> {
        let data = record.data.unwrap_or_default();
        match record.kind.unwrap_or(0) {
            kind::METADATA => self.metadata(data).map(|()| None),
            kind::ENTRY => self.entry(decode(&data)?).map(Some),
            kind::STATE => {
                let state: HardState = decode(&data)?;
                self.facts.commit = state.commit.unwrap_or(0);
                self.facts.term = state.term.unwrap_or(0);
                self.facts.vote = state.vote.unwrap_or(0);
                Ok(Some(Record::HardState(state)))
            }
            kind::SNAPSHOT => {
                let snapshot: WalSnapshot = decode(&data)?;
                let (index, term) = (snapshot.index.unwrap_or(0), snapshot.term.unwrap_or(0));
                self.newest_snapshot = self.newest_snapshot.max(index);
                self.facts.snapshots.push((index, term));
                Ok(Some(Record::Snapshot { index, term }))
            }
            other => Err(WalFault::Kind(other)),
        }
    }

    fn metadata(&mut self, data: Vec<u8>) -> Result<(), WalFault> {
        if self.metadata.as_ref().is_some_and(|first| *first != data) {
            return Err(WalFault::MetadataConflict);
        }
        let ids: WalMetadata = decode(&data)?;
        self.facts.member_id = ids.node_id.map(EtcdId);
        self.facts.cluster_id = ids.cluster_id.map(EtcdId);
        self.metadata = Some(data);
        Ok(())
    }

    fn entry(&mut self, entry: Entry) -> Result<Record, WalFault> {
        let index = entry.index.unwrap_or(0);
        // entries may jump over what a snapshot received from the leader covers, and over nothing else
        let last = self.facts.last_index.max(self.newest_snapshot);
        if self.facts.first_index == 0 {
            self.facts.first_index = index;
        } else if index > last.saturating_add(1) {
            return Err(WalFault::Gap { index, last });
        }
        self.facts.last_index = index;
        self.facts.last_term = entry.term.unwrap_or(0);
        if entry.entry_type.unwrap_or(0) != 0 {
            self.facts.conf_changes += 1;
        }
        Ok(Record::Entry(entry))
    }
}

fn decode<M: Message + Default>(data: &[u8]) -> Result<M, WalFault> {
    M::decode(data).map_err(|e| WalFault::Record(e.to_string()))
}
