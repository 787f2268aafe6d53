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
    /// As suits the data: see [`Recipe`].
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
/// A frame is text if fewer of the probe's bytes than one in this many are below 9, the tab: text of any encoding has next to none,
/// executables have many zeros.
const TEXT_CONTROLS: usize = 64;

/// Parameters for zstd.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Recipe {
    /// The double-fast strategy of level 3 with hash tables of 192 KiB together, which stay in a core's second-level cache: a fifth
    /// faster than level 3 and 2 % larger, which frames of 2 MiB win back.
    Text,
    /// The fast strategy over one table of 256 KiB: on executables as small as [`Recipe::Text`] and 15 % faster, while text would
    /// become 5 % larger.
    Binary,
    /// A level as it is.
    Level(i32),
}

thread_local! {
    /// One for each recipe in use, so that none has to be set up anew when kinds of data alternate.
    static COMPRESSORS: RefCell<Vec<(Recipe, Compressor<'static>)>> = const { RefCell::new(Vec::new()) };
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
    let Some(recipe) = recipe(plain, level)? else { return Ok(Compression::None) };
    out.reserve(zstd::zstd_safe::compress_bound(plain.len()));
    COMPRESSORS.with_borrow_mut(|all| -> Result<(), CodecError> {
        let at = match all.iter().position(|(r, _)| *r == recipe) {
            Some(at) => at,
            None => {
                all.push((recipe, new_compressor(recipe)?));
                all.len() - 1
            }
        };
        if let Some((_, compressor)) = all.get_mut(at) {
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

fn new_compressor(recipe: Recipe) -> std::io::Result<Compressor<'static>> {
    let (level, parameters): (i32, &[CParameter]) = match recipe {
        Recipe::Text => (3, &[CParameter::HashLog(15), CParameter::ChainLog(14)]),
        Recipe::Binary => (1, &[CParameter::WindowLog(21), CParameter::HashLog(16), CParameter::MinMatch(5)]),
        Recipe::Level(level) => (level, &[]),
    };
    let mut compressor = Compressor::new(level)?;
    for parameter in parameters {
        compressor.set_parameter(*parameter)?;
    }
    Ok(compressor)
}

/// How to compress; `None` where samples from all over `plain` hardly shrink. They are compressed at level 1: the negative levels
/// leave literals as they are, and would not see that hexadecimal digits take half a byte each. Costs some ten microseconds.
fn recipe(plain: &[u8], level: Level) -> Result<Option<Recipe>, CodecError> {
    let given = match level {
        Level::Off => return Ok(None),
        _ if plain.len() < 32 => return Ok(None),
        Level::Auto => None,
        Level::Zstd(level) => Some(Recipe::Level(level)),
    };
    if plain.len() < PROBE_PIECES * PROBE_PIECE * 4 {
        return Ok(given.or(Some(Recipe::Text)));
    }
    let mut sample = [0; PROBE_PIECES * PROBE_PIECE];
    let step = (plain.len() - PROBE_PIECE) / (PROBE_PIECES - 1);
    for (i, piece) in sample.chunks_exact_mut(PROBE_PIECE).enumerate() {
        piece.copy_from_slice(&plain[i * step..i * step + PROBE_PIECE]);
    }
    let mut out = [0; PROBE_PIECES * PROBE_PIECE + 1024];
    let length = PROBE.with_borrow_mut(|slot| -> std::io::Result<usize> {
        if slot.is_none() {
            *slot = Some(Compressor::new(1)?);
        }
        let Some(compressor) = slot else { return Ok(0) };
        compressor.compress_to_buffer(&sample, &mut out)
    })?;
    if length >= sample.len() - sample.len() / MIN_GAIN {
        return Ok(None);
    }
    let controls = sample.iter().filter(|byte| **byte < b'\t').count();
    let kind = if controls < sample.len() / TEXT_CONTROLS { Recipe::Text } else { Recipe::Binary };
    Ok(Some(given.unwrap_or(kind)))
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

    #[test]
    fn text_and_executables_are_told_apart() {
        let of = |plain: &[u8]| recipe(plain, Level::Auto).expect("probes");
        let program = std::fs::read(std::env::current_exe().expect("a path")).expect("reads");
        assert!(of(&program) == Some(Recipe::Binary));
        for text in ["the quick brown fox\n", "schöne Grüße aus Köln\r\n", "\t日本語のテキスト\n"] {
            assert!(of(text.repeat(10_000).as_bytes()) == Some(Recipe::Text), "{text}");
        }
        assert!(recipe(&program, Level::Zstd(7)).expect("probes") == Some(Recipe::Level(7)));
    }
}
