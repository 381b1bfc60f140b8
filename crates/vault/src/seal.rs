//! Content to stored bytes and back: zstd, then age; hashed on both sides; bounded memory. Sync, on worker threads.

use crate::error::{Error, Result};
use crate::hex;
use crate::keys::{Identities, Recipients};
use crate::manifest::Part;
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::rc::Rc;

/// Level of zstd: its default; a snapshot shrinks to about a quarter at some 300 MB/s a core.
const ZSTD_LEVEL: i32 = 3;
/// An age header has some 100 bytes for each recipient; its parser takes time that grows with the square of it.
const HEADER_MAX_BYTES: u64 = 64 << 10;
const BUFFER_BYTES: usize = 256 << 10;

/// Sizes and digests of what was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) size_bytes: u64,
    pub(crate) sha256: String,
    pub(crate) plain_size_bytes: u64,
    pub(crate) plain_sha256: String,
    /// SHA-256 of the content's first bytes, as many as were asked for.
    pub(crate) head_sha256: Option<String>,
}

impl Sealed {
    pub(crate) fn part(&self, name: String) -> Part {
        Part {
            name,
            size_bytes: self.size_bytes,
            sha256: self.sha256.clone(),
            plain_size_bytes: self.plain_size_bytes,
            plain_sha256: self.plain_sha256.clone(),
        }
    }
}

/// Reads all of `source`, writes its sealed form. `object` is for errors; `head_bytes`: see [`Sealed::head_sha256`].
pub(crate) fn seal(
    object: &str,
    source: impl Read,
    head_bytes: Option<u64>,
    recipients: &Recipients,
    sink: impl Write,
) -> Result<Sealed> {
    let content = |source| Error::Content { object: object.to_owned(), source };
    let encrypt = |error| Error::Encrypt { object: object.to_owned(), source: Box::new(error) };
    let encryptor = recipients.encryptor().map_err(encrypt)?;
    let stored = Hashing::new(sink, None);
    let age = encryptor.wrap_output(stored).map_err(content)?;
    let buffered = BufWriter::with_capacity(BUFFER_BYTES, age);
    let mut zstd = zstd::stream::write::Encoder::new(buffered, ZSTD_LEVEL).map_err(content)?;
    zstd.include_checksum(true).map_err(content)?;
    let mut plain = Hashing::new(source, head_bytes);
    copy(&mut plain, &mut zstd).map_err(content)?;
    let buffered = zstd.finish().map_err(content)?;
    let age = buffered.into_inner().map_err(|error| content(error.into_error()))?;
    let mut stored = age.finish().map_err(content)?;
    stored.flush().map_err(content)?;
    Ok(Sealed {
        size_bytes: stored.count,
        sha256: stored.sha256(),
        plain_size_bytes: plain.count,
        plain_sha256: plain.sha256(),
        head_sha256: plain.head_sha256(),
    })
}

/// Reads a sealed part, writes its content, and compares sizes and digests on both sides with the manifest's.
///
/// What was written is worth nothing unless this says `Ok`.
pub(crate) fn unseal(
    object: &str,
    part: &Part,
    source: impl Read,
    identities: &Identities,
    sink: impl Write,
) -> Result<()> {
    // one byte more than there may be, so that more is seen
    let stored = Hashing::new(source.take(part.size_bytes.saturating_add(1)), None);
    let stored = Rc::new(std::cell::RefCell::new(stored));
    let outcome = unseal_content(object, part, Shared(stored.clone()), identities, sink);
    // damage as stored explains everything that followed from it
    let drained = copy(&mut Shared(stored.clone()), &mut io::sink());
    drained.map_err(|source| Error::Content { object: object.to_owned(), source })?;
    let stored = stored.borrow();
    compare(object, "", "bytes", (part.size_bytes, &part.sha256), (stored.count, stored.sha256()))?;
    outcome
}

