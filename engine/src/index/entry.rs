//! Entries: a blob's id and where it lies, 48 bytes, sorted as bytes.

use crate::error::{Error, Result};
use crate::format::pack::PackRecord;
use crate::id::BlobId;

/// Where a blob lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// Ordinal of the pack in this cache; see [`super::Index::pack`].
    pub pack: u32,
    /// Number of the frame in the pack's directory.
    pub frame: u32,
    /// Place in the frame's plaintext.
    pub offset: u32,
    /// Length of the blob in bytes.
    pub length: u32,
}

/// Length of an entry in bytes.
pub(super) const ENTRY: usize = BlobId::LEN + 16;

/// An id and four 32-bit numbers. Ordered as bytes, which is the order of ids.
pub(super) type Entry = [u8; ENTRY];

/// First eight bytes of an id as a number that sorts as the id does.
pub(super) fn prefix(id: &[u8; BlobId::LEN]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *id;
    u64::from_le_bytes([h, g, f, e, d, c, b, a])
}

/// The id of an entry.
pub(super) fn id_of(entry: &Entry) -> &[u8; BlobId::LEN] {
    entry.first_chunk().unwrap_or(&[0; BlobId::LEN])
}

/// Builds an entry.
pub(super) fn encode(id: &BlobId, at: Location) -> Entry {
    let mut entry = [0; ENTRY];
    entry[..32].copy_from_slice(&id.0);
    entry[32..36].copy_from_slice(&at.pack.to_le_bytes());
    entry[36..40].copy_from_slice(&at.frame.to_le_bytes());
    entry[40..44].copy_from_slice(&at.offset.to_le_bytes());
    entry[44..].copy_from_slice(&at.length.to_le_bytes());
    entry
}

/// The location in an entry.
pub(super) fn location(entry: &Entry) -> Location {
    let number = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
    Location { pack: number(32), frame: number(36), offset: number(40), length: number(44) }
}

/// Appends the entries of a pack.
///
/// # Errors
///
/// [`Error::Damaged`] where frames and blobs of the directory do not agree.
pub(super) fn append(pack: u32, record: &PackRecord, out: &mut Vec<Entry>) -> Result<()> {
    let disagree = || Error::damaged(record.id, "frames and blobs of its directory do not agree");
    let mut blobs = record.directory.blobs.iter();
    for (number, frame) in record.directory.frames.iter().enumerate() {
        let frame_number = u32::try_from(number).map_err(|_| disagree())?;
        let mut offset = 0_u32;
        for _ in 0..frame.blobs {
            let blob = blobs.next().ok_or_else(disagree)?;
            out.push(encode(&blob.id, Location { pack, frame: frame_number, offset, length: blob.length }));
            offset = offset.checked_add(blob.length).filter(|end| *end <= frame.raw).ok_or_else(disagree)?;
        }
    }
    if blobs.next().is_some() { Err(disagree()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_prefixes_is_order_of_ids() {
        let mut low = [0xff; 32];
        low[0] = 1;
        let mut high = [0; 32];
        high[0] = 2;
        assert!(prefix(&low) < prefix(&high));
        assert_eq!(prefix(&high), 2 << 56);
    }

    #[test]
    fn round_trip() {
        let at = Location { pack: 1, frame: 2, offset: 0x0102_0304, length: u32::MAX };
        let entry = encode(&BlobId([9; 32]), at);
        assert_eq!(location(&entry), at);
        assert_eq!(id_of(&entry), &[9; 32]);
    }
}
