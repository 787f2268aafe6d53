//! Inflates on every core what was compressed in blocks that know nothing of each other, as [`super::deflate`] does it. Where a
//! block does not stand for itself, nor with what follows, this and all behind it is inflated in one go, so that any stream can be
//! read.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use crossbeam_channel::{Receiver, bounded};
use flate2::bufread::MultiGzDecoder;
use flate2::{Crc, Decompress, FlushDecompress, Status};
use libdeflater::Decompressor;
use memchr::memmem;

use crate::deflate::{BLOCK, BORDER, GZIP_HEADER};

/// Takes the place of a stream's end: a stored block, marked as the last, whose content shows that it was come to.
const END: [u8; 5 + MARK] = [1, 8, 0, 0xf7, 0xff, 0x9d, 0x52, 0xe7, 0x0b, 0xc4, 0x36, 0xa8, 0x71];
const MARK: usize = 8;
/// Bytes of a compressed block. Zeros come close to the least.
const SHORTEST: usize = 256;
const LONGEST: usize = BLOCK + BLOCK / 64;
/// Blocks under way.
const IN_FLIGHT: usize = 4;
/// Borders by chance that one block may have.
const FALSE_BORDERS: usize = 8;
/// Bytes read at a time.
const STEP: usize = 64 << 10;
/// How far back a stream may refer, in bytes.
const WINDOW: usize = 32 << 10;

/// A stream of DEFLATE (RFC 1951) being inflated; ends where the stream ends. Not to be used on a thread of rayon's pool, which it
/// waits for. Memory: 7 MiB at most.
pub(crate) struct Inflate<R> {
    input: R,
    /// What was read ahead, and how much of it is done with.
    buffer: Vec<u8>,
    taken: usize,
    /// Whether no further block can be told from what follows.
    uncut: bool,
    blocks: VecDeque<Receiver<Block>>,
    /// The block that is being given out, and how much of it was.
    current: Block,
    given: usize,
    /// What the next one may refer to.
    window: Vec<u8>,
    /// Blocks whose memory is used again: fresh memory is dear.
    spare: Vec<Block>,
    alone: Option<Decompress>,
    ended: bool,
}

#[derive(Default)]
struct Block {
    stored: Vec<u8>,
    /// At its start, the block's content;
    room: Vec<u8>,
    /// so long, `None` if it does not stand for itself.
    length: Option<usize>,
}

impl<R: Read> Inflate<R> {
    /// Of a stream that begins here.
    pub fn new(input: R) -> Self {
        let (buffer, window, blocks, current, spare) = (Vec::new(), Vec::new(), VecDeque::new(), Block::default(), Vec::new());
        let (taken, given) = (0, 0);
        Self { input, buffer, taken, uncut: false, blocks, current, given, window, spare, alone: None, ended: false }
    }

    /// What follows the stream, once it has ended.
    pub fn into_rest(mut self) -> Chain<Cursor<Vec<u8>>, R> {
        Cursor::new(self.buffer.split_off(self.taken)).chain(self.input)
    }

    /// Reads more; `false` at the end.
    fn read_more(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        Ok((&mut self.input).take(STEP as u64).read_to_end(&mut self.buffer)? > 0)
    }

    /// Takes the next block out of what is read; `false` if there is none to be seen.
    fn cut(&mut self, stored: &mut Vec<u8>) -> io::Result<bool> {
        let mut searched = self.taken + SHORTEST - BORDER.len();
        loop {
            if let Some(found) = self.buffer.get(searched..).and_then(|rest| memmem::find(rest, &BORDER)) {
                let end = searched + found + BORDER.len();
                stored.extend_from_slice(&self.buffer[self.taken..end]);
                self.taken = end;
                return Ok(true);
            }
            let unread = self.buffer.len() - self.taken;
            searched = unread.max(SHORTEST - 1) - (BORDER.len() - 1);
            if unread > LONGEST || !self.read_more()? {
                return Ok(false);
            }
        }
    }

