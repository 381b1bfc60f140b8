//! Nodes: Ready, and their leases renewed: a Ready condition in a restored store is stale.

use crate::report::Report;
use rekindle_model::Seen;
use rekindle_model::finding::{Evidence, Layer};
use rekindle_model::inventory::{Inventory, NodeFacts};

/// kubelet renews every 10 s and is given up after 40 to 50 s.
const STALE_MS: i64 = 60_000;

pub(crate) fn check(inventory: &Inventory, report: &mut Report) {
    match &inventory.cluster.nodes {
        Seen::Unknown(why) => report.unknown(Layer::Nodes, None, "nodes are Ready", why),
        Seen::Known(nodes) => {
            for node in nodes {
                one(inventory, node, report);
            }
        }
    }
}

fn one(inventory: &Inventory, node: &NodeFacts, report: &mut Report) {
    let title = format!("node {} is Ready", node.name);
    let host = inventory.hosts.iter().find(|h| node.is_on(h)).map(|h| &h.id);
    let condition = Evidence {
        source: format!("nodes/{}", node.name),
        text: format!("Ready={}: {}", node.ready, node.reason),
    };
    let age_ms = node.lease_renewed_ms.map(|renewed| inventory.taken_ms.saturating_sub(renewed));
    let lease = Evidence {
        source: format!("leases kube-node-lease/{}", node.name),
        text: age_ms
            .map_or_else(|| "never renewed".into(), |age| format!("renewed {age} ms before the reading")),
    };
    if node.ready != "True" {
        report.time(node.lease_renewed_ms, format!("node {} renewed its lease for the last time", node.name));
        let summary = format!("node {} is not Ready ({})", node.name, node.ready);
        report.found("RK-N01", host, &title, summary, condition, vec![lease]);
    } else if age_ms.is_none_or(|age| age > STALE_MS) {
        let summary = format!("node {} says Ready but does not renew its lease", node.name);
        report.found("RK-N02", host, &title, summary, lease, vec![condition]);
    } else {
        report.ok(Layer::Nodes, host, &title, "");
    }
}
