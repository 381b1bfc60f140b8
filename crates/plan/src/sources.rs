//! Which data is restored: the newest of all candidates that verify and are of this cluster.
//!
//! Revisions are compared only within one history: a restore that raises or lowers revisions begins another one, and
//! between two histories only times tell which is newer. Every candidate gets a sentence why it was or was not taken.

use crate::survey::Context;
use crate::words::{count, time};
use rekindle_model::HostId;
use rekindle_model::diagnosis::MemberVerdict;
use rekindle_model::etcd::DbFacts;
use rekindle_model::inventory::Inventory;
use rekindle_model::source::{Identity, SourceCandidate, SourceKind};
use std::cmp::Ordering;

/// The candidates, each with its sentence, and the one taken.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) candidates: Vec<(SourceCandidate, String)>,
    pub(crate) taken: Option<usize>,
}

impl Choice {
    /// The candidate taken with its facts.
    pub(crate) fn source(&self) -> Option<(&SourceCandidate, &DbFacts)> {
        let (candidate, _) = self.candidates.get(self.taken?)?;
        Some((candidate, candidate.facts.known()?))
    }
}

/// All candidates of a plan that restores nothing.
pub(crate) fn none_needed(context: &Context<'_>) -> Choice {
    let sentence = "not needed: nothing is restored";
    let candidates = context.inventory.sources.iter().map(|c| (c.clone(), sentence.to_owned())).collect();
    Choice { candidates, taken: None }
}

/// A usable candidate.
#[derive(Clone, Copy)]
struct Usable<'a> {
    index: usize,
    candidate: &'a SourceCandidate,
    facts: &'a DbFacts,
    wal_holds_more: bool,
}

/// Ranks all candidates and says of each why.
pub(crate) fn choose(context: &Context<'_>) -> Choice {
    let sources = &context.inventory.sources;
    let mut usable = Vec::new();
    let mut reasons: Vec<Option<String>> = Vec::with_capacity(sources.len());
    for (index, candidate) in sources.iter().enumerate() {
        match check(context, candidate) {
            Ok(_) if context.goal.go_back && candidate.point.is_none() => {
                reasons.push(Some("not taken: you asked for a point in the past".into()));
            }
            Ok(facts) => {
                let wal_holds_more = wal_holds_more(context, &candidate.kind, facts);
                usable.push(Usable { index, candidate, facts, wal_holds_more });
                reasons.push(None);
            }
            Err(why) => reasons.push(Some(format!("not taken: {why}"))),
        }
    }
    let histories = histories(&usable);
    let taken = newest(&histories);
    let candidates = sources
        .iter()
        .zip(reasons)
        .enumerate()
        .map(|(index, (candidate, reason))| {
            let sentence = reason.unwrap_or_else(|| sentence(index, &histories, taken, usable.len()));
            (candidate.clone(), sentence)
        })
        .collect();
    Choice { candidates, taken: taken.map(|t| t.index) }
}

/// The facts of a candidate that holds data and can be copied whole, or why it is none.
pub(crate) fn readable<'a>(
    inventory: &Inventory,
    candidate: &'a SourceCandidate,
) -> Result<&'a DbFacts, String> {
    let facts = candidate.facts.known().ok_or_else(|| {
        format!("it can't be used: {}", candidate.facts.why_unknown().unwrap_or("nothing was read"))
    })?;
    if let Some(violation) = facts.violations.first() {
        return Err(format!("its structure is damaged: {violation}"));
    }
    if facts.live_keys == 0 {
        return Err("it holds no keys".into());
    }
    if matches!(candidate.kind, SourceKind::SnapshotFile(_)) && candidate.sha256.is_none() {
        return Err("it has no SHA-256 by which it could be known again".into());
    }
    let data = host_of(&candidate.kind).and_then(|h| inventory.host(h)).and_then(|h| h.etcd_data.known());
    match (&candidate.kind, data) {
        (SourceKind::Store(_), Some(data)) => match data.wal.why_unknown() {
            Some(why) => Err(format!("it is not whole, its WAL can't be read: {why}")),
            None => Ok(facts),
        },
        // A running etcd streams the pages of its file: where they are damaged, so is what it serves.
        (SourceKind::Served(_), Some(data)) => match data.damage.iter().find(|d| d.contains("/snap/db")) {
            Some(damage) => Err(format!("its db is damaged, and it would serve the same pages: {damage}")),
            None => Ok(facts),
        },
        _ => Ok(facts),
    }
}

