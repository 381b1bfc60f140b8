//! The bytes of a page, drawn in `docs/formats/bbolt.md`, read with every bound checked.
//!
//! All integers are little endian: bbolt writes the machine's own order, and all platforms etcd supports are little
//! endian. The Go structs are `Page`, `Meta`, `leafPageElement`, `branchPageElement` and `InBucket` in
//! `go.etcd.io/bbolt/internal/common`.
use crate::error::MetaFault;

/// Bytes of a page header.
pub(crate) const PAGE_HEADER_BYTES: usize = 16;
/// Bytes of an entry in a leaf or branch page's element table (both happen to be the same).
pub(crate) const ELEMENT_BYTES: usize = 16;
/// Bytes of a bucket header: root page id and sequence.
pub(crate) const BUCKET_HEADER_BYTES: usize = 16;
/// Bytes of the meta structure, the checksum included.
pub(crate) const META_BYTES: usize = 64;

pub(crate) const FLAG_BRANCH: u16 = 0x01;
pub(crate) const FLAG_LEAF: u16 = 0x02;
pub(crate) const FLAG_META: u16 = 0x04;
pub(crate) const FLAG_FREELIST: u16 = 0x10;
/// Flag of a leaf element whose value is a bucket.
pub(crate) const ELEMENT_IS_BUCKET: u32 = 1;

pub(crate) const MAGIC: u32 = 0xED0C_DAED;
pub(crate) const VERSION: u32 = 2;
/// The free-list page id that says "no free list is stored".
pub(crate) const NO_FREELIST: u64 = u64::MAX;

/// The page sizes for which bbolt looks for the second meta page (`getPageSizeFromSecondMeta`).
pub(crate) const PAGE_SIZE_MIN_BYTES: u32 = 1 << 10;
pub(crate) const PAGE_SIZE_MAX_BYTES: u32 = 1 << 24;

pub(crate) fn valid_page_size(bytes: u32) -> bool {
    bytes.is_power_of_two() && (PAGE_SIZE_MIN_BYTES..=PAGE_SIZE_MAX_BYTES).contains(&bytes)
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}

/// The 16 bytes at the start of every page (and of the page inside an inline bucket).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageHeader {
    pub(crate) id: u64,
    pub(crate) flags: u16,
    pub(crate) count: u16,
    pub(crate) overflow: u32,
}

impl PageHeader {
    pub(crate) fn parse(page: &[u8]) -> Option<Self> {
        Some(Self {
            id: u64_at(page, 0)?,
            flags: u16_at(page, 8)?,
            count: u16_at(page, 10)?,
            overflow: u32_at(page, 12)?,
        })
    }

    pub(crate) fn to_bytes(self) -> [u8; PAGE_HEADER_BYTES] {
        let mut out = [0; PAGE_HEADER_BYTES];
        let (id, rest) = out.split_at_mut(8);
        id.copy_from_slice(&self.id.to_le_bytes());
        let (flags, rest) = rest.split_at_mut(2);
        flags.copy_from_slice(&self.flags.to_le_bytes());
        let (count, overflow) = rest.split_at_mut(2);
        count.copy_from_slice(&self.count.to_le_bytes());
        overflow.copy_from_slice(&self.overflow.to_le_bytes());
        out
    }
}

/// The meta page that describes the database: where its root is and how far its pages reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Size of a page in bytes.
    pub page_size: u32,
    /// Page id of the root bucket's root page.
    pub root: u64,
    /// The root bucket's sequence (unused by bbolt and etcd).
    pub root_sequence: u64,
    /// Page id of the stored free list; `None` when none is stored, as etcd does on Linux.
    pub freelist: Option<u64>,
    /// The first page id never used: all pages of the database lie below it.
    pub high_water_mark: u64,
    /// Number of the transaction that wrote this meta page.
    pub txid: u64,
}

impl Meta {
    /// Reads the meta structure (without its page header) and verifies magic, version, page size and checksum.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, MetaFault> {
        Self::fields(bytes).unwrap_or(Err(MetaFault::Unreadable))
    }

    fn fields(bytes: &[u8]) -> Option<Result<Self, MetaFault>> {
        let (magic, version, page_size) = (u32_at(bytes, 0)?, u32_at(bytes, 4)?, u32_at(bytes, 8)?);
        let found = u64_at(bytes, 56)?;
        let computed = fnv1a_64(bytes.get(..56)?);
        let freelist = u64_at(bytes, 32)?;
        Some(if magic != MAGIC {
            Err(MetaFault::Magic { found: magic })
        } else if version != VERSION {
            Err(MetaFault::Version { found: version })
        } else if computed != found {
            Err(MetaFault::Checksum { computed, found })
        } else if !valid_page_size(page_size) {
            Err(MetaFault::PageSize { found: page_size })
        } else {
            Ok(Self {
                page_size,
                root: u64_at(bytes, 16)?,
                root_sequence: u64_at(bytes, 24)?,
                freelist: (freelist != NO_FREELIST).then_some(freelist),
                high_water_mark: u64_at(bytes, 40)?,
                txid: u64_at(bytes, 48)?,
            })
        })
    }

    /// The meta structure with its checksum.
    pub(crate) fn to_bytes(self) -> [u8; META_BYTES] {
        let mut fields = Vec::with_capacity(META_BYTES);
        fields.extend_from_slice(&MAGIC.to_le_bytes());
        fields.extend_from_slice(&VERSION.to_le_bytes());
        fields.extend_from_slice(&self.page_size.to_le_bytes());
        fields.extend_from_slice(&0u32.to_le_bytes());
        for word in [
            self.root,
            self.root_sequence,
            self.freelist.unwrap_or(NO_FREELIST),
            self.high_water_mark,
            self.txid,
        ] {
            fields.extend_from_slice(&word.to_le_bytes());
        }
        let checksum = fnv1a_64(&fields);
        fields.extend_from_slice(&checksum.to_le_bytes());
        let mut out = [0; META_BYTES];
        out.copy_from_slice(&fields);
        out
    }
}

