//! API servers on their own hosts, and the address in front of them.

use crate::logs;
use crate::report::{Report, seen_at};
use rekindle_model::Seen;
use rekindle_model::finding::{Evidence, Layer};
use rekindle_model::host::{ApiProbe, Component, HostFacts, Layout};
use rekindle_model::inventory::Inventory;

/// What says that something was asked and did not answer, as against not asked or not allowed to.
const NO_ANSWER: &[&str] = &[
    "refused",
    "no connection",
    "timed out",
    "timeout",
    "no answer",
    "reset",
    "no route",
    "unreachable",
    "closed",
    "eof",
];

pub(crate) fn check(inventory: &Inventory, report: &mut Report) {
    for host in inventory.hosts.iter().filter(|h| h.unreachable.is_none() && h.layout != Layout::None) {
        local(host, report);
    }
    endpoint(inventory, report);
}

fn local(host: &HostFacts, report: &mut Report) {
    let title = "API server is ready";
    let probe = match &host.api {
        Seen::Known(probe) => probe,
        Seen::Unknown(why) => {
            report.unknown(Layer::ApiServer, Some(&host.id), title, why);
            return;
        }
    };
    let call = format!("{}/readyz", probe.server);
    let mut more: Vec<Evidence> =
        probe.failing_checks.iter().map(|line| seen_at(&host.id, &call, line)).collect();
    let said = logs::component(host, Component::KubeApiserver, logs::API_STORAGE);
    match &probe.readyz {
        Seen::Known(200) => report.ok(Layer::ApiServer, Some(&host.id), title, ""),
        Seen::Known(status) => {
            if let Some(hit) = said {
                report.time(hit.at_ms, hit.said());
                more.push(hit.evidence);
            }
            let first = seen_at(&host.id, &call, format!("status {status}"));
            let summary = format!("the API server on {} is not ready", host.id);
            report.found("RK-A02", Some(&host.id), title, summary, first, more);
        }
        Seen::Unknown(why) if logs::matches(why, NO_ANSWER) => {
            more.extend(said.map(|hit| hit.evidence));
            let summary = format!("the API server on {} does not answer", host.id);
            report.found("RK-A01", Some(&host.id), title, summary, seen_at(&host.id, &call, why), more);
        }
        Seen::Unknown(why) => report.unknown(Layer::ApiServer, Some(&host.id), title, why),
    }
}

fn endpoint(inventory: &Inventory, report: &mut Report) {
    let title = "control-plane endpoint is ready";
    let cluster = &inventory.cluster;
    let Seen::Known(address) = &cluster.control_plane_endpoint else {
        let why = cluster.control_plane_endpoint.why_unknown().unwrap_or_default();
        report.unknown(Layer::Vip, None, title, why);
        return;
    };
    let text = match &cluster.endpoint_readyz {
        Seen::Known(200) => {
            report.ok(Layer::Vip, None, title, address);
            return;
        }
        Seen::Known(status) => format!("status {status}"),
        Seen::Unknown(why) if logs::matches(why, NO_ANSWER) => why.clone(),
        Seen::Unknown(why) => {
            report.unknown(Layer::Vip, None, title, why);
            return;
        }
    };
    let ready: Vec<Evidence> = inventory
        .hosts
        .iter()
        .filter_map(|h| Some((h, h.api.known().filter(|api| api.is_ready())?)))
        .map(|(host, api): (_, &ApiProbe)| seen_at(&host.id, format!("{}/readyz", api.server), "status 200"))
        .collect();
    let first = Evidence { source: format!("{address}/readyz"), text };
    if ready.is_empty() {
        let summary = format!("{address} does not answer, nor does any API server behind it");
        report.found("RK-A04", None, title, summary, first, ready);
    } else {
        let summary = format!("{address} does not answer, though API servers behind it are ready");
        report.found("RK-A03", None, title, summary, first, ready);
    }
}
