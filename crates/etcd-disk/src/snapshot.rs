//! Snapshot files: a database followed by its sha256; opened, and verified in one pass.
//!
//! ```text
//! | bbolt database, whole pages | sha256 of it, 32 bytes |      size % 512 == 32 shows the trailer
//! ```
//! Source: etcdutl `snapshot/v3_snapshot.go`, etcd `maintenance.go` (`Snapshot`). Drawn in `docs/formats/snapshot.md`.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use boltfile::{BoltFile, ReadAt};
use sha2::{Digest, Sha256};

use crate::bucket;
use crate::error::{Error, Result, RowFault, SnapshotFault};
use crate::facts::{StoreFacts, read_facts};
use crate::hashkv::HashKv;
use crate::scan::{RowScan, Scanned};

/// Length of the sha256 behind the database.
const TRAILER_BYTES: u64 = 32;
/// No disk has smaller sectors, so no database has a size that is not a multiple of it.
const SECTOR_BYTES: u64 = 512;
const HASH_BUFFER_BYTES: usize = 1 << 20;
/// Progress is reported about this often.
const PROGRESS_STEP_BYTES: u64 = 8 << 20;

/// Whether a file must have a sha256 behind its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrailerPolicy {
    /// As a snapshot has.
    Required,
    /// A copied `member/snap/db` has none; one that is there is still checked.
    Skip,
}

/// Names the group a key is counted in, as a part of the key or a fixed text.
pub type GroupFn<'a> = &'a (dyn for<'k> Fn(&'k [u8]) -> &'k str + Sync);

/// What to do beside verifying.
#[derive(Clone, Copy, Default)]
pub struct VerifyOptions<'a> {
    /// Counts live keys by group.
    pub group: Option<GroupFn<'a>>,
    /// HashKV at this revision instead of the newest, as a member's RPC answered it.
    pub hash_revision: Option<i64>,
    /// HashKV with this compact revision instead of the store's, as a member's RPC answered it.
    pub compact_revision: Option<i64>,
}

/// What a verified snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// sha256 of the database's bytes, hex.
    pub sha256: String,
    /// The file has a trailer, and it fits.
    pub trailer: bool,
    /// Size of the database.
    pub db_bytes: u64,
    /// Rows, tombstones included.
    pub rows: u64,
    /// Keys alive at the newest revision (as `totalKey` of etcdutl 3.6: the empty key of a raised revision counts).
    pub live_keys: u64,
    /// The revision an etcd booted from it has.
    pub revision: i64,
    /// The compact revision an etcd booted from it has; -1: never compacted.
    pub compact_revision: i64,
    /// HashKV, natively.
    pub hash_kv: HashKv,
    /// Live keys by group; empty without [`VerifyOptions::group`]. The empty key is in none.
    pub groups: BTreeMap<String, u64>,
    /// What its small buckets say.
    pub facts: StoreFacts,
}

/// An opened snapshot file. Nothing but its size and meta pages has been read yet.
#[derive(Debug)]
pub struct SnapshotFile {
    path: PathBuf,
    db: BoltFile<File>,
    has_trailer: bool,
}

