//! The chain of manifests: each names the one before it by digest; what retention removed is excused by its record.
//!
//! What a chain can't show is an end that was cut off: whoever may delete the newest manifests makes the vault look
//! older. That is what the store's own versioning and object lock are for.

use crate::manifest::{Content, Link, Manifest, Run};
use std::collections::{BTreeMap, BTreeSet};

/// A break in the chain, in words.
pub(crate) struct Break {
    /// The manifest at which it shows.
    pub(crate) sequence: u64,
    pub(crate) what: String,
}

/// All breaks. `digests`: of every object in the manifest folder, trusted or not.
pub(crate) fn breaks(manifests: &[Manifest], digests: &BTreeMap<u64, String>) -> Vec<Break> {
    let removed: BTreeSet<(u64, &str)> = removed(manifests).map(|run| key(&run.last)).collect();
    let mut breaks = Vec::new();
    for manifest in manifests {
        let Some(before) = &manifest.before else { continue };
        let number = before.sequence;
        let what = match digests.get(&number) {
            Some(digest) if *digest == before.sha256 => continue,
            Some(_) => format!("manifest {number} has been changed since this one was written"),
            None if removed.contains(&key(before)) => continue,
            None => format!("manifest {number} is missing, and no retention removed it"),
        };
        breaks.push(Break { sequence: manifest.sequence, what });
    }
    breaks
}

fn key(link: &Link) -> (u64, &str) {
    (link.sequence, &link.sha256)
}

/// What the records of retention say was removed.
pub(crate) fn removed(manifests: &[Manifest]) -> impl Iterator<Item = &Run> {
    manifests.iter().flat_map(|manifest| match &manifest.content {
        Content::Prune(prune) => prune.removed.as_slice(),
        _ => &[],
    })
}

/// Earlier runs and newly removed manifests as one list: in order, neighbours joined.
pub(crate) fn joined<'a>(earlier: impl Iterator<Item = &'a Run>, new: Vec<Link>) -> Vec<Run> {
    let mut runs: Vec<Run> = earlier.cloned().collect();
    runs.extend(new.into_iter().map(|last| Run { first: last.sequence, last }));
    runs.sort_by_key(|run| (run.first, run.last.sequence));
    let mut joined: Vec<Run> = Vec::new();
    for run in runs {
        match joined.last_mut() {
            Some(before) if run.first <= before.last.sequence.saturating_add(1) => {
                if run.last.sequence > before.last.sequence {
                    before.last = run.last;
                }
            }
            _ => joined.push(run),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(sequence: u64) -> Link {
        Link { sequence, sha256: format!("digest {sequence}") }
    }

    // A record of years stays small: neighbours become one run, whatever order and overlap they come in.
    #[test]
    fn runs_are_joined() {
        let earlier = joined(std::iter::empty(), [7, 3, 2, 9].map(link).into());
        let spans = |runs: &[Run]| runs.iter().map(|r| (r.first, r.last.sequence)).collect::<Vec<_>>();
        assert_eq!(spans(&earlier), [(2, 3), (7, 7), (9, 9)]);
        let all = joined(earlier.iter().chain(&earlier), [8, 4, 1].map(link).into());
        assert_eq!(spans(&all), [(1, 4), (7, 9)]);
        assert_eq!(all[0].last, link(4));
        assert_eq!(all[1].last, link(9));
    }
}
