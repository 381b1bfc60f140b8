//! Writing a new database from end to end, in constant memory.
//!
//! Buckets come in byte order and rows in key order, so every tree can be built from its leaves up: a full leaf goes
//! out at once, its first key and page id go to the branch level above, and so on (`tree.rs`). Nothing is ever
//! rewritten but the two meta pages, which come last: a file whose writing broke off is no database.
use std::fs::File;

use crate::error::{Error, WriteFault};
use crate::file::BoltFile;
use crate::layout::{
    BUCKET_HEADER_BYTES, BucketHeader, ELEMENT_IS_BUCKET, FLAG_META, META_BYTES, Meta, PAGE_HEADER_BYTES,
    PageHeader, valid_page_size,
};
use crate::sink::PageSink;
use crate::source::ReadAt;
use crate::tree::TreeBuilder;

/// bbolt's `MaxKeySize`.
const KEY_BYTES_MAX: usize = 32768;
/// With its neighbours on the same page this stays below the longest run that the reader accepts.
const VALUE_BYTES_MAX: usize = 128 << 20;

/// Writes a new database into an empty file.
///
/// Leaves are packed full (etcd's `key` bucket only grows at its right edge), values larger than a page get overflow
/// pages, and no branch page has fewer than two children (bbolt asserts that when it rebalances). No free list is
/// stored, as etcd does on Linux; there is no free page. The memory used does not depend on the size of the file.
#[derive(Debug)]
pub struct Writer {
    sink: PageSink,
    root: TreeBuilder,
    open: Option<OpenBucket>,
    last_name: Vec<u8>,
    rows: u64,
}

#[derive(Debug)]
struct OpenBucket {
    tree: TreeBuilder,
    sequence: u64,
    last_key: Vec<u8>,
}

/// A database that has been written completely, but not yet synced.
#[derive(Debug)]
pub struct FinishedFile {
    /// The file. Nothing has been synced: `sync_all` is the caller's, as is that of the folder.
    pub file: File,
    /// Its size in bytes: whole pages.
    pub bytes: u64,
    /// Its pages, the meta pages included; also the high-water mark.
    pub pages: u64,
    /// Rows written, those of kept buckets not counted.
    pub rows: u64,
}

impl Writer {
    /// Starts a database of pages of `page_size` bytes in `file`, which must be empty. `name` stands for the file in
    /// errors. bbolt takes the machine's page size (4096 nearly everywhere) for a new file and reads any other.
    ///
    /// # Errors
    /// [`Error::Rejected`] for an impossible page size, [`Error::Io`] when no thread can be started.
    pub fn create(name: impl Into<String>, file: File, page_size: u32) -> Result<Self, Error> {
        let name = name.into();
        if !valid_page_size(page_size) {
            let what = format!("pages of {page_size} bytes");
            return Err(Error::Rejected { file: name, what, fault: WriteFault::PageSize });
        }
        Ok(Self {
            sink: PageSink::new(name, file, page_size)?,
            root: TreeBuilder::new(page_size),
            open: None,
            last_name: Vec::new(),
            rows: 0,
        })
    }

    /// Goes on in `file`, which must be a copy of all pages of `base`: what is written now lies behind them and
    /// replaces the root bucket. Each of `base`'s buckets that is to stay is named to [`keep_bucket`](Self::keep_bucket),
    /// in its place in the order; pages of the others become free. `base` should have been checked: pages are taken
    /// over as they are.
    ///
    /// # Errors
    /// [`Error::Io`] when no thread can be started.
    pub fn behind<S: ReadAt>(name: impl Into<String>, file: File, base: &BoltFile<S>) -> Result<Self, Error> {
        let page_size = base.meta().page_size;
        let sink = PageSink::behind(name.into(), file, page_size, base.usable_pages())?;
        let root = TreeBuilder::new(page_size);
        Ok(Self { sink, root, open: None, last_name: Vec::new(), rows: 0 })
    }

    /// Ends the bucket before and takes the top-level bucket `name` over from the database of
    /// [`behind`](Self::behind). `false`: it has none of that name.
    ///
    /// # Errors
    /// [`Error::Rejected`] when the name is not greater than the one before; [`Error::Damaged`]; [`Error::Io`].
    pub fn keep_bucket<S: ReadAt>(&mut self, base: &BoltFile<S>, name: &[u8]) -> Result<bool, Error> {
        check_key(name, &self.last_name).map_err(|fault| self.sink.rejected("bucket", name, fault))?;
        let Some(value) = base.bucket_value(name)? else { return Ok(false) };
        self.close_bucket()?;
        self.last_name.clear();
        self.last_name.extend_from_slice(name);
        self.root.add(&mut self.sink, ELEMENT_IS_BUCKET, name, &value)?;
        Ok(true)
    }

