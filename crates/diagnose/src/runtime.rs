//! Container runtime: its unit, and whether it answers through CRI.

use crate::logs;
use crate::report::{Report, seen_at};
use rekindle_model::Seen;
use rekindle_model::finding::Layer;
use rekindle_model::host::{HostFacts, Layout, UnitFacts};
use rekindle_model::inventory::Inventory;

/// Units of container runtimes, as their projects name them.
const RUNTIMES: &[&str] = &["containerd", "crio"];

pub(crate) fn check(inventory: &Inventory, report: &mut Report) {
    let pods = |h: &&HostFacts| h.unreachable.is_none() && h.layout == Layout::StaticPods;
    for host in inventory.hosts.iter().filter(pods) {
        unit(host, report);
        match &host.containers {
            Seen::Known(all) => {
                let running = all.iter().filter(|c| c.running).count();
                let detail = format!("{running} control-plane containers running");
                report.ok(Layer::Runtime, Some(&host.id), "containers can be listed", detail);
            }
            Seen::Unknown(why) => {
                report.unknown(Layer::Runtime, Some(&host.id), "containers can be listed", why);
            }
        }
    }
}

fn unit(host: &HostFacts, report: &mut Report) {
    let found = RUNTIMES.iter().find_map(|name| Some((*name, host.unit(name).filter(|u| u.exists())?)));
    let Some((name, unit)) = found else {
        report.unknown(
            Layer::Runtime,
            Some(&host.id),
            "container runtime runs",
            "no unit of a known runtime was read",
        );
        return;
    };
    let title = format!("{name} runs");
    if unit.is_active() {
        report.ok(Layer::Runtime, Some(&host.id), &title, "");
        return;
    }
    let mut more = Vec::new();
    if let Some(last) = logs::last_words(host, name) {
        report.time(last.at_ms, format!("last line of {name} on {}", host.id));
        more.push(last.evidence);
    }
    let evidence = seen_at(&host.id, format!("systemctl show {name}"), state(unit));
    report.found(
        "RK-R01",
        Some(&host.id),
        &title,
        format!("{name} is {}", unit.active_state),
        evidence,
        more,
    );
}

/// A unit's state on one line, in systemd's words.
pub(crate) fn state(unit: &UnitFacts) -> String {
    format!(
        "LoadState={} ActiveState={} SubState={} Result={} ExecMainStatus={} NRestarts={}",
        unit.load_state, unit.active_state, unit.sub_state, unit.result, unit.exit_status, unit.restarts
    )
}
