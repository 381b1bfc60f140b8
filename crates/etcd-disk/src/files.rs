//! Creating private files and folders, renaming and syncing them, with errors that name them.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::error::{Error, Result};

/// Creates a file that must not exist yet, mode 0600, open for reading and writing.
pub(crate) fn create_private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Creates one folder that must not exist yet, mode 0700.
pub(crate) fn create_private_dir(path: &Path) -> Result<()> {
    let io = |source| Error::Io { path: path.to_owned(), action: "create the folder", source };
    DirBuilder::new().mode(0o700).create(path).map_err(io)
}

/// Creates a folder and those above it, new ones with mode 0700.
pub(crate) fn create_private_dirs(path: &Path) -> Result<()> {
    let io = |source| Error::Io { path: path.to_owned(), action: "create the folder", source };
    DirBuilder::new().mode(0o700).recursive(true).create(path).map_err(io)
}

/// Makes the entries of a folder durable.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    let io = |source| Error::Io { path: path.to_owned(), action: "sync the folder to disk", source };
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io)
}

/// Renames and makes the rename durable.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    let io = |source| Error::Io { path: from.to_owned(), action: "rename it", source };
    std::fs::rename(from, to).map_err(io)?;
    to.parent().map_or(Ok(()), sync_dir)
}

/// Whether a folder is missing or has nothing in it.
pub(crate) fn is_empty_dir(path: &Path) -> Result<bool> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(Error::Io { path: path.to_owned(), action: "list the folder", source }),
    }
}
