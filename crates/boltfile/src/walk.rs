//! The one walk over a bucket's tree: page by page in key order, every page inspected before it is used.
//!
//! `cursor.rs` stops at the first fault, `check.rs` notes it and goes on with the next sibling. The walk keeps its own
//! stack, visits no page twice and never goes deeper than [`DEPTH_MAX`], so cycles and shared pages end it.
use std::ops::Range;

use crate::error::{Damage, Violation};
use crate::file::BoltFile;
use crate::inspect::{KeyRange, inspect_branch, inspect_leaf};
use crate::layout::{FLAG_BRANCH, FLAG_LEAF, branch_element};
use crate::pager::{Pager, WINDOW_BYTES};
use crate::pageset::PageSet;
use crate::source::ReadAt;

/// Levels of one tree, and of buckets within buckets. bbolt's branches have at least two children, so a sound tree of
/// 64 levels has more pages than a file can have bytes.
pub(crate) const DEPTH_MAX: usize = 64;
/// Pages that do not belong to the walk and are still read rather than skipped: about the price of one more `pread`.
const GAP_PAGES: u64 = 2;

/// Which pages are in use so far, and which the stored free list says are not.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    pub(crate) reachable: PageSet,
    pub(crate) freed: PageSet,
}

impl Claims {
    /// Claims a run for one use. On a conflict the pages before it stay claimed, which bounds all claims together.
    pub(crate) fn claim(&mut self, first: u64, pages: u64) -> Result<(), Damage> {
        for page in first..first + pages {
            if !self.reachable.insert(page) {
                return Err(Damage::Shared { shared: page });
            }
            if self.freed.contains(page) {
                return Err(Damage::ReachableFree { freed: page });
            }
        }
        Ok(())
    }
}

/// A leaf page that has been read and inspected: its bytes are in the pager until the next call of the walk.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub(crate) page: u64,
    pub(crate) count: usize,
    pub(crate) run: Range<usize>,
    /// Faults were reported: its rows are not to be used.
    pub(crate) damaged: bool,
}

/// What a walk needs around it. `report` answers whether to go on.
pub(crate) struct Context<'a, S: ReadAt> {
    pub(crate) file: &'a BoltFile<S>,
    pub(crate) pager: &'a mut Pager,
    pub(crate) claims: &'a mut Claims,
    pub(crate) report: &'a mut dyn FnMut(Violation) -> bool,
}

#[derive(Debug)]
struct Branch {
    page: u64,
    run: Vec<u8>,
    count: usize,
    index: usize,
}

impl Branch {
    fn child(&self, index: usize) -> Option<u64> {
        branch_element(&self.run, index).filter(|_| index < self.count).map(|e| e.page)
    }

    /// The page up to which the children from the present one on lie together, so that one read brings them all.
    fn together_up_to(&self, window_pages: u64) -> u64 {
        let Some(first) = self.child(self.index) else { return 0 };
        let mut end = first.saturating_add(1);
        for page in (self.index + 1..self.count).map_while(|index| self.child(index)) {
            if page < end || page - end > GAP_PAGES || page - first >= window_pages {
                break;
            }
            end = page.saturating_add(1);
        }
        end
    }
}

/// A walk over the tree whose root page is given, leaf by leaf.
#[derive(Debug)]
pub(crate) struct TreeWalk {
    /// The root page while the walk has not begun.
    root: Option<u64>,
    /// Pages from the top of the file down to the leaf that holds this bucket.
    above: Vec<u64>,
    branches: Vec<Branch>,
    spare: Vec<Vec<u8>>,
    /// How many branches lie above the leaves: bbolt splits and merges level by level, so above all the same number.
    leaf_depth: Option<usize>,
}

enum Visit {
    Leaf(Leaf),
    Branch,
    Skip,
    Stop,
}

impl TreeWalk {
    pub(crate) fn new(root: u64, above: Vec<u64>) -> Self {
        Self { root: Some(root), above, branches: Vec::new(), spare: Vec::new(), leaf_depth: None }
    }

    /// A walk with nothing left to visit.
    pub(crate) fn finished() -> Self {
        Self { root: None, above: Vec::new(), branches: Vec::new(), spare: Vec::new(), leaf_depth: None }
    }

    /// The next leaf in key order, or `None` at the end or when `report` said stop.
    pub(crate) fn next_leaf<S: ReadAt>(&mut self, cx: &mut Context<'_, S>) -> Option<Leaf> {
        let mut page = self.advance()?;
        loop {
            page = match self.visit(page, true, cx) {
                Visit::Leaf(leaf) => return Some(leaf),
                Visit::Branch => self.branches.last()?.child(0).or_else(|| self.advance())?,
                Visit::Skip => self.advance()?,
                Visit::Stop => {
                    self.branches.clear();
                    return None;
                }
            }
        }
    }

