//! Parity across a group of objects: brings back a whole one, as long as the others are there.
//!
//! Everything is read in slices of all members at once, so that memory does not grow with their sizes; what is made, or
//! rebuilt, is in memory whole.

use bytes::Bytes;

use super::object::{Parity, read_table};
use super::{code, read_left, size_left};
use crate::backend::{Backend, ObjectKey};
use crate::error::{Error, Result};
use crate::format::parity::{self, Layout, MAX_SHARD, Member, Plan, Table, shard_hash};
use crate::id::{Epoch, ObjectId, RepoId};
use crate::names;
use crate::parallel;

/// Most objects in a group.
pub const MOST: usize = 20;
/// Shards of each member that are in memory at a time: 20 MiB for a full group.
const SHARDS_AT_ONCE: usize = 16;

/// How many objects share a parity object that is as large as the largest of them.
#[must_use]
pub fn members_for(percent: u8) -> usize {
    (100 / usize::from(percent.max(1))).clamp(1, MOST)
}

/// The parity object of a group, with one parity shard to each codeword.
///
/// # Errors
///
/// [`Error::Damaged`] with the name of a member that is not what its name says; if the store fails.
pub fn make(backend: &dyn Backend, repo: RepoId, epoch: Epoch, members: Vec<Member>) -> Result<Vec<u8>> {
    let sources = Sources { backend, members: &members, keys: keys(&members)?, left: None };
    let mut hashes = vec![Vec::new(); members.len()];
    let mut whole = vec![blake3::Hasher::new(); members.len()];
    let mut shards = Vec::new();
    let longest = members.iter().map(|m| m.size).max().unwrap_or(0);
    for at in (0..longest).step_by(SHARDS_AT_ONCE * MAX_SHARD) {
        let slices = sources.read(at, SHARDS_AT_ONCE * MAX_SHARD)?;
        for (member, bytes) in slices.bytes.iter().enumerate() {
            if let (Some(whole), Some(hashes)) = (whole.get_mut(member), hashes.get_mut(member)) {
                whole.update(bytes);
                hashes.extend(bytes.chunks(MAX_SHARD).map(|shard| shard_hash(shard, MAX_SHARD)));
            }
        }
        let codewords = slices.bytes.iter().map(|bytes| bytes.len().div_ceil(MAX_SHARD)).max().unwrap_or(0);
        for codeword in 0..codewords {
            let data: Vec<&[u8]> = (0..members.len()).map(|member| slices.shard(member, codeword, MAX_SHARD)).collect();
            shards.extend(code::encode(&data, 1, MAX_SHARD)?);
        }
    }
    for ((member, key), hasher) in members.iter().zip(&sources.keys).zip(&whole) {
        if hasher.finalize().as_bytes() != &member.id.0 {
            return Err(Error::damaged(key, "its bytes do not have the hash that its name says"));
        }
    }
    let mut hashes = hashes.concat();
    hashes.extend(shards.chunks_exact(MAX_SHARD).map(|shard| shard_hash(shard, MAX_SHARD)));
    let plan = Plan { repo, epoch, layout: Layout::Across, shard: MAX_SHARD, parity: 1, members };
    parity::assemble(plan, &hashes, &shards).map_err(|e| Error::damaged("new parity", e))
}

/// The parity object of a group as it was made, from its members; `None` if it cannot be told any more who they are.
///
/// # Errors
///
/// As [`make`].
pub fn remake(backend: &dyn Backend, object: &ObjectKey, size: u64) -> Result<Option<Vec<u8>>> {
    match table(backend, object, size)? {
        Some(Table { repo, epoch, members, .. }) => make(backend, repo, epoch, members).map(Some),
        None => Ok(None),
    }
}

/// Who is in a group, by its parity object; `None` if that cannot be told any more.
///
/// # Errors
///
/// If the store fails.
pub fn members(backend: &dyn Backend, object: &ObjectKey, size: u64) -> Result<Option<Vec<Member>>> {
    Ok(table(backend, object, size)?.map(|table| table.members))
}

