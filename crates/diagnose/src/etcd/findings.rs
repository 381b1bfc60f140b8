//! etcd's check lines and findings, from the verdicts.

use super::{EtcdState, Member, quorum, reference, rejoin};
use crate::codes;
use crate::control_plane;
use crate::logs;
use crate::report::{Report, seen_at};
use rekindle_model::diagnosis::{EtcdVerdict, MemberVerdict};
use rekindle_model::finding::{Evidence, Layer};
use rekindle_model::host::{Component, HostFacts};
use rekindle_model::inventory::Inventory;

const MEMBER: &str = "etcd member answers, in quorum, from its own files";
const QUORUM: &str = "etcd has quorum";
const ALARMS: &str = "etcd has raised no alarm";

/// Writes the verdicts down.
pub(crate) fn check(inventory: &Inventory, etcd: &EtcdState, report: &mut Report) {
    for member in &etcd.members {
        let Some(host) = inventory.host(&member.host) else { continue };
        certificates(host, member, report);
        one_member(host, member, report);
        times(host, member, report);
        if let Some(evidence) = &member.suspicion {
            let summary =
                format!("the etcd member on {} may have rejoined after its disk was wiped", host.id);
            let title = "etcd member kept its log";
            report.found("RK-E14", Some(&host.id), title, summary, evidence.clone(), vec![]);
        }
        if member.verdict == MemberVerdict::Healthy
            && let Some((own, run)) = reference::went_backwards(inventory, host)
        {
            let summary = format!("etcd on {} is at a lower revision than an earlier run saw", host.id);
            report.found("RK-E15", Some(&host.id), "etcd's revision only grows", summary, own, vec![run]);
        }
    }
    cluster_ids(inventory, etcd, report);
    whole(etcd, report);
    alarms(inventory, report);
    learners(inventory, report);
}

fn one_member(host: &HostFacts, member: &Member, report: &mut Report) {
    let id = Some(&host.id);
    let on = &host.id;
    let (code, summary) = match &member.verdict {
        MemberVerdict::Healthy => {
            let detail = member.evidence.first().map(|e| e.text.clone()).unwrap_or_default();
            report.ok(Layer::Etcd, id, MEMBER, detail);
            return;
        }
        MemberVerdict::Unknown(why) => {
            report.unknown(Layer::Etcd, id, MEMBER, why);
            return;
        }
        MemberVerdict::HostLost => {
            report.unknown(Layer::Etcd, id, MEMBER, "the host is attested lost");
            return;
        }
        MemberVerdict::StoppedIntact => {
            ("RK-E06", format!("the etcd member on {on} is stopped; its data is whole"))
        }
        MemberVerdict::NoQuorum => {
            ("RK-E07", format!("the etcd member on {on} runs without quorum; its data is whole"))
        }
        MemberVerdict::ServingFromLostFiles if deleted(member) => {
            ("RK-E03", format!("etcd on {on} still serves, but its files were deleted: do not stop it"))
        }
        MemberVerdict::ServingFromLostFiles => (
            "RK-E04",
            format!("etcd on {on} still serves, but its files on disk are damaged: do not stop it"),
        ),
        MemberVerdict::OpenDbOnly => {
            ("RK-E05", format!("etcd on {on} does not answer; its deleted db is still open: do not stop it"))
        }
        MemberVerdict::DataLost => ("RK-E01", format!("the etcd data on {on} is gone")),
        MemberVerdict::DataCorrupt => ("RK-E02", format!("the etcd data on {on} is damaged")),
        MemberVerdict::RejoinedWiped => {
            ("RK-E09", format!("the etcd member on {on} was wiped and rejoined under its old id"))
        }
        MemberVerdict::EmptyImposter => {
            ("RK-E08", format!("the etcd on {on} is a new, empty cluster in the place of the old one"))
        }
        MemberVerdict::Removed(old) => {
            ("RK-E10", format!("the etcd member {old} on {on} was removed from the cluster"))
        }
    };
    let mut evidence = member.evidence.iter().cloned();
    let Some(first) = evidence.next() else {
        report.unknown(Layer::Etcd, id, MEMBER, codes::entry(code).title);
        return;
    };
    report.found(code, id, MEMBER, summary, first, evidence.collect());
    report.explain(on, &control_plane::title(Component::Etcd));
}

fn deleted(member: &Member) -> bool {
    member.evidence.iter().any(|e| e.text.contains("(deleted)") || e.text.starts_with("no member/"))
}

/// What the state tells of the time it began.
fn times(host: &HostFacts, member: &Member, report: &mut Report) {
    if matches!(member.verdict, MemberVerdict::EmptyImposter | MemberVerdict::RejoinedWiped) {
        let birth = host.etcd_data.known().and_then(|d| d.wal.known()).and_then(|w| w.birth.as_ref());
        report.time(
            birth.and_then(|b| b.created_ms),
            format!("etcd on {} began a new log in {}", host.id, rejoin::wal_source(host)),
        );
    }
    if matches!(member.verdict, MemberVerdict::Healthy | MemberVerdict::Unknown(_) | MemberVerdict::HostLost)
    {
        return;
    }
    for patterns in [logs::ETCD_DAMAGE, logs::ETCD_LOG_LOST, logs::ETCD_SHUT_OUT, logs::ETCD_NO_QUORUM] {
        if let Some(hit) = logs::component(host, Component::Etcd, patterns)
            && member.evidence.contains(&hit.evidence)
        {
            report.time(hit.at_ms, hit.said());
        }
    }
}

