//! Building a pack.

use std::sync::Arc;

use bytes::Bytes;

use super::read::open_directory;
use crate::buffer::{Buffer, BufferPool};
use crate::codec::{self, Level};
use crate::crypto::frames::{PackCipher, Suite};
use crate::crypto::{Key, TAG_LEN, random_bytes};
use crate::error::{Error, Result};
use crate::format::pack::{
    BlobEntry, BlobKind, Compression, Directory, FrameEntry, LOCATOR_LEN, Locator, MAX_FRAMES, MAX_PACK, MIN_PACK, PackRecord,
    new_header, part,
};
use crate::format::padme;
use crate::id::{Epoch, ObjectId, RepoId};

/// A pack is finished at this many blobs, so that its directory stays small.
const MAX_BLOBS: usize = 128 * 1024;

/// A pack that still takes frames.
pub struct OpenPack {
    cipher: PackCipher,
    header_len: usize,
    buffer: Buffer,
    directory: Directory,
    check: Vec<u8>,
}

/// A finished pack, ready to be stored under its name.
pub struct SealedPack {
    /// Name.
    pub id: ObjectId,
    /// The object.
    pub bytes: Bytes,
    header_len: usize,
    directory: Directory,
}

impl OpenPack {
    /// An empty pack with a key of its own.
    pub fn new(data_key: &Key, suite: Suite, repo: &RepoId, pool: &Arc<BufferPool>) -> Self {
        let (header, cipher) = new_header(data_key, suite, repo, &random_bytes());
        let mut buffer = pool.take();
        buffer.extend(&header);
        Self { cipher, header_len: header.len(), buffer, directory: Directory::default(), check: Vec::new() }
    }

    /// Bytes so far, without filler and directory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether there is no frame yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.directory.frames.is_empty()
    }

    /// Whether it should be finished before another frame is added.
    ///
    /// Near the target, a pack ends where it needs little filler to reach the next Padmé size: that saves one percent of the
    /// repository, and shows nothing that the size would not show anyway.
    #[must_use]
    pub fn is_full(&self, target: usize) -> bool {
        let near = self.len() >= target - target / 16;
        near && (self.filler() <= target / 256 || self.len() >= target + target / 8)
            || self.directory.frames.len() >= MAX_FRAMES / 2
            || self.directory.blobs.len() >= MAX_BLOBS
    }

    /// About how much filler this pack would need if it ended here: the directory is mostly ids, which do not compress.
    fn filler(&self) -> usize {
        let directory = self.directory.blobs.len() * 34 + self.directory.frames.len() * 12;
        let needed = (self.len() + directory + 2 * TAG_LEN + LOCATOR_LEN) as u64;
        usize::try_from(padme(needed) - needed).unwrap_or(usize::MAX)
    }

    /// Seals `stored` (the blobs end to end, compressed as said) as the next frame, opens it again and compares.
    pub fn add(&mut self, kind: BlobKind, raw: u32, compression: Compression, stored: &[u8], blobs: &[BlobEntry]) -> Result<()> {
        let number = self.directory.frames.len() as u64;
        let offset = self.seal(number, kind as u8, stored)?;
        self.directory.frames.push(FrameEntry {
            offset,
            sealed: small(stored.len() + TAG_LEN)?,
            raw,
            compression,
            kind,
            blobs: small(blobs.len())?,
        });
        self.directory.blobs.extend_from_slice(blobs);
        Ok(())
    }

    fn seal(&mut self, number: u64, role: u8, text: &[u8]) -> Result<u32> {
        let offset = self.buffer.len();
        if offset + text.len() + (1 << 20) > usize::try_from(MAX_PACK).unwrap_or(usize::MAX) {
            return Err(Error::Invalid(format!("a frame of {} bytes does not fit into a pack", text.len())));
        }
        self.buffer.extend(text);
        let tag = self.cipher.seal(number, role, self.buffer.tail_mut(offset));
        self.buffer.extend(&tag);
        self.check.clear();
        self.check.extend_from_slice(self.buffer.tail_mut(offset));
        match self.cipher.open(number, role, &mut self.check) {
            Ok(opened) if opened == text => small(offset),
            _ => Err(Error::damaged("a new frame", "does not open to what was sealed (faulty memory?)")),
        }
    }

    /// Adds directory, filler and locator, and reads the directory back from the finished bytes.
    pub fn finish(mut self) -> Result<SealedPack> {
        let plain = self.directory.to_bytes().map_err(|e| Error::damaged("a new pack", e))?;
        let (mut packed, mut scratch) = (Vec::new(), Vec::new());
        let compression =
            codec::compress(&plain, Level::Zstd(3), &mut packed, &mut scratch).map_err(|e| Error::damaged("a new pack", e))?;
        let stored = if compression == Compression::None { &plain } else { &packed };
        let needed = self.buffer.len() + TAG_LEN + stored.len() + TAG_LEN + LOCATOR_LEN;
        let size = usize::try_from(padme(needed as u64).max(MIN_PACK)).unwrap_or(usize::MAX);
        self.fill(size - needed);
        let offset = self.seal(part::DIRECTORY.0, part::DIRECTORY.1, stored)?;
        let locator = Locator { offset, sealed: small(stored.len() + TAG_LEN)?, raw: small(plain.len())?, compression };
        self.seal(part::LOCATOR.0, part::LOCATOR.1, &locator.to_bytes())?;
        let bytes = self.buffer.freeze();
        let id = ObjectId::of(&bytes);
        let found = open_directory(&self.cipher, &bytes).map_err(|e| Error::damaged("a new pack", e))?;
        if found != self.directory {
            return Err(Error::damaged("a new pack", "its directory does not read back (faulty memory?)"));
        }
        Ok(SealedPack { id, bytes, header_len: self.header_len, directory: self.directory })
    }

    /// The filler hides the pack's true length; nobody reads it, so it is not opened again.
    fn fill(&mut self, count: usize) {
        let offset = self.buffer.len();
        self.buffer.extend_zeros(count);
        let tag = self.cipher.seal(part::FILLER.0, part::FILLER.1, self.buffer.tail_mut(offset));
        self.buffer.extend(&tag);
    }
}

