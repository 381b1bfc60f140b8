//! A drill's report for people: on a terminal, as Markdown and as HTML.

use super::report::{Check, CheckResult, DrillReport, Outcome};
use crate::render::units::{bytes, duration_ms, time};
use rekindle_runbook::doc::{Block, Document};
use std::fmt::Write;

/// For a terminal.
pub(super) fn text(report: &DrillReport, short: bool) -> String {
    let mut text = format!("drill {}  {}\n", time(report.started_ms), verdict(report));
    let _ = writeln!(text, "of {}", report.source.place);
    if let Some(living) = living(report) {
        let _ = writeln!(text, "{living}");
    }
    for check in report.checks.iter().filter(|check| !short || check.result != CheckResult::Passed) {
        let detail = if check.detail.is_empty() { String::new() } else { format!(": {}", check.detail) };
        let _ = writeln!(text, "{} {}{detail}", mark(check), check.name);
    }
    let phases = report.phases.iter().map(|phase| format!("{} {}", phase.name, span(phase.took_ms)));
    let phases = ("phases".to_owned(), phases.collect::<Vec<_>>().join(", "));
    for (what, figure) in figures(report).into_iter().chain([phases]) {
        let _ = writeln!(text, "{what:20}  {figure}");
    }
    text
}

/// As a document, to be kept.
pub(super) fn document(report: &DrillReport) -> Document {
    let mut document = Document::new(format!("Drill of {}: {}", time(report.started_ms), verdict(report)));
    let bundle = report.source.bundle.as_ref();
    let bundle = bundle.map_or(String::new(), |host| format!(", with keys of the bundle of {host}"));
    document.text(format!(
        "Restored from {} on {}{bundle}. Drill {}.",
        report.source.place, report.host, report.id
    ));
    if let Some(living) = living(report) {
        document.text(living);
    }
    if let Some(point) = &report.source.point {
        document.text(format!("{point}, {}; {}", point.made_of(), point.proof));
    }
    document.section("Figures");
    let figures = figures(report).into_iter().map(|(what, figure)| vec![what, figure]);
    document.table(&["", ""], figures.collect());
    document.section("Checks");
    let rows =
        report.checks.iter().map(|check| vec![mark(check).into(), check.name.clone(), check.detail.clone()]);
    document.table(&["", "what", "seen"], rows.collect());
    document.push(Block::List(vec![
        "√ as it should be".into(),
        "× not as it should be".into(),
        "‼ not proved by this drill".into(),
    ]));
    document.section("Time");
    let rows = report.phases.iter().map(|phase| vec![phase.name.clone(), span(phase.took_ms)]);
    document.table(&["phase", "took"], rows.collect());
    if let Some(booted) = report.booted.as_ref().filter(|booted| !booted.sentinels.is_empty()) {
        document.section("Signs of life in the backup");
        let rows = booted.sentinels.iter().map(|one| {
            let before = duration_ms(report.started_ms - one.at_ms);
            vec![one.what.clone(), one.object.clone(), time(one.at_ms), before]
        });
        document.table(&["what", "object", "at", "before the drill"], rows.collect());
    }
    if let Some(restored) = &report.restored {
        document.section("Keys by resource");
        let mut counts: Vec<_> = restored.keys_by_resource.iter().collect();
        counts.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let rows = counts.into_iter().map(|(resource, count)| {
            let name = if resource.is_empty() { "(other)" } else { resource };
            vec![name.into(), count.to_string()]
        });
        document.table(&["resource", "keys"], rows.collect());
    }
    document
}

/// What was done to a living cluster.
fn living(report: &DrillReport) -> Option<String> {
    let scenario = report.scenario.as_ref()?;
    let runs: Vec<&str> = report.runs.iter().map(|run| run.0.as_str()).collect();
    Some(format!("A living cluster was broken ({scenario}) and recovered: runs {}.", runs.join(" and ")))
}

fn verdict(report: &DrillReport) -> String {
    match (report.outcome, &report.failure) {
        (Outcome::Passed, _) => match unproved(report) {
            0 => "passed".into(),
            count => format!("passed, {count} of {} not proved", report.checks.len()),
        },
        (Outcome::Missed, _) => format!("missed its targets: {}", report.missed.join("; ")),
        (Outcome::Failed, why) => format!("FAILED: {}", why.as_deref().unwrap_or("not known why")),
    }
}

fn unproved(report: &DrillReport) -> usize {
    report.checks.iter().filter(|check| check.result == CheckResult::NotProved).count()
}

fn mark(check: &Check) -> &'static str {
    match check.result {
        CheckResult::Passed => "√",
        CheckResult::Failed => "×",
        CheckResult::NotProved => "‼",
    }
}

fn span(ms: u64) -> String {
    duration_ms(i64::try_from(ms).unwrap_or(i64::MAX))
}

fn figures(report: &DrillReport) -> Vec<(String, String)> {
    let mut figures: Vec<(String, String)> = Vec::new();
    let mut add = |what: &str, figure: String| figures.push((what.into(), figure));
    let target = |ms: Option<i64>| ms.map_or(String::new(), |ms| format!(" (target {})", duration_ms(ms)));
    let why = if report.scenario.is_some() { "not recovered" } else { "not booted" };
    let unmeasured = || format!("not measured: {why}");
    add("RTO until ready", report.rto_ready_ms.map_or_else(unmeasured, span));
    let verified = report.rto_verified_ms.map_or_else(unmeasured, span);
    add("RTO until verified", verified + &target(report.targets.rto_ms));
    let lost = report.rpo.lost_ms.map(|ms| format!("{}: ", duration_ms(ms))).unwrap_or_default();
    add("RPO", format!("{lost}{}{}", report.rpo.evidence, target(report.targets.rpo_ms)));
    if let Some(restored) = &report.restored {
        add(
            "restored",
            format!(
                "{} live keys at revision {}, {}",
                restored.live_keys,
                restored.revision,
                bytes(restored.size_bytes)
            ),
        );
        add("HashKV", restored.hash_kv.hash.to_string());
    }
    if let Some(booted) = &report.booted {
        add("booted", format!("etcd {}, {}", booted.etcd, booted.api_server));
        add("objects compared", booted.objects.to_string());
    }
    figures
}
