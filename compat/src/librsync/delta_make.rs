//! Deltas of new content against a signature of the old.
//!
//! A window slides over the content; where both its sums are those of a block, the block is copied. Right behind a copy the
//! block that followed there is tried first.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use super::delta_write::DeltaWriter;
use super::signature::{SignatureError, SignatureFormat};
use super::sums::{Strong, StrongSum, Weak, WeakSum};

/// Blocks that are looked for at most: 160 MiB. Content of those beyond is stored anew.
const MAX_BLOCKS: usize = 1 << 22;
/// Bytes of content that are read at a time.
const READ: usize = 256 << 10;
/// Literal bytes that one command has at most.
const LITERAL: usize = 64 << 10;
/// What the rolling sum adds to each byte.
const OFFSET: u32 = 31;

/// The blocks of a content that a delta can copy.
pub struct KnownBlocks {
    block: usize,
    strong: StrongSum,
    strong_length: usize,
    /// Strong sums end to end.
    sums: Vec<u8>,
    weak: Vec<u32>,
    /// Of each weak sum the last block that has it, and of each block the one before with the same sum.
    last: HashMap<u32, u32, Direct>,
    before: Vec<u32>,
    /// Bits of weak sums that some block has.
    filter: Vec<u64>,
}

const NONE: u32 = u32::MAX;
const FILTER_BITS: u32 = 20;

/// Weak sums are mixed well enough for a table once multiplied.
#[derive(Clone, Copy, Default)]
struct Direct(u64);

impl std::hash::Hasher for Direct {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    fn write_u32(&mut self, n: u32) {
        self.0 = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl std::hash::BuildHasher for Direct {
    type Hasher = Self;
    fn build_hasher(&self) -> Self {
        *self
    }
}

impl KnownBlocks {
    /// Reads a signature. `None` if it is of a kind that is not searched: Rabin-Karp, which duplicity never writes.
    ///
    /// # Errors
    ///
    /// If it is no signature.
    pub fn read(mut signature: impl Read) -> Result<Option<Self>, SignatureError> {
        let mut header = [0; 12];
        signature.read_exact(&mut header).map_err(|_| SignatureError::Truncated)?;
        let format = SignatureFormat::parse(&header)?;
        if format.weak() == WeakSum::RabinKarp {
            return Ok(None);
        }
        let strong_length = format.strong_length();
        let mut known = Self {
            block: usize::try_from(format.block()).unwrap_or(usize::MAX),
            strong: format.strong(),
            strong_length,
            sums: Vec::new(),
            weak: Vec::new(),
            last: HashMap::with_hasher(Direct::default()),
            before: Vec::new(),
            filter: vec![0; 1 << (FILTER_BITS - 6)],
        };
        let mut sums = vec![0; 4 + strong_length];
        while read_sums(&mut signature, &mut sums)? {
            if known.weak.len() < MAX_BLOCKS {
                known.add(u32::from_be_bytes([sums[0], sums[1], sums[2], sums[3]]), &sums[4..]);
            }
        }
        Ok(Some(known))
    }

    fn add(&mut self, weak: u32, strong: &[u8]) {
        let index = u32::try_from(self.weak.len()).unwrap_or(NONE);
        self.weak.push(weak);
        self.sums.extend_from_slice(strong);
        self.before.push(self.last.insert(weak, index).unwrap_or(NONE));
        let bit = filter_bit(weak);
        self.filter[bit / 64] |= 1 << (bit % 64);
    }

    fn may_have(&self, weak: u32) -> bool {
        let bit = filter_bit(weak);
        self.filter[bit / 64] & (1 << (bit % 64)) != 0
    }

    fn strong_is(&self, index: usize, strong: &[u8]) -> bool {
        self.sums.get(index * self.strong_length..(index + 1) * self.strong_length) == Some(strong)
    }

    /// The strong sum of some bytes.
    fn strong_of(&self, bytes: &[u8]) -> Vec<u8> {
        let (mut strong, mut sum) = (Strong::new(self.strong), Vec::with_capacity(32));
        strong.update(bytes);
        strong.finish_into(self.strong_length, &mut sum);
        sum
    }