fn table(backend: &dyn Backend, object: &ObjectKey, size: u64) -> Result<Option<Table>> {
    let fetch = |offset: u64, length: usize| backend.read_range(object, offset, length).map_err(Error::from);
    match read_table(size, &fetch) {
        Ok(table) => Ok(Some(table).filter(|table| table.layout == Layout::Across)),
        Err(error) if error.is_local() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Brings back the object `wanted` from what is left of the others, of itself, and of the parity; `None` if too little is.
/// It has the hash that the parity's table tells.
///
/// # Errors
///
/// If the store fails.
pub fn rebuild(backend: &dyn Backend, group: &ObjectKey, wanted: &ObjectKey) -> Result<Option<Bytes>> {
    let size = size_left(backend, group, u64::MAX)?;
    let fetch = |offset: u64, length: usize| backend.read_range(group, offset, length).map_err(Error::from);
    let parity = match Parity::read(size, &fetch) {
        Ok(parity) if parity.table.layout == Layout::Across => parity,
        Err(error) if !error.is_local() => return Err(error),
        _ => return Ok(None),
    };
    let members = &parity.table.members;
    let keys = keys(members)?;
    let Some(target) = keys.iter().position(|key| key == wanted) else { return Ok(None) };
    let Some(member) = members.get(target) else { return Ok(None) };
    let left = parallel::map(backend.concurrency(), &keys, |key| size_left(backend, key, u64::MAX));
    let sources = Sources { backend, members, keys, left: Some(left.into_iter().collect::<Result<_>>()?) };
    let mut whole = Vec::with_capacity(usize::try_from(member.size).unwrap_or(0));
    let shard = parity.table.shard;
    for at in (0..member.size).step_by(SHARDS_AT_ONCE * shard) {
        let first = usize::try_from(at / shard as u64).unwrap_or(usize::MAX);
        let slices = sources.read(at, SHARDS_AT_ONCE * shard)?;
        let count = parity.table.parity * SHARDS_AT_ONCE;
        let own = read_left(backend, group, size, parity.parity_at(first * parity.table.parity), count * shard)?;
        for codeword in first..parity.table.shards_of(member).min(first + SHARDS_AT_ONCE) {
            let Some(bytes) = one(&parity, &slices, &own, (first, codeword), target)? else { return Ok(None) };
            whole.extend(bytes);
        }
    }
    whole.truncate(usize::try_from(member.size).unwrap_or(usize::MAX));
    Ok((ObjectId::of(&whole) == member.id).then(|| whole.into()))
}

/// The shard of `target` in one codeword; `first` is the one at the start of the slices.
fn one(
    parity: &Parity,
    slices: &Slices,
    own: &[u8],
    (first, codeword): (usize, usize),
    target: usize,
) -> Result<Option<Vec<u8>>> {
    let table = &parity.table;
    let data: Vec<Option<&[u8]>> = table
        .members
        .iter()
        .enumerate()
        .map(|(number, member)| {
            if codeword >= table.shards_of(member) {
                return Some(&[][..]);
            }
            let bytes = slices.shard(number, codeword - first, table.shard);
            parity.good(bytes, parity.data_hash(number, codeword))
        })
        .collect();
    if let Some(Some(bytes)) = data.get(target) {
        let mut bytes = bytes.to_vec();
        bytes.resize(table.shard, 0);
        return Ok(Some(bytes));
    }
    let shards: Vec<Option<&[u8]>> = (0..table.parity)
        .map(|n| {
            let at = ((codeword - first) * table.parity + n) * table.shard;
            parity.good(own.get(at..at + table.shard)?, parity.parity_hash(codeword * table.parity + n))
        })
        .collect();
    let rebuilt = code::decode(&data, &shards, table.shard)?;
    Ok(rebuilt.and_then(|all| all.into_iter().find(|(number, _)| *number == target)).map(|(_, bytes)| bytes))
}

fn keys(members: &[Member]) -> Result<Vec<ObjectKey>> {
    let key = |member: &Member| names::protected(member.kind, member.epoch, &member.id);
    let keys: Option<Vec<_>> = members.iter().map(key).collect();
    keys.ok_or_else(|| Error::Invalid("parity of an object that has none".into()))
}

/// The members of a group in the store.
struct Sources<'a> {
    backend: &'a dyn Backend,
    members: &'a [Member],
    keys: Vec<ObjectKey>,
    /// What there is of each. Where this is given, zeros stand for what cannot be read; without, all has to be there.
    left: Option<Vec<u64>>,
}

impl Sources<'_> {
    /// So many bytes of each member from the same offset on, or as many as it has.
    fn read(&self, at: u64, length: usize) -> Result<Slices> {
        let numbers: Vec<usize> = (0..self.members.len()).collect();
        let read = parallel::map(self.backend.concurrency(), &numbers, |number| {
            let (Some(member), Some(key)) = (self.members.get(*number), self.keys.get(*number)) else { return Ok(Vec::new()) };
            let wanted = usize::try_from(member.size.saturating_sub(at).min(length as u64)).unwrap_or(usize::MAX);
            match &self.left {
                _ if wanted == 0 => Ok(Vec::new()),
                None => Ok(Vec::from(self.backend.read_range(key, at, wanted)?)),
                Some(left) => {
                    let left = left.get(*number).copied().unwrap_or(0).min(member.size);
                    read_left(self.backend, key, left, at, wanted)
                }
            }
        });
        Ok(Slices { bytes: read.into_iter().collect::<Result<_>>()? })
    }
}

/// The bytes of all members from the same offset on. They end early where an object does.
struct Slices {
    bytes: Vec<Vec<u8>>,
}

impl Slices {
    /// The shard of this number, counted from the start of the slices.
    fn shard(&self, member: usize, number: usize, size: usize) -> &[u8] {
        let bytes = self.bytes.get(member).map(Vec::as_slice).unwrap_or_default();
        let start = (number * size).min(bytes.len());
        bytes.get(start..bytes.len().min(start + size)).unwrap_or_default()
    }
}
