//! Verification: signatures, chain, continuity and digests without an identity; with one, every content is read. What lies in an
//! archive of objects the caller reads: this crate knows no objects.

use crate::chain;
use crate::download;
use crate::error::{Error, Result};
use crate::history::{Gap, History};
use crate::keys::Identities;
use crate::manifest::{Content, Full, MANIFEST_MAX_BYTES, Manifest, Part, Segment};
use crate::scratch::Scratch;
use crate::vault::Vault;
use etcd_disk::snapshot::{SnapshotFile, TrailerPolicy, VerifyOptions};
use rekindle_model::MemberId;
use rekindle_model::etcd::HashKv;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads an archive of objects (a file) to its end: how many it holds.
pub type ReadObjects =
    dyn Fn(&Path) -> std::result::Result<u64, Box<dyn std::error::Error + Send + Sync>> + Send + Sync;

/// How deep.
#[derive(Clone)]
pub enum VerifyLevel {
    /// Every part's stored size and sha256.
    Stored,
    /// Beside that: every part decrypted, decompressed and compared; every snapshot verified and hashed, every
    /// segment and every archive of objects read to its end.
    Content {
        /// Who can read.
        identities: Arc<Identities>,
        /// A folder with room for one snapshot, and for an archive of objects twice.
        scratch: PathBuf,
        /// Reads archives of objects.
        read_objects: Arc<ReadObjects>,
    },
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// The object.
    pub object: String,
    /// What is wrong, with its causes, outermost first.
    pub error: Vec<String>,
}

impl Fault {
    pub(crate) fn new(object: String, what: impl Into<String>) -> Self {
        Self { object, error: vec![what.into()] }
    }

    pub(crate) fn of(object: String, error: &Error) -> Self {
        let mut lines = vec![error.to_string()];
        let mut next = std::error::Error::source(error);
        while let Some(cause) = next {
            lines.push(cause.to_string());
            next = cause.source();
        }
        Self { object, error: lines }
    }
}

/// What verification found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    /// The cluster.
    pub cluster: crate::ClusterName,
    /// Whether contents were read.
    pub content_read: bool,
    /// Manifests that count.
    pub manifests: u64,
    /// Parts that are as their manifest says.
    pub parts: u64,
    /// Bytes read from the store.
    pub read_bytes: u64,
    /// Sequence numbers of the fulls that are good.
    pub good_fulls: Vec<u64>,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// Revisions that can't be restored though later ones can.
    pub gaps: Vec<Gap>,
}

