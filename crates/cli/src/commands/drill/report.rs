//! What a drill came to, as data. `render.rs` makes Markdown and HTML of it, `history.rs` lists several.

use rekindle_model::API_VERSION;
use rekindle_model::RunId;
use rekindle_model::etcd::HashKv;
use rekindle_model::event::Outcome as RunOutcome;
use rekindle_model::report::RunReport;
use rekindle_model::source::VaultPoint;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a drill came to.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DrillReport {
    /// `rekindle/v1alpha1`.
    pub(super) api_version: String,
    /// `DrillReport`.
    pub(super) kind: String,
    /// A UUID; the reports' files are named by it.
    pub(super) id: String,
    /// The host it ran on.
    pub(super) host: String,
    /// When it began, milliseconds since the Unix epoch: the moment of the disaster that it plays.
    pub(super) started_ms: i64,
    /// What was broken, of a drill on a living cluster: `data-lost`, `quorum-lost`, `member-lost`, `stopped`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scenario: Option<String>,
    /// The runs of such a drill: the one that broke the cluster, and the one that recovered it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) runs: Vec<RunId>,
    /// What was restored.
    pub(super) source: Source,
    /// How it ended.
    pub(super) outcome: Outcome,
    /// What it failed of; none unless the outcome is `failed`.
    pub(super) failure: Option<String>,
    /// What took how long, in the order of work.
    pub(super) phases: Vec<Phase>,
    /// From the start until the restored API server was ready, milliseconds; none: it was not booted.
    pub(super) rto_ready_ms: Option<u64>,
    /// From the start until everything was verified, milliseconds; none: a part of the way back was not walked.
    pub(super) rto_verified_ms: Option<u64>,
    /// What would have been lost.
    pub(super) rpo: Rpo,
    /// What they are measured against.
    pub(super) targets: Targets,
    /// Targets that were missed, in words.
    pub(super) missed: Vec<String>,
    /// What was restored natively; none if that failed.
    pub(super) restored: Option<Restored>,
    /// Versions of what was booted from it; none: not booted.
    pub(super) booted: Option<Booted>,
    /// Each thing that was looked at.
    pub(super) checks: Vec<Check>,
}

/// How a drill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Outcome {
    /// Everything that was looked at is as it should be, within the targets. What was not looked at stands in the checks.
    Passed,
    /// It is, but not within the targets.
    Missed,
    /// The backup does not restore, or not to what it should.
    Failed,
}

/// What was restored.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Source {
    /// A snapshot file, or a vault's address.
    pub(super) place: String,
    /// The point in time, of a vault.
    pub(super) point: Option<VaultPoint>,
    /// The host whose bundle gave keys and settings.
    pub(super) bundle: Option<String>,
}

/// A part of the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Phase {
    /// `fetch`, `verify`, `restore`, `etcd`, `apiServer`, `compare`; of a drill on a living cluster those of the run.
    pub(super) name: String,
    /// Milliseconds.
    pub(super) took_ms: u64,
}

/// What would have been lost had the cluster died when the drill began.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rpo {
    /// Milliseconds between the restored state's last certain moment and the start of the drill; none: not known.
    pub(super) lost_ms: Option<i64>,
    /// What says so.
    pub(super) evidence: String,
}

/// What drills are measured against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Targets {
    /// From the start until verified, milliseconds.
    pub(super) rto_ms: Option<i64>,
    /// What may be lost, milliseconds.
    pub(super) rpo_ms: Option<i64>,
    /// An API server has to boot.
    #[serde(default)]
    pub(super) boot: bool,
}

/// What the native restore gave.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Restored {
    /// Revision.
    pub(super) revision: i64,
    /// HashKV, computed natively.
    pub(super) hash_kv: HashKv,
    /// Live keys.
    pub(super) live_keys: u64,
    /// Size of the database.
    pub(super) size_bytes: u64,
    /// Live keys by resource, as stored.
    pub(super) keys_by_resource: BTreeMap<String, u64>,
}

/// What was booted.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Booted {
    /// Version of etcd.
    pub(super) etcd: String,
    /// Version of the API server.
    pub(super) api_server: String,
    /// Objects listed through the API, all resources together.
    pub(super) objects: u64,
    /// Sentinels: the newest of what a living cluster writes all the time.
    pub(super) sentinels: Vec<Sentinel>,
}

/// An object that tells how fresh the restored state is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sentinel {
    /// `lease renewed`, `event`, `object created`.
    pub(super) what: String,
    /// Which one: resource, namespace and name.
    pub(super) object: String,
    /// Its time, milliseconds since the Unix epoch.
    pub(super) at_ms: i64,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Check {
    /// What is claimed.
    pub(super) name: String,
    /// What came out.
    pub(super) result: CheckResult,
    /// What was seen.
    pub(super) detail: String,
}

/// What came out of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum CheckResult {
    /// As it should be.
    Passed,
    /// Not as it should be.
    Failed,
    /// Could not be looked at here, and why.
    NotProved,
}

