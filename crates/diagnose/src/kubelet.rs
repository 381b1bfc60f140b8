//! kubelet: its unit, its health, and what its last words say.

use crate::logs;
use crate::report::{Report, seen_at};
use crate::runtime::state;
use rekindle_model::finding::Layer;
use rekindle_model::host::{HostFacts, Layout};
use rekindle_model::inventory::Inventory;
use rekindle_model::{HostId, Seen};

const TITLE: &str = "kubelet runs";
const HEALTH: &str = "kubelet is healthy";

/// The hosts whose kubelet is stopped and must be started.
pub(crate) fn check(inventory: &Inventory, report: &mut Report) -> Vec<HostId> {
    let mut stopped = Vec::new();
    for host in inventory.hosts.iter().filter(|h| h.unreachable.is_none() && h.layout != Layout::None) {
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
                health(host, report);
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
