//! The erasure code: parity shards from data shards, and lost data shards from what is left.
//!
//! Works on a slice of all shards at a time, so that memory does not grow with them. Finds no damage: a shard that is not
//! as it was made must not be handed in.

use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder, RateEncoder};

use crate::error::{Error, Result};

/// Working memory in bytes, about: what fits into a cache is faster, too.
const WORK_BYTES: usize = 2 << 20;
/// The code works on blocks of so many bytes, each for itself.
const BLOCK: usize = crate::format::parity::SHARD_STEP;

/// A shard of which the end may be missing, which stands for zeros.
pub(super) type Shard<'a> = &'a [u8];

/// `count` parity shards of `size` bytes, end to end.
///
/// # Errors
///
/// [`Error::Invalid`] for numbers that the code cannot do.
pub(super) fn encode(data: &[Shard<'_>], count: usize, size: usize) -> Result<Vec<u8>> {
    let step = step(data.len() + count.next_power_of_two(), size);
    let mut out = vec![0; count * size];
    let mut encoder = HighRateEncoder::new(data.len(), count, step.min(size), DefaultEngine::new(), None).map_err(refused)?;
    let mut scratch = vec![0; step];
    for at in (0..size).step_by(step) {
        let length = step.min(size - at);
        encoder.reset(data.len(), count, length).map_err(refused)?;
        for shard in data {
            encoder.add_original_shard(slice(shard, at, length, &mut scratch)).map_err(refused)?;
        }
        let made = encoder.encode().map_err(refused)?;
        for (number, parity) in made.recovery_iter().enumerate() {
            let start = number * size + at;
            out.get_mut(start..start + length).ok_or_else(wrong_size)?.copy_from_slice(parity);
        }
    }
    Ok(out)
}

/// A shard by its number.
type Computed = (usize, Vec<u8>);

/// The shards that `data` lacks, by their numbers, each with `size` bytes. `None` if too few are left.
///
/// # Errors
///
/// [`Error::Invalid`] for numbers that the code cannot do.
pub(super) fn decode(data: &[Option<Shard<'_>>], parity: &[Option<Shard<'_>>], size: usize) -> Result<Option<Vec<Computed>>> {
    let mut lost: Vec<Computed> =
        data.iter().enumerate().filter(|(_, shard)| shard.is_none()).map(|(number, _)| (number, vec![0; size])).collect();
    if lost.is_empty() || lost.len() > parity.iter().flatten().count() {
        return Ok(lost.is_empty().then_some(lost));
    }
    let step = step((data.len() + parity.len().next_power_of_two()).next_power_of_two(), size);
    let engine = DefaultEngine::new();
    let mut decoder = HighRateDecoder::new(data.len(), parity.len(), step.min(size), engine, None).map_err(refused)?;
    let mut scratch = vec![0; step];
    for at in (0..size).step_by(step) {
        let length = step.min(size - at);
        decoder.reset(data.len(), parity.len(), length).map_err(refused)?;
        for (number, shard) in data.iter().enumerate().filter_map(|(n, shard)| Some((n, (*shard)?))) {
            decoder.add_original_shard(number, slice(shard, at, length, &mut scratch)).map_err(refused)?;
        }
        for (number, shard) in parity.iter().enumerate().filter_map(|(n, shard)| Some((n, (*shard)?))) {
            decoder.add_recovery_shard(number, slice(shard, at, length, &mut scratch)).map_err(refused)?;
        }
        let made = decoder.decode().map_err(refused)?;
        for (number, out) in &mut lost {
            let part = made.restored_original(*number).ok_or_else(wrong_size)?;
            out.get_mut(at..at + length).ok_or_else(wrong_size)?.copy_from_slice(part);
        }
    }
    Ok(Some(lost))
}

/// Bytes of each shard that are worked on at a time, if so many are in memory.
fn step(shards: usize, size: usize) -> usize {
    let fits = WORK_BYTES / shards.max(1) / BLOCK * BLOCK;
    fits.clamp(BLOCK, size.max(BLOCK))
}

fn slice<'a>(shard: &'a [u8], at: usize, length: usize, scratch: &'a mut [u8]) -> &'a [u8] {
    if let Some(part) = shard.get(at..at + length) {
        return part;
    }
    let there = shard.get(at..).unwrap_or_default();
    let (filled, zeros) = scratch[..length].split_at_mut(there.len());
    filled.copy_from_slice(there);
    zeros.fill(0);
    &scratch[..length]
}

fn refused(error: reed_solomon_simd::Error) -> Error {
    Error::Invalid(format!("parity: {error}"))
}

fn wrong_size() -> Error {
    Error::Invalid("parity: shards of another size than announced".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: usize, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
        out
    }

    fn check(data: usize, count: usize, size: usize, last: usize) {
        let mut shards: Vec<Vec<u8>> = (0..data).map(|n| noise(n, size)).collect();
        shards.last_mut().expect("some").truncate(last);
        let parity = encode(&shards.iter().map(Vec::as_slice).collect::<Vec<_>>(), count, size).expect("encodes");
        let parity: Vec<&[u8]> = parity.chunks_exact(size).collect();
        for first in [0, data.saturating_sub(count), data / 2] {
            let lost = first..(first + count).min(data);
            let left: Vec<_> = shards.iter().enumerate().map(|(n, s)| (!lost.contains(&n)).then_some(s.as_slice())).collect();
            let some: Vec<_> = parity.iter().enumerate().map(|(n, s)| (n >= count - lost.len()).then_some(*s)).collect();
            let rebuilt = decode(&left, &some, size).expect("decodes").expect("enough is left");
            assert_eq!(rebuilt.len(), lost.len());
            for (number, bytes) in rebuilt {
                assert!(bytes.starts_with(&shards[number]) && bytes[shards[number].len()..].iter().all(|b| *b == 0));
            }
            let fewer: Vec<_> = some.iter().enumerate().map(|(n, s)| s.filter(|_| n + 1 != count)).collect();
            assert!(decode(&left, &fewer, size).expect("no error").is_none());
        }
    }

    #[test]
    fn as_many_as_there_is_parity_come_back() {
        for (data, count, size, last) in
            [(1, 1, 64, 1), (1, 1, 4096, 4096), (20, 1, 65536, 10), (256, 13, 65536, 65536), (5, 5, 128, 3), (700, 35, 256, 255)]
        {
            check(data, count, size, last);
        }
    }

    #[test]
    fn parity_of_a_single_shard_is_a_copy() {
        let shard = noise(1, 640);
        assert_eq!(encode(&[&shard], 1, 640).expect("encodes"), shard);
    }

    /// The definition in `docs/format.md`, without the crate: over all positions, the sums of value times point to the power
    /// of 0, 1, … vanish.
    #[test]
    fn codewords_are_those_of_the_format() {
        const BASIS: [u16; 16] = [
            0x0001, 0xACCA, 0x3C0E, 0x163E, 0xC582, 0xED2E, 0x914C, 0x4012, 0x6C98, 0x10D8, 0x6A72, 0xB900, 0xFDB8, 0xFB34,
            0xFF38, 0x991E,
        ];
        let element = |number: usize| (0..16).filter(|bit| number >> bit & 1 == 1).fold(0, |sum, bit| sum ^ BASIS[bit]);
        let times = |a: u16, b: u16| {
            let mut product: u32 = (0..16).filter(|bit| b >> bit & 1 == 1).fold(0, |sum, bit| sum ^ u32::from(a) << bit);
            for bit in (16..31).rev() {
                if product >> bit & 1 == 1 {
                    product ^= 0x1_002D << (bit - 16);
                }
            }
            u16::try_from(product).expect("reduced")
        };
        let (data, count) = (11, 3);
        let shards: Vec<Vec<u8>> = (0..data).map(|n| noise(n, 64)).collect();
        let refs: Vec<&[u8]> = shards.iter().map(Vec::as_slice).collect();
        // The fourth one is not stored, but is there in the sums.
        let parity =
            [encode(&refs, count, 64).expect("encodes"), encode(&refs, 4, 64).expect("encodes")[3 * 64..].to_vec()].concat();
        let all: Vec<&[u8]> = parity.chunks_exact(64).chain(refs).collect();
        for symbol in 0..32 {
            for power in 0..4 {
                let mut sum = 0;
                for (position, shard) in all.iter().enumerate() {
                    let value = element(usize::from(shard[symbol]) | usize::from(shard[symbol + 32]) << 8);
                    sum ^= (0..power).fold(value, |product, _| times(product, element(position)));
                }
                assert_eq!(sum, 0, "symbol {symbol}, power {power}");
            }
        }
    }
}
