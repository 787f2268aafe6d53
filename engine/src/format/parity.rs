//! Parity objects as bytes: whose parity they hold, hashes of all shards, and the shards that were added.
//!
//! Nothing in here is secret or authentic: hashes find damage by accident. What is rebuilt from parity has to be held
//! against the name of the object, or opened, like anything else from a store.

use super::ObjectKind;
use super::object::{FormatError, HEADER_LEN, Header, u32_of};
use super::pack::MAX_PACK;
use crate::id::{Epoch, ObjectId, RepoId};

/// Largest shard in bytes.
pub const MAX_SHARD: usize = 64 << 10;
/// The size of a shard is a multiple of this.
pub const SHARD_STEP: usize = 64;
/// Most objects in a group.
pub const MAX_MEMBERS: usize = 32;
/// Length of the hash of a shard in bytes.
pub const HASH_LEN: usize = 16;
/// Most shards that are listed: a full group of the largest packs, with as much parity again.
pub const MAX_SHARDS: usize = 2 * MAX_MEMBERS * 4096;

const LEAD_LEN: usize = 16;
const MEMBER_LEN: usize = 56;
const CHECK_LEN: usize = 20;
/// Where the header ends that the check covers.
const CHECK_AT: usize = HEADER_LEN - CHECK_LEN;

/// Hash of a shard.
pub type ShardHash = [u8; HASH_LEN];

/// The hash of a shard: of its bytes, filled up with zeros to `size`.
#[must_use]
pub fn shard_hash(bytes: &[u8], size: usize) -> ShardHash {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes);
    let mut missing = size.saturating_sub(bytes.len());
    while missing > 0 {
        let some = missing.min(ZEROS.len());
        hasher.update(&ZEROS[..some]);
        missing -= some;
    }
    let mut out = [0; HASH_LEN];
    hasher.finalize_xof().fill(&mut out);
    out
}

/// How data shards make up codewords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Layout {
    /// All shards of one object are one codeword.
    Inside = 1,
    /// The shards of the same number of all objects are one codeword, shards of zeros where an object is shorter.
    Across = 2,
}

/// An object that is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its kind.
    pub kind: ObjectKind,
    /// The epoch in its name; 0 for those without one.
    pub epoch: Epoch,
    /// Size in bytes.
    pub size: u64,
    /// Hash of its bytes.
    pub id: ObjectId,
}

/// What a parity object says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Repository it belongs to.
    pub repo: RepoId,
    /// Epoch of the object itself.
    pub epoch: Epoch,
    /// How codewords are made up.
    pub layout: Layout,
    /// Size of a shard in bytes.
    pub shard: usize,
    /// Parity shards of each codeword.
    pub parity: usize,
    /// What is protected.
    pub members: Vec<Member>,
    /// Hash of the list of hashes.
    list: [u8; 32],
}

/// Fields of a [`Table`] that a writer chooses.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Repository it belongs to.
    pub repo: RepoId,
    /// Epoch of the object itself.
    pub epoch: Epoch,
    /// How codewords are made up.
    pub layout: Layout,
    /// Size of a shard in bytes.
    pub shard: usize,
    /// Parity shards of each codeword.
    pub parity: usize,
    /// What is protected.
    pub members: Vec<Member>,
}

/// The whole object: `hashes` of the members' shards and then of the parity `shards`, which come codeword by codeword.
///
/// # Errors
///
/// If that is beyond the limits, or the numbers do not fit together.
pub fn assemble(plan: Plan, hashes: &[ShardHash], shards: &[u8]) -> Result<Vec<u8>, FormatError> {
    let list = hashes.concat();
    let Plan { repo, epoch, layout, shard, parity, members } = plan;
    let table = Table { repo, epoch, layout, shard, parity, members, list: ObjectId::of(&list).0 };
    table.check()?;
    if table.listed() != hashes.len() || table.codewords() * parity * shard != shards.len() {
        return Err(FormatError::Malformed("shards of another number than the members call for".into()));
    }
    let (header, bytes) = table.to_bytes()?;
    let mut out = Vec::with_capacity(2 * (HEADER_LEN + bytes.len() + list.len()) + shards.len());
    for part in [&header[..], &bytes, &list, shards, &list, &bytes, &header] {
        out.extend_from_slice(part);
    }
    Ok(out)
}

