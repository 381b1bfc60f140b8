//! A cluster's backups, for reading: who is trusted, what there is, and how a part is fetched.

use crate::download;
use crate::error::{Error, Result};
use crate::hex;
use crate::history::History;
use crate::keys::{Identities, Signer};
use crate::manifest::{MANIFEST_MAX_BYTES, Manifest, Part};
use crate::names::{self, ClusterName};
use crate::store::{Listed, Store};
use crate::verify::Fault;
use futures::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Manifests read at the same time.
const READS: usize = 16;

/// A cluster's folder of a vault, and whom its reader trusts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Vault {
    pub(crate) store: Store,
    pub(crate) cluster: ClusterName,
    trusted: Arc<[Signer]>,
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

    /// Timelines with fulls, segments and gaps, and the manifests that don't count.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn history(&self) -> Result<(History, Vec<Fault>)> {
        let loaded = self.load().await?;
        Ok((History::new(&self.cluster, &loaded.manifests), loaded.faults))
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

    pub(crate) async fn load(&self) -> Result<Loaded> {
        let listed = self.store.list("manifest", None).await?;
        let times = listed.iter().filter_map(|file| Some((names::sequence_of(&file.file)?, file.written_ms)));
        let times = times.collect();
        let read = futures::stream::iter(listed).map(|file| self.read(file)).buffered(READS);
        let read: Vec<Option<Read>> = read.try_collect().await?;
        let mut loaded = Loaded { written_ms: times, ..Loaded::default() };
        for Read { sequence, digest, outcome } in read.into_iter().flatten() {
            if let (Some(sequence), Some(digest)) = (sequence, digest) {
                loaded.digests.insert(sequence, digest);
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
            return Ok(Some(Read { sequence: None, digest: None, outcome }));
        };
        let bytes = match self.store.read_small(&name, MANIFEST_MAX_BYTES).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(error @ Error::TooLarge { .. }) => {
                let outcome = Err(Fault::of(object, &error));
                return Ok(Some(Read { sequence: Some(sequence), digest: None, outcome }));
            }
            Err(error) => return Err(error),
        };
        let outcome = Manifest::opened(&object, &bytes, &self.cluster, sequence, &self.trusted)
            .map_err(|error| Fault::of(object, &error));
        Ok(Some(Read { sequence: Some(sequence), digest: Some(hex(&Sha256::digest(&bytes))), outcome }))
    }
}

struct Read {
    sequence: Option<u64>,
    digest: Option<String>,
    outcome: std::result::Result<Manifest, Fault>,
}
