//! What could be lost now, as Prometheus text (<https://prometheus.io/docs/instrumenting/exposition_formats/>) and as a word
//! on health. `deploy/prometheus` and `deploy/grafana` use these names.

use super::Agent;
use super::serve::Pages;
use super::state::State;
use camino::Utf8Path;
use rekindle_agent::{Health, Rpo};
use std::fmt::{Display, Write};
use std::io::Read;

/// A file with more than a chain of certificates is none.
const CERTIFICATE_MAX_BYTES: u64 = 1 << 20;

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
    /// The configuration's file was refused when it was read the last time.
    pub(super) reload_failed: bool,
}

impl Pages for Agent {
    fn metrics(&self) -> String {
        // before the state is held: it is asked for there, too
        let full_due_ms = self.full_due_ms().filter(|due_ms| *due_ms < i64::MAX);
        let (drill_due_ms, runbook_made_ms) = (self.drill_due_ms(), self.runbook_made_ms());
        let certificates = self.settings.endpoints.iter().filter_map(|endpoint| endpoint.cert.as_ref());
        let seen = Seen {
            health: &self.health.borrow(),
            state: &self.state(),
            tally: &self.tally(),
            full_due_ms,
            drill_due_ms,
            runbook_made_ms,
            spool_max_bytes: self.settings.spool_max_bytes,
            certificate_ends_s: certificates.filter_map(|path| ends_s(&path.0)).min(),
        };
        seen.page(now_ms())
    }

    fn complaints(&self) -> Vec<String> {
        let health = self.health.borrow();
        let mut complaints = Vec::new();
        if let Rpo::Unknown { why, .. } = &health.rpo {
            complaints.push(format!("what would be lost is not known: {why}"));
        }
        if health.spool_full {
            complaints.push("the spool is full: nothing is received".into());
        }
        let diverged = health.compared.iter().flat_map(|compared| &compared.diverged);
        complaints.extend(diverged.map(|url| format!("{url} holds other data than the other members")));
        let (now_ms, schedule) = (now_ms(), &self.live().full);
        match self.full_due_ms() {
            None => complaints.push("there is no full backup of this timeline yet".into()),
            // one that is late by a whole turn: the store may be slow, and a full takes its time
            Some(due_ms) => {
                let missed_ms = schedule.next_ms(due_ms).unwrap_or(i64::MAX);
                if now_ms > missed_ms.saturating_add(schedule.jitter_max_ms()) {
                    complaints.push(format!("a full has been due for {} s", seconds(now_ms - due_ms)));
                }
            }
        }
        complaints
    }
}

/// `/metrics` of an agent that stands by.
pub(super) fn standby() -> String {
    let mut page = Page::default();
    page.build_info();
    page.one("writer", "gauge", WRITER, 0);
    page.0
}

const WRITER: &str = "1: this agent follows and writes; 0: it stands by while another does.";

/// All that a page is made of.
struct Seen<'a> {
    health: &'a Health,
    state: &'a State,
    tally: &'a Tally,
    full_due_ms: Option<i64>,
    drill_due_ms: Option<i64>,
    runbook_made_ms: Option<i64>,
    spool_max_bytes: u64,
    /// Seconds since the Unix epoch.
    certificate_ends_s: Option<i64>,
}

