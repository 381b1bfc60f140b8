//! Whose data a candidate is: its own `kube-system` UID and CA, compared with the hosts' CA and the other candidates.
//!
//! The hosts' CA lies on their disks and outlives etcd. The UID tells more: a cluster that bootstrapped itself anew on
//! the old disks has the same CA and another `kube-system`. Which of two UIDs is the cluster's, the history tells: the
//! one whose `kube-system` is older, or, where its age is not read, whose store came further.

use rekindle_model::host::HostFacts;
use rekindle_model::source::{Identity, SourceCandidate, SourceKind};
use std::collections::BTreeSet;

/// Fingerprints of the hosts' CAs.
fn host_cas(facts: &[HostFacts]) -> BTreeSet<&String> {
    facts.iter().filter_map(|f| f.ca_sha256.known()).collect()
}

/// Whether a candidate holds a CA that none of the hosts has.
pub(super) fn of_another_ca(candidate: &SourceCandidate, facts: &[HostFacts]) -> bool {
    let cas = host_cas(facts);
    let own = candidate.facts.known().and_then(|f| f.ca_sha256.known());
    own.is_some_and(|own| !cas.is_empty() && !cas.contains(own))
}

/// A UID with what it was read from.
struct Reference {
    uid: String,
    from: SourceKind,
    others: usize,
}

/// Gives each candidate its identity.
pub(super) fn compare(sources: &mut [SourceCandidate], facts: &[HostFacts]) {
    let reference = reference(sources, facts);
    let identities: Vec<Identity> = sources.iter().map(|s| identity(s, facts, reference.as_ref())).collect();
    for (source, identity) in sources.iter_mut().zip(identities) {
        source.identity = identity;
    }
}

fn uid(candidate: &SourceCandidate) -> Option<&String> {
    candidate.facts.known()?.kube_system_uid.known().filter(|uid| !uid.is_empty())
}

/// The UID of the candidate that is oldest, or came furthest, among those that are of these hosts: what lies on them, and files with
/// their CA.
fn reference(sources: &[SourceCandidate], facts: &[HostFacts]) -> Option<Reference> {
    let cas = host_cas(facts);
    let counts = |s: &&SourceCandidate| {
        let ca = s.facts.known().and_then(|f| f.ca_sha256.known());
        let file = matches!(s.kind, SourceKind::SnapshotFile(_));
        uid(s).is_some() && ca.map_or(!file, |ca| cas.contains(ca))
    };
    // The oldest `kube-system` is the cluster's; where nothing tells its age, the store that came furthest.
    let rank = |s: &&SourceCandidate| {
        let known = s.facts.known();
        let created_s = known.and_then(|f| f.kube_system_created_s);
        (created_s.map(std::cmp::Reverse), known.map(|f| f.revision))
    };
    let best = sources.iter().filter(counts).max_by_key(rank)?;
    let own = uid(best)?.clone();
    let others = sources.iter().filter(counts).filter(|s| uid(s) == Some(&own)).count() - 1;
    Some(Reference { uid: own, from: best.kind.clone(), others })
}

fn identity(candidate: &SourceCandidate, facts: &[HostFacts], reference: Option<&Reference>) -> Identity {
    let Some(known) = candidate.facts.known() else {
        return Identity::Unknown("it was not read".into());
    };
    let ca = known.ca_sha256.known();
    if of_another_ca(candidate, facts) {
        let own = ca.map_or("", |ca| ca.get(..16).unwrap_or(ca));
        return Identity::Other(format!("its cluster CA (SHA-256 {own}...) is not the one on the hosts"));
    }
    let same_ca = ca.is_some_and(|ca| host_cas(facts).contains(ca));
    match (uid(candidate), reference) {
        (Some(own), Some(reference)) if *own != reference.uid => Identity::Other(format!(
            "its kube-system UID is {own}, and {}, which is older or came further, has {}",
            reference.from, reference.uid
        )),
        _ if same_ca => Identity::Same("its cluster CA is the one on the hosts".into()),
        (Some(own), Some(reference)) if reference.from != candidate.kind => {
            Identity::Same(format!("its kube-system UID {own} is that of {}", reference.from))
        }
        (Some(own), Some(reference)) if reference.others > 0 => Identity::Same(format!(
            "its kube-system UID {own} is that of {} other candidates",
            reference.others
        )),
        (Some(own), _) if !matches!(candidate.kind, SourceKind::SnapshotFile(_)) => Identity::Same(format!(
            "it lies on the member's own host, and nothing seen has another kube-system UID ({own})"
        )),
        (Some(own), _) => Identity::Unknown(format!(
            "its kube-system UID is {own}, and there is neither a CA in it nor another store to compare with"
        )),
        (None, _) => Identity::Unknown(
            known.kube_system_uid.why_unknown().unwrap_or("its kube-system UID is empty").to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle_model::etcd::DbFacts;
    use rekindle_model::{HostId, Seen};

    fn host(ca: &str) -> HostFacts {
        let mut facts = HostFacts::unreachable(HostId::local(), String::new());
        facts.ca_sha256 = Seen::Known(ca.into());
        facts
    }

    fn source(kind: SourceKind, revision: i64, uid: Option<&str>, ca: Option<&str>) -> SourceCandidate {
        let seen = |v: Option<&str>| v.map_or_else(Seen::default, |v| Seen::Known(v.to_owned()));
        let facts =
            DbFacts { revision, kube_system_uid: seen(uid), ca_sha256: seen(ca), ..DbFacts::default() };
        SourceCandidate {
            kind,
            facts: Seen::Known(facts),
            taken_ms: Seen::default(),
            sha256: None,
            copied_db: false,
            identity: Identity::Unknown(String::new()),
            point: None,
        }
    }

    fn file(revision: i64, uid: Option<&str>, ca: Option<&str>) -> SourceCandidate {
        source(SourceKind::SnapshotFile("/b/s.db".into()), revision, uid, ca)
    }

    fn kinds(mut sources: Vec<SourceCandidate>) -> Vec<char> {
        compare(&mut sources, &[host("aa")]);
        let kind = |s: &SourceCandidate| match s.identity {
            Identity::Same(_) => 's',
            Identity::Other(_) => 'o',
            Identity::Unknown(_) => 'u',
        };
        sources.iter().map(kind).collect()
    }

    // The only member's data is gone: the CA on the host tells a snapshot of this cluster from one of another.
    #[test]
    fn with_nothing_left_the_ca_decides() {
        assert_eq!(kinds(vec![file(5, Some("x"), Some("aa"))]), ['s']);
        assert_eq!(kinds(vec![file(5, Some("x"), Some("bb"))]), ['o']);
        assert_eq!(kinds(vec![file(5, Some("x"), None)]), ['u']);
        assert_eq!(kinds(vec![file(5, None, None)]), ['u']);
    }

    // Two of three disks were wiped and bootstrapped an empty cluster on the same CA: its UID is not the cluster's,
    // whoever has the majority, and a foreign snapshot with a higher revision changes nothing.
    #[test]
    fn an_empty_cluster_on_the_old_disks_is_not_the_cluster() {
        let served =
            |n: &str, revision, uid| source(SourceKind::Served(HostId(n.into())), revision, Some(uid), None);
        let sources = vec![
            served("1", 300, "new"),
            served("2", 300, "new"),
            source(SourceKind::Store(HostId("3".into())), 48_000, Some("old"), Some("aa")),
            file(40_000, Some("old"), Some("aa")),
            file(910_000, Some("foreign"), Some("bb")),
        ];
        assert_eq!(kinds(sources), ['o', 'o', 's', 's', 'o']);
    }
}
