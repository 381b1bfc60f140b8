//! What can be restored: fulls and segments as timelines, with the revisions they reach and the gaps between. Pure.

use crate::manifest::{Bundle, ClusterIdentity, Content, Full, Manifest, Resources, Segment, TimelineRef};
use crate::names::{ClusterName, WriterName};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// All that a cluster's manifests say, in order.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its timelines, that of the newest full last.
    pub timelines: Vec<Timeline>,
    /// Bundles, oldest first.
    pub bundles: Vec<Item<Bundle>>,
    /// Objects that were read through the API, oldest first.
    pub resources: Vec<Item<Resources>>,
}

/// What a manifest is about, and the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Item<T> {
    /// The manifest's sequence number.
    pub sequence: u64,
    /// Who wrote it.
    pub writer: WriterName,
    /// When, milliseconds since the Unix epoch.
    pub written_ms: i64,
    /// What it is about.
    #[serde(flatten)]
    pub content: T,
}

/// One history of revisions.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeline {
    /// Its id, and where it forked.
    #[serde(flatten)]
    pub timeline: TimelineRef,
    /// Fulls by revision.
    pub fulls: Vec<Item<Full>>,
    /// Segments by first revision.
    pub segments: Vec<Item<Segment>>,
    /// Revisions that can be restored.
    pub restorable: Vec<Stretch>,
    /// Revisions between that can't.
    pub gaps: Vec<Gap>,
}

/// Revisions that can be restored: from a full's on, without a hole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stretch {
    /// A full's revision.
    pub first_revision: i64,
    /// The last revision that segments reach from there.
    pub last_revision: i64,
    /// When the full was taken, milliseconds since the Unix epoch.
    pub first_ms: i64,
    /// When the last revision was received (or the full taken), milliseconds since the Unix epoch.
    pub last_ms: i64,
}

/// Revisions that were there once and can't be restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// First of them.
    pub first_revision: i64,
    /// Last of them.
    pub last_revision: i64,
    /// When what comes before was current, milliseconds since the Unix epoch; none when nothing does.
    pub after_ms: Option<i64>,
    /// When what comes behind was current, milliseconds since the Unix epoch; none when nothing does.
    pub before_ms: Option<i64>,
}

impl History {
    /// From manifests in order.
    pub fn new<'a>(cluster: &ClusterName, manifests: impl IntoIterator<Item = &'a Manifest>) -> Self {
        let (mut bundles, mut resources) = (Vec::new(), Vec::new());
        let mut timelines: BTreeMap<&str, Timeline> = BTreeMap::new();
        for manifest in manifests {
            match &manifest.content {
                Content::Full(full) => {
                    of(&mut timelines, &full.timeline).fulls.push(Item::of(manifest, full));
                }
                Content::Segment(segment) => {
                    of(&mut timelines, &segment.timeline).segments.push(Item::of(manifest, segment));
                }
                Content::Bundle(bundle) => bundles.push(Item::of(manifest, bundle)),
                Content::Resources(objects) => resources.push(Item::of(manifest, objects)),
                Content::Prune(_) => {}
            }
        }
        let mut timelines: Vec<Timeline> = timelines.into_values().map(Timeline::finished).collect();
        timelines.sort_by_key(Timeline::newest_ms);
        Self { cluster: cluster.clone(), timelines, bundles, resources }
    }

    /// The newest full.
    pub fn newest_full(&self) -> Option<&Item<Full>> {
        self.timelines.iter().flat_map(|t| &t.fulls).max_by_key(|full| full.content.taken_ms)
    }

    /// The UID of `kube-system` that the newest full (or, where there is none, the newest backup of objects) is known to
    /// have, when `identity` has another: then this folder holds another cluster. (etcd's cluster id changes with every
    /// restore and tells nothing here.)
    pub fn other_cluster(&self, identity: &ClusterIdentity) -> Option<&str> {
        let full = self.newest_full().map(|full| &full.content.identity);
        let of = full.or_else(|| self.resources.last().map(|objects| &objects.content.identity))?;
        let known = of.kube_system_uid.as_deref()?;
        identity.kube_system_uid.as_deref().is_some_and(|uid| uid != known).then_some(known)
    }

    /// The timeline that a store of this identity, now at `revision`, belongs to: the newest one when nothing known
    /// speaks against it and it is not ahead of the store; else a new one that forked from it.
    pub fn timeline_for(&self, identity: &ClusterIdentity, revision: i64) -> TimelineRef {
        let newest = self.timelines.last();
        let same = newest.filter(|t| {
            t.identity().is_some_and(|known| known.agrees(identity))
                && t.highest_revision().is_none_or(|highest| highest <= revision)
        });
        match same {
            Some(timeline) => timeline.timeline.clone(),
            None => TimelineRef {
                id: uuid::Uuid::now_v7().to_string(),
                parent: newest.map(|t| t.timeline.id.clone()),
                fork_revision: None,
            },
        }
    }
}

