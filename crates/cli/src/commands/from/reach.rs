//! What of a timeline leads to a point: the full to begin with, the pieces of the stream behind it, what may prove the
//! result, and the nearest points where there is no way. Pure.

use super::args::Asked;
use crate::failure::Failure;
use crate::render::units::time;
use camino::Utf8PathBuf;
use etcd_disk::changes::Point;
use etcd_disk::segment::Evidence;
use rekindle_model::etcd::HashKv;
use rekindle_vault::history::{Item, Timeline, fewest};
use rekindle_vault::manifest::{Full, Numbers, Part, Segment};

/// Most that is fetched only to prove the point, bytes of content.
const PROOF_MAX_BYTES: u64 = 256 << 20;

/// A stretch of the change stream.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) first_ms: i64,
    pub(super) last_ms: i64,
    pub(super) samples: Vec<HashKv>,
    /// Numbers of the manifests of what it was merged of.
    pub(super) replaces: Vec<Numbers>,
    pub(super) at: At,
}

/// Where a piece is.
#[derive(Debug, Clone)]
pub(super) enum At {
    /// In the vault, in the manifest of this sequence number.
    Vault(u64, Part),
    /// On this machine, of so many bytes.
    Spool(Utf8PathBuf, u64),
}

impl Piece {
    pub(super) fn bytes(&self) -> u64 {
        match &self.at {
            At::Vault(_, part) => part.plain_size_bytes,
            At::Spool(_, bytes) => *bytes,
        }
    }
}

/// One history: the fulls, and all pieces by first revision.
#[derive(Clone)]
pub(super) struct Line<'t> {
    pub(super) timeline: &'t Timeline,
    pub(super) pieces: Vec<Piece>,
    /// When which revision was told to be the newest.
    pub(super) quiet: Vec<Evidence>,
}

/// The way to a point.
pub(super) struct Way<'l> {
    pub(super) base: &'l Item<Full>,
    pub(super) pieces: Vec<&'l Piece>,
    pub(super) point: Point,
    /// What is there behind the newest point, but can't be reached: a gap, as first and last revision.
    pub(super) gap_behind: Option<(i64, i64)>,
}

impl<'t> Line<'t> {
    pub(super) fn new(timeline: &'t Timeline, spooled: Vec<Piece>) -> Self {
        let mut line = Self { timeline, pieces: spooled, quiet: Vec::new() };
        line.add(timeline.segments.iter().cloned());
        line
    }

    /// Takes more of the stream.
    pub(super) fn add(&mut self, segments: impl IntoIterator<Item = Item<Segment>>) {
        let stored = segments.into_iter().map(|segment| Piece {
            first: segment.content.first_revision,
            last: segment.content.last_revision,
            first_ms: segment.content.first_ms,
            last_ms: segment.content.last_ms,
            samples: segment.content.hash_kv,
            replaces: segment.content.replaces,
            at: At::Vault(segment.sequence, segment.content.part),
        });
        self.pieces.extend(stored);
        self.pieces.sort_by_key(|piece| (piece.first, -piece.last));
    }

    /// Gives up the piece of this number in the vault.
    pub(super) fn take(&mut self, sequence: u64) -> Option<Piece> {
        let is = |piece: &Piece| matches!(piece.at, At::Vault(number, _) if number == sequence);
        let at = self.pieces.iter().position(is)?;
        Some(self.pieces.remove(at))
    }

