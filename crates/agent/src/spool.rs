//! The folder of segments: `<first revision>-<n>.seg`, and a lock file that keeps a second agent out. Whoever takes
//! segments away takes closed ones only.

use camino::{Utf8Path, Utf8PathBuf};
use etcd_disk::segment::{Header, Origin, SegmentFacts, SegmentWriter, seal};
use std::fs::{File, OpenOptions};

use crate::{Error, now_ms};

const SUFFIX: &str = "seg";

/// The spool of one stream, locked.
#[derive(Debug)]
pub struct Spool {
    dir: Utf8PathBuf,
    _lock: File,
    found: Vec<SegmentFacts>,
}

/// The end of the stream in a spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newest {
    /// Whose changes.
    pub origin: Origin,
    /// The last durable revision.
    pub last: i64,
    /// Digest of its rows, if it is there.
    pub digest: Option<u32>,
}

impl Spool {
    /// Opens the folder, creating it if need be, and ends what a killed agent left.
    ///
    /// # Errors
    /// [`Error::Spool`] when another agent uses it; [`Error::Segment`] on damage that no crash leaves.
    pub fn open(dir: &Utf8Path) -> Result<Self, Error> {
        let io = |why| move |e| Error::Spool { path: dir.to_owned(), why, source: Some(e) };
        std::fs::create_dir_all(dir).map_err(io("it cannot be created"))?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("lock"));
        let lock = lock.map_err(io("its lock cannot be opened"))?;
        if lock.try_lock().is_err() {
            return Err(Error::Spool { path: dir.to_owned(), why: "another agent uses it", source: None });
        }
        let mut found = Vec::new();
        for path in segments(dir).map_err(io("it cannot be listed"))? {
            let facts = match seal(path.as_std_path()) {
                // killed before its header was on the disk: nothing was ever in it
                Err(etcd_disk::Error::Segment { offset, .. }) if offset < HEADER_END => {
                    let aside = path.with_extension("headless");
                    std::fs::rename(&path, aside).map_err(io("an empty segment cannot be set aside"))?;
                    continue;
                }
                sealed => sealed?,
            };
            found.push(facts);
        }
        Ok(Self { dir: dir.to_owned(), _lock: lock, found })
    }

    /// The end of a timeline's stream, as it was found.
    pub fn newest(&self, timeline: [u8; 16]) -> Option<Newest> {
        let ours = || self.found.iter().filter(|facts| facts.header.origin.timeline == timeline);
        let newest = ours().max_by_key(|facts| facts.last_revision)?;
        let last = newest.last_revision;
        let digest = ours().filter(|facts| facts.last_revision == last).find_map(|facts| facts.last_digest);
        Some(Newest { origin: newest.header.origin, last, digest })
    }

    /// The latest time told in it, ms since the Unix epoch: what is written from now on is no earlier.
    pub(crate) fn clock_ms(&self) -> i64 {
        self.found
            .iter()
            .filter_map(|facts| facts.newest)
            .map(|newest| newest.at_ms)
            .max()
            .unwrap_or(i64::MIN)
    }

    /// Its folder.
    pub(crate) fn dir(&self) -> &Utf8Path {
        &self.dir
    }

    /// Begins a segment.
    pub(crate) fn begin(
        &self,
        origin: Origin,
        first_revision: i64,
        writer: &str,
    ) -> Result<SegmentWriter, Error> {
        let header = Header { origin, first_revision, created_ms: now_ms(), writer: writer.to_owned() };
        for n in 0.. {
            let path = self.dir.join(format!("{first_revision:019}-{n}.{SUFFIX}"));
            if !path.exists() {
                return Ok(SegmentWriter::create(path.as_std_path(), header)?);
            }
        }
        Err(Error::Spool { path: self.dir.clone(), why: "it is full of segments", source: None })
    }
}

/// Where the first frame of every segment begins.
const HEADER_END: u64 = 9;

/// The segments whose writer has ended them, by first revision: what may be taken away. The last one of a spool is still
/// written, or is ended when the next agent opens it.
///
/// # Errors
/// When the folder cannot be listed.
pub fn closed(dir: &Utf8Path) -> std::io::Result<Vec<Utf8PathBuf>> {
    let mut found = segments(dir)?;
    found.pop();
    Ok(found)
}

/// Bytes of all segments of a spool.
///
/// # Errors
/// When the folder cannot be listed.
pub fn bytes(dir: &Utf8Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for path in segments(dir)? {
        match path.metadata() {
            Ok(found) => bytes += found.len(),
            // taken away meanwhile
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(bytes)
}

/// The segments of a spool, closed or not, by first revision.
///
/// # Errors
/// When the folder cannot be listed.
pub fn segments(dir: &Utf8Path) -> std::io::Result<Vec<Utf8PathBuf>> {
    let mut found = Vec::new();
    for entry in dir.read_dir_utf8()? {
        let path = entry?.into_path();
        if path.extension() == Some(SUFFIX) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
