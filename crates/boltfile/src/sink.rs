//! Pages in, large sequential writes out.
use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::error::{Error, WriteFault};
use crate::flush::Flusher;
use crate::layout::{META_BYTES, PAGE_HEADER_BYTES, PageHeader};

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct PageSink {
    name: String,
    flusher: Flusher,
    page_size: u32,
    buffer: Vec<u8>,
    next_page: u64,
}

/// A page under way into the sink.
pub(crate) struct PageOut<'s> {
    sink: &'s mut PageSink,
    page: u64,
}

impl PageOut<'_> {
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.sink.buffer.extend_from_slice(bytes);
    }

    /// Fills the last page with zeros: the page's id.
    pub(crate) fn end(self) -> Result<u64, Error> {
        let sink = self.sink;
        let end = sink.buffer.len().next_multiple_of(sink.page_size as usize);
        sink.buffer.resize(end, 0);
        if sink.buffer.len() >= BUFFER_BYTES {
            sink.flush()?;
        }
        Ok(self.page)
    }
}

impl PageSink {
    pub(crate) fn new(name: String, file: File, page_size: u32) -> Result<Self, Error> {
        let flusher = Flusher::start(file, 0).map_err(|source| io_error(&name, source))?;
        // The meta pages are zero until everything else is written.
        let buffer = vec![0; 2 * page_size as usize];
        Ok(Self { name, flusher, page_size, buffer, next_page: 2 })
    }

    /// Goes on behind the first `pages` pages of a file; the meta pages are among them.
    pub(crate) fn behind(name: String, file: File, page_size: u32, pages: u64) -> Result<Self, Error> {
        let offset = pages.saturating_mul(u64::from(page_size));
        let flusher = Flusher::start(file, offset).map_err(|source| io_error(&name, source))?;
        Ok(Self { name, flusher, page_size, buffer: Vec::new(), next_page: pages })
    }

    pub(crate) fn page_size(&self) -> u32 {
        self.page_size
    }

    /// The id the next page will get: all pages so far lie below it.
    pub(crate) fn next_page(&self) -> u64 {
        self.next_page
    }

    pub(crate) fn rejected(&self, kind: &str, key: &[u8], fault: WriteFault) -> Error {
        let shown = key.get(..key.len().min(64)).unwrap_or_default().escape_ascii();
        Error::Rejected { file: self.name.clone(), what: format!("{kind} \"{shown}\""), fault }
    }

    /// Begins a page of `bytes` bytes, header included: as many overflow pages follow as that needs.
    pub(crate) fn page(&mut self, flags: u16, count: u16, bytes: usize) -> PageOut<'_> {
        let pages = bytes.div_ceil(self.page_size as usize).max(1);
        let (page, overflow) = (self.next_page, u32::try_from(pages - 1).unwrap_or(u32::MAX));
        self.next_page += 1 + u64::from(overflow);
        self.buffer.extend_from_slice(&PageHeader { id: page, flags, count, overflow }.to_bytes());
        PageOut { sink: self, page }
    }

    /// Writes the rest and then the two meta pages: the file and its size in bytes.
    pub(crate) fn finish(
        mut self,
        meta: impl Fn(u64) -> [u8; PAGE_HEADER_BYTES + META_BYTES],
    ) -> Result<(File, u64), Error> {
        self.flush()?;
        let file = self.flusher.finish().map_err(|source| io_error(&self.name, source))?;
        let page_bytes = u64::from(self.page_size);
        let bytes = self.next_page * page_bytes;
        file.set_len(bytes).map_err(|source| io_error(&self.name, source))?;
        for page in 0..2 {
            file.write_all_at(&meta(page), page * page_bytes)
                .map_err(|source| io_error(&self.name, source))?;
        }
        Ok((file, bytes))
    }

    fn flush(&mut self) -> Result<(), Error> {
        let buffer = std::mem::take(&mut self.buffer);
        self.buffer = self.flusher.write(buffer).map_err(|source| io_error(&self.name, source))?;
        Ok(())
    }
}

fn io_error(name: &str, source: std::io::Error) -> Error {
    Error::Io { file: name.to_owned(), action: "write it", source }
}
