//! Summaries of packs: what is needed to fetch and open any frame of a pack; and a cache of them bounded in bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::codec::{Reader, put_count};
use crate::format::pack::{BlobKind, Compression, FrameEntry, PackRecord};
use crate::id::{Epoch, ObjectId};
use crate::monitor::lock;

/// A pack without the ids of its blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackSummary {
    /// Epoch under which the pack is stored.
    pub epoch: Epoch,
    /// Name of the pack.
    pub id: ObjectId,
    /// Size of the object in bytes.
    pub size: u64,
    /// The pack's header up to and including the commitment.
    pub header: Vec<u8>,
    /// Its frames in order.
    pub frames: Vec<FrameEntry>,
}

/// Epoch and name of a pack, as the key under which its ordinal is found.
pub(super) type PackKey = [u8; 40];

/// Length of a frame in a summary in bytes.
const FRAME: usize = 18;

/// The key of a pack.
pub(super) fn key_of(epoch: Epoch, id: &ObjectId) -> PackKey {
    let mut key = [0; 40];
    key[..8].copy_from_slice(&epoch.to_le_bytes());
    key[8..].copy_from_slice(&id.0);
    key
}

/// Bytes of a pack's summary.
pub(super) fn encode(record: &PackRecord) -> Vec<u8> {
    let frames = &record.directory.frames;
    let mut out = Vec::with_capacity(64 + record.header.len() + frames.len() * FRAME);
    out.extend_from_slice(&record.epoch.to_le_bytes());
    out.extend_from_slice(&record.id.0);
    out.extend_from_slice(&record.size.to_le_bytes());
    put_count(&mut out, record.header.len());
    out.extend_from_slice(&record.header);
    put_count(&mut out, frames.len());
    for frame in frames {
        for number in [frame.offset, frame.sealed, frame.raw, frame.blobs] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&[frame.compression as u8, frame.kind as u8]);
    }
    out
}

/// Epoch, name and size, the front of a summary.
pub(super) fn head(reader: &mut Reader<'_>) -> Option<(Epoch, ObjectId, u64)> {
    Some((reader.u64()?, ObjectId(reader.array()?), reader.u64()?))
}

/// Reads a summary.
pub(super) fn decode(bytes: &[u8]) -> Option<PackSummary> {
    let mut reader = Reader(bytes);
    let (epoch, id, size) = head(&mut reader)?;
    let length = reader.count(1)?;
    let header = reader.slice(length)?.to_vec();
    let count = reader.count(FRAME)?;
    let frames = (0..count).map(|_| frame(&mut reader)).collect::<Option<_>>()?;
    reader.0.is_empty().then_some(PackSummary { epoch, id, size, header, frames })
}

fn frame(reader: &mut Reader<'_>) -> Option<FrameEntry> {
    let (offset, sealed, raw, blobs) = (reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?);
    let compression = match reader.u8()? {
        0 => Compression::None,
        1 => Compression::Zstd,
        _ => return None,
    };
    let kind = match reader.u8()? {
        0 => BlobKind::Data,
        1 => BlobKind::Node,
        _ => return None,
    };
    Some(FrameEntry { offset, sealed, raw, compression, kind, blobs })
}

/// How many parts the cache of summaries has, so that threads seldom meet.
const SHARDS: usize = 8;

/// Recently used summaries, bounded in bytes.
///
/// Two generations a shard: what is used moves to the young one; when that fills half of the budget, it becomes the old
/// one and the old one goes. That is nearly LRU at a constant cost.
pub(super) struct PackCache {
    shards: [Mutex<Generations>; SHARDS],
    half: usize,
}

#[derive(Default)]
struct Generations {
    young: HashMap<u32, Arc<PackSummary>>,
    old: HashMap<u32, Arc<PackSummary>>,
    young_bytes: usize,
}

impl PackCache {
    /// A cache of at most about `budget` bytes.
    pub(super) fn new(budget: usize) -> Self {
        Self { shards: Default::default(), half: budget / SHARDS / 2 }
    }

    /// The summary if it is here.
    pub(super) fn get(&self, ordinal: u32) -> Option<Arc<PackSummary>> {
        let mut shard = lock(self.shard(ordinal));
        if let Some(found) = shard.young.get(&ordinal) {
            return Some(Arc::clone(found));
        }
        let found = shard.old.remove(&ordinal)?;
        self.keep(&mut shard, ordinal, &found);
        Some(found)
    }

    /// Remembers a summary.
    pub(super) fn put(&self, ordinal: u32, summary: &Arc<PackSummary>) {
        self.keep(&mut lock(self.shard(ordinal)), ordinal, summary);
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            *lock(shard) = Generations::default();
        }
    }

    fn shard(&self, ordinal: u32) -> &Mutex<Generations> {
        &self.shards[ordinal as usize % SHARDS]
    }

    fn keep(&self, shard: &mut Generations, ordinal: u32, summary: &Arc<PackSummary>) {
        let bytes = cost(summary);
        if shard.young_bytes + bytes > self.half {
            shard.old = std::mem::take(&mut shard.young);
            shard.young_bytes = 0;
        }
        if shard.young.insert(ordinal, Arc::clone(summary)).is_none() {
            shard.young_bytes += bytes;
        }
    }

    /// Bytes held now.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let held = |shard: &Generations| shard.young.values().chain(shard.old.values()).map(|s| cost(s)).sum::<usize>();
        self.shards.iter().map(|shard| held(&lock(shard))).sum()
    }
}

/// About what a summary occupies, with its share of the map.
fn cost(summary: &PackSummary) -> usize {
    128 + summary.header.len() + summary.frames.len() * size_of::<FrameEntry>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_keeps_to_its_budget_and_keeps_what_is_used() {
        let cache = PackCache::new(64 << 10);
        let summary =
            Arc::new(PackSummary { epoch: 1, id: ObjectId([1; 32]), size: 9, header: vec![0; 100], frames: Vec::new() });
        for ordinal in 0..10_000 {
            cache.put(ordinal, &summary);
            cache.put(3, &summary);
            assert!(cache.get(3).is_some());
        }
        assert!(cache.bytes() <= 64 << 10);
        assert!(cache.get(9_999).is_some());
        assert!(cache.get(1_000).is_none());
    }
}
