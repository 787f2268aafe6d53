//! The two sums of a block, taken as its bytes pass.

use blake2::Blake2b;
use blake2::digest::consts::U32;
use md4::{Digest, Md4};

/// Added to every byte in the classic rolling sum.
const ROLLSUM_OFFSET: u32 = 31;
/// Seed and factor of librsync's Rabin-Karp sum.
const RABINKARP_SEED: u32 = 1;
const RABINKARP_FACTOR: u32 = 0x0810_4225;

/// Which weak sum a signature has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeakSum {
    /// The classic one, as rsync's. All that duplicity writes.
    Rollsum,
    /// Rabin-Karp, of librsync 2.2 and later.
    RabinKarp,
}

/// Which strong sum a signature has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StrongSum {
    /// MD4, 16 bytes. All that duplicity writes, cut to 8.
    Md4,
    /// BLAKE2b with 32 bytes.
    Blake2,
}

impl StrongSum {
    /// Bytes of the whole sum, the most that a signature can hold.
    #[must_use]
    pub fn length(self) -> u32 {
        match self {
            Self::Md4 => 16,
            Self::Blake2 => 32,
        }
    }
}

/// State of a weak sum.
#[derive(Clone, Copy)]
pub(super) enum Weak {
    Rollsum(u32, u32),
    RabinKarp(u32),
}

impl Weak {
    pub fn new(kind: WeakSum) -> Self {
        match kind {
            WeakSum::Rollsum => Self::Rollsum(0, 0),
            WeakSum::RabinKarp => Self::RabinKarp(RABINKARP_SEED),
        }
    }

    pub fn update(&mut self, data: &[u8]) {
        match self {
            Self::Rollsum(s1, s2) => (*s1, *s2) = rollsum(*s1, *s2, data),
            Self::RabinKarp(hash) => {
                *hash = data.iter().fold(*hash, |h, b| h.wrapping_mul(RABINKARP_FACTOR).wrapping_add(u32::from(*b)));
            }
        }
    }

    pub fn value(self) -> u32 {
        match self {
            Self::Rollsum(s1, s2) => (s2 << 16) | (s1 & 0xffff),
            Self::RabinKarp(hash) => hash,
        }
    }
}

/// Both halves of the rolling sum after more bytes, modulo 2^32. Groups of bytes are summed at once: s2 grows by s1 for every byte,
/// so within a group byte i counts N - i times. In 16 bits, of which compilers multiply and add eight and more in one instruction.
fn rollsum(mut s1: u32, mut s2: u32, data: &[u8]) -> (u32, u32) {
    const N: usize = 64;
    const N32: u32 = 64;
    const WEIGHTS: [i16; N] = {
        let (mut weights, mut weight, mut i) = ([0; N], 64, 0);
        while i < N {
            weights[i] = weight;
            (weight, i) = (weight - 1, i + 1);
        }
        weights
    };
    let (groups, rest) = data.as_chunks::<N>();
    for group in groups {
        let (mut sum, mut weighted) = (0u32, 0i32);
        for (byte, weight) in group.iter().zip(&WEIGHTS) {
            sum += u32::from(*byte);
            weighted += i32::from(i16::from(*byte)) * i32::from(*weight);
        }
        let offsets = ROLLSUM_OFFSET * (N32 * (N32 + 1) / 2);
        s2 = s2.wrapping_add(s1.wrapping_mul(N32)).wrapping_add(weighted.cast_unsigned() + offsets);
        s1 = s1.wrapping_add(sum + ROLLSUM_OFFSET * N32);
    }
    for byte in rest {
        s1 = s1.wrapping_add(u32::from(*byte) + ROLLSUM_OFFSET);
        s2 = s2.wrapping_add(s1);
    }
    (s1, s2)
}

/// State of a strong sum.
#[derive(Clone)]
pub(super) enum Strong {
    Md4(Md4),
    Blake2(Box<Blake2b<U32>>),
}

impl Strong {
    pub fn new(kind: StrongSum) -> Self {
        match kind {
            StrongSum::Md4 => Self::Md4(Md4::new()),
            StrongSum::Blake2 => Self::Blake2(Box::new(Blake2b::new())),
        }
    }

    pub fn update(&mut self, data: &[u8]) {
        match self {
            Self::Md4(hash) => hash.update(data),
            Self::Blake2(hash) => hash.update(data),
        }
    }

    /// Appends the first `length` bytes of the sum and starts anew.
    pub fn finish_into(&mut self, length: usize, out: &mut Vec<u8>) {
        match self {
            Self::Md4(hash) => out.extend(hash.finalize_reset().iter().take(length)),
            Self::Blake2(hash) => out.extend(hash.finalize_reset().iter().take(length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rollsum_by_its_definition(data in prop::collection::vec(any::<u8>(), 0..600), cut in 0usize..600) {
            let n = data.len();
            let s1 = data.iter().map(|c| u64::from(*c) + 31).sum::<u64>() % 65536;
            let s2 = data.iter().zip(0..).map(|(c, i)| (n - i) as u64 * (u64::from(*c) + 31)).sum::<u64>() % 65536;
            let mut weak = Weak::new(WeakSum::Rollsum);
            let (a, b) = data.split_at(cut.min(n));
            weak.update(a);
            weak.update(b);
            prop_assert_eq!(u64::from(weak.value()), (s2 << 16) | s1);
        }
    }
}
