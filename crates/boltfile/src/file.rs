//! Opening a database: which meta page counts, how large its pages are, and where the named buckets are.
//! Reading on from there: `bucket.rs` and `cursor.rs`; the check of the whole file: `check.rs`.
use std::fs::File;
use std::path::Path;

use crate::bucket::Bucket;
use crate::error::{Damage, Error, MetaFault, Violation};
use crate::layout::{META_BYTES, Meta, PAGE_HEADER_BYTES, PAGE_SIZE_MAX_BYTES, PAGE_SIZE_MIN_BYTES};
use crate::source::ReadAt;

/// A bbolt database opened for reading. It takes no lock and never writes; any number of threads may read through it.
///
/// Everything in the file is treated as hostile: damage met on the way is an [`Error::Damaged`] with the page and its
/// byte offset. Opening succeeds as soon as one meta page is valid, also when the file is too short, so that
/// [`check`](Self::check) can say what is wrong with the rest.
#[derive(Debug)]
pub struct BoltFile<S: ReadAt = File> {
    name: String,
    source: S,
    len_bytes: u64,
    meta: Meta,
    meta_faults: [Option<MetaFault>; 2],
}

impl BoltFile<File> {
    /// Opens the database at `path`, all of whose bytes belong to it.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be opened or read, [`Error::NoValidMeta`] when it is no database.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        let io = |action, source| Error::Io { file: path.display().to_string(), action, source };
        let source = File::open(path).map_err(|e| io("open it", e))?;
        let len_bytes = ReadAt::size(&source).map_err(|e| io("read its size", e))?;
        Self::from_source(name, source, len_bytes)
    }
}

impl<S: ReadAt> BoltFile<S> {
    /// Opens a database in the first `len_bytes` of `source` (an etcd snapshot has 32 bytes of sha256 behind it).
    /// `name` stands for the file in errors.
    ///
    /// # Errors
    /// [`Error::Truncated`] when the source is shorter, [`Error::NoValidMeta`] when it is no database, [`Error::Io`].
    pub fn from_source(name: impl Into<String>, source: S, len_bytes: u64) -> Result<Self, Error> {
        let name = name.into();
        let have = source.size().map_err(|source| Error::Io {
            file: name.clone(),
            action: "read its size",
            source,
        })?;
        if have < len_bytes {
            return Err(Error::Truncated { file: name, have, need: len_bytes });
        }
        let first = read_meta(&source, len_bytes, 0);
        let second = match &first {
            Ok(meta) => read_meta(&source, len_bytes, u64::from(meta.page_size))
                .and_then(|m| if m.page_size == meta.page_size { Ok(m) } else { Err(page_size_fault(&m)) }),
            Err(_) => find_second_meta(&source, len_bytes),
        };
        // The newer transaction counts; a torn newer meta page leaves the older one (`DB.meta`).
        let meta = match (&first, &second) {
            (Ok(a), Ok(b)) => *if b.txid > a.txid { b } else { a },
            (Ok(meta), Err(_)) | (Err(_), Ok(meta)) => *meta,
            (Err(first), Err(second)) => {
                return Err(Error::NoValidMeta { file: name, first: *first, second: *second });
            }
        };
        Ok(Self { name, source, len_bytes, meta, meta_faults: [first.err(), second.err()] })
    }

    /// The meta page in force.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The file's name, as errors give it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes that belong to the database.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// The source the database is read from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// The top-level bucket `name`, or `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a page on the way is damaged.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<'_, S>>, Error> {
        Bucket::root(self).bucket(name)
    }

    /// The names of the top-level buckets, in byte order.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a page on the way is damaged.
    pub fn bucket_names(&self) -> Result<Vec<Vec<u8>>, Error> {
        Bucket::root(self).bucket_names()
    }

    /// What the root bucket holds for the bucket `name`: its header, and its rows when they lie inline.
    pub(crate) fn bucket_value(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let mut cursor = Bucket::root(self).cursor();
        let element = cursor.seek_element(name)?.filter(|e| e.key == name && e.is_bucket());
        Ok(element.map(|e| e.value.to_vec()))
    }

    pub(crate) fn page_bytes(&self) -> u64 {
        u64::from(self.meta.page_size)
    }

    /// Whole pages in the file.
    pub(crate) fn file_pages(&self) -> u64 {
        self.len_bytes / self.page_bytes()
    }

    /// Pages that can be read and used: all bitmaps are of this size, whatever the meta page claims.
    pub(crate) fn usable_pages(&self) -> u64 {
        self.file_pages().min(self.meta.high_water_mark)
    }

    pub(crate) fn meta_faults(&self) -> &[Option<MetaFault>; 2] {
        &self.meta_faults
    }

    pub(crate) fn violation(&self, page: u64, stack: Vec<u64>, damage: Damage) -> Violation {
        Violation { page, offset_bytes: page.saturating_mul(self.page_bytes()), stack, damage }
    }

    pub(crate) fn damaged(&self, violation: Violation) -> Error {
        Error::Damaged { file: self.name.clone(), violation: Box::new(violation) }
    }
}

fn page_size_fault(meta: &Meta) -> MetaFault {
    MetaFault::PageSize { found: meta.page_size }
}

/// Reads the meta structure of the page that starts at `offset`.
fn read_meta<S: ReadAt>(source: &S, len_bytes: u64, offset: u64) -> Result<Meta, MetaFault> {
    let mut page = [0u8; PAGE_HEADER_BYTES + META_BYTES];
    if offset + page.len() as u64 > len_bytes || source.read_exact_at(&mut page, offset).is_err() {
        return Err(MetaFault::Unreadable);
    }
    Meta::parse(page.get(PAGE_HEADER_BYTES..).unwrap_or_default())
}

/// Without meta page 0 nobody says how large a page is: page 1 is looked for at every size (`getPageSizeFromSecondMeta`).
fn find_second_meta<S: ReadAt>(source: &S, len_bytes: u64) -> Result<Meta, MetaFault> {
    let mut last = MetaFault::Unreadable;
    let mut offset = PAGE_SIZE_MIN_BYTES;
    while offset <= PAGE_SIZE_MAX_BYTES {
        match read_meta(source, len_bytes, u64::from(offset)) {
            Ok(meta) if meta.page_size == offset => return Ok(meta),
            Ok(meta) => last = page_size_fault(&meta),
            Err(fault @ (MetaFault::Checksum { .. } | MetaFault::Version { .. })) => last = fault,
            Err(_) => {}
        }
        offset *= 2;
    }
    Err(last)
}
