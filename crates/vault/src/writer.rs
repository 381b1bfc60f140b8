//! Writing: parts under unique names, then the manifest that makes them a backup, at the next free place in the chain.

use crate::error::{Error, Result};
use crate::keys::{Recipients, SigningKey};
use crate::manifest::{
    API_VERSION, Bundle, ClusterIdentity, Content, Full, Link, MANIFEST_MAX_BYTES, Manifest, Segment,
    TimelineRef,
};
use crate::names::{self, PartKind, SEQUENCE_MAX, WriterName};
use crate::upload::{PartSource, upload};
use crate::vault::Vault;
use crate::{hex, now_ms};
use etcd_disk::snapshot::Verified;
use rekindle_model::MemberId;
use rekindle_model::etcd::{EtcdMember, HashKv};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// So many writers may take the next place before this one gives up.
const TRIES: usize = 100;

/// Writes into a cluster's folder.
pub struct Writer {
    pub(crate) vault: Vault,
    name: WriterName,
    key: SigningKey,
    recipients: Recipients,
    /// The newest manifest seen: listing goes on from there.
    newest: Mutex<Option<Link>>,
}

/// What is said of a full beside what is in it.
#[derive(Clone, Debug)]
pub struct FullMeta {
    /// Whose data it is.
    pub identity: ClusterIdentity,
    /// Its timeline ([`crate::History::timeline_for`]).
    pub timeline: TimelineRef,
    /// When it was begun to be taken, milliseconds since the Unix epoch.
    pub taken_ms: i64,
    /// Version of the server that served it.
    pub etcd_version: Option<String>,
    /// HashKV as members answered it.
    pub samples: Vec<HashKv>,
    /// What [`etcd_disk::snapshot::SnapshotFile::verify`] found in the file.
    pub verified: Verified,
}

/// What is said of a segment (`etcd_disk::segment`).
#[derive(Clone, Debug)]
pub struct SegmentMeta {
    /// Whose data it is.
    pub identity: ClusterIdentity,
    /// Its timeline.
    pub timeline: TimelineRef,
    /// First revision in it.
    pub first_revision: i64,
    /// Last revision in it; there is no hole between.
    pub last_revision: i64,
    /// When its first revision was received, milliseconds since the Unix epoch.
    pub first_ms: i64,
    /// When its last revision was received, milliseconds since the Unix epoch.
    pub last_ms: i64,
    /// Version of the server it came from.
    pub etcd_version: Option<String>,
    /// The member it came from.
    pub member: Option<MemberId>,
    /// HashKV as members answered for revisions in it.
    pub samples: Vec<HashKv>,
}

/// What is said of a bundle.
#[derive(Clone, Debug)]
pub struct BundleMeta {
    /// Whose data it is.
    pub identity: ClusterIdentity,
    /// The host.
    pub host: String,
    /// When, milliseconds since the Unix epoch.
    pub taken_ms: i64,
}

impl Vault {
    /// A writer of this cluster's folder. Proves first that the store honours conditional puts. Nothing is ever
    /// written unencrypted. The vault must trust the key, or nobody could read back what was written.
    ///
    /// # Errors
    /// [`Error::NoConditionalPut`], [`Error::UnknownSigner`], [`Error::Store`].
    pub async fn writer(&self, name: WriterName, key: SigningKey, recipients: Recipients) -> Result<Writer> {
        if !self.trusts(key.signer()) {
            let object = self.object("manifest");
            return Err(Error::UnknownSigner { object, signer: key.signer().to_string() });
        }
        self.store.probe().await?;
        Ok(Writer { vault: self.clone(), name, key, recipients, newest: Mutex::default() })
    }
}

impl Writer {
    /// Puts a verified snapshot file into the vault.
    ///
    /// # Errors
    /// [`Error::Changed`] when the file is not the one that was verified or has no sha256 at its end;
    /// [`Error::Local`], [`Error::Store`].
    pub async fn put_full(&self, path: &Path, meta: FullMeta) -> Result<Manifest> {
        let FullMeta { identity, timeline, taken_ms, etcd_version, samples, verified } = meta;
        let changed = || Error::Changed { path: path.to_owned() };
        if !verified.trailer {
            return Err(changed());
        }
        let name = names::new_part(PartKind::Full, &self.name);
        let source = PartSource::File(path.to_owned());
        let sealed =
            upload(&self.vault.store, &name, source, Some(verified.db_bytes), &self.recipients).await?;
        if sealed.head_sha256.as_ref() != Some(&verified.sha256) {
            // no manifest names it: it is only in the way
            let _ = self.vault.store.remove(&name).await;
            return Err(changed());
        }
        let hash = verified.hash_kv;
        let own =
            HashKv { hash: hash.hash, revision: hash.revision, compact_revision: hash.compact_revision };
        let mut hash_kv = vec![own];
        hash_kv.extend(samples.into_iter().filter(|sample| *sample != own));
        let members = verified.facts.members.iter().map(|member| EtcdMember {
            id: MemberId(member.id.0),
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
            client_urls: member.client_urls.clone(),
            is_learner: member.is_learner,
        });
        let full = Full {
            part: sealed.part(name),
            identity,
            timeline,
            revision: verified.revision,
            compact_revision: verified.compact_revision,
            taken_ms,
            etcd_version,
            members: members.collect(),
            hash_kv,
            rows: verified.rows,
            live_keys: verified.live_keys,
            cluster_version: verified.facts.cluster_version,
            storage_version: verified.facts.storage_version,
        };
        self.publish(Content::Full(full)).await
    }

