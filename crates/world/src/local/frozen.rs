//! Saves a file that a process holds open though its name is gone: the process is frozen, the file copied through
//! `/proc/PID/fd/N`, the process always thawed.
//!
//! A frozen etcd gives a copy as after a power loss at that moment: bbolt writes data pages, syncs, then one of its
//! two meta pages, so the older of the two is whole whatever was under way (`docs/formats/bbolt.md`).

use super::durable::{self, PRIVATE_FILE};
use super::files;
use super::processes::Handle;
use crate::Progress;
use crate::fault::{Fault, Outcome};
use crate::host::Saved;
use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::Signal;
use std::fs::File;
use std::time::{Duration, Instant};

/// Longest wait for a process to stop after SIGSTOP.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A stopped process; runs on when this is dropped.
struct Frozen<'a>(&'a Handle);

impl<'a> Frozen<'a> {
    fn freeze(process: &'a Handle, pid: u32) -> Outcome<Self> {
        let frozen = Self(process);
        process.signal(Signal::STOP)?;
        let start = Instant::now();
        loop {
            match process.state() {
                Some('T' | 't') => return Ok(frozen),
                None | Some('Z' | 'X') => {
                    return Err(Fault::not_found(format!("process {pid} ended meanwhile")));
                }
                Some(_) if start.elapsed() > STOP_LIMIT => {
                    return Err(Fault::failed(format!(
                        "process {pid} did not stop {STOP_LIMIT:?} after SIGSTOP"
                    )));
                }
                Some(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        // Nothing more can be done when it fails: the process is gone then.
        let _ = self.0.signal(Signal::CONT);
    }
}

/// Copies the open file `fd` of that very process to `to`.
///
/// # Errors
/// `NotFound` when the process or its file is gone, `Refused` when another process has that pid.
pub(crate) fn save(pid: u32, start_ticks: u64, fd: u32, to: &Utf8Path) -> Outcome<Saved> {
    let process = Handle::open(pid, start_ticks)?
        .ok_or_else(|| Fault::not_found(format!("process {pid} (started at tick {start_ticks}) is gone")))?;
    let link = Utf8PathBuf::from(format!("/proc/{pid}/fd/{fd}"));
    let source = File::open(&link).map_err(|e| Fault::io(format!("open {link}"), &e))?;
    let found = source.metadata().map_err(|e| Fault::io(format!("stat {link}"), &e))?;
    // Looked at again with the file open: the pid may have been taken over between the two.
    if !found.is_file() || process.state().is_none() {
        return Err(Fault::refused(format!("{link} is not an open file of the process meant")));
    }
    let part = Utf8PathBuf::from(format!("{to}.part"));
    let target = durable::create(&part, PRIVATE_FILE)?;
    let quiet: Progress = std::sync::Arc::new(|_, _| {});
    let frozen = Frozen::freeze(&process, pid)?;
    let copied = files::copy_content(&source, &link, &target, &part, &quiet);
    drop(frozen);
    copied?;
    let bytes = target.metadata().map_err(|e| Fault::io(format!("stat {part}"), &e))?.len();
    let sha256 = files::sha256_of(&part, bytes)?;
    durable::publish(&target, &part, to)?;
    Ok(Saved { bytes, sha256, has_trailer: false })
}
