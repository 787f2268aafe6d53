//! Commands on archives in a folder.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use super::log::{Level, Log};
use super::options::{BackupKind, Options};
use super::*;
use crate::export::Sealing;
use crate::import::Archive;
use crate::name::{FileKind, Prefixes, SetTimes};
use crate::pgp::Keyring;
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

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path("source").join(name), text).expect("writes");
    }

    /// Names of the archive's files that end so.
    fn names(&self, suffix: &str) -> Vec<String> {
        let files = Folder::new(self.path("archive")).list().expect("lists");
        let mut names: Vec<String> = files.into_iter().map(|file| file.name).filter(|name| name.ends_with(suffix)).collect();
        names.sort();
        names
    }
}

fn full(seconds: i64) -> SetTimes {
    SetTimes::Full(Time::new(START + seconds).expect("a time"))
}

#[test]
fn a_cache_that_fails_in_the_end_is_a_warning() {
    let place = Place::new();
    place.write("a", "text");
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
