//! A bitmap over the numbers of index entries.

/// One bit for each entry: 6 MiB for 50 million.
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// None of `len` is set.
    pub(super) fn new(len: u64) -> Self {
        Self(vec![0; usize::try_from(len.div_ceil(64)).unwrap_or(usize::MAX)])
    }

    /// Whether it is set. What lies outside is not.
    pub(super) fn get(&self, number: u64) -> bool {
        let word = usize::try_from(number / 64).ok().and_then(|at| self.0.get(at));
        word.is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Sets it; `true` if it was not set before.
    pub(super) fn set(&mut self, number: u64) -> bool {
        let Some(word) = usize::try_from(number / 64).ok().and_then(|at| self.0.get_mut(at)) else { return false };
        let mask = 1 << (number % 64);
        let new = *word & mask == 0;
        *word |= mask;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::Bits;

    #[test]
    fn bits_are_set_once() {
        let mut bits = Bits::new(65);
        assert!(bits.set(64) && !bits.set(64) && bits.set(0));
        assert!(bits.get(64) && bits.get(0) && !bits.get(1) && !bits.get(1000));
        assert!(!bits.set(1000));
    }
}
