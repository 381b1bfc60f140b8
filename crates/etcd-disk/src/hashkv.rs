//! HashKV: etcd's checksum of the MVCC rows, computed offline as the `Maintenance.HashKV` RPC does (3.5.9 and later).
//!
//! CRC-32C, seeded with the bytes `key`, over row key and row value of each row up to the hash revision, in order;
//! of rows up to the compact revision only those count that a compaction at the hash revision would keep: the newest
//! row of each key that is alive there. Nothing is left out if there is no such key; a tombstone exactly at the
//! compact revision never counts. Source: `kvHasher` and `keyIndex.keep` in etcd `server/storage/mvcc`.
//!
//! Whether a row up to the compact revision counts is known only when later rows have been seen. So one CRC runs over
//! all rows, and what it was before and after a row gives the row's own: CRCs of neighbours combine without the bytes
//! (`Joiner`). Those that count are joined at the end, and one pass over the rows is enough (`scan.rs`).

/// A HashKV with what it was computed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKv {
    /// The checksum, as in the RPC's `hash`.
    pub hash: u32,
    /// Rows up to this main revision count (the RPC's `hash_revision`).
    pub revision: i64,
    /// The compact revision it was computed with (the RPC's `compact_revision`; -1: never compacted).
    pub compact_revision: i64,
}

/// CRC-32C of the bucket's name, with which every HashKV starts.
pub(crate) fn seed() -> u32 {
    crc32c::crc32c(b"key")
}

/// CRC-32C over one row, from `crc` on.
pub(crate) fn append_row(crc: u32, key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value)
}

/// CRC-32C (Castagnoli), bit-reflected.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// Lengths below this have their operator kept; longer ones are worked out each time.
const KEPT_LENGTHS: usize = 1 << 14;

/// Joins CRCs of neighbouring byte runs: crc(AB) = crc(A) * x^(8 len B) + crc(B) over GF(2) modulo the polynomial.
///
/// Method: Mark Adler's `crc32_combine` in zlib, here with CRC-32C.
pub(crate) struct Joiner {
    /// `x^(2^k)` for k = 0..
    squares: [u32; 72],
    /// `x^(8 len)` by len, 0 = not yet known.
    by_len: Vec<u32>,
}

impl Joiner {
    pub(crate) fn new() -> Self {
        let mut square = 1u32 << 30;
        let squares = std::array::from_fn(|_| {
            let this = square;
            square = multiply(square, square);
            this
        });
        Self { squares, by_len: vec![0; KEPT_LENGTHS] }
    }

    /// The CRC of `A` followed by `B`, of which `len_b` bytes.
    pub(crate) fn join(&mut self, crc_a: u32, crc_b: u32, len_b: u64) -> u32 {
        multiply(self.operator(len_b), crc_a) ^ crc_b
    }

    fn operator(&mut self, len: u64) -> u32 {
        let slot = usize::try_from(len).ok().filter(|&l| l < KEPT_LENGTHS);
        if let Some(&known) = slot.and_then(|l| self.by_len.get(l))
            && known != 0
        {
            return known;
        }
        let mut operator = 1u32 << 31;
        for (bit, square) in self.squares.iter().skip(3).take(64).enumerate() {
            if len >> bit & 1 == 1 {
                operator = multiply(*square, operator);
            }
        }
        if let Some(kept) = slot.and_then(|l| self.by_len.get_mut(l)) {
            *kept = operator;
        }
        operator
    }
}

/// Product of two reflected polynomials modulo [`POLYNOMIAL`].
fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    for bit in (0..32).rev() {
        product ^= b & 0u32.wrapping_sub(a >> bit & 1);
        b = (b >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(b & 1));
    }
    product
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn joined_crcs_equal_the_crc_of_the_whole(a: Vec<u8>, b: Vec<u8>) {
            let mut joiner = Joiner::new();
            let whole: Vec<u8> = a.iter().chain(&b).copied().collect();
            let joined = joiner.join(crc32c::crc32c(&a), crc32c::crc32c(&b), b.len() as u64);
            prop_assert_eq!(joined, crc32c::crc32c(&whole));
            prop_assert_eq!(joiner.join(crc32c::crc32c(&a), crc32c::crc32c(&b), b.len() as u64), joined);
        }
    }

    #[test]
    fn long_runs_join() {
        let (a, b) = (vec![7u8; 1000], vec![9u8; KEPT_LENGTHS + 12_345]);
        let whole: Vec<u8> = a.iter().chain(&b).copied().collect();
        let joined = Joiner::new().join(crc32c::crc32c(&a), crc32c::crc32c(&b), b.len() as u64);
        assert_eq!(joined, crc32c::crc32c(&whole));
    }
}