    fn fulls(&self) -> &'t [Item<Full>] {
        &self.timeline.fulls
    }

    /// The fewest pieces that lead on from a revision without a gap, each further than those before.
    fn leading(&self, from: i64) -> Vec<&Piece> {
        let sorted = || self.pieces.iter().filter(|piece| piece.last >= from);
        let mut leading = fewest(sorted(), |piece| (piece.first, piece.last), from);
        if leading.first().is_none_or(|piece| piece.first > from) {
            // the full's own revision is compared with one that holds it
            let own = sorted().find(|piece| piece.first <= from && piece.last == from);
            leading.splice(0..0, own);
        }
        leading
    }

    /// The last revision that is reached from one without a gap.
    pub(super) fn reach(&self, from: i64) -> i64 {
        self.leading(from).last().map_or(from, |piece| piece.last)
    }

    /// Whether a revision can be restored.
    pub(super) fn holds(&self, revision: i64) -> bool {
        self.base_of(revision).is_some_and(|base| revision <= self.reach(base.content.revision))
    }

    /// Whether a time lies between the first and the last thing known.
    pub(super) fn spans(&self, at_ms: i64) -> bool {
        let first = self.fulls().iter().map(|full| full.content.taken_ms).min();
        let fulls = self.fulls().iter().map(|full| full.written_ms);
        let told =
            self.pieces.iter().map(|piece| piece.last_ms).chain(self.quiet.iter().map(|told| told.at_ms));
        let last = fulls.chain(told).max();
        first.is_some_and(|first| first <= at_ms) && last.is_some_and(|last| at_ms <= last)
    }

    /// The newest full that is not behind a revision.
    fn base_of(&self, revision: i64) -> Option<&'t Item<Full>> {
        self.fulls()
            .iter()
            .filter(|full| full.content.revision <= revision)
            .max_by_key(|f| f.content.revision)
    }

    /// The way to a point asked for (never [`Asked::BeforeDeleteOf`]: that is a revision by now).
    pub(super) fn way(&self, asked: &Asked) -> Result<Way<'_>, Failure> {
        match asked {
            Asked::Revision(revision) => self.to_revision(*revision),
            Asked::TimeMs(at_ms) => self.to_time(*at_ms),
            Asked::Latest | Asked::BeforeDeleteOf(_) => self.to_latest(),
        }
    }

    fn to_latest(&self) -> Result<Way<'_>, Failure> {
        let base = self.fulls().iter().max_by_key(|full| full.content.revision);
        let base = base.ok_or_else(|| self.no_full())?;
        let end = self.reach(base.content.revision);
        let mut behind = self.pieces.iter().filter(|piece| piece.first > end.saturating_add(1));
        let gap_behind = behind.next().map(|piece| (end + 1, piece.first - 1));
        Ok(Way { base, pieces: self.leading(base.content.revision), point: Point::Latest, gap_behind })
    }

    fn to_revision(&self, revision: i64) -> Result<Way<'_>, Failure> {
        let Some(base) = self.base_of(revision).filter(|_| self.holds(revision)) else {
            return Err(Failure::refused(format!(
                "revision {revision} can't be restored: {}",
                if self.newest().is_some_and(|newest| revision > newest) {
                    "it is behind the end of what is there"
                } else {
                    "it lies in a gap, or before the first full backup"
                }
            ))
            .hint(self.nearest(revision)));
        };
        let pieces = self.with_proof(base, revision);
        Ok(Way { base, pieces, point: Point::Revision(revision), gap_behind: None })
    }

    /// The pieces that lead to a revision, and on to the first sample behind it if that is not far.
    fn with_proof(&self, base: &Item<Full>, revision: i64) -> Vec<&Piece> {
        let leading = self.leading(base.content.revision);
        let needed = leading.iter().take_while(|piece| piece.first <= revision).count();
        let proves = |sample: &HashKv| {
            sample.revision >= revision && sample.compact_revision >= base.content.compact_revision
        };
        let of_fulls = self.fulls().iter().flat_map(|full| &full.content.hash_kv);
        let all = leading.iter().flat_map(|piece| &piece.samples).chain(of_fulls);
        let proof = all.filter(|sample| proves(sample)).map(|sample| sample.revision).min();
        let further = |piece: &&&Piece| proof.is_some_and(|proof| piece.first <= proof);
        let more: Vec<&Piece> = leading.iter().skip(needed).take_while(further).copied().collect();
        let affordable = more.iter().map(|piece| piece.bytes()).sum::<u64>() <= PROOF_MAX_BYTES;
        let count = if affordable { needed + more.len() } else { needed };
        leading.into_iter().take(count).collect()
    }

    fn to_time(&self, at_ms: i64) -> Result<Way<'_>, Failure> {
        // certainly there by then; what the pieces hold in detail only they tell
        let by_pieces = self.pieces.iter().filter_map(|piece| {
            let first = (piece.first_ms <= at_ms).then_some(piece.first);
            if piece.last_ms <= at_ms { Some(piece.last) } else { first }
        });
        let by_fulls =
            self.fulls().iter().filter(|full| full.written_ms <= at_ms).map(|full| full.content.revision);
        let certain = by_pieces.chain(by_fulls).max();
        let Some(base) = certain.and_then(|revision| self.base_of(revision)) else {
            let text = format!("{} is before the first full backup", time(at_ms));
            return Err(Failure::refused(text).hint(self.nearest(0)));
        };
        let from = base.content.revision;
        let begun = self.pieces.iter().filter(|piece| piece.last >= from && piece.first_ms <= at_ms);
        let upper = begun.map(|piece| piece.last).max().unwrap_or(from);
        let mut pieces = self.with_proof(base, upper);
        // beyond a gap, or just behind the time: they tell what was not yet there
        let reached = pieces.last().map_or(from, |piece| piece.last);
        let next = self.pieces.iter().find(|piece| piece.first > reached);
        pieces.extend(next.filter(|next| !pieces.is_empty() || next.first == from.saturating_add(1)));
        Ok(Way { base, pieces, point: Point::TimeMs(at_ms), gap_behind: None })
    }

    fn newest(&self) -> Option<i64> {
        let fulls = self.fulls().iter().map(|full| self.reach(full.content.revision));
        fulls.chain(self.pieces.iter().map(|piece| piece.last)).max()
    }

    fn no_full(&self) -> Failure {
        Failure::new(format!("timeline {} holds no full backup", self.timeline.timeline.id))
            .hint("`rekindle backup run` takes one; a stream alone can't be restored")
    }

    /// The nearest points that can be restored, before and behind a revision.
    pub(super) fn nearest(&self, revision: i64) -> String {
        let reaches = self.fulls().iter().map(|full| (full, self.reach(full.content.revision)));
        let before = reaches.clone().filter(|(full, _)| full.content.revision < revision);
        let before = before.map(|(_, end)| end.min(revision - 1)).max();
        let behind = reaches.filter(|(full, _)| full.content.revision > revision);
        let behind = behind.map(|(full, _)| full.content.revision).min();
        let named = |revision: i64| match self.when(revision) {
            Some(at_ms) => format!("revision {revision} (there by {})", time(at_ms)),
            None => format!("revision {revision}"),
        };
        match (before.map(named), behind.map(named)) {
            (Some(before), Some(behind)) => {
                format!("the nearest points are {before} before, and {behind} behind; give one with --to")
            }
            (Some(only), None) | (None, Some(only)) => {
                format!("the nearest point is {only}; give it with --to")
            }
            (None, None) => "`rekindle backup list` shows what there is".into(),
        }
    }

    /// A time by which a revision was there for certain.
    fn when(&self, revision: i64) -> Option<i64> {
        let fulls = self.fulls().iter().filter(|full| full.content.revision >= revision);
        let pieces = self.pieces.iter().filter(|piece| piece.last >= revision && piece.first <= revision);
        fulls.map(|full| full.written_ms).chain(pieces.map(|piece| piece.last_ms)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle_vault::History;
    use serde_json::json;

    fn part(folder: &str, n: i64) -> serde_json::Value {
        let name = format!("{folder}/{n}");
        json!({"name": name, "sizeBytes": 1, "sha256": "", "plainSizeBytes": 1, "plainSha256": ""})
    }

    /// Fulls as (revision, time in s), segments as (first, last, time of the last in s).
    fn timeline(fulls: &[(i64, i64)], segments: &[(i64, i64, i64)]) -> Timeline {
        let of = json!({"id": "t", "parent": null, "forkRevision": null});
        let identity = json!({"kubeSystemUid": null, "etcdClusterId": null});
        let full = |(revision, s): &(i64, i64)| {
            json!({
                "kind": "Full", "part": part("full", *revision), "identity": identity, "timeline": of,
                "revision": revision, "compactRevision": -1, "takenMs": s * 1000, "etcdVersion": null,
                "clusterVersion": null, "storageVersion": null, "members": [], "rows": 1, "liveKeys": 1,
                "hashKv": [{"hash": 1, "revision": revision, "compactRevision": -1}], "writtenMs": s * 1000,
            })
        };
        let segment = |(first, last, s): &(i64, i64, i64)| {
            json!({
                "kind": "Segment", "part": part("segment", *first), "identity": identity, "timeline": of,
                "firstRevision": first, "lastRevision": last, "firstMs": s * 1000 - 500, "lastMs": s * 1000,
                "etcdVersion": null, "member": null, "hashKv": [], "writtenMs": s * 1000,
            })
        };
        let manifests: Vec<rekindle_vault::Manifest> = fulls
            .iter()
            .map(full)
            .chain(segments.iter().map(segment))
            .zip(1u64..)
            .map(|(mut manifest, sequence)| {
                let place = json!({
                    "apiVersion": "rekindle.dev/v1", "cluster": "c", "sequence": sequence, "before": null,
                    "writer": "w", "program": "p",
                });
                manifest.as_object_mut().unwrap().extend(place.as_object().unwrap().clone());
                serde_json::from_value(manifest).unwrap()
            })
            .collect();
        let cluster = rekindle_vault::ClusterName::new("c").unwrap();
        History::new(&cluster, &manifests).timelines.remove(0)
    }

    fn firsts(way: &Way<'_>) -> Vec<i64> {
        way.pieces.iter().map(|piece| piece.first).collect()
    }

    // The newest full that is not behind the point, and no more of the stream than leads to it and proves it.
    #[test]
    fn the_shortest_way() {
        let timeline = timeline(
            &[(10, 100), (30, 300)],
            &[(5, 15, 150), (16, 20, 200), (21, 25, 250), (26, 35, 350), (36, 40, 400)],
        );
        let line = Line::new(&timeline, Vec::new());
        let way = |asked| line.way(&asked).ok().unwrap();
        let to = way(Asked::Revision(18));
        assert_eq!(to.base.content.revision, 10);
        assert_eq!(firsts(&to), [5, 16, 21, 26], "on to the second full, whose HashKV proves it");
        let to = way(Asked::Revision(38));
        assert_eq!((to.base.content.revision, firsts(&to)), (30, vec![26, 36]));
        assert_eq!(firsts(&way(Asked::Latest)), [26, 36]);
        let to = way(Asked::TimeMs(199_900));
        assert_eq!(to.base.content.revision, 10, "the second full was not there yet");
        let to = way(Asked::TimeMs(400_000));
        assert_eq!(to.base.content.revision, 30);
    }

    // A point in a gap, before the first full or behind the end is refused, and the nearest are named.
    #[test]
    fn no_way_and_the_nearest() {
        let timeline = timeline(&[(10, 100), (30, 300)], &[(11, 20, 200), (31, 40, 400), (50, 60, 600)]);
        let line = Line::new(&timeline, Vec::new());
        let hint = |revision| {
            let failure = line.way(&Asked::Revision(revision)).err().unwrap();
            assert_eq!(failure.exit, crate::exit::Exit::Refused);
            failure.hint.unwrap()
        };
        assert!(hint(25).contains("revision 20 ") && hint(25).contains("revision 30 "), "{}", hint(25));
        assert!(hint(5).contains("revision 10 "), "{}", hint(5));
        assert!(hint(55).contains("revision 40 "), "{}", hint(55));
        assert!(hint(99).contains("revision 40 "), "{}", hint(99));
        let latest = line.way(&Asked::Latest).ok().unwrap();
        assert_eq!((firsts(&latest), latest.gap_behind), (vec![31], Some((41, 49))));
        assert!(line.way(&Asked::TimeMs(50_000)).is_err(), "before the first full");
        // the spool closes the gap
        let spooled = Piece {
            first: 41,
            last: 49,
            first_ms: 450_000,
            last_ms: 450_000,
            samples: Vec::new(),
            replaces: Vec::new(),
            at: At::Spool("/spool/x.seg".into(), 1),
        };
        let line = Line::new(&timeline, vec![spooled]);
        assert_eq!(firsts(&line.way(&Asked::Revision(55)).ok().unwrap()), [31, 41, 50]);
    }
}
