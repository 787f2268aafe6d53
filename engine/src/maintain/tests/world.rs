//! A small repository in memory and trees to back up into it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::backend::Backend;
use crate::backend::fault::FaultBackend;
use crate::backend::mem::MemBackend;
use crate::backup::{self, BackupOptions, BackupOutcome};
use crate::catalog::CatalogReader;
use crate::check::{self, CheckLevel};
use crate::chunker::ChunkSizes;
use crate::codec::Level;
use crate::content::copy_to;
use crate::crypto::password::Cost;
use crate::entry::{EntrySource, Hole, Kind, LazyEntry, Metadata, OpenFile, SourceContent, SourceEntry, Timestamp, Xattrs};
use crate::error::Result;
use crate::maintain::{PruneOptions, PruneOutcome, prune};
use crate::monitor::{Collector, Monitor, Problem};
use crate::path::EntryPath;
use crate::repo::{InitOptions, Reader, Repository, SnapshotName, now};

/// Files by name.
pub(super) type Tree = BTreeMap<String, Vec<u8>>;

pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Files of noise: name, seed, length.
pub(super) fn tree(files: &[(&str, u64, usize)]) -> Tree {
    files.iter().map(|(name, seed, length)| ((*name).to_owned(), noise(*seed, *length))).collect()
}

#[derive(Clone)]
struct Content {
    bytes: Vec<u8>,
    at: usize,
}

fn meta(bytes: &[u8]) -> Metadata {
    // Old enough to be believed, and different for different content.
    let stamp = Timestamp { seconds: 1000 + i64::from(bytes.first().copied().unwrap_or(0)), nanos: 5 };
    Metadata { mode: 0o644, mtime: stamp, ctime: stamp, inode: 7, links: 1, ..Metadata::default() }
}

impl LazyEntry for Content {
    fn xattrs(&self) -> io::Result<Xattrs> {
        Ok(vec![])
    }
    fn open(&self) -> io::Result<Box<dyn OpenFile>> {
        Ok(Box::new(self.clone()))
    }
}