/// The facts of a candidate that may be restored, or why it may not.
fn check<'a>(context: &Context<'_>, candidate: &'a SourceCandidate) -> Result<&'a DbFacts, String> {
    let facts = readable(context.inventory, candidate)?;
    match &candidate.identity {
        Identity::Other(evidence) => return Err(format!("it is of another cluster: {evidence}")),
        Identity::Unknown(why) if !context.goal.accept_unknown_identity => {
            return Err(format!("whose data it is can't be told ({why}), and that needs your consent"));
        }
        Identity::Same(_) | Identity::Unknown(_) => {}
    }
    if candidate.copied_db && !context.goal.skip_hash_check {
        return Err("it is a copied db without the SHA-256 that a snapshot ends with: its structure is whole, but that its \
                    content is can't be told, and that needs your consent"
            .into());
    }
    if facts.alarms.iter().any(|a| a.contains("CORRUPT")) && !context.goal.accept_corrupt_alarm {
        return Err(
            "it carries a CORRUPT alarm: etcd found that members disagreed; that needs your consent".into()
        );
    }
    if let Some(host) = host_of(&candidate.kind) {
        if context.is_lost(host) {
            return Err(format!("{host} was declared lost"));
        }
        if context.verdict(host) == Some(&MemberVerdict::EmptyImposter) {
            return Err("this member began a new, empty cluster; it does not hold the old one's data".into());
        }
        crate::saves::save_step(context, &candidate.kind, "unnamed")
            .map_err(|why| format!("there is no way to copy it: {why}"))?;
    }
    Ok(facts)
}

/// Whether a file at hand may be restored.
pub(crate) fn snapshot_at_hand(context: &Context<'_>) -> bool {
    let is_file = |candidate: &&SourceCandidate| host_of(&candidate.kind).is_none();
    context.inventory.sources.iter().filter(is_file).any(|candidate| check(context, candidate).is_ok())
}

/// The host a candidate lies on; none for files at hand.
pub(crate) fn host_of(kind: &SourceKind) -> Option<&HostId> {
    match kind {
        SourceKind::SnapshotFile(_) => None,
        SourceKind::Served(host) | SourceKind::OpenDb(host) | SourceKind::Store(host) => Some(host),
    }
}

/// Whether a stopped member's WAL reaches beyond its db, so that replaying gives more than the db's revision.
fn wal_holds_more(context: &Context<'_>, kind: &SourceKind, facts: &DbFacts) -> bool {
    let SourceKind::Store(host) = kind else { return false };
    let data = context.inventory.host(host).and_then(|h| h.etcd_data.known());
    data.and_then(|d| d.wal.known()).is_some_and(|wal| wal.last_index > facts.consistent_index)
}

/// Whether two stores may be compared by revision: one cluster, a member in common, and revision and raft index grow
/// in the same order (a restore that raises revisions starts the raft index anew).
pub(crate) fn same_history(a: &DbFacts, b: &DbFacts) -> bool {
    if let (Some(a), Some(b)) = (a.kube_system_uid.known(), b.kube_system_uid.known())
        && a != b
    {
        return false;
    }
    let members_meet = a.members.is_empty()
        || b.members.is_empty()
        || a.members.iter().any(|m| b.members.iter().any(|n| m.id == n.id));
    let index_known = a.consistent_index > 0 && b.consistent_index > 0;
    let far_behind = |x: &DbFacts, y: &DbFacts| {
        x.revision.saturating_add(RACE) < y.revision
            && x.consistent_index > y.consistent_index.saturating_add(RACE.unsigned_abs())
    };
    members_meet && !(index_known && (far_behind(a, b) || far_behind(b, a)))
}

/// A running member tells revision and raft index one after the other: writes in between are no other history.
const RACE: i64 = 100;

/// Groups candidates into histories, each sorted newest first; the order of the groups is that of their first member.
fn histories<'a>(usable: &[Usable<'a>]) -> Vec<Vec<Usable<'a>>> {
    let mut groups: Vec<Vec<Usable<'a>>> = Vec::new();
    for &one in usable {
        let (joined, apart): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|g| g.iter().any(|other| same_history(one.facts, other.facts)));
        let mut merged: Vec<Usable<'a>> = joined.into_iter().flatten().collect();
        merged.push(one);
        groups = apart;
        groups.push(merged);
    }
    for group in &mut groups {
        group.sort_by(|a, b| newer_first(a, b));
    }
    groups.sort_by_key(|g| g.iter().map(|u| u.index).min());
    groups
}

