//! What the kernel must allow, so that the hosts of several clusters run side by side.

use anyhow::{Context, Result};
use std::fs;

/// Each systemd, kubelet and containerd has some inotify instances, and all hosts are one user's. With the kernel's 128 the
/// second cluster ends with "Too many open files".
const INOTIFY_INSTANCES: u64 = 1024;

const PATH: &str = "/proc/sys/fs/inotify/max_user_instances";

/// Raises what is too low; it stays so until the machine boots.
///
/// # Errors
/// When it cannot be read or written.
pub(crate) fn raise() -> Result<()> {
    let now = fs::read_to_string(PATH).with_context(|| format!("cannot read {PATH}"))?;
    let enough = now.trim().parse::<u64>().is_ok_and(|now| now >= INOTIFY_INSTANCES);
    if !enough {
        fs::write(PATH, INOTIFY_INSTANCES.to_string()).with_context(|| format!("cannot write {PATH}"))?;
    }
    Ok(())
}
