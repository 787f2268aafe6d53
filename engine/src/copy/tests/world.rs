//! A directory with files, and a repository in memory that it is backed up to.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use crate::backend::mem::MemBackend;
use crate::backend::{Backend, ObjectKey};
use crate::backup::{self, BackupOptions};
use crate::catalog::CatalogReader;
use crate::codec::Level;
use crate::content::copy_to;
use crate::crypto::password::Cost;
use crate::entry::{Content, Entry, EntrySource, Timestamp};
use crate::error::Result;
use crate::fs::{WalkOptions, WalkSource};
use crate::monitor::{Collector, Monitor};
use crate::repo::{InitOptions, Reader, Repository, SnapshotName};
use crate::snapshot::{self, SnapshotRecord};

const CHEAP: Cost = Cost { memory: 64, passes: 1, lanes: 1 };

/// See the module.
pub(crate) struct World {
    pub(crate) backend: Arc<MemBackend>,
    pub(crate) repo: Arc<Repository>,
    temp: TempDir,
}

/// A repository in this store.
pub(crate) fn repository(backend: Arc<dyn Backend>) -> Arc<Repository> {
    let options = InitOptions { cost: CHEAP, pack_target: 1 << 20, ..InitOptions::default() };
    Arc::new(Repository::create(backend, b"x", &options).expect("creates"))
}

/// Reads a repository as it is now.
pub(crate) fn reader(repo: &Arc<Repository>) -> Arc<Reader> {
    Arc::new(Reader::open(Arc::clone(repo), None, &Collector::default()).expect("opens"))
}

/// All snapshots, oldest first.
pub(crate) fn snapshots(repo: &Arc<Repository>) -> Vec<SnapshotRecord> {
    snapshot::list(repo, reader(repo).view(), &Collector::default()).expect("lists")
}

/// Names and sizes of all objects.
pub(crate) fn objects(backend: &dyn Backend) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    backend.list("", &mut |meta| found.push((meta.key.to_string(), meta.size))).expect("lists");
    found.sort();
    found
}

/// All entries of a snapshot but for where their content is, and the content itself.
pub(crate) fn read_all(repo: &Arc<Repository>, record: &SnapshotRecord) -> Vec<(Entry, Vec<u8>)> {
    let reader = reader(repo);
    let mut catalog = CatalogReader::new(&reader, record.snapshot.root).expect("a catalog");
    let mut found = Vec::new();
    while let Some(mut entry) = catalog.next_entry().expect("an entry") {
        let mut bytes = Vec::new();
        copy_to(&reader, &entry, &mut bytes).expect("content");
        entry.content = Content::Empty;
        found.push((entry, bytes));
    }
    found
}

/// Bytes that do not compress.
pub(crate) fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

impl World {
    pub(crate) fn new() -> Self {
        let backend = Arc::new(MemBackend::new());
        let repo = repository(Arc::clone(&backend) as Arc<dyn Backend>);
        Self { backend, repo, temp: tempfile::tempdir().expect("temporary directory") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        fs::create_dir_all(self.path(name).parent().expect("parent")).expect("directories");
        fs::write(self.path(name), content).expect("writes");
    }

    /// Backs the directory up as of a time in seconds, comparing with the snapshot before.
    pub(crate) fn backup(&self, seconds: i64) -> SnapshotName {
        let (monitor, outcome) = self.try_backup(seconds);
        assert_eq!(monitor.problems(), []);
        outcome.snapshot.expect("committed")
    }

    pub(crate) fn try_backup(&self, seconds: i64) -> (Arc<Collector>, backup::BackupOutcome) {
        let collector = Arc::new(Collector::default());
        let monitor: Arc<dyn Monitor> = Arc::clone(&collector) as _;
        let walk = WalkOptions { roots: vec![self.temp.path().to_owned()], ..WalkOptions::default() };
        let mut source = |_: &Arc<Reader>| -> Result<Box<dyn EntrySource>> {
            Ok(Box::new(WalkSource::new(walk.clone(), Arc::clone(&monitor))?))
        };
        let options = BackupOptions {
            time: Timestamp { seconds, nanos: 7 },
            host: "host".into(),
            user: "user".into(),
            paths: vec![b"/some/path".to_vec()],
            tags: vec!["tag".into()],
            incomplete_tag: None,
            origin: None,
            program: "test".into(),
            level: Level::Zstd(1),
            parent: snapshots(&self.repo).into_iter().next_back(),
            dry_run: false,
            cache_dir: None,
        };
        let outcome = backup::run(&self.repo, &mut source, &options, &monitor).expect("backs up");
        (collector, outcome)
    }

    /// Packs that hold frames of files, or else of nodes.
    pub(crate) fn packs(&self, kind: crate::format::pack::BlobKind) -> Vec<(ObjectKey, Vec<std::ops::Range<usize>>)> {
        let reader = reader(&self.repo);
        let mut found = Vec::new();
        let mut ordinals = Vec::new();
        reader.index().packs(|ordinal, _, _, _| ordinals.push(ordinal)).expect("packs");
        for ordinal in ordinals {
            let pack = reader.index().pack(ordinal).expect("summary");
            let frames = pack.frames.iter().filter(|f| f.kind == kind);
            let frames: Vec<_> = frames.map(|f| f.offset as usize..(f.offset + f.sealed) as usize).collect();
            if !frames.is_empty() {
                found.push((crate::repo::names::pack(pack.epoch, &pack.id), frames));
            }
        }
        found
    }

    /// Turns a bit round in the middle of a range of an object.
    pub(crate) fn flip(&self, key: &ObjectKey, range: &std::ops::Range<usize>) {
        let mut bytes = self.backend.read(key, u64::MAX).expect("reads").to_vec();
        bytes[usize::midpoint(range.start, range.end)] ^= 1;
        self.backend.overwrite(key, bytes);
    }
}
