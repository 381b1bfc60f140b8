//! Processes of this machine, read from `/proc` (proc(5)): also those inside containers, which see only themselves.

use crate::fault::{Fault, Outcome};
use camino::{Utf8Path, Utf8PathBuf};
use rekindle_model::HostPath;
use rekindle_model::host::{OpenFile, ProcessFacts};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

/// Most bytes read of a process's command line.
const MAX_CMDLINE_BYTES: u64 = 256 << 10;
/// Most open files looked at per process.
const MAX_FDS: usize = 20_000;
/// Longest wait for a killed process to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Processes whose program has one of these names, by pid.
pub(crate) fn find(names: &[String]) -> Outcome<Vec<ProcessFacts>> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir("/proc").map_err(|e| Fault::io("list /proc", &e))?;
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        // A process may end while it is read: it is then left out.
        found.extend(read(pid, names));
    }
    found.sort_by_key(|p| p.pid);
    Ok(found)
}

fn read(pid: u32, names: &[String]) -> Option<ProcessFacts> {
    let mut cmdline = Vec::new();
    File::open(format!("/proc/{pid}/cmdline"))
        .ok()?
        .take(MAX_CMDLINE_BYTES)
        .read_to_end(&mut cmdline)
        .ok()?;
    let command: Vec<String> = cmdline
        .strip_suffix(b"\0")
        .unwrap_or(&cmdline)
        .split(|b| *b == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    let name = Utf8Path::new(command.first()?).file_name()?.to_owned();
    if !names.contains(&name) {
        return None;
    }
    let state = state(pid)?;
    // A zombie holds nothing and serves nothing.
    (state.letter != 'Z' && state.letter != 'X').then(|| ProcessFacts {
        name,
        pid,
        start_ticks: state.start_ticks,
        started_ms: started_ms(state.start_ticks),
        command,
        frozen: matches!(state.letter, 'T' | 't'),
        deleted_files: deleted_files(pid),
    })
}

/// When a process started, milliseconds since the Unix epoch: its start is counted in clock ticks since boot.
fn started_ms(start_ticks: u64) -> i64 {
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let up_ms = up.tv_sec.saturating_mul(1_000).saturating_add(up.tv_nsec / 1_000_000);
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let started_ms = i64::try_from(start_ticks.saturating_mul(1_000) / ticks_per_second).unwrap_or(i64::MAX);
    super::now_ms().saturating_sub(up_ms.saturating_sub(started_ms))
}

/// State letter and start time of a process.
struct State {
    letter: char,
    start_ticks: u64,
}

/// From `/proc/PID/stat`: fields 3 and 22; the name (field 2) may hold blanks and brackets, so the last `)` counts.
fn state(pid: u32) -> Option<State> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let letter = fields.next()?.chars().next()?;
    Some(State { letter, start_ticks: fields.nth(18)?.parse().ok()? })
}

fn deleted_files(pid: u32) -> Vec<OpenFile> {
    let Ok(fds) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let mut deleted: Vec<OpenFile> = fds
        .take(MAX_FDS)
        .flatten()
        .filter_map(|e| deleted_file(e.file_name().to_str()?.parse().ok()?, pid))
        .collect();
    deleted.sort_by_key(|f| f.fd);
    deleted
}

fn deleted_file(fd: u32, pid: u32) -> Option<OpenFile> {
    let link = format!("/proc/{pid}/fd/{fd}");
    let target = Utf8PathBuf::from_path_buf(std::fs::read_link(&link).ok()?).ok()?;
    let found = std::fs::metadata(&link).ok()?;
    if !found.is_file() || found.nlink() != 0 || target.as_str().starts_with("/memfd:") {
        return None;
    }
    let path = target.as_str().strip_suffix(" (deleted)").unwrap_or(target.as_str());
    Some(OpenFile { fd, path: HostPath::from(path), size_bytes: found.len() })
}

/// One very process: its pid can't be taken over by another while this is held.
pub(crate) struct Handle {
    pid: u32,
    start_ticks: u64,
    pidfd: Option<OwnedFd>,
    raw: Pid,
}

impl Handle {
    /// Opens the process with this pid and start time; none = gone, or another one has the pid now.
    pub(crate) fn open(pid: u32, start_ticks: u64) -> Outcome<Option<Self>> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let raw = raw.ok_or_else(|| Fault::refused(format!("{pid} is not a process id")))?;
        let pidfd = match rustix::process::pidfd_open(raw, PidfdFlags::empty()) {
            Ok(fd) => Some(fd),
            Err(Errno::SRCH) => return Ok(None),
            // Kernels before 5.3 have no pidfds: the start time is compared before each signal.
            Err(_) => None,
        };
        let handle = Self { pid, start_ticks, pidfd, raw };
        Ok(handle.state().map(|_| handle))
    }

    /// State letter, as long as it is still that process.
    pub(crate) fn state(&self) -> Option<char> {
        state(self.pid).filter(|s| s.start_ticks == self.start_ticks).map(|s| s.letter)
    }

    /// Sends a signal; a process that is gone needs none.
    pub(crate) fn signal(&self, signal: Signal) -> Outcome<()> {
        if self.state().is_none() {
            return Ok(());
        }
        let sent = match &self.pidfd {
            Some(fd) => rustix::process::pidfd_send_signal(fd, signal),
            None => rustix::process::kill_process(self.raw, signal),
        };
        match sent {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(e) => Err(Fault::io(format!("send {signal:?} to process {}", self.pid), &e.into())),
        }
    }
}

/// SIGKILL to that very process, and waits until it is gone.
pub(crate) fn kill(pid: u32, start_ticks: u64) -> Outcome<()> {
    let Some(process) = Handle::open(pid, start_ticks)? else { return Ok(()) };
    process.signal(Signal::KILL)?;
    let start = Instant::now();
    while !matches!(process.state(), None | Some('Z' | 'X')) {
        if start.elapsed() > KILL_LIMIT {
            return Err(Fault::failed(format!("process {pid} did not end {KILL_LIMIT:?} after SIGKILL")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
