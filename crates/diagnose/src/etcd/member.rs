//! The verdict on one host's member. Facts decide, in this order: attested lost, unreachable, removed, an answer (and
//! from what files), a process (and what it holds open), the data dir. Log lines stand beside them as evidence.

use super::rejoin::{self, Past, wal_source};
use super::{Member, reference};
use crate::logs::{self, Hit};
use crate::report::seen_at;
use rekindle_model::diagnosis::MemberVerdict;
use rekindle_model::etcd::{ConfChangeKind, EtcdDataFacts, EtcdStatus, WalFacts};
use rekindle_model::finding::Evidence;
use rekindle_model::host::{Component, HostFacts, Layout, OpenFile, ProcessFacts};
use rekindle_model::inventory::Inventory;
use rekindle_model::{HostId, MemberId, Seen};

/// Judges a host's member; none when nothing says that this host has or had one.
pub(crate) fn judge(inventory: &Inventory, host: &HostFacts) -> Option<Member> {
    if inventory.lost_hosts.contains(&host.id) {
        return Some(lost(&host.id));
    }
    let mut suspicion = None;
    let (verdict, evidence) = if let Some(why) = &host.unreachable {
        (MemberVerdict::Unknown(format!("{} cannot be reached: {why}", host.id)), vec![])
    } else if has_no_member(host) {
        return None;
    } else {
        let (verdict, evidence) = of_facts(inventory, host);
        match past(inventory, host, &verdict) {
            Past::Wiped(told) => (MemberVerdict::RejoinedWiped, told),
            Past::Suspect(told) => {
                suspicion = Some(told);
                (verdict, evidence)
            }
            Past::Untold => (verdict, evidence),
        }
    };
    Some(Member { host: host.id.clone(), verdict, evidence, suspicion })
}

/// The member of a host that the operator attests to be off for good.
pub(crate) fn lost(host: &HostId) -> Member {
    let evidence = vec![seen_at(host, "--lost", "attested by the operator")];
    Member { host: host.clone(), verdict: MemberVerdict::HostLost, evidence, suspicion: None }
}

/// Only a member that would otherwise be kept is asked for its past.
fn past(inventory: &Inventory, host: &HostFacts, verdict: &MemberVerdict) -> Past {
    match verdict {
        MemberVerdict::Healthy | MemberVerdict::StoppedIntact | MemberVerdict::NoQuorum => {
            rejoin::past(inventory, host)
        }
        _ => Past::Untold,
    }
}

/// No configuration, no data, no process, no answer: an etcd elsewhere, or a worker.
fn has_no_member(host: &HostFacts) -> bool {
    let data = host.etcd_data.known().is_some_and(|d| d.exists);
    let manifest =
        host.manifests.known().is_some_and(|all| all.iter().any(|m| m.component == Some(Component::Etcd)));
    host.etcd_config.known().is_none()
        && !data
        && !manifest
        && status(host).is_none()
        && host.process(Component::Etcd).is_none()
        && (host.layout == Layout::None || host.manifests.known().is_some())
}

fn of_facts(inventory: &Inventory, host: &HostFacts) -> (MemberVerdict, Vec<Evidence>) {
    if let Some(told) = removed(inventory, host) {
        return told;
    }
    if let Some(evidence) = shell(host) {
        return (MemberVerdict::DataLost, evidence);
    }
    if !status(host).is_some_and(|s| s.is_learner)
        && let Some(mut evidence) = reference::imposter(inventory, host)
    {
        evidence.extend(birth(host));
        evidence.extend(line(host, logs::ETCD_LOG_LOST));
        return (MemberVerdict::EmptyImposter, evidence);
    }
    match status(host) {
        Some(status) => answering(host, status),
        None => silent(host),
    }
}

fn status(host: &HostFacts) -> Option<&EtcdStatus> {
    host.etcd_live.known()?.status.known()
}

