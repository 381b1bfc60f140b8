//! The story: an agent puts a day of small segments into a vault, and merges them as it goes. A point of that day comes back
//! from a few objects, exactly; so it does when a merged one is lost, when an agent died while it merged, and when two agents
//! merged the same. Retention takes the small ones once the merged one was read, not before. A year is found in few reads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::print_stdout)] // the figures

mod common;
#[path = "common/counted.rs"]
mod counted;

use camino::{Utf8Path, Utf8PathBuf};
use common::*;
use counted::Counted;
use etcd_disk::changes::{Changes, Point};
use etcd_disk::segment::SegmentFacts;
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy, VerifyOptions};
use rekindle_agent::hold;
use rekindle_vault::history::Timeline;
use rekindle_vault::manifest::{ClusterIdentity, Content, Manifest};
use rekindle_vault::{
    ClusterName, PartSource, Recipients, SegmentMeta, SigningKey, Store, Vault, Writer, WriterName,
};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const HOUR_MS: i64 = 3_600_000;
/// The day begins here.
const MORNING_MS: i64 = 1_700_006_400_000;
const FULL: i64 = 10;

/// An agent's folder, and the vault it writes to.
struct Agent {
    writer: Writer,
    vault: Vault,
    dir: PathBuf,
    _keep: Option<tempfile::TempDir>,
}

impl Agent {
    async fn new(keys: &Keys, store: &Store, name: &str) -> Self {
        let keep = tempfile::tempdir().unwrap();
        let dir = keep.path().to_owned();
        Self { _keep: Some(keep), ..Self::of(keys.writer(store, name).await, keys.vault(store), dir) }
    }

    /// One whose folder is there already.
    fn of(writer: Writer, vault: Vault, dir: PathBuf) -> Self {
        Self { writer, vault, dir, _keep: None }
    }

    fn held(&self) -> Utf8PathBuf {
        Utf8Path::from_path(&self.dir).unwrap().join("held")
    }

    /// Puts one small segment into the vault, and holds it.
    async fn ship(&self, first: i64, last: i64, at_ms: i64) {
        let path = segment(&self.dir, first, last, at_ms);
        let facts = etcd_disk::segment::survey(&path).unwrap();
        let put = self.put(&facts, BTreeSet::new()).await;
        hold::keep(&self.held(), Utf8Path::from_path(&path).unwrap(), &facts, put.sequence).unwrap();
    }

    async fn put(&self, facts: &SegmentFacts, replaces: BTreeSet<u64>) -> Manifest {
        let (first_ms, last_ms) = facts.received_ms.unwrap();
        let meta = SegmentMeta {
            identity: ClusterIdentity::default(),
            timeline: timeline(),
            first_revision: facts.header.first_revision,
            last_revision: facts.last_revision,
            first_ms,
            last_ms,
            etcd_version: None,
            member: None,
            samples: Vec::new(),
            replaces,
        };
        self.writer.put_segment(PartSource::File(facts.path.clone()), meta).await.unwrap()
    }

    /// Merges one thing that is due, and puts it into the vault; what that needs to be ended.
    async fn merge_one(&self, now_ms: i64) -> Option<(hold::Due, SegmentFacts, Manifest)> {
        let due = loop {
            let held = hold::held(&self.held()).unwrap();
            let due = held.iter().find_map(|timeline| hold::due(timeline, 64 << 20, now_ms))?;
            if due.parts.len() > 1 {
                break due;
            }
            due.drop_parts().unwrap();
        };
        let facts = hold::merge(&due, "test").unwrap();
        let mut replaces = BTreeSet::new();
        for part in &due.parts {
            replaces.insert(part.sequence);
            if let Content::Segment(of) = self.vault.manifest(part.sequence).await.unwrap().content {
                replaces.extend(of.replaces.iter().flat_map(|run| run.first..=run.last));
            }
        }
        let put = self.put(&facts, replaces).await;
        Some((due, facts, put))
    }

