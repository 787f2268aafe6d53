//! Check: whether a repository is whole, from the key slots down to every byte of every pack.
//!
//! Damage never ends a check: each finding goes to the monitor and is counted, and the check goes on with what is left.
//! Nothing is believed because a cache says so: the index is built anew from the segments as they are in the store. In this
//! order: [`head`] (config, keys, epochs), [`structure`] (segments, packs by name and size), [`tree`] (snapshots down to
//! the places of their blobs), where asked for [`data`] (the packs' bytes), and where there is any, [`parity`].
//!
//! What only the machine that has stored it can see: a snapshot that was removed before a seal named it.

mod data;
mod head;
mod node;
mod parity;
mod rotation;
mod stored;
mod structure;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

pub use stored::{StoredReport, stored_objects};

use crate::backend::ErrorKind;
use crate::error::{Error, Result};
use crate::monitor::{Collector, Monitor, Problem, lock};
use crate::repo::{Repository, View};

/// How often a check begins anew because maintenance replaced segments that it was about to read.
const MAX_ROUNDS: usize = 5;

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CheckLevel {
    /// All but the contents of packs: they are there with their sizes, and every blob of every snapshot has a place.
    Structure,
    /// Every byte as well.
    ReadData,
    /// The bytes of some packs as well.
    Subset(Share),
}

/// Which packs are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Share {
    /// A fixed share: the packs for which the first four bytes of the id, modulo `of`, are `number - 1`. All numbers from
    /// 1 to `of` together cover every pack.
    Part {
        /// From 1.
        number: u32,
        /// How many shares there are.
        of: u32,
    },
    /// The part after the one that the last check of this kind has read, as the cache's directory remembers, so that `of` checks
    /// read every pack; and a few more packs, chosen by chance, for a store could know which part comes next.
    Next {
        /// How many parts there are.
        of: u32,
    },
    /// So many percent of the packs, at least one, chosen by chance: the store cannot tell which.
    Percent(f64),
}

/// What was looked at, and how much of it is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Key slots that are in order.
    pub keys: u64,
    /// Index segments that count.
    pub segments: u64,
    /// Packs that the index names.
    pub packs: u64,
    /// Places of blobs in the index; a blob that lies in two packs has two.
    pub blobs: u64,
    /// Snapshots that could be read.
    pub snapshots: u64,
    /// Nodes of catalogs and blob lists that were read, each once.
    pub nodes: u64,
    /// Entries in those nodes.
    pub entries: u64,
    /// Packs that were read whole, unreferenced ones included.
    pub packs_read: u64,
    /// Their sizes added up.
    pub bytes_read: u64,
    /// The part that was read, from 1, where parts are read in turn.
    pub part: Option<u32>,
    /// Packs that no segment names: left by interrupted backups, or still being written by running ones.
    pub unreferenced_packs: u64,
    /// Their sizes added up.
    pub unreferenced_bytes: u64,
    /// Damaged and missing objects that parity can bring back.
    pub mendable: u64,
    /// Findings. 0 means that everything that was looked at is in order.
    pub errors: u64,
}

impl CheckLevel {
    fn validate(&self) -> Result<()> {
        match self {
            Self::Subset(Share::Part { number, of }) if *number == 0 || number > of => {
                Err(Error::Invalid(format!("there is no part {number} of {of}")))
            }
            Self::Subset(Share::Next { of: 0 }) => Err(Error::Invalid("there is no part of nothing".into())),
            Self::Subset(Share::Percent(p)) if !(*p > 0.0 && *p <= 100.0) => {
                Err(Error::Invalid(format!("{p} % is no share: it must be above 0 and at most 100")))
            }
            _ => Ok(()),
        }
    }
}

/// Checks a repository. `cache_dir` holds a temporary index meanwhile; without it, that is in memory. The index cache
/// that is there already is compared with the segments, and taken away if it differs.
///
/// # Errors
///
/// [`Error::Interrupted`] if the monitor says so; [`Error::Invalid`] for an impossible share; whatever keeps the check from
/// going on, such as a store that cannot be reached. Damage is no error but a finding: see [`CheckReport::errors`].
pub fn run(
    repo: &Arc<Repository>,
    cache_dir: Option<&Path>,
    level: &CheckLevel,
    monitor: &Arc<dyn Monitor>,
) -> Result<CheckReport> {
    level.validate()?;
    let check = Check { repo, monitor: &**monitor, errors: AtomicU64::new(0), gone: Mutex::default(), bad: Mutex::default() };
    let mut report = CheckReport::default();
    let seals = head::check(&check, &mut report)?;
    let (view, built) = load(&check, cache_dir)?;
    report.segments = view.segments.len() as u64;
    report.blobs = built.index.len();
    let packs = structure::compare_packs(&check, &view, &built, &mut report)?;
    tree::check(&check, &view, &seals, &built.index, &packs, &mut report)?;
    if built.complete {
        structure::compare_cache(&check, cache_dir, &view, &built.index);
    }
    drop(built);
    data::check(&check, &packs, level, cache_dir, &mut report)?;
    if check.settle(&view)? {
        monitor.note("maintenance went on meanwhile, and objects it has replaced could not be looked at: check again".into());
    }
    parity::check(&check, level, &mut report)?;
    report.errors = check.errors.load(Ordering::Relaxed);
    Ok(report)
}

