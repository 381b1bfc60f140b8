use super::*;
use crate::manifest::{API_VERSION, Part};
use rekindle_model::MemberId;

fn part() -> Part {
    Part {
        name: String::new(),
        size_bytes: 1,
        sha256: String::new(),
        plain_size_bytes: 1,
        plain_sha256: String::new(),
    }
}

pub(crate) fn manifest(sequence: u64, content: Content) -> Manifest {
    Manifest {
        api_version: API_VERSION.into(),
        cluster: ClusterName::new("c").unwrap(),
        sequence,
        before: None,
        writer: WriterName::new("w").unwrap(),
        written_ms: 0,
        program: String::new(),
        content,
    }
}

fn timeline(id: &str) -> TimelineRef {
    TimelineRef { id: id.into(), parent: None, fork_revision: None }
}

pub(crate) fn full(id: &str, revision: i64, taken_ms: i64) -> Content {
    Content::Full(Full {
        part: part(),
        identity: ClusterIdentity::default(),
        timeline: timeline(id),
        revision,
        compact_revision: -1,
        taken_ms,
        etcd_version: None,
        cluster_version: None,
        storage_version: None,
        members: Vec::new(),
        hash_kv: Vec::new(),
        rows: 0,
        live_keys: 0,
    })
}

pub(crate) fn resources(scope: &str, taken_ms: i64) -> Content {
    Content::Resources(Resources {
        part: part(),
        identity: ClusterIdentity::default(),
        scope: scope.into(),
        taken_ms,
        objects: 1,
        problems: 0,
        server_version: String::new(),
    })
}

pub(crate) fn segment(id: &str, first_revision: i64, last_revision: i64, last_ms: i64) -> Content {
    Content::Segment(Segment {
        part: part(),
        identity: ClusterIdentity::default(),
        timeline: timeline(id),
        first_revision,
        last_revision,
        first_ms: last_ms,
        last_ms,
        etcd_version: None,
        member: None,
        hash_kv: Vec::new(),
        replaces: Vec::new(),
    })
}

pub(crate) fn history(contents: impl IntoIterator<Item = Content>) -> History {
    let manifests: Vec<Manifest> = (1..).zip(contents).map(|(n, content)| manifest(n, content)).collect();
    History::new(&ClusterName::new("c").unwrap(), &manifests)
}

type Spans = Vec<(i64, i64)>;

fn spans(history: &History) -> (Spans, Spans) {
    let [timeline] = &*history.timelines else { panic!("one timeline: {history:?}") };
    let stretches = timeline.restorable.iter().map(|s| (s.first_revision, s.last_revision)).collect();
    (stretches, timeline.gaps.iter().map(|g| (g.first_revision, g.last_revision)).collect())
}

// Each case: what is in the vault, in any order; then what can be restored, and the gaps.
#[test]
fn stretches_and_gaps() {
    let f = |revision| full("t", revision, revision);
    let s = |first, last| segment("t", first, last, last);
    let told = |contents: Vec<Content>| spans(&history(contents));
    assert_eq!(told(vec![f(10)]), (vec![(10, 10)], vec![]));
    // the change stream begins before the full and overlaps itself
    assert_eq!(told(vec![s(5, 12), f(10), s(11, 20), s(18, 30)]), (vec![(10, 30)], vec![]));
    // a hole that the next full ends
    assert_eq!(told(vec![f(10), s(11, 20), s(25, 40), f(30)]), (vec![(10, 20), (30, 40)], vec![(21, 29)]));
    // fulls alone: between them nothing
    assert_eq!(told(vec![f(10), f(20), f(21)]), (vec![(10, 10), (20, 21)], vec![(11, 19)]));
    // segments that no full leads to yet
    assert_eq!(told(vec![s(5, 9)]), (vec![], vec![(5, 9)]));
    assert_eq!(told(vec![f(10), s(12, 20)]), (vec![(10, 10)], vec![(11, 20)]));
    // a full in the middle of the stream adds nothing to what can be restored
    assert_eq!(told(vec![f(10), s(11, 20), f(15), s(21, 25)]), (vec![(10, 25)], vec![]));
    // hostile: revisions at the end of their type
    let end = i64::MAX;
    assert_eq!(told(vec![f(end), s(end, end)]), (vec![(end, end)], vec![]));
}

// Revisions of two timelines are never mixed, however well they would fit.
#[test]
fn timelines_are_kept_apart() {
    let told = history([full("a", 10, 1), segment("b", 11, 20, 3), full("b", 8, 2)]);
    assert_eq!(told.timelines.len(), 2);
    assert_eq!(told.timelines[1].timeline.id, "b", "that of the newest is last");
    assert_eq!(told.timelines[0].restorable.len(), 1);
    assert_eq!(told.timelines[0].restorable[0].last_revision, 10);
    assert_eq!(told.timelines[1].restorable[0].last_revision, 8);
    assert_eq!(told.newest_full().unwrap().content.revision, 8);
}

// A store that is behind what the vault knows of its cluster was restored, and one with another etcd cluster id, too: their
// revisions begin a new timeline. What is not known begins none.
#[test]
fn a_store_that_went_back_begins_a_timeline() {
    let identity = |uid: &str, id: Option<u64>| ClusterIdentity {
        kube_system_uid: Some(uid.into()),
        etcd_cluster_id: id.map(MemberId),
    };
    let of = |content: Content| match content {
        Content::Full(full) => Content::Full(Full { identity: identity("u", Some(7)), ..full }),
        other => other,
    };
    let told = history([of(full("a", 10, 1)), segment("a", 11, 20, 3)]);
    let forked = |identity: &ClusterIdentity, revision| {
        let found = told.timeline_for(identity, revision);
        assert_eq!(found.id == "a", found.parent.is_none());
        found.id != "a"
    };
    assert!(!forked(&identity("u", Some(7)), 20));
    assert!(!forked(&identity("u", None), 20));
    assert!(!forked(&ClusterIdentity::default(), 25));
    assert!(forked(&identity("u", Some(7)), 19));
    assert!(forked(&identity("u", Some(8)), 20));
    assert_eq!(told.other_cluster(&identity("u", Some(8))), None);
    assert_eq!(told.other_cluster(&identity("v", Some(7))), Some("u"));
    assert_eq!(told.other_cluster(&ClusterIdentity::default()), None);
    assert_eq!(history([]).timeline_for(&identity("u", None), 1).parent, None);
}