    async fn merge(&self, now_ms: i64) -> usize {
        let mut merged = 0;
        while let Some((due, facts, put)) = self.merge_one(now_ms).await {
            due.stored(&facts, put.sequence).unwrap();
            merged += 1;
        }
        merged
    }

    /// A segment a minute.
    async fn live_hours(&self, hours: std::ops::Range<i64>) {
        for minute in hours.start * 60..hours.end * 60 {
            let at_ms = MORNING_MS + minute * 60_000 + 1500;
            self.ship(11 + minute * 2, 12 + minute * 2, at_ms).await;
            self.merge(at_ms).await;
        }
    }
}

/// Restores a revision out of the vault, and compares it with the store that it must be; how many parts that took.
async fn restore(keys: &Keys, vault: &Vault, timeline: &Timeline, revision: i64) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base.db");
    vault.fetch(&timeline.fulls[0].content.part, &keys.identities, &base).await.unwrap();
    let mut paths: Vec<PathBuf> = Vec::new();
    for segment in timeline.segments_from(FULL).iter().take_while(|s| s.content.first_revision <= revision) {
        let path = dir.path().join(format!("{}.seg", segment.sequence));
        vault.fetch(&segment.content.part, &keys.identities, &path).await.unwrap();
        paths.push(path);
    }
    let changes = Changes::open(&paths, Point::Revision(revision)).unwrap();
    let base = SnapshotFile::open(&base, TrailerPolicy::Required).unwrap();
    let to = dir.path().join("restored.db");
    etcd_disk::restore::write_snapshot(&base, &changes, false, &to, &mut |_, _| ()).unwrap();
    let restored = SnapshotFile::open(&to, TrailerPolicy::Required).unwrap();
    let restored = restored.verify(&VerifyOptions::default(), &mut |_, _| ()).unwrap();
    let (_, lived) = snapshot(dir.path(), revision, 40);
    assert_eq!((restored.revision, restored.hash_kv.hash), (revision, lived.hash_kv.hash));
    1 + paths.len()
}

async fn put_base(keys: &Keys, writer: &Writer) {
    let (path, verified) = snapshot(keys.dir.path(), FULL, 40);
    writer.put_full(&path, full_meta(verified, MORNING_MS - 1000)).await.unwrap();
    std::fs::remove_file(path).unwrap();
}

// A day in which the last hour has a segment every two seconds, as an agent makes them. Its end, the worst that can be asked
// for, and any other point come back from under 200 objects, manifests included.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_comes_back_from_few_objects() {
    let (keys, counted) = (Keys::new(), Counted::default());
    let store = counted.store();
    let agent = Agent::new(&keys, &store, "cp-1").await;
    put_base(&keys, &agent.writer).await;
    agent.live_hours(0..23).await;
    let mut last = 12 + (23 * 60 - 1) * 2;
    for n in 0..1795 {
        let at_ms = MORNING_MS + 23 * HOUR_MS + n * 2000 + 7;
        agent.ship(last + 1, last + 1, at_ms).await;
        last += 1;
        agent.merge(at_ms).await;
    }
    let vault = keys.vault(&store);
    let small = 23 * 60 + 1795;
    let mut worst = 0;
    for revision in [last, last / 2, FULL + 1, last - 1].into_iter().chain((0..6).map(|n| 11 + n * 577)) {
        counted.reads();
        let (history, faults) = vault.history().await.unwrap();
        assert_eq!(faults, []);
        let parts = restore(&keys, &vault, &history.timelines[0], revision).await;
        let (manifests, indexes, read) = counted.reads();
        assert_eq!((read, indexes), (parts, 0));
        worst = worst.max(manifests + read);
        if revision == last {
            println!(
                "{small} small segments: the end of the day read {manifests} manifests and {read} parts"
            );
        }
    }
    assert!(worst < 200, "{worst} objects");
    let report = keys.verify(&vault, true).await;
    assert_eq!(report.faults, []);
    // the hour ends: nothing small is left on the agent's disk
    agent.merge(MORNING_MS + 25 * HOUR_MS).await;
    assert_eq!(files(&agent.dir), Vec::<PathBuf>::new());
    counted.reads();
    let (history, _) = vault.history().await.unwrap();
    assert_eq!(history.timelines[0].segments.len(), 24);
    assert_eq!(history.timelines[0].restorable[0].last_revision, last);
    let (manifests, _, _) = counted.reads();
    println!("at the end of the hour: {manifests} manifests read, 24 segments");
}

