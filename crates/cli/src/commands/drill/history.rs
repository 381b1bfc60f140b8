//! Reports of drills, kept and listed: one file each, JSON for `drill history`, Markdown and HTML for people.

use super::args::History;
use super::render;
use super::report::{DrillReport, Outcome, Targets};
use crate::exit::Exit;
use crate::failure::{Doing, Failure};
use crate::output::Output;
use crate::render::units::{duration_ms, time};
use camino::{Utf8Path, Utf8PathBuf};
use rekindle_model::API_VERSION;
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;

/// A report has some kilobytes.
const REPORT_MAX_BYTES: u64 = 16 << 20;
/// A drill a day for a quarter of a century.
const REPORTS_MAX: usize = 10_000;

/// Earlier drills, oldest first, and their trend.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DrillHistory {
    /// `rekindle/v1alpha1`.
    api_version: &'static str,
    /// `DrillHistory`.
    kind: &'static str,
    /// Where the reports are.
    #[schemars(with = "String")]
    report_dir: Utf8PathBuf,
    /// The drills.
    drills: Vec<Entry>,
    /// What they tell together.
    trend: Trend,
    /// Files that are no reports of drills.
    unreadable: Vec<String>,
}

/// One drill.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Entry {
    /// Its id.
    id: String,
    /// When it began, milliseconds since the Unix epoch.
    started_ms: i64,
    /// What was restored.
    place: String,
    /// How it ended.
    outcome: Outcome,
    /// Of what it failed, or what was missed.
    reason: Option<String>,
    /// From the start until ready, milliseconds.
    rto_ready_ms: Option<u64>,
    /// From the start until verified, milliseconds.
    rto_verified_ms: Option<u64>,
    /// What would have been lost, milliseconds.
    rpo_ms: Option<i64>,
    /// What it was measured against.
    targets: Targets,
}

/// What several drills tell.
#[derive(Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Trend {
    /// Drills that passed.
    passed: usize,
    /// Drills that failed or missed a target since the last that passed.
    failing_since: usize,
    /// RTO until verified of the newest drill that measured one, milliseconds.
    rto_newest_ms: Option<u64>,
    /// The median of those before it.
    rto_median_ms: Option<u64>,
}

pub(super) fn run(args: &History, output: &Output) -> Result<Exit, Failure> {
    let history = read(&args.reports.report_dir)?;
    output.document(&history, |short| history.table(short))?;
    Ok(Exit::Ok)
}

/// Keeps a report: `DATE-ID.json`, `.md` and `.html`.
pub(super) fn keep(dir: &Utf8Path, report: &DrillReport) -> Result<(), Failure> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.doing(|| format!("cannot make {dir}"))?;
    let date = time(report.started_ms).replace(' ', "T").replace(':', "");
    let (document, stem) = (render::document(report), format!("{date}-{}", report.id));
    let json = serde_json::to_string_pretty(report).doing(|| "cannot render the report".into())?;
    for (kind, text) in [("md", document.markdown()), ("html", document.html()), ("json", json)] {
        let path = dir.join(format!("{stem}.{kind}"));
        let doing = || format!("cannot write {path}");
        let mut file = tempfile::NamedTempFile::new_in(dir).doing(doing)?;
        file.write_all(text.as_bytes()).doing(doing)?;
        file.as_file().sync_all().doing(doing)?;
        file.persist(&path).doing(doing)?;
    }
    Ok(())
}

fn read(dir: &Utf8Path) -> Result<DrillHistory, Failure> {
    let unread = || format!("cannot read {dir}");
    let (mut reports, mut unreadable) = (Vec::new(), Vec::new());
    let entries = match dir.read_dir_utf8() {
        Ok(entries) => Some(entries),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Failure::new(unread()).because(error)),
    };
    for entry in entries.into_iter().flatten().take(REPORTS_MAX) {
        let path = entry.doing(unread)?.into_path();
        if path.extension() != Some("json") {
            continue;
        }
        match report(&path) {
            Some(report) => reports.push(report),
            None => unreadable.push(path.into_string()),
        }
    }
    reports.sort_by_key(|report| report.started_ms);
    let trend = Trend::of(&reports);
    let drills = reports.into_iter().map(Entry::from).collect();
    let (api_version, kind) = (API_VERSION, "DrillHistory");
    Ok(DrillHistory { api_version, kind, report_dir: dir.to_owned(), drills, trend, unreadable })
}

