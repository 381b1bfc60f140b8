//! Keys: who may sign (Ed25519), to whom is encrypted (age recipients), who can read (age identities).

use crate::error::{Error, Result};
use age::secrecy::SecretString;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use rand::TryRngCore;
use rekindle_model::Redacted;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;

const SIGNER_PREFIX: &str = "ed25519:";
/// Work of a passphrase, as the `age` tool has it: 256 MiB and about a second, on whatever machine.
const SCRYPT_LOG_N: u8 = 18;
/// A part that asks for more work (this is 1 GiB of memory) was not written here.
const SCRYPT_LOG_N_MAX: u8 = 20;
/// Key and identity files are small.
const KEY_FILE_MAX_BYTES: u64 = 64 << 10;

/// The public half of a signing key: `ed25519:` and 32 bytes in base64.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Signer(VerifyingKey);

impl Signer {
    /// Whether `signature` is by this signer over `message`; strict: no weak keys, one form only.
    pub(crate) fn signed(&self, message: &[u8], signature: &str) -> bool {
        let bytes = STANDARD.decode(signature).ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
        bytes.is_some_and(|bytes| self.0.verify_strict(message, &Signature::from_bytes(&bytes)).is_ok())
    }
}

impl FromStr for Signer {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        text.strip_prefix(SIGNER_PREFIX)
            .and_then(|rest| STANDARD.decode(rest).ok())
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok())
            .map(Self)
            .ok_or_else(|| Error::Signer { text: text.to_owned() })
    }
}

impl TryFrom<String> for Signer {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Signer> for String {
    fn from(signer: Signer) -> Self {
        signer.to_string()
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SIGNER_PREFIX}{}", STANDARD.encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A signing key; never shown.
#[derive(Clone)]
pub struct SigningKey(Redacted<ed25519_dalek::SigningKey>);

impl SigningKey {
    /// Makes one and writes it (PKCS#8 PEM, mode 0600) to a file that must not exist.
    ///
    /// # Errors
    /// [`Error::Local`].
    pub fn create(path: &Path) -> Result<Self> {
        let local = |action| move |source| Error::Local { path: path.to_owned(), action, source };
        let mut seed = [0; 32];
        rand::rngs::OsRng
            .try_fill_bytes(&mut seed)
            .map_err(std::io::Error::other)
            .map_err(local("draw random bytes for"))?;
        let key = ed25519_dalek::SigningKey::from_bytes(&seed);
        // without the public half: OpenSSL 3.0 does not read the newer form that has it
        let pem = KeypairBytes { secret_key: seed, public_key: None }
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(std::io::Error::other)
            .map_err(local("encode a key for"))?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(local("create"))?;
        file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()).map_err(local("write"))?;
        Ok(Self(Redacted::new(key)))
    }

    /// Reads one (as `openssl genpkey -algorithm ed25519` writes it, too).
    ///
    /// # Errors
    /// [`Error::Local`], [`Error::SigningKey`].
    pub fn read(path: &Path) -> Result<Self> {
        let pem = read_small(path)?;
        ed25519_dalek::SigningKey::from_pkcs8_pem(pem.expose())
            .map(|key| Self(Redacted::new(key)))
            .map_err(|_| Error::SigningKey { path: path.to_owned() })
    }

    /// Its public half.
    pub fn signer(&self) -> Signer {
        Signer(self.0.expose().verifying_key())
    }

    /// Signs; base64.
    pub(crate) fn sign(&self, message: &[u8]) -> String {
        STANDARD.encode(self.0.expose().sign(message).to_bytes())
    }
}

/// To whom parts are encrypted: X25519 recipients (`age1...`), or one passphrase.
#[derive(Clone)]
pub struct Recipients(Kind);

#[derive(Clone)]
enum Kind {
    X25519(Vec<age::x25519::Recipient>),
    Passphrase(SecretString),
}

impl Recipients {
    /// From `age1...` texts.
    ///
    /// # Errors
    /// [`Error::Recipient`], [`Error::NoRecipients`].
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let parse = |text: &str| {
            age::x25519::Recipient::from_str(text)
                .map_err(|reason| Error::Recipient { text: text.to_owned(), reason })
        };
        let recipients: Vec<_> = texts.into_iter().map(parse).collect::<Result<_>>()?;
        if recipients.is_empty() { Err(Error::NoRecipients) } else { Ok(Self(Kind::X25519(recipients))) }
    }

    /// One passphrase. Each part then costs about a second and 256 MiB (scrypt), in writing and in reading: not for a
    /// stream of segments.
    pub fn passphrase(passphrase: Redacted<String>) -> Self {
        Self(Kind::Passphrase(passphrase.expose().clone().into()))
    }

    /// Encrypts a small content whole, as `age -r` does; `object` is for the error.
    ///
    /// # Errors
    /// [`Error::Encrypt`], [`Error::Content`].
    pub fn encrypt(&self, object: &str, content: &[u8]) -> Result<Vec<u8>> {
        let object = || object.to_owned();
        let encryptor =
            self.encryptor().map_err(|error| Error::Encrypt { object: object(), source: Box::new(error) })?;
        let write = || -> std::io::Result<Vec<u8>> {
            let mut age = encryptor.wrap_output(Vec::with_capacity(content.len() + 512))?;
            age.write_all(content)?;
            age.finish()
        };
        write().map_err(|source| Error::Content { object: object(), source })
    }