/// Looks at what counts and reads the index, again if maintenance replaces it meanwhile.
fn load(check: &Check<'_>, cache_dir: Option<&Path>) -> Result<(View, structure::Built)> {
    for _ in 0..MAX_ROUNDS {
        let (view, alarm) = head::view(check)?;
        let built = structure::build_index(check, cache_dir, &view)?;
        let is_replaced = built.is_missing_some && check.is_outdated(&view)?;
        if !check.settle(&view)? && !is_replaced {
            if let Some(alarm) = alarm {
                check.problem("history", alarm);
            }
            return Ok((view, built));
        }
    }
    Err(Error::Invalid("the repository's maintenance does not come to rest; try again later".into()))
}

/// What all stages share.
struct Check<'a> {
    repo: &'a Repository,
    monitor: &'a dyn Monitor,
    errors: AtomicU64,
    /// Objects that are not in the store. Whether that is damage depends on what maintenance did meanwhile.
    gone: Mutex<Vec<(String, String)>>,
    /// What the findings are about.
    bad: Mutex<BTreeSet<String>>,
}

impl Check<'_> {
    /// Counts and reports a finding.
    fn problem(&self, subject: impl Display, message: impl Display) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let problem = Problem { subject: subject.to_string(), message: message.to_string() };
        lock(&self.bad).insert(problem.subject.clone());
        self.monitor.problem(problem);
    }

    /// An object is not there.
    fn gone(&self, object: impl Display, message: impl Display) {
        lock(&self.gone).push((object.to_string(), message.to_string()));
    }

    /// Makes a finding of an error with one object. Returns what no check can go on after: if the store cannot be reached,
    /// the next object will fare no better.
    fn absorb(&self, object: impl Display, error: Error) -> Result<()> {
        match error {
            Error::Damaged { object, detail } => self.problem(object, detail),
            Error::Backend(e) if e.kind == ErrorKind::NotFound => self.gone(object, "is not in the store"),
            Error::Backend(e) if !matches!(e.kind, ErrorKind::NoStore | ErrorKind::Throttled | ErrorKind::Timeout) => {
                self.problem(object, e.message);
            }
            error => return Err(error),
        }
        Ok(())
    }

    /// Fails once the user wants to stop.
    fn go_on(&self) -> Result<()> {
        if self.monitor.cancelled() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Judges the objects that are not there: if there is a newer seal than the view's, maintenance may rightly have removed
    /// them, and `true` is returned; else they are findings.
    fn settle(&self, view: &View) -> Result<bool> {
        let gone = std::mem::take(&mut *lock(&self.gone));
        if gone.is_empty() {
            return Ok(false);
        }
        if self.is_outdated(view)? {
            return Ok(true);
        }
        for (object, message) in gone {
            self.problem(object, message);
        }
        Ok(false)
    }

    /// Whether there is a newer seal than the view's.
    fn is_outdated(&self, view: &View) -> Result<bool> {
        Ok(self.repo.load_any_view(&Collector::default())?.0.head != view.head)
    }

    /// Threads for reading many small things.
    fn readers(&self) -> usize {
        self.repo.backend().concurrency().clamp(1, 16)
    }

    /// Calls `each` for all items on so many threads, each with a `W` of its own. Stops at the first error, and when the
    /// user wants to.
    fn in_parallel<T: Sync, W: Default>(
        &self,
        threads: usize,
        items: &[T],
        each: impl Fn(&mut W, &T) -> Result<()> + Sync,
    ) -> Result<()> {
        let (next, stop, failure) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
        let work = || {
            let mut own = W::default();
            while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !stop.load(Ordering::Relaxed)) {
                if let Err(error) = self.go_on().and_then(|()| each(&mut own, item)) {
                    stop.store(true, Ordering::Relaxed);
                    lock(&failure).get_or_insert(error);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(items.len()) {
                scope.spawn(work);
            }
            work();
        });
        failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
    }
}
