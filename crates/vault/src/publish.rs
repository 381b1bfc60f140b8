//! Taking a place in the chain: the one thing that writers race for.

use crate::error::{Error, Result};
use crate::keys::SigningKey;
use crate::manifest::{API_VERSION, Content, Link, MANIFEST_MAX_BYTES, Manifest};
use crate::names::{self, SEQUENCE_MAX, WriterName};
use crate::vault::Vault;
use crate::{hex, now_ms};
use sha2::{Digest, Sha256};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// So many writers may take the next place before this one gives up.
const TRIES: usize = 100;

/// So many requests for a place may stay without an answer.
const UNANSWERED: usize = 3;

/// For so long after a manifest was seen to be the newest, the number behind it is tried without listing: were it taken,
/// it would be taken still, because retention removes nothing this young (`prune.rs`, half an hour).
const FRESH: Duration = Duration::from_secs(600);

/// Signs and writes manifests.
pub(crate) struct Publisher {
    pub(crate) vault: Vault,
    pub(crate) name: WriterName,
    pub(crate) key: SigningKey,
    /// The newest manifest seen: listing goes on from there.
    newest: Mutex<Option<Known>>,
}

/// A manifest, and when it was the newest, by both clocks: one stands still while a machine sleeps, one is set.
#[derive(Clone)]
struct Known {
    link: Link,
    at: Instant,
    at_ms: i64,
}

impl Known {
    fn is_fresh(&self) -> bool {
        let fresh_ms = i64::try_from(FRESH.as_millis()).unwrap_or(i64::MAX);
        self.at.elapsed() < FRESH && (0..fresh_ms).contains(&now_ms().saturating_sub(self.at_ms))
    }
}

impl Publisher {
    /// The vault must trust the key, or nobody could read back what was written.
    pub(crate) fn new(vault: &Vault, name: WriterName, key: SigningKey) -> Result<Self> {
        if !vault.trusts(key.signer()) {
            let object = vault.object("manifest");
            return Err(Error::UnknownSigner { object, signer: key.signer().to_string() });
        }
        Ok(Self { vault: vault.patient(), name, key, newest: Mutex::default() })
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
        let mut unanswered = 0..UNANSWERED;
        for attempt in 0..TRIES {
            let (at, at_ms) = (Instant::now(), now_ms());
            let fresh = self.known().filter(|known| attempt == 0 && known.is_fresh());
            manifest.before = match fresh {
                Some(known) => Some(known.link),
                None => self.newest().await?,
            };
            manifest.sequence = manifest.before.as_ref().map_or(0, |before| before.sequence) + 1;
            if manifest.sequence > SEQUENCE_MAX {
                return Err(self.no_sequence("the last number is taken"));
            }
            let bytes = manifest.sealed(&self.key)?;
            let name = manifest.name();
            let created = match self.vault.store.create(&name, bytes.clone()).await {
                Err(error) if error.is_unanswered() && unanswered.next().is_some() => false,
                created => created?,
            };
            // a request whose answer was lost finds its own object there
            let ours = created
                || self.vault.store.read_small(&name, MANIFEST_MAX_BYTES).await?.is_some_and(|b| b == bytes);
            if ours {
                let link = Link { sequence: manifest.sequence, sha256: hex(&Sha256::digest(&bytes)) };
                self.remember(Known { link, at, at_ms });
                return Ok(manifest);
            }
        }
        Err(self.no_sequence("other writers took every number that was tried"))
    }

    fn no_sequence(&self, why: &'static str) -> Error {
        Error::NoSequence { cluster: self.vault.cluster.to_string(), why }
    }

    fn known(&self) -> Option<Known> {
        self.newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn remember(&self, seen: Known) {
        let mut newest = self.newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if newest.as_ref().is_none_or(|known| known.link.sequence <= seen.link.sequence) {
            *newest = Some(seen);
        }
    }

    /// The newest object in the manifest folder, whoever wrote it.
    async fn newest(&self) -> Result<Option<Link>> {
        let (at, at_ms) = (Instant::now(), now_ms());
        let known = self.known().map(|known| known.link);
        let after = known.as_ref().map(|link| names::manifest(link.sequence));
        let listed = self.vault.store.list("manifest", after.as_deref()).await?;
        let Some(sequence) = listed.iter().filter_map(|file| names::sequence_of(&file.file)).max() else {
            if let Some(link) = known.clone() {
                self.remember(Known { link, at, at_ms });
            }
            return Ok(known);
        };
        let name = names::manifest(sequence);
        let Some(bytes) = self.vault.store.read_small(&name, MANIFEST_MAX_BYTES).await? else {
            return Err(self.no_sequence("the newest manifest went away while it was read"));
        };
        let link = Link { sequence, sha256: hex(&Sha256::digest(&bytes)) };
        self.remember(Known { link: link.clone(), at, at_ms });
        Ok(Some(link))
    }
}
