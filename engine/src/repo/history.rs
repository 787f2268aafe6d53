//! Whether a repository is what it was: whoever holds the store can put an old copy of it back, take away what no seal names
//! yet, or show different machines different stores. Each seal names the hash of the one before, so one that was seen once
//! must be found again below any later one.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::epochs::EpochStore;
use super::names::{self, EpochRole};
use super::pin::{Pin, PinFile};
use super::{Repository, SnapshotName, View, parallel};
use crate::error::{Error, Result};
use crate::id::{Epoch, ObjectId};
use crate::monitor::{Collector, Monitor};
use crate::protocol::{self, Name, Store};

/// Fewer digits of a seal's hash say too little.
const MIN_DIGITS: usize = 6;

/// What a repository is held against whenever it is looked at.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Directory in which this machine remembers what it has seen; nothing is remembered without one.
    pub dir: Option<PathBuf>,
    /// A seal that must be there, as somebody has noted it.
    pub expected: Option<HeadName>,
    /// What contradicts the memory is noted and forgotten, and the repository taken as it is.
    pub accept: bool,
}

/// A seal by its epoch and the first digits of its hash: `42-7f3a9c12`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadName {
    epoch: Epoch,
    digits: String,
}

impl HeadName {
    /// The whole name.
    #[must_use]
    pub fn new((epoch, id): (Epoch, ObjectId)) -> Self {
        Self { epoch, digits: id.to_string() }
    }

    /// For people.
    #[must_use]
    pub fn short((epoch, id): (Epoch, ObjectId)) -> Self {
        Self { epoch, digits: id.short() }
    }

    fn fits(&self, id: &ObjectId) -> bool {
        id.to_string().starts_with(&self.digits)
    }
}

impl fmt::Display for HeadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.digits)
    }
}

impl FromStr for HeadName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (epoch, digits) = text.split_once('-')?;
            let digits = digits.to_ascii_lowercase();
            let good = (MIN_DIGITS..=2 * ObjectId::LEN).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            Some(Self { epoch: epoch.parse().ok()?, digits }).filter(|_| good)
        };
        parse().ok_or_else(|| format!("'{text}' is no head: it is written as 'backup' prints it, such as 42-7f3a9c12"))
    }
}

/// A store that is not what it was.
fn alarm(text: impl Into<String>) -> Error {
    Error::Rollback(text.into())
}

/// Seals from the latest one down.
struct Links {
    /// Snapshots that any of them has left out because they were to be forgotten.
    dropped: HashSet<Name>,
    /// Hash of the seal below the last of them, as that says.
    before: Option<ObjectId>,
}

/// The seals above an epoch, all of them without one. Reads those below the latest one.
fn links(repo: &Repository, view: &View, above: Option<Epoch>) -> Result<Links> {
    let mut links = Links { dropped: view.dropped.iter().copied().collect(), before: view.before };
    let first = above.map_or(0, |epoch| epoch.saturating_add(1));
    let epochs: Vec<Epoch> = view.head.map_or(Vec::new(), |(head, _)| (first..head).rev().collect());
    let quiet = Collector::default();
    let store = EpochStore::new(repo, &quiet);
    let read = parallel::map(repo.backend().concurrency(), &epochs, |epoch| {
        let found = protocol::run(store.read_seal(*epoch))?;
        Ok::<_, Error>(found.map(|(id, seal)| (id, seal.previous, seal.forgotten)))
    });
    for (epoch, found) in epochs.into_iter().zip(read) {
        let object = names::epoch(epoch, EpochRole::Seal);
        let Some((id, previous, dropped)) = found? else {
            return Err(alarm(format!("{object}: missing or damaged, so what went before it cannot be told")));
        };
        if links.before != Some(id) {
            return Err(alarm(format!("{object}: not the one that the next seal names: the history was replaced")));
        }
        links.before = previous;
        links.dropped.extend(dropped);
    }
    Ok(links)
}

/// Fails unless the view's seal is this one, or a later one on top of it.
fn has_seal(repo: &Repository, view: &View, seal: &HeadName, whose: &str) -> Result<()> {
    let wanted = HeadName { epoch: seal.epoch, digits: seal.digits.chars().take(8).collect() };
    let found = match view.head {
        None => return Err(alarm(format!("the repository has no seal, but {whose} {wanted}: {WHY_OLD}"))),
        Some(head) if head.0 < seal.epoch => {
            let head = HeadName::short(head);
            return Err(alarm(format!("the repository's latest seal is {head}, but {whose} {wanted}: {WHY_OLD}")));
        }
        Some((epoch, id)) if epoch == seal.epoch => Some(id),
        Some(_) => links(repo, view, Some(seal.epoch))?.before,
    };
    match found {
        Some(id) if seal.fits(&id) => Ok(()),
        _ => {
            let object = names::epoch(seal.epoch, EpochRole::Seal);
            Err(alarm(format!(
                "{object}: another one, for {whose} {wanted}: the history was replaced, or machines are shown different stores"
            )))
        }
    }
}

const WHY_OLD: &str = "an old copy of the store was put back, or objects below epochs/ were deleted";

