//! Nodes of catalogs as bytes: leaves and inner nodes.

use std::sync::Arc;

use minicbor::Decoder;

use super::cbor::{self, CborError, EncodeResult, Out, required};
use super::config::checked_timestamp;
use crate::entry::{Content, Entry, Hole, Kind, MAX_XATTR_NAME, MAX_XATTR_VALUE, MAX_XATTRS, Metadata, Owner, Timestamp};
use crate::id::BlobId;
use crate::path::{EntryPath, MAX_PATH, compare_bytes};

/// Largest node in bytes.
pub const MAX_NODE: usize = 8 << 20;
/// Most levels above the leaves of a catalog, and above the data in a blob list.
pub const MAX_HEIGHT: u8 = 16;
/// Files of at most this many blobs list them in their entry; longer lists are trees.
pub const MAX_INLINE_BLOBS: usize = 32;
/// Most holes kept for one file.
pub const MAX_HOLES: usize = 4096;

/// A child of an inner node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Path of the last entry below the child.
    pub last: EntryPath,
    /// The child node.
    pub id: BlobId,
    /// Entries below it.
    pub entries: u64,
}

/// A node of a catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Entries in order.
    Leaf(Vec<Entry>),
    /// Children in order; `level` 1 stands right above leaves.
    Inner {
        /// Distance from the leaves.
        level: u8,
        /// Children.
        children: Vec<Child>,
    },
}

/// Builds a leaf entry by entry. Paths are shortened by what they share with the one before; owners are listed once.
#[derive(Clone, Default)]
pub struct LeafBuilder {
    owners: Vec<Arc<Owner>>,
    body: Vec<u8>,
    entries: u64,
    last: Vec<u8>,
}

impl LeafBuilder {
    /// Adds an entry, which must sort after the one before.
    pub fn push(&mut self, entry: &Entry) {
        let owner = self.owner_index(&entry.meta.owner);
        let path = entry.path.as_bytes();
        let shared = self.last.iter().zip(path).take_while(|(a, b)| a == b).count();
        cbor::encode_into(&mut self.body, |e| put_entry(e, entry, shared, owner));
        self.last.clear();
        self.last.extend_from_slice(path);
        self.entries += 1;
    }

    fn owner_index(&mut self, owner: &Arc<Owner>) -> u64 {
        let known = self.owners.iter().rposition(|o| Arc::ptr_eq(o, owner) || o == owner);
        let index = known.unwrap_or_else(|| {
            self.owners.push(Arc::clone(owner));
            self.owners.len() - 1
        });
        index as u64
    }

    /// Entries so far.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Encoded bytes so far.
    #[must_use]
    pub fn size(&self) -> usize {
        self.body.len()
    }

    /// The node's bytes; the builder is empty afterwards.
    pub fn take(&mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.body.len() + 64);
        cbor::encode_into(&mut out, |e| {
            e.map(3)?.u8(0)?.u8(0)?.u8(1)?.array(self.owners.len() as u64)?;
            for owner in &self.owners {
                e.array(4)?.u32(owner.uid)?.u32(owner.gid)?;
                put_name(e, owner.user.as_deref())?;
                put_name(e, owner.group.as_deref())?;
            }
            e.u8(2)?.array(self.entries)?;
            Ok(())
        });
        out.extend_from_slice(&self.body);
        self.owners.clear();
        self.body.clear();
        self.last.clear();
        self.entries = 0;
        out
    }
}

fn put_name(e: &mut Out<'_>, name: Option<&str>) -> EncodeResult {
    match name {
        Some(name) => e.str(name)?,
        None => e.null()?,
    };
    Ok(())
}

/// Fields that an entry has; absent ones are left out.
fn field_count(entry: &Entry, shared: usize, owner: u64) -> u64 {
    let m = &entry.meta;
    let content = match &entry.content {
        Content::Empty => 0,
        Content::Blobs(_) => 1,
        Content::Tree { .. } => 2,
    };
    let special = match entry.kind {
        Kind::File | Kind::Directory | Kind::Fifo => 0,
        Kind::Symlink(_) | Kind::CharDevice(..) | Kind::BlockDevice(..) => 1,
    };
    let flags = [
        shared != 0,
        owner != 0,
        m.mtime.nanos != 0,
        m.ctime.seconds != m.mtime.seconds,
        m.ctime.nanos != m.mtime.nanos,
        m.device != 0,
        m.links != 1,
        entry.size != 0,
        !entry.xattrs.is_empty(),
        !entry.holes.is_empty(),
    ];
    5 + content + special + flags.iter().map(|f| u64::from(*f)).sum::<u64>()
}

