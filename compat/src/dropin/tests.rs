//! Commands on archives in a folder.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use engine::monitor::{Monitor, Problem};

use super::log::{Level, Log, quoted};
use super::options::{BackupKind, Options};
use super::select::Rule;
use super::*;
use crate::export::Sealing;
use crate::import::Archive;
use crate::name::{FileKind, Prefixes, SetTimes};
use crate::pgp::{Encryption, Keyring};
use crate::store::{Folder, Store, Target};
use crate::time::Time;

const START: i64 = 1_700_000_000;

/// What was said.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lock").extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A source, an archive and a cache.
struct Place {
    dir: tempfile::TempDir,
    said: Said,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().expect("dir"), said: Said::default() };
        ["source", "archive", "cache"].iter().for_each(|name| fs::create_dir(place.path(name)).expect("makes"));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What was said since the last time.
    fn said(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.said.0.lock().expect("lock"))).expect("text")
    }

    /// The context of a command at a time of `START` and so many seconds.
    fn context(&self, seconds: i64) -> Context {
        let options = Options { encryption: false, ..Options::default() };
        let log = Log::new(Level::INFO, Box::new(self.said.clone()), Box::new(self.said.clone()));
        let folder = Arc::new(Folder::new(self.path("archive")));
        let archive = Archive {
            store: Arc::clone(&folder) as Arc<dyn Store>,
            prefixes: Prefixes::default(),
            keyring: Arc::new(Keyring::new()),
            required_signer: None,
        };
        Context {
            options,
            log: Arc::new(log),
            archive,
            target: Some(folder as Arc<dyn Target>),
            sealing: Sealing::Gzip,
            cache: Cache::new(&self.path("cache"), Some("n"), "file:///x", &Prefixes::default()),
            url: "file:///x".to_owned(),
            now: Time::new(START + seconds).expect("a time"),
            cancelled: Arc::new(AtomicBool::new(false)),
        }
    }

    fn backup(&self, seconds: i64, kind: BackupKind) -> Result<u8> {
        let context = self.context(seconds);
        let _lock = context.cache.lock()?;
        backup::run(&context, kind, &self.path("source"))
    }

    /// Restores the last state into a folder of that name.
    fn restore(&self, name: &str, change: impl FnOnce(&mut Options)) -> Result<u8> {
        let mut context = self.context(1000);
        change(&mut context.options);
        restore::run(&context, &self.path(name))
    }

    /// Writes a file of the source, as if at that time.
    fn write(&self, name: &str, text: &str, seconds: u64) {
        let mut file = fs::File::create(self.path("source").join(name)).expect("creates");
        file.write_all(text.as_bytes()).expect("writes");
        file.set_modified(at(seconds)).expect("sets the time");
    }

    /// Names of the archive's files that end so.
    fn names(&self, suffix: &str) -> Vec<String> {
        let files = Folder::new(self.path("archive")).list().expect("lists");
        let mut names: Vec<String> = files.into_iter().map(|file| file.name).filter(|name| name.ends_with(suffix)).collect();
        names.sort();
        names
    }
}

fn at(seconds: u64) -> SystemTime {
    std::time::UNIX_EPOCH + Duration::from_secs(START.unsigned_abs() + seconds)
}

fn rule(include: bool, pattern: &str) -> Rule {
    Rule::Pattern { include, pattern: pattern.into() }
}

fn full(seconds: i64) -> SetTimes {
    SetTimes::Full(Time::new(START + seconds).expect("a time"))
}

#[test]
fn a_cache_that_fails_in_the_end_is_a_warning() {
    let place = Place::new();
    place.write("a", "text", 0);
    let context = place.context(0);
    let _lock = context.cache.lock().expect("free");
    // A folder where the manifest is to lie.
    let manifest = context.cache.path(FileKind::Manifest, full(0), false);
    fs::create_dir_all(manifest.join("x")).expect("makes");
    assert_eq!(backup::run(&context, BackupKind::Full, &place.path("source")).expect("complete"), 0);
    assert_eq!(place.names("").len(), 3);
    assert!(place.said().contains("the backup is complete, but cannot be kept"));
    assert!(!context.cache.path(FileKind::Signature, full(0), false).exists());
}

