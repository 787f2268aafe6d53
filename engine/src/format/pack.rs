//! Packs as bytes: header, directory, locator. `docs/format.md`, "Packs", is the specification.

use super::object::{FormatError, check_magic, u32_of};
use super::{MAGIC, ObjectKind, VERSION};
use crate::crypto::frames::{COMMITMENT_LEN, PackCipher, Suite};
use crate::crypto::{Key, TAG_LEN};
use crate::id::{BlobId, Epoch, ObjectId, RepoId};

/// What a frame's blobs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum BlobKind {
    /// Content of files.
    Data = 0,
    /// Nodes of catalogs and of blob lists.
    Node = 1,
}

/// How a frame's plaintext was compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Compression {
    /// Not at all.
    None = 0,
    /// One zstd frame (RFC 8878).
    Zstd = 1,
}

/// A frame as a pack's directory lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEntry {
    /// Place of the sealed bytes in the pack.
    pub offset: u32,
    /// Length of the sealed bytes, tag included.
    pub sealed: u32,
    /// Length of the plaintext: the sum of its blobs' lengths.
    pub raw: u32,
    /// How it is compressed.
    pub compression: Compression,
    /// What its blobs are.
    pub kind: BlobKind,
    /// How many blobs lie in it.
    pub blobs: u32,
}

/// A blob as a pack's directory lists it, in the order in which they lie in their frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobEntry {
    /// Its address.
    pub id: BlobId,
    /// Length of its plaintext in bytes.
    pub length: u32,
}

/// Everything about the content of a pack.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Directory {
    /// Frames in order.
    pub frames: Vec<FrameEntry>,
    /// Blobs in order; the first frame's come first.
    pub blobs: Vec<BlobEntry>,
}

/// A pack as an index segment describes it: enough to read any blob with one ranged read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackRecord {
    /// Epoch under which the pack is stored.
    pub epoch: Epoch,
    /// Name of the pack.
    pub id: ObjectId,
    /// Size of the object in bytes.
    pub size: u64,
    /// The pack's header up to and including the commitment.
    pub header: Vec<u8>,
    /// Its directory.
    pub directory: Directory,
}

/// Name of an index segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// Epoch under which it is stored.
    pub epoch: Epoch,
    /// Name of the object.
    pub id: ObjectId,
}

/// Fixed fields of the header in bytes; a wrapped key and the commitment follow.
pub const FIXED_HEADER_LEN: usize = 64;
/// Length of the header of packs without a wrapped key.
pub const HEADER_LEN: usize = FIXED_HEADER_LEN + COMMITMENT_LEN;
/// Longest header (a wrapped key takes up to 1,168 bytes).
pub const MAX_HEADER_LEN: usize = HEADER_LEN + 2048;
/// Length of the sealed locator, the last bytes of every pack.
pub const LOCATOR_LEN: usize = 64;
/// Largest pack in bytes.
pub const MAX_PACK: u64 = 256 << 20;
/// Packs are padded to at least this size.
pub const MIN_PACK: u64 = 64 << 10;
/// Most frames in a pack.
pub const MAX_FRAMES: usize = 65_536;
/// Largest plaintext of a frame in bytes.
pub const MAX_FRAME: u32 = 32 << 20;
/// Largest plaintext of a directory in bytes.
pub const MAX_DIRECTORY: usize = 32 << 20;

const FRAME_ENTRY_LEN: usize = 18;
const BLOB_ENTRY_LEN: usize = BlobId::LEN + 4;

/// Numbers and roles under which the parts of a pack other than its frames are sealed.
pub mod part {
    /// Number and role of the filler.
    pub const FILLER: (u64, u8) = (u64::MAX - 2, 2);
    /// Number and role of the directory.
    pub const DIRECTORY: (u64, u8) = (u64::MAX - 1, 3);
    /// Number and role of the locator.
    pub const LOCATOR: (u64, u8) = (u64::MAX, 4);
}

impl BlobKind {
    /// From its byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Data, Self::Node].into_iter().find(|k| *k as u8 == byte)
    }
}

impl Compression {
    /// From its byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::None, Self::Zstd].into_iter().find(|k| *k as u8 == byte)
    }
}

/// Header of a new pack without a wrapped key, and the cipher for its frames.
#[must_use]
pub fn new_header(data_key: &Key, suite: Suite, repo: &RepoId, salt: &[u8; 32]) -> (Vec<u8>, PackCipher) {
    let mut header = Vec::with_capacity(HEADER_LEN);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&[VERSION, ObjectKind::Pack as u8, 0, 0, suite as u8, 0, 0, 0]);
    header.extend_from_slice(&repo.0);
    header.extend_from_slice(salt);
    let cipher = PackCipher::new(data_key, suite, repo, salt, &header);
    header.extend_from_slice(cipher.commitment());
    (header, cipher)
}

/// Checks a header, which may be followed by other bytes; returns its length and the cipher for the frames.
pub fn parse_header(data_key: &Key, repo: &RepoId, bytes: &[u8]) -> Result<(usize, PackCipher), FormatError> {
    let short = || FormatError::Size(bytes.len());
    let fixed: &[u8; FIXED_HEADER_LEN] = bytes.first_chunk().ok_or_else(short)?;
    check_magic(fixed, ObjectKind::Pack)?;
    let suite = Suite::from_byte(fixed[12]).ok_or(FormatError::Reserved)?;
    // Wrapped keys (kem > 0) and later key epochs are reserved for write-only clients and key rotation.
    if fixed[10..12] != [0, 0] || fixed[13..16] != [0; 3] {
        return Err(FormatError::Reserved);
    }
    if fixed[16..32] != repo.0 {
        return Err(FormatError::Repository);
    }
    let salt: &[u8; 32] = fixed.last_chunk().ok_or_else(short)?;
    let commitment = bytes.get(FIXED_HEADER_LEN..HEADER_LEN).ok_or_else(short)?;
    let cipher = PackCipher::new(data_key, suite, repo, salt, fixed);
    if !cipher.commits_to(commitment) {
        return Err(FormatError::NotAuthentic);
    }
    Ok((HEADER_LEN, cipher))
}

