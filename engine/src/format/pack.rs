//! Packs as bytes: header, directory, locator. `docs/format.md`, "Packs", is the specification.

use crate::id::{BlobId, Epoch, ObjectId};

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
