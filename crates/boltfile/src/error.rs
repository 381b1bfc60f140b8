//! What can go wrong: [`Error`] for calls that give up, [`Violation`] for each fault of a file that a check lists.
use std::fmt;
use std::io;

/// Why an operation on a database file failed. Every variant names its file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be opened, locked or asked for its size.
    #[error("{file}: cannot {action}")]
    Io {
        /// The file.
        file: String,
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Neither meta page is valid, so nothing in the file can be found.
    #[error("{file}: not a bbolt database: meta page 0: {first}; meta page 1: {second}")]
    NoValidMeta {
        /// The file.
        file: String,
        /// What is wrong with meta page 0.
        first: MetaFault,
        /// What is wrong with meta page 1.
        second: MetaFault,
    },
    /// The source holds fewer bytes than the caller said belong to the database.
    #[error("{file}: {have} bytes long, {need} were to be read")]
    Truncated {
        /// The file.
        file: String,
        /// Bytes there.
        have: u64,
        /// Bytes wanted.
        need: u64,
    },
    /// A page met on the way is damaged.
    #[error("{file}: {violation}")]
    Damaged {
        /// The file.
        file: String,
        /// The fault and where it lies.
        violation: Box<Violation>,
    },
    /// The writer was given something that no bbolt file can hold, or out of order.
    #[error("{file}: cannot write {what}: {fault}")]
    Rejected {
        /// The file being written.
        file: String,
        /// The bucket or key, escaped.
        what: String,
        /// Why not.
        fault: WriteFault,
    },
}

/// Why the writer refused its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteFault {
    /// Page sizes are powers of two from 1 KiB to 16 MiB.
    #[error("not a page size (a power of two from 1 KiB to 16 MiB)")]
    PageSize,
    /// Keys and bucket names have at least one byte.
    #[error("it is empty")]
    EmptyKey,
    /// Keys and bucket names have at most 32,768 bytes.
    #[error("it is longer than 32,768 bytes")]
    KeyTooLong,
    /// The value does not fit into the longest run of pages the reader accepts.
    #[error("its value is longer than 128 MiB")]
    ValueTooLong,
    /// Not greater than the key or bucket before it.
    #[error("it is not greater than the one before it")]
    Order,
    /// A row came before any bucket, or after the last.
    #[error("no bucket is open")]
    NoBucket,
}

/// What is wrong with a meta page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetaFault {
    /// The page could not be read or lies past the end of the file.
    #[error("not readable")]
    Unreadable,
    /// The magic number is not bbolt's.
    #[error("no bbolt magic number (found {found:#010x})")]
    Magic {
        /// What stands there.
        found: u32,
    },
    /// Not version 2 of the format.
    #[error("format version {found}, not 2")]
    Version {
        /// What stands there.
        found: u32,
    },
    /// The checksum does not match the 56 bytes before it.
    #[error("wrong checksum (computed {computed:#018x}, found {found:#018x})")]
    Checksum {
        /// FNV-1a-64 of the fields.
        computed: u64,
        /// What stands there.
        found: u64,
    },
    /// The page size is no power of two from 1 KiB to 16 MiB, or not the one that leads to this page.
    #[error("impossible page size {found}")]
    PageSize {
        /// What stands there.
        found: u32,
    },
}

/// One fault of a database file: what it is, where it lies, and the pages from a root down to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The page at fault.
    pub page: u64,
    /// Byte offset of that page in the file (saturating: page ids in a damaged file can be absurd).
    pub offset_bytes: u64,
    /// The page ids from the root bucket's root page down to the page at fault.
    pub stack: Vec<u64>,
    /// The fault.
    pub damage: Damage,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "page {} at byte {}: {} (stack: {:?})",
            self.page, self.offset_bytes, self.damage, self.stack
        )
    }
}

