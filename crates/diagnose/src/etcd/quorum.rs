//! The verdict on etcd as a whole: who votes, how many are in order, and whether starting is enough.

use super::{Member, reference};
use rekindle_model::HostId;
use rekindle_model::diagnosis::{EtcdVerdict, MemberVerdict};
use rekindle_model::etcd::{ConfChangeKind, EtcdMember};
use rekindle_model::host::HostFacts;
use rekindle_model::inventory::Inventory;
use rekindle_model::source::{Identity, SourceCandidate, SourceKind};
use std::collections::BTreeSet;

/// A voting member: its name or URL for people, and the host it runs on when that host was looked at.
#[derive(Debug)]
struct Voter {
    name: String,
    host: Option<HostId>,
}

/// The verdict, and how the voters count (`3 voters, 2 needed; ...`).
pub(crate) fn judge(inventory: &Inventory, members: &[Member]) -> (EtcdVerdict, String) {
    if members.is_empty() {
        let why = "no etcd member was found on the hosts looked at";
        return (EtcdVerdict::Unknown(why.into()), String::new());
    }
    let voters = voters(inventory, members);
    let needed = voters.len() / 2 + 1;
    let verdict_of = |voter: &Voter| {
        let host = voter.host.as_ref()?;
        members.iter().find(|m| &m.host == host).map(|m| &m.verdict)
    };
    let mut intact = Vec::new();
    let mut lost = Vec::new();
    let mut unknown = Vec::new();
    for voter in &voters {
        match verdict_of(voter) {
            Some(MemberVerdict::Healthy | MemberVerdict::StoppedIntact | MemberVerdict::NoQuorum) => {
                intact.push(voter.name.as_str());
            }
            Some(verdict) if verdict.is_lost() => lost.push(voter.name.as_str()),
            _ => unknown.push(voter.name.as_str()),
        }
    }
    let arithmetic = format!(
        "{} voter{}, {needed} needed; whole: {}; lost: {}; not known: {}",
        voters.len(),
        if voters.len() == 1 { "" } else { "s" },
        names(&intact),
        names(&lost),
        names(&unknown)
    );
    let verdict = if quorum_answers(inventory, members) {
        with_quorum(members, &voters)
    } else if members.iter().any(|m| m.verdict == MemberVerdict::EmptyImposter && answers(inventory, &m.host))
    {
        EtcdVerdict::EmptyImposter
    } else if intact.len() >= needed {
        all_there(members, needed)
    } else if intact.len() + unknown.len() < needed {
        EtcdVerdict::DataLost
    } else {
        EtcdVerdict::Unknown(format!(
            "quorum depends on members that could not be judged ({}): name their hosts with --host, or attest that \
             they are off for good with --lost",
            names(&unknown)
        ))
    };
    let works = matches!(verdict, EtcdVerdict::Healthy | EtcdVerdict::QuorumHolds);
    let doubt = two_clusters(inventory, members).or_else(|| corrupt_alarm(inventory)).filter(|_| works);
    (doubt.map_or(verdict, EtcdVerdict::Unknown), arithmetic)
}

/// Whether a member is of this cluster: no empty one in its place, and none of the cluster as it was.
fn is_real(member: &Member) -> bool {
    !matches!(member.verdict, MemberVerdict::EmptyImposter | MemberVerdict::Removed(_))
}

/// A member that is of this cluster answers linearizable reads.
fn quorum_answers(inventory: &Inventory, members: &[Member]) -> bool {
    inventory.hosts.iter().any(|host| {
        let quorum = host.etcd_live.known().and_then(|l| l.quorum.known()) == Some(&true);
        quorum && members.iter().any(|m| m.host == host.id && is_real(m))
    })
}

fn with_quorum(members: &[Member], voters: &[Voter]) -> EtcdVerdict {
    if members.iter().all(|m| m.verdict == MemberVerdict::Healthy) {
        return EtcdVerdict::Healthy;
    }
    // nobody is left to replace a single member's data from
    if let [only] = voters
        && members.iter().any(|m| m.verdict.is_lost() && Some(&m.host) == only.host.as_ref())
    {
        return EtcdVerdict::DataLost;
    }
    EtcdVerdict::QuorumHolds
}

/// Enough members are whole: starting those that are stopped is enough, unless all run and find no quorum.
fn all_there(members: &[Member], needed: usize) -> EtcdVerdict {
    let running = members.iter().filter(|m| m.verdict == MemberVerdict::NoQuorum).count();
    if running >= needed {
        return EtcdVerdict::Unknown(format!(
            "{running} of the members run with whole data and yet are in no quorum: they may be starting; else look at \
             their logs, and at the network and the certificates between them"
        ));
    }
    EtcdVerdict::Stopped
}

fn answers(inventory: &Inventory, host: &HostId) -> bool {
    let live = inventory.host(host).and_then(|h| h.etcd_live.known());
    live.is_some_and(|l| l.status.known().is_some())
}