    /// Starts at `root` and goes down to the leaf in whose range `key` lies; `None` when `report` said stop.
    pub(crate) fn seek_leaf<S: ReadAt>(
        &mut self,
        root: u64,
        key: &[u8],
        cx: &mut Context<'_, S>,
    ) -> Option<Leaf> {
        self.root = None;
        while let Some(branch) = self.branches.pop() {
            self.spare.push(branch.run);
        }
        let mut page = root;
        loop {
            page = match self.visit(page, false, cx) {
                Visit::Leaf(leaf) => return Some(leaf),
                Visit::Branch => {
                    let branch = self.branches.last_mut()?;
                    let run = &branch.run;
                    let after = partition_point(branch.count, |i| {
                        branch_element(run, i).is_some_and(|e| e.key <= key)
                    });
                    branch.index = after.saturating_sub(1);
                    branch.child(branch.index)?
                }
                Visit::Skip | Visit::Stop => {
                    self.branches.clear();
                    return None;
                }
            }
        }
    }

    /// The pages from the top of the file down to `page`.
    pub(crate) fn stack_to(&self, page: u64) -> Vec<u64> {
        self.above.iter().copied().chain(self.branches.iter().map(|b| b.page)).chain([page]).collect()
    }

    fn advance(&mut self) -> Option<u64> {
        if let Some(root) = self.root.take() {
            return Some(root);
        }
        while let Some(branch) = self.branches.last_mut() {
            branch.index += 1;
            if let Some(page) = branch.child(branch.index) {
                return Some(page);
            }
            self.spare.extend(self.branches.pop().map(|b| b.run));
        }
        None
    }

    fn range(&self) -> KeyRange<'_> {
        let lower = self.branches.last().and_then(|b| branch_element(&b.run, b.index));
        let upper = self.branches.iter().rev().find(|b| b.index + 1 < b.count);
        let upper = upper.and_then(|b| branch_element(&b.run, b.index + 1));
        KeyRange { lower: lower.map(|e| e.key), upper: upper.map(|e| e.key) }
    }

    fn visit<S: ReadAt>(&mut self, page: u64, read_ahead: bool, cx: &mut Context<'_, S>) -> Visit {
        match self.load(page, read_ahead, cx) {
            Ok((flags, count, run)) => {
                let bytes = cx.pager.bytes(&run);
                let (mut go_on, mut damaged) = (true, false);
                let mut found = |damage| {
                    damaged = true;
                    go_on = go_on && (cx.report)(cx.file.violation(page, self.stack_to(page), damage));
                };
                if flags == FLAG_LEAF {
                    let depth = self.branches.len();
                    if self.leaf_depth.is_some_and(|expected| expected != depth) {
                        found(Damage::UnevenDepth { depth, expected: self.leaf_depth.unwrap_or_default() });
                    }
                    if count == 0 && !self.branches.is_empty() {
                        found(Damage::EmptyLeaf);
                    }
                    inspect_leaf(bytes, count, self.range(), &mut found);
                } else {
                    inspect_branch(bytes, count, self.range(), &mut found);
                }
                let count = usize::from(count);
                if !go_on {
                    Visit::Stop
                } else if flags == FLAG_LEAF {
                    self.leaf_depth.get_or_insert(self.branches.len());
                    Visit::Leaf(Leaf { page, count, run, damaged })
                } else {
                    let mut copy = self.spare.pop().unwrap_or_default();
                    copy.clear();
                    copy.extend_from_slice(bytes);
                    self.branches.push(Branch { page, run: copy, count, index: 0 });
                    Visit::Branch
                }
            }
            Err(damage) => {
                let go_on = (cx.report)(cx.file.violation(page, self.stack_to(page), damage));
                if go_on { Visit::Skip } else { Visit::Stop }
            }
        }
    }

    /// Reads the page with its overflow pages, and with `read_ahead` its neighbours: its flags, number of elements and place in the pager.
    fn load<S: ReadAt>(
        &self,
        page: u64,
        read_ahead: bool,
        cx: &mut Context<'_, S>,
    ) -> Result<(u16, u16, Range<usize>), Damage> {
        if self.branches.len() >= DEPTH_MAX {
            return Err(Damage::TooDeep { limit: DEPTH_MAX });
        }
        let window_pages = WINDOW_BYTES / cx.file.page_bytes();
        let parent = self.branches.last().filter(|_| read_ahead);
        let ahead = parent.map_or(0, |b| b.together_up_to(window_pages));
        let header = cx.pager.header(cx.file, page, ahead)?;
        if header.flags != FLAG_LEAF && header.flags != FLAG_BRANCH {
            return Err(Damage::WrongType { found: header.flags, expected: "a branch or leaf page" });
        }
        let pages = 1 + u64::from(header.overflow);
        cx.claims.claim(page, pages)?;
        let run = cx.pager.run(cx.file, page, pages, ahead)?;
        Ok((header.flags, header.count, run))
    }
}

/// The first index in `0..len` for which `below` is false, by halving.
pub(crate) fn partition_point(len: usize, below: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        if below(middle) { low = middle + 1 } else { high = middle }
    }
    low
}
