//! Is a running process using the file? bbolt holds a `flock` on every database it has open.
use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::Error;

/// Whether another process holds bbolt's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockState {
    /// Nobody holds it.
    Free,
    /// A process has the database open (exclusive for writing, shared for reading).
    HeldByAnother,
}

/// Asks for the exclusive `flock` that bbolt takes when it opens a database for writing, and gives it up at once.
///
/// The answer is true for that moment only. A process that opens the database in the same instant waits or tries
/// again (bbolt retries every 50 ms), so the probe harms nobody.
///
/// # Errors
/// [`Error::Io`] when the file cannot be opened or its file system has no locks.
pub fn lock_state(path: &Path) -> Result<LockState, Error> {
    let io = |action, source| Error::Io { file: path.display().to_string(), action, source };
    let file = File::open(path).map_err(|e| io("open it", e))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            flock(&file, FlockOperation::Unlock).map_err(|e| io("unlock it", e.into()))?;
            Ok(LockState::Free)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(LockState::HeldByAnother),
        Err(e) => Err(io("probe its lock", e.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database that another has open shows as held, whichever kind of lock it took; the probe leaves nothing behind.
    #[test]
    fn a_held_lock_is_seen_and_a_free_one_is_left_free() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(lock_state(file.path()).unwrap(), LockState::Free);
        for kind in [FlockOperation::LockExclusive, FlockOperation::LockShared] {
            flock(file.as_file(), kind).unwrap();
            assert_eq!(lock_state(file.path()).unwrap(), LockState::HeldByAnother);
            flock(file.as_file(), FlockOperation::Unlock).unwrap();
            assert_eq!(lock_state(file.path()).unwrap(), LockState::Free);
        }
        let e = lock_state(Path::new("/no/such/db")).unwrap_err();
        assert!(e.to_string().contains("/no/such/db"), "{e}");
    }
}