impl SnapshotFile {
    /// Opens a snapshot file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Snapshot`] without a trailer where one is required; [`Error::Bolt`] when it holds no
    /// database.
    pub fn open(path: &Path, policy: TrailerPolicy) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_owned(), action: "open the snapshot", source };
        let file = File::open(path).map_err(io)?;
        let size_bytes = file.metadata().map_err(io)?.len();
        let has_trailer = size_bytes % SECTOR_BYTES == TRAILER_BYTES;
        if !has_trailer && policy == TrailerPolicy::Required {
            let source = SnapshotFault::NoTrailer { size_bytes };
            return Err(Error::Snapshot { path: path.to_owned(), source });
        }
        let db_bytes = if has_trailer { size_bytes - TRAILER_BYTES } else { size_bytes };
        let db = BoltFile::from_source(path.display().to_string(), file, db_bytes)
            .map_err(|source| Error::Bolt { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), db, has_trailer })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the database in it.
    pub fn db_bytes(&self) -> u64 {
        self.db.len_bytes()
    }

    /// Whether a sha256 follows the database.
    pub fn has_trailer(&self) -> bool {
        self.has_trailer
    }

    /// The database in it.
    pub fn bolt(&self) -> &BoltFile<File> {
        &self.db
    }

    /// Verifies the whole file: sha256 on a second thread; structure, rows, HashKV and counts on this one.
    ///
    /// `progress` hears the bytes done and the bytes in all.
    ///
    /// # Errors
    /// [`Error::Snapshot`] on a wrong sha256, a broken structure, or a HashKV revision outside the store;
    /// [`Error::Row`] and [`Error::Entry`] where etcd's own format is broken.
    pub fn verify(
        &self,
        options: &VerifyOptions<'_>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Verified> {
        let hashed = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let sha = scope.spawn(|| self.sha256(&hashed));
            let outcome = self.verify_rows(options, &hashed, progress);
            while !sha.is_finished() {
                progress(hashed.load(Ordering::Relaxed), self.db_bytes());
                std::thread::sleep(Duration::from_millis(2));
            }
            let sha256 = sha.join().map_err(|_| Error::Worker("computing a sha256"))??;
            // a wrong sha256 explains a broken structure, not the reverse
            self.compare_trailer(&sha256)?;
            progress(self.db_bytes(), self.db_bytes());
            outcome.map(|verified| Verified { sha256: hex(&sha256), ..verified })
        })
    }

    fn verify_rows(
        &self,
        options: &VerifyOptions<'_>,
        hashed: &AtomicU64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Verified> {
        // damage that keeps the small buckets from being read is told by the check, with all its places
        let facts = read_facts(&self.db, &self.path);
        let compact = facts.as_ref().map_or(-1, StoreFacts::compact_revision);
        let mut scan =
            RowScan::new(options.compact_revision.unwrap_or(compact), options.hash_revision, options.group);
        let (mut seen, mut told, mut first_fault) = (0u64, 0u64, None);
        let report = self.db.check_rows(&mut |name, key, value| {
            if name == bucket::KEY.as_bytes() {
                if let Err(fault) = scan.row(key, value) {
                    first_fault = Some(self.row_error(key, fault));
                    return ControlFlow::Break(());
                }
                seen += (key.len() + value.len()) as u64;
                if seen - told > PROGRESS_STEP_BYTES {
                    told = seen;
                    progress(seen.min(hashed.load(Ordering::Relaxed)), self.db_bytes());
                }
            }
            ControlFlow::Continue(())
        });
        if let Some(first) = report.violations.first() {
            let count = usize::try_from(report.violations_total).unwrap_or(usize::MAX);
            return self.fault(SnapshotFault::Structure { count, first: first.to_string() });
        }
        if let Some(fault) = first_fault {
            return Err(fault);
        }
        let facts = facts?;
        if self.db.bucket(bucket::KEY.as_bytes()).map_err(|source| self.bolt_error(source))?.is_none() {
            return self.fault(SnapshotFault::NoBucket(bucket::KEY));
        }
        let revision = facts.revision(scan.last_main());
        if let Some(asked) = options.hash_revision
            && (asked > revision || asked < options.compact_revision.unwrap_or(compact))
        {
            let compact_revision = options.compact_revision.unwrap_or(compact);
            return self.fault(SnapshotFault::HashRevision { asked, compact_revision, revision });
        }
        Ok(self.verified(scan.finish(revision), revision, facts))
    }

    fn verified(&self, scanned: Scanned<'_>, revision: i64, facts: StoreFacts) -> Verified {
        Verified {
            sha256: String::new(),
            trailer: self.has_trailer,
            db_bytes: self.db_bytes(),
            rows: u64::from(scanned.rows),
            live_keys: scanned.live.len() as u64,
            revision,
            compact_revision: facts.compact_revision(),
            hash_kv: scanned.hash_kv,
            groups: scanned.live.groups(),
            facts,
        }
    }

    /// sha256 of the database's bytes; `hashed` counts along.
    pub(crate) fn sha256(&self, hashed: &AtomicU64) -> Result<[u8; 32]> {
        let mut buffer = vec![0; HASH_BUFFER_BYTES];
        let mut sha = Sha256::new();
        let mut offset = 0;
        while offset < self.db_bytes() {
            let left = usize::try_from(self.db_bytes() - offset).unwrap_or(usize::MAX);
            let len = left.min(HASH_BUFFER_BYTES);
            let chunk = buffer.get_mut(..len).unwrap_or_default();
            self.read(chunk, offset)?;
            sha.update(&*chunk);
            offset += len as u64;
            hashed.store(offset, Ordering::Relaxed);
        }
        Ok(sha.finalize().into())
    }

    /// Compares the computed sha256 with the trailer, if there is one.
    pub(crate) fn compare_trailer(&self, actual: &[u8; 32]) -> Result<()> {
        if !self.has_trailer {
            return Ok(());
        }
        let mut expected = [0; 32];
        self.read(&mut expected, self.db_bytes())?;
        if expected != *actual {
            return self.fault(SnapshotFault::Sha256 { expected: hex(&expected), actual: hex(actual) });
        }
        Ok(())
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.db.source().read_exact_at(buffer, offset).map_err(|source| Error::Io {
            path: self.path.clone(),
            action: "read it",
            source,
        })
    }

    pub(crate) fn fault<T>(&self, source: SnapshotFault) -> Result<T> {
        Err(Error::Snapshot { path: self.path.clone(), source })
    }

    pub(crate) fn bolt_error(&self, source: boltfile::Error) -> Error {
        Error::Bolt { path: self.path.clone(), source }
    }

    pub(crate) fn row_error(&self, key: &[u8], source: RowFault) -> Error {
        Error::Row { path: self.path.clone(), row: hex(key), source }
    }
}

/// Bytes as lowercase hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
