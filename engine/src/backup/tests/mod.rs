//! Backups of made-up trees into memory: what is stored, what is not stored again, and what happens when things go wrong.

mod fence;
mod kinds;
mod links;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::backend::Backend;
use crate::backend::fault::{Fault, FaultBackend, Method, Rule};
use crate::backend::mem::MemBackend;
use crate::catalog::CatalogReader;
use crate::content::copy_to;
use crate::crypto::password::Cost;
use crate::entry::{Hole, Kind, LazyEntry, Metadata, OpenFile, SourceContent, SourceEntry, Xattrs};
use crate::format::ObjectKind;
use crate::format::epoch::{Close, seal_close, seal_mark};
use crate::monitor::Collector;
use crate::path::EntryPath;
use crate::repo::names::{self, EpochRole};
use crate::repo::{InitOptions, now};

const CHEAP: Cost = Cost { memory: 64, passes: 1, lanes: 1 };

/// Files by path; a path that ends in `/` is a directory.
type Tree = BTreeMap<String, Vec<u8>>;

#[derive(Clone)]
struct TestFile {
    bytes: Arc<Vec<u8>>,
    size: u64,
    at: usize,
    opened: Arc<AtomicUsize>,
}

fn meta(inode: u64, content: &[u8]) -> Metadata {
    // Old enough to be believed, and different for different content.
    let stamp = Timestamp { seconds: 1000 + i64::from(content.first().copied().unwrap_or(0)), nanos: 5 };
    Metadata { mode: 0o644, mtime: stamp, ctime: stamp, inode, links: 1, ..Metadata::default() }
}

impl LazyEntry for TestFile {
    fn xattrs(&self) -> io::Result<Xattrs> {
        Ok(vec![])
    }
    fn open(&self) -> io::Result<Box<dyn OpenFile>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        if self.bytes.starts_with(b"unreadable") {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(Box::new(self.clone()))
    }
}