    fn start_blocks(&mut self) -> io::Result<()> {
        while !self.uncut && self.blocks.len() < IN_FLIGHT {
            let mut block = self.spare.pop().unwrap_or_default();
            block.stored.clear();
            if !self.cut(&mut block.stored)? {
                self.uncut = true;
                return Ok(());
            }
            let (sender, inflated) = bounded(1);
            self.blocks.push_back(inflated);
            rayon::spawn(move || {
                block.inflate();
                // The receiver is gone only if nobody wants the content any more.
                drop(sender.send(block));
            });
        }
        Ok(())
    }

    fn next_block(&mut self) -> io::Result<()> {
        self.start_blocks()?;
        let Some(block) = self.blocks.pop_front() else { return self.go_on_alone(Vec::new()) };
        let block = self.joined(received(&block)?)?;
        let Some(length) = block.length else { return self.go_on_alone(block.stored) };
        let last = &block.room[length.saturating_sub(WINDOW)..length];
        self.window.drain(..(self.window.len() + last.len()).saturating_sub(WINDOW));
        self.window.extend_from_slice(last);
        self.spare.push(std::mem::replace(&mut self.current, block));
        self.given = 0;
        Ok(())
    }

    /// A block that does not stand for itself may end at what only looks like a border, in content that is stored as it is: with
    /// what follows it may.
    fn joined(&mut self, mut block: Block) -> io::Result<Block> {
        for _ in 0..FALSE_BORDERS {
            if block.length.is_some() || block.stored.len() > LONGEST {
                break;
            }
            self.start_blocks()?;
            let Some(next) = self.blocks.pop_front() else { break };
            block.stored.extend(received(&next)?.stored);
            block.inflate();
        }
        Ok(block)
    }

    /// Gives up on blocks, with those that were cut already.
    fn go_on_alone(&mut self, mut stored: Vec<u8>) -> io::Result<()> {
        for block in self.blocks.drain(..) {
            stored.extend(received(&block)?.stored);
        }
        stored.extend(self.buffer.drain(self.taken..));
        (self.buffer, self.taken) = (stored, 0);
        let mut alone = Decompress::new(false);
        if !self.window.is_empty() {
            alone.set_dictionary(&self.window)?;
        }
        self.alone = Some(alone);
        Ok(())
    }

    fn read_alone(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let at_end = self.taken == self.buffer.len() && !self.read_more()?;
            let Some(alone) = &mut self.alone else { return Ok(0) };
            let (read, written) = (alone.total_in(), alone.total_out());
            let status = alone.decompress(&self.buffer[self.taken..], out, FlushDecompress::None)?;
            self.taken += usize::try_from(alone.total_in() - read).map_err(io::Error::other)?;
            let n = usize::try_from(alone.total_out() - written).map_err(io::Error::other)?;
            self.ended = status == Status::StreamEnd;
            if n > 0 || self.ended {
                return Ok(n);
            }
            if at_end {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the compressed data is cut off"));
            }
        }
    }
}

impl<R: Read> Read for Inflate<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            let left = &self.current.content()[self.given..];
            if !left.is_empty() {
                let n = left.len().min(out.len());
                out[..n].copy_from_slice(&left[..n]);
                self.given += n;
                return Ok(n);
            }
            if self.ended {
                return Ok(0);
            }
            if self.alone.is_some() {
                return self.read_alone(out);
            }
            self.next_block()?;
        }
    }
}

fn received(block: &Receiver<Block>) -> io::Result<Block> {
    block.recv().map_err(|_| io::Error::other("a thread that decompresses has ended"))
}

impl Block {
    fn inflate(&mut self) {
        self.stored.extend_from_slice(&END);
        self.room.resize(BLOCK + MARK, 0);
        let inflated = Decompressor::new().deflate_decompress(&self.stored, &mut self.room);
        self.stored.truncate(self.stored.len() - END.len());
        self.length =
            inflated.ok().and_then(|length| self.room[..length].strip_suffix(&END[END.len() - MARK..])).map(<[u8]>::len);
    }

