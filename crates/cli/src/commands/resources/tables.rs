//! What people read of `rekindle resources`.

use crate::render::units::{duration_ms, time};
use rekindle_resources::index::{ClusterFacts, Index};
use rekindle_resources::journal::Outcome;
use rekindle_resources::plan::Action;
use rekindle_resources::report::{BackupFacts, DiffReport, RestoreReport};
use rekindle_resources::undo::UndoReport;
use rekindle_world::provider::not_available;
use std::fmt::Write as _;

/// Lines of objects shown; `-o json` has all.
const LINES_MAX: usize = 50;

fn cluster(facts: &ClusterFacts) -> String {
    let provider = facts.provider.as_ref().map(|provider| format!(", {provider}")).unwrap_or_default();
    let uid = facts.uid.as_deref().unwrap_or("unknown");
    format!("{} ({}{provider}, kube-system {uid})", facts.server, facts.version)
}

pub(super) fn index(place: &str, index: &Index, short: bool) -> String {
    let mut text = String::new();
    let took = duration_ms(index.ended_ms - index.started_ms);
    let _ = writeln!(text, "cluster   {}", cluster(&index.cluster));
    let _ = writeln!(text, "backup    {place}, taken {} in {took}", time(index.started_ms));
    let secrets =
        if index.recipients.is_empty() { "in the clear" } else { "encrypted to its recipients (age)" };
    let _ = writeln!(text, "objects   {} of {} kinds; Secrets {secrets}", index.objects, index.kinds.len());
    if !short {
        for kind in &index.kinds {
            let _ = writeln!(text, "{:>9} {}", kind.objects, kind.of.name());
        }
        let _ = writeln!(text, "left out");
        for left in &index.left_out {
            let count = left.objects.map_or("all".to_owned(), |count| count.to_string());
            let _ = writeln!(text, "{count:>9} {}: {}", left.what, left.reason);
        }
    }
    for problem in &index.problems {
        let _ = writeln!(text, "× {} could not be read: {}", problem.what, problem.why);
    }
    if let Some(previous) = &index.previous {
        let _ = writeln!(text, "an earlier backup that has it lies in {place}/{previous}");
    }
    if let Some(provider) = &index.cluster.provider {
        let instead = "restore from this backup with `rekindle resources restore`";
        let _ = writeln!(text, "{}: {instead}", not_available("`rekindle recover`", provider));
    }
    text
}

/// What is asked for and is not in the backup.
fn lacking(text: &mut String, backup: &BackupFacts) {
    for problem in &backup.problems {
        let what = &problem.what;
        let _ = writeln!(text, "× the backup is partial: {what} could not be read then: {}", problem.why);
    }
}

fn object(kind: &str, namespace: &str, name: &str) -> String {
    if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Update => "update",
        Action::Recreate => "recreate",
        Action::Unchanged => "unchanged",
        Action::Skip => "skip",
        Action::Impossible => "impossible",
    }
}

pub(super) fn diff(report: &DiffReport, short: bool) -> String {
    let mut text = String::new();
    let _ =
        writeln!(text, "backup    {}, of {}", time(report.backup.taken_ms), cluster(&report.backup.cluster));
    lacking(&mut text, &report.backup);
    let _ = writeln!(text, "cluster   {}", cluster(&report.cluster));
    let counts: Vec<String> =
        report.counts.iter().map(|(a, count)| format!("{} {count}", action(*a))).collect();
    let _ = writeln!(text, "objects   {}", if counts.is_empty() { "none".into() } else { counts.join(", ") });
    let shown = report.objects.iter().filter(|o| !short || o.action != Action::Create);
    let mut lines = 0;
    for differing in shown.take(LINES_MAX) {
        lines += 1;
        let object = object(&differing.kind, &differing.namespace, &differing.name);
        let places = if differing.places.is_empty() {
            String::new()
        } else {
            format!(": {}", differing.places.join(" "))
        };
        let _ = writeln!(text, "{:>10} {object}{places}", action(differing.action));
    }
    let all = report.objects.iter().filter(|o| !short || o.action != Action::Create).count();
    if all > lines {
        let _ = writeln!(text, "           and {} more (-o json has all)", all - lines);
    }
    text
}

pub(super) fn restored(report: &RestoreReport, short: bool) -> String {
    let mut text = String::new();
    let outcome = |outcome: Outcome| match outcome {
        Outcome::Created => "created",
        Outcome::Updated => "updated",
        Outcome::Recreated => "recreated",
        Outcome::Unchanged => "unchanged",
        Outcome::Skipped => "skipped",
        Outcome::LeftOut => "left out",
        Outcome::Failed => "failed",
    };
    let took = duration_ms(report.ended_ms - report.started_ms);
    let _ = writeln!(text, "cluster   {}", cluster(&report.cluster));
    let counts: Vec<String> =
        report.counts.iter().map(|(o, count)| format!("{} {count}", outcome(*o))).collect();
    let _ = writeln!(text, "objects   {} in {took}", counts.join(", "));
    let _ = writeln!(text, "run       {} in {}", report.run, report.folder);
    lacking(&mut text, &report.backup);
    let told = |result: Outcome, notes: &[String]| result == Outcome::Failed || !short && !notes.is_empty();
    let mut objects: Vec<_> = report.objects.iter().filter(|o| told(o.result, &o.notes)).collect();
    objects.sort_by_key(|o| o.result != Outcome::Failed);
    for restored in objects.iter().take(LINES_MAX) {
        let object = object(&restored.kind, &restored.namespace, &restored.name);
        let _ = writeln!(text, "{:>10} {object}: {}", outcome(restored.result), restored.notes.join("; "));
    }
    if objects.len() > LINES_MAX {
        let _ = writeln!(text, "           and {} more (-o json has all)", objects.len() - LINES_MAX);
    }
    text
}

pub(super) fn undone(report: &UndoReport, short: bool) -> String {
    let mut text = String::new();
    let done = if report.dry_run { "would be " } else { "" };
    let _ = writeln!(text, "{done}deleted {}, {done}put back {}", report.deleted, report.put_back);
    for left in &report.failed {
        let _ = writeln!(text, "× {}: {}", left.object, left.why);
    }
    for left in report.stays.iter().filter(|_| !short).take(LINES_MAX) {
        let _ = writeln!(text, "stays     {}: {}", left.object, left.why);
    }
    text
}
