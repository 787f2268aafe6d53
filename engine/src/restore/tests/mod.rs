//! Trees of real files, backed up into memory and restored: whole, in part, over others, and from damaged stores.

mod damage;
mod modes;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, XattrFlags, mkfifoat, setxattr};
use tempfile::TempDir;

use super::*;
use crate::backend::mem::MemBackend;
use crate::backend::{Backend, ObjectKey};
use crate::backup::{self, BackupOptions};
use crate::codec::Level;
use crate::crypto::password::Cost;
use crate::fs::{WalkOptions, WalkSource};
use crate::monitor::{Collector, Problem};
use crate::repo::{InitOptions, Repository, SnapshotName, now};

const CHEAP: Cost = Cost { memory: 64, passes: 1, lanes: 1 };

/// Small windows of everything, so that files span many of them.
const TINY: Limits =
    Limits { files: 3, pieces: 4, memory: 4 << 10, content: 1 << 20, read: 64 << 10, write: 64 << 10, gap: 0, open: Some(1) };

/// What a test looks at of a file: kind, mode, time, names, content.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    mtime: (i64, i64),
    links: u64,
    blocks: u64,
    content: Vec<u8>,
}

struct World {
    backend: Arc<MemBackend>,
    repo: Arc<Repository>,
    temp: TempDir,
}

impl World {
    fn new() -> Self {
        let backend = Arc::new(MemBackend::new());
        let options = InitOptions { cost: CHEAP, pack_target: 1 << 20, ..InitOptions::default() };
        let repo = Repository::create(Arc::clone(&backend) as Arc<dyn Backend>, b"x", &options).expect("creates");
        let temp = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(temp.path().join("source")).expect("source");
        Self { backend, repo: Arc::new(repo), temp }
    }

    fn source(&self, name: &str) -> PathBuf {
        self.temp.path().join("source").join(name)
    }

    fn target(&self, name: &str) -> PathBuf {
        self.temp.path().join("target").join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::create_dir_all(self.source(name).parent().expect("parent")).expect("directories");
        fs::write(self.source(name), content).expect("writes");
    }

    fn backup_options(&self) -> BackupOptions {
        BackupOptions {
            time: now(),
            host: "h".into(),
            user: "u".into(),
            paths: vec![],
            tags: vec![],
            incomplete_tag: None,
            origin: None,
            program: "test".into(),
            level: Level::Zstd(1),
            parent: None,
            dry_run: false,
            cache_dir: None,
        }
    }

    fn backup(&self) -> SnapshotName {
        let monitor: Arc<dyn Monitor> = Arc::new(Collector::default());
        let walk = WalkOptions { roots: vec![self.source("")], ..WalkOptions::default() };
        let mut source = |_: &Arc<Reader>| -> Result<Box<dyn crate::entry::EntrySource>> {
            Ok(Box::new(WalkSource::new(walk.clone(), Arc::clone(&monitor))?))
        };
        let outcome = backup::run(&self.repo, &mut source, &self.backup_options(), &monitor).expect("backs up");
        assert_eq!(outcome.problems, 0);
        outcome.snapshot.expect("committed")
    }

    /// The source directory as the base of a restore.
    fn base(&self) -> EntryPath {
        let path = self.source("").into_os_string().into_vec();
        EntryPath::new(path.trim_ascii_end().strip_prefix(b"/").expect("absolute").strip_suffix(b"/").expect("slash"))
            .expect("valid")
    }

    fn options(&self) -> RestoreOptions {
        RestoreOptions {
            base: self.base(),
            own_root: false,
            filter: None,
            overwrite: Overwrite::Always,
            verify: true,
            dry_run: false,
        }
    }

    fn reader(&self) -> Arc<Reader> {
        Arc::new(Reader::open(Arc::clone(&self.repo), None, &Collector::default()).expect("opens"))
    }

    fn restore_with(&self, options: &RestoreOptions, limits: &Limits) -> (Result<RestoreOutcome>, Vec<Problem>) {
        let reader = self.reader();
        let newest = reader.view().snapshots.iter().max_by_key(|name| self.repo.read_snapshot(name).expect("snapshot").time);
        let root = self.repo.read_snapshot(newest.expect("a snapshot")).expect("snapshot").root;
        let collector = Arc::new(Collector::default());
        let monitor: Arc<dyn Monitor> = Arc::clone(&collector) as _;
        (run_with(&reader, root, &self.target(""), options, &monitor, limits), collector.problems())
    }

    fn restore(&self, options: &RestoreOptions) -> RestoreOutcome {
        let (outcome, problems) = self.restore_with(options, &Limits::default());
        assert_eq!(problems, []);
        outcome.expect("restores")
    }