// The agent dies between the steps of merging: while it writes, before it is stored, before its parts are given up. What is in
// the vault can be restored each time, and the next agent goes on. What is merged twice is in the vault twice, no more.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_dies_while_it_merges() {
    let (keys, (dir, store)) = (Keys::new(), folder());
    let agent = Agent::new(&keys, &store, "cp-1").await;
    put_base(&keys, &agent.writer).await;
    agent.live_hours(0..1).await;
    let (vault, last, late_ms) = (keys.vault(&store), 12 + 59 * 2, MORNING_MS + 2 * HOUR_MS);
    let sound = async || {
        assert_eq!(keys.verify(&vault, true).await.faults, []);
        let (history, _) = vault.history().await.unwrap();
        assert_eq!(history.timelines.len(), 1);
        for revision in [FULL + 1, last] {
            restore(&keys, &vault, &history.timelines[0], revision).await;
        }
        history.timelines[0].segments.len()
    };
    let held = hold::held(&agent.held()).unwrap().remove(0);
    assert_eq!((held.len(), sound().await), (60 - 48 + 1, 13), "48 of the hour's 60 are merged already");
    let due = hold::due(&held, 64 << 20, late_ms).unwrap();
    std::fs::write(held[0].path.with_file_name("merging"), "cut off").unwrap();
    drop(hold::merge(&due, "dies").unwrap());
    assert_eq!(sound().await, 13);
    // stored, and the agent does not live to know it
    drop(agent.merge_one(late_ms).await.unwrap());
    assert_eq!(sound().await, 1);
    let (due, facts, put) = agent.merge_one(late_ms).await.unwrap();
    assert_eq!(sound().await, 2, "merged twice");
    // a minor one has taken its place, its parts are still there
    let unfinished = hold::Due { is_final: false, parts: Vec::new() };
    unfinished.stored(&facts, put.sequence).unwrap();
    assert_eq!(files(&agent.dir).len(), 14);
    let held = hold::held(&agent.held()).unwrap().remove(0);
    assert_eq!((held.len(), held[0].sequence), (1, put.sequence), "what is held twice goes");
    assert!(due.parts.iter().all(|part| !part.path.exists()));
    agent.live_hours(1..2).await;
    let (history, _) = vault.history().await.unwrap();
    assert_eq!(history.timelines[0].restorable[0].last_revision, last + 120);

    age_files(dir.path());
    let pruned = agent.writer.prune(&ONE, now_ms(), false).await.unwrap();
    assert_eq!(pruned.skipped, []);
    assert_eq!(
        pruned.removed.len(),
        60 + 1 + 1 + 48,
        "small ones, the first hour's minor and second, 48 of the next"
    );
    let (history, _) = vault.history().await.unwrap();
    restore(&keys, &vault, &history.timelines[0], last + 120).await;
    assert_eq!(keys.verify(&vault, true).await.faults, []);
}

