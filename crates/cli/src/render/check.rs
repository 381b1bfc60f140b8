//! `rekindle check` for people: a title per layer, a line per check, the hint under it.

use rekindle_model::finding::{CheckLine, CheckResult, Finding, Severity};
use rekindle_model::report::CheckReport;
use std::fmt::Write;

/// The whole report; `short` leaves out what is fine.
pub(crate) fn report(report: &CheckReport, short: bool) -> String {
    let mut text = String::new();
    let mut layer = None;
    for line in &report.checks {
        if short && line.result == CheckResult::Ok {
            continue;
        }
        if layer != Some(line.layer) {
            if layer.is_some() {
                text.push('\n');
            }
            layer = Some(line.layer);
            let title = line.layer.title();
            let _ = writeln!(text, "{title}\n{}", "-".repeat(title.len()));
        }
        check_line(&mut text, line, &report.findings);
    }
    if !text.is_empty() {
        text.push('\n');
    }
    roots(&mut text, &report.findings);
    let _ = writeln!(text, "Status check results are {}", if report.success { "√" } else { "×" });
    text
}

fn check_line(text: &mut String, line: &CheckLine, findings: &[Finding]) {
    let mark = match line.result {
        CheckResult::Ok => "√",
        CheckResult::Warning => "‼",
        CheckResult::Failed => "×",
        CheckResult::Unknown => "?",
    };
    let host = line.host.as_ref().map(|h| format!("{h}: ")).unwrap_or_default();
    let _ = writeln!(text, "{mark} {host}{}", line.title);
    if line.result == CheckResult::Ok {
        return;
    }
    if !line.detail.is_empty() {
        let _ = writeln!(text, "    {}", line.detail);
    }
    if let Some(finding) = line.finding.and_then(|i| findings.get(i)) {
        let _ = writeln!(text, "    {} {}", finding.code, finding.summary);
        if finding.caused_by.is_some() {
            let _ = writeln!(text, "    (a consequence)");
        } else {
            let _ = writeln!(text, "    hint: {}", finding.remedy);
        }
    }
}

/// Root causes with their evidence, and under each what follows from it.
pub(crate) fn roots(text: &mut String, findings: &[Finding]) {
    for (index, finding) in findings.iter().enumerate() {
        if finding.caused_by.is_some() || finding.severity == Severity::Info {
            continue;
        }
        let host = finding.host.as_ref().map(|h| format!(" on {h}")).unwrap_or_default();
        let word = if finding.severity == Severity::Failure { "root cause" } else { "warning" };
        let _ = writeln!(text, "{word}: {}{host}: {}", finding.code, finding.summary);
        for evidence in finding.evidence.iter().take(4) {
            let _ = writeln!(text, "    seen in {}: {}", evidence.source, one_line(&evidence.text));
        }
        let consequences: Vec<_> =
            findings.iter().filter(|f| f.caused_by == Some(index)).map(|f| f.summary.as_str()).collect();
        for consequence in consequences {
            let _ = writeln!(text, "    so: {consequence}");
        }
        let _ = writeln!(text, "    remedy: {}\n", finding.remedy);
    }
}

/// A quoted text on one line, bounded: terminals are narrow and logs are hostile.
pub(crate) fn one_line(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    if text.chars().count() > 300 { clean + " ..." } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A log line can hold escape sequences; what is quoted must not move the cursor of the person's terminal.
    #[test]
    fn quoted_evidence_holds_no_control_characters() {
        assert_eq!(one_line("a\x1b[2Jb\nc"), "a [2Jb c");
        assert_eq!(one_line(&"x".repeat(301)).len(), 304);
    }
}
