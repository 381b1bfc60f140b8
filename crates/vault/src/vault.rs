//! A cluster's backups, for reading: who is trusted, what there is, and how a part is fetched.

use crate::download;
use crate::error::{Error, Result};
use crate::hex;
use crate::history::{History, Item};
use crate::keys::{Identities, Signer};
use crate::manifest::{Content, MANIFEST_MAX_BYTES, Manifest, NumberSet, Numbers, Part, Segment};
use crate::names::{self, ClusterName, PartKind, WriterName};
use crate::store::{Listed, Store};
use crate::verify::Fault;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

/// Manifests read at the same time.
const READS: usize = 16;
/// After so many reads of which none was needless twice as many go side by side.
const DOUBLED_AFTER: usize = 4;

/// A cluster's folder of a vault, and whom its reader trusts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Vault {
    pub(crate) store: Store,
    pub(crate) cluster: ClusterName,
    pub(crate) trusted: Arc<[Signer]>,
}

/// Every manifest there is.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Those that count, in order.
    pub(crate) manifests: Vec<Manifest>,
    /// SHA-256 (hex) of all objects in the folder that could be read.
    pub(crate) digests: BTreeMap<u64, String>,
    /// When each object in the folder was written, by the store's clock.
    pub(crate) written_ms: BTreeMap<u64, i64>,
    /// Those that don't count, and why.
    pub(crate) faults: Vec<Fault>,
}

impl Vault {
    /// A cluster's folder. `trusted`: whose manifests count.
    ///
    /// # Errors
    /// [`Error::NoSigners`].
    pub fn new(store: &Store, cluster: ClusterName, trusted: &[Signer]) -> Result<Self> {
        if trusted.is_empty() {
            return Err(Error::NoSigners);
        }
        Ok(Self { store: store.below(cluster.as_str()), cluster, trusted: trusted.into() })
    }