// Two agents follow and merge the same at once: there is one history, and it takes no more than one of them to restore it.
#[tokio::test(flavor = "multi_thread")]
async fn two_agents_merge_the_same() {
    let (keys, (dir, store)) = (Keys::new(), folder());
    let one = Agent::new(&keys, &store, "cp-1").await;
    let other = Agent::new(&keys, &store, "cp-2").await;
    put_base(&keys, &one.writer).await;
    tokio::join!(one.live_hours(0..2), other.live_hours(0..2));
    tokio::join!(one.merge(MORNING_MS + 3 * HOUR_MS), other.merge(MORNING_MS + 3 * HOUR_MS));
    let vault = keys.vault(&store);
    let (history, _) = vault.history().await.unwrap();
    assert_eq!(history.timelines[0].segments.len(), 4, "an hour each of two hours");
    assert_eq!(restore(&keys, &vault, &history.timelines[0], 12 + 119 * 2).await, 3);
    assert_eq!(keys.verify(&vault, true).await.faults, []);
    age_files(dir.path());
    one.writer.prune(&ONE, now_ms(), false).await.unwrap();
    let report = keys.verify(&vault, true).await;
    assert_eq!((report.faults.clone(), report.parts), (vec![], 3), "{report:?}");
}

/// Not a test by itself: what `one_of_two_is_killed` starts and kills.
#[tokio::test(flavor = "multi_thread")]
async fn merger_to_be_killed() {
    let Ok(url) = std::env::var("VAULT_TO_MERGE") else { return };
    let text = |name: &str| std::env::var(name).unwrap();
    let key = SigningKey::read(text("VAULT_KEY").as_ref()).unwrap();
    let recipients = Recipients::new([text("VAULT_RECIPIENT").as_str()]).unwrap();
    let cluster = ClusterName::new("prod").unwrap();
    let vault = Vault::new(&Store::open(&url).unwrap(), cluster, &[key.signer()]).unwrap();
    let writer = vault.writer(WriterName::new("mortal").unwrap(), key, recipients).await.unwrap();
    Agent::of(writer, vault, text("AGENT_DIR").into()).merge(MORNING_MS + 2 * HOUR_MS).await;
}

/// How far a merge has come that is then killed.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// It writes the merged segment on its disk.
    Merging,
    /// The part is in the vault, its manifest perhaps not.
    Stored,
    /// What was merged is being given up.
    Clearing,
}

// Two agents merge the same hour at the same moment, and one of them is killed: while it writes, while it stores, while it
// clears up. The vault reads the same as before, at the hour's end and within it; so it does once the dead one is started
// again and has merged once more, and retention leaves one merged segment.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_is_killed() {
    let (keys, (template, store)) = (Keys::new(), folder());
    let (one, mortal) = (Agent::new(&keys, &store, "cp-1").await, Agent::new(&keys, &store, "mortal").await);
    put_base(&keys, &one.writer).await;
    for minute in 0..60 {
        let (first, at_ms) = (11 + minute * 2, MORNING_MS + minute * 60_000 + 1500);
        tokio::join!(one.ship(first, first + 1, at_ms), mortal.ship(first, first + 1, at_ms));
    }
    let (last, late_ms, mut killed) = (12 + 59 * 2, MORNING_MS + 2 * HOUR_MS, 0);
    for stage in
        [Stage::Merging, Stage::Stored, Stage::Clearing, Stage::Stored, Stage::Merging, Stage::Clearing]
    {
        let (dir, here, there) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (from, to) in [
            (template.path().join("prod"), &dir),
            (one.dir.join("held"), &here),
            (mortal.dir.join("held"), &there),
        ] {
            assert!(Command::new("cp").arg("-a").arg(from).arg(to.path()).status().unwrap().success());
        }
        let store = Store::open(dir.path().to_str().unwrap()).unwrap();
        let vault = keys.vault(&store);
        let survivor = Agent::of(keys.writer(&store, "cp-1").await, vault.clone(), here.path().to_owned());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "merger_to_be_killed"])
            .env("VAULT_TO_MERGE", dir.path())
            .env("VAULT_KEY", keys.dir.path().join("sign.key"))
            .env("VAULT_RECIPIENT", &keys.recipient)
            .env("AGENT_DIR", there.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (segments, held) = (dir.path().join("prod/segment"), there.path().join("held"));
        let is_there = || {
            let names: Vec<String> = files(&held)
                .iter()
                .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
                .collect();
            let ours = |path: &&PathBuf| path.to_string_lossy().ends_with("-mortal.seg.zst.age");
            match stage {
                Stage::Merging => names.iter().any(|name| !name.ends_with(".seg")),
                Stage::Stored => files(&segments).iter().filter(ours).count() > 60,
                Stage::Clearing => names.len() < 60,
            }
        };
        let kill = async {
            while !is_there() && child.try_wait().unwrap().is_none() {
                tokio::task::yield_now().await;
            }
            child.kill().unwrap();
            killed += usize::from(!child.wait().unwrap().success());
        };
        tokio::join!(survivor.merge(late_ms), kill);
        let reads_the_same = async || {
            assert_eq!(keys.verify(&vault, true).await.faults, [], "{stage:?}");
            let (history, _) = vault.history().await.unwrap();
            assert_eq!(history.timelines.len(), 1);
            let timeline = &history.timelines[0];
            assert_eq!(timeline.gaps, []);
            for revision in [FULL + 7, last] {
                assert_eq!(
                    restore(&keys, &vault, timeline, revision).await,
                    2,
                    "{stage:?}: the base and one more"
                );
            }
        };
        reads_the_same().await;
        let again = Agent::of(keys.writer(&store, "mortal").await, vault.clone(), there.path().to_owned());
        again.merge(late_ms).await;
        reads_the_same().await;
        age_files(dir.path());
        let pruned = again.writer.prune(&ONE, now_ms(), false).await.unwrap();
        assert_eq!(pruned.skipped, [], "{stage:?}");
        reads_the_same().await;
        assert_eq!(keys.verify(&vault, true).await.parts, 2, "{stage:?}");
    }
    assert!(killed > 0, "none of them was killed in the middle");
}