/// Place of the directory, as the locator gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locator {
    /// Place of the sealed directory in the pack.
    pub offset: u32,
    /// Its sealed length.
    pub sealed: u32,
    /// Length of its plaintext.
    pub raw: u32,
    /// How it is compressed.
    pub compression: Compression,
}

impl Locator {
    /// The 48 bytes that are sealed.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; LOCATOR_LEN - TAG_LEN] {
        let mut out = [0; LOCATOR_LEN - TAG_LEN];
        out[..4].copy_from_slice(&self.offset.to_le_bytes());
        out[4..8].copy_from_slice(&self.sealed.to_le_bytes());
        out[8..12].copy_from_slice(&self.raw.to_le_bytes());
        out[12] = self.compression as u8;
        out
    }

    /// Reads the opened locator of a pack of `size` bytes.
    pub fn parse(text: &[u8], size: u64) -> Result<Self, FormatError> {
        let mut fields = Fields(text);
        let locator = Self {
            offset: fields.u32()?,
            sealed: fields.u32()?,
            raw: fields.u32()?,
            compression: Compression::from_byte(fields.u8()?).ok_or(FormatError::Reserved)?,
        };
        let end = u64::from(locator.offset) + u64::from(locator.sealed) + LOCATOR_LEN as u64;
        let fits = end == size && locator.offset as usize >= HEADER_LEN && locator.sealed as usize >= TAG_LEN;
        if !fits || locator.raw as usize > MAX_DIRECTORY {
            return Err(malformed("the locator points outside the pack"));
        }
        Ok(locator)
    }
}

impl Directory {
    /// The plaintext of a directory.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        let length = 8 + self.frames.len() * FRAME_ENTRY_LEN + self.blobs.len() * BLOB_ENTRY_LEN;
        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(&u32_of(self.frames.len())?.to_le_bytes());
        out.extend_from_slice(&u32_of(self.blobs.len())?.to_le_bytes());
        for f in &self.frames {
            for n in [f.offset, f.sealed, f.raw, f.blobs] {
                out.extend_from_slice(&n.to_le_bytes());
            }
            out.extend_from_slice(&[f.compression as u8, f.kind as u8]);
        }
        for b in &self.blobs {
            out.extend_from_slice(&b.length.to_le_bytes());
        }
        for b in &self.blobs {
            out.extend_from_slice(&b.id.0);
        }
        Ok(out)
    }

    /// Reads and checks a directory: frames in order without overlap, lengths that add up, everything within bounds.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields(bytes);
        let (frame_count, blob_count) = (fields.u32()? as usize, fields.u32()? as usize);
        let expected = frame_count
            .checked_mul(FRAME_ENTRY_LEN)
            .and_then(|f| blob_count.checked_mul(BLOB_ENTRY_LEN).and_then(|b| f.checked_add(b)));
        if frame_count > MAX_FRAMES || expected != Some(fields.0.len()) {
            return Err(malformed("a directory of an impossible length"));
        }
        let frames = (0..frame_count).map(|_| fields.frame()).collect::<Result<Vec<_>, _>>()?;
        let mut blobs = (0..blob_count)
            .map(|_| Ok(BlobEntry { id: BlobId([0; 32]), length: fields.u32()? }))
            .collect::<Result<Vec<_>, FormatError>>()?;
        for blob in &mut blobs {
            blob.id = BlobId(fields.array()?);
        }
        let directory = Self { frames, blobs };
        directory.check()?;
        Ok(directory)
    }

    fn check(&self) -> Result<(), FormatError> {
        let mut end = HEADER_LEN as u64;
        let mut blobs = self.blobs.iter();
        for f in &self.frames {
            let text = u64::from(f.sealed).checked_sub(TAG_LEN as u64).ok_or(malformed("a frame without a tag"))?;
            if u64::from(f.offset) < end || f.raw > MAX_FRAME {
                return Err(malformed("frames overlap or are too large"));
            }
            if f.compression == Compression::None && text != u64::from(f.raw) {
                return Err(malformed("a frame's lengths disagree"));
            }
            end = u64::from(f.offset) + u64::from(f.sealed);
            let mut sum = 0_u64;
            for _ in 0..f.blobs {
                let length = blobs.next().ok_or(malformed("fewer blobs than the frames hold"))?.length;
                if length == 0 {
                    return Err(malformed("an empty blob"));
                }
                sum += u64::from(length);
            }
            if f.blobs == 0 || sum != u64::from(f.raw) {
                return Err(malformed("a frame's blobs do not add up to its length"));
            }
        }
        if blobs.next().is_some() || end > MAX_PACK {
            return Err(malformed("blobs outside of any frame, or a frame outside of the pack"));
        }
        Ok(())
    }
}

fn malformed(what: &str) -> FormatError {
    FormatError::Malformed(what.into())
}

/// Fixed-width little-endian fields, one after another.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(malformed("too short"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn frame(&mut self) -> Result<FrameEntry, FormatError> {
        Ok(FrameEntry {
            offset: self.u32()?,
            sealed: self.u32()?,
            raw: self.u32()?,
            blobs: self.u32()?,
            compression: Compression::from_byte(self.u8()?).ok_or(FormatError::Reserved)?,
            kind: BlobKind::from_byte(self.u8()?).ok_or(FormatError::Reserved)?,
        })
    }
}
