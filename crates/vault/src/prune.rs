//! Removing what retention does not keep: its record first, then manifests, then their parts.
//!
//! In that order a crash leaves no manifest without its part, and no hole in the chain that its record does not
//! excuse. Within a run of neighbours the last goes first: what remains is always excused by the run's end.

use crate::chain::{joined, removed};
use crate::error::{Error, Result};
use crate::history::{History, Timeline};
use crate::index::INDEX;
use crate::keys::SigningKey;
use crate::manifest::{Content, Link, Manifest, Part, Prune};
use crate::names::{self, PartKind, WriterName};
use crate::publish::Publisher;
use crate::quiet::QUIET;
use crate::retention::{Kept, Proved, Retention, covers, series};
use crate::staged;
use crate::store::{Listed, PROBE};
use crate::vault::{Loaded, Vault};
use crate::verify::Fault;
use crate::writer::Writer;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeSet;

/// A part without a manifest may still get one from the writer that uploads it; after this long it will not.
const LEFT_BEHIND_MS: i64 = 24 * 3_600_000;
/// A writer that found number n the newest may still be trying to take n + 1 (each request is retried for 4 minutes). A
/// number that another writer took meanwhile must not become free again under its hands.
const YOUNG_MS: i64 = 30 * 60_000;

/// What was removed, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PruneReport {
    /// The cluster.
    pub cluster: crate::ClusterName,
    /// Nothing was changed.
    pub dry_run: bool,
    /// What stays, and why.
    pub kept: Vec<KeptBackup>,
    /// What went.
    pub removed: Vec<Removed>,
    /// Parts that a crash left without a manifest or unfinished, a day ago or earlier; they went too.
    pub left_behind: Vec<String>,
    /// What could not be removed (an object lock, missing rights) or was left alone, and why.
    pub skipped: Vec<Fault>,
    /// Bytes freed.
    pub freed_bytes: u64,
}

impl PruneReport {
    /// Something left behind that was removed, or not.
    fn left(&mut self, name: String, size_bytes: u64, removed: Result<()>, vault: &Vault) {
        match removed {
            Ok(()) => {
                self.freed_bytes = self.freed_bytes.saturating_add(size_bytes);
                self.left_behind.push(name);
            }
            Err(error) => self.skipped.push(Fault::of(vault.object(&name), &error)),
        }
    }
}

/// A backup that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeptBackup {
    /// Sequence number of its manifest.
    pub sequence: u64,
    /// Why.
    pub reasons: Vec<String>,
}

/// A backup that goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Removed {
    /// Sequence number of its manifest.
    pub sequence: u64,
    /// Its part; none for an earlier record of retention.
    pub part: Option<String>,
    /// Size of the part.
    pub size_bytes: u64,
}

impl Vault {
    /// Removes what `retention` does not keep at `now_ms`. Reads the newest full first, and older ones until one is
    /// good: that one stays whatever the rules say.
    ///
    /// # Errors
    /// [`Error::NoGoodFull`] when there are fulls and none is good; [`Error::NoConditionalPut`], [`Error::UnknownSigner`] as
    /// [`Vault::writer`]; [`Error::Store`] when the store can't be read or the record not be written. What could not be
    /// removed is told in the report.
    pub async fn prune(
        &self,
        name: WriterName,
        key: SigningKey,
        retention: &Retention,
        now_ms: i64,
        dry_run: bool,
    ) -> Result<PruneReport> {
        let publisher = Publisher::new(self, name, key)?;
        if !dry_run {
            self.store.probe().await?;
        }
        publisher.prune(retention, now_ms, dry_run).await
    }
}

impl Writer {
    /// As [`Vault::prune`].
    ///
    /// # Errors
    /// As [`Vault::prune`].
    pub async fn prune(&self, retention: &Retention, now_ms: i64, dry_run: bool) -> Result<PruneReport> {
        self.publisher.prune(retention, now_ms, dry_run).await
    }
}

