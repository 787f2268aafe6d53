//! Archives written here, read again by the import, and by stock duplicity where that is installed.

mod aborts;
mod deltas;
mod stock;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::backend::mem::MemBackend;
use engine::backup::{self, BackupOptions};
use engine::catalog::CatalogReader;
use engine::codec::DEFAULT_LEVEL;
use engine::content::copy_to;
use engine::crypto::password::Cost;
use engine::entry::{Entry, EntrySource, Timestamp};
use engine::monitor::{Collector, Monitor};
use engine::repo::{InitOptions, Repository};

use super::*;
use crate::import::{self, ImportOptions, Selection};
use crate::pgp::Keyring;
use crate::store::{Store, StoreErrorKind, StoredFile};
use crate::test_support::fixtures;

/// A folder on disk, to be read.
#[derive(Debug)]
struct OnDisk(PathBuf);

impl Store for OnDisk {
    fn location(&self) -> String {
        self.0.display().to_string()
    }

    fn concurrency(&self) -> usize {
        2
    }

    fn list(&self) -> Result<Vec<StoredFile>, StoreError> {
        Folder::new(&self.0).list()
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        match File::open(self.0.join(name)) {
            Ok(file) => Ok(Box::new(file)),
            Err(e) => Err(StoreError {
                kind: StoreErrorKind::NotFound,
                location: self.location(),
                name: name.into(),
                message: e.to_string(),
            }),
        }
    }
}

/// A repository in memory.
struct World {
    repo: Arc<Repository>,
    monitor: Arc<Collector>,
}

impl World {
    fn new() -> Self {
        let options = InitOptions { cost: Cost { memory: 64, passes: 1, lanes: 1 }, ..InitOptions::default() };
        let repo = Repository::create(Arc::new(MemBackend::new()), b"x", &options).expect("creates");
        Self { repo: Arc::new(repo), monitor: Arc::default() }
    }

    /// Without problems.
    fn import(&self, dir: &Path, passphrase: Option<&str>) {
        let archive = archive(dir, passphrase);
        let options = ImportOptions {
            selection: Selection::All,
            host: Some("host".into()),
            user: "u".into(),
            tags: vec![],
            program: "test".into(),
            level: DEFAULT_LEVEL,
            verify: true,
            dry_run: false,
            cache_dir: None,
        };
        let monitor: Arc<dyn Monitor> = Arc::clone(&self.monitor) as _;
        import::run(&self.repo, &archive, &options, &monitor, &mut |_| Ok(())).expect("imports");
        assert_eq!(self.monitor.problems(), []);
    }

    fn backup(&self, time: i64, source: impl EntrySource + 'static) {
        let options = BackupOptions {
            time: Timestamp { seconds: time, nanos: 0 },
            host: "host".into(),
            user: "u".into(),
            paths: vec![b".".to_vec()],
            tags: vec![],
            incomplete_tag: None,
            origin: None,
            program: "test".into(),
            level: DEFAULT_LEVEL,
            parent: None,
            dry_run: false,
            cache_dir: None,
        };
        let monitor: Arc<dyn Monitor> = Arc::clone(&self.monitor) as _;
        let mut source = Some(Box::new(source) as Box<dyn EntrySource>);
        backup::run(&self.repo, &mut |_| Ok(source.take().expect("once")), &options, &monitor).expect("backs up");
    }

    fn reader(&self) -> Arc<Reader> {
        Arc::new(Reader::open(Arc::clone(&self.repo), None, &*self.monitor).expect("opens"))
    }

    fn choices(&self) -> Vec<Choice> {
        let all = snapshot::list(&self.repo, self.reader().view(), &*self.monitor).expect("lists");
        all.into_iter().map(|record| Choice { record, path: None }).collect()
    }

    fn export(&self, dir: &Path, choices: &[Choice], options: &ExportOptions) -> Result<Vec<SetOutcome>> {
        let mut outcomes = Vec::new();
        let archive = archive(dir, Some("p"));
        run(&self.reader(), &Folder::new(dir), &archive, choices, options, &*self.monitor, &mut |outcome| {
            outcomes.push(outcome.clone());
            Ok(())
        })?;
        Ok(outcomes)
    }

    /// All that a snapshot holds and an archive can.
    fn tree(&self, choice: &Choice) -> Vec<(Entry, Vec<u8>)> {
        let reader = self.reader();
        let mut catalog = CatalogReader::new(&reader, choice.record.snapshot.root).expect("catalog");
        let mut tree = Vec::new();
        while let Some(mut entry) = catalog.next_entry().expect("entry") {
            let mut bytes = Vec::new();
            if entry.kind == engine::entry::Kind::File {
                copy_to(&reader, &entry, &mut bytes).expect("content");
            }
            // Blobs have other names in another repository.
            (entry.content, entry.meta.ctime) = (engine::entry::Content::Empty, Timestamp::default());
            tree.push((entry, bytes));
        }
        tree
    }
}

fn archive(dir: &Path, passphrase: Option<&str>) -> Archive {
    let mut keyring = Keyring::new();
    passphrase.into_iter().for_each(|phrase| keyring.add_passphrase(phrase.as_bytes()));
    let (store, keyring) = (Arc::new(OnDisk(dir.to_owned())), Arc::new(keyring));
    Archive { store, prefixes: Prefixes::default(), keyring, required_signer: None }
}

fn options(sealing: Sealing) -> ExportOptions {
    let (volume_size, prefixes) = (VOLUME_SIZE, Prefixes::default());
    ExportOptions { mode: Mode::Auto, sealing, volume_size, prefixes, host: None, source: None, dry_run: false }
}

