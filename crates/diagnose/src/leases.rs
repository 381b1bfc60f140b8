//! Leader leases of controller-manager and scheduler: held and renewed.

use crate::report::Report;
use rekindle_model::Seen;
use rekindle_model::finding::{Evidence, Layer};
use rekindle_model::host::{Component, HostFacts};
use rekindle_model::inventory::{Inventory, LeaseFacts};

/// Added to a lease's own duration before it counts as not renewed: clocks differ, and a new leader takes a moment.
const GRACE_MS: i64 = 15_000;

pub(crate) fn check(inventory: &Inventory, report: &mut Report) {
    match &inventory.cluster.leader_leases {
        Seen::Unknown(why) => report.unknown(Layer::Leases, None, "leader leases are renewed", why),
        Seen::Known(leases) => {
            for lease in leases {
                one(inventory, lease, report);
            }
        }
    }
}

fn one(inventory: &Inventory, lease: &LeaseFacts, report: &mut Report) {
    let title = format!("lease {} is renewed", lease.name);
    let age_ms = lease.renewed_ms.map(|renewed| inventory.taken_ms.saturating_sub(renewed));
    let limit_ms = lease.duration_seconds.saturating_mul(1_000).saturating_add(GRACE_MS);
    let text = match age_ms {
        Some(age) => format!("holder {:?}, renewed {age} ms before the reading", lease.holder),
        None => format!("holder {:?}, never renewed", lease.holder),
    };
    if age_ms.is_some_and(|age| age <= limit_ms) {
        report.ok(Layer::Leases, None, &title, text);
        return;
    }
    if let Some(able_ms) = able_for_ms(inventory, &lease.name).filter(|able_ms| *able_ms <= limit_ms) {
        let why = format!("{text}; {} could do so for {able_ms} ms, and waits the old lease out", lease.name);
        report.unknown(Layer::Leases, None, &title, why);
        return;
    }
    report.time(lease.renewed_ms, format!("lease {} was renewed for the last time", lease.name));
    let evidence = Evidence { source: format!("leases kube-system/{}", lease.name), text };
    let summary = format!("nobody renews the leader lease of {}", lease.name);
    report.found("RK-C09", None, &title, summary, evidence, vec![]);
}

/// How long a component has been able to take its lease: since both it and the API server on its host run, longest of all
/// hosts; none where neither is seen to run. One that starts waits a whole duration from when it first sees the lease,
/// however old that is (client-go `tools/leaderelection`).
fn able_for_ms(inventory: &Inventory, lease: &str) -> Option<i64> {
    let component = Component::ALL.into_iter().find(|c| c.name() == lease)?;
    let of_host = |host: &HostFacts| {
        let started_ms = host.process(component)?.started_ms;
        let api_ms = host.process(Component::KubeApiserver).map_or(started_ms, |p| p.started_ms);
        Some(inventory.taken_ms.saturating_sub(started_ms.max(api_ms)))
    };
    inventory.hosts.iter().filter_map(of_host).max()
}
