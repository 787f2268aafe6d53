//! Parity inside of one object.
//!
//! An object of up to 64 KiB is one shard, and its parity a copy. Of a larger one, as many shards of 64 KiB may be damaged or
//! missing as there are parity shards.

use bytes::Bytes;

use super::object::{Parity, is_whole};
use super::{code, read_whole, remains};
use crate::backend::{Backend, ObjectKey};
use crate::error::{Error, Result};
use crate::format::pack::MAX_PACK;
use crate::format::parity::{self, Layout, MAX_SHARD, Member, Plan, SHARD_STEP, Table, shard_hash};
use crate::id::{ObjectId, RepoId};
use crate::names::{self, Claim};

/// A parity object holds no more than the object, with 16 bytes of hash to each 64 KiB of both, and the tables.
const MAX_PARITY: u64 = MAX_PACK + (1 << 20);

/// Size of shards, and how many there are.
fn shape(size: u64) -> (usize, usize) {
    let shard = usize::try_from(size).unwrap_or(usize::MAX).min(MAX_SHARD).next_multiple_of(SHARD_STEP);
    (shard, usize::try_from(size.div_ceil(shard.max(1) as u64)).unwrap_or(usize::MAX))
}

/// Parity shards that go with an object of `size` bytes.
#[must_use]
pub fn count(size: u64, percent: u8) -> usize {
    let data = shape(size).1;
    data.saturating_mul(percent.into()).div_ceil(100).clamp(1, data.max(1))
}

/// The parity object, with `count` parity shards, for an object with these bytes; `None` if that is empty or too large to be
/// one of a repository.
///
/// # Errors
///
/// None that can happen: what the limits exclude is `None`.
pub fn make(repo: RepoId, claim: &Claim, bytes: &[u8], count: usize) -> Result<Option<Vec<u8>>> {
    let size = bytes.len() as u64;
    if size == 0 || size > MAX_PACK {
        return Ok(None);
    }
    let (shard, _) = shape(size);
    let data: Vec<&[u8]> = bytes.chunks(shard).collect();
    let shards = code::encode(&data, count, shard)?;
    let hashes: Vec<_> = data.into_iter().chain(shards.chunks_exact(shard)).map(|bytes| shard_hash(bytes, shard)).collect();
    let member = Member { kind: claim.kind, epoch: claim.epoch, size, id: claim.id.unwrap_or_else(|| ObjectId::of(bytes)) };
    let (epoch, layout) = (claim.epoch, Layout::Inside);
    let plan = Plan { repo, epoch, layout, shard, parity: count, members: vec![member] };
    parity::assemble(plan, &hashes, &shards).map(Some).map_err(|e| Error::damaged("new parity", e))
}

/// The size that the parity object of an object of `size` bytes has.
#[must_use]
pub fn expected_size(size: u64, percent: u8) -> u64 {
    let (shard, data) = shape(size);
    Table::size_inside(shard, data, count(size, percent))
}

/// What there is in the store to bring an object back.
#[derive(Debug)]
pub struct Found {
    bytes: Bytes,
    parity: Parity,
}

impl Found {
    /// Reads the parity object beside `object`; `None` if there is none, or nothing in it can be used.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub fn read(backend: &dyn Backend, object: &ObjectKey, claim: &Claim) -> Result<Option<Self>> {
        let name = names::parity_of(object);
        let bytes = match read_whole(backend, &name, MAX_PARITY) {
            Ok(None) => return Ok(None),
            Ok(Some(bytes)) => bytes,
            Err(error) if error.is_local() => Bytes::from(remains(backend, &name, MAX_PARITY)?),
            Err(error) => return Err(error),
        };
        let parity = match Parity::parse(&bytes) {
            Ok(parity) => parity,
            Err(error) if error.is_local() => return Ok(None),
            Err(error) => return Err(error),
        };
        let [member] = parity.table.members[..] else { return Ok(None) };
        let fits = parity.table.layout == Layout::Inside
            && (member.kind, member.epoch) == (claim.kind, claim.epoch)
            && claim.id.is_none_or(|id| id == member.id);
        Ok(fits.then_some(Self { bytes, parity }))
    }

    /// What the object is.
    #[must_use]
    pub fn member(&self) -> Member {
        // There is exactly one: `read` sees to that.
        self.parity.table.members[0]
    }

    /// Whether the parity object itself is as it was made.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        is_whole(&self.bytes)
    }

    /// Parity shards that it has.
    #[must_use]
    pub fn parity_shards(&self) -> usize {
        self.parity.table.parity
    }

    /// The object's bytes, from what is left of them; `None` if too little is. They have the hash that the table tells.
    ///
    /// # Errors
    ///
    /// None that can happen.
    pub fn rebuild(&self, remains: &[u8]) -> Result<Option<Bytes>> {
        let (member, table) = (self.member(), &self.parity.table);
        let size = usize::try_from(member.size).unwrap_or(usize::MAX);
        let mut out = remains.get(..size.min(remains.len())).unwrap_or_default().to_vec();
        out.resize(size, 0);
        let data: Vec<_> =
            out.chunks(table.shard).enumerate().map(|(n, bytes)| self.parity.good(bytes, self.parity.data_hash(0, n))).collect();
        let shards: Vec<_> = (0..table.parity)
            .map(|n| {
                let at = usize::try_from(self.parity.parity_at(n)).ok()?;
                let bytes = self.bytes.get(at..at.checked_add(table.shard)?)?;
                self.parity.good(bytes, self.parity.parity_hash(n))
            })
            .collect();
        let Some(rebuilt) = code::decode(&data, &shards, table.shard)? else { return Ok(None) };
        for (number, bytes) in rebuilt {
            let place = out.chunks_mut(table.shard).nth(number).unwrap_or_default();
            place.copy_from_slice(bytes.get(..place.len()).unwrap_or_default());
        }
        Ok((ObjectId::of(&out) == member.id).then(|| out.into()))
    }
}