/// Two full backups with an increment each, and a third that was broken off before its manifest was there.
fn broken_off() -> Place {
    let place = Place::new();
    for (seconds, kind) in [(0, BackupKind::Full), (10, BackupKind::Auto), (20, BackupKind::Full), (30, BackupKind::Auto)] {
        place.write("a", &format!("of {seconds}"), seconds);
        place.backup(seconds.cast_signed(), kind).expect("backs up");
    }
    place.write("a", "of 40", 40);
    place.backup(40, BackupKind::Full).expect("backs up");
    let context = place.context(40);
    let collection = context.collection().expect("lists");
    let last = collection.sets().last().expect("a set");
    context.remove(last.manifest().map(|file| &*file.file.name)).expect("removes");
    context.cache.forget(full(40));
    place.said();
    place
}

#[test]
fn what_was_broken_off_does_not_count_as_a_full_backup() {
    let place = broken_off();
    let mut context = place.context(50);
    context.options.force = true;
    let manifests = place.names("manifest");
    assert_eq!(manifests.len(), 4);
    remove::all_but_n_full(&context, 2).expect("runs");
    assert_eq!(place.names("manifest"), manifests);
    remove::all_inc_of_but_n_full(&context, 2).expect("runs");
    assert_eq!(place.names("manifest"), manifests);
    remove::older_than(&context, context.now).expect("runs");
    assert_eq!(place.names("manifest").len(), 2);
    remove::all_but_n_full(&context, 1).expect("runs");
    remove::older_than(&context, context.now).expect("runs");
    assert_eq!(place.names("manifest").len(), 2, "the last good chain is kept");
    remove::cleanup(&context).expect("runs");
    assert_eq!(place.names("").len(), 6);
}

#[test]
fn the_state_before_what_was_broken_off_is_restored() {
    let place = broken_off();
    for (time, text) in [(50, "of 30"), (40, "of 30"), (25, "of 20"), (15, "of 10"), (-5, "of 0")] {
        let mut context = place.context(50);
        context.options.time = Time::new(START + time);
        let target = place.path(&format!("restored{time}"));
        restore::run(&context, &target).expect("restores");
        assert_eq!(fs::read_to_string(target.join("a")).expect("there"), text);
        assert_eq!(place.said().contains("was never completed, and is left aside"), time >= 40, "{time}");
    }
}

#[test]
fn nothing_is_written_with_a_mistyped_pass_phrase() {
    let place = Place::new();
    let run = |seconds: u64, phrase: &[u8]| {
        place.write("a", &format!("of {seconds}"), seconds);
        let mut context = place.context(seconds.cast_signed());
        let mut keyring = Keyring::new();
        keyring.add_passphrase(phrase.to_vec());
        context.archive.keyring = Arc::new(keyring);
        context.sealing = Sealing::OpenPgp(Box::new(Encryption::symmetric(phrase)));
        let _lock = context.cache.lock().expect("free");
        backup::run(&context, BackupKind::Auto, &place.path("source"))
    };
    run(0, b"right").expect("backs up");
    let failure = run(10, b"wrong").expect_err("mistyped");
    assert_eq!(failure.code, code::GPG, "{failure}");
    assert_eq!(place.names("").len(), 3);
    run(20, b"right").expect("backs up");
    assert_eq!(place.names("").len(), 6);
}

#[test]
fn what_could_not_be_listed_is_not_deleted() {
    let place = Place::new();
    let source = place.path("source").canonicalize().expect("there");
    fs::create_dir(source.join("d")).expect("makes");
    ["d/x", "dx", "y"].iter().for_each(|name| place.write(name, "text", 0));
    place.backup(0, BackupKind::Full).expect("backs up");
    ["d/x", "dx"].iter().for_each(|name| fs::remove_file(source.join(name)).expect("removes"));
    let context = place.context(10);
    let tally = source::Tally::new(&context);
    let subject = source.join("d").display().to_string();
    tally.problem(Problem { subject, message: "cannot list".to_owned() });
    backup::run_with(&context, BackupKind::Auto, &source, &tally).expect("backs up");
    let target = place.path("restored");
    restore::run(&place.context(20), &target).expect("restores");
    assert!(target.join("d/x").exists());
    assert!(!target.join("dx").exists());
    place.backup(30, BackupKind::Auto).expect("backs up");
    let again = place.path("again");
    restore::run(&place.context(40), &again).expect("restores");
    assert!(!again.join("d/x").exists());
}

