//! Entries: what a tree of files is made of, and how its content is named once stored.

use std::sync::Arc;
use std::time::Duration;

use crate::id::BlobId;
use crate::path::EntryPath;

/// Largest value of one extended attribute in bytes (Linux `XATTR_SIZE_MAX`).
pub const MAX_XATTR_VALUE: usize = 65536;
/// Longest name of an extended attribute in bytes (Linux `XATTR_NAME_MAX`).
pub const MAX_XATTR_NAME: usize = 255;
/// Largest sum of names and values of one entry's extended attributes in bytes.
pub const MAX_XATTRS: usize = 1 << 20;

/// A point in time as file systems keep it: seconds since 1970 (may be negative) and nanoseconds below 10^9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Whole seconds, rounded towards the past.
    pub seconds: i64,
    /// 0 to 999,999,999, counted forward from `seconds`.
    pub nanos: u32,
}

impl From<std::time::SystemTime> for Timestamp {
    /// 1970 for anything before.
    fn from(time: std::time::SystemTime) -> Self {
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link with its target text, kept as it is and never followed.
    Symlink(Vec<u8>),
    /// Named pipe.
    Fifo,
    /// Character device: major, minor.
    CharDevice(u32, u32),
    /// Block device: major, minor.
    BlockDevice(u32, u32),
}

/// Numeric and named owner. Shared, since a tree has few different ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// User name, if the machine knew one.
    pub user: Option<String>,
    /// Group name, if the machine knew one.
    pub group: Option<String>,
}

/// Extended attributes, sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// All metadata but the extended attributes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Permission bits with setuid, setgid and sticky (`mode & 0o7777`).
    pub mode: u32,
    /// Owner.
    pub owner: Arc<Owner>,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the inode; only used to notice changes.
    pub ctime: Timestamp,
    /// Device number of the file system, for hard links and change detection.
    pub device: u64,
    /// Inode number, for hard links and change detection.
    pub inode: u64,
    /// Number of hard links.
    pub links: u64,
}

/// A range of a sparse file without data; reads as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// First byte.
    pub offset: u64,
    /// Length in bytes, above zero.
    pub length: u64,
}

/// Where a file's data (its bytes without holes, end to end) is stored.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Content {
    /// No data.
    #[default]
    Empty,
    /// These blobs in order.
    Blobs(Vec<BlobId>),
    /// A tree of lists of blobs; `height` levels of list nodes lie above the data.
    Tree {
        /// The topmost list node.
        root: BlobId,
        /// 1 = the root lists data blobs.
        height: u8,
    },
}

/// One entry as the catalog keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is in the tree.
    pub path: EntryPath,
    /// What it is.
    pub kind: Kind,
    /// Its metadata.
    pub meta: Metadata,
    /// Its extended attributes, POSIX ACLs and capabilities among them.
    pub xattrs: Xattrs,
    /// Length of a regular file in bytes, holes included; 0 for all else.
    pub size: u64,
    /// Where the data is.
    pub content: Content,
    /// Holes in order, neither touching nor overlapping, within `size`.
    pub holes: Vec<Hole>,
}

impl Entry {
    /// Bytes that are stored as data: the size without the holes.
    #[must_use]
    pub fn data_size(&self) -> u64 {
        self.size.saturating_sub(self.holes.iter().map(|h| h.length).sum())
    }

    /// Whether this is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }
}

/// Size of a file that is a stream: nobody knows before its end.
pub const UNKNOWN_SIZE: u64 = u64::MAX;

/// What a source knows about an entry before its content is read.
pub struct SourceEntry {
    /// Where it is in the tree.
    pub path: EntryPath,
    /// What it is.
    pub kind: Kind,
    /// Its metadata.
    pub meta: Metadata,
    /// Length of a regular file in bytes as last seen; of a stream, anything.
    pub size: u64,
    /// The rest.
    pub content: SourceContent,
}

/// How a source gives the content and the extended attributes of an entry.
pub enum SourceContent {
    /// There are none.
    None,
    /// May be opened later, on any thread.
    Lazy(Box<dyn LazyEntry>),
    /// As [`Self::Lazy`], but the source cannot go on before the content was read, or the entry was dropped.
    Stream(Box<dyn LazyEntry>),
    /// A regular file whose content lies in this repository.
    Stored(Box<StoredContent>),
}

/// Content that lies in the repository already, and how to read it where that cannot be referred to any more.
pub struct StoredContent {
    /// Where the data is.
    pub content: Content,
    /// Length in bytes, holes included.
    pub size: u64,
    /// Holes in order.
    pub holes: Vec<Hole>,
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// The same as something to be read.
    pub lazy: Box<dyn LazyEntry>,
}

impl SourceContent {
    /// What there is to open, if anything.
    #[must_use]
    pub fn lazy(&self) -> Option<&dyn LazyEntry> {
        match self {
            Self::None => None,
            Self::Lazy(lazy) | Self::Stream(lazy) => Some(&**lazy),
            Self::Stored(stored) => Some(&*stored.lazy),
        }
    }
}

/// The parts of an entry that cost extra calls, fetched only where the entry has changed.
pub trait LazyEntry: Send + Sync {
    /// Extended attributes of an entry that is not a regular file.
    fn xattrs(&self) -> std::io::Result<Xattrs>;

    /// Opens a regular file, the one that was listed or another one that has taken its name since. Fails if there is none.
    fn open(&self) -> std::io::Result<Box<dyn OpenFile>>;

    /// How many files a thread may open before it reads the first of them. More than one where opening a file makes its
    /// content come already.
    fn open_at_once(&self) -> usize {
        1
    }
}

/// A regular file, open for reading.
pub trait OpenFile: Send {
    /// Extended attributes.
    fn xattrs(&self) -> std::io::Result<Xattrs>;

    /// Size and metadata as they are now (of the open file). The size of a stream is [`UNKNOWN_SIZE`] until its end is read.
    fn stat(&self) -> std::io::Result<(Metadata, u64)>;

    /// Holes in order, within `size`; to be asked before the first read. From then on, [`OpenFile::read`] passes them over.
    /// At most `limit` holes: the smallest count as data where a file has more.
    fn holes(&mut self, size: u64, limit: usize) -> std::io::Result<Vec<Hole>>;

    /// Reads the next data bytes; 0 at the end of the file. Fills the buffer except at the end or before a hole.
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize>;
}

/// A stream of entries, depth first, siblings by raw name bytes (the order of [`EntryPath`]), each path once and each
/// directory before its contents.
pub trait EntrySource {
    /// The next entry; `None` at the end. Trouble with single entries goes to the monitor, not into the error.
    fn next_entry(&mut self) -> Result<Option<SourceEntry>, crate::error::Error>;

    /// Waits up to `limit` for the next entry or the end to be at hand, and tells whether it is. A source whose entries
    /// depend on contents that it gave before being read, or on a network, implements this: between two calls those are
    /// read and the user may stop.
    fn wait(&mut self, limit: Duration) -> bool {
        let _ = limit;
        true
    }

    /// Entries that the source has had to leave out so far, and reported.
    fn lost(&self) -> u64 {
        0
    }
}
