//! Cutting content into chunks: FastCDC (Xia et al., USENIX ATC 2016; the 2020 two-byte variant of the `fastcdc` crate)
//! over a gear table made from a repository secret, so that cut points say nothing to those who do not know it.
//!
//! Pure: takes a window of bytes, returns a length. Allocates nothing.

use fastcdc::v2020::{Normalization, cut_gear, select_masks};

use crate::crypto::Key;

/// Sizes of chunks in bytes; all even, since the scan takes two bytes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSizes {
    /// No chunk but the last of a file is shorter.
    pub min: u32,
    /// The length around which most chunks lie.
    pub average: u32,
    /// No chunk is longer.
    pub max: u32,
}

/// The default of new repositories. Chosen by measurement: `benches/README.md`, "Chunk sizes".
pub const DEFAULT_SIZES: ChunkSizes = ChunkSizes { min: 64 << 10, average: 256 << 10, max: 1 << 20 };

impl ChunkSizes {
    /// Whether the sizes are in order and within what the format allows (1 KiB to 8 MiB).
    #[must_use]
    pub fn are_valid(&self) -> bool {
        let even = [self.min, self.average, self.max].iter().all(|n| n % 2 == 0);
        even && self.min >= 1 << 10 && self.min < self.average && self.average < self.max && self.max <= 8 << 20
    }
}

/// Cuts chunks. Cheap to share between threads.
pub struct Chunker {
    sizes: ChunkSizes,
    gear: Box<[u64; 256]>,
    gear_shifted: Box<[u64; 256]>,
    strict: u64,
    loose: u64,
}

impl Chunker {
    /// A chunker for a repository. `sizes` must be valid.
    #[must_use]
    pub fn new(key: &Key, sizes: ChunkSizes) -> Self {
        let mut bytes = [0; 2048];
        key.prf(&[b"gear"]).finalize_xof().fill(&mut bytes);
        let mut gear = Box::new([0; 256]);
        for (word, raw) in gear.iter_mut().zip(bytes.chunks_exact(8)) {
            let mut le = [0; 8];
            le.copy_from_slice(raw);
            *word = u64::from_le_bytes(le);
        }
        let gear_shifted = Box::new(gear.map(|g| g << 1));
        let (strict, loose) = select_masks(sizes.average as usize, Normalization::Level2);
        Self { sizes, gear, gear_shifted, strict, loose }
    }

    /// The sizes in use.
    #[must_use]
    pub const fn sizes(&self) -> ChunkSizes {
        self.sizes
    }

    /// Length of the chunk at the start of `window`. A result equal to the window's length is final only if the window
    /// reaches to the end of the content or holds at least the maximum.
    #[must_use]
    pub fn cut(&self, window: &[u8]) -> usize {
        let ChunkSizes { min, average, max } = self.sizes;
        let (_, at) = cut_gear(
            window,
            min as usize,
            average as usize,
            max as usize,
            self.strict,
            self.loose,
            self.strict << 1,
            self.loose << 1,
            &*self.gear,
            &*self.gear_shifted,
        );
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().update(b"chunker test").finalize_xof().fill(&mut out);
        out
    }

    fn cuts(chunker: &Chunker, mut data: &[u8]) -> Vec<usize> {
        let mut out = Vec::new();
        while !data.is_empty() {
            let n = chunker.cut(data);
            out.push(n);
            data = &data[n..];
        }
        out
    }

    /// Golden vector: a change here would make every repository store everything again.
    #[test]
    fn cut_points_are_fixed() {
        let chunker = Chunker::new(&Key::from_bytes([9; 32]), ChunkSizes { min: 4096, average: 16384, max: 65536 });
        let found = cuts(&chunker, &noise(200_000));
        assert_eq!(found.iter().sum::<usize>(), 200_000);
        assert_eq!(found, GOLDEN);
    }
    const GOLDEN: [usize; 11] = [16729, 19691, 24121, 29519, 16389, 18171, 16357, 4459, 20722, 22637, 11205];

    #[test]
    fn an_insertion_moves_few_cuts() {
        let chunker = Chunker::new(&Key::from_bytes([9; 32]), ChunkSizes { min: 4096, average: 16384, max: 65536 });
        let data = noise(2_000_000);
        let mut shifted = data.clone();
        shifted.insert(1_000_000, 7);
        let ends = |data: &[u8]| {
            let mut at = 0;
            cuts(&chunker, data)
                .into_iter()
                .map(|n| {
                    at += n;
                    data.len() - at
                })
                .collect::<Vec<_>>()
        };
        let (before, after) = (ends(&data), ends(&shifted));
        let kept = after.iter().filter(|e| before.contains(e) || **e > 1_000_000).count();
        assert!(kept + 3 >= after.len(), "{kept} of {}", after.len());
    }
}
