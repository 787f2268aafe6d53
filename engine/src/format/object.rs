//! The frame of every small object: a header in clear, a padded body under one AEAD call.

use super::{MAGIC, ObjectKind, VERSION, padme};
use crate::codec;
use crate::crypto::sealed::{self, NONCE_LEN};
use crate::crypto::{Key, TAG_LEN, random_bytes};
use crate::format::pack::Compression;
use crate::id::{Epoch, RepoId};

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 64;
/// Sealed objects are padded to at least this size.
pub const MIN_SIZE: u64 = 4096;
/// Length of the fields before the body inside the sealed part.
const PREFIX_LEN: usize = 12;
/// Largest small object as stored.
pub const MAX_SIZE: u64 = 64 << 20;
/// Largest body after decompression.
pub const MAX_BODY: usize = 128 << 20;

/// Why an object cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Shorter than its fixed parts, or longer than allowed.
    #[error("has an impossible size of {0} bytes")]
    Size(usize),
    /// Other first bytes.
    #[error("is not an object of this program (wrong magic)")]
    Magic,
    /// A format version from the future.
    #[error("has format version {0}; this program reads version {VERSION}: use a newer one")]
    Version(u8),
    /// An object of another kind lies under this name.
    #[error("is an object of another kind ({found} instead of {wanted})")]
    Kind {
        /// Byte found.
        found: u8,
        /// Byte expected.
        wanted: u8,
    },
    /// Made for another repository.
    #[error("belongs to another repository")]
    Repository,
    /// Made for another epoch than its name says.
    #[error("belongs to epoch {0}")]
    Epoch(Epoch),
    /// A reserved field holds something.
    #[error("sets a reserved field: made by a newer program")]
    Reserved,
    /// The authentication failed.
    #[error("does not authenticate: damaged or forged")]
    NotAuthentic,
    /// Authentic, but it breaks the rules of the format.
    #[error("is malformed: {0}")]
    Malformed(String),
}

impl From<super::cbor::CborError> for FormatError {
    fn from(e: super::cbor::CborError) -> Self {
        Self::Malformed(e.to_string())
    }
}

/// The header of an object other than a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which kind of object.
    pub kind: ObjectKind,
    /// Repository it belongs to.
    pub repo: RepoId,
    /// Epoch it belongs to; 0 for objects without one.
    pub epoch: Epoch,
    /// Nonce of the body; zeros where there is none.
    pub nonce: [u8; NONCE_LEN],
}

impl Header {
    /// The 64 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..8].copy_from_slice(&MAGIC);
        out[8] = VERSION;
        out[9] = self.kind as u8;
        out[16..32].copy_from_slice(&self.repo.0);
        out[32..40].copy_from_slice(&self.epoch.to_le_bytes());
        out[40..].copy_from_slice(&self.nonce);
        out
    }

    /// Checks the fixed fields for the wanted kind.
    pub fn parse(bytes: &[u8], kind: ObjectKind) -> Result<Self, FormatError> {
        let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(FormatError::Size(bytes.len()))?;
        check_magic(header, kind)?;
        if header[10..16] != [0; 6] {
            return Err(FormatError::Reserved);
        }
        let field = |range: std::ops::Range<usize>| header.get(range).unwrap_or_default();
        Ok(Self {
            kind,
            repo: RepoId::from_slice(field(16..32)).ok_or(FormatError::Magic)?,
            epoch: u64::from_le_bytes(field(32..40).try_into().map_err(|_| FormatError::Magic)?),
            nonce: field(40..64).try_into().map_err(|_| FormatError::Magic)?,
        })
    }
}

/// Checks magic, version and kind at the start of any object.
pub fn check_magic(bytes: &[u8], kind: ObjectKind) -> Result<(), FormatError> {
    let start: &[u8; 10] = bytes.first_chunk().ok_or(FormatError::Size(bytes.len()))?;
    if start[..8] != MAGIC {
        return Err(FormatError::Magic);
    }
    if start[8] != VERSION {
        return Err(FormatError::Version(start[8]));
    }
    if start[9] != kind as u8 {
        return Err(FormatError::Kind { found: start[9], wanted: kind as u8 });
    }
    Ok(())
}

