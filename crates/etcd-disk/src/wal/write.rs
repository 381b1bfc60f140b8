//! Writes the log of a founding member: its conf changes, committed, and a snapshot record over them.
//!
//! Source: `saveWALAndSnap` in etcdutl and `wal.Create`; the bytes equal those of etcdutl 3.5 and 3.6.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use prost::Message;

use super::frame::join_length;
use super::kind;
use crate::error::{Error, Result};
use crate::files;
use crate::proto::{ConfChange, ConfState, Entry, HardState, WalMetadata, WalRecord, WalSnapshot};
use crate::restore::cluster::{NewCluster, member_json};

/// Preallocated size of a segment (`SegmentSizeBytes`).
const SEGMENT_BYTES: u64 = 64_000_000;
/// The only segment of a new log.
const FIRST_SEGMENT: &str = "0000000000000000-0000000000000000.wal";

/// The founding term; etcdutl's, too.
pub(crate) const TERM: u64 = 1;

/// Creates `wal_dir` (which must not exist) with the log of `node_id`, by way of `<wal_dir>.tmp` and a rename.
pub(crate) fn create(wal_dir: &Path, node_id: u64, cluster: &NewCluster) -> Result<()> {
    let mut name = wal_dir.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = Path::new(&name);
    files::create_private_dir(temporary)?;
    let path = temporary.join(FIRST_SEGMENT);
    let io = |action| move |source| (action, source);
    let write = || -> Result<(), (&'static str, std::io::Error)> {
        let mut file = files::create_private(&path).map_err(io("create it"))?;
        file.write_all(&records(node_id, cluster)).map_err(io("write it"))?;
        preallocate(&file).map_err(io("preallocate 64 MB for it"))?;
        file.sync_all().map_err(io("sync it to disk"))
    };
    write().map_err(|(action, source)| Error::Io { path: path.clone(), action, source })?;
    files::sync_dir(temporary)?;
    files::rename(temporary, wal_dir)
}

/// Zeros to the segment's end, as real blocks where the file system can: a later write must not find the disk full.
fn preallocate(file: &File) -> std::io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    match fallocate(file, FallocateFlags::empty(), 0, SEGMENT_BYTES) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => {
            file.set_len(SEGMENT_BYTES)
        }
        Err(e) => Err(e.into()),
    }
}

/// The log's bytes: crc, ids, an empty snapshot, one conf change per member, the hard state, the snapshot.
pub(crate) fn records(node_id: u64, cluster: &NewCluster) -> Vec<u8> {
    let mut log = Encoder::default();
    log.record(kind::CRC, None);
    let ids = WalMetadata { node_id: Some(node_id), cluster_id: Some(cluster.cluster_id().0) };
    log.record(kind::METADATA, Some(ids.encode_to_vec()));
    let nothing = WalSnapshot { index: Some(0), term: Some(0), conf_state: None };
    log.record(kind::SNAPSHOT, Some(nothing.encode_to_vec()));
    for (index, (id, member)) in (1u64..).zip(cluster.by_id()) {
        let change = ConfChange {
            id: Some(0),
            change_type: Some(0),
            node_id: Some(id.0),
            context: Some(member_json(*id, member).into_bytes()),
        };
        let entry = Entry {
            entry_type: Some(1),
            term: Some(TERM),
            index: Some(index),
            data: Some(change.encode_to_vec()),
        };
        log.record(kind::ENTRY, Some(entry.encode_to_vec()));
    }
    let commit = cluster.by_id().len() as u64;
    let vote = cluster.by_id().first().map_or(0, |(id, _)| id.0);
    let state = HardState { term: Some(TERM), vote: Some(vote), commit: Some(commit) };
    log.record(kind::STATE, Some(state.encode_to_vec()));
    let snapshot =
        WalSnapshot { index: Some(commit), term: Some(TERM), conf_state: Some(conf_state(cluster)) };
    log.record(kind::SNAPSHOT, Some(snapshot.encode_to_vec()));
    log.bytes
}

/// All members of a founding cluster vote.
pub(crate) fn conf_state(cluster: &NewCluster) -> ConfState {
    let voters = cluster.by_id().iter().map(|(id, _)| id.0).collect();
    ConfState { voters, auto_leave: Some(false), ..ConfState::default() }
}

/// Frames records and runs the checksum on.
#[derive(Default)]
pub(crate) struct Encoder {
    pub(crate) bytes: Vec<u8>,
    pub(crate) crc: u32,
}

impl Encoder {
    pub(crate) fn record(&mut self, kind: i64, data: Option<Vec<u8>>) {
        self.crc = crc32c::crc32c_append(self.crc, data.as_deref().unwrap_or_default());
        let record = WalRecord { kind: Some(kind), crc: Some(self.crc), data }.encode_to_vec();
        let (field, pad) = join_length(record.len());
        self.bytes.extend_from_slice(&field.to_le_bytes());
        self.bytes.extend_from_slice(&record);
        self.bytes.resize(self.bytes.len() + pad, 0);
    }
}