/// A member that answers.
fn answering(host: &HostFacts, status: &EtcdStatus) -> (MemberVerdict, Vec<Evidence>) {
    let answers = seen_at(
        &host.id,
        "etcd status",
        format!(
            "member {} answers at revision {}, leader {}",
            status.member_id, status.revision, status.leader
        ),
    );
    let data = host.etcd_data.known();
    let mut lost = deleted_evidence(host);
    if let Some(data) = data {
        if !data.exists || !data.has_member {
            lost.push(seen_at(&host.id, data_dir(host), "no member/ in the data dir"));
        }
        lost.extend(damage(host, data));
    }
    if !lost.is_empty() {
        lost.push(answers);
        return (MemberVerdict::ServingFromLostFiles, lost);
    }
    if host.etcd_live.known().and_then(|l| l.quorum.known()) == Some(&true) {
        return (MemberVerdict::Healthy, vec![answers]);
    }
    let mut evidence = vec![answers];
    evidence.extend(status.errors.first().map(|error| seen_at(&host.id, "etcd status", error)));
    evidence.extend(line(host, logs::ETCD_NO_QUORUM));
    (MemberVerdict::NoQuorum, evidence)
}

/// A member that does not answer: by its process, else by its files.
fn silent(host: &HostFacts) -> (MemberVerdict, Vec<Evidence>) {
    let why = host.etcd_live.known().and_then(|l| l.status.why_unknown());
    let why = why.or_else(|| host.etcd_live.why_unknown()).unwrap_or("no answer");
    let no_answer = seen_at(&host.id, "etcd status", why);
    let running = host.process(Component::Etcd);
    if let Some(process) = running
        && let Some(open) = open_db(process)
    {
        return (MemberVerdict::OpenDbOnly, vec![open_evidence(host, process, open), no_answer]);
    }
    let Some(data) = host.etcd_data.known() else {
        let why = host.etcd_data.why_unknown().unwrap_or_default();
        return (MemberVerdict::Unknown(format!("etcd data dir on {}: {why}", host.id)), vec![no_answer]);
    };
    if !data.exists || !data.has_member {
        let text = if data.exists { "no member/ in it" } else { "does not exist" };
        let mut evidence = vec![seen_at(&host.id, data_dir(host), text)];
        evidence.extend(line(host, logs::ETCD_SHUT_OUT));
        return (MemberVerdict::DataLost, evidence);
    }
    let mut bad = damage(host, data);
    if !bad.is_empty() {
        bad.extend(line(host, logs::ETCD_DAMAGE));
        return (MemberVerdict::DataCorrupt, bad);
    }
    if let Some(hit) = hit(host, logs::ETCD_LOG_LOST)
        && let Some(short) = log_too_short(host, data, &hit)
    {
        return (MemberVerdict::DataCorrupt, vec![short, hit.evidence]);
    }
    if running.is_none()
        && let Some(lost) = log_lost_its_end(host, data)
    {
        return (MemberVerdict::DataCorrupt, vec![lost, no_answer]);
    }
    if let Some(process) = running {
        let text = format!("etcd runs (pid {}) and its data is whole", process.pid);
        let mut evidence = vec![seen_at(&host.id, "processes", text), no_answer];
        evidence.extend(line(host, logs::ETCD_NO_QUORUM));
        return (MemberVerdict::NoQuorum, evidence);
    }
    stopped(host, data, no_answer)
}

/// No answer, and no process seen: intact only when db and WAL were read.
fn stopped(host: &HostFacts, data: &EtcdDataFacts, no_answer: Evidence) -> (MemberVerdict, Vec<Evidence>) {
    if let Some(why) = host.processes.why_unknown()
        && host.container(Component::Etcd).is_none_or(|c| c.running)
    {
        return (MemberVerdict::Unknown(format!("whether etcd runs on {}: {why}", host.id)), vec![no_answer]);
    }
    match (&data.db, &data.wal) {
        (Seen::Known(db), Seen::Known(wal)) => {
            let text = format!("whole: db at revision {}, WAL to index {}", db.revision, wal.last_index);
            let mut evidence = vec![seen_at(&host.id, data_dir(host), text), no_answer];
            evidence.extend(exited(host));
            let words =
                hit(host, logs::ETCD_SHUT_OUT).or_else(|| logs::last_words(host, Component::Etcd.name()));
            evidence.extend(words.map(|hit| hit.evidence));
            (MemberVerdict::StoppedIntact, evidence)
        }
        (Seen::Unknown(why), _) => {
            (MemberVerdict::Unknown(format!("etcd db on {}: {why}", host.id)), vec![no_answer])
        }
        (_, Seen::Unknown(why)) => {
            (MemberVerdict::Unknown(format!("etcd WAL on {}: {why}", host.id)), vec![no_answer])
        }
    }
}

