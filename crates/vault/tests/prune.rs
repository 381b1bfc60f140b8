//! The story: retention runs while others write, and is killed in the middle. Whatever the moment, the chain holds, every
//! manifest has its part, what is kept can be restored, and the next run finishes what was begun.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::*;
use rekindle_vault::{ClusterName, ResourcesMeta, SigningKey, Store, Vault, WriterName};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Ten fulls with segments and bundles between, two days old.
async fn filled(keys: &Keys, dir: &Path, store: &Store) {
    let writer = keys.writer(store, "cp-1").await;
    for i in 1..=10i64 {
        put_full(&writer, keys.dir.path(), i * 100, i * 1000).await;
        for j in 0..4 {
            put_segment(&writer, i * 100 + 1 + j * 25, i * 100 + 25 + j * 25, i * 1000 + j).await;
        }
        put_bundle(&writer, keys.dir.path(), "cp-1", i * 1000).await;
    }
    age_files(dir);
}

// Two hosts go on writing while a third prunes and a fourth verifies: nobody's backup is lost, there is one chain, and
// nothing that goes meanwhile is taken for damage.
#[tokio::test(flavor = "multi_thread")]
async fn others_write_meanwhile() {
    let (keys, (dir, store)) = (Keys::new(), folder());
    filled(&keys, dir.path(), &store).await;
    let mut tasks = Vec::new();
    for host in 0..2i64 {
        let writer = keys.writer(&store, &format!("cp-{host}")).await;
        tasks.push(tokio::spawn(async move {
            for i in 0..30 {
                let first = 2001 + host * 1000 + i * 10;
                put_segment(&writer, first, first + 9, 20_000 + i).await;
            }
        }));
    }
    let pruner = keys.writer(&store, "pruner").await;
    let pruning = tokio::spawn(async move {
        let mut removed = 0;
        for _ in 0..5 {
            removed += pruner.prune(&ONE, now_ms(), false).await.unwrap().removed.len();
        }
        removed
    });
    while !pruning.is_finished() {
        let report = keys.verify(&keys.vault(&store), false).await;
        assert_eq!(report.faults, [], "what is pruned meanwhile is no fault");
    }
    let removed = pruning.await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    // of the ten fulls one stays with its four segments and its bundle, of the others nothing
    assert_eq!(removed, 54);
    let report = keys.verify(&keys.vault(&store), true).await;
    assert_eq!((report.faults.clone(), report.parts), (vec![], 6 + 60), "{report:?}");
}

// A vault of a managed cluster holds objects and no full. The rules count for them, each series for itself; the newest
// one is damaged, so the one before it stays.
#[tokio::test(flavor = "multi_thread")]
async fn objects_without_fulls() {
    let (keys, (dir, store)) = (Keys::new(), folder());
    let writer = keys.writer(&store, "laptop").await;
    for day in 1..=4 {
        put_resources(&writer, keys.dir.path(), "", day * 1000).await;
        put_resources(&writer, keys.dir.path(), "namespaces shop", day * 1000).await;
    }
    let newest = writer_part(&keys, &store, 8).await;
    let damaged = dir.path().join("prod").join(newest);
    std::fs::write(&damaged, b"damaged").unwrap();
    age_files(dir.path());
    let report = writer.prune(&ONE, now_ms(), false).await.unwrap();
    assert_eq!(report.kept.iter().map(|kept| kept.sequence).collect::<Vec<_>>(), [6, 7, 8], "{report:?}");
    assert_eq!(report.skipped.len(), 1, "{:?}", report.skipped);
    let (history, _) = keys.vault(&store).history().await.unwrap();
    assert_eq!(history.resources.len(), 3);
    std::fs::remove_file(damaged).unwrap();
    let report = keys.verify(&keys.vault(&store), true).await;
    assert_eq!((report.faults.len(), report.parts), (1, 2), "{report:?}");
}

// A webhook was dead when the newest backups of objects were taken: they are partial. The last whole one holds what they lack, so
// it stays beside the newest of them, though no rule keeps it.
#[tokio::test(flavor = "multi_thread")]
async fn a_partial_backup_does_not_take_the_place_of_a_whole_one() {
    let (keys, (dir, store)) = (Keys::new(), folder());
    let writer = keys.writer(&store, "laptop").await;
    for (day, problems) in [(1, 0), (2, 0), (3, 2), (4, 1)] {
        let path = keys.dir.path().join("resources.tar");
        std::fs::write(&path, noise(11, 2100)).unwrap();
        let meta = ResourcesMeta { problems, ..resources_meta("", day * 1000) };
        writer.put_resources(path, meta).await.unwrap();
    }
    age_files(dir.path());
    let report = writer.prune(&ONE, now_ms(), false).await.unwrap();
    assert_eq!(report.kept.iter().map(|kept| kept.sequence).collect::<Vec<_>>(), [2, 4], "{report:?}");
}

async fn writer_part(keys: &Keys, store: &Store, number: u64) -> String {
    part(&keys.vault(store).manifest(number).await.unwrap()).name.clone()
}

/// Not a test by itself: what `killed_in_the_middle` starts and kills.
#[tokio::test(flavor = "multi_thread")]
async fn pruner_to_be_killed() {
    let Ok(url) = std::env::var("VAULT_TO_PRUNE") else { return };
    let key = SigningKey::read(std::env::var("VAULT_KEY").unwrap().as_ref()).unwrap();
    let store = Store::open(&url).unwrap();
    let vault = Vault::new(&store, ClusterName::new("prod").unwrap(), &[key.signer()]).unwrap();
    println!("begins");
    vault.prune(WriterName::new("mortal").unwrap(), key, &ONE, now_ms(), false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle() {
    let (keys, (template, store)) = (Keys::new(), folder());
    filled(&keys, template.path(), &store).await;
    let manifests = |dir: &Path| files(&dir.join("prod/manifest")).len();
    let mut cut = 0;
    for round in 0..25u64 {
        let dir = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-a").arg(template.path().join("prod")).arg(dir.path()).status();
        assert!(copied.unwrap().success());
        let store = Store::open(dir.path().to_str().unwrap()).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "pruner_to_be_killed", "--nocapture"])
            .env("VAULT_TO_PRUNE", dir.path())
            .env("VAULT_KEY", keys.dir.path().join("sign.key"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // the record makes one file more; then files go one by one
        while manifests(dir.path()) == 60 && child.try_wait().unwrap().is_none() {}
        tokio::time::sleep(Duration::from_micros(round * 150)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let left = manifests(dir.path());
        cut += usize::from(left > 7 && left < 61);
        let vault = keys.vault(&store);
        let report = keys.verify(&vault, false).await;
        assert_eq!(report.faults, [], "round {round}");
        assert_eq!(report.good_fulls.last(), Some(&55), "round {round}");
        let (history, _) = vault.history().await.unwrap();
        assert_eq!(history.timelines[0].restorable.last().unwrap().last_revision, 1100, "round {round}");

        let writer = keys.writer(&store, "cp-1").await;
        age_files(dir.path());
        writer.prune(&ONE, now_ms(), false).await.unwrap();
        let report = keys.verify(&vault, true).await;
        assert_eq!((report.faults.clone(), report.parts), (vec![], 6), "round {round}: {report:?}");
        assert_eq!(
            files(dir.path()).len(),
            6 + 7,
            "round {round}: six parts, their manifests and one record"
        );
    }
    assert!(cut > 3, "{cut} of 25 were killed in the middle");
}
