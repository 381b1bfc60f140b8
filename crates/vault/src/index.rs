//! The index: the manifests of a long history in one object, so that a reader needs not fetch each of them.
//!
//! It holds the objects of the manifest folder byte for byte, each with its own signature, and is believed in nothing else:
//! a reader opens each manifest as if it had come from its own object, and takes it only where the folder has an object of
//! this number and size. Whoever writes a false index hides nothing and forges nothing. Without one, or with a damaged one,
//! manifests are read one by one.

use crate::error::{Error, Result};
use crate::manifest::MANIFEST_MAX_BYTES;
use crate::vault::Vault;
use crate::verify::Fault;
use crate::writer::Writer;
use bytes::Bytes;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};

/// The folder below the cluster's.
pub(crate) const INDEX: &str = "index";
/// So many manifests that no index has are worth a new one.
const WORTH: usize = 256;
/// So many indexes stay, should the newest be damaged.
const KEPT: usize = 2;
/// Larger ones are not read: 100 times what the hours of ten years need.
const STORED_MAX_BYTES: u64 = 256 << 20;
const PLAIN_MAX_BYTES: u64 = 1 << 30;

/// Manifests by number: bytes, not opened yet.
pub(crate) type Index = BTreeMap<u64, Bytes>;

impl Vault {
    /// The newest index that can be read.
    pub(crate) async fn index(&self) -> Result<Index> {
        for name in self.index_names().await?.iter().rev() {
            if let Ok(Some(index)) = self.read_index(name).await? {
                return Ok(index);
            }
        }
        Ok(Index::new())
    }

    /// Indexes that can't be read.
    pub(crate) async fn index_faults(&self) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        for name in self.index_names().await? {
            if let Err(error) = self.read_index(&name).await? {
                faults.push(Fault::of(self.object(&name), &error));
            }
        }
        Ok(faults)
    }

    /// Their names, the newest last.
    async fn index_names(&self) -> Result<Vec<String>> {
        let listed = self.store.list(INDEX, None).await?;
        Ok(listed.into_iter().map(|file| format!("{INDEX}/{}", file.file)).collect())
    }

    /// Fails when the store does; what is wrong with the index itself is the inner error. None: it went away.
    async fn read_index(&self, name: &str) -> Result<Result<Option<Index>>> {
        let bytes = match self.store.read_small(name, STORED_MAX_BYTES).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Ok(None)),
            Err(error @ Error::TooLarge { .. }) => return Ok(Err(error)),
            Err(error) => return Err(error),
        };
        let read = tokio::task::spawn_blocking(move || unpack(&bytes)).await;
        let object = self.object(name);
        let read = read.map_err(|_| Error::Worker { doing: "reading an index" })?;
        Ok(read.map(Some).map_err(|source| Error::Content { object, source }))
    }
}

impl Writer {
    /// Writes an index, if enough manifests are in none; whether it did. Earlier ones go, where they can be removed.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn index(&self) -> Result<bool> {
        let vault = &self.publisher.vault;
        let read = vault.unreplaced().await?;
        let Some(last) = read.counted.last().map(|(manifest, _)| manifest.sequence) else { return Ok(false) };
        if read.unindexed < WORTH {
            return Ok(false);
        }
        let objects: Vec<Bytes> = read.counted.into_iter().map(|(_, bytes)| bytes).collect();
        let name = format!("{INDEX}/{last:012}-{}.jsonl.zst", uuid::Uuid::now_v7());
        let packed = tokio::task::spawn_blocking(move || pack(&objects)).await;
        let packed = packed.map_err(|_| Error::Worker { doing: "writing an index" })?;
        let packed = packed.map_err(|source| Error::Content { object: vault.object(&name), source })?;
        if packed.len() as u64 > STORED_MAX_BYTES {
            return Ok(false);
        }
        vault.store.put(&name, packed.into()).await?;
        let names = vault.index_names().await?;
        for old in names.iter().rev().skip(KEPT) {
            // where nothing may be removed it stays, and does no harm
            let _ = vault.store.remove(old).await;
        }
        Ok(true)
    }
}

/// One object after the other: each is one line of compact JSON.
fn pack(objects: &[Bytes]) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 0)?;
    encoder.include_checksum(true)?;
    let is_line = |object: &&Bytes| object.iter().position(|b| *b == b'\n') == object.len().checked_sub(1);
    objects.iter().filter(is_line).try_for_each(|object| encoder.write_all(object))?;
    encoder.finish()
}

/// What is read of a manifest to know which it is.
#[derive(Deserialize)]
struct Head {
    manifest: Place,
}

#[derive(Deserialize)]
struct Place {
    sequence: u64,
}

fn unpack(packed: &[u8]) -> io::Result<Index> {
    let plain = zstd::Decoder::with_buffer(packed)?.take(PLAIN_MAX_BYTES + 1);
    let mut lines = BufReader::new(plain);
    let (mut index, mut bytes) = (Index::new(), 0u64);
    loop {
        let mut line = Vec::new();
        let read = (&mut lines).take(MANIFEST_MAX_BYTES + 1).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(index);
        }
        bytes = bytes.saturating_add(read as u64);
        if line.last() != Some(&b'\n') || bytes > PLAIN_MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line that is too long, or too many"));
        }
        let head: Head = serde_json::from_slice(&line)?;
        index.insert(head.manifest.sequence, line.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What is no index is an error, whatever it is, and never more memory than an index may take.
    #[test]
    fn only_lines_of_manifests_are_an_index() {
        let object =
            |n: u64| Bytes::from(format!("{{\"signer\":\"s\",\"manifest\":{{\"sequence\":{n}}}}}\n"));
        let packed = pack(&[object(3), "no line".into(), object(7)]).unwrap();
        let index = unpack(&packed).unwrap();
        assert_eq!(index.keys().copied().collect::<Vec<_>>(), [3, 7]);
        assert_eq!(index[&7], object(7));
        for cut in 0..packed.len() {
            assert!(unpack(&packed[..cut]).is_err() || cut == 0, "{cut}");
        }
        let bomb = zstd::encode_all(io::repeat(b'x').take(MANIFEST_MAX_BYTES * 8), 1).unwrap();
        for bad in [&b"not zstd"[..], &zstd::encode_all(&b"{}\n"[..], 1).unwrap(), &bomb] {
            assert!(unpack(bad).is_err());
        }
    }
}
