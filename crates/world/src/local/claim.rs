//! A host is worked on by one run at a time, from wherever it is asked: `/run/rekindle.lock`, held by flock for as long
//! as the process that answers for the host lives. The text in it names the run.

use crate::fault::{Fault, Outcome};
use camino::Utf8PathBuf;
use rekindle_model::RunId;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where the lock lies: gone after a reboot, as every run is then.
pub(super) const PATH: &str = "/run/rekindle.lock";
/// How long the far end of a broken channel may take to notice that it has ended and let go.
const LET_GO: Duration = Duration::from_secs(5);

/// The claim that this process holds.
#[derive(Debug, Default)]
pub(super) struct Claim(Mutex<Option<File>>);

impl Claim {
    /// Claims the host for a run. A claim that this process holds already passes on to the run.
    pub(super) fn take(&self, path: &Utf8PathBuf, run: &RunId) -> Outcome<()> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = match held.take() {
            Some(file) => file,
            None => lock(path, run)?,
        };
        let failed = |e: &std::io::Error| Fault::io(format!("write {path}"), e);
        file.set_len(0).map_err(|e| failed(&e))?;
        file.rewind().map_err(|e| failed(&e))?;
        file.write_all(run.0.as_bytes()).map_err(|e| failed(&e))?;
        *held = Some(file);
        Ok(())
    }
}

fn lock(path: &Utf8PathBuf, run: &RunId) -> Outcome<File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|e| Fault::io(format!("make {parent}"), &e))?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(|e| Fault::io(format!("open {path}"), &e))?;
    let deadline = Instant::now() + LET_GO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(e)) => return Err(Fault::io(format!("lock {path}"), &e)),
            Err(TryLockError::WouldBlock) => {}
        }
        let mut text = String::new();
        // Only for the message, and to know one's own: a lock whose text can't be read is held all the same.
        let _ = (&file).rewind().and_then(|()| (&file).take(256).read_to_string(&mut text));
        if text != run.0 || Instant::now() > deadline {
            let holder = if text.is_empty() { "another run" } else { &text };
            return Err(Fault::refused(format!("run {holder} is at work on this host ({path})")));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Two operators recover from two machines: the second is told which run is at work. The first may ask again, and
    // when it has ended the host is free.
    #[test]
    fn one_run_at_a_time() {
        let keep = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(keep.path().join("run/rekindle.lock")).unwrap();
        let (one, two) = (Claim::default(), Claim::default());
        let run = |name: &str| RunId(name.into());
        one.take(&path, &run("run-one")).unwrap();
        one.take(&path, &run("run-one")).unwrap();
        let fault = two.take(&path, &run("run-two")).unwrap_err();
        assert_eq!(fault.kind, crate::host::HostErrorKind::Refused);
        assert!(fault.what.contains("run-one"), "{}", fault.what);
        drop(one);
        two.take(&path, &run("run-two")).unwrap();
    }
}
