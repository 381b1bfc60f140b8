//! A snapshot of any point in time: what `etcdctl snapshot save` would have written then, from an earlier snapshot and
//! the changes behind it. Members, alarms and raft's place in the log stay those of the earlier one.
//!
//! The format is drawn in `docs/formats/snapshot.md`.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::db::write_new;
use super::{Form, RestoreOptions, RestoredDb};
use crate::changes::Changes;
use crate::error::{Error, Result};
use crate::snapshot::SnapshotFile;

const COPY_BYTES: usize = 1 << 20;

/// Writes the snapshot of the point that `changes` lead to from `source`, with its sha256 at the end, to `out`, which
/// must not exist; synced. Every row is kept, the revision is that of the point. `allow_disproved`: see
/// [`RestoreOptions::allow_disproved`].
///
/// # Errors
/// As [`super::write_db`].
pub fn write_snapshot(
    source: &SnapshotFile,
    changes: &Changes,
    allow_disproved: bool,
    out: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RestoredDb> {
    // whether its alarms matter is decided when it is restored
    let options = RestoreOptions {
        changes: Some(changes),
        allow_corrupt_alarm: true,
        allow_disproved,
        ..RestoreOptions::default()
    };
    let written = write_new(source, Form::Exact, None, &options, out, progress)?;
    append_sha256(out).map_err(|source| {
        // half a trailer would read as a damaged snapshot
        let _ = std::fs::remove_file(out);
        Error::Io { path: out.to_owned(), action: "append its sha256", source }
    })?;
    Ok(written)
}

fn append_sha256(path: &Path) -> std::io::Result<()> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let (mut sha, mut buffer) = (Sha256::new(), vec![0; COPY_BYTES]);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        sha.update(buffer.get(..count).unwrap_or_default());
    }
    file.seek(SeekFrom::End(0))?;
    file.write_all(&sha.finalize())?;
    file.sync_all()
}
