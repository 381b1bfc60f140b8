//! The new database: rows in one of three forms, the members of the new cluster, everything else inherited.
//!
//! Source: `saveDB`, `modifyLatestRevision`, `saveWALAndSnap`, `updateCIndex` in etcdutl `snapshot/v3_snapshot.go`;
//! `scheduleCompaction`, `keyIndex.compact` and `store.restore` in etcd `server/storage/mvcc` for what survives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use boltfile::Writer;

use super::cluster::{NewCluster, NewMember, member_json};
use super::tail::Tail;
use super::{Form, RestoreOptions, RestoredDb};
use crate::bucket;
use crate::copy::copy_bucket;
use crate::error::{Error, Result, SnapshotFault};
use crate::facts::{Alarm, AlarmKind, StoreFacts, for_each_entry, parse_alarm, read_facts};
use crate::files;
use crate::ids::EtcdId;
use crate::rows::{Revision, row_key};
use crate::snapshot::SnapshotFile;
use crate::wal;

/// etcd's default `--quota-backend-bytes` (`DefaultQuotaBytes`).
const DEFAULT_QUOTA_BYTES: u64 = 2 << 30;
/// etcd makes new databases with the machine's page size.
const PAGE_BYTES: u32 = 4096;
/// The `meta` bucket has half a dozen entries.
const META_ENTRIES_MAX: usize = 1000;
const PROGRESS_STEP_BYTES: u64 = 8 << 20;

