//! The report as Markdown: what is printed at the end and kept as `report.md`.

use crate::error::outcome_word;
use rekindle_model::Seen;
use rekindle_model::event::{Outcome, What};
use rekindle_model::report::{Rto, RunReport};
use std::fmt::Write;

/// Renders a report.
pub fn markdown(report: &RunReport) -> String {
    let mut text = String::new();
    let ended = match (report.outcome, &report.cluster) {
        (Outcome::Verified, Some(_)) => "done and verified",
        (Outcome::Partial, Some(_)) => "done in part",
        (outcome, _) => outcome_word(outcome),
    };
    let _ = writeln!(text, "# Run {}: {ended}\n\n{}\n", report.run_id, report.summary);
    if !report.findings.is_empty() {
        let _ = writeln!(text, "## What was wrong\n");
        for finding in &report.findings {
            let host = finding.host.as_ref().map(|host| format!(" on {host}")).unwrap_or_default();
            let _ = writeln!(text, "- {}{host}: {}", finding.code, finding.summary);
        }
        text.push('\n');
    }
    match &report.cluster {
        Some(cluster) => {
            let took = report.rto.run_to_verified_ms.map(|ms| format!("; took {}", seconds(ms)));
            let _ = writeln!(text, "Cluster: {}{}\n", cluster.server, took.unwrap_or_default());
        }
        None => recovery_time(&mut text, &report.rto),
    }
    recovery_point(&mut text, report);
    if !report.verifications.is_empty() {
        let _ = writeln!(text, "## Verified\n\n| | what | figures |\n|---|---|---|");
        for one in &report.verifications {
            let mark = match &one.held {
                Seen::Known(true) => "yes".to_owned(),
                Seen::Known(false) => "NO".to_owned(),
                Seen::Unknown(why) => format!("unknown: {why}"),
            };
            let _ = writeln!(text, "| {mark} | {} | {} |", cell(&one.what), cell(&one.figures));
        }
        text.push('\n');
    }
    if !report.moved.is_empty() {
        let _ = writeln!(text, "## Moved\n\n| host | from | to |\n|---|---|---|");
        for moved in &report.moved {
            let _ = writeln!(text, "| {} | {} | {} |", cell(&moved.host), moved.from, moved.to);
        }
        text.push('\n');
    }
    if !report.left_to_do.is_empty() {
        let _ = writeln!(text, "## Left to do\n");
        for line in &report.left_to_do {
            let _ = writeln!(text, "- {line}");
        }
        text.push('\n');
    }
    timeline(&mut text, report);
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn seconds(ms: i64) -> String {
    format!("{}.{} s", ms / 1000, ms.rem_euclid(1000) / 100)
}

fn time(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map_or_else(|_| at_ms.to_string(), |time| format!("{time:.3}"))
}

fn recovery_time(text: &mut String, rto: &Rto) {
    let told = |ms: Option<i64>| ms.map_or_else(|| "not reached".to_owned(), seconds);
    let _ = writeln!(text, "## RTO\n\n| | from the failure | from the start of the run |\n|---|---|---|");
    let _ = writeln!(
        text,
        "| until `/readyz` of every API server | {} | {} |",
        told(rto.to_ready_ms),
        told(rto.run_to_ready_ms)
    );
    let _ = writeln!(
        text,
        "| until verified | {} | {} |\n",
        told(rto.to_verified_ms),
        told(rto.run_to_verified_ms)
    );
    let _ = writeln!(text, "Start of the clock: {} ({}).\n", time(rto.from_ms), rto.from_evidence);
    if !rto.by_phase_ms.is_empty() {
        let phases: Vec<String> = rto
            .by_phase_ms
            .iter()
            .map(|(phase, ms)| format!("{} {}", format!("{phase:?}").to_lowercase(), seconds(*ms)))
            .collect();
        let _ = writeln!(text, "By phase (time at least one host was at it): {}.\n", phases.join(", "));
    }
}

fn recovery_point(text: &mut String, report: &RunReport) {
    let Some(restored) = report.restored_revision else { return };
    let _ = writeln!(text, "## RPO\n");
    let lost = match &report.rpo.lost_end_revision {
        Seen::Known(last) => {
            format!("last revision acknowledged: {last}; lost: {}", (last - restored).max(0))
        }
        Seen::Unknown(why) => format!("last revision acknowledged: unknown ({why})"),
    };
    let _ = writeln!(text, "- revision restored: {restored}; {lost}");
    if let Some(raised) = report.raised_to_revision {
        let _ = writeln!(text, "- store raised to revision {raised}");
    }
    match &report.rpo.time_lost_seconds {
        Seen::Known(seconds) => {
            let _ = writeln!(text, "- time lost: at most {seconds} s");
        }
        Seen::Unknown(why) => {
            let _ = writeln!(text, "- time lost: unknown ({why})");
        }
    }
    let _ = writeln!(text, "- evidence: {}\n", report.rpo.evidence);
}

fn timeline(text: &mut String, report: &RunReport) {
    let _ = writeln!(text, "## Timeline\n\n| time (UTC) | |\n|---|---|");
    for event in &report.timeline {
        let line = match &event.what {
            What::RunStarted { resumed: false, .. } => "run started".to_owned(),
            What::RunStarted { resumed: true, .. } => "run taken up again".to_owned(),
            What::PhaseStarted { phase } => format!("phase {}", format!("{phase:?}").to_lowercase()),
            What::StepStarted { step, host, summary, .. } => {
                let host = host.as_ref().map_or("local", |host| host.0.as_str());
                format!("step {step} on {host}: {summary}")
            }
            What::StepDone { step, .. } => format!("step {step} done"),
            What::StepFailed { step, error } => format!("step {step} FAILED: {}", error.join(": ")),
            What::UndoStarted { step } => format!("taking back step {step}"),
            What::UndoDone { step } => format!("step {step} taken back"),
            What::UndoFailed { step, error } => {
                format!("taking back step {step} FAILED: {}", error.join(": "))
            }
            What::RunEnded { outcome } => format!("run ended: {}", outcome_word(*outcome)),
            What::Note { text } => text.clone(),
            What::Progress { .. } => continue,
        };
        let _ = writeln!(text, "| {} | {} |", time(event.at_ms), cell(&line));
    }
}
