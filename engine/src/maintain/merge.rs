//! Merging of index segments: few of them, none with a pack that is to be deleted, each pack in one of them.

use std::collections::{HashMap, HashSet};

use super::repack::write_segment;
use crate::error::{Error, Result};
use crate::format::pack::{PackRecord, SegmentName};
use crate::id::Epoch;
use crate::protocol::Name;
use crate::repo::{Reader, load_segment};

/// Segments of fewer blobs are merged.
const SMALL_BLOBS: usize = 32 * 1024;
/// A merged segment ends when it has so many blobs.
const FULL_BLOBS: usize = 128 * 1024;

/// Segments that name every pack that `valid` names, but those in `deleted`. Those that are not in `valid` are stored under
/// `epoch`. The reader's index must hold exactly `valid`.
///
/// # Errors
///
/// What the store returns; [`Error::Damaged`] if a segment cannot be read.
pub(super) fn merge(reader: &Reader, epoch: Epoch, valid: &[SegmentName], deleted: &HashSet<Name>) -> Result<Vec<SegmentName>> {
    let mut names: HashMap<u32, Name> = HashMap::new();
    reader.index().packs(|ordinal, epoch, id, _| {
        names.insert(ordinal, (epoch, id));
    })?;
    let held: HashMap<SegmentName, Vec<u32>> = reader.index().segments()?.into_iter().collect();
    let mut expected: HashSet<Name> = HashSet::new();
    let (mut kept, mut small, mut spoilt) = (Vec::new(), Vec::new(), Vec::new());
    for segment in valid {
        let Some(ordinals) = held.get(segment) else {
            return Err(Error::Cache("it does not hold the segments that count".into()));
        };
        let packs: Vec<Name> = ordinals.iter().filter_map(|ordinal| names.get(ordinal)).copied().collect();
        if packs.len() != ordinals.len() {
            return Err(Error::Cache("it does not know all of its packs".into()));
        }
        expected.extend(packs.iter().filter(|pack| !deleted.contains(*pack)));
        let is_spoilt = packs.is_empty() || packs.iter().any(|pack| deleted.contains(pack));
        let list = if is_spoilt {
            &mut spoilt
        } else if blobs(reader, ordinals)? < SMALL_BLOBS {
            &mut small
        } else {
            &mut kept
        };
        list.push((*segment, packs));
    }
    // One small one alone stays as it is.
    if small.len() == 1 && spoilt.is_empty() {
        kept.append(&mut small);
    }
    let mut seen: HashSet<Name> = kept.iter().flat_map(|(_, packs)| packs).copied().collect();
    let mut result: Vec<SegmentName> = kept.into_iter().map(|(segment, _)| segment).collect();
    let mut open: Vec<PackRecord> = Vec::new();
    for (segment, _) in small.into_iter().chain(spoilt) {
        for pack in load_segment(reader.repo(), &segment)? {
            let name = (pack.epoch, pack.id);
            if !deleted.contains(&name) && seen.insert(name) {
                open.push(pack);
            }
        }
        if open.iter().map(|pack| pack.directory.blobs.len()).sum::<usize>() >= FULL_BLOBS {
            result.push(write_segment(reader, epoch, &std::mem::take(&mut open))?);
        }
    }
    if !open.is_empty() {
        result.push(write_segment(reader, epoch, &open)?);
    }
    if seen != expected {
        return Err(Error::damaged("index", "the merged segments would not name all packs; nothing is deleted"));
    }
    result.sort_unstable();
    Ok(result)
}

fn blobs(reader: &Reader, ordinals: &[u32]) -> Result<usize> {
    let mut sum = 0;
    for ordinal in ordinals {
        sum += reader.index().pack(*ordinal)?.frames.iter().map(|frame| frame.blobs as usize).sum::<usize>();
        if sum >= SMALL_BLOBS {
            break;
        }
    }
    Ok(sum)
}