    /// The clusters that have a folder in a store.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn clusters(store: &Store) -> Result<Vec<ClusterName>> {
        let folders = store.folders().await?;
        Ok(folders.iter().filter_map(|folder| ClusterName::new(folder).ok()).collect())
    }

    /// The cluster.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// An object of this cluster as people find it in the store.
    pub fn object(&self, name: &str) -> String {
        self.store.object(name)
    }

    /// The objects that a writer's next backup will be when nobody else writes before: its part (a new UUID stands where
    /// `UUID` is) and its manifest. Changes nothing.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn next_objects(&self, kind: PartKind, writer: &WriterName) -> Result<[String; 2]> {
        let (_, numbers) = self.listed().await?;
        let next = numbers.last_key_value().map_or(0, |(number, _)| *number).saturating_add(1);
        Ok([names::part(kind, "UUID", writer), names::manifest(next)].map(|name| self.object(&name)))
    }

    /// Timelines with fulls, segments and gaps, and the manifests that don't count. Segments in whose place there is a
    /// merged one are left out, and their manifests not read: [`Vault::merged_of`] has them.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn history(&self) -> Result<(History, Vec<Fault>)> {
        let read = self.unreplaced().await?;
        let manifests = read.counted.iter().map(|(manifest, _)| manifest);
        Ok((History::new(&self.cluster, manifests), read.faults))
    }

    /// All manifests but those in whose place there is a merged segment; out of the index where that has them.
    pub(crate) async fn unreplaced(&self) -> Result<Unreplaced> {
        let (mut listed, _) = self.listed().await?;
        let mut index = self.index().await?;
        let mut found = Unreplaced::default();
        let mut replaced = NumberSet::default();
        let (mut width, mut useful) = (1, 0);
        // the newest first: it says what need not be read
        while !listed.is_empty() {
            let (mut batch, mut opened) = (Vec::with_capacity(width), Vec::new());
            while batch.len() < width
                && let Some(file) = listed.pop()
            {
                let sequence = names::sequence_of(&file.file);
                if sequence.is_some_and(|number| replaced.has(number)) {
                    continue;
                }
                let indexed = sequence.and_then(|number| Some((number, index.remove(&number)?)));
                match indexed.filter(|(_, bytes)| bytes.len() as u64 == file.size_bytes) {
                    Some((number, bytes)) => {
                        let read = self.opened(number, bytes);
                        // what it replaces is to be known before the next one
                        note_replaced(&read, &mut replaced);
                        opened.push(read);
                    }
                    None => batch.push(file),
                }
            }
            found.unindexed += batch.len();
            let read: Vec<Read> = self.reads(batch).try_collect().await?;
            read.iter().for_each(|read| note_replaced(read, &mut replaced));
            // one by one where what is read makes others needless, side by side where it does not
            let is_needless = |read: &Read| read.sequence.is_some_and(|number| replaced.has(number));
            useful = if read.iter().any(is_needless) { 0 } else { useful + 1 };
            width = READS.min(1 << (useful / DOUBLED_AFTER).min(READS));
            for read in read.into_iter().chain(opened) {
                match read {
                    Read { outcome: Ok(manifest), bytes: Some(bytes), .. } => {
                        found.counted.push((manifest, bytes));
                    }
                    Read { outcome: Ok(_), .. } => {}
                    Read { outcome: Err(fault), .. } => found.faults.push(fault),
                }
            }
        }
        found.counted.retain(|(manifest, _)| !replaced.has(manifest.sequence));
        found.counted.sort_by_key(|(manifest, _)| manifest.sequence);
        Ok(found)
    }

    /// The segments of a timeline that one was merged of ([`Segment::replaces`]), as far as they are still there: what it
    /// holds can be had from them, too.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn merged_of(&self, timeline: &str, replaces: &[Numbers]) -> Result<Vec<Item<Segment>>> {
        if replaces.is_empty() {
            return Ok(Vec::new());
        }
        let (mut listed, _) = self.listed().await?;
        let mut wanted = NumberSet::default();
        replaces.iter().for_each(|run| wanted.add(*run));
        listed.retain(|file| names::sequence_of(&file.file).is_some_and(|number| wanted.has(number)));
        let read: Vec<Read> = self.reads(listed).try_collect().await?;
        let segments = read.into_iter().filter_map(|read| match read.outcome {
            Ok(Manifest { content: Content::Segment(ref of), .. }) if of.timeline.id == timeline => {
                read.outcome.as_ref().ok().map(|manifest| Item::of(manifest, of))
            }
            _ => None,
        });
        Ok(segments.collect())
    }

    /// One manifest.
    ///
    /// # Errors
    /// [`Error::Store`]; none of that number; and all that keeps a manifest from counting.
    pub async fn manifest(&self, sequence: u64) -> Result<Manifest> {
        let name = names::manifest(sequence);
        let Some(bytes) = self.store.read_small(&name, MANIFEST_MAX_BYTES).await? else {
            return Err(Error::NoManifest { object: self.store.object(&name) });
        };
        Manifest::opened(&self.store.object(&name), &bytes, &self.cluster, sequence, &self.trusted)
    }

    /// Fetches a part's content into a new local file: decrypted, decompressed, and compared with its manifest's
    /// sizes and digests. The file is there whole or not at all.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Decrypt`], [`Error::Content`], [`Error::Size`], [`Error::Digest`], and
    /// [`Error::Local`], also when the file exists.
    pub async fn fetch(&self, part: &Part, identities: &Arc<Identities>, to: &Path) -> Result<()> {
        download::fetch(&self.store, part, identities, to).await
    }

    /// The same, for writing ([`Store::patient`]).
    pub(crate) fn patient(&self) -> Self {
        Self { store: self.store.patient(), ..self.clone() }
    }

    pub(crate) fn trusts(&self, signer: Signer) -> bool {
        self.trusted.contains(&signer)
    }

    /// The manifest folder in order, and when each was written.
    async fn listed(&self) -> Result<(Vec<Listed>, BTreeMap<u64, i64>)> {
        let listed = self.store.list("manifest", None).await?;
        let times = listed.iter().filter_map(|file| Some((names::sequence_of(&file.file)?, file.written_ms)));
        let times = times.collect();
        Ok((listed, times))
    }

    /// Reads objects of the manifest folder in their order; those that went away meanwhile are left out.
    fn reads(&self, files: Vec<Listed>) -> impl Stream<Item = Result<Read>> {
        let read = futures::stream::iter(files).map(|file| self.read(file)).buffered(READS);
        read.try_filter_map(|read| std::future::ready(Ok(read)))
    }

    pub(crate) async fn load(&self) -> Result<Loaded> {
        let (listed, times) = self.listed().await?;
        let mut loaded = Loaded { written_ms: times, ..Loaded::default() };
        let mut reads = pin!(self.reads(listed));
        while let Some(Read { sequence, bytes, outcome }) = reads.try_next().await? {
            if let (Some(sequence), Some(bytes)) = (sequence, bytes) {
                loaded.digests.insert(sequence, hex(&Sha256::digest(&bytes)));
            }
            match outcome {
                Ok(manifest) => loaded.manifests.push(manifest),
                Err(fault) => loaded.faults.push(fault),
            }
        }
        Ok(loaded)
    }

    /// One object of the manifest folder; none when it went away meanwhile.
    async fn read(&self, file: Listed) -> Result<Option<Read>> {
        let name = format!("manifest/{}", file.file);
        let object = self.store.object(&name);
        let Some(sequence) = names::sequence_of(&file.file) else {
            let outcome = Err(Fault::new(object, "its name is not that of a manifest"));
            return Ok(Some(Read { sequence: None, bytes: None, outcome }));
        };
        let bytes = match self.store.read_small(&name, MANIFEST_MAX_BYTES).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(error @ Error::TooLarge { .. }) => {
                let outcome = Err(Fault::of(object, &error));
                return Ok(Some(Read { sequence: Some(sequence), bytes: None, outcome }));
            }
            Err(error) => return Err(error),
        };
        Ok(Some(self.opened(sequence, bytes)))
    }

    /// What the bytes of the object of this number are.
    fn opened(&self, sequence: u64, bytes: Bytes) -> Read {
        let object = self.store.object(&names::manifest(sequence));
        let outcome = Manifest::opened(&object, &bytes, &self.cluster, sequence, &self.trusted)
            .map_err(|error| Fault::of(object, &error));
        Read { sequence: Some(sequence), bytes: Some(bytes), outcome }
    }
}

/// What a segment was merged of need not be read.
fn note_replaced(read: &Read, replaced: &mut NumberSet) {
    if let Ok(Manifest { content: Content::Segment(segment), .. }) = &read.outcome {
        segment.replaces.iter().for_each(|run| replaced.add(*run));
    }
}

/// The manifests a reader needs, as [`Vault::unreplaced`] found them.
#[derive(Default)]
pub(crate) struct Unreplaced {
    /// Those that count, in order, each with the bytes of its object.
    pub(crate) counted: Vec<(Manifest, Bytes)>,
    /// Those that don't count, and why.
    pub(crate) faults: Vec<Fault>,
    /// How many were not in the index.
    pub(crate) unindexed: usize,
}

struct Read {
    sequence: Option<u64>,
    bytes: Option<Bytes>,
    outcome: std::result::Result<Manifest, Fault>,
}