/// FNV-1a, 64 bits: Fowler, Noll, Vo; the checksum of bbolt's meta pages (`Meta.Sum64`).
pub(crate) fn fnv1a_64(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The header of a bucket: the first 16 bytes of a bucket element's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BucketHeader {
    /// Root page id; 0 when the bucket's only page follows inline.
    pub(crate) root: u64,
    pub(crate) sequence: u64,
}

impl BucketHeader {
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        Some(Self { root: u64_at(value, 0)?, sequence: u64_at(value, 8)? })
    }

    pub(crate) fn to_bytes(self) -> [u8; BUCKET_HEADER_BYTES] {
        let mut out = [0; BUCKET_HEADER_BYTES];
        let (root, sequence) = out.split_at_mut(8);
        root.copy_from_slice(&self.root.to_le_bytes());
        sequence.copy_from_slice(&self.sequence.to_le_bytes());
        out
    }
}

/// A key with what it leads to, in a leaf.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeafElement<'a> {
    /// Where the key starts in the run.
    pub(crate) start: usize,
    pub(crate) flags: u32,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl LeafElement<'_> {
    pub(crate) fn is_bucket(&self) -> bool {
        self.flags & ELEMENT_IS_BUCKET != 0
    }
}

/// Element `index` of the leaf page whose run of bytes (overflow pages included) is `run`. `None`: out of bounds.
#[inline]
pub(crate) fn leaf_element(run: &[u8], index: usize) -> Option<LeafElement<'_>> {
    let at = PAGE_HEADER_BYTES + index * ELEMENT_BYTES;
    let entry: [u8; ELEMENT_BYTES] = bytes_at(run, at)?;
    let [f0, f1, f2, f3, p0, p1, p2, p3, k0, k1, k2, k3, v0, v1, v2, v3] = entry;
    let start = at.checked_add(u32::from_le_bytes([p0, p1, p2, p3]) as usize)?;
    let middle = start.checked_add(u32::from_le_bytes([k0, k1, k2, k3]) as usize)?;
    let end = middle.checked_add(u32::from_le_bytes([v0, v1, v2, v3]) as usize)?;
    Some(LeafElement {
        start,
        flags: u32::from_le_bytes([f0, f1, f2, f3]),
        key: run.get(start..middle)?,
        value: run.get(middle..end)?,
    })
}

/// A key with the child page it leads to, in a branch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BranchElement<'a> {
    /// Where the key starts in the run.
    pub(crate) start: usize,
    pub(crate) key: &'a [u8],
    pub(crate) page: u64,
}

/// Element `index` of the branch page whose run of bytes is `run`. `None`: out of bounds.
#[inline]
pub(crate) fn branch_element(run: &[u8], index: usize) -> Option<BranchElement<'_>> {
    let at = PAGE_HEADER_BYTES + index * ELEMENT_BYTES;
    let start = at.checked_add(u32_at(run, at)? as usize)?;
    let end = start.checked_add(u32_at(run, at + 4)? as usize)?;
    Some(BranchElement { start, key: run.get(start..end)?, page: u64_at(run, at + 8)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published test vectors of FNV-1a, 64 bits.
    #[test]
    fn fnv1a_gives_the_published_values() {
        assert_eq!(fnv1a_64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a_64(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a_64(b"foobar"), 0x8594_4171_f739_67e8);
    }

    /// A meta page goes out and comes back, and any one changed byte of it is noticed.
    #[test]
    fn a_meta_page_survives_no_changed_byte() {
        let meta = Meta {
            page_size: 4096,
            root: 3,
            root_sequence: 5,
            freelist: None,
            high_water_mark: 1 << 40,
            txid: 77,
        };
        let bytes = meta.to_bytes();
        assert_eq!(bytes[..8], [0xED, 0xDA, 0x0C, 0xED, 2, 0, 0, 0]);
        assert_eq!(Meta::parse(&bytes), Ok(meta));
        for at in 0..bytes.len() {
            let mut changed = bytes;
            changed[at] ^= 0x10;
            assert!(Meta::parse(&changed).is_err(), "byte {at}");
        }
        assert_eq!(Meta::parse(&bytes[..63]), Err(MetaFault::Unreadable));
    }
}
