//! What the rules write into: check lines and findings, in the order the rules run.

use crate::codes;
use rekindle_model::HostId;
use rekindle_model::finding::{CheckLine, CheckResult, Evidence, Finding, Layer, Severity};
use rekindle_model::host::Component;

/// Check lines and findings in the making.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) checks: Vec<CheckLine>,
    pub(crate) findings: Vec<Finding>,
    /// The component each finding is about, beside `findings`; shorter when the last ones are about none.
    pub(crate) about: Vec<Option<Component>>,
    /// Times that the evidence tells, in ms since the Unix epoch, and what happened then.
    pub(crate) times: Vec<(i64, String)>,
}

impl Report {
    /// A check that passed; `detail` may be empty.
    pub(crate) fn ok(&mut self, layer: Layer, host: Option<&HostId>, title: &str, detail: impl Into<String>) {
        self.line(layer, host, title, CheckResult::Ok, detail.into(), None);
    }

    /// A check that could not be made, and why.
    pub(crate) fn unknown(
        &mut self,
        layer: Layer,
        host: Option<&HostId>,
        title: &str,
        why: impl Into<String>,
    ) {
        self.line(layer, host, title, CheckResult::Unknown, why.into(), None);
    }

    /// A check that failed (or warns, by the code's severity), with the finding behind it. Evidence has a first piece,
    /// so that it is never empty.
    pub(crate) fn found(
        &mut self,
        code: &'static str,
        host: Option<&HostId>,
        title: &str,
        summary: impl Into<String>,
        first: Evidence,
        more: Vec<Evidence>,
    ) {
        let entry = codes::entry(code);
        let mut evidence = vec![first];
        for piece in more {
            if !evidence.contains(&piece) {
                evidence.push(piece);
            }
        }
        let finding = Finding {
            code: entry.code.into(),
            severity: entry.severity,
            layer: entry.layer,
            host: host.cloned(),
            summary: summary.into(),
            evidence,
            caused_by: None,
            remedy: entry.remedy.into(),
        };
        self.told(title, finding);
    }

    /// A finding, and the check line it stands under.
    pub(crate) fn told(&mut self, title: &str, finding: Finding) {
        let result = match finding.severity {
            Severity::Failure => CheckResult::Failed,
            Severity::Warning => CheckResult::Warning,
            Severity::Info => CheckResult::Ok,
        };
        let (host, at) = (finding.host.clone(), self.findings.len());
        self.line(finding.layer, host.as_ref(), title, result, finding.summary.clone(), Some(at));
        self.findings.push(finding);
    }

    /// The newest finding is about this component.
    pub(crate) fn about(&mut self, component: Component) {
        self.about.resize(self.findings.len(), None);
        if let Some(last) = self.about.last_mut() {
            *last = Some(component);
        }
    }

    /// A check that failed for a reason that a later rule finds: [`Self::explain`] ties them together.
    pub(crate) fn failed(&mut self, layer: Layer, host: &HostId, title: &str, detail: impl Into<String>) {
        self.line(layer, Some(host), title, CheckResult::Failed, detail.into(), None);
    }

    /// Puts the newest finding behind a host's check lines of that title that failed without one.
    pub(crate) fn explain(&mut self, host: &HostId, title: &str) {
        let newest = self.findings.len().checked_sub(1);
        for check in &mut self.checks {
            let open = check.result == CheckResult::Failed && check.finding.is_none();
            if open && check.host.as_ref() == Some(host) && check.title == title {
                check.finding = newest;
            }
        }
    }

    /// Whether this host (or, with none, any) has a finding of the code.
    pub(crate) fn has(&self, code: &str, host: Option<&HostId>) -> bool {
        self.findings.iter().any(|f| f.code == code && (host.is_none() || f.host.as_ref() == host))
    }

    /// A time the evidence tells, for the start of the failure.
    pub(crate) fn time(&mut self, at_ms: Option<i64>, what: impl Into<String>) {
        if let Some(at_ms) = at_ms.filter(|ms| *ms > 0) {
            self.times.push((at_ms, what.into()));
        }
    }

    fn line(
        &mut self,
        layer: Layer,
        host: Option<&HostId>,
        title: &str,
        result: CheckResult,
        detail: String,
        finding: Option<usize>,
    ) {
        self.checks.push(CheckLine {
            layer,
            host: host.cloned(),
            title: title.into(),
            result,
            detail,
            finding,
        });
    }
}

/// A quoted text and where it was read on a host.
pub(crate) fn seen_at(host: &HostId, what: impl std::fmt::Display, text: impl Into<String>) -> Evidence {
    let source = if host.is_local() { what.to_string() } else { format!("{host}:{what}") };
    Evidence { source, text: text.into() }
}