    /// Begins the top-level bucket `name` and ends the one before it. A bucket may stay empty.
    ///
    /// # Errors
    /// [`Error::Rejected`] when the name is empty, too long or not greater than the one before; [`Error::Io`].
    pub fn bucket(&mut self, name: &[u8]) -> Result<BucketWriter<'_>, Error> {
        check_key(name, &self.last_name).map_err(|fault| self.sink.rejected("bucket", name, fault))?;
        self.close_bucket()?;
        self.last_name.clear();
        self.last_name.extend_from_slice(name);
        let tree = TreeBuilder::new(self.sink.page_size());
        self.open = Some(OpenBucket { tree, sequence: 0, last_key: Vec::new() });
        Ok(BucketWriter { writer: self })
    }

    /// Ends the last bucket, writes the root bucket and both meta pages. The caller decides about syncing.
    ///
    /// # Errors
    /// [`Error::Io`] when writing fails.
    pub fn finish(mut self) -> Result<FinishedFile, Error> {
        self.close_bucket()?;
        let root = self.root.finish(&mut self.sink)?;
        let pages = self.sink.next_page();
        let page_size = self.sink.page_size();
        let (file, bytes) = self.sink.finish(|page| {
            // Both meta pages are valid and describe the same tree, with the transaction ids of a new database
            // (`DB.init`); the first transaction, number 2, will replace the first.
            let meta = Meta {
                page_size,
                root,
                root_sequence: 0,
                freelist: None,
                high_water_mark: pages,
                txid: page,
            };
            let header = PageHeader { id: page, flags: FLAG_META, count: 0, overflow: 0 };
            let mut out = [0; PAGE_HEADER_BYTES + META_BYTES];
            let (head, body) = out.split_at_mut(PAGE_HEADER_BYTES);
            head.copy_from_slice(&header.to_bytes());
            body.copy_from_slice(&meta.to_bytes());
            out
        })?;
        Ok(FinishedFile { file, bytes, pages, rows: self.rows })
    }

    fn close_bucket(&mut self) -> Result<(), Error> {
        let Some(mut bucket) = self.open.take() else { return Ok(()) };
        let root = bucket.tree.finish(&mut self.sink)?;
        let value: [u8; BUCKET_HEADER_BYTES] = BucketHeader { root, sequence: bucket.sequence }.to_bytes();
        self.root.add(&mut self.sink, ELEMENT_IS_BUCKET, &self.last_name, &value)
    }
}

/// The bucket a [`Writer`] is filling; it ends when the next one begins.
#[derive(Debug)]
pub struct BucketWriter<'w> {
    writer: &'w mut Writer,
}

impl BucketWriter<'_> {
    /// Appends a row. Keys must ascend.
    ///
    /// # Errors
    /// [`Error::Rejected`] when the key is empty, too long or not greater than the one before, or the value is longer
    /// than 128 MiB; [`Error::Io`] when writing fails.
    #[inline]
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let Writer { sink, open, rows, .. } = &mut *self.writer;
        let Some(bucket) = open else { return Err(sink.rejected("key", key, WriteFault::NoBucket)) };
        let fault = check_key(key, &bucket.last_key).err();
        if let Some(fault) = fault.or((value.len() > VALUE_BYTES_MAX).then_some(WriteFault::ValueTooLong)) {
            return Err(sink.rejected("key", key, fault));
        }
        bucket.last_key.clear();
        bucket.last_key.extend_from_slice(key);
        *rows += 1;
        bucket.tree.add(sink, 0, key, value)
    }

    /// Sets the bucket's sequence number (0 unless set).
    pub fn set_sequence(&mut self, sequence: u64) {
        if let Some(bucket) = &mut self.writer.open {
            bucket.sequence = sequence;
        }
    }
}

#[inline]
fn check_key(key: &[u8], last: &[u8]) -> Result<(), WriteFault> {
    if key.is_empty() {
        Err(WriteFault::EmptyKey)
    } else if key.len() > KEY_BYTES_MAX {
        Err(WriteFault::KeyTooLong)
    } else if key <= last {
        Err(WriteFault::Order)
    } else {
        Ok(())
    }
}