/// Seals a body: header, then body compressed, padded to a Padmé size and encrypted, with the header as associated data.
pub fn seal(key: &Key, kind: ObjectKind, repo: RepoId, epoch: Epoch, body: &[u8]) -> Result<Vec<u8>, FormatError> {
    if body.len() > MAX_BODY {
        return Err(FormatError::Size(body.len()));
    }
    let header = Header { kind, repo, epoch, nonce: random_bytes() };
    let header_bytes = header.to_bytes();
    let (mut packed, mut scratch) = (Vec::new(), Vec::new());
    let compression = codec::compress(body, codec::DEFAULT_LEVEL, &mut packed, &mut scratch)
        .map_err(|e| FormatError::Malformed(e.to_string()))?;
    let stored = if compression == Compression::None { body } else { &packed };
    let unpadded = HEADER_LEN + PREFIX_LEN + stored.len() + TAG_LEN;
    let size = padme(unpadded as u64).max(MIN_SIZE);
    if size > MAX_SIZE {
        return Err(FormatError::Size(unpadded));
    }
    let text_len = usize::try_from(size).unwrap_or(usize::MAX) - HEADER_LEN - TAG_LEN;
    let mut text = Vec::with_capacity(text_len);
    text.extend_from_slice(&u32_of(body.len())?.to_le_bytes());
    text.extend_from_slice(&u32_of(stored.len())?.to_le_bytes());
    text.extend_from_slice(&[compression as u8, 0, 0, 0]);
    text.extend_from_slice(stored);
    text.resize(text_len, 0);
    let mut out = header_bytes.to_vec();
    out.extend_from_slice(&sealed::seal(key, &header.nonce, &header_bytes, &text));
    Ok(out)
}

/// Opens a sealed object and returns its body. Nothing is believed before it is authenticated.
pub fn open(key: &Key, kind: ObjectKind, repo: RepoId, epoch: Epoch, bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    if bytes.len() as u64 > MAX_SIZE {
        return Err(FormatError::Size(bytes.len()));
    }
    let header = Header::parse(bytes, kind)?;
    if header.repo != repo {
        return Err(FormatError::Repository);
    }
    if header.epoch != epoch {
        return Err(FormatError::Epoch(header.epoch));
    }
    let (head, body) = bytes.split_at_checked(HEADER_LEN).ok_or(FormatError::Size(bytes.len()))?;
    let text = sealed::open(key, &header.nonce, head, body).map_err(|_| FormatError::NotAuthentic)?;
    unpack(&text)
}

fn unpack(text: &[u8]) -> Result<Vec<u8>, FormatError> {
    let short = || FormatError::Malformed("too short".into());
    let (prefix, rest) = text.split_at_checked(PREFIX_LEN).ok_or_else(short)?;
    let word = |at: usize| {
        let bytes = prefix.get(at..at + 4).and_then(|b| b.try_into().ok()).unwrap_or_default();
        usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX)
    };
    let (raw, stored) = (word(0), word(4));
    if raw > MAX_BODY {
        return Err(FormatError::Size(raw));
    }
    let stored = rest.get(..stored).ok_or_else(short)?;
    match prefix.get(8) {
        Some(0) if stored.len() == raw => Ok(stored.to_vec()),
        Some(1) => {
            let mut body = Vec::new();
            codec::decompress(stored, raw, &mut body).map_err(|e| FormatError::Malformed(e.to_string()))?;
            Ok(body)
        }
        _ => Err(FormatError::Malformed("unknown compression".into())),
    }
}

/// Lengths in the format have 32 bits.
pub fn u32_of(n: usize) -> Result<u32, FormatError> {
    u32::try_from(n).map_err(|_| FormatError::Size(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Key, Vec<u8>) {
        let key = Key::from_bytes([1; 32]);
        let bytes = seal(&key, ObjectKind::Snapshot, RepoId([2; 16]), 3, b"body of a snapshot").expect("seals");
        (key, bytes)
    }

    #[test]
    fn every_flip_and_every_prefix_is_refused() {
        let (key, good) = sample();
        let open = |bytes: &[u8]| open(&key, ObjectKind::Snapshot, RepoId([2; 16]), 3, bytes);
        assert_eq!(open(&good).expect("opens"), b"body of a snapshot");
        assert_eq!(good.len(), 4096);
        for len in 0..good.len() {
            assert!(open(&good[..len]).is_err(), "prefix of {len}");
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn other_kind_repository_epoch_or_key_is_refused() {
        let (key, good) = sample();
        assert!(matches!(open(&key, ObjectKind::Seal, RepoId([2; 16]), 3, &good), Err(FormatError::Kind { .. })));
        assert!(matches!(open(&key, ObjectKind::Snapshot, RepoId([9; 16]), 3, &good), Err(FormatError::Repository)));
        assert!(matches!(open(&key, ObjectKind::Snapshot, RepoId([2; 16]), 4, &good), Err(FormatError::Epoch(3))));
        let other = Key::from_bytes([8; 32]);
        assert!(matches!(open(&other, ObjectKind::Snapshot, RepoId([2; 16]), 3, &good), Err(FormatError::NotAuthentic)));
    }
}
