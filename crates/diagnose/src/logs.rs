//! Log lines as evidence: which lines belong to a component, what they say, and when.

use rekindle_model::HostPath;
use rekindle_model::etcd::EtcdDefinition;
use rekindle_model::finding::Evidence;
use rekindle_model::host::{Component, HostFacts};

use crate::report::seen_at;

/// A line quoted in evidence is cut to this many characters.
const QUOTE_MAX: usize = 400;

/// A matched line.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    /// The line and where it was read.
    pub(crate) evidence: Evidence,
    /// Its time, when the line tells one.
    pub(crate) at_ms: Option<i64>,
    /// The line as it stands, for extracting words.
    pub(crate) line: String,
}

impl Hit {
    /// The line in short, for the time it tells.
    pub(crate) fn said(&self) -> String {
        let words =
            self.evidence.text.split_once(" F ").map_or(self.evidence.text.as_str(), |(_, words)| words);
        let short: String = words.chars().take(160).collect();
        format!("{}: {short}", self.evidence.source)
    }
}

/// What etcd writes when its files are damaged (etcd `server/storage/wal`, bbolt `freelist`, `db.go`).
pub(crate) const ETCD_DAMAGE: &[&str] = &[
    "walpb: crc mismatch",
    "freepages: failed to get all reachable pages",
    "invalid database",
    "file size too small",
    "failed to find database snapshot file",
    "failed to recover v3 backend from snapshot",
    "unexpected eof",
    "input/output error",
];
/// What raft says when a member's log is shorter than what it had acknowledged.
pub(crate) const ETCD_LOG_LOST: &[&str] = &["was the raft log corrupted, truncated, or lost"];
/// What etcd says when the others hold another history, or it has no place among them.
pub(crate) const ETCD_SHUT_OUT: &[&str] = &[
    "conflict with committed entry",
    "cluster id mismatch",
    "member count is unequal",
    "has already been bootstrapped",
    "error validating peerurls",
];
/// What etcd says when it was removed.
pub(crate) const ETCD_REMOVED: &[&str] = &["the member has been permanently removed from the cluster"];
/// What etcd says when it finds no quorum.
pub(crate) const ETCD_NO_QUORUM: &[&str] = &[
    "etcdserver: no leader",
    "lost leader",
    "failed to publish local member to cluster through raft",
    "etcdserver: request timed out",
];
/// An expired certificate, whoever says it (Go `crypto/x509`, kubelet bootstrap).
pub(crate) const CERT_EXPIRED: &[&str] =
    &["certificate has expired or is not yet valid", "bootstrap client certificate is expired"];
/// Words of a connection that fails over certificates, not over a service that is down.
pub(crate) const TLS_TROUBLE: &[&str] = &["certificate", "x509", "handshake", "tls"];
/// A flag that the program does not know (pflag; Go `flag`, which etcd uses).
pub(crate) const UNKNOWN_FLAG: &[&str] = &["unknown flag: ", "flag provided but not defined: "];
/// Space ran out.
pub(crate) const NO_SPACE: &[&str] = &["no space left on device", "mvcc: database space exceeded"];
/// Why an API server that runs is not ready, or one that exits exits.
pub(crate) const API_STORAGE: &[&str] = &[
    "etcdserver: request timed out",
    "etcdserver: no leader",
    "etcd check failed",
    "etcd-readiness failed",
    "127.0.0.1:2379: connect: connection refused",
    "context deadline exceeded",
];
/// The last words of a kubelet that does not start.
pub(crate) const KUBELET_FATAL: &[&str] = &["failed to run kubelet", "command failed"];

/// The newest line of a component that holds one of the patterns (which are in lower case).
pub(crate) fn component(host: &HostFacts, component: Component, patterns: &[&str]) -> Option<Hit> {
    host.logs
        .iter()
        .filter(|(source, _)| belongs(host, component, source))
        .filter_map(|(source, lines)| newest(host, source, lines, patterns))
        .max_by_key(|hit| hit.at_ms)
}

/// The newest line of a unit's journal that holds one of the patterns.
pub(crate) fn unit(host: &HostFacts, unit: &str, patterns: &[&str]) -> Option<Hit> {
    let (source, lines) = host.logs.iter().find(|(source, _)| is_journal(source, unit))?;
    newest(host, source, lines, patterns)
}

