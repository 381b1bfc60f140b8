//! The check of a whole file: every violation, with the pages that lead to it.
//!
//! Two ideas, as in bbolt's `tx_check.go`: each page below the high-water mark is reachable exactly once or free; keys
//! are in order and inside the parents' range. On top of it bounds, page types and ids, and the layout of each page.
//! The rows can be had in the same pass ([`BoltFile::check_rows`]), so that a verifier reads the file once.
use std::collections::VecDeque;
use std::ops::ControlFlow;

use crate::bucket::{BucketValue, bucket_value};
use crate::error::{Damage, MetaFault, Violation};
use crate::file::BoltFile;
use crate::layout::{
    FLAG_FREELIST, FLAG_META, LeafElement, PAGE_HEADER_BYTES, PageHeader, leaf_element, u64_at,
};
use crate::pager::Pager;
use crate::source::ReadAt;
use crate::walk::{Claims, Context, DEPTH_MAX, Leaf, TreeWalk};

/// Takes `(bucket, key, value)` of each row and says whether to go on.
pub type RowVisitor<'a> = dyn FnMut(&[u8], &[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Violations kept with their details; the others are only counted.
pub const VIOLATIONS_KEPT_MAX: usize = 200;

/// What a check of a file found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Pages below the high-water mark, the two meta pages included.
    pub pages: u64,
    /// Pages in use: meta pages, free list, branches and leaves with their overflow pages.
    pub pages_reachable: u64,
    /// Pages that are free: by the stored free list, or by not being reachable when none is stored.
    pub pages_free: u64,
    /// Buckets at all levels.
    pub buckets: u64,
    /// Rows in all buckets.
    pub rows: u64,
    /// The first [`VIOLATIONS_KEPT_MAX`] violations in the order of the walk.
    pub violations: Vec<Violation>,
    /// Number of all violations.
    pub violations_total: u64,
    /// The visitor stopped the walk: the rest of the file is unchecked.
    pub stopped: bool,
}

impl CheckReport {
    /// The whole file was checked and nothing was found.
    pub fn is_clean(&self) -> bool {
        self.violations_total == 0 && !self.stopped
    }

    fn note(&mut self, violation: Violation) {
        self.violations_total += 1;
        if self.violations.len() < VIOLATIONS_KEPT_MAX {
            self.violations.push(violation);
        }
    }
}

impl<S: ReadAt> BoltFile<S> {
    /// Checks the whole file and lists all violations.
    ///
    /// It reads every page in use once and needs memory for two bits a page and one branch page a level.
    pub fn check(&self) -> CheckReport {
        self.check_rows(&mut |_, _, _| ControlFlow::Continue(()))
    }

    /// Checks the whole file and hands every row of every top-level bucket to `visit(bucket, key, value)` on the way:
    /// one pass for structure, hashes and counts.
    ///
    /// The rows of one bucket come in key order and without a break; the order of the buckets is not promised (inline
    /// ones come before others of the same page). Rows are handed over before the rest of the file is known to be
    /// sound: use what was gathered only when the report [is clean](CheckReport::is_clean). Rows of a damaged page are
    /// left out. `visit` can stop the pass.
    ///
    /// The pass keeps one core busy. The natural second core's work is a hash over the file's bytes in file order,
    /// which any number of threads may read through the same source meanwhile.
    pub fn check_rows(&self, visit: &mut RowVisitor<'_>) -> CheckReport {
        let mut check = Check {
            file: self,
            report: CheckReport::default(),
            claims: Claims::default(),
            pager: Pager::default(),
        };
        check.metas();
        check.freelist();
        check.trees(visit);
        check.remainder();
        check.report
    }
}

struct Check<'f, S: ReadAt> {
    file: &'f BoltFile<S>,
    report: CheckReport,
    claims: Claims,
    pager: Pager,
}

/// A bucket being walked, and the buckets of its present leaf that wait for their turn.
struct Tree {
    walk: TreeWalk,
    /// The top-level bucket whose rows these are: `None` for the root bucket and for nested ones.
    name: Option<Vec<u8>>,
    waiting: VecDeque<(u64, Option<Vec<u8>>)>,
    /// The pages down to the leaf that holds the waiting buckets.
    stack: Vec<u64>,
}

