//! Quiet times: a stream without changes leaves nothing to store, and so no proof that nothing happened. Its agent says so in
//! one small object of its own, signed as manifests are, and written over again and again.
//!
//! What an older one in its place would hide is only that it was quiet for longer.

use crate::error::{Error, Result};
use crate::keys::Signer;
use crate::manifest::{API_VERSION, opened_by, signed};
use crate::names::{ClusterName, WriterName};
use crate::vault::Vault;
use crate::writer::Writer;
use serde::{Deserialize, Serialize};

/// The folder below the cluster's.
pub(crate) const QUIET: &str = "quiet";
/// A larger object is none.
const MAX_BYTES: u64 = 16 << 10;
/// More writers than this no cluster has.
const WRITERS_MAX: usize = 64;

/// At a time a revision was the newest of its timeline, and all of it stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quiet {
    /// `rekindle.dev/v1`.
    api_version: String,
    /// `Quiet`: never to be taken for a manifest.
    kind: String,
    /// The cluster's folder.
    cluster: ClusterName,
    /// Who says so.
    writer: WriterName,
    /// Id of the timeline.
    pub timeline: String,
    /// The revision.
    pub revision: i64,
    /// The time, milliseconds since the Unix epoch.
    pub at_ms: i64,
}

impl Quiet {
    fn opened(object: &str, bytes: &[u8], cluster: &ClusterName, trusted: &[Signer]) -> Result<Self> {
        let value = opened_by(object, bytes, trusted)?;
        let parse = |source| Error::Manifest { object: object.to_owned(), source };
        let quiet: Self = serde_json::from_str(value.get()).map_err(parse)?;
        if quiet.api_version != API_VERSION || quiet.kind != "Quiet" {
            return Err(Error::Version { object: object.to_owned(), version: quiet.api_version });
        }
        if quiet.cluster != *cluster {
            return Err(Error::Misplaced { object: object.to_owned(), says: quiet.cluster.to_string() });
        }
        Ok(quiet)
    }
}

impl Vault {
    /// What writers last said of quiet times. What does not count is left out: it would only add to what is known.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn quiet(&self) -> Result<Vec<Quiet>> {
        let mut told = Vec::new();
        for file in self.store.list(QUIET, None).await?.into_iter().take(WRITERS_MAX) {
            let name = format!("{QUIET}/{}", file.file);
            let bytes = match self.store.read_small(&name, MAX_BYTES).await {
                Err(Error::TooLarge { .. }) => continue,
                bytes => bytes?,
            };
            let opened = |bytes: bytes::Bytes| {
                Quiet::opened(&self.object(&name), &bytes, &self.cluster, &self.trusted).ok()
            };
            told.extend(bytes.and_then(opened));
        }
        Ok(told)
    }
}

impl Writer {
    /// Says that at `at_ms` (milliseconds since the Unix epoch) `revision` was the newest of a timeline.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn put_quiet(&self, timeline: &str, revision: i64, at_ms: i64) -> Result<()> {
        let vault = &self.publisher.vault;
        let quiet = Quiet {
            api_version: API_VERSION.into(),
            kind: "Quiet".into(),
            cluster: vault.cluster.clone(),
            writer: self.publisher.name.clone(),
            timeline: timeline.to_owned(),
            revision,
            at_ms,
        };
        let name = format!("{QUIET}/{}.json", self.publisher.name);
        let bytes = signed(&name, &quiet, &self.publisher.key)?;
        vault.store.put(&name, bytes.into()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Recipients, SigningKey};
    use crate::store::Store;
    use age::x25519::Identity;

    // What is told is read by those who trust its writer; in another cluster's folder, or from a stranger, it tells nothing.
    #[tokio::test]
    async fn only_the_trusted_are_heard() {
        let (dir, store) = (tempfile::tempdir().unwrap(), Store::memory());
        let key = SigningKey::create(&dir.path().join("key")).unwrap();
        let stranger = SigningKey::create(&dir.path().join("stranger")).unwrap();
        let vault = |name: &str, key: &SigningKey| {
            Vault::new(&store, ClusterName::new(name).unwrap(), &[key.signer()]).unwrap()
        };
        let recipients = Recipients::new([Identity::generate().to_public().to_string().as_str()]).unwrap();
        let prod = vault("prod", &key);
        assert_eq!(prod.quiet().await.unwrap(), []);
        let name = WriterName::new("cp-1").unwrap();
        let writer = prod.writer(name, key.clone(), recipients).await.unwrap();
        for at_ms in [500, 900] {
            writer.put_quiet("t", 7, at_ms).await.unwrap();
        }
        let told = prod.quiet().await.unwrap();
        assert_eq!((told.len(), told[0].revision, told[0].at_ms), (1, 7, 900));
        assert_eq!(vault("prod", &stranger).quiet().await.unwrap(), []);
        let other = vault("other", &key);
        let bytes = prod.store.read_small("quiet/cp-1.json", MAX_BYTES).await.unwrap().unwrap();
        other.store.put("quiet/cp-1.json", bytes.into()).await.unwrap();
        other.store.put("quiet/cp-2.json", vec![b'x'; 40_000].into()).await.unwrap();
        assert_eq!(other.quiet().await.unwrap(), []);
    }
}
