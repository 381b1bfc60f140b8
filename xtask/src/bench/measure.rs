//! Time and peak memory of a command.

use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What one run of a command took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Wall time.
    pub(super) time: Duration,
    /// Highest resident memory, MiB; sampled from the kernel's own high-water mark every 2 ms.
    pub(super) peak_mib: u64,
}

/// Runs a command to its end; it must succeed.
pub(super) fn once(command: &mut Command) -> Result<Cost> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let mut peak_kib = 0;
    let status = loop {
        peak_kib = peak_kib.max(high_water(child.id()));
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(Cost { time: start.elapsed(), peak_mib: peak_kib / 1024 })
}

/// The most memory that a process or one that it started has had, in KiB: what runs on a test host is started there
/// by a process that only waits for it.
fn high_water(pid: u32) -> u64 {
    let started = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let started = started.split_whitespace().filter_map(|pid| pid.parse().ok());
    [pid].into_iter().chain(started).filter_map(high_water_of).max().unwrap_or(0)
}

pub(super) fn high_water_of(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().trim_end_matches(" kB").parse().ok()
}

/// The median of several runs, by time; `before` prepares each.
pub(super) fn median(
    runs: usize,
    mut before: impl FnMut() -> Result<()>,
    mut command: impl FnMut() -> Command,
) -> Result<Cost> {
    let mut costs = Vec::new();
    for _ in 0..runs.max(1) {
        before()?;
        costs.push(once(&mut command())?);
    }
    costs.sort_by_key(|cost| cost.time);
    costs.get(costs.len() / 2).copied().context("no run")
}