/// Reads a stored part and compares its size and digest with the manifest's: what needs no identity.
pub(crate) fn check_stored(object: &str, part: &Part, source: impl Read) -> Result<()> {
    let mut stored = Hashing::new(source.take(part.size_bytes.saturating_add(1)), None);
    copy(&mut stored, &mut io::sink())
        .map_err(|source| Error::Content { object: object.to_owned(), source })?;
    compare(object, "", "bytes", (part.size_bytes, &part.sha256), (stored.count, stored.sha256()))
}

fn unseal_content(
    object: &str,
    part: &Part,
    source: impl Read,
    identities: &Identities,
    mut sink: impl Write,
) -> Result<()> {
    let content = |source| Error::Content { object: object.to_owned(), source };
    let decrypt = |error| Error::Decrypt { object: object.to_owned(), source: Box::new(error) };
    let left = Rc::new(Cell::new(HEADER_MAX_BYTES));
    let guarded = Guarded { inner: source, left: left.clone() };
    let buffered = BufReader::with_capacity(BUFFER_BYTES, guarded);
    let decryptor = age::Decryptor::new_buffered(buffered).map_err(decrypt)?;
    left.set(u64::MAX);
    let age = decryptor.decrypt(identities.iter()).map_err(decrypt)?;
    let zstd = zstd::stream::read::Decoder::new(age).map_err(content)?;
    let mut plain = Hashing::new(zstd.take(part.plain_size_bytes.saturating_add(1)), None);
    copy(&mut plain, &mut sink).map_err(content)?;
    sink.flush().map_err(content)?;
    compare(
        object,
        "the content of ",
        "bytes of content",
        (part.plain_size_bytes, &part.plain_sha256),
        (plain.count, plain.sha256()),
    )
}

fn compare(
    object: &str,
    whose: &'static str,
    what: &'static str,
    expected: (u64, &str),
    actual: (u64, String),
) -> Result<()> {
    let object = || object.to_owned();
    if expected.0 != actual.0 {
        return Err(Error::Size { object: object(), what, expected: expected.0, actual: actual.0 });
    }
    if expected.1 != actual.1 {
        let expected = expected.1.to_owned();
        return Err(Error::Digest { object: object(), what: whose, expected, actual: actual.1 });
    }
    Ok(())
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(buffer.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Counts and hashes what passes.
struct Hashing<T> {
    inner: T,
    sha: Sha256,
    count: u64,
    head: Option<Head>,
}

/// The sha256 of the first bytes.
struct Head {
    bytes: u64,
    sha: Option<Sha256>,
}

impl<T> Hashing<T> {
    fn new(inner: T, head_bytes: Option<u64>) -> Self {
        let head = head_bytes.map(|bytes| Head { bytes, sha: None });
        Self { inner, sha: Sha256::new(), count: 0, head }
    }

    fn pass(&mut self, bytes: &[u8]) {
        if let Some(head) = &mut self.head
            && head.sha.is_none()
            && let Some(missing) = head.bytes.checked_sub(self.count)
            && let Ok(missing) = usize::try_from(missing)
            && let Some(first) = bytes.get(..missing)
        {
            head.sha = Some(self.sha.clone().chain_update(first));
        }
        self.sha.update(bytes);
        self.count += bytes.len() as u64;
    }

    fn sha256(&self) -> String {
        hex(&self.sha.clone().finalize())
    }

    fn head_sha256(&self) -> Option<String> {
        let head = self.head.as_ref()?.sha.clone()?;
        Some(hex(&head.finalize()))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.pass(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.pass(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A reader that is still at hand after a decoder took it.
struct Shared<R>(Rc<std::cell::RefCell<R>>);

impl<R: Read> Read for Shared<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}

/// Ends with an error when a header does not end: age keeps all of it in memory.
struct Guarded<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let left = self.left.get();
        if count as u64 > left {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the age header is too long"));
        }
        self.left.set(left - count as u64);
        Ok(count)
    }
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
