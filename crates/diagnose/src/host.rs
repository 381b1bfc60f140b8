//! Host: reachable, clock against the others, space on the file systems recovery writes to.

use crate::report::{Report, seen_at};
use rekindle_model::finding::{Evidence, Layer};
use rekindle_model::host::{DiskFacts, HostFacts};
use rekindle_model::inventory::Inventory;
use rekindle_model::{HostPath, Seen};

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
    let db_bytes = db_size(host);
    for (path, disk) in &host.disks {
        let title = format!("{path} has room");
        match disk {
            Seen::Unknown(why) => report.unknown(Layer::Host, Some(&host.id), &title, why),
            Seen::Known(disk) => one_disk(host, path, disk, db_bytes, &title, report),
        }
    }
}

fn one_disk(
    host: &HostFacts,
    path: &HostPath,
    disk: &DiskFacts,
    db_bytes: Option<u64>,
    title: &str,
    report: &mut Report,
) {
    let text = format!(
        "{} of {} free{}",
        mib(disk.free_bytes),
        mib(disk.total_bytes),
        if disk.read_only { ", mounted read-only" } else { "" }
    );
    let evidence = seen_at(&host.id, format!("statfs {path}"), &text);
    let is_etcd = host.etcd_config.known().is_some_and(|c| &c.data_dir == path);
    let needed = db_bytes.filter(|_| is_etcd).map(|bytes| bytes.saturating_mul(2));
    if disk.read_only || disk.free_bytes < FULL_BYTES {
        let what = if disk.read_only { "is mounted read-only" } else { "has no space left" };
        report.found("RK-H04", Some(&host.id), title, format!("{path} {what}"), evidence, vec![]);
    } else if let Some(needed) = needed.filter(|needed| disk.free_bytes < *needed) {
        let summary = format!("{path} has less than twice the size of etcd's db free ({})", mib(needed));
        report.found("RK-H03", Some(&host.id), title, summary, evidence, vec![]);
    } else if disk.free_bytes < disk.total_bytes / 20 {
        report.found("RK-H03", Some(&host.id), title, format!("{path} is nearly full"), evidence, vec![]);
    } else {
        report.ok(Layer::Host, Some(&host.id), title, text);
    }
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
