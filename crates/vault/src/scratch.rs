//! Folders for what is read of a vault: unencrypted, only their owner may look into them, and they go with their owner.
//! Whoever is killed leaves its folder behind; the next one that makes a folder beside it clears it away. A file in each is
//! locked (`flock`) for as long as its owner lives, so nobody's is taken from under its hands.

use crate::error::{Error, Result};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The file that is locked.
const LOCK: &str = ".lock";

/// A folder of its owner's own, mode 0700; gone when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// Held until the folder is gone.
    _lock: File,
}

impl Scratch {
    /// Makes a folder in `parent`, which must exist. Its name begins with `.rekindle-` and `kind`; those of the same kind
    /// beside it whose owners are dead are removed.
    ///
    /// # Errors
    /// [`Error::Local`] when no folder can be made.
    pub fn new(parent: &Path, kind: &str) -> Result<Self> {
        let local = |source| Error::Local { path: parent.to_owned(), action: "make a folder in", source };
        // it gets its name when it is locked: one of that name that is not locked is nobody's
        let begun = tempfile::Builder::new().prefix(".rekindle-new-").tempdir_in(parent).map_err(local)?;
        let lock = File::create_new(begun.path().join(LOCK)).map_err(local)?;
        let locked = lock.try_lock().is_ok();
        let prefix = format!(".rekindle-{kind}-");
        let path = parent.join(format!("{prefix}{}", uuid::Uuid::now_v7()));
        std::fs::rename(begun.path(), &path).map_err(local)?;
        // under its old name there is nothing to be removed
        let _ = begun.keep();
        let scratch = Self { path, _lock: lock };
        // a file system without locks is one where nothing is cleared
        if locked {
            clear(parent, &prefix, &scratch.path);
        }
        Ok(scratch)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // what can't be removed now the next one removes
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Removes what dead owners left. What can't be removed stays: it keeps nobody from working.
fn clear(parent: &Path, prefix: &str, own: &Path) {
    let (Ok(entries), Ok(us)) = (std::fs::read_dir(parent), std::fs::metadata(own)) else { return };
    let left: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)))
        .map(|entry| entry.path())
        .filter(|path| path != own)
        .collect();
    for path in left {
        let is_ours =
            std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir() && found.uid() == us.uid());
        if is_ours && is_left(&path.join(LOCK)) {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}

/// Whether nobody holds the lock. One that is gone was the first to go of a folder that is being removed.
fn is_left(lock: &Path) -> bool {
    match File::open(lock) {
        Ok(lock) => lock.try_lock().is_ok(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}
