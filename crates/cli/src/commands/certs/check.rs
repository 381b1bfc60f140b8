//! `rekindle certs check`: one table over all hosts, then what is wrong.

use super::args::Check;
use crate::args::FailOn;
use crate::commands::check::options;
use crate::commands::managed;
use crate::connect;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::render::check::{one_line, roots};
use crate::render::units::time;
use rekindle_diagnose::certificates::breaks;
use rekindle_model::certificate::{CertificateFacts, KeyState};
use rekindle_model::finding::{Finding, Layer, Severity};
use rekindle_model::host::HostFacts;
use rekindle_model::inventory::Inventory;
use rekindle_model::{API_VERSION, HostId, Seen};
use rekindle_world::observe::observe;
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt::Write;

const DAY_S: i64 = 86_400;

/// What `rekindle certs check` prints.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CertificateReport {
    /// `rekindle/v1alpha1`.
    api_version: String,
    /// `CertificateReport`.
    kind: String,
    /// When, milliseconds since the Unix epoch.
    taken_ms: i64,
    /// Whether no finding fails, and the certificates of every host could be read.
    success: bool,
    /// One line a certificate.
    certificates: Vec<Line>,
    /// Everything read, by host.
    hosts: Vec<HostCertificates>,
    /// What is wrong with them.
    findings: Vec<Finding>,
}

/// Everything read on one host.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct HostCertificates {
    /// The host.
    host: HostId,
    /// What was read, or why it was not.
    facts: Seen<CertificateFacts>,
}

/// One certificate.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Line {
    /// The host.
    host: HostId,
    /// Its name, or `served: SERVICE` for one that a port serves and no file holds.
    name: String,
    /// File, or address and port.
    place: String,
    /// Its end, milliseconds since the Unix epoch; none when it could not be read.
    not_after_ms: Option<i64>,
    /// Days left by the host's clock, rounded down.
    days_left: Option<i64>,
    /// Name of the authority that has to sign it.
    authority: Option<String>,
    /// Whether the authority's key is not on this host.
    externally_managed: bool,
    /// `ok`, `ending`, `expired`, `not yet valid`, or why it could not be read.
    state: String,
    /// What stops working when it is not valid.
    breaks: String,
}

pub(super) fn run(args: &Check, output: &Output) -> Result<Exit, Failure> {
    let inventory = connect::runtime()?.block_on(async {
        managed::refuse(&args.hosts, "certs check", managed::CERTIFICATES, output).await?;
        let world = connect::world(&args.hosts).await?;
        Ok::<_, Failure>(observe(&world, &options(&args.hosts, None, None)).await)
    })?;
    let report = report(&inventory);
    let worst = report.findings.iter().map(|f| f.severity).max();
    output.document(&report, |short| table(&report, short))?;
    Ok(match worst {
        _ if !report.success => Exit::Findings,
        Some(Severity::Warning) if args.fail_on == FailOn::Warn => Exit::Warnings,
        _ => Exit::Ok,
    })
}

fn report(inventory: &Inventory) -> CertificateReport {
    let all = rekindle_diagnose::diagnose(inventory).findings;
    // A host that can't be read is said as well: nothing is known of its certificates. Causes are of other layers.
    let of_certificates = |f: &Finding| f.layer == Layer::Certificates || f.code == "RK-H01";
    let findings: Vec<Finding> =
        all.into_iter().filter(of_certificates).map(|f| Finding { caused_by: None, ..f }).collect();
    let read = inventory.hosts.iter().filter_map(|host| Some((host, host.certificates.known()?)));
    CertificateReport {
        api_version: API_VERSION.into(),
        kind: "CertificateReport".into(),
        taken_ms: inventory.taken_ms,
        success: findings.iter().all(|f| f.severity != Severity::Failure)
            && inventory.hosts.iter().all(|h| h.certificates.known().is_some()),
        certificates: read.flat_map(|(host, facts)| lines(inventory, host, facts)).collect(),
        hosts: inventory
            .hosts
            .iter()
            .map(|h| HostCertificates { host: h.id.clone(), facts: h.certificates.clone() })
            .collect(),
        findings,
    }
}