/// Writes the database that all members of `cluster` will start from to `out`, which must not exist; synced.
///
/// The source's sha256, if it has one, is checked along the way, and so is every page in use; on any fault `out` is
/// removed again. [`Form::Exact`] verifies the source as a whole, as [`SnapshotFile::verify`]. `progress` hears the
/// bytes read and the bytes in all.
///
/// # Errors
/// [`Error::Refused`]: a CORRUPT alarm without consent, a database above the quota, a revision that is not above the
/// source's. Otherwise as [`SnapshotFile::verify`], and [`Error::Io`] when `out` cannot be written.
pub fn write_db(
    source: &SnapshotFile,
    form: Form,
    cluster: &NewCluster,
    options: &RestoreOptions<'_>,
    out: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RestoredDb> {
    write_new(source, form, Some(cluster), options, out, progress)
}

/// The same; without a `cluster` everything but rows and leases stays as it is in the source.
pub(super) fn write_new(
    source: &SnapshotFile,
    form: Form,
    cluster: Option<&NewCluster>,
    options: &RestoreOptions<'_>,
    out: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RestoredDb> {
    let io = |source| Error::Io { path: out.to_owned(), action: "create it", source };
    let file = files::create_private(out).map_err(io)?;
    let mut job = Job { source, cluster, options, out, progress, read: 0, told: 0 };
    let written = match (form, options.changes) {
        (Form::Exact, None) => job.refuse_corrupt().and_then(|_| job.copy_exact(file)),
        _ => job.rewrite(file, form),
    };
    // nothing half-written is left; that it could not be removed would only hide why it was to be
    let restored = written.inspect_err(|_| drop(std::fs::remove_file(out)))?;
    progress(source.db_bytes(), source.db_bytes());
    Ok(restored)
}

pub(super) struct Job<'a> {
    pub(super) source: &'a SnapshotFile,
    cluster: Option<&'a NewCluster>,
    pub(super) options: &'a RestoreOptions<'a>,
    pub(super) out: &'a Path,
    pub(super) progress: &'a mut dyn FnMut(u64, u64),
    read: u64,
    told: u64,
}

impl<'a> Job<'a> {
    /// The forms whose rows are written one by one; the source's sha256 is computed on a second thread.
    fn rewrite(&mut self, file: File, form: Form) -> Result<RestoredDb> {
        let facts = self.refuse_corrupt()?;
        let source = self.source;
        std::thread::scope(|scope| {
            let sha = scope.spawn(|| source.sha256(&AtomicU64::new(0)));
            let written = self.write(file, form, &facts);
            let sha256 = sha.join().map_err(|_| Error::Worker("computing a sha256"))??;
            // a wrong sha256 explains damage that was met, not the reverse
            source.compare_trailer(&sha256)?;
            written
        })
    }

    fn write(&mut self, file: File, form: Form, facts: &StoreFacts) -> Result<RestoredDb> {
        let tail = self.options.changes.map(|changes| Tail::plan(changes, self.source, facts)).transpose()?;
        let mut plan = match form {
            Form::Bumped { to_revision } => {
                Some(self.survivors(facts, tail.as_ref(), |_| Some(to_revision))?)
            }
            Form::BumpedBy { revisions } => {
                let raise = |revision: i64| revision.checked_add_unsigned(revisions);
                Some(self.survivors(facts, tail.as_ref(), raise)?)
            }
            _ => None,
        };
        let name = self.out.display().to_string();
        let mut writer = Writer::create(name, file, PAGE_BYTES).map_err(|e| self.write_error(e))?;
        let mut rows = None;
        let mut cleared = Vec::new();
        for name in self.bucket_names()? {
            match name.as_slice() {
                b"alarm" if self.cluster.is_some() => cleared = self.alarms(&mut writer)?,
                b"key" => {
                    rows = Some(match (form, plan.take(), &tail) {
                        (_, Some(plan), tail) => self.bumped_rows(&mut writer, plan, tail.as_ref())?,
                        (Form::StockBump { bump_revision }, None, None) => {
                            self.stock_rows(&mut writer, facts, bump_revision)?
                        }
                        (Form::Exact, None, Some(tail)) => self.exact_rows(&mut writer, facts, tail)?,
                        _ => {
                            return self
                                .refuse("changes are replayed in the exact or the bumped form".into());
                        }
                    });
                }
                b"lease" if tail.is_some() => {
                    if let (Some(tail), Some(rows)) = (&tail, &mut rows) {
                        self.leases(&mut writer, tail, rows)?;
                    }
                }
                b"members" if self.cluster.is_some() => self.members(&mut writer)?,
                b"members_removed" if self.cluster.is_some() => {
                    writer.bucket(&name).map_err(|e| self.write_error(e))?;
                }
                b"meta" if self.cluster.is_some() => {
                    let raised = rows.as_ref().filter(|_| form != Form::Exact).map(|rows| rows.revision);
                    self.meta(&mut writer, form, raised)?;
                }
                _ => copy_bucket(self.source.bolt(), self.source.path(), &mut writer, self.out, &name)?,
            }
        }
        let finished = writer.finish().map_err(|e| self.write_error(e))?;
        self.refuse_above_quota(finished.bytes, &cleared)?;
        self.sync(&finished.file)?;
        let Some(rows) = rows else { return self.source.fault(SnapshotFault::NoBucket(bucket::KEY)) };
        Ok(RestoredDb {
            bytes: finished.bytes,
            sha256_checked: self.source.has_trailer(),
            revision: rows.revision,
            compact_revision: rows.compact_revision,
            hash_kv: rows.hash_kv,
            rows: rows.written,
            live_keys: rows.live_keys,
            groups: rows.groups,
            cleared_alarms: cleared,
            reached: rows.reached,
        })
    }

    /// The source's buckets and those a founding member needs, in byte order.
    pub(super) fn bucket_names(&self) -> Result<BTreeSet<Vec<u8>>> {
        let names = self.source.bolt().bucket_names().map_err(|e| self.source.bolt_error(e))?;
        let mut names: BTreeSet<Vec<u8>> = names.into_iter().collect();
        if !names.contains(bucket::KEY.as_bytes()) {
            return self.source.fault(SnapshotFault::NoBucket(bucket::KEY));
        }
        for needed in [bucket::CLUSTER, bucket::MEMBERS, bucket::MEMBERS_REMOVED, bucket::META] {
            names.insert(needed.as_bytes().to_vec());
        }
        if self.options.changes.is_some() {
            names.insert(bucket::LEASE.as_bytes().to_vec());
        }
        Ok(names)
    }

    /// What the source's small buckets say, unless they say that it is suspect.
    fn refuse_corrupt(&self) -> Result<StoreFacts> {
        let facts = read_facts(self.source.bolt(), self.source.path())?;
        let corrupt = facts.alarms.iter().find(|alarm| alarm.kind == AlarmKind::Corrupt);
        match corrupt {
            Some(alarm) if !self.options.allow_corrupt_alarm => self.refuse(format!(
                "it has a CORRUPT alarm of member {}: that cluster knew that its members differed, and this \
                 may be the wrong copy. Choose another source, or consent to this one after a full check of it",
                alarm.member
            )),
            _ => Ok(facts),
        }
    }

    pub(super) fn sync(&self, file: &File) -> Result<()> {
        let io = |source| Error::Io { path: self.out.to_owned(), action: "sync it to disk", source };
        file.sync_all().map_err(io)
    }

    pub(super) fn refuse_above_quota(&self, bytes: u64, cleared: &[Alarm]) -> Result<()> {
        let nospace = cleared.iter().any(|alarm| alarm.kind == AlarmKind::NoSpace);
        let quota = match self.options.quota_bytes {
            None | Some(0) if !nospace => return Ok(()),
            None | Some(0) => DEFAULT_QUOTA_BYTES,
            Some(quota) => quota,
        };
        if bytes <= quota {
            return Ok(());
        }
        self.refuse(format!(
            "the restored database has {bytes} bytes and the members' quota is {quota}: etcd would take no writes. \
             Raise --quota-backend-bytes above that, or restore with a raised revision, which keeps live keys only"
        ))
    }

    pub(super) fn refuse<T>(&self, reason: String) -> Result<T> {
        Err(Error::Refused { path: self.source.path().to_owned(), reason })
    }

    pub(super) fn write_error(&self, source: boltfile::Error) -> Error {
        Error::Bolt { path: self.out.to_owned(), source }
    }

    pub(super) fn advance(&mut self, bytes: usize) {
        self.read += bytes as u64;
        if self.read - self.told > PROGRESS_STEP_BYTES {
            self.told = self.read;
            let total = self.source.db_bytes();
            (self.progress)(self.read.min(total), total);
        }
    }

    fn members_by_id(&self) -> impl Iterator<Item = &(EtcdId, NewMember)> {
        self.cluster.into_iter().flat_map(NewCluster::by_id)
    }

    pub(super) fn members(&self, writer: &mut Writer) -> Result<()> {
        let mut entries: Vec<(String, String)> =
            self.members_by_id().map(|(id, m)| (id.to_string(), member_json(*id, m))).collect();
        // unpadded hex: not the order of the ids
        entries.sort();
        let mut out = writer.bucket(bucket::MEMBERS.as_bytes()).map_err(|e| self.write_error(e))?;
        for (key, value) in entries {
            out.put(key.as_bytes(), value.as_bytes()).map_err(|e| self.write_error(e))?;
        }
        Ok(())
    }

    /// Copies the alarms but NOSPACE and CORRUPT, which are given back.
    pub(super) fn alarms(&self, writer: &mut Writer) -> Result<Vec<Alarm>> {
        let mut out = writer.bucket(bucket::ALARM.as_bytes()).map_err(|e| self.write_error(e))?;
        let mut cleared = Vec::new();
        let mut kept = Vec::new();
        let limit = META_ENTRIES_MAX;
        for_each_entry(self.source.bolt(), self.source.path(), bucket::ALARM, limit, &mut |key, value| {
            let alarm = parse_alarm(key)?;
            match alarm.kind {
                AlarmKind::NoSpace | AlarmKind::Corrupt => cleared.push(alarm),
                AlarmKind::Other(_) => kept.push((key.to_vec(), value.to_vec())),
            }
            Ok(())
        })?;
        for (key, value) in kept {
            out.put(&key, &value).map_err(|e| self.write_error(e))?;
        }
        Ok(cleared)
    }

    pub(super) fn meta(&self, writer: &mut Writer, form: Form, raised_to: Option<i64>) -> Result<()> {
        let mut entries = BTreeMap::new();
        let limit = META_ENTRIES_MAX;
        for_each_entry(self.source.bolt(), self.source.path(), bucket::META, limit, &mut |key, value| {
            entries.insert(key.to_vec(), value.to_vec());
            Ok(())
        })?;
        // the log of the new cluster begins again, so the index goes down; etcdutl does the same
        let applied = self.members_by_id().count() as u64;
        entries.insert(b"consistent_index".to_vec(), applied.to_be_bytes().to_vec());
        entries.insert(b"term".to_vec(), wal::TERM.to_be_bytes().to_vec());
        if let Some(main) = raised_to {
            let raised = row_key(Revision { main, sub: 0 }).to_vec();
            if matches!(form, Form::Bumped { .. } | Form::BumpedBy { .. }) {
                entries.insert(b"finishedCompactRev".to_vec(), raised.clone());
            }
            entries.insert(b"scheduledCompactRev".to_vec(), raised);
        }
        let mut out = writer.bucket(bucket::META.as_bytes()).map_err(|e| self.write_error(e))?;
        for (key, value) in entries {
            out.put(&key, &value).map_err(|e| self.write_error(e))?;
        }
        Ok(())
    }
}