impl Seen<'_> {
    fn page(&self, now_ms: i64) -> String {
        let mut page = Page::default();
        page.build_info();
        page.one("writer", "gauge", WRITER, 1);
        self.stream(&mut page, now_ms);
        self.members(&mut page);
        self.backups(&mut page);
        self.drills(&mut page);
        let help = "When the kept runbook was made, or the agent began to make the first; NaN: none is kept.";
        let made = known(self.runbook_made_ms.map(seconds));
        page.one("runbook_timestamp_seconds", "gauge", help, made);
        page.0
    }

    fn stream(&self, page: &mut Page, now_ms: i64) {
        let health = self.health;
        let rpo = match health.rpo {
            Rpo::Known { proved_ms } => Some(seconds(now_ms - proved_ms)),
            Rpo::Unknown { .. } => None,
        };
        page.one(
            "rpo_seconds",
            "gauge",
            "What a loss of the cluster would cost now; NaN: not known.",
            known(rpo),
        );
        page.one("durable_revision", "gauge", "Newest revision on this disk.", health.durable_revision);
        let help = "Newest revision of the stream in the vault.";
        page.one("stored_revision", "gauge", help, known(self.state.stored_revision));
        let help = "Bytes on this disk that wait for the vault.";
        page.one("spool_bytes", "gauge", help, self.tally.spool_bytes);
        let help = "With this many bytes in the spool nothing more is received.";
        page.one("spool_limit_bytes", "gauge", help, self.spool_max_bytes);
        let help = "1: the spool is full, nothing is received.";
        page.one("spool_full", "gauge", help, u8::from(health.spool_full));
        let help = "Times that etcd had compacted what was due.";
        page.one("gaps_total", "counter", help, health.gaps.len());
        page.one("watches_total", "counter", "Times that the watch was opened.", health.watches);
    }

    fn members(&self, page: &mut Page) {
        let health = self.health;
        let help = "Highest revision of any member.";
        page.one("member_highest_revision", "gauge", help, known(health.highest_revision));
        page.family("etcd_up", "gauge", "1: the member answers, and may be followed.");
        for member in &health.members {
            page.sample("etcd_up", &[("endpoint", &member.url)], u8::from(member.state.is_ok()));
        }
        page.family(
            "etcd_diverged",
            "gauge",
            "1: the member holds other data than the rest (compaction hashes).",
        );
        for member in &health.members {
            let diverged = |compared: &rekindle_agent::Compared| compared.diverged.contains(&member.url);
            let diverged = health.compared.as_ref().is_some_and(diverged);
            page.sample("etcd_diverged", &[("endpoint", &member.url)], u8::from(diverged));
        }
        let help = "Revision of the last compaction at which the members were compared.";
        page.one(
            "etcd_compared_revision",
            "gauge",
            help,
            known(health.compared.as_ref().map(|c| c.revision)),
        );
        page.family("etcd_alarms", "gauge", "Members that raised this alarm.");
        for alarm in ["NOSPACE", "CORRUPT"] {
            let raised = health.alarms.iter().filter(|(_, kind)| kind == alarm).count();
            page.sample("etcd_alarms", &[("alarm", alarm)], raised);
        }
        let help = "Full HashKVs that members computed for this agent.";
        page.one("proofs_total", "counter", help, health.proofs);
        let help = "How long a member needed for the newest of them.";
        let took = known(health.last_proof.as_ref().map(|proof| proof.took.as_secs_f64()));
        page.one("last_proof_duration_seconds", "gauge", help, took);
        let help = "When the first of the etcd client certificates expires; NaN: there is none, or it can't be read.";
        let ends_s = known(self.certificate_ends_s);
        page.one("client_certificate_expiration_timestamp_seconds", "gauge", help, ends_s);
    }

    fn backups(&self, page: &mut Page) {
        let (state, tally) = (self.state, self.tally);
        let taken = known(state.last_full.map(|full| seconds(full.taken_ms)));
        page.one("last_full_timestamp_seconds", "gauge", "When the newest full was taken.", taken);
        let due = known(self.full_due_ms.map(seconds));
        page.one("full_due_timestamp_seconds", "gauge", "When the next full is due; NaN: at once.", due);
        let verified = known(state.last_verify.map(|verify| seconds(verify.at_ms)));
        let help = "When the vault was verified last; NaN: never by this agent.";
        page.one("last_verify_timestamp_seconds", "gauge", help, verified);
        let faults = known(state.last_verify.map(|verify| verify.faults));
        page.one("last_verify_faults", "gauge", "Objects that were not as their manifests say then.", faults);
        page.one("segments_stored_total", "counter", "Segments put into the vault.", tally.segments);
        let help = "Segments that were merged of smaller ones.";
        page.one("merged_segments_stored_total", "counter", help, tally.merged);
        let help = "Failed attempts to store, take or verify backups.";
        page.one("store_errors_total", "counter", help, tally.errors);
        let help = "1: the last attempt failed, and nothing was stored since.";
        page.one("store_failing", "gauge", help, u8::from(tally.is_failing));
        let help = "0: the configuration's file was refused when it was read again.";
        page.one("config_last_reload_successful", "gauge", help, u8::from(!tally.reload_failed));
        if let Some(error) = &tally.last_error {
            page.family("last_error_info", "gauge", "The last failure.");
            page.sample("last_error_info", &[("error", error)], 1);
        }
    }
}

