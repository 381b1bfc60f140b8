//! What a killed writer leaves in a folder: files that never got their names. `object_store` writes an object as
//! `NAME#NUMBER` and renames it, and never lists such files; in a bucket the provider keeps unfinished uploads apart.

use crate::error::{Error, Result};
use crate::store::{Listed, Store};
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Such files in a folder of the store, by their names in it; none where the store is no folder.
pub(crate) fn list(store: &Store, folder: &str) -> Result<Vec<Listed>> {
    let Some(path) = store.local(folder) else { return Ok(Vec::new()) };
    let local = |source| Error::Local { path: path.clone(), action: "list", source };
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(local(error)),
    };
    let mut staged = Vec::new();
    for entry in entries {
        let entry = entry.map_err(local)?;
        let (Ok(file), Ok(meta)) = (entry.file_name().into_string(), entry.metadata()) else { continue };
        if !meta.is_file() || !is_staged(&file) {
            continue;
        }
        let since = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let written_ms = since.and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(i64::MAX);
        staged.push(Listed { file, size_bytes: meta.len(), written_ms });
    }
    Ok(staged)
}

/// Removes one of them.
pub(crate) fn remove(store: &Store, folder: &str, file: &str) -> Result<()> {
    let Some(path) = store.local(folder).map(|path| path.join(file)) else { return Ok(()) };
    remove_file(&path)
}

fn remove_file(path: &Path) -> Result<()> {
    std::fs::remove_file(path).map_err(|source| Error::Local {
        path: path.to_owned(),
        action: "remove",
        source,
    })
}

fn is_staged(file: &str) -> bool {
    file.rsplit_once('#').is_some_and(|(name, number)| {
        !name.is_empty() && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Only what object_store leaves is taken for left behind.
    #[test]
    fn names_of_staged_files() {
        assert!(is_staged("01a2-cp.db.zst.age#1"));
        for other in ["01a2-cp.db.zst.age", "#1", "x#", "x#1a", "x#1.age"] {
            assert!(!is_staged(other), "{other}");
        }
    }
}