fn put_entry(e: &mut Out<'_>, entry: &Entry, shared: usize, owner: u64) -> EncodeResult {
    let m = &entry.meta;
    e.map(field_count(entry, shared, owner))?;
    if shared != 0 {
        e.u8(0)?.u64(shared as u64)?;
    }
    e.u8(1)?.bytes(entry.path.as_bytes().get(shared..).unwrap_or_default())?;
    e.u8(2)?.u8(kind_number(&entry.kind))?.u8(3)?.u32(m.mode)?;
    if owner != 0 {
        e.u8(4)?.u64(owner)?;
    }
    put_times(e, m)?;
    e.u8(9)?.u64(m.inode)?;
    for (field, value, default) in [(10, m.device, 0), (11, m.links, 1), (12, entry.size, 0)] {
        if value != default {
            e.u8(field)?.u64(value)?;
        }
    }
    put_content(e, &entry.content)?;
    match &entry.kind {
        Kind::Symlink(target) => e.u8(16)?.bytes(target)?,
        Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => e.u8(17)?.array(2)?.u32(*major)?.u32(*minor)?,
        Kind::File | Kind::Directory | Kind::Fifo => e,
    };
    if !entry.xattrs.is_empty() {
        e.u8(18)?.array(entry.xattrs.len() as u64)?;
        for (name, value) in &entry.xattrs {
            e.array(2)?.bytes(name)?.bytes(value)?;
        }
    }
    if !entry.holes.is_empty() {
        e.u8(19)?.array(entry.holes.len() as u64 * 2)?;
        for hole in &entry.holes {
            e.u64(hole.offset)?.u64(hole.length)?;
        }
    }
    Ok(())
}

fn put_times(e: &mut Out<'_>, m: &Metadata) -> EncodeResult {
    e.u8(5)?.i64(m.mtime.seconds)?;
    if m.mtime.nanos != 0 {
        e.u8(6)?.u32(m.mtime.nanos)?;
    }
    if m.ctime.seconds != m.mtime.seconds {
        e.u8(7)?.i64(m.ctime.seconds)?;
    }
    if m.ctime.nanos != m.mtime.nanos {
        e.u8(8)?.u32(m.ctime.nanos)?;
    }
    Ok(())
}

fn put_content(e: &mut Out<'_>, content: &Content) -> EncodeResult {
    match content {
        Content::Empty => {}
        Content::Blobs(ids) => {
            e.u8(13)?.bytes_len(ids.len() as u64 * 32)?;
            for id in ids {
                e.writer_mut().extend_from_slice(&id.0);
            }
        }
        Content::Tree { root, height } => {
            e.u8(14)?.bytes(&root.0)?.u8(15)?.u8(*height)?;
        }
    }
    Ok(())
}

fn kind_number(kind: &Kind) -> u8 {
    match kind {
        Kind::File => 0,
        Kind::Directory => 1,
        Kind::Symlink(_) => 2,
        Kind::Fifo => 3,
        Kind::CharDevice(..) => 4,
        Kind::BlockDevice(..) => 5,
    }
}

/// Encodes an inner node.
#[must_use]
pub fn encode_inner(level: u8, children: &[Child]) -> Vec<u8> {
    cbor::encode(|e| {
        e.map(3)?.u8(0)?.u8(1)?.u8(1)?.u8(level)?.u8(2)?.array(children.len() as u64)?;
        for child in children {
            e.array(3)?.bytes(child.last.as_bytes())?.bytes(&child.id.0)?.u64(child.entries)?;
        }
        Ok(())
    })
}