    /// Puts a stretch of the change stream into the vault.
    ///
    /// # Errors
    /// [`Error::Contradiction`] when its revisions are out of order; [`Error::Local`], [`Error::Store`].
    pub async fn put_segment(&self, source: PartSource, meta: SegmentMeta) -> Result<Manifest> {
        let name = names::new_part(PartKind::Segment, &self.name);
        let SegmentMeta { first_revision, last_revision, .. } = meta;
        if first_revision < 1 || first_revision > last_revision {
            let what = format!("revisions {first_revision} to {last_revision}");
            return Err(Error::Contradiction { object: self.vault.object(&name), what });
        }
        let sealed = upload(&self.vault.store, &name, source, None, &self.recipients).await?;
        let segment = Segment {
            part: sealed.part(name),
            identity: meta.identity,
            timeline: meta.timeline,
            first_revision,
            last_revision,
            first_ms: meta.first_ms,
            last_ms: meta.last_ms,
            etcd_version: meta.etcd_version,
            member: meta.member,
            hash_kv: meta.samples,
        };
        self.publish(Content::Segment(segment)).await
    }

    /// Puts a tar archive of a host's files into the vault.
    ///
    /// # Errors
    /// [`Error::Local`], [`Error::Store`].
    pub async fn put_bundle(&self, archive: PathBuf, meta: BundleMeta) -> Result<Manifest> {
        let name = names::new_part(PartKind::Bundle, &self.name);
        let sealed =
            upload(&self.vault.store, &name, PartSource::File(archive), None, &self.recipients).await?;
        let BundleMeta { identity, host, taken_ms } = meta;
        self.publish(Content::Bundle(Bundle { part: sealed.part(name), identity, host, taken_ms })).await
    }

    /// Signs and writes a manifest at the next free place. When another writer takes that place first, the one behind
    /// it is tried: no writer ever replaces what another wrote.
    pub(crate) async fn publish(&self, content: Content) -> Result<Manifest> {
        let mut manifest = Manifest {
            api_version: API_VERSION.into(),
            cluster: self.vault.cluster.clone(),
            sequence: 0,
            before: None,
            writer: self.name.clone(),
            written_ms: now_ms(),
            program: concat!("rekindle ", env!("CARGO_PKG_VERSION")).into(),
            content,
        };
        for _ in 0..TRIES {
            manifest.before = self.newest().await?;
            manifest.sequence = manifest.before.as_ref().map_or(0, |before| before.sequence) + 1;
            if manifest.sequence > SEQUENCE_MAX {
                return Err(self.no_sequence("the last number is taken"));
            }
            let bytes = manifest.sealed(&self.key)?;
            let name = manifest.name();
            // a retried request whose first answer was lost finds its own object there
            let ours = self.vault.store.create(&name, bytes.clone()).await?
                || self.vault.store.read_small(&name, MANIFEST_MAX_BYTES).await?.is_some_and(|b| b == bytes);
            if ours {
                self.remember(Link { sequence: manifest.sequence, sha256: hex(&Sha256::digest(&bytes)) });
                return Ok(manifest);
            }
        }
        Err(self.no_sequence("other writers took every number that was tried"))
    }

    fn no_sequence(&self, why: &'static str) -> Error {
        Error::NoSequence { cluster: self.vault.cluster.to_string(), why }
    }

    fn remember(&self, link: Link) {
        let mut newest = self.newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if newest.as_ref().is_none_or(|known| known.sequence < link.sequence) {
            *newest = Some(link);
        }
    }

    /// The newest object in the manifest folder, whoever wrote it.
    async fn newest(&self) -> Result<Option<Link>> {
        let known = self.newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let after = known.as_ref().map(|link| names::manifest(link.sequence));
        let listed = self.vault.store.list("manifest", after.as_deref()).await?;
        let Some(sequence) = listed.iter().filter_map(|file| names::sequence_of(&file.file)).max() else {
            return Ok(known);
        };
        let name = names::manifest(sequence);
        let Some(bytes) = self.vault.store.read_small(&name, MANIFEST_MAX_BYTES).await? else {
            return Err(self.no_sequence("the newest manifest went away while it was read"));
        };
        let link = Link { sequence, sha256: hex(&Sha256::digest(&bytes)) };
        self.remember(link.clone());
        Ok(Some(link))
    }
}