fn lines(inventory: &Inventory, host: &HostFacts, facts: &CertificateFacts) -> Vec<Line> {
    let now_s = inventory.host_now_s(host);
    let external = |name: &str| facts.file(name).is_none_or(|ca| ca.key == KeyState::Missing);
    let files = facts.files.iter().map(|file| {
        let known = file.certificate.known();
        let state = match &file.certificate {
            Seen::Unknown(why) => why.clone(),
            Seen::Known(c) if now_s < c.not_before_s => "not yet valid".into(),
            Seen::Known(c) if now_s > c.not_after_s => "expired".into(),
            Seen::Known(_) if file.signed_by_authority == Some(false) => "of another authority".into(),
            Seen::Known(_) if file.key == KeyState::Differs => "key differs".into(),
            Seen::Known(_) if file.key == KeyState::Missing && file.authority.is_some() => {
                "key missing".into()
            }
            Seen::Known(_) if matches!(file.key, KeyState::Unreadable(_)) => "key can't be read".into(),
            Seen::Known(c) if !file.is_authority() && c.is_ending_at(now_s) => "ending".into(),
            Seen::Known(_) => "ok".into(),
        };
        Line {
            host: host.id.clone(),
            name: file.name.clone(),
            place: file.path().to_string(),
            not_after_ms: known.map(|c| c.not_after_s.saturating_mul(1000)),
            days_left: known.map(|c| c.not_after_s.saturating_sub(now_s).div_euclid(DAY_S)),
            authority: file.authority.clone(),
            externally_managed: match &file.authority {
                Some(authority) => external(authority),
                None => file.is_authority() && file.key == KeyState::Missing,
            },
            state,
            breaks: breaks(&file.name).into(),
        }
    });
    files.chain(served(host, facts, now_s)).collect()
}

/// What ports serve and no file holds.
fn served(host: &HostFacts, facts: &CertificateFacts, now_s: i64) -> Vec<Line> {
    let held =
        |sha256: &str| facts.files.iter().any(|f| f.certificate.known().is_some_and(|c| c.sha256 == sha256));
    let lines = facts.served.iter().filter_map(|one| {
        let shown = one.certificate.known().filter(|c| !held(&c.sha256))?;
        let state = match (one.names.is_empty(), shown.is_valid_at(now_s)) {
            (false, _) => "not the one in its file",
            (true, true) => "ok (made in memory at each start)",
            (true, false) => "expired (made in memory at each start)",
        };
        Some(Line {
            host: host.id.clone(),
            name: format!("served: {}", one.service),
            place: one.address.clone(),
            not_after_ms: Some(shown.not_after_s.saturating_mul(1000)),
            days_left: Some(shown.not_after_s.saturating_sub(now_s).div_euclid(DAY_S)),
            authority: None,
            externally_managed: false,
            state: state.into(),
            breaks: String::new(),
        })
    });
    lines.collect()
}

fn table(report: &CertificateReport, short: bool) -> String {
    let mut text = String::new();
    for host in &report.hosts {
        let own = report.certificates.iter().filter(|l| l.host == host.host && !(short && l.state == "ok"));
        let _ = writeln!(text, "{}", host.host);
        if let Some(why) = host.facts.why_unknown() {
            let _ = writeln!(text, "  not read: {}", one_line(why));
        }
        let _ = writeln!(
            text,
            "  {:<26} {:<21} {:>7}  {:<15} STATE",
            "CERTIFICATE", "EXPIRES", "DAYS", "AUTHORITY"
        );
        for line in own {
            let end = line.not_after_ms.map_or_else(|| "unknown".to_owned(), time);
            let days = line.days_left.map_or_else(String::new, |days| days.to_string());
            let authority = line.authority.as_deref().unwrap_or("-");
            let external = if line.externally_managed { " (key kept elsewhere)" } else { "" };
            let mut state = one_line(&line.state);
            if line.state != "ok" && !line.breaks.is_empty() {
                let _ = write!(state, "; breaks: {}", line.breaks);
            }
            let _ =
                writeln!(text, "  {:<26} {end:<21} {days:>7}  {authority:<15} {state}{external}", line.name);
        }
        text.push('\n');
    }
    roots(&mut text, &report.findings);
    let fails = report.findings.iter().any(|f| f.severity == Severity::Failure);
    let verdict = match (report.success, fails) {
        (true, _) => "√",
        (false, true) => "×",
        (false, false) => "? (not every host could be read)",
    };
    let _ = writeln!(text, "Certificates are {verdict}");
    text
}
