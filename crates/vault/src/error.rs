//! What can go wrong with a vault. Every error names its object, file or store; causes are chained.

use std::path::PathBuf;

/// Shorthand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the vault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address of a vault is of no use.
    #[error("{url} is not the address of a vault")]
    Url {
        /// As given.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A cluster's or writer's name that could not be part of an object's name.
    #[error(
        "{name:?} is no name for a {what}: 1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"
    )]
    Name {
        /// `cluster` or `writer`.
        what: &'static str,
        /// As given.
        name: String,
    },
    /// The store did not do what it was asked.
    #[error("cannot {action} {object}")]
    Store {
        /// What was asked.
        action: &'static str,
        /// The object.
        object: String,
        /// The store's answer.
        source: Box<object_store::Error>,
    },
    /// The store took an object and has none, or one of another size.
    #[error("{object} was stored, and is not there")]
    Vanished {
        /// The object.
        object: String,
    },
    /// The store lets one writer overwrite another's object.
    #[error(
        "{url} does not honour conditional puts: it replaced an object that was to be created only if absent"
    )]
    NoConditionalPut {
        /// The vault.
        url: String,
    },
    /// A local file.
    #[error("cannot {action} {}", path.display())]
    Local {
        /// The file.
        path: PathBuf,
        /// What was done.
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A signing key file holds none.
    #[error("{} holds no Ed25519 signing key (PKCS#8 PEM)", path.display())]
    SigningKey {
        /// The file.
        path: PathBuf,
    },
    /// A signer's public key that is none.
    #[error("{text:?} is no signer: expected ed25519: and 44 base64 characters")]
    Signer {
        /// As given.
        text: String,
    },
    /// A recipient that is none.
    #[error("{text:?} is no age recipient: {reason}")]
    Recipient {
        /// As given.
        text: String,
        /// What age says.
        reason: &'static str,
    },
    /// No recipient was given.
    #[error("no recipient is given: the vault holds nothing unencrypted")]
    NoRecipients,
    /// An identity file holds none.
    #[error("{} holds no age identity", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nobody was trusted to sign.
    #[error("no trusted signer is given: anybody who can write the store could have made what is in it")]
    NoSigners,
    /// An object that its format says must be small is not.
    #[error("{object} has {size_bytes} bytes, at most {max_bytes} are read")]
    TooLarge {
        /// The object.
        object: String,
        /// Its size.
        size_bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// A folder of the store has more objects than a vault ever has.
    #[error("{folder} has more than {max} objects")]
    TooMany {
        /// The folder.
        folder: String,
        /// The limit.
        max: usize,
    },
    /// No manifest of a number.
    #[error("there is no {object}")]
    NoManifest {
        /// The object.
        object: String,
    },
    /// A manifest that is not one.
    #[error("{object} is no manifest")]
    Manifest {
        /// The object.
        object: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A manifest of another version of the format.
    #[error("{object} is of format {version:?}, this program reads {}", crate::manifest::API_VERSION)]
    Version {
        /// The object.
        object: String,
        /// Its version.
        version: String,
    },
    /// A manifest signed by somebody who is not trusted.
    #[error("{object} is signed by {signer}, who is not trusted")]
    UnknownSigner {
        /// The object.
        object: String,
        /// Who it says signed it.
        signer: String,
    },
    /// A signature that does not fit.
    #[error("the signature of {object} is not by {signer} over what it holds")]
    Signature {
        /// The object.
        object: String,
        /// Who it says signed it.
        signer: String,
    },
    /// A signed manifest, but of another place.
    #[error("{object} was signed for {says}: it has been moved or copied here")]
    Misplaced {
        /// The object.
        object: String,
        /// The cluster and sequence number in it.
        says: String,
    },
    /// A signed manifest that contradicts itself.
    #[error("{object} contradicts itself: {what}")]
    Contradiction {
        /// The object.
        object: String,
        /// How.
        what: String,
    },
    /// A part has another size than its manifest says.
    #[error("{object} has {actual} {what}, its manifest says {expected}")]
    Size {
        /// The object.
        object: String,
        /// `bytes` or `bytes of content`.
        what: &'static str,
        /// Of the manifest.
        expected: u64,
        /// Found.
        actual: u64,
    },
    /// A part has another sha256 than its manifest says.
    #[error("the sha256 of {what} {object} is {actual}, its manifest says {expected}")]
    Digest {
        /// The object.
        object: String,
        /// `` or `the content of`.
        what: &'static str,
        /// Of the manifest.
        expected: String,
        /// Found.
        actual: String,
    },
    /// A part could not be decrypted.
    #[error("cannot decrypt {object}")]
    Decrypt {
        /// The object.
        object: String,
        /// Why.
        source: Box<age::DecryptError>,
    },
    /// A part could not be encrypted.
    #[error("cannot encrypt {object}")]
    Encrypt {
        /// The object.
        object: String,
        /// Why.
        source: Box<age::EncryptError>,
    },
    /// A part's content could not be read: zstd or the stream in age is broken.
    #[error("cannot read the content of {object}")]
    Content {
        /// The object.
        object: String,
        /// Why.
        source: std::io::Error,
    },
    /// The content of a full is no sound snapshot, that of a segment no sound segment, or an archive of objects none.
    #[error("what {object} holds is not sound")]
    Inside {
        /// The object.
        object: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A snapshot file is not what its caller verified.
    #[error("{} has changed since it was verified", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A snapshot or segment holds something else than its manifest says.
    #[error("{object}: its manifest says {what} {expected}, its content {actual}")]
    Differs {
        /// The object.
        object: String,
        /// What differs.
        what: &'static str,
        /// Of the manifest.
        expected: String,
        /// Of the content.
        actual: String,
    },
    /// No sequence number is left, or none could be had.
    #[error("cannot take a place in the chain of {cluster}: {why}")]
    NoSequence {
        /// The cluster.
        cluster: String,
        /// Why.
        why: &'static str,
    },
    /// Nothing is removed without a good full.
    #[error("no full backup of {cluster} is good: nothing is removed")]
    NoGoodFull {
        /// The cluster.
        cluster: String,
    },
    /// A worker thread ended without an answer.
    #[error("the thread {doing} ended without an answer")]
    Worker {
        /// What it did.
        doing: &'static str,
    },
}

impl Error {
    /// Whether it is not known what became of a request: its answer was lost, or the server could give none.
    pub(crate) fn is_unanswered(&self) -> bool {
        matches!(self, Self::Store { source, .. } if matches!(**source, object_store::Error::Generic { .. }))
    }
}