/// Two clusters, each with a quorum: hosts given up for lost came back together, with the cluster as it was.
fn two_clusters(inventory: &Inventory, members: &[Member]) -> Option<String> {
    let healthy =
        |host: &HostId| members.iter().any(|m| &m.host == host && m.verdict == MemberVerdict::Healthy);
    let status = |h: &HostFacts| h.etcd_live.known().and_then(|l| l.status.known()).cloned();
    let of: Vec<(String, rekindle_model::MemberId)> = inventory
        .hosts
        .iter()
        .filter(|h| healthy(&h.id))
        .filter_map(|h| status(h).map(|s| (format!("{} (revision {})", h.id, s.revision), s.cluster_id)))
        .collect();
    let (_, first) = of.first()?;
    let (one, other): (Vec<_>, Vec<_>) = of.iter().partition(|(_, id)| id == first);
    let names = |of: &[&(String, rekindle_model::MemberId)]| {
        of.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    };
    (!other.is_empty()).then(|| {
        format!(
            "two clusters answer, each with a quorum of its own: {}; and {}. Switch off the hosts of the one that is not \
             to be kept, and give each of them with --lost; they are added again one after the other",
            names(&one),
            names(&other)
        )
    })
}

/// A CORRUPT alarm means that members differ, and nothing read here says which one is right.
fn corrupt_alarm(inventory: &Inventory) -> Option<String> {
    let mut alarms = inventory.hosts.iter().filter_map(|h| h.etcd_live.known()?.alarms.known()).flatten();
    alarms
        .find(|alarm| alarm.ends_with("CORRUPT"))
        .map(|alarm| format!("alarm {alarm}: members differ, and which one is right can't be told from here"))
}

/// The voters by the best list: of a member in quorum, else of any that answers, else of the newest store on a disk,
/// else of a log that is whole from its beginning, else of the newest source of this cluster, else by the settings.
/// Lists of imposters do not count while there is another.
fn voters(inventory: &Inventory, members: &[Member]) -> Vec<Voter> {
    let list = live_list(inventory, members)
        .or_else(|| disk_list(inventory, members))
        .or_else(|| log_list(inventory, members).map(|list| named(inventory, list)))
        .or_else(|| source_list(inventory, members));
    let from_settings = list.is_none();
    let mut voters = match list {
        Some(list) => list.iter().filter(|m| !m.is_learner).map(|m| voter(inventory, m)).collect(),
        None => by_settings(inventory),
    };
    // a host that can't be read, or was attested lost, takes a voter's place that no other host took
    let taken: BTreeSet<HostId> = voters.iter().filter_map(|v| v.host.clone()).collect();
    let unreachable = inventory.hosts.iter().filter(|h| h.unreachable.is_some()).map(|h| &h.id);
    let gone: BTreeSet<&HostId> =
        unreachable.chain(&inventory.lost_hosts).filter(|id| !taken.contains(id)).collect();
    let mut gone = gone.into_iter();
    for voter in voters.iter_mut().filter(|v| v.host.is_none()) {
        voter.host = gone.next().cloned();
    }
    // settings name those who were there when they were written: a host that was asked for has a member too
    if from_settings {
        voters.extend(gone.map(|id| Voter { name: id.to_string(), host: Some(id.clone()) }));
    }
    voters
}

fn voter(inventory: &Inventory, member: &EtcdMember) -> Voter {
    let host = inventory.hosts.iter().find(|h| runs(h, member));
    // a log knows ids only
    let name = match host.and_then(|h| h.etcd_config.known()) {
        Some(config) if member.name.is_empty() => config.name.clone(),
        _ if member.name.is_empty() => member.id.to_string(),
        _ => member.name.clone(),
    };
    Voter { name, host: host.map(|h| h.id.clone()) }
}

/// Hosts whose store is this cluster's.
fn real<'a>(inventory: &'a Inventory, members: &'a [Member]) -> impl Iterator<Item = &'a HostFacts> {
    inventory.hosts.iter().filter(|h| members.iter().any(|m| m.host == h.id && is_real(m)))
}

fn live_list(inventory: &Inventory, members: &[Member]) -> Option<Vec<EtcdMember>> {
    let lists = real(inventory, members).filter_map(|h| {
        let live = h.etcd_live.known()?;
        let list = live.members.known().filter(|list| !list.is_empty())?;
        let term = live.status.known().map_or(0, |s| s.raft_term);
        Some(((live.quorum.known() == Some(&true), term), list))
    });
    lists.max_by_key(|(rank, _)| *rank).map(|(_, list)| list.clone())
}

/// A damaged store may name too few: only sound ones are asked.
fn disk_list(inventory: &Inventory, members: &[Member]) -> Option<Vec<EtcdMember>> {
    let sound = |h: &&HostFacts| members.iter().any(|m| m.host == h.id && !m.verdict.is_lost());
    let lists = real(inventory, members).filter(sound).filter_map(|h| {
        let db = h.etcd_data.known()?.db.known().filter(|db| !db.members.is_empty())?;
        Some((db.revision, &db.members))
    });
    lists.max_by_key(|(revision, _)| *revision).map(|(_, list)| list.clone())
}