/// Of stretches in order of their first revision (and the longer before the shorter), the fewest that lead from `base` on:
/// of those that go on where the ones before end, always the one that reaches furthest. `span`: first and last revision.
pub fn fewest<T: Copy>(
    sorted: impl Iterator<Item = T>,
    span: impl Fn(&T) -> (i64, i64),
    base: i64,
) -> Vec<T> {
    let (mut path, mut reached) = (Vec::new(), base);
    let mut furthest: Option<(T, i64)> = None;
    for stretch in sorted {
        let (first, last) = span(&stretch);
        if first > reached.saturating_add(1) {
            // nothing before it reaches further than what was found
            let Some((found, end)) = furthest.take() else { break };
            path.push(found);
            reached = end;
            if first > reached.saturating_add(1) {
                return path;
            }
        }
        if last > furthest.map_or(reached, |(_, end)| end) {
            furthest = Some((stretch, last));
        }
    }
    path.extend(furthest.map(|(found, _)| found));
    path
}

/// Of segments in a timeline's order those that no other one which `counts` holds whole.
pub(crate) fn widest(
    segments: &[Item<Segment>],
    counts: impl Fn(&Item<Segment>) -> bool,
) -> Vec<&Item<Segment>> {
    let (mut widest, mut reach) = (Vec::new(), i64::MIN);
    for segment in segments {
        // whatever holds it begins no later, and so stands before it
        if segment.content.last_revision > reach {
            widest.push(segment);
        }
        if counts(segment) {
            reach = reach.max(segment.content.last_revision);
        }
    }
    widest
}

impl<T: Clone> Item<T> {
    pub(crate) fn of(manifest: &Manifest, content: &T) -> Self {
        Self {
            sequence: manifest.sequence,
            writer: manifest.writer.clone(),
            written_ms: manifest.written_ms,
            content: content.clone(),
        }
    }
}

fn of<'a, 'm>(timelines: &'a mut BTreeMap<&'m str, Timeline>, of: &'m TimelineRef) -> &'a mut Timeline {
    timelines.entry(&of.id).or_insert_with(|| Timeline {
        timeline: of.clone(),
        fulls: Vec::new(),
        segments: Vec::new(),
        restorable: Vec::new(),
        gaps: Vec::new(),
    })
}

impl Timeline {
    fn newest_ms(&self) -> (i64, String) {
        let fulls = self.fulls.iter().map(|full| full.content.taken_ms);
        let segments = self.segments.iter().map(|segment| segment.content.last_ms);
        (fulls.chain(segments).max().unwrap_or(i64::MIN), self.timeline.id.clone())
    }

    fn highest_revision(&self) -> Option<i64> {
        let fulls = self.fulls.iter().map(|full| full.content.revision);
        fulls.chain(self.segments.iter().map(|segment| segment.content.last_revision)).max()
    }

    fn identity(&self) -> Option<&ClusterIdentity> {
        let full = self.fulls.last().map(|full| &full.content.identity);
        full.or_else(|| self.segments.last().map(|segment| &segment.content.identity))
    }

    fn finished(mut self) -> Self {
        self.fulls.sort_by_key(|full| (full.content.revision, full.sequence));
        self.segments.sort_by_key(|s| (s.content.first_revision, -s.content.last_revision, s.sequence));
        self.restorable = self.stretches();
        self.gaps = self.found_gaps();
        self
    }

    /// The fewest segments that lead from `base` on, each reaching further than the one before.
    pub fn segments_from(&self, base: i64) -> Vec<&Item<Segment>> {
        let span = |s: &&Item<Segment>| (s.content.first_revision, s.content.last_revision);
        fewest(self.segments.iter(), span, base)
    }

    /// The segments that no other one holds whole, by first revision: together they hold all there is.
    pub fn widest(&self) -> Vec<&Item<Segment>> {
        widest(&self.segments, |_| true)
    }

    fn stretches(&self) -> Vec<Stretch> {
        let mut stretches: Vec<Stretch> = Vec::new();
        for full in &self.fulls {
            let (revision, taken_ms) = (full.content.revision, full.content.taken_ms);
            if stretches.last().is_some_and(|stretch| revision <= stretch.last_revision) {
                continue;
            }
            let last =
                self.segments_from(revision).last().map(|s| (s.content.last_revision, s.content.last_ms));
            let (last_revision, last_ms) = last.unwrap_or((revision, taken_ms));
            match stretches.last_mut() {
                Some(before) if revision == before.last_revision.saturating_add(1) => {
                    (before.last_revision, before.last_ms) = (last_revision, last_ms);
                }
                _ => stretches.push(Stretch {
                    first_revision: revision,
                    last_revision,
                    first_ms: taken_ms,
                    last_ms,
                }),
            }
        }
        stretches
    }

    fn found_gaps(&self) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let mut before: Option<&Stretch> = None;
        for stretch in &self.restorable {
            if let Some(before) = before {
                gaps.push(Gap {
                    first_revision: before.last_revision + 1,
                    last_revision: stretch.first_revision - 1,
                    after_ms: Some(before.last_ms),
                    before_ms: Some(stretch.first_ms),
                });
            }
            before = Some(stretch);
        }
        // segments behind the last stretch are there, but no full leads to them
        let end = before.map_or(0, |stretch| stretch.last_revision);
        let highest = self.segments.iter().map(|segment| segment.content.last_revision).max();
        if let Some(highest) = highest.filter(|highest| *highest > end) {
            let (first_revision, after_ms) = match before {
                Some(stretch) => (stretch.last_revision + 1, Some(stretch.last_ms)),
                None => (self.segments.first().map_or(1, |s| s.content.first_revision), None),
            };
            gaps.push(Gap { first_revision, last_revision: highest, after_ms, before_ms: None });
        }
        gaps
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
pub(crate) mod tests;
