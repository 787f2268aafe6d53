//! Compression of frames: zstd (RFC 8878), skipped where a probe finds nothing to gain.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

use crate::format::pack::Compression;

/// How hard to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Store as it is.
    Off,
    /// zstd's double-fast strategy of level 3 with hash tables of 192 KiB together, which stay in a core's second-level
    /// cache: a fifth faster than level 3 and 2 % larger, which frames of 2 MiB win back.
    Auto,
    /// A zstd level.
    Zstd(i32),
}

/// The default. Chosen by measurement: `benches/README.md`, "Compression".
pub const DEFAULT_LEVEL: Level = Level::Auto;
/// Level of `--compression fast`.
pub const FAST_LEVEL: Level = Level::Zstd(1);

const PROBE_PIECES: usize = 4;
const PROBE_PIECE: usize = 4096;
/// A frame is stored as it is if the probe saves less than one part in this many.
const MIN_GAIN: usize = 50;

thread_local! {
    static COMPRESSOR: RefCell<Option<(Level, Compressor<'static>)>> = const { RefCell::new(None) };
    static PROBE: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// zstd failed, or its output does not decompress to its input.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// zstd's own error.
    #[error("zstd: {0}")]
    Zstd(#[from] std::io::Error),
    /// The stored bytes give something else than what went in; faulty memory, or a bug in zstd.
    #[error("compressed data does not decompress to what went in (faulty memory?)")]
    Mismatch,
    /// The decompressed length is not the announced one.
    #[error("decompresses to another length than announced")]
    Length,
}

/// Compresses `plain` into `out` (cleared first), checks that it decompresses to the same bytes, and says how `out` is
/// encoded; with [`Compression::None`], `out` is left empty and `plain` is what to store.
pub fn compress(plain: &[u8], level: Level, out: &mut Vec<u8>, scratch: &mut Vec<u8>) -> Result<Compression, CodecError> {
    out.clear();
    if level == Level::Off || plain.len() < 32 || !worth_it(plain)? {
        return Ok(Compression::None);
    }
    out.reserve(zstd::zstd_safe::compress_bound(plain.len()));
    COMPRESSOR.with_borrow_mut(|slot| -> Result<(), CodecError> {
        if slot.as_ref().is_none_or(|(l, _)| *l != level) {
            *slot = Some((level, new_compressor(level)?));
        }
        if let Some((_, compressor)) = slot {
            compressor.compress_to_buffer(plain, out)?;
        }
        Ok(())
    })?;
    if out.len() >= plain.len() - plain.len() / MIN_GAIN / 4 {
        out.clear();
        return Ok(Compression::None);
    }
    decompress(out, plain.len(), scratch)?;
    if scratch.as_slice() != plain {
        return Err(CodecError::Mismatch);
    }
    Ok(Compression::Zstd)
}

fn new_compressor(level: Level) -> std::io::Result<Compressor<'static>> {
    match level {
        Level::Zstd(level) => Compressor::new(level),
        Level::Off | Level::Auto => {
            let mut compressor = Compressor::new(3)?;
            compressor.set_parameter(CParameter::HashLog(15))?;
            compressor.set_parameter(CParameter::ChainLog(14))?;
            Ok(compressor)
        }
    }
}

/// Whether samples from all over `plain` shrink. At level 1: the negative levels leave literals as they are, and would not see
/// that hexadecimal digits take half a byte each. Costs some ten microseconds.
fn worth_it(plain: &[u8]) -> Result<bool, CodecError> {
    if plain.len() < PROBE_PIECES * PROBE_PIECE * 4 {
        return Ok(true);
    }
    let mut sample = [0; PROBE_PIECES * PROBE_PIECE];
    let step = (plain.len() - PROBE_PIECE) / (PROBE_PIECES - 1);
    for (i, piece) in sample.chunks_exact_mut(PROBE_PIECE).enumerate() {
        piece.copy_from_slice(&plain[i * step..i * step + PROBE_PIECE]);
    }
    let mut out = [0; PROBE_PIECES * PROBE_PIECE + 1024];
    PROBE.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some(Compressor::new(1)?);
        }
        let Some(compressor) = slot else { return Ok(true) };
        let length = compressor.compress_to_buffer(&sample, &mut out)?;
        Ok(length < sample.len() - sample.len() / MIN_GAIN)
    })
}

/// Decompresses one zstd frame of exactly `length` plaintext bytes into `out` (cleared first).
pub fn decompress(compressed: &[u8], length: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    out.clear();
    out.reserve(length);
    DECOMPRESSOR.with_borrow_mut(|slot| -> Result<(), CodecError> {
        if slot.is_none() {
            *slot = Some(Decompressor::new()?);
        }
        if let Some(decompressor) = slot {
            decompressor.decompress_to_buffer(compressed, out)?;
        }
        Ok(())
    })?;
    // The reserved room may be larger than `length`; a frame that fills more of it lies about its size.
    if out.len() == length { Ok(()) } else { Err(CodecError::Length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(plain: &[u8], level: Level) -> Compression {
        let (mut out, mut scratch) = (Vec::new(), Vec::new());
        let how = compress(plain, level, &mut out, &mut scratch).expect("compresses");
        if how == Compression::Zstd {
            decompress(&out, plain.len(), &mut scratch).expect("decompresses");
            assert_eq!(scratch, plain);
            assert!(decompress(&out, plain.len() - 1, &mut scratch).is_err());
            assert!(decompress(&out[..out.len() - 1], plain.len(), &mut scratch).is_err());
        }
        how
    }

    #[test]
    fn compresses_what_shrinks_only() {
        let text = b"the quick brown fox ".repeat(20_000);
        let mut noise = vec![0; 400_000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        assert_eq!(round_trip(&text, DEFAULT_LEVEL), Compression::Zstd);
        assert_eq!(round_trip(&text, Level::Off), Compression::None);
        assert_eq!(round_trip(&noise, DEFAULT_LEVEL), Compression::None);
        assert_eq!(round_trip(b"", FAST_LEVEL), Compression::None);
        assert_eq!(round_trip(&text[..100], Level::Zstd(19)), Compression::Zstd);
        let digits = crate::id::to_hex(&noise).into_bytes();
        let (mut out, mut scratch) = (Vec::new(), Vec::new());
        assert_eq!(compress(&digits, DEFAULT_LEVEL, &mut out, &mut scratch).expect("compresses"), Compression::Zstd);
        assert!(out.len() < digits.len() * 6 / 10, "{} of {}", out.len(), digits.len());
    }
}