impl Publisher {
    async fn prune(&self, retention: &Retention, now_ms: i64, dry_run: bool) -> Result<PruneReport> {
        let vault = &self.vault;
        let loaded = vault.load().await?;
        let history = History::new(&vault.cluster, &loaded.manifests);
        let mut report = PruneReport {
            cluster: vault.cluster.clone(),
            dry_run,
            kept: Vec::new(),
            removed: Vec::new(),
            left_behind: Vec::new(),
            skipped: loaded.faults.clone(),
            freed_bytes: 0,
        };
        let mut kept = self.kept(retention, &history, now_ms, &mut report).await?;
        let young = |m: &&Manifest| {
            loaded
                .written_ms
                .get(&m.sequence)
                .is_none_or(|written| *written > now_ms.saturating_sub(YOUNG_MS))
        };
        let unkept = |m: &&Manifest| m.content.part().is_some() && !kept.contains_key(&m.sequence);
        let (young_ones, mut going): (Vec<&Manifest>, Vec<_>) =
            loaded.manifests.iter().filter(unkept).partition(young);
        for manifest in young_ones {
            kept.insert(manifest.sequence, vec!["too young to go".to_owned()]);
        }
        if !going.is_empty() {
            // one record tells all that earlier ones told
            let records = loaded.manifests.iter().filter(|m| matches!(m.content, Content::Prune(_)));
            going.extend(records.filter(|record| !young(record)));
            going.sort_by_key(|manifest| manifest.sequence);
            self.remove(&going, &loaded, dry_run, &mut report).await?;
        }
        report.kept = kept.into_iter().map(|(sequence, reasons)| KeptBackup { sequence, reasons }).collect();
        self.clear_left_behind(&loaded, now_ms, dry_run, &mut report).await?;
        Ok(report)
    }

    async fn kept(
        &self,
        retention: &Retention,
        history: &History,
        now_ms: i64,
        report: &mut PruneReport,
    ) -> Result<Kept> {
        let vault = &self.vault;
        let mut fulls: Vec<_> = history.timelines.iter().flat_map(|timeline| &timeline.fulls).collect();
        fulls.sort_by_key(|full| std::cmp::Reverse((full.content.taken_ms, full.sequence)));
        let full =
            self.newest_good(fulls.iter().map(|full| (full.sequence, &full.content.part)), report).await;
        if full.is_none() && !fulls.is_empty() {
            return Err(Error::NoGoodFull { cluster: vault.cluster.to_string() });
        }
        let mut resources = BTreeSet::new();
        for series in series(history).into_values() {
            // a partial one may be newer, and lacks what only the whole one has
            let whole = series.iter().filter(|one| one.content.problems == 0);
            let whole = self.newest_good(whole.map(|one| (one.sequence, &one.content.part)), report).await;
            let newer = series.iter().take_while(|one| Some(one.sequence) != whole);
            let partial = newer.filter(|one| one.content.problems > 0);
            resources
                .extend(self.newest_good(partial.map(|one| (one.sequence, &one.content.part)), report).await);
            resources.extend(whole);
        }
        let mut segments = BTreeSet::new();
        for timeline in &history.timelines {
            self.prove_covers(timeline, &mut segments, report).await;
        }
        Ok(retention.keep(history, &Proved { full, resources, segments }, now_ms))
    }

    /// Reads backups, the newest first, until one is as its manifest says: that one.
    async fn newest_good(
        &self,
        newest_first: impl Iterator<Item = (u64, &Part)>,
        report: &mut PruneReport,
    ) -> Option<u64> {
        for (sequence, part) in newest_first {
            match self.vault.verify_stored(part).await {
                Ok(()) => return Some(sequence),
                Err(error) => report.skipped.push(Fault::of(self.vault.object(&part.name), &error)),
            }
        }
        None
    }

    /// Reads the segments in whose place shorter ones may go, the widest first; where one is damaged, those within it.
    async fn prove_covers(&self, timeline: &Timeline, sound: &mut BTreeSet<u64>, report: &mut PruneReport) {
        let mut unsound = BTreeSet::new();
        loop {
            let mut wide = covers(timeline, &unsound);
            wide.retain(|segment| !sound.contains(&segment.sequence));
            if wide.is_empty() {
                return;
            }
            for segment in wide {
                let part = &segment.content.part;
                match self.vault.verify_stored(part).await {
                    Ok(()) => {
                        sound.insert(segment.sequence);
                    }
                    Err(error) => {
                        report.skipped.push(Fault::of(self.vault.object(&part.name), &error));
                        unsound.insert(segment.sequence);
                    }
                }
            }
        }
    }

