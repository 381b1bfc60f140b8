//! The story: backups are put into a folder, by one writer and by several, by writers that die, under the eyes of
//! somebody who changes what is there. What is listed can be restored; what is not whole is not listed; what was
//! changed is named.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::*;
use rekindle_model::MemberId;
use rekindle_vault::manifest::{ClusterIdentity, Content};
use rekindle_vault::{
    BundleMeta, Error, FullMeta, Recipients, Retention, SigningKey, Store, Vault, WriterName,
};
use std::process::{Command, Stdio};
use std::time::Duration;

const HOUR_MS: i64 = 3_600_000;

// A full, segments and a bundle go in; the timeline shows them and the gap; the full comes back byte for byte; both
// ways of verifying find all of it good.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_is_listed_fetched_and_verified() {
    let (keys, (dir, store)) = (Keys::new(), folder());
    let writer = keys.writer(&store, "cp-1").await;
    let (path, verified) = snapshot(keys.dir.path(), 100, 100);
    let put = writer.put_full(&path, full_meta(verified.clone(), 1000)).await.unwrap();
    put_segment(&writer, 101, 150, 2000).await;
    put_segment(&writer, 151, 160, 3000).await;
    put_segment(&writer, 170, 180, 4000).await;
    put_full(&writer, keys.dir.path(), 200, 5000).await;
    put_bundle(&writer, keys.dir.path(), "cp-1", 1500).await;
    assert!(
        files(dir.path()).iter().all(|file| !file.to_string_lossy().contains("probe")),
        "no probe is left"
    );

    let vault = keys.vault(&store);
    assert_eq!(Vault::clusters(&store).await.unwrap(), [vault.cluster().clone()]);
    let (history, faults) = vault.history().await.unwrap();
    assert_eq!(faults, []);
    let timeline = &history.timelines[0];
    assert_eq!((timeline.fulls.len(), timeline.segments.len(), history.bundles.len()), (2, 3, 1));
    let spans: Vec<_> = timeline.restorable.iter().map(|s| (s.first_revision, s.last_revision)).collect();
    assert_eq!(spans, [(100, 160), (200, 200)]);
    let gaps: Vec<_> = timeline.gaps.iter().map(|g| (g.first_revision, g.last_revision)).collect();
    assert_eq!(gaps, [(161, 199)]);

    let to = keys.dir.path().join("fetched.db");
    vault.fetch(part(&put), &keys.identities, &to).await.unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), std::fs::read(&path).unwrap());
    let again = vault.fetch(part(&put), &keys.identities, &to).await;
    assert!(matches!(again, Err(Error::Local { .. })), "a file that is there is not replaced: {again:?}");
    for content in [false, true] {
        let report = keys.verify(&vault, content).await;
        assert_eq!((report.manifests, report.parts, &*report.faults), (6, 6, &[][..]), "{report:?}");
        assert_eq!(report.good_fulls, [1, 5]);
    }
    // nothing is readable without the identity
    let secret = b"/registry/k/";
    for file in files(dir.path()) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{}", file.display());
    }
}

// A part larger than a piece of a multipart upload, and one that fails on the way: nothing is left of the second.
#[tokio::test(flavor = "multi_thread")]
async fn large_parts_and_those_that_fail() {
    let (keys, (dir, store)) = (Keys::new(), folder());
    let writer = keys.writer(&store, "cp-1").await;
    let (path, verified) = snapshot(keys.dir.path(), 30, 1 << 20);
    let put = writer.put_full(&path, full_meta(verified.clone(), 1000)).await.unwrap();
    assert!(part(&put).size_bytes > 25 << 20, "noise does not compress");
    let to = keys.dir.path().join("fetched.db");
    keys.vault(&store).fetch(part(&put), &keys.identities, &to).await.unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), std::fs::read(&path).unwrap());

    let before = files(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[12_345_678] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let changed = writer.put_full(&path, full_meta(verified.clone(), 1000)).await;
    assert!(matches!(changed, Err(Error::Changed { .. })), "{changed:?}");
    let missing = writer.put_full(&keys.dir.path().join("none"), full_meta(verified, 1000)).await;
    assert!(matches!(missing, Err(Error::Local { .. })), "{missing:?}");
    assert_eq!(files(dir.path()), before);
}

