//! Opening the parts of a stored pack.

use crate::codec;
use crate::crypto::frames::PackCipher;
use crate::format::object::FormatError;
use crate::format::pack::{Compression, Directory, FrameEntry, LOCATOR_LEN, Locator, MAX_PACK, part};

/// Reads the directory of a whole pack from its end.
pub fn open_directory(cipher: &PackCipher, pack: &[u8]) -> Result<Directory, FormatError> {
    let size = pack.len() as u64;
    if size > MAX_PACK {
        return Err(FormatError::Size(pack.len()));
    }
    let (_, locator) = pack.split_last_chunk::<LOCATOR_LEN>().ok_or(FormatError::Size(pack.len()))?;
    let mut locator = *locator;
    let text = cipher.open(part::LOCATOR.0, part::LOCATOR.1, &mut locator).map_err(|_| FormatError::NotAuthentic)?;
    let locator = Locator::parse(text, size)?;
    let range = locator.offset as usize..locator.offset as usize + locator.sealed as usize;
    let mut sealed = pack.get(range).ok_or(FormatError::Size(pack.len()))?.to_vec();
    let text = cipher.open(part::DIRECTORY.0, part::DIRECTORY.1, &mut sealed).map_err(|_| FormatError::NotAuthentic)?;
    let mut plain = Vec::new();
    expand(text, locator.compression, locator.raw, &mut plain)?;
    let directory = Directory::parse(&plain)?;
    match directory.frames.last() {
        Some(f) if u64::from(f.offset) + u64::from(f.sealed) > u64::from(locator.offset) => {
            Err(FormatError::Malformed("a frame reaches into the directory".into()))
        }
        _ => Ok(directory),
    }
}

/// Decrypts and decompresses the frame of this number. `sealed` is used as working space; `plain` is cleared first.
pub fn open_frame(
    cipher: &PackCipher,
    number: u64,
    frame: &FrameEntry,
    sealed: &mut [u8],
    plain: &mut Vec<u8>,
) -> Result<(), FormatError> {
    let text = cipher.open(number, frame.kind as u8, sealed).map_err(|_| FormatError::NotAuthentic)?;
    expand(text, frame.compression, frame.raw, plain)
}

fn expand(text: &[u8], compression: Compression, raw: u32, plain: &mut Vec<u8>) -> Result<(), FormatError> {
    match compression {
        Compression::Zstd => codec::decompress(text, raw as usize, plain).map_err(|e| FormatError::Malformed(e.to_string())),
        Compression::None if text.len() == raw as usize => {
            plain.clear();
            plain.extend_from_slice(text);
            Ok(())
        }
        Compression::None => Err(FormatError::Malformed("another length than announced".into())),
    }
}