/// The length of the table, by either of the two headers of a parity object.
///
/// # Errors
///
/// If this is no such header.
pub fn table_len(header: &[u8]) -> Result<usize, FormatError> {
    Header::parse(header, ObjectKind::Parity)?;
    let field = header.get(40..44).and_then(|b| b.try_into().ok()).unwrap_or_default();
    let length = usize::try_from(u32::from_le_bytes(field)).unwrap_or(usize::MAX);
    let most = LEAD_LEN + MAX_MEMBERS * MEMBER_LEN + ObjectId::LEN;
    if length > most { Err(FormatError::Size(length)) } else { Ok(length) }
}

impl Table {
    /// Reads a table by either of the two headers.
    ///
    /// # Errors
    ///
    /// If it is damaged, or breaks the rules of the format.
    pub fn parse(header: &[u8], bytes: &[u8]) -> Result<Self, FormatError> {
        let parsed = Header::parse(header, ObjectKind::Parity)?;
        let (head, rest) = header.split_at_checked(CHECK_AT).ok_or(FormatError::Size(header.len()))?;
        if table_len(header)? != bytes.len() || rest.get(..CHECK_LEN) != Some(&check(head, bytes)[..]) {
            return Err(FormatError::NotAuthentic);
        }
        let malformed = |what: &str| FormatError::Malformed(what.into());
        let (lead, rest) = bytes.split_at_checked(LEAD_LEN).ok_or(FormatError::Size(bytes.len()))?;
        let word = |at: usize| {
            let field = lead.get(at..at + 4).and_then(|b| b.try_into().ok()).unwrap_or_default();
            usize::try_from(u32::from_le_bytes(field)).unwrap_or(usize::MAX)
        };
        let layout = match lead.first() {
            Some(1) => Layout::Inside,
            Some(2) => Layout::Across,
            _ => return Err(malformed("unknown layout of parity")),
        };
        if lead.get(1..4) != Some(&[0; 3]) {
            return Err(FormatError::Reserved);
        }
        let (members, list) = rest.split_at_checked(rest.len().saturating_sub(ObjectId::LEN)).unwrap_or_default();
        if word(12).checked_mul(MEMBER_LEN) != Some(members.len()) {
            return Err(malformed("a table of another length than its members call for"));
        }
        let table = Self {
            repo: parsed.repo,
            epoch: parsed.epoch,
            layout,
            shard: word(4),
            parity: word(8),
            members: members.chunks_exact(MEMBER_LEN).map(Member::parse).collect::<Result<_, _>>()?,
            list: list.try_into().map_err(|_| FormatError::Size(bytes.len()))?,
        };
        table.check()?;
        Ok(table)
    }

    fn check(&self) -> Result<(), FormatError> {
        let malformed = |what: &str| Err(FormatError::Malformed(what.into()));
        if self.shard == 0 || self.shard > MAX_SHARD || !self.shard.is_multiple_of(SHARD_STEP) {
            return malformed("a shard of an impossible size");
        }
        let count = self.members.len();
        if count == 0 || count > MAX_MEMBERS || (self.layout == Layout::Inside && count != 1) {
            return malformed("an impossible number of protected objects");
        }
        if self.members.iter().any(|member| member.size == 0 || member.size > MAX_PACK) {
            return malformed("a protected object of an impossible size");
        }
        if self.parity == 0 || self.parity > self.data_per_codeword() || self.listed() > MAX_SHARDS {
            return malformed("an impossible amount of parity");
        }
        Ok(())
    }

    fn to_bytes(&self) -> Result<([u8; HEADER_LEN], Vec<u8>), FormatError> {
        let mut bytes = vec![self.layout as u8, 0, 0, 0];
        for number in [self.shard, self.parity, self.members.len()] {
            bytes.extend_from_slice(&u32_of(number)?.to_le_bytes());
        }
        for member in &self.members {
            bytes.extend_from_slice(&[member.kind as u8, 0, 0, 0, 0, 0, 0, 0]);
            bytes.extend_from_slice(&member.epoch.to_le_bytes());
            bytes.extend_from_slice(&member.size.to_le_bytes());
            bytes.extend_from_slice(&member.id.0);
        }
        bytes.extend_from_slice(&self.list);
        let header = Header { kind: ObjectKind::Parity, repo: self.repo, epoch: self.epoch, nonce: [0; 24] };
        let mut header = header.to_bytes();
        header[40..CHECK_AT].copy_from_slice(&u32_of(bytes.len())?.to_le_bytes());
        let check = check(&header[..CHECK_AT], &bytes);
        header[CHECK_AT..].copy_from_slice(&check);
        Ok((header, bytes))
    }