impl Tree {
    fn new(root: u64, name: Option<Vec<u8>>, above: Vec<u64>) -> Self {
        Self { walk: TreeWalk::new(root, above), name, waiting: VecDeque::new(), stack: Vec::new() }
    }
}

impl<S: ReadAt> Check<'_, S> {
    fn note(&mut self, page: u64, stack: Vec<u64>, damage: Damage) {
        self.report.note(self.file.violation(page, stack, damage));
    }

    fn metas(&mut self) {
        let file = self.file;
        let high_water_mark = file.meta().high_water_mark;
        if high_water_mark > file.file_pages() {
            let damage = Damage::FileTooShort { file_bytes: file.len_bytes(), high_water_mark };
            self.note(file.file_pages(), Vec::new(), damage);
        }
        for (page, fault) in (0..).zip(file.meta_faults()) {
            let _ = self.claims.claim(page, 1);
            if let Some(fault) = fault {
                self.note(page, Vec::new(), Damage::Meta(*fault));
            } else if let Err(damage) = self.meta_header(page) {
                self.note(page, Vec::new(), damage);
            }
        }
    }

    fn meta_header(&self, page: u64) -> Result<(), Damage> {
        let mut bytes = [0; PAGE_HEADER_BYTES];
        self.file
            .source()
            .read_exact_at(&mut bytes, page * self.file.page_bytes())
            .map_err(|e| Damage::Unreadable { kind: e.kind(), message: e.to_string() })?;
        let header = PageHeader::parse(&bytes).ok_or(Damage::Meta(MetaFault::Unreadable))?;
        if header.id != page {
            return Err(Damage::WrongId { found: header.id });
        }
        if header.flags != FLAG_META {
            return Err(Damage::WrongType { found: header.flags, expected: "a meta page" });
        }
        Ok(())
    }

    fn freelist(&mut self) {
        if let Some(page) = self.file.meta().freelist
            && let Err(damage) = self.read_freelist(page)
        {
            self.note(page, vec![page], damage);
        }
    }

    /// Reads the stored free list (`shared.Read`): with 0xFFFF in the header's count, the count is the first number.
    fn read_freelist(&mut self, page: u64) -> Result<(), Damage> {
        let header = self.pager.header(self.file, page, 0)?;
        if header.flags != FLAG_FREELIST {
            return Err(Damage::WrongType { found: header.flags, expected: "a free list" });
        }
        let pages = 1 + u64::from(header.overflow);
        self.claims.claim(page, pages)?;
        let run = self.pager.run(self.file, page, pages, 0)?;
        let ids = self.pager.bytes(&run).get(PAGE_HEADER_BYTES..).unwrap_or_default();
        let long = header.count == u16::MAX;
        let count = if long { u64_at(ids, 0).unwrap_or(u64::MAX) } else { u64::from(header.count) };
        let skip = if long { 8 } else { 0 };
        let end = usize::try_from(count).ok().and_then(|n| n.checked_mul(8)?.checked_add(skip));
        let ids = end.and_then(|end| ids.get(skip..end)).ok_or(Damage::FreelistTooLong { count })?;
        let usable = self.file.usable_pages();
        for id in ids.chunks_exact(8).filter_map(|id| u64_at(id, 0)) {
            let fault = if id < 2 || id >= self.file.meta().high_water_mark {
                "no page of the database"
            } else if id >= usable {
                continue; // the file is too short, which has been said
            } else if self.claims.reachable.contains(id) {
                "part of the free list itself"
            } else if !self.claims.freed.insert(id) {
                "named twice"
            } else {
                continue;
            };
            self.report.note(self.file.violation(
                page,
                vec![page],
                Damage::FreelistEntry { freed: id, fault },
            ));
        }
        Ok(())
    }

    /// Walks the root bucket and every bucket found on the way, with a stack of its own.
    fn trees(&mut self, visit: &mut RowVisitor<'_>) {
        let mut trees = vec![Tree::new(self.file.meta().root, None, Vec::new())];
        while let Some(tree) = trees.last_mut() {
            if let Some((root, name)) = tree.waiting.pop_front() {
                let above = tree.stack.clone();
                if trees.len() >= DEPTH_MAX {
                    self.note(root, above, Damage::TooDeep { limit: DEPTH_MAX });
                } else {
                    trees.push(Tree::new(root, name, above));
                }
                continue;
            }
            let report = &mut self.report;
            let mut note = |violation| {
                report.note(violation);
                true
            };
            let (file, pager, claims) = (self.file, &mut self.pager, &mut self.claims);
            let Some(leaf) = tree.walk.next_leaf(&mut Context { file, pager, claims, report: &mut note })
            else {
                trees.pop();
                continue;
            };
            let top = trees.len() == 1;
            let Some(tree) = trees.last_mut() else { return };
            if self.leaf(tree, &leaf, top, visit).is_break() {
                self.report.stopped = true;
                return;
            }
        }
    }

    fn leaf(
        &mut self,
        tree: &mut Tree,
        leaf: &Leaf,
        top: bool,
        visit: &mut RowVisitor<'_>,
    ) -> ControlFlow<()> {
        let run = self.pager.bytes(&leaf.run);
        for index in 0..leaf.count {
            // Out of bounds: said when the page was inspected.
            let Some(element) = leaf_element(run, index) else { break };
            if element.is_bucket() {
                if tree.stack.last() != Some(&leaf.page) {
                    tree.stack = tree.walk.stack_to(leaf.page);
                }
                nested(self.file, &mut self.report, tree, &element, index, top, visit)?;
                continue;
            }
            if leaf.damaged {
                continue;
            }
            self.report.rows += 1;
            if top {
                // The root bucket holds buckets only: this was one.
                let damage = Damage::Bucket { index, fault: "a row among the top-level buckets".to_owned() };
                self.report.note(self.file.violation(leaf.page, tree.walk.stack_to(leaf.page), damage));
            } else if let Some(name) = &tree.name {
                visit(name, element.key, element.value)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// What no walk has met: free when no free list is stored, else lost.
    fn remainder(&mut self) {
        let high_water_mark = self.file.meta().high_water_mark;
        self.report.pages = high_water_mark;
        self.report.pages_reachable = self.claims.reachable.len();
        if self.file.meta().freelist.is_none() {
            self.report.pages_free = high_water_mark.saturating_sub(self.report.pages_reachable);
            return;
        }
        self.report.pages_free = self.claims.freed.len();
        if self.report.stopped {
            return;
        }
        let mut gap: Option<u64> = None;
        for page in 2..=self.file.usable_pages() {
            let lost = page < self.file.usable_pages()
                && !self.claims.reachable.contains(page)
                && !self.claims.freed.contains(page);
            match (gap, lost) {
                (None, true) => gap = Some(page),
                (Some(first), false) => {
                    self.note(first, Vec::new(), Damage::Unreachable { last: page - 1 });
                    gap = None;
                }
                _ => {}
            }
        }
    }
}

/// A bucket element: an inline bucket is dealt with here and now, any other waits for the end of the leaf.
fn nested<S: ReadAt>(
    file: &BoltFile<S>,
    report: &mut CheckReport,
    tree: &mut Tree,
    element: &LeafElement<'_>,
    index: usize,
    top: bool,
    visit: &mut RowVisitor<'_>,
) -> ControlFlow<()> {
    report.buckets += 1;
    let page = tree.stack.last().copied().unwrap_or_default();
    let stack = &tree.stack;
    let mut damaged = false;
    let mut found = |damage| {
        damaged = true;
        report.note(file.violation(page, stack.clone(), damage));
    };
    match bucket_value(element, index, &mut found) {
        Some(BucketValue::Page(header)) => {
            tree.waiting.push_back((header.root, top.then(|| element.key.to_vec())));
        }
        Some(BucketValue::Inline { page, count, .. }) if !damaged => {
            for row in (0..usize::from(count)).map_while(|i| leaf_element(page, i)).filter(|e| !e.is_bucket())
            {
                report.rows += 1;
                if top {
                    visit(element.key, row.key, row.value)?;
                }
            }
        }
        _ => {}
    }
    ControlFlow::Continue(())
}
