//! Rows of one bucket in key order.
use crate::bucket::Root;
use crate::error::{Damage, Error, Violation};
use crate::file::BoltFile;
use crate::layout::{LeafElement, leaf_element};
use crate::pager::Pager;
use crate::source::ReadAt;
use crate::walk::{Claims, Context, Leaf, TreeWalk, partition_point};

/// A row, lent: key and value.
pub type Row<'a> = (&'a [u8], &'a [u8]);

/// Walks the rows of one bucket in key order, lending each row out of its page buffer: no allocation per row.
///
/// Whole pages are read, neighbours ahead in one go. Every page is inspected when it is read, so damage ends the
/// iteration with an [`Error::Damaged`] before a row of that page is lent. A nested bucket appears with its name as
/// key and an empty value, as in bbolt.
#[derive(Debug)]
pub struct Cursor<'f, S: ReadAt> {
    file: &'f BoltFile<S>,
    root: Root,
    above: Vec<u64>,
    walk: TreeWalk,
    pager: Pager,
    claims: Claims,
    leaf: Option<Leaf>,
    index: usize,
}

impl<'f, S: ReadAt> Cursor<'f, S> {
    pub(crate) fn new(file: &'f BoltFile<S>, root: Root, above: Vec<u64>) -> Self {
        let mut pager = Pager::default();
        let (walk, leaf) = match &root {
            Root::Page(page) => (TreeWalk::new(*page, above.clone()), None),
            Root::Inline(page) => (TreeWalk::finished(), Some(page.leaf(&mut pager))),
        };
        Self { file, root, above, walk, pager, claims: Claims::default(), leaf, index: 0 }
    }

    /// The next row, or `None` at the end.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the next page is damaged or unreadable.
    #[expect(
        clippy::should_implement_trait,
        reason = "rows are lent from the page buffer: no Iterator can do that"
    )]
    pub fn next(&mut self) -> Result<Option<Row<'_>>, Error> {
        Ok(self.next_element()?.map(|e| (e.key, if e.is_bucket() { &[] } else { e.value })))
    }

    /// Moves to the first row whose key is not less than `key` and returns it; `next` goes on behind it.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a page on the way is damaged or unreadable.
    pub fn seek(&mut self, key: &[u8]) -> Result<Option<Row<'_>>, Error> {
        Ok(self.seek_element(key)?.map(|e| (e.key, if e.is_bucket() { &[] } else { e.value })))
    }

    pub(crate) fn next_element(&mut self) -> Result<Option<LeafElement<'_>>, Error> {
        while self.leaf.as_ref().is_none_or(|leaf| self.index >= leaf.count) {
            self.leaf = self.walked(|walk, cx| walk.next_leaf(cx))?;
            self.index = 0;
            if self.leaf.is_none() {
                return Ok(None);
            }
        }
        self.index += 1;
        let (Some(leaf), index) = (&self.leaf, self.index - 1) else { return Ok(None) };
        match leaf_element(self.pager.bytes(&leaf.run), index) {
            Some(element) => Ok(Some(element)),
            // The page was inspected when it was read.
            None => {
                let stack = self.walk.stack_to(leaf.page);
                Err(self.file.damaged(self.file.violation(
                    leaf.page,
                    stack,
                    Damage::ElementOutOfBounds { index },
                )))
            }
        }
    }

    pub(crate) fn seek_element(&mut self, key: &[u8]) -> Result<Option<LeafElement<'_>>, Error> {
        self.claims.reachable.clear();
        self.leaf = match &self.root {
            Root::Inline(page) => Some(page.leaf(&mut self.pager)),
            Root::Page(root) => {
                let root = *root;
                self.walked(|walk, cx| walk.seek_leaf(root, key, cx))?
            }
        };
        self.index = self.leaf.as_ref().map_or(0, |leaf| {
            let run = self.pager.bytes(&leaf.run);
            partition_point(leaf.count, |i| leaf_element(run, i).is_some_and(|e| e.key < key))
        });
        self.next_element()
    }

    /// Pages from the top of the file down to the leaf the cursor stands on.
    pub(crate) fn stack(&self) -> Vec<u64> {
        self.leaf.as_ref().map_or_else(|| self.above.clone(), |leaf| self.walk.stack_to(leaf.page))
    }

    /// The index of the element lent last, within its page.
    pub(crate) fn index(&self) -> usize {
        self.index.saturating_sub(1)
    }

    fn walked(
        &mut self,
        step: impl FnOnce(&mut TreeWalk, &mut Context<'_, S>) -> Option<Leaf>,
    ) -> Result<Option<Leaf>, Error> {
        let mut first: Option<Violation> = None;
        let mut report = |violation| {
            first.get_or_insert(violation);
            false
        };
        let mut cx = Context {
            file: self.file,
            pager: &mut self.pager,
            claims: &mut self.claims,
            report: &mut report,
        };
        let leaf = step(&mut self.walk, &mut cx);
        first.map_or(Ok(leaf), |violation| Err(self.file.damaged(violation)))
    }
}