/// Fails unless each of the own snapshots is there or was forgotten.
fn has_snapshots(repo: &Repository, view: &View, pin: &Pin) -> Result<()> {
    let there = there(view);
    let missing: Vec<&SnapshotName> = pin.own.iter().filter(|name| !there.contains(&(name.epoch, name.id))).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let sealed = view.head.map(|(epoch, _)| epoch);
    let decided = missing.iter().any(|name| Some(name.epoch) <= sealed);
    let dropped = if decided { links(repo, view, pin.head.map(|(epoch, _)| epoch))?.dropped } else { HashSet::new() };
    match missing.into_iter().find(|name| !dropped.contains(&(name.epoch, name.id))) {
        None => Ok(()),
        Some(gone) if Some(gone.epoch) <= sealed => Err(alarm(format!(
            "{}: this machine has stored this snapshot and nobody asked to forget it, but maintenance has not seen it: it was hidden \
             or deleted before it was sealed",
            names::snapshot(gone)
        ))),
        Some(gone) => Err(alarm(format!(
            "{}: this machine has stored this snapshot, and it is gone: it was deleted, or an old copy of the store was put back",
            names::snapshot(gone)
        ))),
    }
}

/// Snapshots that are there, or that somebody asked to forget.
fn there(view: &View) -> HashSet<Name> {
    let listed = view.snapshots.iter().chain(&view.forgotten).map(|name| (name.epoch, name.id));
    listed.chain(view.requests.iter().flat_map(|(_, names)| names).copied()).collect()
}

impl Repository {
    /// Holds the repository against what is known of it whenever a view is loaded, and remembers what is seen.
    #[must_use]
    pub fn watched(mut self, watch: Watch) -> Self {
        self.pin = watch.dir.as_deref().map(PinFile::new);
        self.watch = watch;
        self
    }

    /// What this machine remembers. To be asked before the store is: what comes up meanwhile must not count as missing.
    pub(super) fn remembered(&self) -> Result<Pin> {
        self.pin.as_ref().map_or_else(|| Ok(Pin::default()), PinFile::load)
    }

    /// Holds a view against what was known before it was loaded.
    ///
    /// # Errors
    ///
    /// [`Error::Rollback`] if the store is not what it was, [`Error::UnexpectedHead`] if not what it was expected to be; what the
    /// store returns.
    pub(super) fn judge(&self, view: &View, pin: &Pin, monitor: &dyn Monitor) -> Result<()> {
        self.judge_head(view, pin, monitor)?;
        if let Err(error) = has_snapshots(self, view, pin) {
            self.accept(error, monitor)?;
        }
        let there = there(view);
        let is_open = |name: &SnapshotName| there.contains(&(name.epoch, name.id)) && !view.sealed.contains(name);
        let settled: HashSet<SnapshotName> = pin.own.iter().filter(|name| !is_open(name)).copied().collect();
        self.remember(monitor, |known| known.own.retain(|name| !settled.contains(name)));
        Ok(())
    }

    fn judge_head(&self, view: &View, pin: &Pin, monitor: &dyn Monitor) -> Result<()> {
        if let Some(expected) = &self.watch.expected {
            has_seal(self, view, expected, "it was expected to have").map_err(|error| match error {
                Error::Rollback(text) => Error::UnexpectedHead(text),
                error => error,
            })?;
        }
        if let Some(head) = pin.head
            && let Err(error) = has_seal(self, view, &HeadName::new(head), "this machine has seen")
        {
            self.accept(error, monitor)?;
            self.remember(monitor, |known| known.head = view.head);
        }
        if view.head != pin.head {
            self.remember_head(view.head, monitor);
        }
        Ok(())
    }

    /// Only the history of seals: for commands that load no view. Two small requests, none where nothing is known.
    ///
    /// # Errors
    ///
    /// [`Error::Rollback`] if the store is not what it was; what the store returns.
    pub fn check_head(&self, monitor: &dyn Monitor) -> Result<()> {
        if self.pin.is_none() && self.watch.expected.is_none() {
            return Ok(());
        }
        let pin = self.remembered()?;
        let view = protocol::run(protocol::head(&EpochStore::new(self, monitor)))?;
        self.judge_head(&view, &pin, monitor)
    }

    /// Passes an alarm on, unless the user wants the repository as it is.
    fn accept(&self, error: Error, monitor: &dyn Monitor) -> Result<()> {
        match error {
            Error::Rollback(text) if self.watch.accept => {
                monitor.note(format!("{text}; accepted"));
                Ok(())
            }
            error => Err(error),
        }
    }

    /// Remembers a seal, unless a later one is known.
    pub(super) fn remember_head(&self, head: Option<(Epoch, ObjectId)>, monitor: &dyn Monitor) {
        let epoch = |head: &Option<(Epoch, ObjectId)>| head.map(|(epoch, _)| epoch);
        self.remember(monitor, |known| {
            if epoch(&known.head) < epoch(&head) {
                known.head = head;
            }
        });
    }

    /// Remembers a snapshot that was just committed.
    pub(crate) fn remember_snapshot(&self, name: SnapshotName, monitor: &dyn Monitor) {
        self.remember(monitor, |known| {
            known.own.insert(name);
        });
    }

    /// Failing to is no failure of what was done: only the next alarm may be missing.
    fn remember(&self, monitor: &dyn Monitor, change: impl FnOnce(&mut Pin)) {
        if let Some(file) = &self.pin
            && let Err(error) = file.update(change)
        {
            monitor.note(format!("{error}; a rollback of the repository may go unnoticed"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_written_as_they_are_printed() {
        let head = (42, ObjectId([0xab; 32]));
        for name in [HeadName::new(head), HeadName::short(head)] {
            assert_eq!(name.to_string().parse(), Ok(name.clone()));
            assert!(name.fits(&head.1));
        }
        assert_eq!("42-ABABAB".parse::<HeadName>().unwrap().to_string(), "42-ababab");
        for bad in ["", "42", "42-", "42-abcde", "-ababab", "x-ababab", "42-abxyzw", &format!("1-{}", "a".repeat(65))] {
            assert!(bad.parse::<HeadName>().is_err(), "{bad}");
        }
    }
}
