//! What all parts of one restore share: where from and where to, what has been done, and what went wrong.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::source::Source;
use super::{RestoreOptions, RestoreOutcome};
use crate::error::{Error, Result};
use crate::fs::{DestError, Destination, Warnings};
use crate::id::BlobId;
use crate::monitor::{Counter, Monitor, Problem, lock};
use crate::path::EntryPath;
use crate::repo::Reader;

/// How to go on after the run has ended early.
const RESUME: &str = "to continue, run the restore again with '--overwrite if-changed'";

/// Shared by all threads.
pub(super) struct Context<'a> {
    pub options: &'a RestoreOptions,
    pub root: Option<BlobId>,
    pub source: Source<'a>,
    pub monitor: &'a Arc<dyn Monitor>,
    /// Where to look for existing files.
    pub existing: Option<&'a Destination>,
    /// Entries that were not touched because something is there already.
    pub kept: Marks,
    /// Entries that were to be restored and are not.
    pub failed: Marks,
    pub tally: Tally,
    /// What a root entry that is no directory is called beneath the target.
    pub root_name: EntryPath,
    links: AtomicBool,
    stopped: AtomicBool,
    error: Mutex<Option<Error>>,
}

/// Counts of [`RestoreOutcome`].
#[derive(Default)]
pub(super) struct Tally {
    entries: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
    skipped: AtomicU64,
    verified: AtomicU64,
    problems: AtomicU64,
}

impl<'a> Context<'a> {
    pub fn new(
        reader: &'a Reader,
        root: Option<BlobId>,
        options: &'a RestoreOptions,
        monitor: &'a Arc<dyn Monitor>,
        existing: Option<&'a Destination>,
    ) -> Self {
        Self {
            options,
            root,
            source: Source::new(reader),
            monitor,
            existing,
            kept: Marks::default(),
            failed: Marks::default(),
            tally: Tally::default(),
            root_name: EntryPath::root(),
            links: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            error: Mutex::new(None),
        }
    }

    /// With a name for the root.
    pub fn with_root_name(self, root_name: EntryPath) -> Self {
        Self { root_name, ..self }
    }

    /// A problem that says what it is about.
    pub fn problem(&self, problem: Problem) {
        self.tally.problems.fetch_add(1, Ordering::Relaxed);
        self.monitor.problem(problem);
    }

    /// An entry is not restored.
    pub fn fail(&self, number: u64, path: &EntryPath, message: String) {
        self.failed.set(number);
        self.problem(Problem { subject: path.display(), message });
    }

    /// The target refused an entry; ends the run if it would refuse all others too.
    pub fn refused(&self, dest: &Destination, number: u64, error: DestError) {
        self.failed.set(number);
        if error.is_full() {
            self.stop(to_error(dest.target(), error));
        } else {
            self.problem(error.into());
        }
    }

    /// Parts of an entry's metadata that could not be restored.
    pub fn warn(&self, path: &EntryPath, warnings: Warnings) {
        for message in warnings {
            self.problem(Problem { subject: path.display(), message });
        }
    }

    /// An entry is restored.
    pub fn restored(&self) {
        self.tally.entries.fetch_add(1, Ordering::Relaxed);
        self.monitor.count(Counter::Entries, 1);
    }

    /// A regular file is restored, with so much data.
    pub fn restored_file(&self, bytes: u64) {
        self.tally.files.fetch_add(1, Ordering::Relaxed);
        self.tally.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.restored();
    }

    /// An entry is left as it is. Its bytes count as dealt with.
    pub fn skipped(&self, bytes: u64) {
        self.tally.skipped.fetch_add(1, Ordering::Relaxed);
        self.monitor.count(Counter::Entries, 1);
        self.monitor.count(Counter::Bytes, bytes);
    }

    /// A file was read again and is right.
    pub fn verified(&self) {
        self.tally.verified.fetch_add(1, Ordering::Relaxed);
    }

    /// There are files with several names.
    pub fn note_link(&self) {
        self.links.store(true, Ordering::Relaxed);
    }

    /// Whether there are files with several names.
    pub fn has_links(&self) -> bool {
        self.links.load(Ordering::Relaxed)
    }

    /// Ends the run. The first error counts.
    pub fn stop(&self, error: Error) {
        lock(&self.error).get_or_insert(error);
        self.stopped.store(true, Ordering::Release);
    }

    /// Whether the run is to end now.
    pub fn stopped(&self) -> bool {
        if self.monitor.cancelled() && !self.stopped.load(Ordering::Acquire) {
            self.monitor.note(RESUME.to_owned());
            self.stop(Error::Interrupted);
        }
        self.stopped.load(Ordering::Acquire)
    }

    /// Fails if the run has been ended.
    pub fn check(&self) -> Result<()> {
        if !self.stopped() {
            return Ok(());
        }
        Err(lock(&self.error).take().unwrap_or(Error::Interrupted))
    }

    pub fn outcome(&self) -> RestoreOutcome {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RestoreOutcome {
            entries: get(&self.tally.entries),
            files: get(&self.tally.files),
            bytes: get(&self.tally.bytes),
            skipped: get(&self.tally.skipped),
            verified: get(&self.tally.verified),
            problems: get(&self.tally.problems),
        }
    }
}

/// An error of the target that ends the run.
pub(super) fn to_error(target: &Path, error: DestError) -> Error {
    let path = target.to_owned();
    match error {
        DestError::Io { path: entry, source, .. } if is_full(&source) => {
            let message = format!("no room left for {entry}: {source}; {RESUME}");
            Error::Io { path, action: "cannot restore", source: std::io::Error::new(source.kind(), message) }
        }
        DestError::Io { action, source, .. } => Error::Io { path, action, source },
        other => Error::Io { path, action: "cannot use as a target", source: std::io::Error::other(other.to_string()) },
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// A set of entries by number, a bit for each up to the highest in it.
#[derive(Default)]
pub(super) struct Marks(Mutex<Vec<u64>>);

impl Marks {
    fn place(number: u64) -> (usize, u64) {
        (usize::try_from(number / 64).unwrap_or(usize::MAX), 1 << (number % 64))
    }

    pub fn set(&self, number: u64) {
        let (word, bit) = Self::place(number);
        let mut words = lock(&self.0);
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        words[word] |= bit;
    }

    pub fn has(&self, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        lock(&self.0).get(word).is_some_and(|w| w & bit != 0)
    }
}