/// The last line of a unit's journal or of a component's log, whatever it says.
pub(crate) fn last_words(host: &HostFacts, name: &str) -> Option<Hit> {
    let component = Component::ALL.into_iter().find(|c| c.name() == name);
    host.logs
        .iter()
        .filter(|(source, _)| component.map_or(is_journal(source, name), |c| belongs(host, c, source)))
        .filter_map(|(source, lines)| {
            Some(hit(host, source, lines.iter().rev().find(|l| !l.trim().is_empty())?))
        })
        .max_by_key(|hit| hit.at_ms)
}

fn is_journal(source: &str, unit: &str) -> bool {
    source.strip_prefix("journal:").is_some_and(|u| u.strip_suffix(".service").unwrap_or(u) == unit)
}

fn belongs(host: &HostFacts, component: Component, source: &str) -> bool {
    let folder = format!("/{component}/");
    host.container(component).is_some_and(|c| c.log_path == HostPath::from(source))
        || (source.starts_with('/') && source.contains(&folder))
        || is_journal(source, component.name())
        || component == Component::Etcd && is_journal(source, etcd_unit(host))
}

/// The name, without `.service`, of the unit that runs etcd: it need not be `etcd`.
pub(crate) fn etcd_unit(host: &HostFacts) -> &str {
    let unit = host.etcd_config.known().and_then(|config| match &config.defined_in {
        EtcdDefinition::Unit { name, .. } => Some(name.as_str()),
        EtcdDefinition::Manifest(_) => None,
    });
    unit.map_or("etcd", |name| name.strip_suffix(".service").unwrap_or(name))
}

fn newest(host: &HostFacts, source: &str, lines: &[String], patterns: &[&str]) -> Option<Hit> {
    lines.iter().rev().find(|line| matches(line, patterns)).map(|line| hit(host, source, line))
}

fn hit(host: &HostFacts, source: &str, line: &str) -> Hit {
    let text: String = line.chars().take(QUOTE_MAX).collect();
    Hit { evidence: seen_at(&host.id, source, text), at_ms: time_of(line), line: line.to_owned() }
}

/// Whether a text holds one of the patterns, whatever its case.
pub(crate) fn matches(text: &str, patterns: &[&str]) -> bool {
    let text = text.to_lowercase();
    patterns.iter().any(|pattern| text.contains(pattern))
}

/// The time a line begins with (RFC 3339, as journals and `/var/log/pods` give it) or that etcd's JSON holds as `ts`.
fn time_of(line: &str) -> Option<i64> {
    let first = line.split_whitespace().next()?;
    let parse = |text: &str| text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond);
    parse(first).or_else(|| {
        let (_, rest) = line.split_once("\"ts\":\"")?;
        parse(rest.split('"').next()?)
    })
}

/// The word after one of [`UNKNOWN_FLAG`], as `--flag`.
pub(crate) fn flag_named(line: &str) -> Option<String> {
    UNKNOWN_FLAG.iter().find_map(|pattern| {
        let at = line.to_lowercase().find(pattern)?;
        let word = line.get(at + pattern.len()..)?.split_whitespace().next()?;
        let name = word.trim_end_matches(['"', '\\', ',', '}']).trim_start_matches('-');
        let name = name.split('=').next()?;
        (!name.is_empty()).then(|| format!("--{name}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Times and flags are taken from lines of three programs; a line without a time tells none.
    #[test]
    fn times_and_flags_are_read_from_real_lines() {
        assert_eq!(time_of("2026-11-22T12:00:00.000000000Z stderr F Error: x"), Some(1_795_348_800_000));
        assert_eq!(
            time_of("{\"level\":\"warn\",\"ts\":\"2026-11-22T12:00:00.5Z\",\"msg\":\"x\"}"),
            Some(1_795_348_800_500)
        );
        assert_eq!(time_of("Error: unknown flag: --x"), None);
        assert_eq!(flag_named("Error: unknown flag: --enable-foo"), Some("--enable-foo".into()));
        assert_eq!(flag_named("flag provided but not defined: -wal-size"), Some("--wal-size".into()));
        assert_eq!(flag_named("nothing of the kind"), None);
    }
}