    /// Packs that hold data, whole.
    fn packs(&self) -> Vec<(ObjectKey, Vec<u8>)> {
        let mut keys = Vec::new();
        self.backend.list("packs/", &mut |meta| keys.push(meta.key)).expect("lists");
        keys.into_iter().map(|key| (key.clone(), self.backend.read(&key, u64::MAX).expect("reads").to_vec())).collect()
    }
}

/// All beneath a directory, by relative path.
fn see(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let (mut found, mut left) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(path) = left.pop() {
        let meta = path.symlink_metadata().expect("metadata");
        let kind = meta.file_type();
        let mut content = Vec::new();
        if kind.is_dir() {
            left.extend(fs::read_dir(&path).expect("lists").map(|item| item.expect("item").path()));
        } else if kind.is_symlink() {
            content = fs::read_link(&path).expect("link").as_os_str().as_bytes().to_vec();
        } else if kind.is_file() {
            content = fs::read(&path).expect("reads");
        }
        let links = if kind.is_dir() { 0 } else { meta.nlink() };
        let blocks = if kind.is_file() && meta.size() > 1 << 20 { meta.blocks() / 64 } else { 0 };
        let seen = Seen { mode: meta.mode(), mtime: (meta.mtime(), meta.mtime_nsec()), links, blocks, content };
        found.insert(path.strip_prefix(root).expect("beneath").to_owned(), seen);
    }
    found
}

fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Every kind of entry, small and large.
fn fill(world: &World) {
    world.write("empty", b"");
    world.write("a/b/c/deep", b"deep");
    world.write("big", &noise(1, 9_000_000));
    world.write("zeros", &vec![0; 3_000_000]);
    for i in 0..300 {
        world.write(&format!("many/{i}"), &noise(i + 10, 10 + i as usize * 7));
    }
    fs::create_dir(world.source("void")).expect("directory");
    symlink("/nowhere/at all", world.source("link")).expect("symlink");
    mkfifoat(CWD, world.source("fifo"), Mode::RUSR).expect("fifo");
    let sparse = fs::File::create(world.source("sparse")).expect("creates");
    sparse.write_all_at(&noise(2, 300_000), 5 << 20).expect("writes");
    sparse.write_all_at(b"end", 20 << 20).expect("writes");
    sparse.set_len(30 << 20).expect("extends");
    fs::File::create(world.source("hole")).and_then(|f| f.set_len(7 << 20)).expect("hole");
    for (old, new) in [("big", "void/big2"), ("big", "a/big3"), ("many/7", "many/7b"), ("link", "link2")] {
        fs::hard_link(world.source(old), world.source(new)).expect("hard link");
    }
    let _ = setxattr(world.source("empty"), "user.test", b"value", XattrFlags::empty());
    fs::set_permissions(world.source("many/3"), fs::Permissions::from_mode(0o4751)).expect("mode");
    fs::set_permissions(world.source("a/b"), fs::Permissions::from_mode(0o500)).expect("mode");
}

#[test]
fn a_tree_of_every_kind_comes_back() {
    let world = World::new();
    fill(&world);
    world.backup();
    let outcome = world.restore(&world.options());
    assert_eq!(see(&world.target("")), see(&world.source("")));
    let names = see(&world.source("")).len() as u64;
    assert_eq!((outcome.entries, outcome.skipped), (names, 0));
    assert_eq!((outcome.files, outcome.verified), (names - 6 - 3, names - 6 - 3 - 3));
    assert!(outcome.bytes > 12_300_000 && outcome.bytes < 13_500_000, "{}", outcome.bytes);
}

#[test]
fn tiny_windows_and_one_open_file_make_no_difference() {
    let world = World::new();
    fill(&world);
    world.backup();
    let (outcome, problems) = world.restore_with(&world.options(), &TINY);
    assert_eq!(problems, []);
    assert_eq!(outcome.expect("restores").problems, 0);
    assert_eq!(see(&world.target("")), see(&world.source("")));
}

#[test]
fn the_root_as_base_restores_full_paths() {
    let world = World::new();
    world.write("x/file", b"content");
    fs::set_permissions(world.source("x"), fs::Permissions::from_mode(0o711)).expect("mode");
    world.backup();
    let outcome = world.restore(&RestoreOptions { base: EntryPath::root(), ..world.options() });
    let beneath = world.target("").join(world.source("").strip_prefix("/").expect("absolute"));
    assert_eq!(see(&beneath), see(&world.source("")));
    assert_eq!(outcome.files, 1);
}