#[test]
fn what_could_not_be_read_to_its_end_is_read_again() {
    let place = Place::new();
    // Its first byte cannot be read, whoever reads.
    let source = std::path::Path::new("/proc/self/mem");
    for (seconds, kind) in [(0, BackupKind::Full), (10, BackupKind::Auto), (20, BackupKind::Auto)] {
        let context = place.context(seconds);
        let _lock = context.cache.lock().expect("free");
        assert_eq!(backup::run(&context, kind, source).expect("goes on"), 0);
        assert!(place.said().contains("Error reading"), "{seconds}");
    }
}

#[test]
fn a_backup_that_has_lost_its_manifest_is_not_removed() {
    let place = Place::new();
    place.write("a", "text", 0);
    place.backup(0, BackupKind::Full).expect("backs up");
    let manifest = place.path("archive").join(&place.names("manifest")[0]);
    let bytes = fs::read(&manifest).expect("there");
    fs::remove_file(&manifest).expect("removes");
    let failure = place.backup(10, BackupKind::Auto).expect_err("refused");
    assert!(failure.message.contains("its manifest is gone"), "{failure}");
    assert_eq!(place.names("").len(), 2);
    fs::write(&manifest, bytes).expect("puts back");
    place.backup(20, BackupKind::Auto).expect("backs up");
    assert_eq!(place.names("manifest").len(), 2);
}

#[test]
fn what_the_archive_cannot_give_is_a_difference() {
    let place = Place::new();
    place.write("a", &"text ".repeat(1000), 0);
    place.backup(0, BackupKind::Full).expect("backs up");
    place.write("a", &"text ".repeat(1001), 10);
    place.backup(10, BackupKind::Auto).expect("backs up");
    // The increment's delta has nothing to go by where the full backup is another one.
    let (context, other) = (place.context(20), Place::new());
    other.write("b", "text", 0);
    other.backup(0, BackupKind::Full).expect("backs up");
    for name in other.names("") {
        fs::copy(other.path("archive").join(&name), place.path("archive").join(&name)).expect("copies");
    }
    context.cache.forget(full(0));
    assert_eq!(verify::run(&context, &place.path("source")).expect("runs"), code::GENERIC);
    assert!(place.said().contains("cannot be had from the archive"));
}

#[test]
fn what_lies_open_beside_encrypted_volumes_is_not_believed() {
    let place = Place::new();
    place.write("a", "text", 0);
    place.backup(0, BackupKind::Full).expect("backs up");
    let volume = place.path("archive").join(&place.names("difftar.gz")[0]);
    fs::rename(&volume, volume.with_extension("gpg")).expect("renames");
    let context = place.context(10);
    context.cache.forget(full(0));
    let failure = restore::run(&context, &place.path("restored")).expect_err("refused");
    assert!(failure.message.contains("manifest is not encrypted"), "{failure}");
    let set = context.collection().expect("lists").chains()[0].sets()[0].clone();
    let failure = context.signatures(&set).err().expect("refused");
    assert!(failure.message.contains("sigtar.gz is not encrypted"), "{failure}");
}

/// A source with a folder `d` that is not as folders usually are, and its backup.
fn with_a_folder() -> Place {
    let place = Place::new();
    let source = place.path("source");
    ["d", "e"].iter().for_each(|name| fs::create_dir(source.join(name)).expect("makes"));
    ["d/pub", "d/priv", "e/priv", "f"].iter().for_each(|name| place.write(name, "text", 20));
    place.write("old", "text", 0);
    fs::set_permissions(source.join("d"), fs::Permissions::from_mode(0o710)).expect("sets the mode");
    fs::File::open(source.join("d")).and_then(|dir| dir.set_modified(at(10))).expect("sets the time");
    place.backup(0, BackupKind::Full).expect("backs up");
    place
}

