//! One tree of a new database, built bottom up: the present leaf and the present branch page of each level in memory,
//! everything before them written.
use crate::error::Error;
use crate::layout::{ELEMENT_BYTES, FLAG_BRANCH, FLAG_LEAF, PAGE_HEADER_BYTES};
use crate::sink::PageSink;

/// A page being filled: its element table, and its keys and values.
#[derive(Debug, Default)]
struct Page {
    elements: Vec<Entry>,
    data: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// A leaf element's flags, or a branch element's child page.
    link: u64,
    key_bytes: u32,
    value_bytes: u32,
}

impl Page {
    fn bytes(&self) -> usize {
        PAGE_HEADER_BYTES + self.elements.len() * ELEMENT_BYTES + self.data.len()
    }

    fn push(&mut self, link: u64, key: &[u8], value: &[u8]) {
        // Lengths are limited by the writer: keys to 32 KiB, values to 128 MiB.
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.elements.push(Entry { link, key_bytes: size(key), value_bytes: size(value) });
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
    }

    fn first_key(&self) -> &[u8] {
        let len = self.elements.first().map_or(0, |e| e.key_bytes as usize);
        self.data.get(..len).unwrap_or_default()
    }

    /// Writes the page and empties it: its page id.
    fn write(&mut self, sink: &mut PageSink, flags: u16) -> Result<u64, Error> {
        let count = u16::try_from(self.elements.len()).unwrap_or(u16::MAX);
        let mut table = sink.page(flags, count, self.bytes());
        // Positions count from the element itself to its key.
        let mut position = self.elements.len() * ELEMENT_BYTES;
        for entry in &self.elements {
            let pos = u32::try_from(position).unwrap_or(u32::MAX).to_le_bytes();
            let (key, value) = (entry.key_bytes.to_le_bytes(), entry.value_bytes.to_le_bytes());
            if flags == FLAG_LEAF {
                let flags = u32::try_from(entry.link).unwrap_or(0).to_le_bytes();
                table.extend([flags, pos, key, value].as_flattened());
            } else {
                table.extend([pos, key].as_flattened());
                table.extend(&entry.link.to_le_bytes());
            }
            position += entry.key_bytes as usize + entry.value_bytes as usize;
            position -= ELEMENT_BYTES;
        }
        table.extend(&self.data);
        let page = table.end()?;
        self.elements.clear();
        self.data.clear();
        Ok(page)
    }
}

#[derive(Debug)]
pub(crate) struct TreeBuilder {
    page_bytes: usize,
    leaf: Page,
    /// Branch pages in the making, from the level above the leaves up.
    levels: Vec<Page>,
}

impl TreeBuilder {
    pub(crate) fn new(page_size: u32) -> Self {
        Self { page_bytes: page_size as usize, leaf: Page::default(), levels: Vec::new() }
    }

    /// Appends an element to the present leaf, or to the next when it does not fit.
    #[inline]
    pub(crate) fn add(
        &mut self,
        sink: &mut PageSink,
        flags: u32,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), Error> {
        let element_bytes = ELEMENT_BYTES + key.len() + value.len();
        // In the last page of a run there is room for the rows after a large one.
        let room = self.leaf.bytes().next_multiple_of(self.page_bytes);
        if self.leaf.bytes() + element_bytes > room && !self.saves_a_page(element_bytes) {
            self.write_leaf(sink)?;
        }
        self.leaf.push(u64::from(flags), key, value);
        Ok(())
    }

    /// Whether an element that does not fit takes fewer pages in the present leaf than in one of its own. Only while
    /// the leaf is a page or a row long, so that runs do not grow: bbolt, too, puts at least two rows into a page.
    fn saves_a_page(&self, element_bytes: usize) -> bool {
        let pages = |bytes: usize| bytes.div_ceil(self.page_bytes);
        let leaf_bytes = self.leaf.bytes();
        (leaf_bytes <= self.page_bytes || self.leaf.elements.len() < 2)
            && pages(leaf_bytes + element_bytes)
                < pages(leaf_bytes) + pages(PAGE_HEADER_BYTES + element_bytes)
    }

    /// Writes what is left, from the leaf up to the root: the root's page id.
    pub(crate) fn finish(&mut self, sink: &mut PageSink) -> Result<u64, Error> {
        if self.levels.is_empty() {
            // The only leaf, full or empty, is the root.
            return self.leaf.write(sink, FLAG_LEAF);
        }
        self.write_leaf(sink)?;
        let mut level = 0;
        loop {
            let is_top = level + 1 == self.levels.len();
            let Some(branch) = self.levels.get_mut(level) else { return Ok(0) };
            let key = branch.first_key().to_vec();
            let page = branch.write(sink, FLAG_BRANCH)?;
            if is_top {
                return Ok(page);
            }
            level += 1;
            self.add_child(sink, level, &key, page)?;
        }
    }

    fn write_leaf(&mut self, sink: &mut PageSink) -> Result<(), Error> {
        let key = self.leaf.first_key().to_vec();
        let page = self.leaf.write(sink, FLAG_LEAF)?;
        self.add_child(sink, 0, &key, page)
    }

    /// Appends a child to the branch page of `level`; full branch pages go out on the way up.
    ///
    /// A branch page that is written leaves its last child to the next one, so that the last page of a level, too, has
    /// at least two children: bbolt's `node.rebalance` asserts that a parent has more than one.
    fn add_child(&mut self, sink: &mut PageSink, level: usize, key: &[u8], page: u64) -> Result<(), Error> {
        let (mut level, mut key, mut child) = (level, key.to_vec(), page);
        loop {
            if level == self.levels.len() {
                self.levels.push(Page::default());
            }
            let page_bytes = self.page_bytes;
            let Some(branch) = self.levels.get_mut(level) else { return Ok(()) };
            if branch.elements.len() < 3 || branch.bytes() + ELEMENT_BYTES + key.len() <= page_bytes {
                branch.push(child, &key, &[]);
                return Ok(());
            }
            let kept = branch.elements.pop();
            let split = branch.data.len() - kept.map_or(0, |e| e.key_bytes as usize);
            let kept_key = branch.data.split_off(split);
            let first = branch.first_key().to_vec();
            let written = branch.write(sink, FLAG_BRANCH)?;
            branch.push(kept.map_or(0, |e| e.link), &kept_key, &[]);
            branch.push(child, &key, &[]);
            (level, key, child) = (level + 1, first, written);
        }
    }
}
