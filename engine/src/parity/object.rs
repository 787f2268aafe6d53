//! Reading parity objects, damaged ones among them: the table stands at both ends.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::format::object::{FormatError, HEADER_LEN};
use crate::format::parity::{self, HASH_LEN, ShardHash, Table, shard_hash};

/// Reads bytes of an object from an offset.
type Fetch<'a> = &'a dyn Fn(u64, usize) -> Result<Bytes>;

/// A parity object of which at least one end is as it was made.
#[derive(Debug)]
pub struct Parity {
    /// What it says of itself.
    pub table: Table,
    hashes: Vec<ShardHash>,
    /// Where its shards begin.
    shards_at: u64,
}

/// The end that a table stands at.
#[derive(Clone, Copy)]
enum End {
    Front,
    Back,
}

impl End {
    /// The offset of what lies so far from this end.
    fn offset(self, size: u64, distance: u64, length: usize) -> Option<u64> {
        match self {
            Self::Front => Some(distance).filter(|_| distance.checked_add(length as u64).is_some_and(|end| end <= size)),
            Self::Back => size.checked_sub(distance)?.checked_sub(length as u64),
        }
    }
}

/// Reads from one end.
struct Source<'a> {
    size: u64,
    fetch: Fetch<'a>,
}

impl Source<'_> {
    fn get(&self, end: End, distance: u64, length: usize) -> Result<Bytes> {
        match end.offset(self.size, distance, length) {
            Some(offset) => (self.fetch)(offset, length),
            None => Err(Error::damaged("parity", "too short")),
        }
    }

    fn table(&self, end: End) -> Result<Table> {
        let malformed = |e: FormatError| Error::damaged("parity", e);
        let header = self.get(end, 0, HEADER_LEN)?;
        let length = parity::table_len(&header).map_err(malformed)?;
        Table::parse(&header, &self.get(end, HEADER_LEN as u64, length)?).map_err(malformed)
    }

    fn parity(&self, end: End) -> Result<Parity> {
        let table = self.table(end)?;
        let list = self.get(end, table.list_at(), table.list_len())?;
        let hashes = table.parse_list(&list).map_err(|e| Error::damaged("parity", e))?;
        let all = usize::try_from(table.object_size() - 2 * table.shards_at()).unwrap_or(usize::MAX);
        let shards_at = match end {
            End::Front => Some(table.shards_at()),
            End::Back => end.offset(self.size, table.shards_at(), all),
        };
        let shards_at = shards_at.ok_or_else(|| Error::damaged("parity", "too short"))?;
        Ok(Parity { table, hashes, shards_at })
    }
}

/// Does `read` from the front, or else from the back.
fn from_either<T>(read: impl Fn(End) -> Result<T>) -> Result<T> {
    match read(End::Front) {
        Err(error) if error.is_local() => read(End::Back),
        result => result,
    }
}

/// What a parity object says of itself, without the hashes of its shards: at most 2 KiB are read.
///
/// # Errors
///
/// [`Error::Damaged`] if neither end is as it was made; what `fetch` returns.
pub(super) fn read_table(size: u64, fetch: Fetch<'_>) -> Result<Table> {
    from_either(|end| Source { size, fetch }.table(end))
}

impl Parity {
    /// Reads all but the shards of a parity object of `size` bytes.
    ///
    /// # Errors
    ///
    /// As [`read_table`].
    pub(super) fn read(size: u64, fetch: Fetch<'_>) -> Result<Self> {
        from_either(|end| Source { size, fetch }.parity(end))
    }

    /// Reads one that is in memory.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if neither end is as it was made.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let fetch = |offset: u64, length: usize| {
            let start = usize::try_from(offset).ok();
            let part = start.and_then(|start| bytes.get(start..start.checked_add(length)?));
            part.map(Bytes::copy_from_slice).ok_or_else(|| Error::damaged("parity", "too short"))
        };
        Self::read(bytes.len() as u64, &fetch)
    }

    /// The hash of a shard of a member.
    pub(super) fn data_hash(&self, member: usize, shard: usize) -> Option<&ShardHash> {
        let before: usize = self.table.members.iter().take(member).map(|m| self.table.shards_of(m)).sum();
        let own = self.table.shards_of(self.table.members.get(member)?);
        self.hashes.get(before + shard).filter(|_| shard < own)
    }

    /// The hash of a parity shard, counted over all codewords.
    pub(super) fn parity_hash(&self, number: usize) -> Option<&ShardHash> {
        let first = self.hashes.len() - self.table.codewords() * self.table.parity;
        self.hashes.get(first + number)
    }

    /// Where a parity shard stands.
    pub(super) fn parity_at(&self, number: usize) -> u64 {
        self.shards_at + (number * self.table.shard) as u64
    }

    /// The bytes of a data shard, if they are those that it was made of.
    pub(super) fn good<'a>(&self, bytes: &'a [u8], hash: Option<&ShardHash>) -> Option<&'a [u8]> {
        (Some(&shard_hash(bytes, self.table.shard)) == hash).then_some(bytes)
    }
}

/// Whether every byte of a parity object is as it was made.
#[must_use]
pub fn is_whole(bytes: &[u8]) -> bool {
    let Ok(parity) = Parity::parse(bytes) else { return false };
    let table = &parity.table;
    let Ok(copy) = usize::try_from(table.shards_at()) else { return false };
    if table.object_size() != bytes.len() as u64 || parity.shards_at != table.shards_at() {
        return false;
    }
    let (header, table_len) = (HEADER_LEN, copy - HEADER_LEN - table.list_len());
    debug_assert_eq!(parity.hashes.len() * HASH_LEN, table.list_len());
    let from_end = |distance: usize, length: usize| bytes.get(bytes.len() - distance - length..bytes.len() - distance);
    let copies_agree = bytes.get(..header) == from_end(0, header)
        && bytes.get(header..header + table_len) == from_end(header, table_len)
        && bytes.get(header + table_len..copy) == from_end(header + table_len, table.list_len());
    let shards = bytes.get(copy..bytes.len() - copy).unwrap_or_default().chunks_exact(table.shard);
    copies_agree && shards.enumerate().all(|(n, shard)| parity.good(shard, parity.parity_hash(n)).is_some())
}
