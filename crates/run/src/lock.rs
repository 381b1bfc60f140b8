//! One run at a time: `<state>/lock`, held by flock for as long as the process lives. The text in it tells who holds it.

use crate::error::RunError;
use camino::{Utf8Path, Utf8PathBuf};
use rekindle_model::RunId;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Holder {
    pid: u32,
    run_id: RunId,
}

/// The turn to work with a state folder: the held lock, released when dropped, and by the kernel when the process dies in whatever way.
#[derive(Debug)]
pub struct Turn {
    state_dir: Utf8PathBuf,
    _file: File,
}

impl Turn {
    /// Takes the lock of a state folder (made when missing), or says who has it.
    ///
    /// # Errors
    /// [`RunError::Locked`]: another run is at work. Else the lock file or its folder can't be made.
    pub fn take(state_dir: &Utf8Path, run: &RunId) -> Result<Self, RunError> {
        let path = state_dir.join("lock");
        let failed = |doing: &'static str, path: &Utf8PathBuf| {
            let path = path.clone();
            move |source| RunError::File { doing, path, source }
        };
        private_dir(state_dir)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(failed("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(path, &mut file)),
            Err(TryLockError::Error(source)) => return Err(RunError::File { doing: "lock", path, source }),
        }
        let holder = Holder { pid: std::process::id(), run_id: run.clone() };
        let text = serde_json::to_vec(&holder).map_err(|source| RunError::Document {
            path: path.clone(),
            kind: "lock",
            source,
        })?;
        file.set_len(0).map_err(failed("write", &path))?;
        file.rewind().map_err(failed("write", &path))?;
        file.write_all(&text).map_err(failed("write", &path))?;
        Ok(Self { state_dir: state_dir.to_owned(), _file: file })
    }

    /// The state folder it is for.
    pub(crate) fn state_dir(&self) -> &Utf8Path {
        &self.state_dir
    }
}

fn held(lock: Utf8PathBuf, file: &mut File) -> RunError {
    let mut text = String::new();
    // Only for the message: a lock whose text can't be read is held all the same.
    let _ = file.take(4096).read_to_string(&mut text);
    let holder: Option<Holder> = serde_json::from_str(&text).ok();
    RunError::Locked {
        lock,
        pid: holder.as_ref().map_or(0, |holder| holder.pid),
        run: holder.map_or_else(|| "of another process".into(), |holder| holder.run_id.0),
    }
}

/// Makes a folder (0700) with its parents.
pub(crate) fn private_dir(dir: &Utf8Path) -> Result<(), RunError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|source| RunError::File {
        doing: "make the folder",
        path: dir.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Two operators type `recover` at the same time: the second is told who is at work, and after the first has ended
    // (or died) the lock is free again.
    #[test]
    fn the_second_is_refused_with_the_first_ones_name() {
        let keep = tempfile::tempdir().unwrap();
        let state = Utf8Path::from_path(keep.path()).unwrap().join("state");
        let first = Turn::take(&state, &RunId("run-one".into())).unwrap();
        let error = Turn::take(&state, &RunId("run-two".into())).unwrap_err();
        assert!(
            matches!(&error, RunError::Locked { pid, run, .. }
            if *pid == std::process::id() && run == "run-one"),
            "{error}"
        );
        drop(first);
        Turn::take(&state, &RunId("run-two".into())).unwrap();
    }
}