/// A db without one key, and no log, or one that this member did not begin itself: what an etcd leaves that started on
/// an empty folder and could not join, or met a leader that knew it and panicked.
fn shell(host: &HostFacts) -> Option<Vec<Evidence>> {
    let data = host.etcd_data.known()?;
    let db = data.db.known()?;
    let empty = db.violations.is_empty() && reference::rows_read(db) && db.live_keys == 0 && db.revision <= 1;
    let log = match &data.wal {
        Seen::Unknown(why) => format!("no log ({why})"),
        Seen::Known(wal) if !bootstrapped(wal) => format!("a log of {} entries", wal.last_index),
        Seen::Known(_) => return None,
    };
    (empty && status(host).is_none()).then(|| {
        let text = format!("an empty db at revision {} and {log}", db.revision);
        let mut evidence = vec![seen_at(&host.id, data_dir(host), text)];
        evidence.extend(line(host, logs::ETCD_SHUT_OUT));
        evidence.extend(line(host, logs::ETCD_LOG_LOST));
        evidence
    })
}

/// Whether this member began its cluster: its own addition is an entry of term 1 (raft `RawNode.Bootstrap`).
fn bootstrapped(wal: &WalFacts) -> bool {
    wal.conf_changes
        .iter()
        .any(|c| c.term == 1 && c.kind == ConfChangeKind::AddVoter && Some(c.member) == wal.member_id)
}

/// Whether the present members removed this one, or never knew it (they were restored without it): by its own log line,
/// or because a member of another host that is in quorum does not list it. A learner under a new id on this host has
/// its own id in the list. One that is in a quorum itself, of the cluster as it was, is told by the run that restored it.
fn removed(inventory: &Inventory, host: &HostFacts) -> Option<(MemberVerdict, Vec<Evidence>)> {
    let wal = host.etcd_data.known()?.wal.known()?;
    let id = status(host).map(|s| s.member_id).or(wal.member_id)?;
    let in_quorum = host.etcd_live.known().and_then(|l| l.quorum.known()) == Some(&true);
    let said = line(host, logs::ETCD_REMOVED).filter(|_| status(host).is_none());
    let missing = inventory.hosts.iter().filter(|other| other.id != host.id).find_map(|other| {
        let live = other.etcd_live.known().filter(|live| live.quorum.known() == Some(&true))?;
        let members = live.members.known().filter(|members| !members.is_empty())?;
        let listed = members.iter().any(|m| m.id == id);
        // an imposter's list is no list of the cluster's
        let real = reference::imposter(inventory, other).is_none();
        (!listed && real).then(|| (other, members_line(other, members.iter().map(|m| m.id))))
    });
    let restored = match &missing {
        Some((other, _)) if in_quorum => Some(reference::left_behind(inventory, host, other)?),
        _ if in_quorum => return None,
        None if said.is_none() => return None,
        _ => None,
    };
    let own = seen_at(&host.id, wal_source(host), format!("member id {id}"));
    let missing = missing.map(|(_, list)| list);
    let evidence = std::iter::once(own).chain(missing).chain(restored).chain(said).collect();
    Some((MemberVerdict::Removed(id), evidence))
}

fn members_line(host: &HostFacts, ids: impl Iterator<Item = MemberId>) -> Evidence {
    let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
    seen_at(&host.id, "etcd member list", ids.join(" "))
}

