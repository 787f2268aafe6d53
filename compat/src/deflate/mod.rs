//! Deflate on every core: blocks of the content are compressed at once, each for itself, and joined to one stream that any reader
//! takes for the work of one compressor (RFC 1951).

mod join;

use std::collections::VecDeque;
use std::io::{self, Write};

use crossbeam_channel::{Receiver, bounded};
use flate2::Crc;
use libdeflater::{CompressionLvl, Compressor};

pub(crate) use self::join::BORDER;

/// Bytes that are compressed at a time. Nothing in a block refers to the one before, which costs up to a percent with text.
pub(crate) const BLOCK: usize = 512 << 10;
/// Blocks under way at most: 8 MiB of content. The same on every machine, so that the same content is cut into the same volumes.
const IN_FLIGHT: usize = 16;
/// Of OpenPGP. What gpg writes only looks back 8 KiB and is not smaller.
const LEVEL: i32 = 1;
/// Of gzip: text comes out up to 2 % larger than from zlib at level 6, which duplicity uses, and executables 3 % smaller.
const GZIP_LEVEL: i32 = 5;
/// The header of a gzip file without a name or a time, of an operating system that is not told (RFC 1952): as Python writes it.
pub(crate) const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Compresses what is written to it and hands it on to `out`, in the caller's thread and in order. Not to be used on a thread
/// of rayon's pool, which it waits for. Memory: 18 MiB at most, and 1 MiB for each processor.
pub(crate) struct Deflate<W: Write> {
    out: W,
    level: i32,
    /// The block as far as it has come.
    input: Vec<u8>,
    in_flight: VecDeque<Job>,
}

struct Job {
    content: usize,
    done: Receiver<io::Result<Vec<u8>>>,
}

impl<W: Write> Deflate<W> {
    /// At the level for OpenPGP.
    pub fn new(out: W) -> Self {
        Self::with_level(out, LEVEL)
    }

    fn with_level(out: W, level: i32) -> Self {
        Self { out, level, input: Vec::new(), in_flight: VecDeque::new() }
    }

    /// Bytes of content that have not been handed on.
    pub fn pending(&self) -> u64 {
        let under_way: usize = self.in_flight.iter().map(|job| job.content).sum();
        (under_way + self.input.len()) as u64
    }

    /// Hands on all but the block that is not full.
    pub fn drain(&mut self) -> io::Result<()> {
        while !self.in_flight.is_empty() {
            self.hand_on()?;
        }
        Ok(())
    }

    /// Ends the stream.
    pub fn finish(mut self) -> io::Result<W> {
        self.start(true);
        self.drain()?;
        Ok(self.out)
    }

    fn hand_on(&mut self) -> io::Result<()> {
        let Some(job) = self.in_flight.pop_front() else { return Ok(()) };
        let block = job.done.recv().map_err(|_| io::Error::other("a thread that compresses has ended"))??;
        self.out.write_all(&block)
    }

    fn start(&mut self, is_last: bool) {
        let next = if is_last { Vec::new() } else { Vec::with_capacity(BLOCK) };
        let input = std::mem::replace(&mut self.input, next);
        let ((sender, done), level) = (bounded(1), self.level);
        self.in_flight.push_back(Job { content: input.len(), done });
        rayon::spawn(move || {
            // The receiver is gone only if nobody wants the stream any more.
            drop(sender.send(compress(&input, level, is_last)));
        });
    }
}

impl<W: Write> Write for Deflate<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let room = BLOCK - self.input.len();
        let n = data.len().min(room);
        self.input.extend_from_slice(&data[..n]);
        if n == room {
            if self.in_flight.len() == IN_FLIGHT {
                self.hand_on()?;
            }
            self.start(false);
        }
        Ok(n)
    }

    /// Does nothing: a stream that is flushed often compresses badly.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A gzip file being written.
pub(crate) struct Gzip<W: Write> {
    deflate: Deflate<W>,
    crc: Crc,
}

impl<W: Write> Gzip<W> {
    /// Writes the header.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&GZIP_HEADER)?;
        Ok(Self { deflate: Deflate::with_level(out, GZIP_LEVEL), crc: Crc::new() })
    }

    /// As [`Deflate::pending`].
    pub fn pending(&self) -> u64 {
        self.deflate.pending()
    }

    /// As [`Deflate::drain`].
    pub fn drain(&mut self) -> io::Result<()> {
        self.deflate.drain()
    }

    /// Ends the file.
    pub fn finish(self) -> io::Result<W> {
        let mut out = self.deflate.finish()?;
        out.write_all(&self.crc.sum().to_le_bytes())?;
        out.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(out)
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.deflate.write(data)?;
        self.crc.update(&data[..n]);
        Ok(n)
    }

    /// Does nothing, as [`Deflate`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn compress(content: &[u8], level: i32, is_last: bool) -> io::Result<Vec<u8>> {
    let level = CompressionLvl::new(level).map_err(|error| io::Error::other(format!("{error:?}")))?;
    let mut compressor = Compressor::new(level);
    let mut stream = vec![0; compressor.deflate_compress_bound(content.len())];
    let length = compressor.deflate_compress(content, &mut stream).map_err(io::Error::other)?;
    stream.truncate(length);
    if !is_last {
        join::open_end(&mut stream, content.len())?;
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::Compression;
    use flate2::read::DeflateDecoder;
    use proptest::prelude::*;

    use super::*;

    fn round_trip(content: &[u8], step: usize, level: i32) -> Vec<u8> {
        let mut deflate = Deflate::with_level(Vec::new(), level);
        content.chunks(step).for_each(|part| deflate.write_all(part).expect("writes"));
        let stream = deflate.finish().expect("ends");
        let mut back = Vec::new();
        DeflateDecoder::new(&stream[..]).read_to_end(&mut back).expect("inflates");
        assert!(back == content);
        stream
    }

    #[test]
    fn sizes_around_a_block() {
        let content: Vec<u8> = (0..u32::try_from(3 * BLOCK + 1).expect("small")).flat_map(u32::to_le_bytes).collect();
        for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK - 1, content.len()] {
            round_trip(&content[..size], 70_000, LEVEL);
            round_trip(&content[..size], 70_000, GZIP_LEVEL);
        }
    }

    #[test]
    fn blocks_for_themselves_cost_little() {
        let line = |i: u32| format!("line {} of many\n", i.wrapping_mul(2_654_435_761) % 100_003).into_bytes();
        let text: Vec<u8> = (0..100_000).flat_map(line).collect();
        let stream = round_trip(&text, 4096, GZIP_LEVEL);
        let mut whole = flate2::write::DeflateEncoder::new(Vec::new(), Compression::new(6));
        whole.write_all(&text).expect("writes");
        let alone = whole.finish().expect("ends").len();
        assert!(stream.len() < alone + alone / 50, "{} instead of {alone}", stream.len());
    }

    #[test]
    fn draining_leaves_only_the_last_block() {
        let mut deflate = Deflate::new(Vec::new());
        deflate.write_all(&vec![7; 5 * BLOCK + 10]).expect("writes");
        assert_eq!(deflate.pending(), 5 * BLOCK as u64 + 10);
        deflate.drain().expect("drains");
        assert_eq!(deflate.pending(), 10);
        assert!(!deflate.out.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_content(seed: u64, size in 0..4 * BLOCK, step in 1..3 * BLOCK, noise in 0u64..256, level in 1..7) {
            let mut state = seed | 1;
            let content: Vec<u8> = (0..size).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                u8::try_from((state >> 40) % (noise + 1)).unwrap_or(0)
            }).collect();
            round_trip(&content, step, level);
        }
    }
}