// A gap is never merged over, whatever the hour: what is behind it stays apart.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_stays_a_gap() {
    let (keys, (_dir, store)) = (Keys::new(), folder());
    let agent = Agent::new(&keys, &store, "cp-1").await;
    put_base(&keys, &agent.writer).await;
    for first in [11, 13, 17, 19] {
        agent.ship(first, first + 1, MORNING_MS + first).await;
    }
    assert_eq!(agent.merge(MORNING_MS + 2 * HOUR_MS).await, 2);
    let (history, _) = keys.vault(&store).history().await.unwrap();
    let spans = |s: &rekindle_vault::history::Item<rekindle_vault::manifest::Segment>| {
        (s.content.first_revision, s.content.last_revision)
    };
    assert_eq!(history.timelines[0].segments.iter().map(spans).collect::<Vec<_>>(), [(11, 14), (17, 20)]);
    assert_eq!(history.timelines[0].gaps.len(), 1);
}

// The merged part is damaged, or its manifest is gone: retention keeps the small ones, and they lead to every point.
#[tokio::test(flavor = "multi_thread")]
async fn the_small_ones_stay_until_the_merged_one_is_good() {
    let (keys, (dir, store)) = (Keys::new(), folder());
    let agent = Agent::new(&keys, &store, "cp-1").await;
    put_base(&keys, &agent.writer).await;
    agent.live_hours(0..1).await;
    agent.merge(MORNING_MS + 2 * HOUR_MS).await;
    let vault = keys.vault(&store);
    let (history, _) = vault.history().await.unwrap();
    let merged = history.timelines[0].segments[0].clone();
    let path = dir.path().join("prod").join(&merged.content.part.name);
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bad).unwrap();
    age_files(dir.path());
    let pruned = agent.writer.prune(&ONE, now_ms(), false).await.unwrap();
    assert_eq!((pruned.removed.len(), pruned.skipped.len()), (48, 1), "the minor one is good: {pruned:?}");
    let id = &history.timelines[0].timeline.id;
    let of = vault.merged_of(id, &merged.content.replaces).await.unwrap();
    assert_eq!(of.len(), 1 + 12, "the minor one, and the hour's last small ones");
    // the manifest itself is gone
    let manifest = dir.path().join(format!("prod/manifest/{:012}.json", merged.sequence));
    let bytes = std::fs::read(&manifest).unwrap();
    std::fs::remove_file(&manifest).unwrap();
    let (without, _) = vault.history().await.unwrap();
    assert_eq!(without.timelines[0].segments.len(), 13);
    restore(&keys, &vault, &without.timelines[0], 12 + 59 * 2).await;
    // all is well again: now they go
    std::fs::write(&manifest, bytes).unwrap();
    std::fs::write(&path, good).unwrap();
    age_files(dir.path());
    let pruned = agent.writer.prune(&ONE, now_ms(), false).await.unwrap();
    assert_eq!((pruned.removed.len(), pruned.skipped), (13 + 1, vec![]));
    let report = keys.verify(&vault, true).await;
    assert_eq!((report.faults.clone(), report.parts), (vec![], 2), "{report:?}");
}

