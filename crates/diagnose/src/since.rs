//! When the failure began: the earliest time that the evidence tells.

use crate::report::Report;
use rekindle_model::finding::Severity;
use rekindle_model::inventory::Inventory;

/// The earliest time, and what happened then; none when nothing failed, or nothing seen tells a time. Times after the
/// reading (a wrong clock) do not count.
pub(crate) fn earliest(inventory: &Inventory, report: &Report) -> Option<(i64, String)> {
    if !report.findings.iter().any(|f| f.severity == Severity::Failure) {
        return None;
    }
    report.times.iter().filter(|(at_ms, _)| *at_ms <= inventory.taken_ms).min().cloned()
}