impl OpenFile for TestFile {
    fn xattrs(&self) -> io::Result<Xattrs> {
        Ok(vec![])
    }
    fn stat(&self) -> io::Result<(Metadata, u64)> {
        Ok((meta(7, &self.bytes), self.size))
    }
    fn holes(&mut self, _: u64, _: usize) -> io::Result<Vec<Hole>> {
        Ok(vec![])
    }
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes.starts_with(b"breaks") && self.at > 0 {
            return Err(io::Error::other("bad sector"));
        }
        let n = buffer.len().min(self.bytes.len() - self.at);
        buffer[..n].copy_from_slice(&self.bytes[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

struct TestSource(std::vec::IntoIter<SourceEntry>);

impl EntrySource for TestSource {
    fn next_entry(&mut self) -> Result<Option<SourceEntry>> {
        Ok(self.0.next())
    }
}

#[derive(Clone)]
struct World {
    backend: Arc<MemBackend>,
    repo: Arc<Repository>,
    opened: Arc<AtomicUsize>,
    monitor: Arc<Collector>,
}

impl World {
    fn new() -> Self {
        let backend = Arc::new(MemBackend::new());
        let options = InitOptions { cost: CHEAP, pack_target: 1 << 20, ..InitOptions::default() };
        let repo = Repository::create(Arc::clone(&backend) as Arc<dyn Backend>, b"x", &options).expect("creates");
        Self { backend, repo: Arc::new(repo), opened: Arc::default(), monitor: Arc::default() }
    }

    fn source(&self, tree: &Tree) -> Box<dyn EntrySource> {
        let mut entries: Vec<SourceEntry> = tree
            .iter()
            .map(|(path, bytes)| {
                let kind = if path.ends_with('/') { Kind::Directory } else { Kind::File };
                let size = if kind == Kind::File { bytes.len() as u64 } else { 0 };
                let file = TestFile { bytes: Arc::new(bytes.clone()), size, at: 0, opened: Arc::clone(&self.opened) };
                let path = EntryPath::new(path.trim_end_matches('/')).expect("valid");
                SourceEntry { path, kind, meta: meta(7, bytes), size, content: SourceContent::Lazy(Box::new(file)) }
            })
            .collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Box::new(TestSource(entries.into_iter()))
    }

    fn options(&self) -> BackupOptions {
        let reader = self.reader();
        let all = crate::snapshot::list(&self.repo, reader.view(), &*self.monitor).expect("lists");
        BackupOptions {
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
        }
    }

    fn backup(&self, tree: &Tree) -> Result<BackupOutcome> {
        self.backup_with(tree, &self.options())
    }

    fn backup_with(&self, tree: &Tree, options: &BackupOptions) -> Result<BackupOutcome> {
        let monitor: Arc<dyn Monitor> = Arc::clone(&self.monitor) as _;
        run(&self.repo, &mut |_| Ok(self.source(tree)), options, &monitor)
    }

    fn reader(&self) -> Reader {
        Reader::open(Arc::clone(&self.repo), None, &*self.monitor).expect("opens")
    }

    /// The files of a snapshot as stored.
    fn contents(&self, name: &SnapshotName) -> Tree {
        let reader = self.reader();
        let root = self.repo.read_snapshot(name).expect("snapshot").root;
        let mut catalog = CatalogReader::new(&reader, root).expect("catalog");
        let mut tree = Tree::new();
        while let Some(entry) = catalog.next_entry().expect("entry") {
            let mut bytes = Vec::new();
            let end = if entry.is_directory() { "/" } else { "" };
            if entry.kind == Kind::File {
                copy_to(&reader, &entry, &mut bytes).expect("content");
            }
            tree.insert(format!("{}{end}", entry.path.display()), bytes);
        }
        tree
    }

    fn objects(&self, prefix: &str) -> Vec<crate::backend::ObjectKey> {
        let mut keys = Vec::new();
        self.backend.list(prefix, &mut |m| keys.push(m.key)).expect("lists");
        keys
    }
}

fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn tree() -> Tree {
    let mut tree = Tree::from([("d/".into(), vec![]), ("d/empty".into(), vec![]), ("big".into(), noise(1, 12_000_000))]);
    for i in 0..3000_u32 {
        tree.insert(format!("d/f{i:04}"), noise(i + 10, 10 + i as usize % 700));
    }
    tree
}

#[test]
fn everything_comes_back_and_nothing_is_stored_twice() {
    let (world, mut tree) = (World::new(), tree());
    let first = world.backup(&tree).expect("first");
    assert_eq!((first.files_new, first.dirs_new, first.problems), (3002, 1, 0));
    assert!(first.added_bytes > 12_000_000);
    assert_eq!(world.contents(&first.snapshot.expect("committed")), tree);

    let opened = world.opened.load(Ordering::Relaxed);
    let again = world.backup(&tree).expect("second");
    assert_eq!((again.files_unmodified, again.dirs_unmodified, again.added_bytes), (3002, 1, 0));
    assert_eq!(world.opened.load(Ordering::Relaxed), opened, "unchanged files are not opened");

    let forced = world.backup_with(&tree, &BackupOptions { parent: None, ..world.options() }).expect("forced");
    assert_eq!((forced.files_new, forced.added_bytes), (3002, 0));

    tree.insert("d/f0100".into(), b"changed".to_vec());
    tree.remove("d/f0200");
    let third = world.backup(&tree).expect("third");
    assert_eq!((third.files_changed, third.data_blobs), (1, 1));
    assert!(third.added_bytes < 200_000, "one blob and a few nodes: {}", third.added_bytes);
    assert_eq!(world.contents(&third.snapshot.expect("committed")), tree);
    assert!(world.monitor.problems().is_empty());
}

#[test]
fn trouble_with_files_is_listed_and_stops_nothing() {
    let world = World::new();
    let mut tree = Tree::from([
        ("a".into(), b"fine".to_vec()),
        ("b".into(), b"unreadable".to_vec()),
        ("c".into(), [b"breaks".to_vec(), noise(1, 5_000_000)].concat()),
        ("d".into(), b"fine too".to_vec()),
    ]);
    let outcome = world.backup(&tree).expect("backs up");
    assert_eq!(outcome.problems, 2);
    let subjects: Vec<String> = world.monitor.problems().into_iter().map(|p| p.subject).collect();
    assert_eq!(subjects, ["/b", "/c"]);
    tree.retain(|path, _| path == "a" || path == "d");
    assert_eq!(world.contents(&outcome.snapshot.expect("committed")), tree);
}

#[test]
fn a_dry_run_writes_nothing() {
    let world = World::new();
    let before = world.objects("");
    let outcome = world.backup_with(&tree(), &BackupOptions { dry_run: true, ..world.options() }).expect("runs");
    assert!(outcome.snapshot.is_none() && outcome.added_bytes > 12_000_000);
    assert_eq!(world.objects(""), before);
}

#[test]
fn a_lost_pack_is_healed_from_live_files() {
    let (world, tree) = (World::new(), tree());
    let first = world.backup(&tree).expect("first").snapshot.expect("committed");
    let packs = world.objects("packs/");
    for pack in packs.iter().step_by(3) {
        world.backend.delete(pack).expect("deletes");
    }
    let outcome = world.backup(&tree).expect("heals");
    assert!(!world.monitor.problems().is_empty(), "the loss is reported");
    assert_eq!(world.contents(&outcome.snapshot.expect("committed")), tree);
    assert_eq!(world.contents(&first), tree, "the old snapshot is whole again, too");
}

#[test]
fn after_an_interruption_the_next_run_goes_on() {
    struct Interrupting<'a>(Box<dyn EntrySource + 'a>, usize, Arc<Collector>);
    impl EntrySource for Interrupting<'_> {
        fn next_entry(&mut self) -> Result<Option<SourceEntry>> {
            self.1 -= 1;
            if self.1 == 0 {
                self.2.cancel();
            }
            self.0.next_entry()
        }
    }
    let (world, tree) = (World::new(), tree());
    let cancelled = Arc::new(Collector::default());
    let monitor: Arc<dyn Monitor> = Arc::clone(&cancelled) as _;
    let options = world.options();
    let mut source =
        |_: &Arc<Reader>| Ok(Box::new(Interrupting(world.source(&tree), 2500, Arc::clone(&cancelled))) as Box<dyn EntrySource>);
    let result = run(&world.repo, &mut source, &options, &monitor);
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
    assert!(world.objects("snapshots/").is_empty());
    assert!(world.objects("sessions/").is_empty(), "the announcement is taken back");
    let outcome = world.backup(&tree).expect("goes on");
    assert!(outcome.added_bytes < 2_000_000, "the large file is not stored again: {}", outcome.added_bytes);
    assert_eq!(world.contents(&outcome.snapshot.expect("committed")), tree);
}

#[test]
fn a_store_that_fails_ends_the_backup_with_its_error() {
    let (world, tree) = (World::new(), tree());
    for prefix in ["packs/", "index/", "snapshots/"] {
        let fault = FaultBackend::new(Arc::clone(&world.backend) as Arc<dyn Backend>);
        fault.inject(Rule::new(Method::Create, Fault::Error(crate::backend::ErrorKind::NoSpace)).key(prefix));
        let repo = Arc::new(Repository::open(Arc::new(fault), b"x").expect("opens"));
        let monitor: Arc<dyn Monitor> = Arc::clone(&world.monitor) as _;
        let result = run(&repo, &mut |_| Ok(world.source(&tree)), &world.options(), &monitor);
        let kind = match result {
            Err(Error::Backend(e)) => e.kind,
            other => panic!("{prefix}: {other:?}"),
        };
        assert_eq!(kind, crate::backend::ErrorKind::NoSpace);
        assert!(world.objects("snapshots/").is_empty());
    }
}
