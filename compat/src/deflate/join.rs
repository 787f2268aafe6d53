//! Streams of DEFLATE joined to one: what ends a stream is found bit by bit and taken out (RFC 1951; the idea of zlib's gzjoin).

use std::io;

/// What a stream ends with that another follows: the lengths of an empty stored block.
pub(crate) const BORDER: [u8; 4] = [0, 0, 0xff, 0xff];
/// Symbols of literals and lengths, and of distances: all that a header can describe.
const LITERALS: usize = 288;
const DISTANCES: usize = 32;
/// Longest code of either, in bits.
const LONGEST: usize = 15;
const END_OF_BLOCK: usize = 256;
/// Bits that are there when one looks ahead.
const PEEKED: usize = 57;
/// Bits of a length and a distance with all that belongs to them, at most.
const LONGEST_PAIR: usize = 48;
/// Extra bits and smallest length of the symbols from 257 on (RFC 1951, 3.2.5).
const LENGTHS: [(u8, u16); 29] = [
    (0, 3),
    (0, 4),
    (0, 5),
    (0, 6),
    (0, 7),
    (0, 8),
    (0, 9),
    (0, 10),
    (1, 11),
    (1, 13),
    (1, 15),
    (1, 17),
    (2, 19),
    (2, 23),
    (2, 27),
    (2, 31),
    (3, 35),
    (3, 43),
    (3, 51),
    (3, 59),
    (4, 67),
    (4, 83),
    (4, 99),
    (4, 115),
    (5, 131),
    (5, 163),
    (5, 195),
    (5, 227),
    (0, 258),
];
/// Order of the code lengths that describe the code lengths (3.2.7).
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Where a stream ends.
struct End {
    /// Bit that says that its last block is the last.
    last_block: usize,
    /// Bits of the whole stream.
    bits: usize,
    /// Bytes that it inflates to.
    content: usize,
}

/// Makes a whole stream that inflates to `content` bytes one that another can follow: without an end, and up to a whole byte.
///
/// # Errors
///
/// If it is no such stream.
pub(super) fn open_end(stream: &mut Vec<u8>, content: usize) -> io::Result<()> {
    let end = end(stream).filter(|end| end.content == content);
    let end = end.ok_or_else(|| {
        io::Error::other("what was compressed is not what it should be: a fault of memory or of the compressor")
    })?;
    stream[end.last_block / 8] &= !(1 << (end.last_block % 8));
    // An empty stored block: three bits of zeros, zeros up to the next byte, its length and the complement of that.
    stream.resize((end.bits + 3).div_ceil(8), 0);
    stream.extend_from_slice(&BORDER);
    Ok(())
}

fn end(stream: &[u8]) -> Option<End> {
    let mut bits = Bits { stream, at: 0 };
    let mut content = 0;
    loop {
        let last_block = bits.at;
        let header = bits.take(3)?;
        content += match header >> 1 {
            0 => stored(&mut bits)?,
            1 => compressed(&mut bits, &fixed()?)?,
            2 => {
                let codes = dynamic(&mut bits)?;
                compressed(&mut bits, &codes)?
            }
            _ => return None,
        };
        if header & 1 == 1 {
            let whole = bits.at <= stream.len() * 8 && bits.at.div_ceil(8) == stream.len();
            return whole.then_some(End { last_block, bits: bits.at, content });
        }
    }
}

struct Bits<'s> {
    stream: &'s [u8],
    /// Bits that have been taken; may lie behind the end, where there are zeros.
    at: usize,
}

impl Bits<'_> {
    /// The next bits, at least 57 of them; zeros behind the end.
    fn peek(&self) -> u64 {
        let (byte, shift) = (self.at / 8, self.at % 8);
        if let Some(word) = self.stream.get(byte..byte + 8) {
            return u64::from_le_bytes(word.try_into().unwrap_or_default()) >> shift;
        }
        let mut word = [0; 8];
        let rest = self.stream.get(byte..).unwrap_or_default();
        word[..rest.len()].copy_from_slice(rest);
        u64::from_le_bytes(word) >> shift
    }

    /// Passes over a symbol; `None` if there was none, or nothing is left.
    fn skip(&mut self, length: usize) -> Option<()> {
        self.at += length;
        (length > 0 && self.at <= self.stream.len() * 8).then_some(())
    }

    /// Up to 16 bits; `None` at the end.
    fn take(&mut self, count: usize) -> Option<usize> {
        let value = masked(self.peek(), (1 << count) - 1);
        self.at += count;
        (self.at <= self.stream.len() * 8).then_some(value)
    }
}

/// Some of the lowest 16 bits.
fn masked(bits: u64, mask: u64) -> usize {
    usize::try_from(bits & mask).unwrap_or_default()
}

/// A code by its next bits: the symbol above, and how many bits it has in the lowest four; zero where there is none.
struct Code {
    mask: u64,
    symbols: Vec<u16>,
}

impl Code {
    /// The canonical code of these lengths.
    fn new(lengths: &[u8]) -> Option<Self> {
        let mut counts = [0usize; LONGEST + 1];
        lengths.iter().for_each(|length| counts[usize::from(*length)] += 1);
        counts[0] = 0;
        let longest = counts.iter().rposition(|count| *count > 0).unwrap_or(0);
        let mut next = [0usize; LONGEST + 2];
        for length in 1..=LONGEST {
            next[length + 1] = (next[length] + counts[length]) << 1;
            if next[length] + counts[length] > 1 << length {
                return None;
            }
        }
        let mut symbols = vec![0; 1 << longest];
        for (symbol, &length) in (0u16..).zip(lengths) {
            let bits = usize::from(length);
            if bits == 0 {
                continue;
            }
            let code = next[bits].reverse_bits() >> (usize::BITS as usize - bits);
            next[bits] += 1;
            symbols.iter_mut().skip(code).step_by(1 << bits).for_each(|slot| *slot = symbol << 4 | u16::from(length));
        }
        Some(Self { mask: (1 << longest) - 1, symbols })
    }

