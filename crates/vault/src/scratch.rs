//! Folders for what is read of a vault: unencrypted, only their owner may look into them, and they go with their owner.
//! Whoever is killed leaves its folder behind; the next one that makes a folder beside it clears it away. A folder is
//! locked (`flock`) for as long as its owner lives, so nobody's is taken from under its hands.

use crate::error::{Error, Result};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A folder of its owner's own, mode 0700; gone when dropped.
#[derive(Debug)]
pub struct Scratch {
    folder: tempfile::TempDir,
    /// Held until the folder is gone: fields are dropped in their order.
    _lock: Option<File>,
}

impl Scratch {
    /// Makes a folder in `parent`, which must exist. Its name begins with `.rekindle-` and `kind`; those of the same kind
    /// beside it whose owners are dead are removed.
    ///
    /// # Errors
    /// [`Error::Local`] when no folder can be made.
    pub fn new(parent: &Path, kind: &str) -> Result<Self> {
        let prefix = format!(".rekindle-{kind}-");
        let local = |source| Error::Local { path: parent.to_owned(), action: "make a folder in", source };
        let make = || tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).map_err(local);
        // whoever clears keeps others from making one meanwhile: a folder that is not locked yet would look left behind
        let gate = File::open(parent).map_err(local)?;
        let alone = gate.try_lock().is_ok();
        if !alone {
            // a file system without locks is one where nothing is cleared
            let _ = gate.lock_shared();
        }
        let folder = make()?;
        let lock = File::open(folder.path()).ok().filter(|own| own.try_lock().is_ok());
        if alone && lock.is_some() {
            clear(parent, &prefix, folder.path());
        }
        Ok(Self { folder, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
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
        let Ok(found) = std::fs::symlink_metadata(&path) else { continue };
        if !found.is_dir() || found.uid() != us.uid() {
            continue;
        }
        let Ok(lock) = File::open(&path) else { continue };
        if lock.try_lock().is_ok() {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}
