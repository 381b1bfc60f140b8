use super::*;
use crate::history::tests::{full, history, resources, segment};
use crate::manifest::Content;
use proptest::prelude::*;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

fn nothing() -> Retention {
    Retention { last: 0, hourly: 0, daily: 0, weekly: 0, monthly: 0, within_ms: None, point_in_time_ms: None }
}

fn proved(full: u64, segments: BTreeSet<u64>) -> Proved {
    Proved { full: Some(full), resources: BTreeSet::new(), segments }
}

fn all_sound(history: &History) -> BTreeSet<u64> {
    let none = BTreeSet::new();
    history.timelines.iter().flat_map(|t| covers(t, &none)).map(|segment| segment.sequence).collect()
}

fn after(contents: &[Content], kept: &Kept) -> Vec<Content> {
    (1..).zip(contents).filter(|(n, _)| kept.contains_key(n)).map(|(_, content)| content.clone()).collect()
}

// The rules as their names say: the newest of each bucket, counted over buckets that have one.
#[test]
fn buckets() {
    let times = [0, 1, 2, 25, 26, 49, 24 * 8, 24 * 40].map(|hours| hours * HOUR_MS);
    let contents: Vec<Content> = (1..).zip(times).map(|(n, ms)| full("t", n * 10, ms)).collect();
    let kept = |retention: Retention| {
        let proved = proved(8, BTreeSet::new());
        retention.keep(&history(contents.clone()), &proved, 50 * DAY_MS).into_keys().collect::<Vec<_>>()
    };
    assert_eq!(kept(nothing()), [8], "the newest good one, whatever the rules");
    assert_eq!(kept(Retention { last: 3, ..nothing() }), [6, 7, 8]);
    assert_eq!(kept(Retention { hourly: 2, ..nothing() }), [7, 8]);
    assert_eq!(kept(Retention { daily: 4, ..nothing() }), [5, 6, 7, 8]);
    assert_eq!(kept(Retention { weekly: 3, ..nothing() }), [6, 7, 8], "1970-01-01 was a Thursday");
    assert_eq!(kept(Retention { monthly: 9, ..nothing() }), [7, 8]);
    assert_eq!(kept(Retention { within_ms: Some(45 * DAY_MS), ..nothing() }), [7, 8]);
}

// A managed cluster has no fulls, and its objects are kept by the same rules, each series for itself; of one that has no good
// backup nothing goes.
#[test]
fn objects_are_kept_by_series() {
    let contents: Vec<Content> = (0..6)
        .map(|day| resources(if day % 2 == 0 { "" } else { "namespaces shop" }, day * DAY_MS))
        .collect();
    let history = history(contents);
    let kept = |good: &[u64], retention: Retention| {
        let proved =
            Proved { full: None, resources: good.iter().copied().collect(), segments: BTreeSet::new() };
        retention.keep(&history, &proved, 6 * DAY_MS).into_keys().collect::<Vec<_>>()
    };
    assert_eq!(kept(&[5, 6], nothing()), [5, 6], "the newest good one of each");
    assert_eq!(kept(&[3, 6], nothing()), [3, 6], "the newest is damaged: the one before it stays");
    assert_eq!(kept(&[6], nothing()), [1, 3, 5, 6]);
    assert_eq!(kept(&[5, 6], Retention { daily: 2, ..nothing() }), [3, 4, 5, 6]);
}

// Small segments go once a longer one that was read and found good holds all of them, not before.
#[test]
fn merged_segments_go_once_the_merged_one_is_proved() {
    let contents = [
        full("t", 10, 0),
        segment("t", 11, 12, 1),
        segment("t", 13, 14, 2),
        segment("t", 11, 14, 2),
        segment("t", 15, 16, 3),
    ];
    let history = history(contents);
    let kept = |segments| nothing().keep(&history, &proved(1, segments), 9).into_keys().collect::<Vec<_>>();
    assert_eq!(all_sound(&history), BTreeSet::from([4]));
    assert_eq!(kept(BTreeSet::new()), [1, 2, 3, 4, 5]);
    assert_eq!(kept(all_sound(&history)), [1, 4, 5]);
}

// Merged ones of merged ones: the widest is enough for all below it; if that is damaged, those below it are looked at.
#[test]
fn the_widest_sound_one_counts() {
    let contents = [
        full("t", 10, 0),
        segment("t", 11, 12, 1),
        segment("t", 13, 14, 2),
        segment("t", 11, 14, 2),
        segment("t", 15, 16, 3),
        segment("t", 11, 16, 3),
    ];
    let history = history(contents);
    let covers = |unsound: &[u64]| {
        let unsound = unsound.iter().copied().collect();
        covers(&history.timelines[0], &unsound).iter().map(|s| s.sequence).collect::<Vec<_>>()
    };
    assert_eq!(covers(&[]), [6]);
    assert_eq!(covers(&[6]), [4]);
    assert_eq!(covers(&[4, 6]), [0; 0]);
    let sound = |segments: &[u64]| proved(1, segments.iter().copied().collect());
    let kept = |segments| nothing().keep(&history, &sound(segments), 9).into_keys().collect::<Vec<_>>();
    assert_eq!(kept(&[6]), [1, 6]);
    assert_eq!(kept(&[4]), [1, 4, 5, 6]);
}

