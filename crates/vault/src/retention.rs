//! Which backups are kept, and why. Pure: the same history and time give the same answer.

use crate::history::{History, Item, Timeline, widest};
use crate::manifest::{Full, Resources, Segment};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How many fulls are kept, and of objects how many backups of each series. Each rule keeps for itself; what no rule keeps
/// is removed. Whatever the rules say, the newest that is good stays, and with a kept full all segments that lead on from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retention {
    /// The newest so many.
    pub last: u32,
    /// The newest of each of so many hours that have one.
    pub hourly: u32,
    /// The newest of each of so many days (UTC).
    pub daily: u32,
    /// The newest of each of so many ISO weeks (UTC).
    pub weekly: u32,
    /// The newest of each of so many months (UTC).
    pub monthly: u32,
    /// All that are not older than this, in milliseconds.
    pub within_ms: Option<i64>,
    /// Keep every moment restorable that is not older than this, in milliseconds, and no older segments; none: a
    /// segment stays as long as a kept full leads to it.
    pub point_in_time_ms: Option<i64>,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            last: 4,
            hourly: 24,
            daily: 7,
            weekly: 5,
            monthly: 12,
            within_ms: None,
            point_in_time_ms: None,
        }
    }
}

/// From a time, in milliseconds since the Unix epoch, to the hour, day, week or month it lies in.
type Bucket = fn(i64) -> (i64, i64);

/// What stays, by sequence number, with the reasons.
pub(crate) type Kept = BTreeMap<u64, Vec<String>>;

/// What is known beside the manifests.
pub(crate) struct Proved {
    /// The newest full whose stored bytes are as its manifest says; none: no full is there yet.
    pub(crate) full: Option<u64>,
    /// Of each series of objects the newest backup whose stored bytes are as its manifest says, and the newest such one that
    /// is whole.
    pub(crate) resources: BTreeSet<u64>,
    /// Segments whose stored bytes are as their manifests say.
    pub(crate) segments: BTreeSet<u64>,
}

/// Segments that hold all that shorter ones hold, and are held by no other one but those known to be `unsound`: only once
/// these are proved may the shorter ones go.
pub(crate) fn covers<'t>(timeline: &'t Timeline, unsound: &BTreeSet<u64>) -> Vec<&'t Item<Segment>> {
    let counts = |segment: &Item<Segment>| !unsound.contains(&segment.sequence);
    let wide: BTreeSet<u64> = widest(&timeline.segments, counts).iter().map(|s| s.sequence).collect();
    // of all behind one in their order, the one that ends first
    let mut ends_first = i64::MAX;
    let mut covers = Vec::new();
    for segment in timeline.segments.iter().rev() {
        let last = segment.content.last_revision;
        if ends_first <= last && wide.contains(&segment.sequence) && counts(segment) {
            covers.push(segment);
        }
        ends_first = ends_first.min(last);
    }
    covers
}

impl Retention {
    /// What stays of a history at `now_ms`.
    pub(crate) fn keep(&self, history: &History, proved: &Proved, now_ms: i64) -> Kept {
        let mut kept = Kept::new();
        self.keep_resources(history, &proved.resources, now_ms, &mut kept);
        let Some(full) = proved.full else {
            let segments = history.timelines.iter().flat_map(|t| &t.segments).map(|s| s.sequence);
            let rest = segments.chain(history.bundles.iter().map(|bundle| bundle.sequence));
            rest.for_each(|sequence| note(&mut kept, sequence, "no full is there yet"));
            return kept;
        };
        self.keep_fulls(history, full, now_ms, &mut kept);
        let newest = history.timelines.last().map(|timeline| &timeline.timeline.id);
        for timeline in &history.timelines {
            let is_newest = Some(&timeline.timeline.id) == newest;
            self.keep_segments(timeline, is_newest, &proved.segments, now_ms, &mut kept);
        }
        keep_bundles(history, &mut kept);
        kept
    }

    /// What the rules keep of backups that each stand for themselves: sequence numbers and times, the newest first.
    fn keep_by_time(&self, newest_first: &[(u64, i64)], now_ms: i64, kept: &mut Kept) {
        for (sequence, _) in newest_first.iter().take(self.last as usize) {
            note(kept, *sequence, "one of the last");
        }
        let buckets: [(u32, &str, Bucket); 4] = [
            (self.hourly, "hourly", |ms| (ms.div_euclid(3_600_000), 0)),
            (self.daily, "daily", |ms| (ms.div_euclid(86_400_000), 0)),
            (self.weekly, "weekly", week),
            (self.monthly, "monthly", month),
        ];
        for (count, name, bucket) in buckets {
            let mut seen = BTreeSet::new();
            for (sequence, taken_ms) in newest_first {
                if seen.len() == count as usize {
                    break;
                }
                if seen.insert(bucket(*taken_ms)) {
                    note(kept, *sequence, name);
                }
            }
        }
        let young = |ms: i64| self.within_ms.is_some_and(|within| ms >= now_ms.saturating_sub(within));
        for (sequence, _) in newest_first.iter().filter(|(_, taken_ms)| young(*taken_ms)) {
            note(kept, *sequence, "young enough");
        }
    }

