//! kubelet: its unit, its process, its health, and what its last words say. Workers have one, too.

use crate::logs;
use crate::report::{Report, seen_at};
use crate::runtime::state;
use rekindle_model::finding::Layer;
use rekindle_model::host::{HostFacts, Layout, ProcessFacts, UnitFacts};
use rekindle_model::inventory::Inventory;
use rekindle_model::{HostId, Seen};

const TITLE: &str = "kubelet runs";
const HEALTH: &str = "kubelet is healthy";

/// The hosts whose kubelet is stopped and must be started.
pub(crate) fn check(inventory: &Inventory, report: &mut Report) -> Vec<HostId> {
    let mut stopped = Vec::new();
    let is_node =
        |h: &HostFacts| h.layout != Layout::None || h.unit("kubelet").is_some_and(UnitFacts::exists);
    for host in inventory.hosts.iter().filter(|h| h.unreachable.is_none() && is_node(h)) {
        let Some(unit) = host.unit("kubelet") else {
            let why = host.units.get("kubelet.service").and_then(Seen::why_unknown);
            report.unknown(Layer::Kubelet, Some(&host.id), TITLE, why.unwrap_or("its unit was not read"));
            continue;
        };
        if unit.load_state == "not-found" && host.layout == Layout::Units {
            // a control plane of units need not be a node
            continue;
        }
        let evidence = seen_at(&host.id, "systemctl show kubelet", state(unit));
        match unit.active_state.as_str() {
            "active" => {
                report.ok(Layer::Kubelet, Some(&host.id), TITLE, "");
                match frozen(host) {
                    Some(process) => held(host, process, report),
                    None => health(host, report),
                }
            }
            "activating" | "reloading" => {
                expired(host, report);
                let more = last_words(host, report);
                let summary = format!("kubelet on {} does not stay up", host.id);
                report.found("RK-K02", Some(&host.id), TITLE, summary, evidence, more);
            }
            _ => {
                expired(host, report);
                let more = last_words(host, report);
                let summary = format!("kubelet on {} is {}", host.id, unit.active_state);
                report.found("RK-K01", Some(&host.id), TITLE, summary, evidence, more);
                stopped.push(host.id.clone());
            }
        }
    }
    stopped
}

/// Its process, when a signal holds it: systemd calls such a unit active.
fn frozen(host: &HostFacts) -> Option<&ProcessFacts> {
    host.processes.known()?.iter().find(|process| process.name == "kubelet" && process.frozen)
}

fn held(host: &HostFacts, process: &ProcessFacts, report: &mut Report) {
    let text = "state T: stopped by a signal, or held by a debugger";
    let evidence = seen_at(&host.id, format!("/proc/{}/stat", process.pid), text);
    let more = logs::last_words(host, "kubelet").map(|hit| hit.evidence);
    let summary = format!("kubelet on {} is frozen: its process is there, and does nothing", host.id);
    report.found("RK-K04", Some(&host.id), HEALTH, summary, evidence, more.into_iter().collect());
}

fn health(host: &HostFacts, report: &mut Report) {
    match &host.kubelet_healthz {
        Seen::Known(true) => report.ok(Layer::Kubelet, Some(&host.id), HEALTH, ""),
        Seen::Unknown(why) => report.unknown(Layer::Kubelet, Some(&host.id), HEALTH, why),
        Seen::Known(false) => {
            expired(host, report);
            let more = last_words(host, report);
            let evidence = seen_at(&host.id, "http://127.0.0.1:10248/healthz", "not ok");
            let summary = format!("kubelet on {} runs but is not healthy", host.id);
            report.found("RK-K02", Some(&host.id), HEALTH, summary, evidence, more);
        }
    }
}

/// An expired client certificate is the cause of a kubelet that does not work; of one that does, an old line.
fn expired(host: &HostFacts, report: &mut Report) {
    if let Some(hit) = logs::unit(host, "kubelet", logs::CERT_EXPIRED) {
        report.time(hit.at_ms, format!("kubelet on {} says that its certificate has expired", host.id));
        let summary = format!("kubelet on {} says that its client certificate has expired", host.id);
        report.found(
            "RK-K03",
            Some(&host.id),
            "kubelet's certificate is valid",
            summary,
            hit.evidence,
            vec![],
        );
    }
}

fn last_words(host: &HostFacts, report: &mut Report) -> Vec<rekindle_model::finding::Evidence> {
    let fatal =
        logs::unit(host, "kubelet", logs::KUBELET_FATAL).or_else(|| logs::last_words(host, "kubelet"));
    let Some(hit) = fatal else { return Vec::new() };
    report.time(hit.at_ms, format!("last words of kubelet on {}", host.id));
    vec![hit.evidence]
}