fn assert_same(a: &World, b: &World) {
    let (a_all, b_all) = (a.choices(), b.choices());
    assert_eq!(a_all.len(), b_all.len());
    for (x, y) in a_all.iter().zip(&b_all) {
        assert_eq!(x.record.snapshot.time, y.record.snapshot.time);
        for (one, other) in a.tree(x).iter().zip(&b.tree(y)) {
            assert_eq!(one.0, other.0);
            assert!(one.1 == other.1, "{}", one.0.path.display());
        }
        assert_eq!(a.tree(x).len(), b.tree(y).len());
    }
}

/// A fixture imported.
fn imported(name: &str, passphrase: Option<&str>) -> Option<World> {
    let world = World::new();
    world.import(&fixtures()?.join("public").join(name).join("archive"), passphrase);
    Some(world)
}

#[test]
fn import_export_import_is_the_same() {
    let Some(world) = imported("v321-gz", None) else { return };
    let encryption = |compression| Sealing::OpenPgp(Box::new(Encryption::symmetric(b"p").compression(compression)));
    for (sealing, volume_size) in [
        (Sealing::Plain, 20_000),
        (Sealing::Gzip, VOLUME_SIZE),
        (encryption(crate::pgp::Compression::Zip), 200_000),
        (encryption(crate::pgp::Compression::None), VOLUME_SIZE),
    ] {
        let dir = tempfile::tempdir().expect("dir");
        let options = ExportOptions { volume_size, ..options(sealing) };
        let outcomes = world.export(dir.path(), &world.choices(), &options).expect("exports");
        assert!(outcomes.iter().all(|o| matches!(o.result, SetResult::Exported(..))));
        assert_eq!(outcomes.iter().filter(|o| o.times.is_full()).count(), 1);
        let again = World::new();
        again.import(dir.path(), Some("p"));
        assert_same(&world, &again);
    }
}

#[test]
fn a_single_file_is_a_root_too() {
    let Some(world) = imported("single-file-gz", None) else { return };
    let dir = tempfile::tempdir().expect("dir");
    world.export(dir.path(), &world.choices(), &options(Sealing::Gzip)).expect("exports");
    let again = World::new();
    again.import(dir.path(), None);
    assert_same(&world, &again);
}

#[test]
fn a_chain_is_continued() {
    let Some(world) = imported("v321-gz", None) else { return };
    let (dir, options, all) = (tempfile::tempdir().expect("dir"), options(Sealing::Gzip), world.choices());
    let results = |outcomes: &[SetOutcome]| -> Vec<(bool, bool)> {
        outcomes.iter().map(|o| (o.times.is_full(), matches!(o.result, SetResult::Exported(..)))).collect()
    };
    let dry = ExportOptions { dry_run: true, ..options.clone() };
    assert_eq!(results(&world.export(dir.path(), &all[..2], &dry).expect("plans")), [(true, false), (false, false)]);
    assert_eq!(Folder::new(dir.path()).list().expect("lists"), []);
    let incremental = ExportOptions { mode: Mode::Incremental, ..options.clone() };
    assert!(world.export(dir.path(), &all[..1], &incremental).is_err());
    assert_eq!(results(&world.export(dir.path(), &all[..2], &options).expect("exports")), [(true, true), (false, true)]);
    // The base is found in the repository, or among those given.
    assert_eq!(results(&world.export(dir.path(), &all[2..3], &incremental).expect("exports")), [(false, true)]);
    let rest = world.export(dir.path(), &all[1..], &options).expect("exports");
    assert_eq!(results(&rest), [(false, false), (false, false), (false, true)]);
    let again = World::new();
    again.import(dir.path(), None);
    assert_same(&world, &again);
    let full = ExportOptions { mode: Mode::Full, ..options };
    let older = world.export(dir.path(), &all[3..], &full).expect_err("not newer").to_string();
    assert!(older.contains("is not newer"), "{older}");
}

#[test]
fn what_a_killed_export_left_is_replaced() {
    let Some(world) = imported("v321-gz", None) else { return };
    let (dir, options, all) = (tempfile::tempdir().expect("dir"), options(Sealing::Plain), world.choices());
    let small = ExportOptions { volume_size: 20_000, ..options.clone() };
    world.export(dir.path(), &all[..1], &small).expect("exports");
    let manifest = Folder::new(dir.path()).list().expect("lists").into_iter().find(|f| f.name.ends_with("manifest"));
    Folder::new(dir.path()).remove(&manifest.expect("a manifest").name).expect("removes");
    let other = world.export(dir.path(), &all[1..2], &ExportOptions { mode: Mode::Full, ..options.clone() });
    assert!(other.expect_err("in the way").to_string().contains("incomplete backup"));
    world.export(dir.path(), &all[..1], &ExportOptions { mode: Mode::Full, ..options }).expect("exports");
    assert_eq!(Folder::new(dir.path()).list().expect("lists").len(), 3);
}

#[test]
fn increments_build_on_nothing_else() {
    let Some(world) = imported("v321-gz", None) else { return };
    let (dir, options, all) = (tempfile::tempdir().expect("dir"), options(Sealing::Gzip), world.choices());
    world.export(dir.path(), &all[..1], &options).expect("exports");
    let part = |choice: &Choice| Choice { path: Some(EntryPath::new("ord").expect("valid")), ..choice.clone() };
    let parts: Vec<Choice> = all.iter().map(part).collect();
    let error = world.export(dir.path(), &parts[1..2], &options).expect_err("of another tree").to_string();
    assert!(error.contains("was not made of"), "{error}");
    assert_eq!(Folder::new(dir.path()).list().expect("lists").len(), 3);
}