#[test]
fn a_file_as_base_goes_into_the_target() {
    let world = World::new();
    world.write("x/file", b"content");
    world.backup();
    let file = world.base().join(b"x").and_then(|x| x.join(b"file")).expect("valid");
    assert_eq!(world.restore(&RestoreOptions { base: file, ..world.options() }).entries, 1);
    assert_eq!(fs::read(world.target("file")).expect("reads"), b"content");
    let absent = world.base().join(b"absent").expect("valid");
    let (outcome, _) = world.restore_with(&RestoreOptions { base: absent, ..world.options() }, &Limits::default());
    assert!(matches!(outcome, Err(Error::Invalid(_))));
}

#[test]
fn a_filter_brings_the_directories_that_are_needed() {
    let world = World::new();
    for name in ["keep/a.txt", "keep/b.bin", "drop/c.bin", "deep/down/d.txt"] {
        world.write(name, name.as_bytes());
    }
    fs::set_permissions(world.source("deep/down"), fs::Permissions::from_mode(0o705)).expect("mode");
    world.backup();
    let filter: Filter = Arc::new(|path, _| path.as_bytes().ends_with(b".txt"));
    let outcome = world.restore(&RestoreOptions { filter: Some(filter), ..world.options() });
    let (source, target) = (see(&world.source("")), see(&world.target("")));
    let names: Vec<_> = target.keys().filter_map(|path| path.to_str()).collect();
    assert_eq!(names, ["", "deep", "deep/down", "deep/down/d.txt", "keep", "keep/a.txt"]);
    assert!(target.iter().all(|(path, seen)| source.get(path) == Some(seen)));
    assert_eq!((outcome.entries, outcome.files), (6, 2));
}

#[test]
fn a_dry_run_counts_and_writes_nothing() {
    let world = World::new();
    fill(&world);
    world.backup();
    let dry = world.restore(&RestoreOptions { dry_run: true, verify: false, ..world.options() });
    assert!(!world.target("").exists());
    let real = world.restore(&RestoreOptions { verify: false, ..world.options() });
    assert_eq!(dry, real);
}

mod own_root {
    use super::*;
    use crate::entry::{EntrySource, Kind, LazyEntry, Metadata, OpenFile, SourceContent, SourceEntry, Timestamp, Xattrs};

    struct One(Option<SourceEntry>);

    impl EntrySource for One {
        fn next_entry(&mut self) -> Result<Option<SourceEntry>> {
            Ok(self.0.take())
        }
    }

    struct Empty;

    impl LazyEntry for Empty {
        fn xattrs(&self) -> std::io::Result<Xattrs> {
            Ok(vec![])
        }
        fn open(&self) -> std::io::Result<Box<dyn OpenFile>> {
            Err(std::io::ErrorKind::NotFound.into())
        }
    }

    fn restore(kind: &Kind) -> (World, Result<RestoreOutcome>) {
        let world = World::new();
        let monitor: Arc<dyn Monitor> = Arc::new(Collector::default());
        let meta = Metadata { mode: 0o750, mtime: Timestamp { seconds: 1_000_000_000, nanos: 0 }, ..Metadata::default() };
        let mut source = |_: &Arc<Reader>| {
            let (meta, kind) = (meta.clone(), kind.clone());
            let content = if kind == Kind::File { SourceContent::None } else { SourceContent::Lazy(Box::new(Empty)) };
            let entry = SourceEntry { path: EntryPath::root(), kind, meta, size: 0, content };
            Ok(Box::new(One(Some(entry))) as Box<dyn EntrySource>)
        };
        backup::run(&world.repo, &mut source, &world.backup_options(), &monitor).expect("backs up");
        let options = RestoreOptions { base: EntryPath::root(), own_root: true, ..world.options() };
        let result = world.restore_with(&options, &Limits::default()).0;
        (world, result)
    }

    #[test]
    fn a_directory_gives_its_metadata_to_the_target() {
        let (world, outcome) = restore(&Kind::Directory);
        assert_eq!(outcome.expect("restores").entries, 1);
        let meta = fs::metadata(world.target("")).expect("is there");
        assert!(meta.is_dir());
        assert_eq!((meta.permissions().mode() & 0o7777, meta.mtime()), (0o750, 1_000_000_000));
    }

    #[test]
    fn a_file_becomes_the_target() {
        let (world, outcome) = restore(&Kind::File);
        assert_eq!(outcome.expect("restores").files, 1);
        let path = world.temp.path().join("target");
        let meta = fs::symlink_metadata(path).expect("is there");
        assert!(meta.is_file());
        assert_eq!((meta.permissions().mode() & 0o7777, meta.mtime()), (0o750, 1_000_000_000));
    }
}