    pub(crate) fn encryptor(&self) -> std::result::Result<age::Encryptor, age::EncryptError> {
        match &self.0 {
            Kind::X25519(recipients) => {
                age::Encryptor::with_recipients(recipients.iter().map(|r| r as &dyn age::Recipient))
            }
            Kind::Passphrase(passphrase) => {
                let mut recipient = age::scrypt::Recipient::new(passphrase.clone());
                recipient.set_work_factor(SCRYPT_LOG_N);
                age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient))
            }
        }
    }
}

/// Who can read parts; never shown.
pub struct Identities(Vec<Box<dyn age::Identity + Send + Sync>>);

impl Identities {
    /// From an identity file as `age-keygen` writes it.
    ///
    /// # Errors
    /// [`Error::Local`], [`Error::Identity`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_small(path)?;
        let none = |source| Error::Identity { path: path.to_owned(), source };
        let identities = age::IdentityFile::from_buffer(text.expose().as_bytes())
            .map_err(none)?
            .into_identities()
            .map_err(|error| none(std::io::Error::other(error)))?;
        if identities.is_empty() {
            return Err(none(std::io::ErrorKind::InvalidData.into()));
        }
        Ok(Self(identities))
    }

    /// A passphrase.
    pub fn passphrase(passphrase: Redacted<String>) -> Self {
        let mut identity = age::scrypt::Identity::new(passphrase.expose().clone().into());
        identity.set_max_work_factor(SCRYPT_LOG_N_MAX);
        Self(vec![Box::new(identity)])
    }

    /// Decrypts a small content whole; more than `max_bytes` is refused. `object` is for the error.
    ///
    /// # Errors
    /// [`Error::Decrypt`], [`Error::Content`].
    pub fn decrypt(&self, object: &str, stored: &[u8], max_bytes: u64) -> Result<Vec<u8>> {
        use std::io::Read;
        let decrypt = |error| Error::Decrypt { object: object.to_owned(), source: Box::new(error) };
        let decryptor = age::Decryptor::new_buffered(stored).map_err(decrypt)?;
        let age = decryptor.decrypt(self.iter()).map_err(decrypt)?;
        let mut content = Vec::new();
        let read = age.take(max_bytes.saturating_add(1)).read_to_end(&mut content);
        let too_long = |count| {
            let longer = std::io::ErrorKind::FileTooLarge;
            if count as u64 > max_bytes { Err(longer.into()) } else { Ok(content) }
        };
        read.and_then(too_long).map_err(|source| Error::Content { object: object.to_owned(), source })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.0.iter().map(|identity| &**identity as &dyn age::Identity)
    }
}

/// Proves that whoever holds `identities` can read what is encrypted to `recipients`: by doing it once.
///
/// # Errors
/// [`Error::Encrypt`], [`Error::Decrypt`], [`Error::Content`].
pub fn prove(recipients: &Recipients, identities: &Identities) -> Result<()> {
    const OBJECT: &str = "the proof";
    const CONTENT: &[u8] = b"who can read this can read the backups";
    let mut stored = Vec::new();
    let sealed = crate::seal::seal(OBJECT, CONTENT, None, recipients, &mut stored)?;
    crate::seal::unseal(OBJECT, &sealed.part(OBJECT.into()), &*stored, identities, std::io::sink())
}

/// A small text file that holds a secret.
fn read_small(path: &Path) -> Result<Redacted<String>> {
    use std::io::Read;
    let local = |source| Error::Local { path: path.to_owned(), action: "read", source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(local)?;
    file.take(KEY_FILE_MAX_BYTES).read_to_string(&mut text).map_err(local)?;
    Ok(Redacted::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    // The key survives its file, its file is for its owner alone, and a signature holds for its own message only.
    #[test]
    fn a_signing_key_is_kept_and_signs() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sign.key");
        let made = SigningKey::create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(SigningKey::create(&path), Err(Error::Local { .. })), "never overwritten");
        let read = SigningKey::read(&path).unwrap();
        let signer: Signer = made.signer().to_string().parse().unwrap();
        assert_eq!(read.signer(), signer);
        let signature = read.sign(b"message");
        assert!(signer.signed(b"message", &signature));
        assert!(!signer.signed(b"massage", &signature));
        assert!(!signer.signed(b"message", "AAAA"));
        assert!("ed25519:AAAA".parse::<Signer>().is_err());
        std::fs::write(&path, "no key").unwrap();
        assert!(matches!(SigningKey::read(&path), Err(Error::SigningKey { .. })));
    }

    #[test]
    fn what_is_no_recipient_or_identity_is_refused() {
        assert!(matches!(Recipients::new(["age1nonsense"]), Err(Error::Recipient { .. })));
        assert!(matches!(Recipients::new([]), Err(Error::NoRecipients)));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        std::fs::write(&path, "# nothing\n").unwrap();
        assert!(matches!(Identities::read(&path), Err(Error::Identity { .. })));
    }
}