    /// The block with these bytes; `wanted` goes first.
    fn find(&self, weak: u32, bytes: &[u8], wanted: Option<usize>) -> Option<usize> {
        if !self.may_have(weak) {
            return None;
        }
        let mut at = *self.last.get(&weak)?;
        let strong = self.strong_of(bytes);
        if let Some(index) = wanted.filter(|index| self.weak.get(*index) == Some(&weak) && self.strong_is(*index, &strong)) {
            return Some(index);
        }
        let mut first = None;
        // Of blocks that are alike, as in long runs of zeros, only so many are looked at.
        for _ in 0..64 {
            let index = usize::try_from(at).unwrap_or(usize::MAX);
            if at == NONE {
                break;
            }
            if self.strong_is(index, &strong) {
                first = Some(index);
                break;
            }
            at = self.before.get(index).copied().unwrap_or(NONE);
        }
        first
    }
}

fn filter_bit(weak: u32) -> usize {
    usize::try_from(weak.wrapping_mul(0x9e37_79b1) >> (32 - FILTER_BITS)).unwrap_or_default()
}

fn read_sums(from: &mut impl Read, sums: &mut [u8]) -> Result<bool, SignatureError> {
    let mut got = 0;
    while got < sums.len() {
        match from.read(&mut sums[got..]) {
            Ok(0) if got == 0 => return Ok(false),
            Ok(0) => return Err(SignatureError::Truncated),
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(SignatureError::Io(e)),
        }
    }
    Ok(true)
}

/// Makes the delta of a content against the blocks of the old one, and writes it to `out`. Memory: two blocks and what is read at
/// a time, beside the blocks' sums.
///
/// # Errors
///
/// Those of `content` and `out`.
pub fn make_delta(known: &KnownBlocks, content: &mut dyn Read, out: &mut dyn Write) -> io::Result<()> {
    let mut maker =
        Maker { known, out: DeltaWriter::new(out)?, copy: None, buffer: Vec::new(), literal: 0, at: 0, ended: false, next: None };
    maker.run(content)?;
    maker.flush()?;
    maker.out.finish().map(drop)
}

struct Maker<'k, W: Write> {
    known: &'k KnownBlocks,
    out: DeltaWriter<W>,
    /// A copy that may go on: first block's offset, length.
    copy: Option<(u64, u64)>,
    buffer: Vec<u8>,
    /// Where in the buffer the bytes begin that no block has.
    literal: usize,
    /// Where the window begins.
    at: usize,
    ended: bool,
    /// The block behind the one copied last.
    next: Option<usize>,
}

impl<W: Write> Maker<'_, W> {
    fn run(&mut self, content: &mut dyn Read) -> io::Result<()> {
        let block = self.known.block;
        let mut rolling: Option<(u32, u32)> = None;
        loop {
            if self.buffer.len() - self.at <= block && !self.ended {
                self.refill(content)?;
            }
            let left = self.buffer.len() - self.at;
            if left < block || left == 0 {
                break;
            }
            let window = &self.buffer[self.at..self.at + block];
            let (s1, s2) = rolling.unwrap_or_else(|| sums(window));
            let weak = (s2 << 16) | (s1 & 0xffff);
            if let Some(index) = self.known.find(weak, window, self.next) {
                self.matched(index, block)?;
                rolling = None;
                continue;
            }
            self.next = None;
            rolling = self.slide(s1, s2);
            if self.at - self.literal >= LITERAL {
                self.write_literal()?;
            }
        }
        self.tail()
    }

    /// Moves the window on by a byte, and further while no block can fit; returns its sums, if there is a byte for them.
    fn slide(&mut self, mut s1: u32, mut s2: u32) -> Option<(u32, u32)> {
        let block = self.known.block;
        let length = u32::try_from(block).unwrap_or(u32::MAX);
        loop {
            let (old, new) = (u32::from(self.buffer[self.at]), self.buffer.get(self.at + block).copied());
            self.at += 1;
            let new = u32::from(new?);
            s1 = s1.wrapping_add(new).wrapping_sub(old);
            s2 = s2.wrapping_add(s1).wrapping_sub(length.wrapping_mul(old + OFFSET));
            let is_limit = self.at - self.literal >= LITERAL;
            if is_limit || self.known.may_have((s2 << 16) | (s1 & 0xffff)) {
                return Some((s1, s2));
            }
        }
    }

    /// The last bytes, fewer than a block: they may be the old content's last block.
    fn tail(&mut self) -> io::Result<()> {
        let Some(last) = self.known.weak.len().checked_sub(1) else { return Ok(()) };
        if self.at >= self.buffer.len() {
            return Ok(());
        }
        let (mut s1, mut s2) = sums(&self.buffer[self.at..]);
        while self.at < self.buffer.len() {
            let rest = &self.buffer[self.at..];
            let weak = (s2 << 16) | (s1 & 0xffff);
            if weak == self.known.weak[last] && self.known.strong_is(last, &self.known.strong_of(rest)) {
                return self.matched(last, rest.len());
            }
            let (old, length) = (u32::from(rest[0]) + OFFSET, u32::try_from(rest.len()).unwrap_or(u32::MAX));
            s1 = s1.wrapping_sub(old);
            s2 = s2.wrapping_sub(length.wrapping_mul(old));
            self.at += 1;
        }
        Ok(())
    }

    fn matched(&mut self, index: usize, length: usize) -> io::Result<()> {
        self.write_literal()?;
        let (offset, length) = (index as u64 * self.known.block as u64, length as u64);
        match &mut self.copy {
            Some((start, had)) if *start + *had == offset => *had += length,
            _ => {
                self.write_copy()?;
                self.copy = Some((offset, length));
            }
        }
        self.at += usize::try_from(length).unwrap_or(usize::MAX);
        self.literal = self.at;
        self.next = Some(index + 1);
        Ok(())
    }

    fn write_copy(&mut self) -> io::Result<()> {
        self.copy.take().map_or(Ok(()), |(offset, length)| self.out.copy(offset, length))
    }

    /// Writes the bytes before the window that no block has.
    fn write_literal(&mut self) -> io::Result<()> {
        if self.literal < self.at {
            self.write_copy()?;
            let bytes = &self.buffer[self.literal..self.at];
            self.out.literal(bytes)?;
            self.literal = self.at;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.at = self.buffer.len();
        self.write_literal()?;
        self.write_copy()
    }

    /// Drops what is done with and reads more.
    fn refill(&mut self, content: &mut dyn Read) -> io::Result<()> {
        self.buffer.drain(..self.literal);
        (self.at, self.literal) = (self.at - self.literal, 0);
        let wanted = (self.at + self.known.block).max(self.buffer.len()) + READ;
        let had = self.buffer.len();
        self.buffer.resize(wanted, 0);
        let mut filled = had;
        while filled < wanted {
            match content.read(&mut self.buffer[filled..]) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.buffer.truncate(filled);
        Ok(())
    }
}

/// Both halves of the rolling sum of some bytes.
fn sums(bytes: &[u8]) -> (u32, u32) {
    let mut weak = Weak::new(WeakSum::Rollsum);
    weak.update(bytes);
    match weak {
        Weak::Rollsum(s1, s2) => (s1, s2),
        Weak::RabinKarp(_) => (0, 0),
    }
}

#[cfg(test)]
#[path = "delta_make_tests.rs"]
mod tests;
