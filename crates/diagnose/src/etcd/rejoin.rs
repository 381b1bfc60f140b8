//! Telling a member that was wiped and came back under its old id from one that was there all along.
//!
//! By etcd's and raft's own rules (raft `bootstrap.go`, etcd `server/etcdserver/server.go` `isLearnerReady`):
//! - A member of the first hour writes the entries that add the members itself, in term 1, and a hard state of term 1. If
//!   its log holds a later first term, or began with a snapshot it was sent, that beginning was not its first.
//! - A member that founded the cluster alone was its quorum until another got a vote, so it holds every entry up to that
//!   one from its own hand. If a snapshot was sent to it in place of that entry, or it knew little of the log as
//!   committed when the entry came, it founded a second time. (kubeadm's first manifest names the first member alone.)
//! - A learner is promoted only when it holds nine tenths of the leader's log. So an honest one began before the entry
//!   that promoted it, in that entry's term or an earlier one, and knew much of the log as committed when the entry came.
//! - A member added with a vote at once may honestly be started at any later time: a later term is a suspicion only.
//!
//! Untold when the first file of the log was purged, or no log at hand holds the entry that gave the member its vote.

use crate::report::seen_at;
use rekindle_model::MemberId;
use rekindle_model::etcd::{ConfChangeFacts, ConfChangeKind, WalBirth, WalFacts};
use rekindle_model::finding::Evidence;
use rekindle_model::host::HostFacts;
use rekindle_model::inventory::Inventory;

/// What the log says of the member's past.
#[derive(Debug)]
pub(crate) enum Past {
    /// It began anew under its old id: what says so.
    Wiped(Vec<Evidence>),
    /// It may have: what says so.
    Suspect(Evidence),
    /// Nothing says so, or it can't be told.
    Untold,
}

/// The past of this host's member, by its own log and the others'.
pub(crate) fn past(inventory: &Inventory, host: &HostFacts) -> Past {
    let Some(wal) = wal(host) else { return Past::Untold };
    let (Some(member), Some(birth)) = (wal.member_id, &wal.birth) else { return Past::Untold };
    let Some((change, read_on)) = vote_given(inventory, wal, member) else { return Past::Untold };
    let began = format!(
        "the log of member {member} begins in term {}{}",
        birth.first_term,
        match birth.first_snapshot_index {
            0 => String::new(),
            index => format!(" with a snapshot of index {index}"),
        }
    );
    let later_term = birth.first_term > change.term;
    let sent = birth.first_snapshot_index;
    let own = wal.conf_changes.iter().find(|c| c.index == change.index && c.member == member);
    let second = founded_twice(inventory, wal, birth);
    let wiped = match change.kind {
        ConfChangeKind::AddVoter if change.term == 1 => later_term || sent > 0 || second.is_some(),
        ConfChangeKind::Promote => {
            later_term
                || sent >= change.index
                || own.is_some_and(|c| c.commit_before.saturating_mul(2) < c.index)
        }
        _ => false,
    };
    let began = seen_at(&host.id, wal_source(host), began);
    if wiped {
        let before = own.map_or_else(String::new, |c| format!(" (committed before it: {})", c.commit_before));
        let text =
            format!("entry {} of term {} gave member {member} its vote{before}", change.index, change.term);
        let second = second.map(|(text, read_on)| seen_at(&read_on.id, wal_source(read_on), text));
        let vote = seen_at(&read_on.id, wal_source(read_on), text);
        Past::Wiped([began, vote].into_iter().chain(second).collect())
    } else if later_term && change.kind == ConfChangeKind::AddVoter {
        Past::Suspect(began)
    } else {
        Past::Untold
    }
}

/// The entry that ended a lone founder's time and that this founder does not hold from its own hand, and who holds it.
fn founded_twice<'a>(
    inventory: &'a Inventory,
    own: &'a WalFacts,
    birth: &WalBirth,
) -> Option<(String, &'a HostFacts)> {
    let founders: Vec<_> =
        own.conf_changes.iter().filter(|c| c.term == 1 && c.kind == ConfChangeKind::AddVoter).collect();
    let alone = founders.iter().all(|c| Some(c.member) == own.member_id);
    if founders.is_empty() || !alone {
        return None;
    }
    let gives_vote = |c: &ConfChangeFacts| {
        c.term > 1
            && Some(c.member) != own.member_id
            && matches!(c.kind, ConfChangeKind::AddVoter | ConfChangeKind::Promote)
    };
    let (first, read_on) = of_cluster(inventory, own)
        .flat_map(|(host, wal)| wal.conf_changes.iter().map(move |change| (change, host)))
        .filter(|(change, _)| gives_vote(change))
        .min_by_key(|(change, _)| change.index)?;
    let skipped = birth.last_index_before_gap.filter(|last| *last < first.index);
    let held = own.conf_changes.iter().find(|c| c.index == first.index);
    let unaware = held.filter(|c| c.commit_before.saturating_mul(2) < c.index);
    let how = match (skipped, unaware) {
        (Some(last), _) => format!("its own log was at entry {last} when it was sent a snapshot"),
        (None, Some(held)) => format!("it knew entries up to {} as committed then", held.commit_before),
        (None, None) => return None,
    };
    let text =
        format!("entry {} gave member {} a vote beside the founder's; {how}", first.index, first.member);
    Some((text, read_on))
}

fn wal(host: &HostFacts) -> Option<&WalFacts> {
    host.etcd_data.known()?.wal.known()
}

/// The last entry that gave the member a vote and was not taken back, in the own log or in one of the same cluster.
fn vote_given<'a>(
    inventory: &'a Inventory,
    own: &'a WalFacts,
    member: MemberId,
) -> Option<(&'a ConfChangeFacts, &'a HostFacts)> {
    of_cluster(inventory, own)
        .flat_map(|(host, wal)| wal.conf_changes.iter().map(move |change| (change, host)))
        .filter(|(change, _)| change.member == member && change.kind != ConfChangeKind::Update)
        .max_by_key(|(change, _)| change.index)
        .filter(|(change, _)| matches!(change.kind, ConfChangeKind::AddVoter | ConfChangeKind::Promote))
}

/// The hosts whose log is of the same cluster as this one, itself among them.
fn of_cluster<'a>(
    inventory: &'a Inventory,
    own: &'a WalFacts,
) -> impl Iterator<Item = (&'a HostFacts, &'a WalFacts)> {
    inventory.hosts.iter().filter_map(|host| {
        let of_cluster = |wal: &&WalFacts| wal.cluster_id.is_some() && wal.cluster_id == own.cluster_id;
        Some((host, wal(host).filter(of_cluster)?))
    })
}

pub(crate) fn wal_source(host: &HostFacts) -> String {
    host.etcd_config.known().map_or_else(
        || "etcd WAL".into(),
        |config| config.wal_dir.clone().unwrap_or_else(|| config.data_dir.join("member/wal")).to_string(),
    )
}
