//! What is stored already and waits to be merged: many small segments become one of an hour. The vault's own copies can be
//! read with the identity only, which an agent does not have; so those of the hour under way are held here.
//!
//! ```text
//! DIR/TIMELINE/FIRST-LAST-MS-NUMBER-s.seg     as it was stored, under this number in the vault
//! DIR/TIMELINE/FIRST-LAST-MS-NUMBER-m.seg     merged of such ones, and stored
//! ```
//! [`due`] decides what is merged, without looking into the files; [`merge`] and [`Due::stored`] do it. Killed at any
//! point it begins anew: what is merged twice does no harm in a vault.

use camino::{Utf8Path, Utf8PathBuf};
use etcd_disk::segment::{self, SegmentFacts};
use std::io;
use std::os::unix::fs::DirBuilderExt;

use crate::Error;

/// So many small segments wait at most before they become one: what is younger than an hour stays few objects, too.
pub const SMALL_MAX: usize = 48;
const HOUR_MS: i64 = 3_600_000;
/// In a quiet stream an hour is merged this long after its end.
const LATE_MS: i64 = 600_000;
/// Under way in a timeline's folder.
const MERGING: &str = "merging";

/// A segment that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its file.
    pub path: Utf8PathBuf,
    /// The first revision in it.
    pub first_revision: i64,
    /// The last revision in it.
    pub last_revision: i64,
    /// When the first one was received, ms since the Unix epoch.
    pub first_ms: i64,
    /// Number of its manifest in the vault.
    pub sequence: u64,
    /// It was merged of others.
    pub is_merged: bool,
    /// Size of the file.
    pub bytes: u64,
}

/// What is to become one segment, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The segments.
    pub parts: Vec<Held>,
    /// Nothing will be added to it: the hour is over, or it is as large as it may be.
    pub is_final: bool,
}

impl Held {
    /// From the name of its file; none when that is no such name.
    fn of(path: Utf8PathBuf, bytes: u64) -> Option<Self> {
        let mut fields = path.file_name()?.strip_suffix(".seg")?.split('-');
        let mut number = || fields.next()?.parse::<i64>().ok();
        let (first_revision, last_revision, first_ms) = (number()?, number()?, number()?);
        let sequence = u64::try_from(number()?).ok()?;
        let is_merged = match fields.next()? {
            "m" => true,
            "s" => false,
            _ => return None,
        };
        let told = fields.next().is_none() && first_revision <= last_revision;
        told.then_some(Self { path, first_revision, last_revision, first_ms, sequence, is_merged, bytes })
    }

    fn hour(&self) -> i64 {
        self.first_ms.div_euclid(HOUR_MS)
    }
}

fn name(facts: &SegmentFacts, first_ms: i64, sequence: u64, kind: char) -> String {
    let (first, last) = (facts.header.first_revision, facts.last_revision);
    // a time before 1970 would look like one more field
    format!("{first:019}-{last:019}-{:013}-{sequence:012}-{kind}.seg", first_ms.max(0))
}

/// Takes a segment of the spool that is stored under this number.
///
/// # Errors
/// When its file cannot be moved.
pub fn keep(dir: &Utf8Path, path: &Utf8Path, facts: &SegmentFacts, sequence: u64) -> io::Result<()> {
    let Some((first_ms, _)) = facts.received_ms else { return std::fs::remove_file(path) };
    let timeline: String = facts.header.origin.timeline.iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = dir.join(timeline);
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    std::fs::rename(path, folder.join(name(facts, first_ms, sequence, 's')))
}

/// What waits, each timeline for itself, by first revision. What a killed agent had merged already is cleared away.
///
/// # Errors
/// When a folder cannot be listed, or a file not be removed.
pub fn held(dir: &Utf8Path) -> io::Result<Vec<Vec<Held>>> {
    let mut timelines = Vec::new();
    let folders = match dir.read_dir_utf8() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(timelines),
        folders => folders?,
    };
    for folder in folders {
        let folder = folder?;
        if !folder.file_type()?.is_dir() {
            continue;
        }
        let mut found = Vec::new();
        for entry in folder.path().read_dir_utf8()? {
            let entry = entry?;
            found.extend(Held::of(entry.path().to_owned(), entry.metadata()?.len()));
        }
        found.sort_by_key(|held| (held.first_revision, -held.last_revision, held.sequence));
        timelines.push(without_repeated(found)?);
    }
    Ok(timelines)
}

fn without_repeated(found: Vec<Held>) -> io::Result<Vec<Held>> {
    let mut held: Vec<Held> = Vec::with_capacity(found.len());
    for segment in found {
        if held.last().is_some_and(|before| segment.last_revision <= before.last_revision) {
            std::fs::remove_file(&segment.path)?;
        } else {
            held.push(segment);
        }
    }
    Ok(held)
}

/// What of a timeline is to be merged next at `now_ms`; merged ones have about `bytes_max` at most. Never over a gap, and never
/// segments of two hours.
pub fn due(held: &[Held], bytes_max: u64, now_ms: i64) -> Option<Due> {
    let (first, rest) = held.split_first()?;
    let (mut parts, mut bytes) = (vec![first.clone()], first.bytes);
    let mut is_final = bytes >= bytes_max;
    for next in rest {
        let follows = parts.last().is_some_and(|last| next.first_revision == last.last_revision + 1);
        is_final |= !follows || next.hour() != first.hour() || bytes + next.bytes > bytes_max;
        if is_final {
            break;
        }
        bytes += next.bytes;
        parts.push(next.clone());
    }
    if is_final || now_ms >= (first.hour() + 1).saturating_mul(HOUR_MS).saturating_add(LATE_MS) {
        return Some(Due { parts, is_final: true });
    }
    let small = parts.iter().rev().take_while(|part| !part.is_merged).count();
    let parts = parts.split_off(parts.len() - small);
    (small >= SMALL_MAX).then_some(Due { parts, is_final: false })
}

