//! Bytes of the cache's records: little-endian integers, and the checksums that tie every record to its place.
//!
//! The cache must never give a wrong answer, however its file was damaged. The database checks its own pages only when it
//! repairs, so each record has a checksum: eight bytes of BLAKE3 over repository, kind, key and body. A record that was altered,
//! moved to another key, or taken from the cache of another repository does not verify.

use crate::id::RepoId;

/// Kinds of records, as the checksum tells them apart.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Record {
    /// The state of the cache as a whole.
    State = 0,
    /// A run: segments, fences, filter.
    Run = 1,
    /// A page of a run.
    Page = 2,
    /// A pack's summary.
    Pack = 3,
}

/// Length of a checksum in bytes.
const SUM: usize = 8;

/// Checksum of a record's body in its place.
pub(super) fn checksum(repo: &RepoId, kind: Record, key: u64, body: &[u8]) -> u64 {
    // The place is the hash's key, not in front of the body, so that whole chunks of it are hashed side by side.
    let mut place = [0; blake3::KEY_LEN];
    place[..16].copy_from_slice(&repo.0);
    place[16..24].copy_from_slice(&key.to_le_bytes());
    place[24] = kind as u8;
    let mut sum = [0; SUM];
    sum.copy_from_slice(&blake3::keyed_hash(&place, body).as_bytes()[..SUM]);
    u64::from_le_bytes(sum)
}

/// Appends its checksum to a record.
pub(super) fn seal(repo: &RepoId, kind: Record, key: u64, mut body: Vec<u8>) -> Vec<u8> {
    let sum = checksum(repo, kind, key, &body);
    body.extend_from_slice(&sum.to_le_bytes());
    body
}

/// Body of a record whose checksum holds; `None` otherwise.
pub(super) fn unseal<'a>(repo: &RepoId, kind: Record, key: u64, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let (body, sum) = bytes.split_last_chunk::<SUM>()?;
    (u64::from_le_bytes(*sum) == checksum(repo, kind, key, body)).then_some(body)
}

/// Reads a record from its front; every step is `None` once too few bytes are left.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    /// The next `length` bytes.
    pub(super) fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    /// One byte.
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A 32-bit integer.
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A 64-bit integer.
    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A 32-bit count of things of `size` bytes each, which must all be there still.
    pub(super) fn count(&mut self, size: usize) -> Option<usize> {
        let count = usize::try_from(self.u32()?).ok()?;
        (count.checked_mul(size)? <= self.0.len()).then_some(count)
    }
}

/// Appends a count as 32 bits.
///
/// Counts here are of things held in memory, far below the limit; one above it would fail to decode, not mislead.
pub(super) fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_verifies_only_in_its_place() {
        let repo = RepoId([7; 16]);
        let sealed = seal(&repo, Record::Pack, 5, b"body".to_vec());
        assert_eq!(unseal(&repo, Record::Pack, 5, &sealed), Some(&b"body"[..]));
        assert_eq!(unseal(&repo, Record::Pack, 6, &sealed), None);
        assert_eq!(unseal(&repo, Record::Run, 5, &sealed), None);
        assert_eq!(unseal(&RepoId([8; 16]), Record::Pack, 5, &sealed), None);
        for cut in 0..sealed.len() {
            assert_eq!(unseal(&repo, Record::Pack, 5, &sealed[..cut]), None);
        }
    }
}
