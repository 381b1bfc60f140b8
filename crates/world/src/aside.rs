//! A file that appears under its name only when it is complete: written beside it, synced, renamed. Snapshots and
//! files that cross an SSH channel are written so; `local::durable` does the syncing.

use crate::fault::{Fault, Outcome};
use crate::local::durable;
use camino::{Utf8Path, Utf8PathBuf};
use std::fs::File;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file being written beside its final name, mode 0600. Dropped unfinished, it is removed.
#[derive(Debug)]
pub(crate) struct AsideFile {
    file: File,
    aside: Utf8PathBuf,
    to: Utf8PathBuf,
    finished: bool,
}

impl AsideFile {
    /// Begins a file that will be `to`; missing parent folders are made.
    pub(crate) fn create(to: &Utf8Path) -> Outcome<Self> {
        // Unique, so that of two writers of one name neither renames the other's half-written file.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = to.file_name().ok_or_else(|| Fault::refused(format!("{to} does not name a file")))?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let aside = to.with_file_name(format!(".rekindle-part-{}-{count}-{name}", std::process::id()));
        let file = durable::create(&aside, durable::PRIVATE_FILE)?;
        Ok(Self { file, aside, to: to.to_owned(), finished: false })
    }

    /// Appends bytes.
    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.file.write_all(bytes).map_err(|e| Fault::io(format_args!("write {}", self.aside), &e))
    }

    /// Syncs the file, gives it its name (replacing what had it) and syncs the folder.
    pub(crate) fn finish(mut self) -> Outcome<()> {
        durable::publish(&self.file, &self.aside, &self.to)?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for AsideFile {
    fn drop(&mut self) {
        if !self.finished {
            // best effort: the name says whose it is, and what failed has been reported already
            let _ = std::fs::remove_file(&self.aside);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A write that breaks off leaves the old file as it was and nothing beside it; a finished one replaces it.
    #[test]
    fn appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        let to = dir.join("file");
        std::fs::write(&to, "old").unwrap();
        let mut broken = AsideFile::create(&to).unwrap();
        broken.write_all(b"half").unwrap();
        drop(broken);
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "old");
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1);

        let mut whole = AsideFile::create(&to).unwrap();
        whole.write_all(b"new").unwrap();
        whole.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "new");
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1);
    }
}
