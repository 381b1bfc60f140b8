//! What earlier runs left to know: the revisions they raised stores to, a floor for the next one.

use super::ask::{QUICK, within};
use crate::host::Host;
use rekindle_model::HostPath;
use rekindle_model::inventory::EarlierRun;
use rekindle_model::report::RunReport;

/// Most runs looked at, the newest.
const MAX_RUNS: usize = 50;
/// Most bytes of one report.
const MAX_REPORT_BYTES: u64 = 8 << 20;

/// The runs kept on a host.
pub(super) async fn runs(host: &dyn Host, state_dir: &HostPath) -> Vec<EarlierRun> {
    let folder = state_dir.join("runs");
    let mut ids = within(host, QUICK, "list runs", host.list(&folder)).await.unwrap_or_default();
    // Ids sort by time.
    ids.sort_unstable();
    let mut found = Vec::new();
    for id in ids.iter().rev().take(MAX_RUNS) {
        let path = folder.join(id).join("report.json");
        let read = within(host, QUICK, "read a report", host.read(&path, MAX_REPORT_BYTES)).await;
        let report = read.ok().and_then(|bytes| serde_json::from_slice::<RunReport>(&bytes).ok());
        found.extend(report.and_then(|r| earlier(&r)));
    }
    found
}

fn earlier(report: &RunReport) -> Option<EarlierRun> {
    let revisions = [report.raised_to_revision, report.restored_revision];
    let last = revisions.into_iter().flatten().max()?;
    Some(EarlierRun {
        id: report.run_id.clone(),
        raised_to_revision: report.raised_to_revision.unwrap_or_default(),
        last_revision: last,
        ended_ms: report.timeline.last().map_or(0, |event| event.at_ms),
    })
}
