//! A set of page ids, as a bitmap that takes memory only where it is used and never more than the file's size allows.

/// Pages per chunk: 4 KiB of bits.
const CHUNK_PAGES: u64 = 1 << 15;
const WORDS: usize = 512;

#[derive(Debug, Default, Clone)]
pub(crate) struct PageSet {
    chunks: Vec<Option<Box<[u64; WORDS]>>>,
    len: u64,
}

impl PageSet {
    /// Adds `page`; false when it was there already.
    pub(crate) fn insert(&mut self, page: u64) -> bool {
        let Ok(chunk) = usize::try_from(page / CHUNK_PAGES) else { return false };
        if chunk >= self.chunks.len() {
            self.chunks.resize_with(chunk + 1, || None);
        }
        let Some(slot) = self.chunks.get_mut(chunk) else { return false };
        let words = slot.get_or_insert_with(|| Box::new([0; WORDS]));
        let Some(word) = words.get_mut(word_of(page)) else { return false };
        let fresh = *word & bit_of(page) == 0;
        *word |= bit_of(page);
        self.len += u64::from(fresh);
        fresh
    }

    pub(crate) fn contains(&self, page: u64) -> bool {
        usize::try_from(page / CHUNK_PAGES)
            .ok()
            .and_then(|chunk| self.chunks.get(chunk)?.as_ref()?.get(word_of(page)))
            .is_some_and(|word| word & bit_of(page) != 0)
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
        self.len = 0;
    }
}

fn word_of(page: u64) -> usize {
    // Below 512 by the modulus.
    usize::try_from(page % CHUNK_PAGES / 64).unwrap_or(0)
}

fn bit_of(page: u64) -> u64 {
    1 << (page % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages far apart, at the borders of words and chunks, are told apart and counted once.
    #[test]
    fn pages_are_told_apart() {
        let mut set = PageSet::default();
        let pages = [0, 1, 63, 64, 32_767, 32_768, 1_000_000];
        for page in pages {
            assert!(!set.contains(page));
            assert!(set.insert(page));
            assert!(!set.insert(page));
        }
        assert_eq!(set.len(), pages.len() as u64);
        assert!(pages.iter().all(|page| set.contains(*page)));
        assert!([2, 62, 65, 32_769, 999_999].iter().all(|page| !set.contains(*page)));
        set.clear();
        assert!(!set.contains(63) && set.len() == 0);
    }
}