    /// The same rules for each series of objects. One of which no backup is good stays as it is.
    fn keep_resources(&self, history: &History, good: &BTreeSet<u64>, now_ms: i64, kept: &mut Kept) {
        for series in series(history).into_values() {
            let newest_first: Vec<_> =
                series.iter().map(|one| (one.sequence, one.content.taken_ms)).collect();
            let found: Vec<_> = series.iter().filter(|one| good.contains(&one.sequence)).collect();
            for one in &found {
                let is_whole = one.content.problems == 0;
                let why = if is_whole {
                    "the newest good whole one of its kind"
                } else {
                    "the newest good one of its kind"
                };
                note(kept, one.sequence, why);
            }
            if found.is_empty() {
                newest_first
                    .iter()
                    .for_each(|(sequence, _)| note(kept, *sequence, "none of its kind is good"));
            }
            self.keep_by_time(&newest_first, now_ms, kept);
        }
    }

    fn keep_fulls(&self, history: &History, proved: u64, now_ms: i64, kept: &mut Kept) {
        let mut fulls: Vec<&Item<Full>> = history.timelines.iter().flat_map(|t| &t.fulls).collect();
        fulls.sort_by_key(|full| std::cmp::Reverse((full.content.taken_ms, full.sequence)));
        note(kept, proved, "the newest good full");
        let newest_first: Vec<_> = fulls.iter().map(|full| (full.sequence, full.content.taken_ms)).collect();
        self.keep_by_time(&newest_first, now_ms, kept);
        if let Some(window) = self.point_in_time_ms {
            let cutoff = now_ms.saturating_sub(window);
            for timeline in &history.timelines {
                for base in bases_of_window(timeline, cutoff) {
                    note(kept, base.sequence, "the base of points in time");
                }
            }
        }
    }

    fn keep_segments(
        &self,
        timeline: &Timeline,
        is_newest: bool,
        sound: &BTreeSet<u64>,
        now_ms: i64,
        kept: &mut Kept,
    ) {
        let bases: Vec<i64> = timeline
            .fulls
            .iter()
            .filter(|full| kept.contains_key(&full.sequence))
            .map(|full| full.content.revision)
            .collect();
        let from = match (self.point_in_time_ms, bases.first(), bases.last()) {
            // a stream whose first full is still to come, or the rest of a history that has none left
            (_, None, _) | (_, _, None) if is_newest => i64::MIN,
            (_, None, _) | (_, _, None) => i64::MAX,
            (None, Some(first), _) => *first,
            (Some(window), Some(_), Some(last)) => {
                let bases = bases_of_window(timeline, now_ms.saturating_sub(window));
                bases.map(|base| base.content.revision).fold(*last, i64::min)
            }
        };
        let uncovered = widest(&timeline.segments, |by| sound.contains(&by.sequence));
        for segment in uncovered.into_iter().filter(|s| s.content.last_revision > from) {
            note(kept, segment.sequence, "leads on from a kept full");
        }
    }
}

/// The fulls that moments in the window are restored from: in each stretch that reaches into it, the newest that lies
/// before its first moment there, else its first.
fn bases_of_window(timeline: &Timeline, cutoff_ms: i64) -> impl Iterator<Item = &Item<Full>> {
    timeline.restorable.iter().filter_map(move |stretch| {
        let (first, last) = (stretch.first_revision, stretch.last_revision);
        let young = timeline
            .segments
            .iter()
            .map(|s| &s.content)
            .filter(|s| s.last_ms >= cutoff_ms && s.last_revision >= first && s.first_revision <= last);
        let start = young.map(|segment| segment.first_revision).min()?;
        let mut within = timeline.fulls.iter().filter(|f| (first..=last).contains(&f.content.revision));
        let before = within.clone().rev().find(|full| full.content.revision < start);
        before.or_else(|| within.next())
    })
}

/// Backups of objects by what they are of, the newest of each first.
pub(crate) fn series(history: &History) -> BTreeMap<&str, Vec<&Item<Resources>>> {
    let mut series: BTreeMap<&str, Vec<&Item<Resources>>> = BTreeMap::new();
    for one in &history.resources {
        series.entry(&one.content.scope).or_default().push(one);
    }
    for of_scope in series.values_mut() {
        of_scope.sort_by_key(|one| std::cmp::Reverse((one.content.taken_ms, one.sequence)));
    }
    series
}

fn keep_bundles(history: &History, kept: &mut Kept) {
    let times: Vec<i64> = history
        .timelines
        .iter()
        .flat_map(|timeline| &timeline.fulls)
        .filter(|full| kept.contains_key(&full.sequence))
        .map(|full| full.content.taken_ms)
        .chain([i64::MAX])
        .collect();
    let hosts: BTreeSet<&str> = history.bundles.iter().map(|bundle| bundle.content.host.as_str()).collect();
    for host in hosts {
        for time in &times {
            let of_host = history.bundles.iter().filter(|b| b.content.host == host);
            let newest = of_host.filter(|b| b.content.taken_ms <= *time).max_by_key(|b| b.content.taken_ms);
            if let Some(bundle) = newest {
                let reason =
                    if *time == i64::MAX { "the newest of its host" } else { "goes with a kept full" };
                note(kept, bundle.sequence, reason);
            }
        }
    }
}

fn note(kept: &mut Kept, sequence: u64, reason: &str) {
    let reasons = kept.entry(sequence).or_default();
    if !reasons.iter().any(|known| known == reason) {
        reasons.push(reason.to_owned());
    }
}

fn date(ms: i64) -> jiff::civil::Date {
    Timestamp::from_millisecond(ms).unwrap_or_default().to_zoned(TimeZone::UTC).date()
}

fn week(ms: i64) -> (i64, i64) {
    let week = date(ms).iso_week_date();
    (week.year().into(), week.week().into())
}

fn month(ms: i64) -> (i64, i64) {
    let date = date(ms);
    (date.year().into(), date.month().into())
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
