//! The exact form: the database is copied as it is, and only its small buckets are written anew, behind the copied
//! pages, as one more transaction would. Nearly all of it is the speed of the copy.
//!
//! The source is verified as a whole meanwhile: sha256, structure, rows. Damage would be copied, too.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use boltfile::Writer;

use super::db::Job;
use super::{Form, RestoredDb};
use crate::error::{Error, Result};
use crate::facts::Alarm;
use crate::snapshot::{Verified, VerifyOptions};

/// Copied at a time; the disk is kept busy behind it.
const COPY_BYTES: u64 = 16 << 20;

impl Job<'_> {
    /// Writes the exact form into the empty `file`.
    pub(super) fn copy_exact(&mut self, file: File) -> Result<RestoredDb> {
        let (verified, file) = self.copy_and_verify(file)?;
        let mut writer = Writer::behind(self.out.display().to_string(), file, self.source.bolt())
            .map_err(|e| self.write_error(e))?;
        let cleared_alarms = self.small_buckets(&mut writer)?;
        let finished = writer.finish().map_err(|e| self.write_error(e))?;
        self.refuse_above_quota(finished.bytes, &cleared_alarms)?;
        self.sync(&finished.file)?;
        Ok(RestoredDb {
            bytes: finished.bytes,
            sha256_checked: verified.trailer,
            revision: verified.revision,
            compact_revision: verified.compact_revision,
            hash_kv: verified.hash_kv,
            rows: verified.rows,
            live_keys: verified.live_keys,
            groups: verified.groups,
            cleared_alarms,
            reached: None,
        })
    }

    fn copy_and_verify(&mut self, file: File) -> Result<(Verified, File)> {
        let (source, out) = (self.source, self.out);
        let options = VerifyOptions { group: self.options.group, ..VerifyOptions::default() };
        let progress = &mut *self.progress;
        std::thread::scope(|scope| {
            let copy = scope.spawn(move || {
                let io =
                    |source| Error::Io { path: out.to_owned(), action: "copy the database to it", source };
                source.copy_db(&file).map_err(io).map(|()| file)
            });
            let verified = source.verify(&options, progress);
            let file = copy.join().map_err(|_| Error::Worker("copying the database"))??;
            Ok((verified?, file))
        })
    }

    /// Every bucket in its place: those of the old cluster anew, the others as copied.
    fn small_buckets(&self, writer: &mut Writer) -> Result<Vec<Alarm>> {
        let base = self.source.bolt();
        let mut cleared = Vec::new();
        for name in self.bucket_names()? {
            match name.as_slice() {
                b"alarm" => cleared = self.alarms(writer)?,
                b"members" => self.members(writer)?,
                b"members_removed" => {
                    writer.bucket(&name).map_err(|e| self.write_error(e))?;
                }
                b"meta" => self.meta(writer, Form::Exact, None)?,
                _ => {
                    if !writer.keep_bucket(base, &name).map_err(|e| self.write_error(e))? {
                        writer.bucket(&name).map_err(|e| self.write_error(e))?;
                    }
                }
            }
        }
        Ok(cleared)
    }
}

impl crate::snapshot::SnapshotFile {
    /// Copies the database's bytes to the start of `to`, by the kernel where it can.
    fn copy_db(&self, to: &File) -> std::io::Result<()> {
        // a file of its own: reads through a shared one would move its position
        let mut from = File::open(self.path())?;
        let mut to = to;
        to.seek(SeekFrom::Start(0))?;
        let mut done = 0;
        while done < self.db_bytes() {
            let len = COPY_BYTES.min(self.db_bytes() - done);
            let copied = std::io::copy(&mut (&mut from).take(len), &mut to)?;
            if copied == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            // only a hint: the kernel starts to write what it would else leave to the sync at the end
            let hint = rustix::fs::Advice::DontNeed;
            let _ = rustix::fs::fadvise(to, done, std::num::NonZeroU64::new(copied), hint);
            done += copied;
        }
        Ok(())
    }
}
