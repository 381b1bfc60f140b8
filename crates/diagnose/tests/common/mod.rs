//! A small text form of a diagnosis, for transcripts.

use rekindle_model::diagnosis::Diagnosis;
use rekindle_model::finding::CheckResult;
use std::fmt::Write;

/// Everything a diagnosis says, one thing a line.
pub(crate) fn dump(diagnosis: &Diagnosis) -> String {
    let mut out = String::new();
    let mut layer = None;
    for check in &diagnosis.checks {
        if layer != Some(check.layer) {
            writeln!(out, "{}", check.layer.title()).unwrap();
            layer = Some(check.layer);
        }
        let sign = match check.result {
            CheckResult::Ok => "ok     ",
            CheckResult::Warning => "warning",
            CheckResult::Failed => "FAILED ",
            CheckResult::Unknown => "unknown",
        };
        let host = check.host.as_ref().map_or("-".to_owned(), ToString::to_string);
        writeln!(out, "  {sign} {host} {}: {}", check.title, check.detail).unwrap();
    }
    writeln!(out, "findings").unwrap();
    for (at, finding) in diagnosis.findings.iter().enumerate() {
        let cause = finding.caused_by.map_or(String::new(), |cause| format!(" (follows from {cause})"));
        writeln!(out, "  {at} {} {:?}: {}{cause}", finding.code, finding.severity, finding.summary).unwrap();
        for evidence in &finding.evidence {
            writeln!(out, "      {}: {}", evidence.source, evidence.text).unwrap();
        }
    }
    writeln!(out, "etcd: {:?}", diagnosis.etcd).unwrap();
    for (host, verdict) in &diagnosis.members {
        writeln!(out, "member {host}: {verdict:?}").unwrap();
    }
    for (host, components) in &diagnosis.components {
        for (component, verdict) in components {
            let text = format!("{verdict:?}");
            let text = text.split(", repaired").next().unwrap().to_owned();
            writeln!(out, "component {host} {component}: {text}").unwrap();
        }
    }
    writeln!(
        out,
        "kubelets stopped: {:?}",
        diagnosis.kubelets_stopped.iter().map(|h| &h.0).collect::<Vec<_>>()
    )
    .unwrap();
    writeln!(out, "failed since: {:?}", diagnosis.failed_since).unwrap();
    out
}