// Each byte of a stored object matters: one flipped in each part, and each manifest changed, removed or moved, is found
// without an identity, and names the object. What is damaged can't be fetched and leaves no file.
#[tokio::test(flavor = "multi_thread")]
async fn every_change_in_the_store_is_found() {
    let (keys, (dir, store)) = (Keys::new(), folder());
    let writer = keys.writer(&store, "cp-1").await;
    let full = put_full(&writer, keys.dir.path(), 50, 1000).await;
    put_segment(&writer, 51, 60, 2000).await;
    put_bundle(&writer, keys.dir.path(), "cp-1", 1500).await;
    put_segment(&writer, 61, 70, 3000).await;
    let vault = keys.vault(&store);
    for file in files(dir.path()) {
        let good = std::fs::read(&file).unwrap();
        let place = good.len() / 2;
        let mut bad = good.clone();
        bad[place] ^= 1;
        std::fs::write(&file, &bad).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        for content in [false, true] {
            let report = keys.verify(&vault, content).await;
            assert!(report.faults.iter().any(|fault| fault.object.ends_with(name)), "{name}: {report:?}");
        }
        if part(&full).name.ends_with(name) {
            let to = keys.dir.path().join("fetched.db");
            let refused = vault.fetch(part(&full), &keys.identities, &to).await;
            assert!(matches!(refused, Err(Error::Digest { .. })), "{refused:?}");
            assert!(files(keys.dir.path()).iter().all(|f| !f.to_string_lossy().contains("fetched")));
        }
        std::fs::remove_file(&file).unwrap();
        let report = keys.verify(&vault, false).await;
        // the end of a chain is the one thing a chain can't show
        let last = name.starts_with("000000000004");
        assert_eq!(report.faults.is_empty(), last, "{name} removed: {report:?}");
        std::fs::write(&file, &good).unwrap();
    }
    // a good manifest copied to another place is no backup there
    let manifests = dir.path().join("prod/manifest");
    std::fs::copy(manifests.join("000000000002.json"), manifests.join("000000000005.json")).unwrap();
    let (history, faults) = vault.history().await.unwrap();
    assert_eq!(history.timelines[0].segments.len(), 2);
    assert!(faults[0].error[0].contains("moved or copied"), "{faults:?}");
}

// Whoever can write the store can encrypt to our recipients and write a manifest. It is refused: by readers with the
// signer's name, and a writer with a key that the vault does not trust does not even begin.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_backup_is_refused() {
    let (keys, (_dir, store)) = (Keys::new(), folder());
    let stranger = SigningKey::create(&keys.dir.path().join("stranger.key")).unwrap();
    let writer = keys.writer(&store, "cp-1").await;
    put_full(&writer, keys.dir.path(), 10, 1000).await;
    let recipients = || Recipients::new([keys.recipient.as_str()]).unwrap();
    let name = || WriterName::new("mallory").unwrap();
    let refused = keys.vault(&store).writer(name(), stranger.clone(), recipients()).await;
    assert!(matches!(refused, Err(Error::UnknownSigner { .. })));
    let theirs = Vault::new(&store, keys.vault(&store).cluster().clone(), &[stranger.signer()]).unwrap();
    let forger = theirs.writer(name(), stranger.clone(), recipients()).await.unwrap();
    put_full(&forger, keys.dir.path(), 99, 9000).await;

    let (history, faults) = keys.vault(&store).history().await.unwrap();
    assert_eq!(history.newest_full().unwrap().content.revision, 10, "the forged one is not taken");
    assert_eq!(faults.len(), 1);
    assert!(faults[0].error[0].contains(&stranger.signer().to_string()), "{faults:?}");
    // the next honest backup goes on behind it, and the chain holds
    put_segment(&writer, 11, 20, 2000).await;
    let report = keys.verify(&keys.vault(&store), true).await;
    assert_eq!((report.manifests, report.faults.len()), (2, 1), "{report:?}");
}