/// Damage as it was read: typed by the observer, or violations of the db's structure.
fn damage(host: &HostFacts, data: &EtcdDataFacts) -> Vec<Evidence> {
    let dir = data_dir(host);
    let violations = data.db.known().into_iter().flat_map(|db| &db.violations);
    data.damage.iter().chain(violations).take(5).map(|text| seen_at(&host.id, &dir, text)).collect()
}

/// "tocommit(A) is out of range [lastIndex(B)]" counts only against a log on the disk that ends before A.
fn log_too_short(host: &HostFacts, data: &EtcdDataFacts, hit: &Hit) -> Option<Evidence> {
    let wal = data.wal.known()?;
    let digits = hit.line.split_once("tocommit(")?.1.split(')').next()?;
    let wanted: u64 = digits.parse().ok()?;
    (wal.last_index < wanted).then(|| {
        seen_at(
            &host.id,
            wal_source(host),
            format!("the log ends at index {}, {wanted} was committed", wal.last_index),
        )
    })
}

/// A log that ends before what the db has applied has lost its end, whatever its bytes look like: garbage in it may read as the
/// torn end of a last write, which etcd drops. It syncs an entry to the log before it applies it, and a hard state with the
/// commit index when it is sent a snapshot in place of entries (etcd `server/etcdserver/raft.go`). Counts only while etcd
/// does not run: both files are read one after the other.
fn log_lost_its_end(host: &HostFacts, data: &EtcdDataFacts) -> Option<Evidence> {
    let (db, wal) = (data.db.known()?, data.wal.known()?);
    let begun_at = wal.birth.as_ref().map_or(0, |birth| birth.first_snapshot_index);
    let end = wal.last_index.max(wal.commit_index).max(begun_at);
    (end < db.consistent_index).then(|| {
        let text = format!("the log ends at index {end}, the db has applied {}", db.consistent_index);
        seen_at(&host.id, wal_source(host), text)
    })
}

/// The deleted `db` of this member, still open; its path is the container's, which may differ from the host's. A WAL
/// alone is no sign: etcd deletes those it needs no more.
fn open_db(process: &ProcessFacts) -> Option<&OpenFile> {
    process.deleted_files.iter().find(|file| file.path.ends_with("member/snap/db"))
}

fn deleted_evidence(host: &HostFacts) -> Vec<Evidence> {
    let process = host.process(Component::Etcd);
    process.and_then(|p| Some(vec![open_evidence(host, p, open_db(p)?)])).unwrap_or_default()
}

fn open_evidence(host: &HostFacts, process: &ProcessFacts, file: &OpenFile) -> Evidence {
    let text = format!("{} (deleted), {} bytes", file.path, file.size_bytes);
    seen_at(&host.id, format!("/proc/{}/fd/{}", process.pid, file.fd), text)
}

fn data_dir(host: &HostFacts) -> String {
    host.etcd_config.known().map_or_else(|| "etcd data dir".into(), |c| c.data_dir.to_string())
}

fn birth(host: &HostFacts) -> Option<Evidence> {
    let birth = host.etcd_data.known()?.wal.known()?.birth.as_ref()?;
    let born = birth.created_ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())?;
    Some(seen_at(&host.id, wal_source(host), format!("its log was begun at {born}")))
}

fn exited(host: &HostFacts) -> Option<Evidence> {
    if let Some(container) = host.container(Component::Etcd).filter(|c| !c.running) {
        let code = container.exit_code.map_or_else(|| "?".into(), |code| code.to_string());
        let text = format!("exited with {code} ({}), attempt {}", container.reason, container.attempt);
        return Some(seen_at(&host.id, "container etcd", text));
    }
    let name = logs::etcd_unit(host);
    let unit = host.unit(name).filter(|u| host.layout == Layout::Units && !u.is_active())?;
    Some(seen_at(&host.id, format!("systemctl show {name}"), crate::runtime::state(unit)))
}

fn hit(host: &HostFacts, patterns: &[&str]) -> Option<Hit> {
    logs::component(host, Component::Etcd, patterns)
}

fn line(host: &HostFacts, patterns: &[&str]) -> Option<Evidence> {
    hit(host, patterns).map(|hit| hit.evidence)
}