    /// Length of the table in bytes.
    fn len(&self) -> usize {
        LEAD_LEN + self.members.len() * MEMBER_LEN + ObjectId::LEN
    }

    /// Shards of a member.
    #[must_use]
    pub fn shards_of(&self, member: &Member) -> usize {
        usize::try_from(member.size.div_ceil(self.shard as u64)).unwrap_or(usize::MAX)
    }

    /// Shards of all members, and of the longest one.
    fn shards(&self) -> (usize, usize) {
        let counts = self.members.iter().map(|member| self.shards_of(member));
        counts.fold((0, 0), |(sum, most), count| (sum + count, most.max(count)))
    }

    /// How many codewords there are.
    #[must_use]
    pub fn codewords(&self) -> usize {
        match self.layout {
            Layout::Inside => 1,
            Layout::Across => self.shards().1,
        }
    }

    /// Data shards of each codeword.
    #[must_use]
    pub fn data_per_codeword(&self) -> usize {
        match self.layout {
            Layout::Inside => self.shards().1,
            Layout::Across => self.members.len(),
        }
    }

    /// Shards that the list has hashes of.
    #[must_use]
    pub fn listed(&self) -> usize {
        self.shards().0.saturating_add(self.codewords().saturating_mul(self.parity))
    }

    /// Where the list stands in the object.
    #[must_use]
    pub fn list_at(&self) -> u64 {
        (HEADER_LEN + self.len()) as u64
    }

    /// Length of the list in bytes.
    #[must_use]
    pub fn list_len(&self) -> usize {
        self.listed() * HASH_LEN
    }

    /// Where the parity shards begin in the object.
    #[must_use]
    pub fn shards_at(&self) -> u64 {
        self.list_at() + self.list_len() as u64
    }

    /// The size of the object.
    #[must_use]
    pub fn object_size(&self) -> u64 {
        2 * self.shards_at() + (self.codewords() * self.parity * self.shard) as u64
    }

    /// The size of the parity object inside of one object with so many data shards.
    #[must_use]
    pub fn size_inside(shard: usize, data: usize, parity: usize) -> u64 {
        let copy = HEADER_LEN + LEAD_LEN + MEMBER_LEN + ObjectId::LEN + (data + parity) * HASH_LEN;
        (2 * copy + parity * shard) as u64
    }

    /// Reads the list of hashes: of each member's shards, then of the parity shards.
    ///
    /// # Errors
    ///
    /// If it is damaged.
    pub fn parse_list(&self, bytes: &[u8]) -> Result<Vec<ShardHash>, FormatError> {
        if bytes.len() != self.list_len() {
            return Err(FormatError::Size(bytes.len()));
        }
        if ObjectId::of(bytes).0 != self.list {
            return Err(FormatError::NotAuthentic);
        }
        Ok(bytes.as_chunks().0.to_vec())
    }
}

impl Member {
    fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let number = |at: usize| {
            let field = bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).unwrap_or_default();
            u64::from_le_bytes(field)
        };
        if bytes.get(1..8) != Some(&[0; 7]) {
            return Err(FormatError::Reserved);
        }
        let kind = bytes.first().copied().and_then(ObjectKind::from_byte);
        let kind = kind.filter(|kind| !matches!(kind, ObjectKind::Session | ObjectKind::Parity));
        Ok(Self {
            kind: kind.ok_or_else(|| FormatError::Malformed("parity of an object that has none".into()))?,
            epoch: number(8),
            size: number(16),
            id: bytes.get(24..).and_then(ObjectId::from_slice).ok_or(FormatError::Size(bytes.len()))?,
        })
    }
}

fn check(head: &[u8], table: &[u8]) -> [u8; CHECK_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head).update(table);
    let mut out = [0; CHECK_LEN];
    hasher.finalize_xof().fill(&mut out);
    out
}

#[cfg(test)]
mod tests;
