//! bbolt database files: read, check, and write new ones.
//!
//! - [`BoltFile`] opens a file (or part of one: [`BoltFile::from_source`]) and finds its buckets; [`Bucket`] and
//!   [`Cursor`] read them.
//! - [`BoltFile::check`] lists every violation; [`BoltFile::check_rows`] hands out the rows in the same pass.
//! - [`Writer`] writes a new file from sorted buckets and rows.
//! - [`lock_state`] says whether a process has the file open.
//!
//! # Reading fast
//! A [`Cursor`] reads whole pages into one reused buffer, neighbouring leaves in one go, and lends rows out of it; a
//! full scan needs no allocation per row and runs near the speed of copying the file out of the page cache. To verify
//! a file in one pass use [`BoltFile::check_rows`]: it is the structure check, and the rows of all top-level buckets
//! come by on the way, in key order within each bucket. It runs on the calling thread; what needs the bytes in file
//! order (a sha256) runs best beside it on a second core, over the same source: `&BoltFile` is `Sync`.
//!
//! # Hostile files
//! No number in a file is believed: page ids are compared with the high-water mark and the file's length, runs of
//! pages and trees are bounded, no page is used twice in one walk, and memory grows with the size of the file only
//! as a bitmap of its pages. Errors say which page, at which byte, reached through which pages.
//!
//! The bytes are drawn in `docs/formats/bbolt.md`. Where to read on: `layout.rs` (bytes), `inspect.rs` (one page),
//! `walk.rs` (the tree),
//! `check.rs` (what is right), `writer.rs` (how a file comes about).
mod bucket;
mod check;
mod cursor;
mod error;
mod file;
mod flush;
mod inspect;
mod layout;
mod lock;
mod pager;
mod pageset;
mod sink;
mod source;
mod tree;
mod walk;
mod writer;

pub use bucket::Bucket;
pub use check::{CheckReport, RowVisitor, VIOLATIONS_KEPT_MAX};
pub use cursor::{Cursor, Row};
pub use error::{Damage, Error, MetaFault, Violation, WriteFault};
pub use file::BoltFile;
pub use layout::Meta;
pub use lock::{LockState, lock_state};
pub use source::ReadAt;
pub use writer::{BucketWriter, FinishedFile, Writer};