impl Vault {
    /// Verifies everything of this cluster. `progress` hears the bytes read and the bytes in all.
    ///
    /// # Errors
    /// [`Error::Store`] when the store can't be listed. Everything wrong with what is in it is a fault of the report.
    pub async fn verify(
        &self,
        level: &VerifyLevel,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<VerifyReport> {
        let mut loaded = self.load().await?;
        if !chain::breaks(&loaded.manifests, &loaded.digests).is_empty() {
            // what another host prunes between listing and reading looks like a break once, not twice
            loaded = self.load().await?;
        }
        let history = History::new(&self.cluster, &loaded.manifests);
        let mut report = VerifyReport {
            cluster: self.cluster.clone(),
            content_read: matches!(level, VerifyLevel::Content { .. }),
            manifests: loaded.manifests.len() as u64,
            parts: 0,
            read_bytes: 0,
            good_fulls: Vec::new(),
            faults: loaded.faults,
            gaps: history.timelines.into_iter().flat_map(|timeline| timeline.gaps).collect(),
        };
        for found in chain::breaks(&loaded.manifests, &loaded.digests) {
            let object = self.object(&crate::names::manifest(found.sequence));
            report.faults.push(Fault::new(object, found.what));
        }
        report.faults.extend(self.strangers(&loaded.manifests));
        report.faults.extend(self.not_held(&loaded.manifests));
        report.faults.extend(self.index_faults().await?);
        let total = loaded.manifests.iter().filter_map(|m| Some(m.content.part()?.1.size_bytes));
        let total = total.fold(0, u64::saturating_add);
        for manifest in &loaded.manifests {
            let Some((_, part)) = manifest.content.part() else { continue };
            match self.verify_part(manifest, part, level).await {
                Ok(()) => {
                    report.parts += 1;
                    if matches!(manifest.content, Content::Full(_)) {
                        report.good_fulls.push(manifest.sequence);
                    }
                }
                Err(_) if self.is_gone(manifest).await? => {}
                Err(error) => report.faults.push(Fault::of(self.object(&part.name), &error)),
            }
            report.read_bytes = report.read_bytes.saturating_add(part.size_bytes);
            progress(report.read_bytes, total);
        }
        Ok(report)
    }

    /// Whether another host pruned it meanwhile: the manifest goes before its part.
    async fn is_gone(&self, manifest: &Manifest) -> Result<bool> {
        Ok(self.store.read_small(&manifest.name(), MANIFEST_MAX_BYTES).await?.is_none())
    }

    /// Bundles of an etcd cluster that no full is of: their PKI would not fit.
    fn strangers(&self, manifests: &[Manifest]) -> Vec<Fault> {
        let of_fulls: BTreeSet<MemberId> = manifests
            .iter()
            .filter_map(|manifest| match &manifest.content {
                Content::Full(full) => full.identity.etcd_cluster_id,
                _ => None,
            })
            .collect();
        let stranger = |manifest: &Manifest| {
            let Content::Bundle(bundle) = &manifest.content else { return None };
            let id = bundle.identity.etcd_cluster_id.filter(|id| !of_fulls.contains(id))?;
            let what = format!("it is of a host of etcd cluster {id}, which no full here is of");
            (!of_fulls.is_empty()).then(|| Fault::new(self.object(&bundle.part.name), what))
        };
        manifests.iter().filter_map(stranger).collect()
    }

    /// Merged segments that do not hold what they say they were merged of: readers would miss it.
    fn not_held(&self, manifests: &[Manifest]) -> Vec<Fault> {
        let by_number: BTreeMap<u64, &Manifest> = manifests.iter().map(|m| (m.sequence, m)).collect();
        let holds = |merged: &Segment, other: &Manifest| match &other.content {
            Content::Segment(other) => {
                merged.timeline.id == other.timeline.id
                    && merged.first_revision <= other.first_revision
                    && merged.last_revision >= other.last_revision
            }
            _ => false,
        };
        let mut faults = Vec::new();
        for manifest in manifests {
            let Content::Segment(merged) = &manifest.content else { continue };
            let replaced = merged.replaces.iter().flat_map(|run| by_number.range(run.first..=run.last));
            for (number, _) in replaced.filter(|(_, other)| !holds(merged, other)) {
                let what = format!("it is to replace number {number}, and does not hold what that holds");
                faults.push(Fault::new(self.object(&merged.part.name), what));
            }
        }
        faults
    }

    async fn verify_part(&self, manifest: &Manifest, part: &Part, level: &VerifyLevel) -> Result<()> {
        let VerifyLevel::Content { identities, scratch, read_objects } = level else {
            return self.verify_stored(part).await;
        };
        if matches!(manifest.content, Content::Bundle(_) | Content::Prune(_)) {
            return download::read(&self.store, part, identities).await;
        }
        let folder = Scratch::new(scratch, "verify")?;
        let file = folder.path().join("content");
        self.fetch(part, identities, &file).await?;
        let (object, content) = (self.object(&part.name), manifest.content.clone());
        let read_objects = Arc::clone(read_objects);
        let work = move || match &content {
            Content::Full(full) => verify_snapshot(&object, full, &file),
            Content::Segment(segment) => verify_segment(&object, segment, &file),
            Content::Resources(objects) => {
                let found = read_objects(&file).map_err(unsound(&object))?;
                same(&object, "objects", objects.objects, found)
            }
            Content::Bundle(_) | Content::Prune(_) => Ok(()),
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Error::Worker { doing: "verifying a part" })?
    }

    /// Whether a part is there as its manifest says: size and sha256.
    pub(crate) async fn verify_stored(&self, part: &Part) -> Result<()> {
        download::check(&self.store, part).await
    }
}

/// What a part holds is not sound, though it is what was put there.
fn unsound<E: Into<Box<dyn std::error::Error + Send + Sync>>>(object: &str) -> impl Fn(E) -> Error + '_ {
    move |error| Error::Inside { object: object.to_owned(), source: error.into() }
}

fn verify_snapshot(object: &str, full: &Full, file: &Path) -> Result<()> {
    let snapshot = SnapshotFile::open(file, TrailerPolicy::Required).map_err(unsound(object))?;
    let found = snapshot.verify(&VerifyOptions::default(), &mut |_, _| ()).map_err(unsound(object))?;
    same(object, "revision", full.revision, found.revision)?;
    same(object, "compact revision", full.compact_revision, found.compact_revision)?;
    same(object, "rows", full.rows, found.rows)?;
    same(object, "live keys", full.live_keys, found.live_keys)?;
    for sample in full.hash_kv.iter().filter(|sample| sample.revision <= found.revision) {
        let own = found.hash_kv;
        let hash = if (own.revision, own.compact_revision) == (sample.revision, sample.compact_revision) {
            own.hash
        } else {
            hash_at(&snapshot, sample).map_err(unsound(object))?
        };
        same(object, "HashKV", sample.hash, hash)?;
    }
    Ok(())
}

fn verify_segment(object: &str, segment: &Segment, file: &Path) -> Result<()> {
    let found = etcd_disk::segment::survey(file).map_err(unsound(object))?;
    same(object, "an end", true, found.closed)?;
    same(object, "first revision", segment.first_revision, found.header.first_revision)?;
    same(object, "last revision", segment.last_revision, found.last_revision)?;
    if let Some(id) = segment.identity.etcd_cluster_id {
        same(object, "cluster id", id, MemberId(found.header.origin.cluster_id))?;
    }
    Ok(())
}

fn same<T: PartialEq + Display>(object: &str, what: &'static str, expected: T, actual: T) -> Result<()> {
    if expected == actual {
        return Ok(());
    }
    let (expected, actual) = (expected.to_string(), actual.to_string());
    Err(Error::Differs { object: object.to_owned(), what, expected, actual })
}

fn hash_at(snapshot: &SnapshotFile, sample: &HashKv) -> etcd_disk::Result<u32> {
    let options = VerifyOptions {
        hash_revision: Some(sample.revision),
        compact_revision: Some(sample.compact_revision),
        ..VerifyOptions::default()
    };
    Ok(snapshot.verify(&options, &mut |_, _| ())?.hash_kv.hash)
}