// An archive that holds fewer objects than were said to be in it is told by whoever reads it, though each byte is as it was put.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_with_too_few_objects_is_told() {
    let (keys, (_dir, store)) = (Keys::new(), folder());
    let writer = keys.writer(&store, "laptop").await;
    let path = keys.dir.path().join("few.tar");
    std::fs::write(&path, noise(12, 1500)).unwrap();
    writer.put_resources(path, resources_meta("", 1000)).await.unwrap();
    let vault = keys.vault(&store);
    assert_eq!(keys.verify(&vault, false).await.faults, []);
    let faults = keys.verify(&vault, true).await.faults;
    assert!(faults.len() == 1 && faults[0].error[0].contains("objects"), "{faults:?}");
}

// Two hosts write at once, each with its own handle: every backup is there, at places without a hole, in one chain.
#[tokio::test(flavor = "multi_thread")]
async fn two_writers_at_once() {
    let (keys, (_dir, store)) = (Keys::new(), folder());
    let mut tasks = Vec::new();
    for host in 0..2i64 {
        let writer = keys.writer(&store, &format!("cp-{host}")).await;
        tasks.push(tokio::spawn(async move {
            for i in 0..25 {
                let first = 1 + host * 1000 + i * 10;
                put_segment(&writer, first, first + 9, 1000 + i).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let report = keys.verify(&keys.vault(&store), true).await;
    assert_eq!((report.manifests, report.parts, report.faults.len()), (50, 50, 0), "{report:?}");
    let (history, _) = keys.vault(&store).history().await.unwrap();
    let segments = &history.timelines[0].segments;
    let mut numbers: Vec<u64> = segments.iter().map(|segment| segment.sequence).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=50).collect::<Vec<_>>());
}

/// Not a test by itself: the writer that `a_killed_writer_leaves_no_half_backup` starts and kills.
#[tokio::test(flavor = "multi_thread")]
async fn writer_to_be_killed() {
    let Ok(url) = std::env::var("VAULT_TO_WRITE") else { return };
    let key = SigningKey::read(std::env::var("VAULT_KEY").unwrap().as_ref()).unwrap();
    let recipients = Recipients::new([std::env::var("VAULT_RECIPIENT").unwrap().as_str()]).unwrap();
    let store = Store::open(&url).unwrap();
    let vault =
        Vault::new(&store, rekindle_vault::ClusterName::new("prod").unwrap(), &[key.signer()]).unwrap();
    let writer = vault.writer(WriterName::new("mortal").unwrap(), key, recipients).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (path, verified) = snapshot(dir.path(), 20, 1 << 20);
    for i in 1.. {
        writer.put_full(&path, full_meta(verified.clone(), i)).await.unwrap();
        put_segment(&writer, i * 10, i * 10 + 9, i).await;
    }
}

// A writer is killed (SIGKILL) again and again, wherever it happens to be: between parts and manifest, within a part,
// within a manifest. Whatever is listed afterwards is whole; what it left behind goes once it is a day old.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_writer_leaves_no_half_backup() {
    let (keys, (dir, store)) = (Keys::new(), folder());
    let vault = keys.vault(&store);
    let mut listed = 0;
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer_to_be_killed", "--nocapture"])
            .env("VAULT_TO_WRITE", dir.path())
            .env("VAULT_KEY", keys.dir.path().join("sign.key"))
            .env("VAULT_RECIPIENT", &keys.recipient)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let before = files(dir.path()).len();
        while files(dir.path()).len() < before + 2 {
            assert!(child.try_wait().unwrap().is_none(), "the writer ended by itself");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(round * 37)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let report = keys.verify(&vault, false).await;
        assert_eq!(report.faults, [], "round {round}");
        assert!(report.manifests >= listed, "nothing that was there went away");
        listed = report.manifests;
    }
    assert!(listed > 0, "some were finished");
    let report = keys.verify(&vault, true).await;
    assert_eq!(report.faults, []);
    let writer = keys.writer(&store, "cp-1").await;
    let all = Retention { last: u32::MAX, ..Retention::default() };
    let left = files(dir.path()).len() as u64 - report.manifests - report.parts;
    let now_ms = now_ms();
    assert!(left > 0, "some were cut off");
    assert!(writer.prune(&all, now_ms, false).await.unwrap().left_behind.is_empty(), "too young to be sure");
    let pruned = writer.prune(&all, now_ms + 25 * HOUR_MS, false).await.unwrap();
    assert_eq!(pruned.left_behind.len() as u64, left, "{pruned:?}");
    let report = keys.verify(&vault, true).await;
    assert_eq!(report.faults, []);
    assert_eq!(files(dir.path()).len() as u64, report.manifests + report.parts, "nothing is left behind");
}

// Retention in a real folder: a dry run changes nothing; a real one frees what it said, the chain holds without what
// was removed, its record stays one, and what was kept can still be restored. A second run finds nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn prune_removes_and_the_chain_holds() {
    let (keys, (dir, store)) = (Keys::new(), folder());
    let writer = keys.writer(&store, "cp-1").await;
    for i in 0..6i64 {
        put_full(&writer, keys.dir.path(), 100 + i * 100, i * HOUR_MS).await;
        for j in 0..3 {
            let first = 101 + i * 100 + j * 33;
            put_segment(&writer, first, if j == 2 { 200 + i * 100 } else { first + 32 }, i * HOUR_MS + j)
                .await;
        }
        put_bundle(&writer, keys.dir.path(), "cp-1", i * HOUR_MS).await;
    }
    let vault = keys.vault(&store);
    let two = Retention { last: 2, hourly: 0, daily: 0, weekly: 0, monthly: 0, ..Retention::default() };
    let young = writer.prune(&two, now_ms(), false).await.unwrap();
    assert_eq!(young.removed, [], "another writer may be about to take the next number");
    age_files(dir.path());
    let before = files(dir.path());
    let told = writer.prune(&two, now_ms(), true).await.unwrap();
    assert_eq!(files(dir.path()), before, "a dry run changes nothing");
    let done = writer.prune(&two, now_ms(), false).await.unwrap();
    assert_eq!((done.removed.clone(), done.freed_bytes), (told.removed, told.freed_bytes));
    assert_eq!(done.skipped, []);
    let (history, _) = vault.history().await.unwrap();
    let timeline = &history.timelines[0];
    assert_eq!(timeline.fulls.iter().map(|f| f.content.revision).collect::<Vec<_>>(), [500, 600]);
    assert_eq!((timeline.restorable[0].first_revision, timeline.restorable[0].last_revision), (500, 700));
    assert_eq!(history.bundles.len(), 2);
    let report = keys.verify(&vault, true).await;
    assert_eq!((report.faults.clone(), report.parts), (vec![], 10), "{report:?}");
    let again = writer.prune(&two, now_ms(), false).await.unwrap();
    assert_eq!((again.removed.len(), again.freed_bytes), (0, 0));

    let one = Retention { last: 1, ..two };
    age_files(dir.path());
    writer.prune(&one, now_ms(), false).await.unwrap();
    let manifests = files(&dir.path().join("prod/manifest"));
    let report = keys.verify(&vault, true).await;
    assert_eq!((report.faults.clone(), report.parts), (vec![], 5), "{report:?}");
    assert_eq!(manifests.len(), 6, "five backups and one record");
    // what nobody removed by retention is still missed
    std::fs::remove_file(&manifests[1]).unwrap();
    assert_eq!(keys.verify(&vault, false).await.faults.len(), 1);
}

// The newest full is damaged: the newest good one stays whatever the rules say; and when none is good, nothing goes.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_full_stays() {
    let (keys, (dir, store)) = (Keys::new(), folder());
    let writer = keys.writer(&store, "cp-1").await;
    let mut puts = Vec::new();
    for i in 1..=4i64 {
        puts.push(put_full(&writer, keys.dir.path(), i * 10, i * HOUR_MS).await);
    }
    let damage = |i: usize| {
        let path = dir.path().join("prod").join(&part(&puts[i]).name);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    damage(3);
    damage(2);
    age_files(dir.path());
    let one = Retention { last: 1, hourly: 0, daily: 0, weekly: 0, monthly: 0, ..Retention::default() };
    let report = writer.prune(&one, now_ms(), false).await.unwrap();
    assert_eq!(report.kept.iter().map(|k| k.sequence).collect::<Vec<_>>(), [2, 4], "{report:?}");
    assert_eq!(report.skipped.len(), 2, "both damaged ones are named");
    damage(1);
    let before = files(dir.path());
    let refused = writer.prune(&one, now_ms(), false).await;
    assert!(matches!(refused, Err(Error::NoGoodFull { .. })), "{refused:?}");
    assert_eq!(files(dir.path()), before);
}

// A vault is named by what it can't do: no folder, no address, no trusted signer.
#[tokio::test]
async fn what_is_no_vault_is_refused() {
    for url in ["az://no-account/x", "/no/such/folder", "ftp://host/x", "s3://", "file://host/x"] {
        let error = Store::open(url).map(|store| store.url().to_owned());
        assert!(matches!(error, Err(Error::Url { .. })), "{url}: {error:?}");
    }
    let cluster = rekindle_vault::ClusterName::new("prod").unwrap();
    assert!(matches!(Vault::new(&Store::memory(), cluster, &[]), Err(Error::NoSigners)));
}

// A history whose manifests are of other kinds than parts only: a record of retention is not a backup.
#[tokio::test(flavor = "multi_thread")]
async fn one_manifest_is_read_by_number() {
    let (keys, (_dir, store)) = (Keys::new(), folder());
    let writer = keys.writer(&store, "cp-1").await;
    let put = put_segment(&writer, 5, 9, 1000).await;
    let vault = keys.vault(&store);
    assert_eq!(vault.manifest(1).await.unwrap(), put);
    assert!(matches!(put.content, Content::Segment(_)));
    assert!(matches!(vault.manifest(2).await, Err(Error::NoManifest { .. })));
}

// A host of another cluster put its bundle here: its PKI would not fit what the fulls hold, and verification says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_of_another_cluster_is_named() {
    let (keys, (_dir, store)) = (Keys::new(), folder());
    let writer = keys.writer(&store, "cp-1").await;
    let of = |id: u64| ClusterIdentity { etcd_cluster_id: Some(MemberId(id)), ..ClusterIdentity::default() };
    let (path, verified) = snapshot(keys.dir.path(), 10, 100);
    writer.put_full(&path, FullMeta { identity: of(7), ..full_meta(verified, 1000) }).await.unwrap();
    for id in [7, 8] {
        let archive = keys.dir.path().join("bundle.tar");
        std::fs::write(&archive, "some").unwrap();
        let meta = BundleMeta { identity: of(id), host: "cp-1".into(), taken_ms: 1000 };
        writer.put_bundle(archive, meta).await.unwrap();
    }
    let report = keys.verify(&keys.vault(&store), false).await;
    assert_eq!((report.parts, report.faults.len()), (3, 1), "{report:?}");
    assert!(report.faults[0].error[0].contains("etcd cluster 8"), "{report:?}");
}