    /// The symbol, and its bits; zero of them where there is none.
    fn symbol(&self, bits: u64) -> (usize, usize) {
        let entry = usize::from(self.symbols[masked(bits, self.mask)]);
        (entry >> 4, entry & 15)
    }
}

/// The codes of a block without its own (3.2.6).
fn fixed() -> Option<(Code, Code)> {
    let mut lengths = [8; LITERALS];
    lengths[144..256].fill(9);
    lengths[256..280].fill(7);
    Some((Code::new(&lengths)?, Code::new(&[5; DISTANCES])?))
}

/// The codes that a block begins with (3.2.7).
fn dynamic(bits: &mut Bits) -> Option<(Code, Code)> {
    let (literals, distances, described) = (257 + bits.take(5)?, 1 + bits.take(5)?, 4 + bits.take(4)?);
    let mut lengths = [0; ORDER.len()];
    for symbol in ORDER.iter().take(described) {
        lengths[*symbol] = u8::try_from(bits.take(3)?).ok()?;
    }
    let code = Code::new(&lengths)?;
    let mut lengths = Vec::with_capacity(LITERALS + DISTANCES);
    while lengths.len() < literals + distances {
        let (symbol, length) = code.symbol(bits.peek());
        bits.skip(length)?;
        let (value, count) = match symbol {
            0..16 => (u8::try_from(symbol).ok()?, 1),
            16 => (*lengths.last()?, 3 + bits.take(2)?),
            17 => (0, 3 + bits.take(3)?),
            _ => (0, 11 + bits.take(7)?),
        };
        lengths.resize(lengths.len() + count, value);
    }
    let both = lengths.get(..literals + distances).filter(|both| both.len() == lengths.len())?;
    let (literals, distances) = both.split_at_checked(literals)?;
    Some((Code::new(literals)?, Code::new(distances)?))
}

/// Goes through a stored block; what it holds.
fn stored(bits: &mut Bits) -> Option<usize> {
    bits.at = bits.at.next_multiple_of(8);
    let (length, complement) = (bits.take(16)?, bits.take(16)?);
    bits.at += length * 8;
    (length ^ complement == 0xffff && bits.at <= bits.stream.len() * 8).then_some(length)
}

/// Goes through a compressed block; what it holds.
fn compressed(bits: &mut Bits, (literals, distances): &(Code, Code)) -> Option<usize> {
    let (mut content, end) = (0, bits.stream.len() * 8);
    let (mut word, mut left) = (0, 0);
    loop {
        if left < LONGEST_PAIR {
            (word, left) = (bits.peek(), PEEKED);
        }
        let (symbol, mut length) = literals.symbol(word);
        if length == 0 || bits.at > end {
            return None;
        }
        if symbol > END_OF_BLOCK {
            let (extra, base) = *LENGTHS.get(symbol - END_OF_BLOCK - 1)?;
            let rest = word >> length;
            content += usize::from(base) + masked(rest, (1 << extra) - 1);
            let (distance, bits) = distances.symbol(rest >> extra);
            if bits == 0 {
                return None;
            }
            length += usize::from(extra) + bits + (distance / 2).saturating_sub(1);
        } else {
            content += 1;
        }
        bits.at += length;
        if symbol == END_OF_BLOCK {
            return Some(content - 1);
        }
        (word, left) = (word >> length, left - length);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use flate2::Compression;
    use flate2::read::DeflateDecoder;
    use flate2::write::DeflateEncoder;

    use super::*;

    /// By another compressor, whose blocks are of all three kinds.
    fn streams() -> Vec<(Vec<u8>, Vec<u8>)> {
        let noise: Vec<u8> = (0..20_000u32).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
        let text = (0..5000).flat_map(|i| format!("{} bottles; ", i % 700).into_bytes()).collect();
        let all = [b"".to_vec(), b"a".to_vec(), b"abcabcabcabc".to_vec(), vec![0; 100_000], text, [noise, vec![7; 500]].concat()];
        let stream = |content: &Vec<u8>, level| {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(level));
            encoder.write_all(content).expect("writes");
            (content.clone(), encoder.finish().expect("ends"))
        };
        all.iter().flat_map(|content| [0, 1, 6, 9].map(|level| stream(content, level))).collect()
    }

    #[test]
    fn any_streams_can_be_joined() {
        let (mut whole, mut joined) = (Vec::new(), Vec::new());
        for (content, mut stream) in streams() {
            open_end(&mut stream, content.len()).expect("opens");
            joined.extend(stream);
            whole.extend(content);
        }
        joined.extend([3, 0]);
        let mut back = Vec::new();
        DeflateDecoder::new(&joined[..]).read_to_end(&mut back).expect("inflates");
        assert!(back == whole);
    }

    #[test]
    fn what_is_no_such_stream_is_refused() {
        for (content, stream) in streams() {
            assert!(open_end(&mut stream.clone(), content.len() + 1).is_err());
            assert!(open_end(&mut [&stream[..], &[0]].concat(), content.len()).is_err());
            let step = stream.len().div_ceil(50).max(1);
            for length in (0..stream.len()).step_by(step) {
                assert!(open_end(&mut stream[..length].to_vec(), content.len()).is_err(), "{length} of {}", stream.len());
            }
        }
    }
}