/// Order within one history: highest revision, then the one that holds more than its db shows, then the simplest.
fn newer_first(a: &Usable<'_>, b: &Usable<'_>) -> Ordering {
    let simplicity = |kind: &SourceKind| match kind {
        SourceKind::SnapshotFile(_) => 0,
        SourceKind::Store(_) => 1,
        SourceKind::Served(_) => 2,
        SourceKind::OpenDb(_) => 3,
    };
    b.facts
        .revision
        .cmp(&a.facts.revision)
        .then(b.wal_holds_more.cmp(&a.wal_holds_more))
        .then(simplicity(&a.candidate.kind).cmp(&simplicity(&b.candidate.kind)))
        .then(a.index.cmp(&b.index))
}

/// When a history was last current: the latest time of its candidates; none when its newest one has no time.
fn current_ms(history: &[Usable<'_>]) -> Option<i64> {
    history.first()?.candidate.taken_ms.known()?;
    history.iter().filter_map(|u| u.candidate.taken_ms.known().copied()).max()
}

/// Whether one history goes further than another: by time where both are known. Else by revision, because a restore
/// raises it above all that was seen before.
fn goes_further(a: &[Usable<'_>], b: &[Usable<'_>]) -> bool {
    let revision = |h: &[Usable<'_>]| h.first().map(|u| u.facts.revision);
    match (current_ms(a), current_ms(b)) {
        (Some(a), Some(b)) => a > b,
        _ => revision(a) > revision(b),
    }
}

/// The first of the history that goes furthest.
fn newest<'a>(histories: &[Vec<Usable<'a>>]) -> Option<Usable<'a>> {
    let mut best: Option<&Vec<Usable<'a>>> = None;
    for history in histories {
        if best.is_none_or(|b| goes_further(history, b)) {
            best = Some(history);
        }
    }
    best.and_then(|h| h.first().copied())
}

/// Why a usable candidate was or was not taken.
fn sentence(index: usize, histories: &[Vec<Usable<'_>>], taken: Option<Usable<'_>>, usable: usize) -> String {
    let Some(taken) = taken else { return "not taken".into() };
    let home = histories.iter().find(|h| h.iter().any(|u| u.index == taken.index));
    let Some((one, history)) = histories.iter().find_map(|h| Some((h.iter().find(|u| u.index == index)?, h)))
    else {
        return "not taken".into();
    };
    if one.index == taken.index {
        let of = if usable == 1 {
            "the only usable one".into()
        } else {
            format!("the newest of {usable} usable ones")
        };
        let of = match &one.candidate.point {
            Some(point) => format!("{of}, {point}, {}, {}", point.made_of(), point.proof),
            None => format!("{of}, revision {}", one.facts.revision),
        };
        return format!("taken: {of}, {}", identity(&one.candidate.identity));
    }
    if home.is_some_and(|h| h.iter().any(|u| u.index == index)) {
        let behind = taken.facts.revision.saturating_sub(one.facts.revision);
        return if behind == 0 && taken.wal_holds_more && !one.wal_holds_more {
            "not taken: the one taken holds more in its WAL".into()
        } else if behind == 0 {
            "not taken: as new as the one taken, which is simpler to restore".into()
        } else {
            format!("not taken: {} older than the one taken", count(behind.unsigned_abs(), "revision"))
        };
    }
    match (current_ms(history), home.and_then(|h| current_ms(h))) {
        (Some(this), Some(other)) => format!(
            "not taken: of another history (revisions can't be compared), current until {}; the one taken until {}",
            time(this),
            time(other)
        ),
        _ => format!(
            "not taken: of another history, and not both times are known; the one taken has the higher revision ({} \
             against {}), as a restore gives it",
            taken.facts.revision, one.facts.revision
        ),
    }
}

fn identity(identity: &Identity) -> String {
    match identity {
        Identity::Same(evidence) => format!("of this cluster: {evidence}"),
        Identity::Unknown(why) => format!("taken by your consent, as it can't be told whose it is: {why}"),
        Identity::Other(evidence) => format!("of another cluster: {evidence}"),
    }
}
