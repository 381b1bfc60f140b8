//! Buckets: named trees of rows. Small ones lie inline in the value of their own element.
use crate::cursor::Cursor;
use crate::error::{Damage, Error};
use crate::file::BoltFile;
use crate::inspect::{KeyRange, inspect_leaf};
use crate::layout::{BUCKET_HEADER_BYTES, BucketHeader, FLAG_LEAF, LeafElement, PageHeader, leaf_element};
use crate::pager::Pager;
use crate::source::ReadAt;
use crate::walk::Leaf;

/// Where a bucket's rows are.
#[derive(Debug, Clone)]
pub(crate) enum Root {
    Page(u64),
    Inline(InlinePage),
}

/// The only page of an inline bucket, copied out of its element's value and inspected.
#[derive(Debug, Clone)]
pub(crate) struct InlinePage {
    bytes: Vec<u8>,
    count: usize,
    host: u64,
}

impl InlinePage {
    pub(crate) fn leaf(&self, pager: &mut Pager) -> Leaf {
        Leaf { page: self.host, count: self.count, run: pager.hold_inline(&self.bytes), damaged: false }
    }
}

/// The value of a bucket element, taken apart.
pub(crate) enum BucketValue<'a> {
    Page(BucketHeader),
    Inline { header: BucketHeader, page: &'a [u8], count: u16 },
}

/// Takes a bucket element's value apart and inspects an inline page. `found` hears of every fault; `None` when the
/// bucket cannot be entered at all.
pub(crate) fn bucket_value<'a>(
    element: &LeafElement<'a>,
    index: usize,
    found: &mut dyn FnMut(Damage),
) -> Option<BucketValue<'a>> {
    let mut fault = |fault: &str| found(Damage::Bucket { index, fault: fault.to_owned() });
    let Some(header) = BucketHeader::parse(element.value) else {
        fault("its value is shorter than a bucket header");
        return None;
    };
    if header.root != 0 {
        if element.value.len() != BUCKET_HEADER_BYTES {
            fault("its value is longer than a bucket header");
        }
        return Some(BucketValue::Page(header));
    }
    let page = element.value.get(BUCKET_HEADER_BYTES..).unwrap_or_default();
    let Some(inline) = PageHeader::parse(page) else {
        fault("its inline page is shorter than a page header");
        return None;
    };
    if inline.id != 0 || inline.flags != FLAG_LEAF || inline.overflow != 0 {
        fault("its inline page is no leaf page");
        return None;
    }
    inspect_leaf(page, inline.count, KeyRange::default(), &mut |damage| {
        found(Damage::Bucket { index, fault: format!("inline page: {damage}") });
    });
    if (0..usize::from(inline.count)).any(|i| leaf_element(page, i).is_some_and(|e| e.is_bucket())) {
        // bbolt writes only buckets without nested ones inline (`Bucket.inlineable`).
        found(Damage::Bucket { index, fault: "inline page: it holds a bucket".to_owned() });
    }
    Some(BucketValue::Inline { header, page, count: inline.count })
}

/// A bucket of an open database.
#[derive(Debug, Clone)]
pub struct Bucket<'f, S: ReadAt> {
    file: &'f BoltFile<S>,
    root: Root,
    sequence: u64,
    /// Pages from the top of the file down to the leaf that holds this bucket.
    above: Vec<u64>,
}

impl<'f, S: ReadAt> Bucket<'f, S> {
    /// The bucket that holds the top-level buckets.
    pub(crate) fn root(file: &'f BoltFile<S>) -> Self {
        let meta = file.meta();
        Self { file, root: Root::Page(meta.root), sequence: meta.root_sequence, above: Vec::new() }
    }

    /// The bucket's sequence number (`NextSequence`; etcd does not use it).
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The value of `key`, or `None` when the key is absent or names a nested bucket.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a page on the way is damaged or unreadable.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let mut cursor = self.cursor();
        let element = cursor.seek_element(key)?.filter(|e| e.key == key && !e.is_bucket());
        Ok(element.map(|e| e.value.to_vec()))
    }

    /// A cursor in front of the first row.
    pub fn cursor(&self) -> Cursor<'f, S> {
        Cursor::new(self.file, self.root.clone(), self.above.clone())
    }

    /// The bucket nested in this one under `name`, or `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a page on the way, or the bucket's header, is damaged.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<'f, S>>, Error> {
        let mut cursor = self.cursor();
        let Some(element) = cursor.seek_element(name)?.filter(|e| e.key == name && e.is_bucket()) else {
            return Ok(None);
        };
        let element = (element.key.to_vec(), element.value.to_vec(), element.flags);
        let element = LeafElement { start: 0, key: &element.0, value: &element.1, flags: element.2 };
        let above = cursor.stack();
        let host = above.last().copied().unwrap_or_default();
        let mut first = None;
        let value = bucket_value(&element, cursor.index(), &mut |damage| {
            first.get_or_insert(damage);
        });
        let root = match (first, value) {
            (None, Some(BucketValue::Page(header))) => (Root::Page(header.root), header.sequence),
            (None, Some(BucketValue::Inline { header, page, count })) => {
                let page = InlinePage { bytes: page.to_vec(), count: usize::from(count), host };
                (Root::Inline(page), header.sequence)
            }
            (Some(damage), _) => return Err(self.file.damaged(self.file.violation(host, above, damage))),
            (None, None) => return Ok(None),
        };
        Ok(Some(Self { file: self.file, root: root.0, sequence: root.1, above }))
    }

    /// The names of the buckets nested directly in this one, in byte order.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a page on the way is damaged or unreadable.
    pub fn bucket_names(&self) -> Result<Vec<Vec<u8>>, Error> {
        let mut cursor = self.cursor();
        let mut names = Vec::new();
        while let Some(element) = cursor.next_element()? {
            if element.is_bucket() {
                names.push(element.key.to_vec());
            }
        }
        Ok(names)
    }
}