impl Check {
    pub(super) fn passed(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), result: CheckResult::Passed, detail: detail.into() }
    }

    pub(super) fn failed(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { result: CheckResult::Failed, ..Self::passed(name, detail) }
    }

    /// Whether a run ended verified.
    pub(super) fn of_run(name: impl Into<String>, run: &RunReport) -> Self {
        match run.outcome {
            RunOutcome::Verified => Self::passed(name, run.summary.clone()),
            other => Self::failed(name, format!("the run ended {other:?}: {}", run.left_to_do.join("; "))),
        }
    }

    pub(super) fn not_proved(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { result: CheckResult::NotProved, ..Self::passed(name, detail) }
    }
}

impl DrillReport {
    /// A drill that begins now.
    pub(super) fn begin(place: String, host: String, targets: Targets) -> Self {
        Self {
            api_version: API_VERSION.into(),
            kind: "DrillReport".into(),
            id: uuid::Uuid::now_v7().to_string(),
            host,
            started_ms: jiff::Timestamp::now().as_millisecond(),
            scenario: None,
            runs: Vec::new(),
            source: Source { place, point: None, bundle: None },
            outcome: Outcome::Failed,
            failure: None,
            phases: Vec::new(),
            rto_ready_ms: None,
            rto_verified_ms: None,
            rpo: Rpo { lost_ms: None, evidence: "nothing was restored".into() },
            targets,
            missed: Vec::new(),
            restored: None,
            booted: None,
            checks: Vec::new(),
        }
    }

    /// All phases together, milliseconds.
    pub(super) fn total_ms(&self) -> u64 {
        self.phases.iter().map(|phase| phase.took_ms).sum()
    }

    /// Judges what was seen: the outcome, and what was missed.
    pub(super) fn judge(&mut self) {
        let failed = self.checks.iter().filter(|check| check.result == CheckResult::Failed);
        let failed: Vec<&str> = failed.map(|check| check.name.as_str()).collect();
        if self.failure.is_none() && !failed.is_empty() {
            self.failure = Some(format!("not as it should be: {}", failed.join("; ")));
        }
        self.missed = self.misses();
        self.outcome = match (&self.failure, self.missed.as_slice()) {
            (Some(_), _) => Outcome::Failed,
            (None, []) => Outcome::Passed,
            (None, _) => Outcome::Missed,
        };
    }

    fn misses(&self) -> Vec<String> {
        let mut missed = Vec::new();
        // what was measured is a lower bound where a part of the way was not walked
        let rto_ms = i64::try_from(self.rto_verified_ms.unwrap_or(self.total_ms())).unwrap_or(i64::MAX);
        if let Some(target) = self.targets.rto_ms.filter(|target| rto_ms > *target) {
            missed.push(format!("RTO {rto_ms} ms is over the target of {target} ms"));
        }
        match (self.targets.rpo_ms, self.rpo.lost_ms) {
            (Some(target), Some(lost)) if lost > target => {
                missed.push(format!("RPO {lost} ms is over the target of {target} ms"));
            }
            (Some(target), None) if self.failure.is_none() => {
                missed.push(format!("RPO is not known, the target is {target} ms"));
            }
            _ => (),
        }
        if self.targets.boot && self.booted.is_none() && self.failure.is_none() {
            missed.push("no API server was booted, and one was required".into());
        }
        missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rto_ms: u64, lost_ms: Option<i64>) -> DrillReport {
        let targets = Targets { rto_ms: Some(60_000), rpo_ms: Some(5_000), boot: false };
        let mut report = DrillReport::begin("/b.db".into(), "h".into(), targets);
        report.phases.push(Phase { name: "restore".into(), took_ms: rto_ms });
        report.rpo.lost_ms = lost_ms;
        report
    }

    // A drill passes only if everything holds and both targets are met; an RPO that nobody knows meets none.
    #[test]
    fn verdicts() {
        let verdict = |mut report: DrillReport| {
            report.judge();
            (report.outcome, report.missed.len())
        };
        assert_eq!(verdict(report(1000, Some(10))), (Outcome::Passed, 0));
        assert_eq!(verdict(report(61_000, Some(10))), (Outcome::Missed, 1));
        assert_eq!(verdict(report(61_000, None)), (Outcome::Missed, 2));
        let mut broken = report(1000, Some(10));
        broken.checks.push(Check::failed("every object", "one is missing"));
        assert_eq!(verdict(broken.clone()), (Outcome::Failed, 0));
        broken.checks = vec![Check::not_proved("an API server boots", "no kube-apiserver here")];
        assert_eq!(verdict(broken.clone()), (Outcome::Passed, 0));
        broken.targets.boot = true;
        assert_eq!(verdict(broken.clone()), (Outcome::Missed, 1), "demanded, and not done");
        let (etcd, api_server) = ("3.6.1".into(), "v1.37.2".into());
        broken.booted = Some(Booted { etcd, api_server, objects: 1, sentinels: Vec::new() });
        broken.checks = vec![Check::not_proved("every custom resource can be listed", "not established")];
        assert_eq!(verdict(broken), (Outcome::Passed, 0), "booted is all that is demanded");
    }
}
