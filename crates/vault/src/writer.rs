//! Writing: parts under unique names, then the manifest that makes them a backup (`publish.rs`).

use crate::error::{Error, Result};
use crate::keys::{Recipients, SigningKey};
use crate::manifest::{
    Bundle, ClusterIdentity, Content, Full, Manifest, Numbers, Part, Resources, Segment, TimelineRef,
};
use crate::names::{self, PartKind, WriterName};
use crate::publish::Publisher;
use crate::upload::{PartSource, upload};
use crate::vault::Vault;
use etcd_disk::snapshot::Verified;
use rekindle_model::MemberId;
use rekindle_model::etcd::{EtcdMember, HashKv};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Writes into a cluster's folder.
pub struct Writer {
    pub(crate) publisher: Publisher,
    recipients: Recipients,
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
    /// Numbers of the segments it was merged of; it must hold all that they hold.
    pub replaces: BTreeSet<u64>,
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

/// What is said of objects that were read through the API.
#[derive(Clone, Debug)]
pub struct ResourcesMeta {
    /// Whose they are.
    pub identity: ClusterIdentity,
    /// Which were asked for, in words; empty: all.
    pub scope: String,
    /// When the first was read, milliseconds since the Unix epoch.
    pub taken_ms: i64,
    /// Objects in the archive.
    pub objects: u64,
    /// Kinds, or parts of them, that could not be read.
    pub problems: u64,
    /// Version of the API server.
    pub server_version: String,
}

impl Vault {
    /// A writer of this cluster's folder. Proves first that the store honours conditional puts. Nothing is ever
    /// written unencrypted. The vault must trust the key, or nobody could read back what was written.
    ///
    /// # Errors
    /// [`Error::NoConditionalPut`], [`Error::UnknownSigner`], [`Error::Store`].
    pub async fn writer(&self, name: WriterName, key: SigningKey, recipients: Recipients) -> Result<Writer> {
        let publisher = Publisher::new(self, name, key)?;
        self.store.probe().await?;
        Ok(Writer { publisher, recipients })
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
        let name = names::new_part(PartKind::Full, &self.publisher.name);
        let source = PartSource::File(path.to_owned());
        let sealed =
            upload(&self.publisher.vault.store, &name, source, Some(verified.db_bytes), &self.recipients)
                .await?;
        if sealed.head_sha256.as_ref() != Some(&verified.sha256) {
            // no manifest names it: it is only in the way
            let _ = self.publisher.vault.store.remove(&name).await;
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
        self.publisher.publish(Content::Full(full)).await
    }

    /// Puts a stretch of the change stream into the vault.
    ///
    /// # Errors
    /// [`Error::Contradiction`] when its revisions are out of order; [`Error::Local`], [`Error::Store`].
    pub async fn put_segment(&self, source: PartSource, meta: SegmentMeta) -> Result<Manifest> {
        let name = names::new_part(PartKind::Segment, &self.publisher.name);
        let SegmentMeta { first_revision, last_revision, .. } = meta;
        if first_revision < 1 || first_revision > last_revision {
            let what = format!("revisions {first_revision} to {last_revision}");
            return Err(Error::Contradiction { object: self.publisher.vault.object(&name), what });
        }
        let sealed = upload(&self.publisher.vault.store, &name, source, None, &self.recipients).await?;
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
            replaces: Numbers::runs(&meta.replaces),
        };
        self.publisher.publish(Content::Segment(segment)).await
    }

    /// Puts a tar archive of a host's files into the vault.
    ///
    /// # Errors
    /// [`Error::Local`], [`Error::Store`].
    pub async fn put_bundle(&self, archive: PathBuf, meta: BundleMeta) -> Result<Manifest> {
        let name = names::new_part(PartKind::Bundle, &self.publisher.name);
        let part = self.archive(name, archive).await?;
        let BundleMeta { identity, host, taken_ms } = meta;
        self.publisher.publish(Content::Bundle(Bundle { part, identity, host, taken_ms })).await
    }

    /// Puts a tar archive of objects into the vault.
    ///
    /// # Errors
    /// [`Error::Local`], [`Error::Store`].
    pub async fn put_resources(&self, archive: PathBuf, meta: ResourcesMeta) -> Result<Manifest> {
        let name = names::new_part(PartKind::Resources, &self.publisher.name);
        let part = self.archive(name, archive).await?;
        let ResourcesMeta { identity, scope, taken_ms, objects, problems, server_version } = meta;
        let resources = Resources { part, identity, scope, taken_ms, objects, problems, server_version };
        self.publisher.publish(Content::Resources(resources)).await
    }

    async fn archive(&self, name: String, archive: PathBuf) -> Result<Part> {
        let (store, source) = (&self.publisher.vault.store, PartSource::File(archive));
        Ok(upload(store, &name, source, None, &self.recipients).await?.part(name))
    }
}