/// The kinds of fault. Element indexes count from 0 within their page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// One of the two meta pages is invalid. bbolt itself goes on with the other: a torn write looks like this.
    #[error("invalid meta page: {0}")]
    Meta(MetaFault),
    /// The file ends before the high-water mark.
    #[error("the file ends at byte {file_bytes}, before the high-water mark (page {high_water_mark})")]
    FileTooShort {
        /// Length of the database in bytes.
        file_bytes: u64,
        /// First page id never used.
        high_water_mark: u64,
    },
    /// The operating system could not read the page.
    #[error("not readable: {message}")]
    Unreadable {
        /// Kind of the failure.
        kind: io::ErrorKind,
        /// The failure's text.
        message: String,
    },
    /// A reference to page 0, page 1 or a page at or above the high-water mark.
    #[error("page id outside 2..{high_water_mark}")]
    OutOfRange {
        /// First page id never used.
        high_water_mark: u64,
    },
    /// The page or its overflow pages lie past the end of the file.
    #[error("it ends past the end of the file at byte {file_bytes}")]
    PastEndOfFile {
        /// Length of the database in bytes.
        file_bytes: u64,
    },
    /// The overflow pages reach past the high-water mark.
    #[error("{overflow} overflow pages reach past the high-water mark (page {high_water_mark})")]
    OverflowOutOfRange {
        /// Number of pages that follow the first.
        overflow: u32,
        /// First page id never used.
        high_water_mark: u64,
    },
    /// More overflow pages than this reader accepts (a run of 256 MiB).
    #[error("{overflow} overflow pages are more than is supported")]
    RunTooLong {
        /// Number of pages that follow the first.
        overflow: u32,
    },
    /// The header names another page.
    #[error("the page calls itself {found}")]
    WrongId {
        /// The id in the header.
        found: u64,
    },
    /// Not a page type that may stand here.
    #[error("page type {found:#06x} where {expected} is due")]
    WrongType {
        /// The flags in the header.
        found: u16,
        /// What may stand here.
        expected: &'static str,
    },
    /// A page that is referenced more than once: by two parents, by overflow, or in a cycle.
    #[error("page {shared} is referenced more than once")]
    Shared {
        /// The first page of the run that was already in use.
        shared: u64,
    },
    /// A page that is in use and in the free list.
    #[error("page {freed} is in use and in the free list")]
    ReachableFree {
        /// The first such page of the run.
        freed: u64,
    },
    /// Pages that are neither in use nor in the stored free list.
    #[error("not reachable and not in the free list, up to page {last}")]
    Unreachable {
        /// The last page of the gap that starts at the violation's page.
        last: u64,
    },
    /// Deeper than any tree that bbolt writes.
    #[error("the tree is deeper than {limit} levels")]
    TooDeep {
        /// The bound.
        limit: usize,
    },
    /// A branch page without elements.
    #[error("branch page without elements")]
    EmptyBranch,
    /// A leaf page without elements that is not the only page of its bucket: bbolt removes such pages on commit.
    #[error("leaf page without elements")]
    EmptyLeaf,
    /// A leaf page nearer to the root or farther from it than the first leaf of the same bucket.
    #[error("leaf page below {depth} branch pages, while the bucket's first is below {expected}")]
    UnevenDepth {
        /// Branch pages above this leaf.
        depth: usize,
        /// Branch pages above the first leaf.
        expected: usize,
    },
    /// The element table does not fit into the page.
    #[error("a table of {count} elements does not fit into the page")]
    TableOutOfBounds {
        /// Number of elements the header names.
        count: u16,
    },
    /// Key or value of an element lie outside the page.
    #[error("element {index} reaches outside the page")]
    ElementOutOfBounds {
        /// The element.
        index: usize,
    },
    /// Key and value do not follow those of the element before: they overlap or leave a gap.
    #[error("the data of element {index} is at byte {found} of the page, not at {expected}")]
    ElementMisplaced {
        /// The element.
        index: usize,
        /// Where the data of the elements before it end.
        expected: u64,
        /// Where its data are.
        found: u64,
    },
    /// Flags other than 0 (row) and 1 (bucket).
    #[error("element {index} has unknown flags {flags:#x}")]
    ElementFlags {
        /// The element.
        index: usize,
        /// The flags.
        flags: u32,
    },
    /// A key of no bytes.
    #[error("element {index} has an empty key")]
    EmptyKey {
        /// The element.
        index: usize,
    },
    /// A key that is not greater than the one before it.
    #[error("key {index} is not greater than the key before it")]
    KeyOrder {
        /// The element.
        index: usize,
    },
    /// A key below the key by which the parent refers to this page.
    #[error("key {index} is below the parent's range")]
    KeyBelowRange {
        /// The element.
        index: usize,
    },
    /// A key not below the next key in the parents.
    #[error("key {index} is above the parent's range")]
    KeyAboveRange {
        /// The element.
        index: usize,
    },
    /// The value of a bucket element is no bucket header, or no whole inline bucket.
    #[error("element {index} is no valid bucket: {fault}")]
    Bucket {
        /// The element.
        index: usize,
        /// What is wrong with it.
        fault: String,
    },
    /// The free list's count does not fit into its pages.
    #[error("a free list of {count} pages does not fit into its page")]
    FreelistTooLong {
        /// Number of ids it claims.
        count: u64,
    },
    /// An id in the free list that no page can have, or that stands there twice.
    #[error("the free list names page {freed}, which is {fault}")]
    FreelistEntry {
        /// The id.
        freed: u64,
        /// What is wrong with it.
        fault: &'static str,
    },
}