impl Node {
    /// Reads and checks a node of a catalog: entries or children in strict order, everything within bounds.
    pub fn parse(bytes: &[u8]) -> cbor::Result<Self> {
        if bytes.len() > MAX_NODE {
            return Err(CborError::Invalid("node too large"));
        }
        let mut d = Decoder::new(bytes);
        let (mut kind, mut owners, mut level, mut entries, mut children) = (None, Vec::new(), None, None, None);
        cbor::map(&mut d, |field, d| {
            match (field, kind) {
                (0, None) => kind = Some(d.u8()?),
                (1, Some(0)) => owners = cbor::array(d, get_owner)?,
                (2, Some(0)) => entries = Some(get_entries(d, &owners)?),
                (1, Some(1)) => level = Some(d.u8()?),
                (2, Some(1)) => children = Some(cbor::array(d, get_child)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        cbor::finish(&d)?;
        if let Some(entries) = entries {
            if entries.is_empty() {
                return Err(CborError::Invalid("an empty leaf"));
            }
            return Ok(Self::Leaf(entries));
        }
        let (level, children) = (required(level, 1)?, required(children, 2)?);
        if level == 0 || level > MAX_HEIGHT || children.is_empty() {
            return Err(CborError::Invalid("impossible inner node"));
        }
        if !children.is_sorted_by(|a, b| a.last < b.last) {
            return Err(CborError::Invalid("children out of order"));
        }
        Ok(Self::Inner { level, children })
    }
}

fn get_owner(d: &mut Decoder<'_>) -> cbor::Result<Arc<Owner>> {
    if d.array()? != Some(4) {
        return Err(CborError::Invalid("an owner has four fields"));
    }
    let (uid, gid) = (d.u32()?, d.u32()?);
    let name = |d: &mut Decoder<'_>| cbor::optional(d, |d| Ok(d.str()?.to_owned()));
    Ok(Arc::new(Owner { uid, gid, user: name(d)?, group: name(d)? }))
}

fn get_child(d: &mut Decoder<'_>) -> cbor::Result<Child> {
    if d.array()? != Some(3) {
        return Err(CborError::Invalid("a child has three fields"));
    }
    Ok(Child { last: get_path(d.bytes()?.to_vec())?, id: BlobId(cbor::fixed(d)?), entries: d.u64()? })
}

fn get_path(bytes: Vec<u8>) -> cbor::Result<EntryPath> {
    EntryPath::new(bytes).map_err(|_| CborError::Invalid("unsafe path"))
}

fn get_entries(d: &mut Decoder<'_>, owners: &[Arc<Owner>]) -> cbor::Result<Vec<Entry>> {
    let mut last: Option<Vec<u8>> = None;
    cbor::array(d, |d| {
        let entry = get_entry(d, owners, last.as_deref())?;
        last = Some(entry.path.as_bytes().to_vec());
        Ok(entry)
    })
}

/// Fields of an entry while it is read.
#[derive(Default)]
struct Raw<'b> {
    shared: usize,
    suffix: &'b [u8],
    kind: Option<u8>,
    mode: Option<u32>,
    owner: usize,
    mtime: (i64, u32),
    ctime: (Option<i64>, Option<u32>),
    inode: u64,
    device: u64,
    links: Option<u64>,
    size: u64,
    blobs: &'b [u8],
    tree: Option<BlobId>,
    height: u8,
    target: Option<&'b [u8]>,
    numbers: Option<(u32, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    holes: Vec<u64>,
}

impl<'b> Raw<'b> {
    fn read(d: &mut Decoder<'b>) -> cbor::Result<Self> {
        let mut raw = Self::default();
        cbor::map(d, |field, d| {
            match field {
                0 => raw.shared = usize::try_from(d.u64()?).map_err(|_| CborError::Invalid("path"))?,
                1 => raw.suffix = d.bytes()?,
                2 => raw.kind = Some(d.u8()?),
                3 => raw.mode = Some(d.u32()?),
                4 => raw.owner = usize::try_from(d.u64()?).map_err(|_| CborError::Invalid("owner"))?,
                5 => raw.mtime.0 = d.i64()?,
                6 => raw.mtime.1 = d.u32()?,
                7 => raw.ctime.0 = Some(d.i64()?),
                8 => raw.ctime.1 = Some(d.u32()?),
                9 => raw.inode = d.u64()?,
                10 => raw.device = d.u64()?,
                11 => raw.links = Some(d.u64()?),
                12 => raw.size = d.u64()?,
                13 => raw.blobs = d.bytes()?,
                14 => raw.tree = Some(BlobId(cbor::fixed(d)?)),
                15 => raw.height = d.u8()?,
                16 => raw.target = Some(d.bytes()?),
                17 => raw.numbers = Some(get_numbers(d)?),
                18 => raw.xattrs = get_xattrs(d)?,
                19 => raw.holes = cbor::array(d, |d| Ok(d.u64()?))?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(raw)
    }

    fn kind(&self) -> cbor::Result<Kind> {
        match (required(self.kind, 2)?, self.target, self.numbers) {
            (0, ..) => Ok(Kind::File),
            (1, ..) => Ok(Kind::Directory),
            (2, Some(target), _) if target.len() <= MAX_PATH && !target.contains(&0) => Ok(Kind::Symlink(target.to_vec())),
            (3, ..) => Ok(Kind::Fifo),
            (4, _, Some((major, minor))) => Ok(Kind::CharDevice(major, minor)),
            (5, _, Some((major, minor))) => Ok(Kind::BlockDevice(major, minor)),
            _ => Err(CborError::Invalid("impossible kind of entry")),
        }
    }

    fn content(&self) -> cbor::Result<Content> {
        match (self.tree, self.blobs) {
            (None, []) => Ok(Content::Empty),
            (None, ids) if ids.len() % 32 == 0 => {
                Ok(Content::Blobs(ids.as_chunks::<32>().0.iter().map(|id| BlobId(*id)).collect()))
            }
            (Some(root), []) if (1..=MAX_HEIGHT).contains(&self.height) => Ok(Content::Tree { root, height: self.height }),
            _ => Err(CborError::Invalid("impossible content")),
        }
    }

    fn holes(&self) -> cbor::Result<Vec<Hole>> {
        let bad = CborError::Invalid("holes overlap or lie outside of the file");
        let (pairs, rest) = self.holes.as_chunks::<2>();
        let mut end = 0;
        let mut out = Vec::with_capacity(pairs.len());
        for [offset, length] in pairs {
            let hole_end = offset.checked_add(*length).filter(|e| *e <= self.size);
            match hole_end {
                Some(hole_end) if *offset >= end && *length > 0 => end = hole_end,
                _ => return Err(bad),
            }
            out.push(Hole { offset: *offset, length: *length });
        }
        if rest.is_empty() && out.len() <= MAX_HOLES { Ok(out) } else { Err(bad) }
    }
}

fn get_entry(d: &mut Decoder<'_>, owners: &[Arc<Owner>], last: Option<&[u8]>) -> cbor::Result<Entry> {
    let raw = Raw::read(d)?;
    let mut path = last.unwrap_or_default().get(..raw.shared).ok_or(CborError::Invalid("path"))?.to_vec();
    path.extend_from_slice(raw.suffix);
    if last.is_some_and(|last| compare_bytes(last, &path).is_ge()) {
        return Err(CborError::Invalid("entries out of order"));
    }
    let (kind, content, holes) = (raw.kind()?, raw.content()?, raw.holes()?);
    if kind != Kind::File && (content != Content::Empty || !holes.is_empty() || raw.size != 0) {
        return Err(CborError::Invalid("content of something that is no file"));
    }
    let holes_size: u64 = holes.iter().map(|h| h.length).sum();
    if (raw.size == holes_size) != (content == Content::Empty) {
        return Err(CborError::Invalid("size and content contradict each other"));
    }
    let ctime = (raw.ctime.0.unwrap_or(raw.mtime.0), raw.ctime.1.unwrap_or(raw.mtime.1));
    let meta = Metadata {
        mode: required(raw.mode, 3)?,
        owner: Arc::clone(owners.get(raw.owner).ok_or(CborError::Invalid("owner"))?),
        mtime: time(raw.mtime)?,
        ctime: time(ctime)?,
        device: raw.device,
        inode: raw.inode,
        links: raw.links.unwrap_or(1),
    };
    if meta.mode > 0o7777 {
        return Err(CborError::Invalid("impossible mode"));
    }
    Ok(Entry { path: get_path(path)?, kind, meta, xattrs: raw.xattrs, size: raw.size, content, holes })
}

fn time((seconds, nanos): (i64, u32)) -> cbor::Result<Timestamp> {
    checked_timestamp(seconds, nanos)
}

fn get_numbers(d: &mut Decoder<'_>) -> cbor::Result<(u32, u32)> {
    match d.array()? {
        Some(2) => Ok((d.u32()?, d.u32()?)),
        _ => Err(CborError::Invalid("a device has two numbers")),
    }
}

fn get_xattrs(d: &mut Decoder<'_>) -> cbor::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut total = 0;
    cbor::array(d, |d| {
        if d.array()? != Some(2) {
            return Err(CborError::Invalid("an attribute is a pair"));
        }
        let (name, value) = (d.bytes()?, d.bytes()?);
        total += name.len() + value.len();
        if name.is_empty()
            || name.len() > MAX_XATTR_NAME
            || name.contains(&0)
            || value.len() > MAX_XATTR_VALUE
            || total > MAX_XATTRS
        {
            return Err(CborError::Invalid("impossible extended attribute"));
        }
        Ok((name.to_vec(), value.to_vec()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owner() -> impl Strategy<Value = Arc<Owner>> {
        (0_u32..3, 0_u32..3, proptest::option::of("[a-z]{1,3}"))
            .prop_map(|(uid, gid, user)| Arc::new(Owner { uid, gid, user, group: None }))
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::File),
            Just(Kind::Directory),
            Just(Kind::Fifo),
            proptest::collection::vec(1_u8..=255, 0..9).prop_map(Kind::Symlink),
            (any::<u32>(), any::<u32>()).prop_map(|(a, b)| Kind::CharDevice(a, b)),
            (any::<u32>(), any::<u32>()).prop_map(|(a, b)| Kind::BlockDevice(a, b)),
        ]
    }

    fn content() -> impl Strategy<Value = Content> {
        prop_oneof![
            Just(Content::Empty),
            proptest::collection::vec(any::<[u8; 32]>().prop_map(BlobId), 1..5).prop_map(Content::Blobs),
            (any::<[u8; 32]>(), 1_u8..5).prop_map(|(id, height)| Content::Tree { root: BlobId(id), height }),
        ]
    }

    prop_compose! {
        fn entry()(
            kind in kind(), content in content(), owner in owner(), mode in 0_u32..0o10000,
            times in any::<[i64; 2]>(), nanos in [0_u32..1_000_000_000, 0..1_000_000_000],
            numbers in any::<[u64; 3]>(), size in 1001_u64.., value in proptest::collection::vec(any::<u8>(), 0..20),
        ) -> Entry {
            let file = kind == Kind::File;
            let holes = vec![Hole { offset: 1, length: 5 }, Hole { offset: 900, length: 100 }];
            let size = if content == Content::Empty { 1000 } else { size };
            let mut holes = if file { holes } else { vec![] };
            if file && content == Content::Empty {
                holes = vec![Hole { offset: 0, length: 1000 }];
            }
            Entry {
                path: EntryPath::root(),
                meta: Metadata {
                    mode, owner,
                    mtime: Timestamp { seconds: times[0], nanos: nanos[0] },
                    ctime: Timestamp { seconds: times[1], nanos: nanos[1] },
                    device: numbers[0], inode: numbers[1], links: numbers[2],
                },
                xattrs: if value.is_empty() { vec![] } else { vec![(b"user.x".to_vec(), value)] },
                size: if file { size } else { 0 },
                content: if file { content } else { Content::Empty },
                holes,
                kind,
            }
        }
    }

    proptest! {
        #[test]
        fn leaves_round_trip(mut entries in proptest::collection::vec(entry(), 1..12), names in proptest::collection::btree_set("[a-c]{1,3}(/[a-c]{1,2})?", 12..13)) {
            let mut paths: Vec<EntryPath> = names.into_iter().map(|n| EntryPath::new(n).expect("valid")).collect();
            paths.sort();
            for (entry, path) in entries.iter_mut().zip(paths) {
                entry.path = path;
            }
            let mut builder = LeafBuilder::default();
            entries.iter().for_each(|e| builder.push(e));
            let bytes = builder.take();
            prop_assert_eq!(Node::parse(&bytes).expect("parses"), Node::Leaf(entries));
            for len in 0..bytes.len() {
                prop_assert!(Node::parse(&bytes[..len]).is_err());
            }
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Node::parse(&bytes);
            let _ = super::super::list::parse_list(&bytes, 1);
        }
    }

    #[test]
    fn order_and_safety_of_paths_are_checked() {
        let entry = |path: &str| Entry {
            path: EntryPath::new(path).expect("valid"),
            kind: Kind::File,
            meta: Metadata::default(),
            xattrs: vec![],
            size: 0,
            content: Content::Empty,
            holes: vec![],
        };
        let mut builder = LeafBuilder::default();
        builder.push(&entry("b"));
        builder.push(&entry("a"));
        assert!(Node::parse(&builder.take()).is_err());
        builder.push(&entry("ab"));
        let mut bytes = builder.take();
        let at = bytes.windows(2).position(|w| w == b"ab").expect("the name");
        bytes[at..at + 2].copy_from_slice(b"..");
        assert!(Node::parse(&bytes).is_err());
    }
}