/// Expired or refused certificates, where the member is not healthy: a healthy one's old log line is no finding.
fn certificates(host: &HostFacts, member: &Member, report: &mut Report) {
    if !matches!(
        member.verdict,
        MemberVerdict::NoQuorum | MemberVerdict::StoppedIntact | MemberVerdict::Unknown(_)
    ) {
        return;
    }
    let note =
        host.etcd_live.known().and_then(|l| l.note.as_ref()).filter(|n| logs::matches(n, logs::TLS_TROUBLE));
    let said = note.map(|note| seen_at(&host.id, "etcd connection", note));
    let hit = logs::component(host, Component::Etcd, logs::CERT_EXPIRED);
    let mut evidence = said.into_iter().chain(hit.map(|h| h.evidence));
    if let Some(first) = evidence.next() {
        let summary = format!("certificates of etcd on {} are refused", host.id);
        let title = "etcd's certificates are accepted";
        report.found("RK-E18", Some(&host.id), title, summary, first, evidence.collect());
    }
}

fn cluster_ids(inventory: &Inventory, etcd: &EtcdState, report: &mut Report) {
    let kept = |h: &HostFacts| {
        etcd.member(&h.id).is_some_and(|v| {
            matches!(v, MemberVerdict::Healthy | MemberVerdict::StoppedIntact | MemberVerdict::NoQuorum)
        })
    };
    let ids: Vec<_> = quorum::cluster_ids(inventory).into_iter().filter(|(h, _)| kept(h)).collect();
    let Some((_, id)) = ids.first() else { return };
    if ids.iter().all(|(_, other)| other == id) {
        return;
    }
    let mut evidence: Vec<Evidence> =
        ids.iter().map(|(host, id)| seen_at(&host.id, "etcd", format!("cluster id {id}"))).collect();
    let first = evidence.remove(0);
    let summary = "the etcd members on these hosts carry different cluster ids";
    report.found("RK-E16", None, "etcd members are of one cluster", summary, first, evidence);
}

fn whole(etcd: &EtcdState, report: &mut Report) {
    if etcd.members.is_empty() {
        return;
    }
    // what the whole rests on is what its members rest on
    let rest: Vec<Evidence> = etcd
        .members
        .iter()
        .filter(|m| m.verdict != MemberVerdict::Healthy)
        .filter_map(|m| m.evidence.first().cloned())
        .collect();
    let counted = Evidence { source: "etcd members".into(), text: etcd.arithmetic.clone() };
    match &etcd.verdict {
        EtcdVerdict::Healthy | EtcdVerdict::QuorumHolds => {
            report.ok(Layer::Etcd, None, QUORUM, etcd.arithmetic.clone());
        }
        EtcdVerdict::Unknown(why) => report.unknown(Layer::Etcd, None, QUORUM, why),
        EtcdVerdict::DataLost if only_serves(etcd) => {
            report.ok(Layer::Etcd, None, QUORUM, "its only member serves from files that are lost");
        }
        EtcdVerdict::EmptyImposter => {
            let summary = "what answers is a new, empty etcd; the cluster's own has no quorum";
            report.found("RK-E11", None, QUORUM, summary, counted, rest);
        }
        EtcdVerdict::Stopped => {
            let summary = "etcd has no quorum; nothing is lost, too few members run";
            report.found("RK-E11", None, QUORUM, summary, counted, rest);
        }
        EtcdVerdict::DataLost => {
            let summary = "etcd has no quorum and too much of its data is lost for it to come back";
            report.found("RK-E11", None, QUORUM, summary, counted, rest);
        }
    }
}

fn only_serves(etcd: &EtcdState) -> bool {
    etcd.members.iter().all(|m| m.verdict == MemberVerdict::ServingFromLostFiles)
}

fn alarms(inventory: &Inventory, report: &mut Report) {
    let mut seen: Vec<(&HostFacts, &String)> = Vec::new();
    let mut asked = false;
    for host in &inventory.hosts {
        let Some(alarms) = host.etcd_live.known().and_then(|l| l.alarms.known()) else { continue };
        asked = true;
        for alarm in alarms {
            if !seen.iter().any(|(_, known)| *known == alarm) {
                seen.push((host, alarm));
            }
        }
    }
    if asked && seen.is_empty() {
        report.ok(Layer::Etcd, None, ALARMS, "");
    } else if !asked && inventory.hosts.iter().any(|h| h.etcd_config.known().is_some()) {
        report.unknown(Layer::Etcd, None, ALARMS, "no member answered");
    }
    for (host, alarm) in seen {
        let evidence = seen_at(&host.id, "etcd alarm list", alarm);
        let code = if alarm.ends_with("CORRUPT") { "RK-E13" } else { "RK-E12" };
        let more = inventory.hosts.iter().filter_map(|h| logs::component(h, Component::Etcd, logs::NO_SPACE));
        let more = if code == "RK-E12" { more.map(|hit| hit.evidence).collect() } else { vec![] };
        report.found(code, None, ALARMS, format!("etcd has raised the alarm {alarm}"), evidence, more);
    }
}

fn learners(inventory: &Inventory, report: &mut Report) {
    let list = inventory.hosts.iter().find_map(|host| {
        let live = host.etcd_live.known().filter(|live| live.quorum.known() == Some(&true))?;
        Some((host, live.members.known()?))
    });
    let Some((host, members)) = list else { return };
    for learner in members.iter().filter(|m| m.is_learner) {
        let text = format!("{} {} isLearner=true", learner.id, learner.peer_urls.join(","));
        let summary = format!("etcd member {} is a learner and does not vote", learner.id);
        let evidence = seen_at(&host.id, "etcd member list", text);
        report.found("RK-E17", None, "etcd has no learner left over", summary, evidence, vec![]);
    }
}
