//! What must hold within one page, whoever reads it: bounds, flags, the order and range of its keys, its layout.
//! How pages hang together is the matter of `walk.rs` and `check.rs`.
use crate::error::Damage;
use crate::layout::{ELEMENT_BYTES, ELEMENT_IS_BUCKET, PAGE_HEADER_BYTES, branch_element, leaf_element};

/// The keys that may stand on a page: from `lower` (inclusive) to `upper` (exclusive), as the parents say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KeyRange<'a> {
    pub(crate) lower: Option<&'a [u8]>,
    pub(crate) upper: Option<&'a [u8]>,
}

/// Calls `found` for every fault of a leaf page: bounds, flags, empty keys, order, range.
pub(crate) fn inspect_leaf(run: &[u8], count: u16, range: KeyRange<'_>, found: &mut dyn FnMut(Damage)) {
    let Some(mut keys) = KeySequence::new(run, count, range) else {
        return found(Damage::TableOutOfBounds { count });
    };
    for index in 0..usize::from(count) {
        let Some(element) = leaf_element(run, index) else {
            return found(Damage::ElementOutOfBounds { index });
        };
        if element.flags > ELEMENT_IS_BUCKET {
            found(Damage::ElementFlags { index, flags: element.flags });
        }
        keys.next(index, element.start, element.key, element.value.len(), found);
    }
    keys.end(count, found);
}

/// Calls `found` for every fault of a branch page.
pub(crate) fn inspect_branch(run: &[u8], count: u16, range: KeyRange<'_>, found: &mut dyn FnMut(Damage)) {
    if count == 0 {
        return found(Damage::EmptyBranch);
    }
    let Some(mut keys) = KeySequence::new(run, count, range) else {
        return found(Damage::TableOutOfBounds { count });
    };
    for index in 0..usize::from(count) {
        let Some(element) = branch_element(run, index) else {
            return found(Damage::ElementOutOfBounds { index });
        };
        keys.next(index, element.start, element.key, 0, found);
    }
    keys.end(count, found);
}

/// What leaf and branch pages have in common: keys in order and in range, data laid out without gap or overlap.
struct KeySequence<'a> {
    range: KeyRange<'a>,
    previous: Option<&'a [u8]>,
    data_end: usize,
}

impl<'a> KeySequence<'a> {
    /// `None` when the element table does not fit into the page.
    fn new(run: &[u8], count: u16, range: KeyRange<'a>) -> Option<Self> {
        // bbolt lays the data out in the order of the elements, right behind their table (`WriteInodeToPage`).
        let data_end = PAGE_HEADER_BYTES + usize::from(count) * ELEMENT_BYTES;
        (data_end <= run.len()).then_some(Self { range, previous: None, data_end })
    }

    #[inline]
    fn next(
        &mut self,
        index: usize,
        start: usize,
        key: &'a [u8],
        value_bytes: usize,
        found: &mut dyn FnMut(Damage),
    ) {
        if start != self.data_end {
            found(Damage::ElementMisplaced { index, expected: self.data_end as u64, found: start as u64 });
        }
        self.data_end = start + key.len() + value_bytes;
        if key.is_empty() {
            found(Damage::EmptyKey { index });
        }
        match self.previous {
            Some(previous) if previous >= key => found(Damage::KeyOrder { index }),
            None if self.range.lower.is_some_and(|lower| key < lower) => {
                found(Damage::KeyBelowRange { index })
            }
            _ => {}
        }
        self.previous = Some(key);
    }

    /// Keys ascend, so the last one alone is compared with the upper bound.
    fn end(&self, count: u16, found: &mut dyn FnMut(Damage)) {
        if let (Some(last), Some(upper)) = (self.previous, self.range.upper)
            && last >= upper
        {
            found(Damage::KeyAboveRange { index: usize::from(count).saturating_sub(1) });
        }
    }
}