// Within the window every moment stays restorable, though its full is older than all rules keep.
#[test]
fn the_window_keeps_its_base() {
    let day = |n: i64| n * DAY_MS;
    let mut contents = Vec::new();
    for n in 0..10 {
        contents.push(full("t", 100 * (n + 1), day(n)));
        contents.push(segment("t", 100 * (n + 1) + 1, 100 * (n + 2), day(n) + HOUR_MS));
    }
    let retention = Retention { last: 1, point_in_time_ms: Some(day(3)), ..nothing() };
    let proved = proved(19, BTreeSet::new());
    let kept = retention.keep(&history(contents.clone()), &proved, day(10));
    // days 7 to 9 lie in the window: the full of day 7 and all segments from there, and the newest full
    assert_eq!(kept.keys().copied().collect::<Vec<_>>(), [15, 16, 18, 19, 20]);
}

fn some_contents() -> impl Strategy<Value = Vec<Content>> {
    let full = (0..3u8, 1..300i64).prop_map(|(t, r)| full(&t.to_string(), r, r * HOUR_MS));
    let segment = (0..3u8, 1..300i64, 0..60i64)
        .prop_map(|(t, first, len)| segment(&t.to_string(), first, first + len, (first + len) * HOUR_MS));
    proptest::collection::vec(prop_oneof![full, segment], 1..40)
}

fn some_retention() -> impl Strategy<Value = Retention> {
    let window = proptest::option::of(0..300 * HOUR_MS);
    (0..4u32, 0..4u32, 0..4u32, 0..3u32, 0..2u32, window.clone(), window).prop_map(
        |(last, hourly, daily, weekly, monthly, within_ms, point_in_time_ms)| Retention {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            within_ms,
            point_in_time_ms,
        },
    )
}

proptest! {
    // Whatever the history and the rules: the proved full stays; each kept full leads as far as it did (without a window,
    // and within the window with one); what is listed as restorable afterwards was so before; without
    // a window a second run finds nothing more.
    #[test]
    fn nothing_that_is_promised_is_lost(contents in some_contents(), retention in some_retention(), pick in any::<prop::sample::Index>()) {
        let now_ms = 360 * HOUR_MS;
        let before = history(contents.clone());
        let fulls: Vec<u64> = before.timelines.iter().flat_map(|t| &t.fulls).map(|f| f.sequence).collect();
        prop_assume!(!fulls.is_empty());
        let picked = fulls[pick.index(fulls.len())];
        let kept = retention.keep(&before, &proved(picked, all_sound(&before)), now_ms);
        prop_assert!(kept.contains_key(&picked));
        let left = after(&contents, &kept);
        let now = history(left.clone());
        for timeline in &now.timelines {
            let old = before.timelines.iter().find(|t| t.timeline.id == timeline.timeline.id).unwrap();
            for stretch in &timeline.restorable {
                prop_assert!(old.restorable.iter().any(|o| {
                    o.first_revision <= stretch.first_revision && stretch.last_revision <= o.last_revision
                }), "{stretch:?} was not restorable before");
            }
            let reach = |t: &Timeline, base| t.segments_from(base).last().map_or(base, |s| s.content.last_revision);
            for full in &timeline.fulls {
                let base = full.content.revision;
                if retention.point_in_time_ms.is_none() {
                    prop_assert_eq!(reach(timeline, base), reach(old, base), "from {}", base);
                }
            }
        }
        if let Some(window) = retention.point_in_time_ms {
            for old in &before.timelines {
                for segment in old.segments.iter().filter(|s| s.content.last_ms >= now_ms - window) {
                    let last = segment.content.last_revision;
                    let within = |t: &Timeline| t.restorable.iter().any(|s| s.first_revision <= last && last <= s.last_revision);
                    let new = now.timelines.iter().find(|t| t.timeline.id == old.timeline.id);
                    prop_assert!(!within(old) || new.is_some_and(within), "revision {last} was lost");
                }
            }
        }
        // numbers change with what is left, so the proved full is found again by what it is
        let again = (1..).zip(&left).find(|(_, c)| **c == contents[usize::try_from(picked).unwrap() - 1]);
        let again = retention.keep(&now, &proved(again.unwrap().0, all_sound(&now)), now_ms);
        // what a window needed only for segments that are gone may go a run later
        prop_assert!(again.len() == left.len() || retention.point_in_time_ms.is_some(), "{:?}", again);
    }
}
