//! What could be lost now, as Prometheus text (<https://prometheus.io/docs/instrumenting/exposition_formats/>) and as a word
//! on health.

use super::Agent;
use super::state::State;
use rekindle_agent::{Health, Rpo};
use std::fmt::Write;

/// What the agent counts beside the stream.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Attempts to store, or to take a full, that failed.
    pub(super) errors: u64,
    pub(super) last_error: Option<String>,
    /// Nothing was stored since.
    pub(super) is_failing: bool,
    /// Segments stored.
    pub(super) segments: u64,
    /// Merged segments stored.
    pub(super) merged: u64,
    pub(super) spool_bytes: u64,
}

/// `/metrics`
pub(super) fn text(agent: &Agent) -> String {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    render(&agent.health.borrow(), &agent.state(), &agent.tally(), now_ms)
}

/// `/healthz`: what is wrong, if anything is.
pub(super) fn complaints(agent: &Agent) -> Vec<String> {
    let health = agent.health.borrow();
    let mut complaints = Vec::new();
    if let Rpo::Unknown { why, .. } = &health.rpo {
        complaints.push(format!("what would be lost is not known: {why}"));
    }
    if health.spool_full {
        complaints.push("the spool is full: nothing is received".into());
    }
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let overdue_ms = 2 * i64::try_from(agent.settings.full_interval.as_millis()).unwrap_or(i64::MAX / 2);
    match agent.state().last_full {
        None => complaints.push("there is no full backup of this timeline yet".into()),
        Some(full) if now_ms - full.taken_ms > overdue_ms => {
            complaints.push(format!("the newest full is {} s old", seconds(now_ms - full.taken_ms)));
        }
        Some(_) => {}
    }
    complaints
}

fn render(health: &Health, state: &State, tally: &Tally, now_ms: i64) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, value: String| {
        // writing to a String can't fail
        let _ = write!(text, "# HELP rekindle_agent_{name} {help}\n# TYPE rekindle_agent_{name} {kind}\n");
        let _ = writeln!(text, "rekindle_agent_{name} {value}");
    };
    let rpo = match health.rpo {
        Rpo::Known { proved_ms } => seconds(now_ms - proved_ms),
        Rpo::Unknown { .. } => "NaN".into(),
    };
    let number = |number: Option<i64>| number.map_or("NaN".into(), |number| number.to_string());
    let gaps = health.gaps.len().to_string();
    let full_age = state.last_full.map(|full| seconds(now_ms - full.taken_ms));
    metric("rpo_seconds", "gauge", "What a loss of the cluster would cost now; NaN: not known.", rpo);
    metric("durable_revision", "gauge", "Newest revision on this disk.", health.durable_revision.to_string());
    let highest = number(health.highest_revision);
    metric("member_highest_revision", "gauge", "Highest revision of any member.", highest);
    let stored = number(state.stored_revision);
    metric("stored_revision", "gauge", "Newest revision of the stream in the vault.", stored);
    metric("last_full_age_seconds", "gauge", "Age of the newest full.", full_age.unwrap_or("NaN".into()));
    metric(
        "spool_bytes",
        "gauge",
        "Bytes on this disk that wait for the vault.",
        tally.spool_bytes.to_string(),
    );
    let full = u8::from(health.spool_full).to_string();
    metric("spool_full", "gauge", "1: the spool is full, nothing is received.", full);
    metric("segments_stored_total", "counter", "Segments put into the vault.", tally.segments.to_string());
    let merged = tally.merged.to_string();
    metric("merged_segments_stored_total", "counter", "Segments that were merged of smaller ones.", merged);
    metric(
        "store_errors_total",
        "counter",
        "Failed attempts to store or take backups.",
        tally.errors.to_string(),
    );
    metric("gaps_total", "counter", "Times that etcd had compacted what was due.", gaps);
    metric("watches_total", "counter", "Times that the watch was opened.", health.watches.to_string());
    let proofs = health.proofs.to_string();
    metric("proofs_total", "counter", "Full HashKVs that members computed for this agent.", proofs);
    let took = health.last_proof.as_ref().map(|proof| proof.took.as_secs_f64().to_string());
    let help = "How long a member needed for the newest of them.";
    metric("last_proof_duration_seconds", "gauge", help, took.unwrap_or("NaN".into()));
    if let Some(error) = &tally.last_error {
        let error = error.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(
            text,
            "# HELP rekindle_agent_last_error_info The last failure.\n# TYPE rekindle_agent_last_error_info gauge\n"
        );
        let _ = writeln!(text, "rekindle_agent_last_error_info{{error=\"{error}\"}} 1");
    }
    text
}

fn seconds(ms: i64) -> String {
    let ms = ms.max(0);
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle_vault::ClusterName;
    use rekindle_vault::manifest::{ClusterIdentity, TimelineRef};

    // What is not known must never read as "nothing would be lost"; an error of somebody else's words must not become metrics.
    #[test]
    fn unknown_is_not_a_number() {
        let state = State {
            vault: "/v".into(),
            cluster: ClusterName::new("c").unwrap(),
            timeline: TimelineRef { id: "t".into(), parent: None, fork_revision: None },
            identity: ClusterIdentity::default(),
            stored_revision: Some(7),
            last_full: None,
        };
        let last_error = Some("no \"disk\"\nrekindle_agent_rpo_seconds 0".into());
        let tally = Tally { last_error, ..Tally::default() };
        let mut health = Health::default();
        let text = render(&health, &state, &tally, 5000);
        assert!(text.contains("\nrekindle_agent_rpo_seconds NaN\n"), "{text}");
        assert!(text.contains("\nrekindle_agent_last_full_age_seconds NaN\n"), "{text}");
        assert!(!text.contains("\nrekindle_agent_rpo_seconds 0"), "{text}");
        health.rpo = Rpo::Known { proved_ms: 4660 };
        assert!(render(&health, &state, &tally, 5000).contains("\nrekindle_agent_rpo_seconds 0.340\n"));
    }
}