/// Merges into a file beside the parts.
///
/// # Errors
/// [`Error::Segment`] when they cannot be merged.
pub fn merge(due: &Due, writer: &str) -> Result<SegmentFacts, Error> {
    let parts: Vec<_> = due.parts.iter().map(|part| part.path.clone().into()).collect();
    let to = due.parts.first().map(|part| part.path.with_file_name(MERGING)).unwrap_or_default();
    // a killed agent's
    if let Err(source) = std::fs::remove_file(&to)
        && source.kind() != io::ErrorKind::NotFound
    {
        return Err(Error::Spool { path: to, why: "a file cannot be removed from it", source: Some(source) });
    }
    Ok(segment::merge(&parts, to.as_std_path(), writer)?)
}

impl Due {
    /// What was merged is stored under this number: it takes the place of its parts, or is not needed any more.
    ///
    /// # Errors
    /// When files cannot be moved or removed.
    pub fn stored(&self, merged: &SegmentFacts, sequence: u64) -> io::Result<()> {
        match (self.is_final, merged.received_ms) {
            (false, Some((first_ms, _))) => {
                let to = merged.path.with_file_name(name(merged, first_ms, sequence, 'm'));
                std::fs::rename(&merged.path, to)?;
            }
            _ => std::fs::remove_file(&merged.path)?,
        }
        self.drop_parts()
    }

    /// Gives the parts up: they stay in the vault as they are.
    ///
    /// # Errors
    /// When they cannot be removed.
    pub fn drop_parts(&self) -> io::Result<()> {
        self.parts.iter().try_for_each(|part| std::fs::remove_file(&part.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments of one revision and of `bytes` bytes, at these times.
    fn held(times_ms: &[i64], bytes: u64) -> Vec<Held> {
        let held = |(revision, ms): (i64, &i64)| {
            let path = format!("/x/{revision:019}-{revision:019}-{ms:013}-{revision:012}-s.seg");
            Held::of(path.into(), bytes).unwrap()
        };
        (1..).zip(times_ms).map(held).collect()
    }

    fn spans(due: Option<Due>) -> Option<(i64, i64, bool)> {
        let due = due?;
        Some((due.parts.first()?.first_revision, due.parts.last()?.last_revision, due.is_final))
    }

    // An hour becomes one once the next has begun or is well under way; before that small ones are gathered; nothing is merged
    // over a gap or beyond the size.
    #[test]
    fn what_is_merged_when() {
        let hour = |h: i64, n: i64| h * HOUR_MS + n;
        let two = held(&[hour(5, 1), hour(5, 2)], 10);
        assert_eq!(spans(due(&two, 100, hour(6, 0))), None);
        assert_eq!(spans(due(&two, 100, hour(6, LATE_MS))), Some((1, 2, true)));
        assert_eq!(spans(due(&two, 15, hour(5, 3))), Some((1, 1, true)), "as large as it may be");
        let next = held(&[hour(5, 1), hour(5, 2), hour(6, 0)], 10);
        assert_eq!(spans(due(&next, 100, hour(6, 1))), Some((1, 2, true)));
        assert_eq!(spans(due(&next[2..], 100, hour(6, 1))), None);
        let mut gap = held(&[hour(5, 1), hour(5, 2), hour(5, 3)], 10);
        (gap[2].first_revision, gap[2].last_revision) = (4, 4);
        assert_eq!(spans(due(&gap, 100, hour(5, 4))), Some((1, 2, true)));
        let times: Vec<i64> = (0..100).map(|n| hour(5, n)).collect();
        let mut many = held(&times, 1);
        assert_eq!(spans(due(&many[..SMALL_MAX], 1000, hour(5, 99))), Some((1, 48, false)));
        many[60].is_merged = true;
        assert_eq!(spans(due(&many, 1000, hour(5, 99))), None, "39 are behind the merged one");
        assert_eq!(spans(due(&[], 1000, 0)), None);
    }

    // Somebody else's file in the folder is left alone; what a merged one holds goes.
    #[test]
    fn names_say_what_is_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        assert_eq!(super::held(&dir.join("none")).unwrap(), Vec::<Vec<Held>>::new());
        let folder = dir.join("t");
        std::fs::create_dir(&folder).unwrap();
        let names = ["5-9-100-3-m.seg", "5-6-100-1-s.seg", "7-9-100-2-s.seg", "10-12-100-4-s.seg"];
        for name in
            names.into_iter().chain(["merging", "x.seg", "1-2-3-4-z.seg", "2-1-3-4-s.seg", "1-2-3-s.seg"])
        {
            std::fs::write(folder.join(name), "").unwrap();
        }
        let found = super::held(dir).unwrap();
        let numbers: Vec<u64> = found[0].iter().map(|held| held.sequence).collect();
        assert_eq!(numbers, [3, 4]);
        let left: Vec<bool> = names.iter().map(|name| folder.join(name).exists()).collect();
        assert_eq!(left, [true, false, false, true]);
        assert_eq!(folder.read_dir_utf8().unwrap().count(), 7);
    }
}
