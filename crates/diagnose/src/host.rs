//! Host: reachable, clock against the others, space on the file systems recovery writes to.

use crate::report::{Report, seen_at};
use rekindle_model::finding::{Evidence, Layer};
use rekindle_model::host::{DiskFacts, HostFacts};
use rekindle_model::inventory::Inventory;
use rekindle_model::{HostPath, Seen};
use std::collections::BTreeMap;

/// Clocks of control-plane hosts should not differ by more (etcd warns from here on).
const CLOCK_MAX_MS: i64 = 1_000;
/// Below this a file system counts as full.
const FULL_BYTES: u64 = 16 << 20;

pub(crate) fn check(inventory: &Inventory, report: &mut Report) {
    for host in &inventory.hosts {
        reachable(inventory, host, report);
        if host.unreachable.is_none() {
            disks(host, report);
        }
    }
    clocks(inventory, report);
}

fn reachable(inventory: &Inventory, host: &HostFacts, report: &mut Report) {
    let title = "host is reachable";
    if inventory.lost_hosts.contains(&host.id) {
        let text = match &host.unreachable {
            Some(why) => format!("attested with --lost; {why}"),
            None => "attested with --lost, but the host answers".into(),
        };
        let summary = format!("{} is attested lost", host.id);
        report.found("RK-H02", Some(&host.id), title, summary, seen_at(&host.id, "--lost", text), vec![]);
    } else if let Some(why) = &host.unreachable {
        let summary = format!("{} cannot be reached", host.id);
        report.found("RK-H01", Some(&host.id), title, summary, seen_at(&host.id, "connection", why), vec![]);
    } else {
        report.ok(Layer::Host, Some(&host.id), title, "");
    }
}

fn disks(host: &HostFacts, report: &mut Report) {
    // several of the paths usually lie on one file system: it is told of once
    let mut by_device: BTreeMap<u64, (Vec<&HostPath>, &DiskFacts)> = BTreeMap::new();
    for (path, disk) in &host.disks {
        match disk {
            Seen::Unknown(why) => {
                report.unknown(Layer::Host, Some(&host.id), &format!("{path} has room"), why)
            }
            Seen::Known(disk) => by_device.entry(disk.device).or_insert((Vec::new(), disk)).0.push(path),
        }
    }
    for (paths, disk) in by_device.into_values() {
        file_system(host, &paths, disk, report);
    }
}

fn file_system(host: &HostFacts, paths: &[&HostPath], disk: &DiskFacts, report: &mut Report) {
    let names: Vec<&str> = paths.iter().map(|path| path.as_str()).collect();
    let names = names.join(", ");
    let title = format!("disk has room ({names})");
    let mode = if disk.read_only { ", mounted read-only" } else { "" };
    let text = format!("{} of {} free{mode}", mib(disk.free_bytes), mib(disk.total_bytes));
    let evidence = seen_at(&host.id, format!("statfs {names}"), &text);
    let is_etcd = host.etcd_config.known().is_some_and(|c| paths.contains(&&c.data_dir));
    let needed = db_size(host).filter(|_| is_etcd).map(|bytes| bytes.saturating_mul(2));
    let (code, what) = if disk.read_only {
        ("RK-H04", format!("the file system of {names} on {} is mounted read-only", host.id))
    } else if disk.free_bytes < FULL_BYTES {
        ("RK-H04", format!("the file system of {names} on {} has no space left", host.id))
    } else if let Some(needed) = needed.filter(|needed| disk.free_bytes < *needed) {
        let twice = format!("less free than twice the size of etcd's db ({})", mib(needed));
        ("RK-H03", format!("the file system of {names} on {} has {twice}", host.id))
    } else if disk.free_bytes < disk.total_bytes / 20 {
        ("RK-H03", format!("the file system of {names} on {} is nearly full", host.id))
    } else {
        report.ok(Layer::Host, Some(&host.id), &title, text);
        return;
    };
    report.found(code, Some(&host.id), &title, what, evidence, vec![]);
}

/// Size of this host's etcd db: as the member says, as it lies there, or as a process still holds it open.
fn db_size(host: &HostFacts) -> Option<u64> {
    let live = host.etcd_live.known().and_then(|l| l.status.known()).map(|s| s.db_size_bytes);
    let disk = host.etcd_data.known().and_then(|d| d.db.known()).map(|d| d.size_bytes);
    live.and_then(|bytes| u64::try_from(bytes).ok()).or(disk)
}

fn clocks(inventory: &Inventory, report: &mut Report) {
    let title = "clock agrees with the other hosts";
    let mut read: Vec<(i64, i64, &HostFacts)> = Vec::new();
    for host in inventory.hosts.iter().filter(|h| h.unreachable.is_none()) {
        match &host.clock {
            Seen::Known(clock) => read.push((clock.offset_ms, clock.uncertainty_ms, host)),
            Seen::Unknown(why) => report.unknown(Layer::Host, Some(&host.id), title, why),
        }
    }
    if read.len() < 2 {
        return;
    }
    let mut offsets: Vec<i64> = read.iter().map(|(offset, ..)| *offset).collect();
    offsets.sort_unstable();
    let Some(median) = offsets.get(offsets.len().saturating_sub(1) / 2).copied() else { return };
    for (offset, uncertainty, host) in read {
        let away = offset.saturating_sub(median);
        if away.saturating_abs().saturating_sub(uncertainty) > CLOCK_MAX_MS {
            let summary = format!("the clock of {} is {away} ms away from the other hosts'", host.id);
            let text = format!(
                "{offset} ms against this machine (± {uncertainty} ms); the others' median {median} ms"
            );
            let evidence: Evidence = seen_at(&host.id, "clock", text);
            report.found("RK-H05", Some(&host.id), title, summary, evidence, vec![]);
        } else {
            report.ok(Layer::Host, Some(&host.id), title, "");
        }
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