#[test]
fn folders_that_lead_to_what_is_selected_are_as_they_were() {
    let place = with_a_folder();
    let rules = vec![rule(true, "**/pub"), rule(false, "**")];
    assert_eq!(place.restore("restored", |options| options.rules = rules).expect("restores"), 0);
    let target = place.path("restored");
    for (dir, held) in [("", true), ("d", true), ("d/pub", true), ("d/priv", false), ("e", false), ("f", false), ("old", false)] {
        assert_eq!(target.join(dir).exists(), held, "{dir}");
    }
    let found = fs::metadata(target.join("d")).expect("there");
    assert_eq!((found.permissions().mode() & 0o7777, found.modified().expect("a time")), (0o710, at(10)));
}

#[test]
fn rules_of_a_restore_are_about_the_archive() {
    let place = with_a_folder();
    let rules = vec![Rule::OlderThan(START + 5)];
    place.restore("newer", |options| options.rules = rules).expect("restores");
    assert!(place.path("newer/f").exists() && place.path("newer/d/pub").exists() && !place.path("newer/old").exists());
    let failure = place.restore("nothing", |options| options.rules = vec![rule(false, "**")]).expect_err("nothing there");
    assert_eq!(failure.code, code::NOTHING_RESTORED, "{failure}");
    for dry_run in [false, true] {
        let failure = place.restore("refused", |options| {
            options.rules = vec![rule(false, "/d")];
            options.dry_run = dry_run;
        });
        assert_eq!(failure.expect_err("refused").code, 14);
    }
    assert!(!place.path("nothing").exists() && !place.path("refused").exists());
}

#[test]
fn renames_are_about_paths() {
    let place = with_a_folder();
    let restore = |target: &str, pairs: &[(&str, &str)]| {
        let renames = pairs.iter().map(|(from, to)| (from.as_bytes().to_vec(), to.as_bytes().to_vec())).collect();
        place.restore(target, |options| options.renames = renames)
    };
    restore("moved", &[("d/", "./x//y/"), ("d/priv", "z"), (".", "nowhere"), ("", "nowhere")]).expect("restores");
    assert!(place.path("moved/x/y/pub").exists() && place.path("moved/z").exists() && place.path("moved/e/priv").exists());
    assert!(!place.path("moved/d").exists() && !place.path("moved/nowhere").exists());
    restore("top", &[("d", ".")]).expect("restores");
    assert!(place.path("top/pub").exists() && !place.path("top/d").exists());
    for pair in [("../d", "x"), ("d", "x/../y")] {
        assert_eq!(restore("refused", &[pair]).expect_err("refused").code, code::USER);
    }
}

#[test]
fn what_is_in_the_way_of_force_is_no_success() {
    let place = with_a_folder();
    fs::create_dir_all(place.path("restored/f/x")).expect("makes");
    let failure = place.restore("restored", |options| options.force = true).expect_err("in the way");
    assert_eq!(failure.code, code::RESTORE_PATH_EXISTS, "{failure}");
    assert!(place.path("restored/f/x").is_dir() && place.path("restored/d/pub").exists() && place.path("restored/old").exists());
    fs::remove_dir_all(place.path("restored/f")).expect("removes");
    assert_eq!(place.restore("restored", |options| options.force = true).expect("restores"), 0);
}

#[test]
fn another_source_is_named_for_programs() {
    let place = with_a_folder();
    let context = place.context(10);
    let other = place.path("source/d");
    let failure = backup::run(&context, BackupKind::Auto, &other).expect_err("refused");
    let text = |path: &std::path::Path| quoted(&verify::source_text(path));
    assert_eq!(failure.code, code::SOURCE_MISMATCH, "{failure}");
    assert_eq!(failure.args, format!("{} {}", text(&other), text(&place.path("source"))));
}
