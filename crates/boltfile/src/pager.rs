//! Reading runs of pages into one reused buffer, with the neighbours that the walk will want next.
//!
//! A leaf costs one `pread` when it lies alone and a small share of one when its siblings lie behind it, as in a file
//! written from end to end. The buffer stays small enough for the processor's second-level cache.
use std::ops::Range;

use crate::error::Damage;
use crate::file::BoltFile;
use crate::layout::{FLAG_BRANCH, PAGE_HEADER_BYTES, PageHeader};
use crate::source::ReadAt;

/// Bytes read ahead at most.
pub(crate) const WINDOW_BYTES: u64 = 256 << 10;
/// The longest run of pages that is read: one bbolt page holds at most four rows when they are larger than a page, and
/// etcd's requests are limited to a few MiB.
pub(crate) const RUN_BYTES_MAX: u64 = 256 << 20;
/// The longest branch page: a few keys of at most 32 KiB, or one page.
const BRANCH_BYTES_MAX: u64 = 1 << 20;

/// A window on the file: `pages` pages from page `first` on.
#[derive(Debug, Default)]
pub(crate) struct Pager {
    buf: Vec<u8>,
    first: u64,
    pages: u64,
}

impl Pager {
    /// The header of `page`, with every number in it checked against the file. `ahead` is the page up to which
    /// (exclusive) a walk in key order will read on.
    pub(crate) fn header<S: ReadAt>(
        &mut self,
        file: &BoltFile<S>,
        page: u64,
        ahead: u64,
    ) -> Result<PageHeader, Damage> {
        let high_water_mark = file.meta().high_water_mark;
        if page < 2 || page >= high_water_mark {
            return Err(Damage::OutOfRange { high_water_mark });
        }
        if !self.holds(page, 1) {
            self.fill(file, page, 1, ahead)?;
        }
        let at = self.position(file, page);
        let header = self.buf.get(at..).and_then(PageHeader::parse).ok_or_else(|| past_end(file))?;
        let overflow = header.overflow;
        let end = page + 1 + u64::from(overflow);
        if header.id != page {
            return Err(Damage::WrongId { found: header.id });
        }
        if end > high_water_mark {
            return Err(Damage::OverflowOutOfRange { overflow, high_water_mark });
        }
        if end > file.file_pages() {
            return Err(past_end(file));
        }
        let limit = if header.flags == FLAG_BRANCH { BRANCH_BYTES_MAX } else { RUN_BYTES_MAX };
        if u64::from(overflow) * file.page_bytes() > limit {
            return Err(Damage::RunTooLong { overflow });
        }
        Ok(header)
    }

    /// Where the run of `pages` pages from `page` on is in [`bytes`](Self::bytes). The header has been checked.
    pub(crate) fn run<S: ReadAt>(
        &mut self,
        file: &BoltFile<S>,
        page: u64,
        pages: u64,
        ahead: u64,
    ) -> Result<Range<usize>, Damage> {
        if !self.holds(page, pages) {
            self.fill(file, page, pages, ahead)?;
        }
        let at = self.position(file, page);
        let bytes = usize::try_from(pages * file.page_bytes()).map_err(|_| past_end(file))?;
        Ok(at..at + bytes)
    }

    /// Takes a copy of an inline page in place of the window.
    pub(crate) fn hold_inline(&mut self, page: &[u8]) -> Range<usize> {
        self.buf.clear();
        self.buf.extend_from_slice(page);
        (self.first, self.pages) = (0, 0);
        0..page.len()
    }

    pub(crate) fn bytes(&self, run: &Range<usize>) -> &[u8] {
        self.buf.get(run.clone()).unwrap_or_default()
    }

    fn holds(&self, page: u64, pages: u64) -> bool {
        page >= self.first && page + pages <= self.first + self.pages
    }

    fn position<S: ReadAt>(&self, file: &BoltFile<S>, page: u64) -> usize {
        // A window is at most a run and 256 KiB long: the difference fits.
        usize::try_from((page - self.first) * file.page_bytes()).unwrap_or(usize::MAX - PAGE_HEADER_BYTES)
    }

    /// Reads `pages` pages and on up to the page `ahead`; when that fails, only the pages asked for, so that an
    /// unreadable page is not held against its neighbours.
    fn fill<S: ReadAt>(
        &mut self,
        file: &BoltFile<S>,
        page: u64,
        pages: u64,
        ahead: u64,
    ) -> Result<(), Damage> {
        let more = ahead.saturating_sub(page);
        if more > pages && self.read(file, page, more).is_ok() {
            return Ok(());
        }
        self.read(file, page, pages)
    }

    fn read<S: ReadAt>(&mut self, file: &BoltFile<S>, page: u64, pages: u64) -> Result<(), Damage> {
        let pages = pages.min(file.file_pages().saturating_sub(page));
        let bytes = usize::try_from(pages * file.page_bytes()).map_err(|_| past_end(file))?;
        if bytes == 0 {
            return Err(past_end(file));
        }
        self.pages = 0;
        if self.buf.len() < bytes {
            self.buf.resize(bytes, 0);
        }
        let buf = self.buf.get_mut(..bytes).ok_or_else(|| past_end(file))?;
        file.source()
            .read_exact_at(buf, page * file.page_bytes())
            .map_err(|e| Damage::Unreadable { kind: e.kind(), message: e.to_string() })?;
        (self.first, self.pages) = (page, pages);
        Ok(())
    }
}

fn past_end<S: ReadAt>(file: &BoltFile<S>) -> Damage {
    Damage::PastEndOfFile { file_bytes: file.len_bytes() }
}
