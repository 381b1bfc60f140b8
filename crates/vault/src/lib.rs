//! The vault: a backup repository in a folder or an object store.
//!
//! ```text
//! CLUSTER/full/UUID-WRITER.db.zst.age         a stock etcd snapshot
//! CLUSTER/segment/UUID-WRITER.seg.zst.age     a stretch of the change stream; merged ones hold what many small ones hold
//! CLUSTER/bundle/UUID-WRITER.tar.zst.age      files of one control-plane host
//! CLUSTER/resources/UUID-WRITER.tar.zst.age   objects, read through the API
//! CLUSTER/manifest/SEQUENCE.json              signed; each names one part, or what was pruned
//! CLUSTER/index/SEQUENCE-UUID.jsonl.zst       many manifests in one object, for readers in a hurry
//! CLUSTER/quiet/WRITER.json                   signed; when this writer last saw that nothing had changed
//! ```
//! A part without a manifest is not a backup: parts are written first, the manifest last and only if its sequence
//! number is still free. So a crash leaves nothing that reads as a backup, and two writers do each other no harm.
//! Encryption is to public recipients, so anybody who can write the bucket could make a part; only the signature of
//! its manifest, by a signer the reader trusts, makes it a backup.
//!
//! Drawn in `docs/formats/vault.md`, with the way by hand (`age`, `zstd`, `jq`). Start with [`Vault`] (reading),
//! [`Writer`] (writing), [`manifest`] (what is said of a part), [`history`] (what can be restored).

mod chain;
mod download;
mod error;
pub mod history;
mod index;
pub mod keys;
pub mod manifest;
pub mod names;
mod prune;
mod publish;
mod quiet;
pub mod retention;
mod scratch;
mod seal;
mod staged;
mod store;
mod upload;
mod vault;
mod verify;
mod writer;

pub use error::{Error, Result};
pub use history::History;
pub use keys::{Identities, Recipients, Signer, SigningKey};
pub use manifest::Manifest;
pub use names::{ClusterName, PartKind, WriterName};
pub use prune::PruneReport;
pub use quiet::Quiet;
pub use retention::Retention;
pub use scratch::Scratch;
pub use store::Store;
pub use upload::PartSource;
pub use vault::Vault;
pub use verify::{Fault, ReadObjects, VerifyLevel, VerifyReport};
pub use writer::{BundleMeta, FullMeta, ResourcesMeta, SegmentMeta, Writer};

/// Now, in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Bytes as lowercase hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