    fn content(&self) -> &[u8] {
        &self.room[..self.length.unwrap_or(0)]
    }
}

/// A gzip file (RFC 1952) being read, one member after another. As [`Inflate`].
pub(crate) enum Gunzip<R: Read> {
    /// The first member, with a header as we write it.
    Ours(Box<Inflate<R>>, Crc),
    Any(Box<MultiGzDecoder<Rest<R>>>),
    Ended,
}

type Rest<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

impl<R: BufRead> Gunzip<R> {
    /// # Errors
    ///
    /// If nothing can be read.
    pub fn new(mut input: R) -> io::Result<Self> {
        if input.fill_buf()?.starts_with(&GZIP_HEADER) {
            input.consume(GZIP_HEADER.len());
            return Ok(Self::Ours(Box::new(Inflate::new(input)), Crc::new()));
        }
        let rest = BufReader::with_capacity(STEP, Cursor::new(Vec::new()).chain(input));
        Ok(Self::Any(Box::new(MultiGzDecoder::new(rest))))
    }

    /// Checks the end of the first member, and goes on with the next one.
    fn end_ours(&mut self) -> io::Result<()> {
        let Self::Ours(inflate, crc) = std::mem::replace(self, Self::Ended) else { return Ok(()) };
        let mut rest = BufReader::with_capacity(STEP, inflate.into_rest());
        let mut trailer = [0; 8];
        rest.read_exact(&mut trailer)?;
        if trailer[..4] != crc.sum().to_le_bytes() || trailer[4..] != crc.amount().to_le_bytes() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum of the compressed data does not match"));
        }
        if !rest.fill_buf()?.is_empty() {
            *self = Self::Any(Box::new(MultiGzDecoder::new(rest)));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match self {
                Self::Ours(inflate, crc) => {
                    let n = inflate.read(out)?;
                    crc.update(&out[..n]);
                    if n > 0 || out.is_empty() {
                        return Ok(n);
                    }
                    self.end_ours()?;
                }
                Self::Any(decoder) => return decoder.read(out),
                Self::Ended => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder};
    use proptest::prelude::*;

    use super::*;
    use crate::deflate::{Deflate, Gzip};

    fn content(size: usize, noise: u64) -> Vec<u8> {
        let mut state = noise | 1;
        (0..size)
            .map(|i| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if i % 1000 < 500 { 0 } else { u8::try_from((state >> 40) % (noise + 1)).unwrap_or(0) }
            })
            .collect()
    }

    fn inflated(stream: &[u8]) -> io::Result<Vec<u8>> {
        let mut inflate = Inflate::new(stream);
        let mut back = Vec::new();
        inflate.read_to_end(&mut back)?;
        let mut rest = Vec::new();
        inflate.into_rest().read_to_end(&mut rest)?;
        assert_eq!(rest, b"behind");
        Ok(back)
    }

    fn ours(content: &[u8]) -> Vec<u8> {
        let mut deflate = Deflate::new(Vec::new());
        deflate.write_all(content).expect("writes");
        deflate.finish().expect("ends")
    }

    fn gunzipped(file: &[u8]) -> io::Result<Vec<u8>> {
        let mut back = Vec::new();
        Gunzip::new(file)?.read_to_end(&mut back)?;
        Ok(back)
    }

    fn gzipped(content: &[u8]) -> Vec<u8> {
        let mut gzip = Gzip::new(Vec::new()).expect("begins");
        gzip.write_all(content).expect("writes");
        gzip.finish().expect("ends")
    }

    #[test]
    fn blocks_are_inflated_by_themselves() {
        let content = content(9 * BLOCK + 5, 90);
        let stream = [&ours(&content)[..], b"behind"].concat();
        let mut inflate = Inflate::new(&stream[..]);
        let mut back = vec![0; 9 * BLOCK];
        inflate.read_exact(&mut back).expect("inflates");
        assert!(inflate.alone.is_none(), "no block needed another");
        assert!(back == content[..9 * BLOCK]);
        assert!(inflated(&stream).expect("inflates") == content);
    }