// A merged segment that says it replaces what it does not hold would hide that from readers: verification names it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_held_is_named() {
    let (keys, (_dir, store)) = (Keys::new(), folder());
    let agent = Agent::new(&keys, &store, "cp-1").await;
    put_base(&keys, &agent.writer).await;
    agent.ship(11, 20, MORNING_MS).await;
    let facts = etcd_disk::segment::survey(&segment(&agent.dir, 11, 15, MORNING_MS)).unwrap();
    agent.put(&facts, BTreeSet::from([2])).await;
    let report = keys.verify(&keys.vault(&store), true).await;
    assert_eq!(report.faults.len(), 1, "{report:?}");
    assert!(report.faults[0].error[0].contains("number 2"), "{report:?}");
}

// A year of merged hours: without an index each manifest is a read, with one hardly any. The index is believed in nothing: a
// damaged one costs time, a false one can't bring back what is gone, and a stranger's manifests in it do not count.
#[tokio::test(flavor = "multi_thread")]
async fn a_year_is_found_in_few_reads() {
    const HOURS: i64 = 9000;
    let (keys, counted) = (Keys::new(), Counted::default());
    let store = counted.store();
    let writer = keys.writer(&store, "cp-1").await;
    put_base(&keys, &writer).await;
    for hour in 0..HOURS {
        let meta = SegmentMeta {
            identity: ClusterIdentity::default(),
            timeline: timeline(),
            first_revision: FULL + 1 + hour,
            last_revision: FULL + 1 + hour,
            first_ms: MORNING_MS + hour * HOUR_MS,
            last_ms: MORNING_MS + hour * HOUR_MS,
            etcd_version: None,
            member: None,
            samples: Vec::new(),
            replaces: BTreeSet::new(),
        };
        writer.put_segment(PartSource::Bytes("an hour".into()), meta).await.unwrap();
    }
    let vault = keys.vault(&store);
    counted.reads();
    let before = vault.history().await.unwrap();
    let (without, _, _) = counted.reads();
    assert_eq!(before.0.timelines[0].segments.len(), 9000);
    assert!(writer.index().await.unwrap());
    assert!(!writer.index().await.unwrap(), "all are in it");
    put_base(&keys, &writer).await;
    counted.reads();
    let after = vault.history().await.unwrap();
    let (manifests, indexes, _) = counted.reads();
    println!("a year: {without} manifests read; with an index {manifests} and {indexes} index");
    assert_eq!((manifests, indexes), (1, 1));
    assert_eq!(after.0.timelines[0].segments, before.0.timelines[0].segments);
    assert_eq!(after.1, []);

    // what is gone is gone, though the index still has it
    counted.remove("manifest/000000000007.json").await;
    let (history, _) = vault.history().await.unwrap();
    assert_eq!(history.timelines[0].segments.len(), 8999);
    assert_eq!(history.timelines[0].gaps.len(), 1);
    // a reader that trusts nobody of those who wrote it finds nothing
    let stranger = Keys::new();
    let (history, faults) = stranger.vault(&store).history().await.unwrap();
    assert_eq!((history.timelines.len(), faults.len()), (0, 9001));
}