fn report(path: &Utf8Path) -> Option<DrillReport> {
    let mut text = Vec::new();
    std::fs::File::open(path).ok()?.take(REPORT_MAX_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

impl From<DrillReport> for Entry {
    fn from(report: DrillReport) -> Self {
        let missed = (!report.missed.is_empty()).then(|| report.missed.join("; "));
        Self {
            id: report.id,
            started_ms: report.started_ms,
            place: report.source.place,
            outcome: report.outcome,
            reason: report.failure.or(missed),
            rto_ready_ms: report.rto_ready_ms,
            rto_verified_ms: report.rto_verified_ms,
            rpo_ms: report.rpo.lost_ms,
            targets: report.targets,
        }
    }
}

impl Trend {
    /// Of reports by time.
    fn of(reports: &[DrillReport]) -> Self {
        let is_passed = |report: &&DrillReport| report.outcome == Outcome::Passed;
        let mut measured: Vec<u64> = reports.iter().filter_map(|report| report.rto_verified_ms).collect();
        let rto_newest_ms = measured.pop();
        measured.sort_unstable();
        Self {
            passed: reports.iter().filter(is_passed).count(),
            failing_since: reports.iter().rev().take_while(|report| !is_passed(report)).count(),
            rto_newest_ms,
            rto_median_ms: measured.get(measured.len() / 2).copied(),
        }
    }
}

impl DrillHistory {
    fn table(&self, short: bool) -> String {
        let mut text = String::new();
        let span = |ms: Option<u64>| {
            ms.map_or("-".to_owned(), |ms| duration_ms(i64::try_from(ms).unwrap_or(i64::MAX)))
        };
        if self.drills.is_empty() {
            let _ = writeln!(text, "no drills in {}", self.report_dir);
        }
        for drill in &self.drills {
            let (mark, word) = match drill.outcome {
                Outcome::Passed if short => continue,
                Outcome::Passed => ("√", "passed"),
                Outcome::Missed => ("‼", "missed"),
                Outcome::Failed => ("×", "failed"),
            };
            let (at, rto) = (time(drill.started_ms), span(drill.rto_verified_ms));
            let rpo = drill.rpo_ms.map_or("-".into(), duration_ms);
            let _ = writeln!(text, "{mark} {at}  {word}  RTO {rto:10}  RPO {rpo:10}  {}", drill.place);
            if let Some(reason) = &drill.reason {
                let _ = writeln!(text, "    {reason}");
            }
        }
        for path in &self.unreadable {
            let _ = writeln!(text, "‼ {path} is no report of a drill");
        }
        if let (Some(newest), Some(median)) = (self.trend.rto_newest_ms, self.trend.rto_median_ms) {
            let _ = writeln!(text, "RTO now {}, before {} (median)", span(Some(newest)), span(Some(median)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The trend tells the newest drill from those before, and how long nothing has passed.
    #[test]
    fn trends() {
        let report = |at_ms: i64, rto_ms: Option<u64>, outcome: Outcome| {
            let mut report = DrillReport::begin("/b".into(), "h".into(), Targets::default());
            (report.started_ms, report.rto_verified_ms, report.outcome) = (at_ms, rto_ms, outcome);
            report
        };
        let reports = [
            report(1, Some(300), Outcome::Passed),
            report(2, Some(100), Outcome::Passed),
            report(3, Some(200), Outcome::Missed),
            report(4, Some(900), Outcome::Failed),
            report(5, None, Outcome::Failed),
        ];
        let trend = Trend::of(&reports);
        let expected =
            Trend { passed: 2, failing_since: 3, rto_newest_ms: Some(900), rto_median_ms: Some(200) };
        assert_eq!(trend, expected);
        assert_eq!(Trend::of(&[]), Trend::default());
    }
}
