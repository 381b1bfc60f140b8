//! Whether there is room: a full disk must be found before anything is touched.

use crate::survey::{Context, Member};
use crate::words::mebibytes;
use rekindle_model::host::{DiskFacts, HostFacts};
use rekindle_model::{HostId, HostPath};

/// What a new WAL takes beside the db: etcd sets one segment of 64 MiB aside, and another when it is half full.
const WAL_BYTES: u64 = 128 * 1024 * 1024;

/// More files and folders than one host's part of a restore makes.
const INODES: u64 = 64;

/// The reasons why there is not enough room, with figures; empty when there is, or when it is not known.
pub(crate) fn lacking(
    context: &Context<'_>,
    members: &[Member<'_>],
    db_bytes: u64,
    saved_bytes: u64,
) -> Vec<String> {
    let mut lacking = Vec::new();
    let run_dir = &context.goal.run_dir;
    let local = context.inventory.host(&HostId::local());
    let build = db_bytes.saturating_add(saved_bytes);
    let run_disk = local.and_then(|h| disk(h, run_dir));
    let mut run_device = run_disk.map(|d| d.device);
    for member in members {
        let data_dir = context.goal.data_dir.as_ref().unwrap_or(&member.config.data_dir);
        let Some(disk) = disk(member.host, data_dir) else { continue };
        let mut needed = db_bytes.saturating_add(WAL_BYTES);
        let mut what = "the new data dir";
        if member.host.id.is_local() && run_device == Some(disk.device) {
            needed = needed.saturating_add(build);
            what = "the new data dir and the run's folder";
            run_device = None;
        }
        check(&mut lacking, &member.host.id, data_dir, disk, needed, what);
    }
    if let (Some(host), Some(disk), Some(_)) = (local, run_disk, run_device) {
        check(&mut lacking, &host.id, run_dir, disk, build, "the run's folder");
    }
    lacking
}

fn check(
    lacking: &mut Vec<String>,
    host: &HostId,
    path: &HostPath,
    disk: &DiskFacts,
    needed: u64,
    what: &str,
) {
    if disk.read_only {
        lacking.push(format!("the file system of {path} on {host} is mounted read-only"));
    } else if disk.free_bytes < needed {
        let (needed, free) = (mebibytes(needed), mebibytes(disk.free_bytes));
        lacking.push(format!(
            "{host} needs {needed} for {what} on the file system of {path}, which has {free} free"
        ));
    } else if let Some(free) = disk.free_inodes.filter(|free| *free < INODES) {
        lacking.push(format!(
            "{host} needs {INODES} inodes for {what} on the file system of {path}, which has {free} free inodes"
        ));
    }
}

/// The file system a path lies on: asked for by that very path, or by its nearest parent that was asked for.
fn disk<'h>(host: &'h HostFacts, path: &HostPath) -> Option<&'h DiskFacts> {
    path.ancestors().find_map(|a| host.disks.get(&HostPath::from(a))?.known())
}
