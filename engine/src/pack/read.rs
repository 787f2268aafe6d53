//! Opening the parts of a stored pack.

use bytes::Bytes;

use crate::codec;
use crate::crypto::Key;
use crate::crypto::frames::PackCipher;
use crate::error::Error;
use crate::format::object::FormatError;
use crate::format::pack::{Compression, Directory, FrameEntry, HEADER_LEN, LOCATOR_LEN, Locator, MAX_PACK, parse_header, part};
use crate::id::RepoId;

/// Reads the directory of a whole pack from its end.
pub fn open_directory(cipher: &PackCipher, pack: &[u8]) -> Result<Directory, FormatError> {
    let size = pack.len() as u64;
    let (_, tail) = pack.split_last_chunk::<LOCATOR_LEN>().ok_or(FormatError::Size(pack.len()))?;
    let locator = open_locator(cipher, tail, size)?;
    let range = locator.offset as usize..locator.offset as usize + locator.sealed as usize;
    let sealed = pack.get(range).ok_or(FormatError::Size(pack.len()))?.to_vec();
    open_located(cipher, &locator, sealed)
}

/// Reads header and directory of a stored pack of `size` bytes by three small reads; `fetch` gives so many bytes from an
/// offset on. `object` is its name, for messages.
///
/// # Errors
///
/// What `fetch` returns; [`Error::Damaged`] for what does not authenticate or parse.
pub fn read_directory(
    data_key: &Key,
    repo: &RepoId,
    object: &str,
    size: u64,
    fetch: &dyn Fn(u64, usize) -> crate::error::Result<Bytes>,
) -> crate::error::Result<(Vec<u8>, Directory)> {
    let damaged = |e: FormatError| Error::damaged(object, e);
    if size < (HEADER_LEN + LOCATOR_LEN) as u64 || size > MAX_PACK {
        return Err(damaged(FormatError::Size(usize::try_from(size).unwrap_or(usize::MAX))));
    }
    let header = fetch(0, HEADER_LEN)?;
    let (length, cipher) = parse_header(data_key, repo, &header).map_err(damaged)?;
    let tail = fetch(size - LOCATOR_LEN as u64, LOCATOR_LEN)?;
    let tail: &[u8; LOCATOR_LEN] = tail.first_chunk().ok_or_else(|| damaged(FormatError::Size(tail.len())))?;
    let locator = open_locator(&cipher, tail, size).map_err(damaged)?;
    let sealed = fetch(u64::from(locator.offset), locator.sealed as usize)?;
    let directory = open_located(&cipher, &locator, sealed.into()).map_err(damaged)?;
    Ok((header.get(..length).unwrap_or_default().to_vec(), directory))
}

fn open_locator(cipher: &PackCipher, sealed: &[u8; LOCATOR_LEN], size: u64) -> Result<Locator, FormatError> {
    if size > MAX_PACK {
        return Err(FormatError::Size(usize::try_from(size).unwrap_or(usize::MAX)));
    }
    let mut sealed = *sealed;
    let text = cipher.open(part::LOCATOR.0, part::LOCATOR.1, &mut sealed).map_err(|_| FormatError::NotAuthentic)?;
    Locator::parse(text, size)
}

fn open_located(cipher: &PackCipher, locator: &Locator, mut sealed: Vec<u8>) -> Result<Directory, FormatError> {
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