impl OpenFile for Content {
    fn xattrs(&self) -> io::Result<Xattrs> {
        Ok(vec![])
    }
    fn stat(&self) -> io::Result<(Metadata, u64)> {
        Ok((meta(&self.bytes), self.bytes.len() as u64))
    }
    fn holes(&mut self, _: u64, _: usize) -> io::Result<Vec<Hole>> {
        Ok(vec![])
    }
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = buffer.len().min(self.bytes.len() - self.at);
        buffer[..n].copy_from_slice(&self.bytes[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

struct Source(std::vec::IntoIter<SourceEntry>);

impl EntrySource for Source {
    fn next_entry(&mut self) -> Result<Option<SourceEntry>> {
        Ok(self.0.next())
    }
}

pub(super) fn source(tree: &Tree) -> Box<dyn EntrySource> {
    let mut entries: Vec<SourceEntry> = tree
        .iter()
        .map(|(path, bytes)| SourceEntry {
            path: EntryPath::new(path.as_str()).unwrap(),
            kind: Kind::File,
            meta: meta(bytes),
            size: bytes.len() as u64,
            content: SourceContent::Lazy(Box::new(Content { bytes: bytes.clone(), at: 0 })),
        })
        .collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Box::new(Source(entries.into_iter()))
}

/// A store and a repository on it.
#[derive(Clone)]
pub(super) struct World {
    pub(super) store: Arc<MemBackend>,
    pub(super) repo: Arc<Repository>,
}

/// Options that leave nothing unused and wait for nobody.
pub(super) fn thorough() -> PruneOptions {
    PruneOptions { max_unused: Some(0.0), now: true, ..PruneOptions::default() }
}

impl World {
    pub(super) fn new() -> Self {
        Self::create(&(Arc::new(MemBackend::new())), None).unwrap()
    }

    /// Makes a repository in `store`, through `fault` if there is one.
    pub(super) fn create(store: &Arc<MemBackend>, fault: Option<Arc<FaultBackend>>) -> Result<Self> {
        let backend: Arc<dyn Backend> = fault.map_or_else(|| Arc::clone(store) as _, |fault| fault as _);
        Ok(Self { store: Arc::clone(store), repo: Self::make(backend, &Self::options())? })
    }

    /// Small chunks, and a password that costs nothing.
    pub(super) fn options() -> InitOptions {
        let chunks = ChunkSizes { min: 1 << 10, average: 2 << 10, max: 8 << 10 };
        let cost = Cost { memory: 8, passes: 1, lanes: 1 };
        InitOptions { cost, chunks, pack_target: 1 << 20, ..InitOptions::default() }
    }

    /// Makes a repository.
    pub(super) fn make(backend: Arc<dyn Backend>, options: &InitOptions) -> Result<Arc<Repository>> {
        Ok(Arc::new(Repository::create(backend, b"x", options)?))
    }

    /// The same store through another door.
    pub(super) fn through(&self, backend: Arc<dyn Backend>) -> Result<Self> {
        Ok(Self { store: Arc::clone(&self.store), repo: Arc::new(Repository::open(backend, b"x")?) })
    }

    /// A copy of everything.
    pub(super) fn copy(&self) -> Self {
        let store = self.copy_store();
        let repo = Arc::new(Repository::open(Arc::clone(&store) as _, b"x").unwrap());
        Self { store, repo }
    }

    /// A copy of the store.
    pub(super) fn copy_store(&self) -> Arc<MemBackend> {
        let store = Arc::new(MemBackend::new());
        self.store.list("", &mut |meta| store.create(&meta.key, self.store.read(&meta.key, u64::MAX).unwrap()).unwrap()).unwrap();
        store
    }

    pub(super) fn backup(&self, tree: &Tree) -> Result<SnapshotName> {
        Ok(self.backup_from(&mut |_| Ok(source(tree)))?.snapshot.unwrap())
    }

    pub(super) fn backup_from(&self, source: &mut backup::Sources<'_>) -> Result<BackupOutcome> {
        let monitor: Arc<dyn Monitor> = Arc::new(Collector::default());
        let all = crate::snapshot::list(&self.repo, &self.repo.load_view(&*monitor)?, &*monitor)?;
        let options = BackupOptions {
            time: now(),
            host: "h".into(),
            user: "u".into(),
            paths: vec![b"/".to_vec()],
            tags: vec![],
            incomplete_tag: None,
            origin: None,
            program: "test".into(),
            level: Level::Zstd(1),
            parent: all.last().cloned(),
            dry_run: false,
            cache_dir: None,
        };
        backup::run(&self.repo, source, &options, &monitor)
    }

    pub(super) fn prune(&self, options: &PruneOptions) -> Result<PruneOutcome> {
        prune(&self.repo, options, &Collector::default(), &mut |_| {})
    }

    /// The files of a snapshot as stored.
    pub(super) fn contents(&self, name: &SnapshotName) -> Result<Tree> {
        let reader = Reader::open(Arc::clone(&self.repo), None, &Collector::default())?;
        read_tree(&reader, name)
    }

    pub(super) fn snapshots(&self) -> Vec<SnapshotName> {
        self.repo.load_view(&Collector::default()).unwrap().snapshots
    }

    /// Findings of a check that reads everything.
    pub(super) fn check(&self) -> Vec<Problem> {
        let monitor = Arc::new(Collector::default());
        check::run(&self.repo, None, &CheckLevel::ReadData, &(Arc::clone(&monitor) as _)).unwrap();
        monitor.problems()
    }

    pub(super) fn bytes(&self, prefix: &str) -> u64 {
        let mut sum = 0;
        self.store.list(prefix, &mut |meta| sum += meta.size).unwrap();
        sum
    }
}

pub(super) fn read_tree(reader: &Reader, name: &SnapshotName) -> Result<Tree> {
    let mut catalog = CatalogReader::new(reader, reader.repo().read_snapshot(name)?.root)?;
    let mut tree = Tree::new();
    while let Some(entry) = catalog.next_entry()? {
        let mut bytes = Vec::new();
        copy_to(reader, &entry, &mut bytes)?;
        tree.insert(entry.path.display(), bytes);
    }
    Ok(tree)
}
