//! Control groups of a test host: one group per hierarchy, below the group this process is in, never above.
//!
//! Each host gets its own tree, so that its systemd and kubelet see a root of their own, and so that everything
//! it ever started can be found and ended: a process belongs to a host exactly when it is in the host's groups.

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

/// The folder, in each hierarchy, above the groups of all test hosts of lane 0; other lanes add their suffix.
const PARENT: &str = "rekindle-testbed";

/// The paths of a host's groups, one per mounted hierarchy (v1 controllers, `name=systemd`, v2).
///
/// # Errors
/// When `/proc/self/cgroup` or `/proc/self/mounts` cannot be read, or no hierarchy is mounted.
pub fn groups_of(host: &str) -> Result<Vec<Utf8PathBuf>> {
    let own = fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let lane = crate::cache::lane_suffix()?;
    let mut groups = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        if let Some(mount) = mount_of(controllers, &mounts) {
            // A process that a test host left behind must not nest the next one's groups below the old ones.
            let path = path.split(&format!("/{PARENT}")).next().unwrap_or(path);
            let parent = format!("{PARENT}{lane}");
            groups.push(mount.join(path.trim_start_matches('/')).join(parent).join(host));
        }
    }
    anyhow::ensure!(!groups.is_empty(), "no cgroup hierarchy is mounted on this machine");
    Ok(groups)
}

/// Where a hierarchy is mounted; no controllers means cgroup v2.
fn mount_of(controllers: &str, mounts: &str) -> Option<Utf8PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (target, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let hit = if controllers.is_empty() {
            kind == "cgroup2"
        } else {
            kind == "cgroup" && controllers.split(',').all(|c| options.split(',').any(|o| o == c))
        };
        hit.then(|| Utf8PathBuf::from(target))
    })
}

/// Makes the groups. A v1 cpuset needs its cpus and memory nodes named before anything may join.
///
/// # Errors
/// When a group cannot be made.
pub fn make(groups: &[Utf8PathBuf]) -> Result<()> {
    for group in groups {
        fs::create_dir_all(group).with_context(|| format!("cannot make control group {group}"))?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let chain: Vec<&Utf8Path> = group.ancestors().take(2).collect();
            for dir in chain.into_iter().rev() {
                let (Some(parent), path) = (dir.parent(), dir.join(file)) else { continue };
                let Ok(value) = fs::read_to_string(&path) else { continue };
                if value.trim().is_empty() {
                    let inherited = fs::read_to_string(parent.join(file)).unwrap_or_default();
                    fs::write(&path, inherited.trim()).with_context(|| format!("cannot write {path}"))?;
                }
            }
        }
    }
    Ok(())
}

/// The ids of all processes in the groups and below.
#[must_use]
pub fn pids(groups: &[Utf8PathBuf]) -> BTreeSet<u32> {
    let mut pids = BTreeSet::new();
    let mut dirs: Vec<Utf8PathBuf> = groups.to_vec();
    while let Some(dir) = dirs.pop() {
        let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        pids.extend(procs.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
        dirs.extend(subdirs(&dir));
    }
    pids
}

fn subdirs(dir: &Utf8Path) -> Vec<Utf8PathBuf> {
    dir.read_dir_utf8()
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path().to_owned())
        .collect()
}

/// Removes the groups and all below them. Processes in them must have ended; the kernel needs a moment after.
///
/// # Errors
/// When one is still busy after some seconds.
pub fn remove(groups: &[Utf8PathBuf]) -> Result<()> {
    let start = Instant::now();
    loop {
        let busy = groups.iter().find_map(|group| remove_tree(group).err());
        match busy {
            None => return Ok(()),
            Some(error) if start.elapsed() > Duration::from_secs(10) => return Err(error),
            Some(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Removes the empty folders above the groups of all test hosts.
///
/// # Errors
/// When a host's group is still in one.
pub fn remove_parents() -> Result<()> {
    let groups = groups_of("none")?;
    remove(&groups.iter().filter_map(|group| group.parent()).map(Utf8Path::to_owned).collect::<Vec<_>>())
}

/// Removes one tree of groups, leaves first: a group is a folder that only `rmdir` removes.
fn remove_tree(group: &Utf8Path) -> Result<()> {
    let mut all = vec![group.to_owned()];
    let mut next = 0;
    while let Some(dir) = all.get(next).cloned() {
        all.extend(subdirs(&dir));
        next += 1;
    }
    for dir in all.iter().rev() {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove control group {dir}"));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // A machine may run cgroup v1, v2 or both: each hierarchy is found by what its mount says.
    #[test]
    fn hierarchies_are_found_by_their_mounts() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_of("cpu,cpuacct", mounts).unwrap(), "/sys/fs/cgroup/cpu,cpuacct");
        assert_eq!(mount_of("name=systemd", mounts).unwrap(), "/sys/fs/cgroup/systemd");
        assert_eq!(mount_of("", mounts).unwrap(), "/sys/fs/cgroup/unified");
        assert_eq!(mount_of("hugetlb", mounts), None);
    }
}
