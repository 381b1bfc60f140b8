//! Leader leases of controller-manager and scheduler: held and renewed.

use crate::report::Report;
use rekindle_model::Seen;
use rekindle_model::finding::{Evidence, Layer};
use rekindle_model::inventory::{Inventory, LeaseFacts};

/// Added to a lease's own duration before it counts as not renewed: clocks differ, and a new leader takes a moment.
const GRACE_MS: i64 = 15_000;

pub(crate) fn check(inventory: &Inventory, report: &mut Report) {
    match &inventory.cluster.leader_leases {
        Seen::Unknown(why) => report.unknown(Layer::Leases, None, "leader leases are renewed", why),
        Seen::Known(leases) => {
            for lease in leases {
                one(inventory.taken_ms, lease, report);
            }
        }
    }
}

fn one(now_ms: i64, lease: &LeaseFacts, report: &mut Report) {
    let title = format!("lease {} is renewed", lease.name);
    let age_ms = lease.renewed_ms.map(|renewed| now_ms.saturating_sub(renewed));
    let limit_ms = lease.duration_seconds.saturating_mul(1_000).saturating_add(GRACE_MS);
    let text = match age_ms {
        Some(age) => format!("holder {:?}, renewed {age} ms before the reading", lease.holder),
        None => format!("holder {:?}, never renewed", lease.holder),
    };
    if age_ms.is_some_and(|age| age <= limit_ms) {
        report.ok(Layer::Leases, None, &title, text);
        return;
    }
    report.time(lease.renewed_ms, format!("lease {} was renewed for the last time", lease.name));
    let evidence = Evidence { source: format!("leases kube-system/{}", lease.name), text };
    let summary = format!("nobody renews the leader lease of {}", lease.name);
    report.found("RK-C09", None, &title, summary, evidence, vec![]);
}