    #[test]
    fn borders_by_chance_are_none() {
        // Stored as it is, with a border in each kilobyte.
        let mut content = content(3 * BLOCK, 255);
        content.chunks_mut(1000).for_each(|part| part[500..504].copy_from_slice(&BORDER));
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::none());
        encoder.write_all(&content).expect("writes");
        let stored = encoder.finish().expect("ends");
        for stream in [stored, ours(&content), [&ours(&content)[..stored_border(&content)], &[3, 0]].concat()] {
            let back = inflated(&[&stream[..], b"behind"].concat()).expect("inflates");
            assert!(content.starts_with(&back) && back.len() >= BLOCK);
        }
    }

    #[test]
    fn borders_by_chance_cut_no_block_off() {
        let mut state = 1u64;
        let noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_le_bytes()[7]
        };
        let mut content: Vec<u8> = std::iter::repeat_with(noise).take(3 * BLOCK).collect();
        for at in [1000, 1100, 300_000, BLOCK + 7] {
            content[at..at + BORDER.len()].copy_from_slice(&BORDER);
        }
        let stream = ours(&content);
        assert!(stream.len() > content.len() * 9 / 10, "stored as it is");
        let mut inflate = Inflate::new(&stream[..]);
        let mut back = vec![0; 3 * BLOCK];
        inflate.read_exact(&mut back).expect("inflates");
        assert!(inflate.alone.is_none(), "every block was found");
        assert!(back == content);
    }

    /// Behind the first block of the stream.
    fn stored_border(content: &[u8]) -> usize {
        ours(&content[..BLOCK]).len() - ours(b"").len()
    }

    #[test]
    fn blocks_that_refer_back_are_inflated_in_order() {
        let text: Vec<u8> = (0..200_000).flat_map(|i| format!("line {} ", i % 977).into_bytes()).collect();
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(6));
        for part in text.chunks(100_000) {
            encoder.write_all(part).expect("writes");
            encoder.flush().expect("flushes");
        }
        let stream = [&encoder.finish().expect("ends")[..], b"behind"].concat();
        assert!(inflated(&stream).expect("inflates") == text);
    }

    #[test]
    fn files_of_several_members() {
        let content = content(2 * BLOCK, 200);
        let mut other = GzEncoder::new(Vec::new(), Compression::new(1));
        other.write_all(&content).expect("writes");
        let (ours, other) = (gzipped(&content), other.finish().expect("ends"));
        let twice = [&content[..], &content].concat();
        assert!(gunzipped(&ours).expect("reads") == content);
        assert!(gunzipped(&other).expect("reads") == content);
        for file in [[&ours[..], &other], [&other, &ours], [&ours, &ours]] {
            assert!(gunzipped(&file.concat()).expect("reads") == twice);
        }
        assert!(gunzipped(&gzipped(b"")).expect("reads").is_empty());
    }

    #[test]
    fn damage_is_no_end() {
        let file = gzipped(&content(2 * BLOCK + 100, 200));
        for length in (0..file.len()).rev().step_by(file.len() / 40) {
            if let Ok(content) = gunzipped(&file[..length]) {
                assert_eq!(length, file.len(), "{} bytes of content", content.len());
            }
        }
        for at in (0..file.len()).step_by(file.len() / 40) {
            let mut flipped = file.clone();
            flipped[at] ^= 4;
            assert!(gunzipped(&flipped).is_err() || at < GZIP_HEADER.len(), "at {at}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_content(size in 0..5 * BLOCK, noise in 0u64..256) {
            let content = content(size, noise);
            prop_assert!(inflated(&[&ours(&content)[..], b"behind"].concat()).expect("inflates") == content);
            prop_assert!(gunzipped(&gzipped(&content)).expect("reads") == content);
        }
    }
}