/// The votes that a log gave and did not take back.
fn log_list(inventory: &Inventory, members: &[Member]) -> Option<Vec<EtcdMember>> {
    let wals = real(inventory, members).filter_map(|h| h.etcd_data.known()?.wal.known());
    let whole = wals.filter(|wal| wal.birth.as_ref().is_some_and(|b| b.first_snapshot_index == 0));
    let wal = whole.max_by_key(|wal| wal.last_index)?;
    let mut voters = BTreeSet::new();
    for change in &wal.conf_changes {
        match change.kind {
            ConfChangeKind::AddVoter | ConfChangeKind::Promote => voters.insert(change.member),
            ConfChangeKind::Remove => voters.remove(&change.member),
            ConfChangeKind::AddLearner | ConfChangeKind::Update => false,
        };
    }
    let member = |id| EtcdMember {
        id,
        name: String::new(),
        peer_urls: Vec::new(),
        client_urls: Vec::new(),
        is_learner: false,
    };
    (!voters.is_empty()).then(|| voters.into_iter().map(member).collect())
}

/// A log knows ids only: names and URLs come from the stores that know them, so that a voter whose own log is gone can be
/// found on its host.
fn named(inventory: &Inventory, list: Vec<EtcdMember>) -> Vec<EtcdMember> {
    let known = |id| {
        let ours = inventory.sources.iter().filter(|s| !matches!(s.identity, Identity::Other(_)));
        ours.filter_map(|s| s.facts.known()).flat_map(|facts| &facts.members).find(|m| m.id == id).cloned()
    };
    // A host whose own log has the id needs no name, and a name must not lead elsewhere.
    let on_a_host = |member: &EtcdMember| inventory.hosts.iter().any(|host| runs(host, member));
    let find =
        |member: EtcdMember| if on_a_host(&member) { member } else { known(member.id).unwrap_or(member) };
    list.into_iter().map(find).collect()
}

/// The members that the newest source of this cluster names.
fn source_list(inventory: &Inventory, members: &[Member]) -> Option<Vec<EtcdMember>> {
    let damaged = |s: &SourceCandidate| match &s.kind {
        SourceKind::Store(id) => members.iter().any(|m| m.host == *id && m.verdict.is_lost()),
        _ => false,
    };
    let ours = inventory.sources.iter().filter(|s| !matches!(s.identity, Identity::Other(_)) && !damaged(s));
    let facts = ours.filter_map(|s| s.facts.known()).filter(|facts| !facts.members.is_empty());
    facts.max_by_key(|facts| facts.revision).map(|facts| facts.members.clone())
}

/// Whether a member of a list is the one on this host: by id, peer URL or name.
fn runs(host: &HostFacts, member: &EtcdMember) -> bool {
    let config = host.etcd_config.known();
    let live = host.etcd_live.known().and_then(|l| l.status.known()).map(|s| s.member_id);
    let log = host.etcd_data.known().and_then(|d| d.wal.known()).and_then(|w| w.member_id);
    live == Some(member.id)
        || log == Some(member.id)
        || config.is_some_and(|c| {
            c.peer_urls.iter().any(|url| member.peer_urls.contains(url))
                || !member.name.is_empty() && c.name == member.name && member.peer_urls.is_empty()
        })
}

/// The members that any `--initial-cluster` names, and every host's own beside them.
fn by_settings(inventory: &Inventory) -> Vec<Voter> {
    let mut names: Vec<(String, Option<HostId>)> = Vec::new();
    for host in &inventory.hosts {
        let Some(config) = host.etcd_config.known() else { continue };
        for (name, _) in &config.initial_cluster {
            if !names.iter().any(|(known, _)| known == name) {
                names.push((name.clone(), None));
            }
        }
        match names.iter_mut().find(|(known, _)| known == &config.name) {
            Some((_, place)) => *place = Some(host.id.clone()),
            None => names.push((config.name.clone(), Some(host.id.clone()))),
        }
    }
    names.into_iter().map(|(name, host)| Voter { name, host }).collect()
}

/// Whether two hosts' stores carry different cluster ids, both of which hold data.
pub(crate) fn cluster_ids(inventory: &Inventory) -> Vec<(&HostFacts, rekindle_model::MemberId)> {
    let id = |h: &HostFacts| {
        let live = h.etcd_live.known().and_then(|l| l.status.known()).map(|s| s.cluster_id);
        let disk = h.etcd_data.known().and_then(|d| d.wal.known()).and_then(|w| w.cluster_id);
        live.or(disk)
    };
    inventory.hosts.iter().filter(|h| reference::own(h).is_some()).filter_map(|h| Some((h, id(h)?))).collect()
}

fn names(all: &[&str]) -> String {
    if all.is_empty() { "none".into() } else { all.join(", ") }
}
