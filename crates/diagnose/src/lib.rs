//! Inventory to diagnosis: pure, synchronous, deterministic.
//!
//! Rules by layer, lowest first: [`host`], [`certificates`], [`runtime`], [`kubelet`], [`etcd`] (the verdicts recovery is planned by),
//! [`control_plane`], [`api`], [`leases`], [`nodes`]. Each adds check lines and findings to a [`report::Report`];
//! [`causes`] then marks what follows from what. What is judged through the API alone stands apart: [`fleet`] (all
//! nodes), [`stuck`] (objects that will not go away), and both together for a provider's cluster ([`managed`]). Codes, titles and remedies stand in [`codes`] alone.
//!
//! Three principles. A finding quotes what was read and where. What could not be read is an unknown check line, never a
//! finding. A log line is evidence for a fact, not a verdict where a fact says otherwise.

mod api;
mod causes;
pub mod certificates;
pub mod codes;
mod control_plane;
mod etcd;
pub mod fleet;
mod host;
mod kubelet;
mod leases;
mod logs;
pub mod managed;
mod manifest;
mod nodes;
mod report;
mod runtime;
mod since;
pub mod stuck;

use rekindle_model::diagnosis::Diagnosis;
use rekindle_model::inventory::Inventory;

/// What the inventory means: the same inventory always gives the same diagnosis.
pub fn diagnose(inventory: &Inventory) -> Diagnosis {
    let mut report = report::Report::default();
    host::check(inventory, &mut report);
    certificates::check(inventory, &mut report);
    runtime::check(inventory, &mut report);
    let kubelets_stopped = kubelet::check(inventory, &mut report);
    let etcd = etcd::judge(inventory);
    let components = control_plane::check(inventory, &etcd, &mut report);
    etcd::check(inventory, &etcd, &mut report);
    api::check(inventory, &mut report);
    leases::check(inventory, &mut report);
    nodes::check(inventory, &mut report);
    let failed_since = since::earliest(inventory, &report);
    let (checks, findings) = causes::link(report);
    Diagnosis {
        checks,
        findings,
        etcd: etcd.verdict,
        members: etcd.members.into_iter().map(|m| (m.host, m.verdict)).collect(),
        components,
        kubelets_stopped,
        failed_since,
    }
}