    async fn remove(
        &self,
        going: &[&Manifest],
        loaded: &Loaded,
        dry_run: bool,
        report: &mut PruneReport,
    ) -> Result<()> {
        let link = |manifest: &&Manifest| {
            let sha256 = loaded.digests.get(&manifest.sequence)?.clone();
            Some(Link { sequence: manifest.sequence, sha256 })
        };
        if !dry_run {
            let links = going.iter().filter_map(link).collect();
            let removed = joined(removed(&loaded.manifests), links);
            self.publish(Content::Prune(Prune { removed })).await?;
        }
        let mut locked: Option<u64> = None;
        for manifest in going.iter().rev() {
            // neighbours before one that had to stay wait for it, or the chain would have a hole
            if locked == Some(manifest.sequence + 1) {
                locked = Some(manifest.sequence);
                continue;
            }
            if !dry_run && let Err(error) = self.vault.store.remove(&manifest.name()).await {
                report.skipped.push(Fault::of(self.vault.object(&manifest.name()), &error));
                locked = Some(manifest.sequence);
                continue;
            }
            let part = manifest.content.part().map(|(_, part)| part);
            self.remove_part(manifest.sequence, part, dry_run, report).await;
        }
        report.removed.sort_by_key(|removed| removed.sequence);
        Ok(())
    }

    async fn remove_part(&self, sequence: u64, part: Option<&Part>, dry_run: bool, report: &mut PruneReport) {
        let size_bytes = part.map_or(0, |part| part.size_bytes);
        if !dry_run
            && let Some(part) = part
            && let Err(error) = self.vault.store.remove(&part.name).await
        {
            // without its manifest it is left behind; a later prune tries again
            report.skipped.push(Fault::of(self.vault.object(&part.name), &error));
        } else {
            report.freed_bytes = report.freed_bytes.saturating_add(size_bytes);
        }
        report.removed.push(Removed { sequence, part: part.map(|part| part.name.clone()), size_bytes });
    }

    /// Removes parts that no manifest names, once they are old.
    async fn clear_left_behind(
        &self,
        loaded: &Loaded,
        now_ms: i64,
        dry_run: bool,
        report: &mut PruneReport,
    ) -> Result<()> {
        let old = |file: &Listed| file.written_ms < now_ms.saturating_sub(LEFT_BEHIND_MS);
        for folder in PartKind::ALL.map(PartKind::folder).into_iter().chain(["manifest", INDEX, QUIET, PROBE])
        {
            for file in staged::list(&self.vault.store, folder)?.into_iter().filter(old) {
                let name = format!("{folder}/{}", file.file);
                let removed =
                    if dry_run { Ok(()) } else { staged::remove(&self.vault.store, folder, &file.file) };
                report.left(name, file.size_bytes, removed, &self.vault);
            }
        }
        for file in self.vault.store.list(PROBE, None).await?.into_iter().filter(old) {
            let name = format!("{PROBE}/{}", file.file);
            let removed = if dry_run { Ok(()) } else { self.vault.store.remove(&name).await };
            report.left(name, file.size_bytes, removed, &self.vault);
        }
        if !loaded.faults.is_empty() {
            let folder = self.vault.object("");
            let why = "parts without a manifest stay: a manifest that does not count here may name them";
            report.skipped.push(Fault::new(folder, why));
            return Ok(());
        }
        let parts = loaded.manifests.iter().filter_map(|m| m.content.part());
        let named: BTreeSet<&str> = parts.map(|(_, part)| part.name.as_str()).collect();
        for kind in PartKind::ALL {
            for file in self.vault.store.list(kind.folder(), None).await? {
                let name = format!("{}/{}", kind.folder(), file.file);
                if !old(&file) || named.contains(name.as_str()) || !names::is_part(kind, &name) {
                    continue;
                }
                let removed = if dry_run { Ok(()) } else { self.vault.store.remove(&name).await };
                report.left(name, file.size_bytes, removed, &self.vault);
            }
        }
        Ok(())
    }
}