impl SealedPack {
    /// What the index says of this pack once it is stored under `epoch`. Lets go of the bytes.
    #[must_use]
    pub fn into_record(self, epoch: Epoch) -> PackRecord {
        PackRecord {
            epoch,
            id: self.id,
            size: self.bytes.len() as u64,
            header: self.bytes[..self.header_len].to_vec(),
            directory: self.directory,
        }
    }
}

fn small(n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| Error::Invalid(format!("a length of {n} does not fit into a pack")))
}

#[cfg(test)]
mod tests {
    use super::super::open_frame;
    use super::*;
    use crate::format::pack::parse_header;
    use crate::id::BlobId;

    fn sample(suite: Suite) -> (Key, RepoId, SealedPack) {
        let (key, repo) = (Key::from_bytes([1; 32]), RepoId([2; 16]));
        let mut pack = OpenPack::new(&key, suite, &repo, &BufferPool::new(1 << 20));
        let blobs = [BlobEntry { id: BlobId([3; 32]), length: 2 }, BlobEntry { id: BlobId([4; 32]), length: 3 }];
        pack.add(BlobKind::Data, 5, Compression::None, b"hello", &blobs).expect("adds");
        pack.add(BlobKind::Node, 1, Compression::None, b"x", &[BlobEntry { id: BlobId([5; 32]), length: 1 }]).expect("adds");
        (key, repo, pack.finish().expect("finishes"))
    }

    #[test]
    fn reads_back_from_its_own_bytes() {
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let (key, repo, pack) = sample(suite);
            assert_eq!(pack.bytes.len(), 64 << 10);
            assert_eq!(pack.bytes.as_ptr().align_offset(4096), 0);
            let (_, cipher) = parse_header(&key, &repo, &pack.bytes).expect("header");
            let directory = open_directory(&cipher, &pack.bytes).expect("directory");
            assert_eq!(directory, pack.directory);
            let frame = directory.frames[0];
            let mut sealed = pack.bytes[frame.offset as usize..][..frame.sealed as usize].to_vec();
            let mut plain = Vec::new();
            open_frame(&cipher, 0, &frame, &mut sealed, &mut plain).expect("frame");
            assert_eq!(plain, b"hello");
        }
    }

    #[test]
    fn every_prefix_and_every_flip_is_refused_or_harmless() {
        let (key, repo, pack) = sample(Suite::Aes256Gcm);
        let read = |bytes: &[u8]| -> Option<Directory> {
            let (_, cipher) = parse_header(&key, &repo, bytes).ok()?;
            open_directory(&cipher, bytes).ok()
        };
        for len in 0..pack.bytes.len() {
            assert_eq!(read(&pack.bytes[..len]), None, "prefix of {len}");
        }
        let frames_end = pack.directory.frames.last().map_or(0, |f| f.offset + f.sealed) as usize;
        let tail = pack.bytes.len() - LOCATOR_LEN - 300;
        let fixed = (0..super::super::super::format::pack::HEADER_LEN).chain(tail..pack.bytes.len());
        for bit in fixed.flat_map(|byte| (0..8).map(move |b| byte * 8 + b)) {
            let mut bad = pack.bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            // A flip in the filler changes the object's name, but nothing that is read.
            let in_filler = bit / 8 >= frames_end && read(&bad).as_ref() == Some(&pack.directory);
            assert!(in_filler || read(&bad).is_none(), "bit {bit}");
        }
        for bit in frames_end.saturating_sub(38) * 8..frames_end * 8 {
            let mut bad = pack.bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            let (_, cipher) = parse_header(&key, &repo, &bad).expect("header untouched");
            let broken = pack.directory.frames.iter().enumerate().filter(|(i, f)| {
                let mut sealed = bad[f.offset as usize..][..f.sealed as usize].to_vec();
                open_frame(&cipher, *i as u64, f, &mut sealed, &mut Vec::new()).is_err()
            });
            assert_eq!(broken.count(), 1, "bit {bit}");
        }
    }
}