impl Seen<'_> {
    fn drills(&self, page: &mut Page) {
        let last = self.state.last_drill;
        let help = "When the next drill is due; NaN: drills are not configured.";
        page.one("drill_due_timestamp_seconds", "gauge", help, known(self.drill_due_ms.map(seconds)));
        let at = known(last.map(|drill| seconds(drill.at_ms)));
        page.one("drill_last_timestamp_seconds", "gauge", "When the last drill was begun; NaN: never.", at);
        let at = known(last.and_then(|drill| drill.passed_ms).map(seconds));
        let help = "When the last drill was begun that passed; NaN: never.";
        page.one("drill_last_success_timestamp_seconds", "gauge", help, at);
        let passed = known(last.map(|drill| u8::from(drill.passed)));
        let help = "0: the last drill failed or missed a target; NaN: there was none.";
        page.one("drill_last_passed", "gauge", help, passed);
        let rto = last.and_then(|drill| drill.rto_ms).and_then(|ms| i64::try_from(ms).ok());
        let help = "From the last drill's start until all was verified; NaN: it was not booted.";
        page.one("drill_rto_seconds", "gauge", help, known(rto.map(seconds)));
        let rpo = known(last.and_then(|drill| drill.rpo_ms).map(seconds));
        let help = "What a loss at the last drill's start would have cost; NaN: not known.";
        page.one("drill_rpo_seconds", "gauge", help, rpo);
    }
}

/// Prometheus text under way. Writing to a String can't fail.
#[derive(Default)]
struct Page(String);

impl Page {
    fn build_info(&mut self) {
        self.family("build_info", "gauge", "The program.");
        self.sample("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let name = format!("rekindle_agent_{name}");
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "rekindle_agent_{name}{labels} {value}");
    }
}

/// What is not known is no number.
fn known(value: Option<impl Display>) -> String {
    value.map_or("NaN".into(), |value| value.to_string())
}

fn seconds(ms: i64) -> String {
    let ms = ms.max(0);
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// When a certificate expires, seconds since the Unix epoch; the first one of the file is the client's own.
fn ends_s(path: &Utf8Path) -> Option<i64> {
    let mut pem = Vec::new();
    std::fs::File::open(path).ok()?.take(CERTIFICATE_MAX_BYTES).read_to_end(&mut pem).ok()?;
    let pems = x509_parser::pem::Pem::iter_from_buffer(&pem).filter_map(Result::ok);
    let first = pems.into_iter().find(|pem| pem.label == "CERTIFICATE")?;
    Some(first.parse_x509().ok()?.validity().not_after.timestamp())
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
            last_verify: None,
            last_drill: None,
        };
        let last_error = Some("no \"disk\"\nrekindle_agent_rpo_seconds 0".into());
        let tally = Tally { last_error, ..Tally::default() };
        let mut health = Health::default();
        let page = |health: &Health| {
            let seen = Seen {
                health,
                state: &state,
                tally: &tally,
                full_due_ms: None,
                drill_due_ms: None,
                runbook_made_ms: None,
                spool_max_bytes: 1,
                certificate_ends_s: None,
            };
            seen.page(5000)
        };
        let text = page(&health);
        assert!(text.contains("\nrekindle_agent_rpo_seconds NaN\n"), "{text}");
        assert!(text.contains("\nrekindle_agent_last_full_timestamp_seconds NaN\n"), "{text}");
        assert!(!text.contains("\nrekindle_agent_rpo_seconds 0"), "{text}");
        health.rpo = Rpo::Known { proved_ms: 4660 };
        assert!(page(&health).contains("\nrekindle_agent_rpo_seconds 0.340\n"));
    }
}
