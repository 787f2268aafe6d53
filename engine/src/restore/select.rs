//! Which entries of the catalog are restored, and where to.

use super::context::Context;
use super::source::is_missing;
use crate::catalog::CatalogReader;
use crate::entry::{Entry, Metadata, Xattrs};
use crate::error::{Error, Result};
use crate::monitor::Problem;
use crate::path::EntryPath;

/// An entry to be dealt with.
pub(super) struct Selected {
    /// Counted up; the same in every pass.
    pub number: u64,
    /// The entry, its path that beneath the target.
    pub entry: Entry,
    /// `false` for a directory that is only created for what is beneath it.
    pub wanted: bool,
}

/// Numbers of entries before which a part of the catalog could not be read. They tell whether a later pass sees the same.
#[derive(Default)]
pub(super) struct Gaps(Vec<u64>);

impl Gaps {
    /// What the first pass found, for the later ones.
    pub fn found(self) -> Expected {
        Expected(self.0)
    }
}

/// What the first pass could not read.
pub(super) struct Expected(Vec<u64>);

/// What to do about parts of the catalog that cannot be read.
pub(super) enum Pass<'a> {
    /// Report them.
    First(&'a mut Gaps),
    /// Pass over them.
    Later(&'a Expected),
}

/// The selected entries, in the order of the catalog.
pub(super) struct Selection<'a> {
    context: &'a Context<'a>,
    pass: Pass<'a>,
    catalog: CatalogReader<'a>,
    /// The last entry's path in the snapshot.
    last: Option<EntryPath>,
    next: u64,
    /// Gaps met so far, as far as they differ.
    gaps: usize,
    retried: Option<u64>,
}

impl<'a> Selection<'a> {
    pub fn new(context: &'a Context<'a>, pass: Pass<'a>) -> Result<Self> {
        let start = || CatalogReader::at(context.source.reader, context.root, &context.options.base);
        let catalog = match start() {
            Err(e) if is_missing(&e) => {
                context.source.reload()?;
                start()?
            }
            result => result?,
        };
        Ok(Self { context, pass, catalog, last: None, next: 0, gaps: 0, retried: None })
    }

    /// The next one; `None` at the end.
    ///
    /// # Errors
    ///
    /// Why the run has to end: it was stopped, or the catalog cannot be read in a way that is not a matter of one part.
    pub fn next(&mut self) -> Result<Option<Selected>> {
        let options = self.context.options;
        loop {
            self.context.check()?;
            let Some(mut entry) = self.advance()? else { return Ok(None) };
            let wanted = options.filter.as_ref().is_none_or(|wanted| wanted(&entry.path, entry.is_directory()));
            if !wanted && !entry.is_directory() {
                continue;
            }
            let number = self.next;
            self.next += 1;
            if !options.base.is_root() {
                entry.path = below(&options.base, &entry);
            } else if entry.path.is_root() && !entry.is_directory() {
                entry.path = self.context.root_name.clone();
            }
            return Ok(Some(Selected { number, entry, wanted }));
        }
    }

    /// The next entry within the base.
    fn advance(&mut self) -> Result<Option<Entry>> {
        loop {
            match self.catalog.next_entry() {
                Ok(Some(entry)) if self.last.as_ref().is_some_and(|last| *last >= entry.path) => {}
                Ok(Some(entry)) if within(&entry.path, &self.context.options.base) => {
                    self.last = Some(entry.path.clone());
                    return Ok(Some(entry));
                }
                Ok(_) if self.last.is_none() && self.gaps == 0 && !self.context.options.base.is_root() => {
                    let base = self.context.options.base.display();
                    return Err(Error::Invalid(format!("'{base}' is not in the snapshot")));
                }
                Ok(_) => return self.end(),
                Err(e) if is_missing(&e) && self.retried != Some(self.next) => self.retry()?,
                Err(e) if e.is_local() => self.gap(&e)?,
                Err(e) => return Err(e),
            }
        }
    }

    fn retry(&mut self) -> Result<()> {
        self.retried = Some(self.next);
        self.context.source.reload()?;
        let from = self.last.as_ref().unwrap_or(&self.context.options.base);
        self.catalog = CatalogReader::at(self.context.source.reader, self.context.root, from)?;
        Ok(())
    }

    /// A part of the catalog cannot be read: its entries are lost, and the stream goes on after them.
    fn gap(&mut self, error: &Error) -> Result<()> {
        match &mut self.pass {
            Pass::First(gaps) => {
                if gaps.0.last() != Some(&self.next) {
                    gaps.0.push(self.next);
                }
                let message = format!("{error}; the entries in this part of the catalog cannot be restored");
                self.context.problem(Problem { subject: "catalog".to_owned(), message });
                self.gaps = gaps.0.len();
                Ok(())
            }
            Pass::Later(Expected(expected)) => {
                if self.gaps > 0 && expected.get(self.gaps - 1) == Some(&self.next) {
                    return Ok(());
                }
                self.gaps += 1;
                if expected.get(self.gaps - 1) == Some(&self.next) { Ok(()) } else { Err(unsteady()) }
            }
        }
    }

    fn end(&self) -> Result<Option<Entry>> {
        match &self.pass {
            Pass::Later(Expected(expected)) if expected.len() != self.gaps => Err(unsteady()),
            _ => Ok(None),
        }
    }
}

fn unsteady() -> Error {
    Error::damaged("catalog", "reads differently each time (failing storage?)")
}

/// Where an entry goes beneath the target.
fn below(base: &EntryPath, entry: &Entry) -> EntryPath {
    match entry.path.strip(base) {
        Some(path) if path.is_root() && !entry.is_directory() => EntryPath::new(entry.path.name()).unwrap_or_default(),
        Some(path) => path,
        None => entry.path.clone(),
    }
}

/// Whether `path` is `dir` or beneath it. Allocates nothing, other than [`EntryPath::is_within`].
fn within(path: &EntryPath, dir: &EntryPath) -> bool {
    let (path, dir) = (path.as_bytes(), dir.as_bytes());
    dir.is_empty() || path.starts_with(dir) && matches!(path.get(dir.len()), None | Some(b'/'))
}

/// A directory that the stream is in.
pub(super) struct Level {
    pub path: EntryPath,
    /// None for a directory whose own entry is not known.
    pub number: Option<u64>,
    pub meta: Option<(Metadata, Xattrs)>,
    /// It cannot be used: neither can what is beneath it.
    pub blocked: bool,
}

/// The directories around the current entry.
#[derive(Default)]
pub(super) struct Stack {
    levels: Vec<Level>,
    /// How many of them, from the top, something wanted lies in.
    used: usize,
}

impl Stack {
    /// Goes on to `next`. Hands the directories in use that it is not in to `left`, children before parents, and adds it if
    /// it is a directory.
    pub fn enter(&mut self, next: &Selected, mut left: impl FnMut(Level)) {
        let path = &next.entry.path;
        self.leave(|level| !within(path, &level.path), &mut left);
        let parent = path.as_bytes().iter().rposition(|b| *b == b'/').map_or(&[][..], |at| &path.as_bytes()[..at]);
        let top = self.levels.last().map_or(&[][..], |level| level.path.as_bytes());
        if parent != top && !path.is_root() {
            let path = path.parent().unwrap_or_default();
            self.levels.push(Level { path, number: None, meta: None, blocked: false });
        }
        if next.entry.is_directory() {
            let meta = Some((next.entry.meta.clone(), next.entry.xattrs.clone()));
            self.levels.push(Level { path: path.clone(), number: Some(next.number), meta, blocked: false });
        }
    }

    /// The end: all directories are left.
    pub fn finish(&mut self, mut left: impl FnMut(Level)) {
        self.leave(|_| true, &mut left);
    }

    fn leave(&mut self, is_left: impl Fn(&Level) -> bool, left: &mut impl FnMut(Level)) {
        while self.levels.last().is_some_and(&is_left) {
            let Some(level) = self.levels.pop() else { return };
            if self.levels.len() < self.used {
                self.used = self.levels.len();
                left(level);
            }
        }
    }

    /// Something wanted lies in all these directories: calls `first` for each of which that was not known, from the top,
    /// until one says that it is blocked. Returns whether all can be used.
    pub fn use_all(&mut self, mut first: impl FnMut(&mut Level)) -> bool {
        loop {
            if self.used > 0 && self.levels.get(self.used - 1).is_some_and(|level| level.blocked) {
                return false;
            }
            let Some(level) = self.levels.get_mut(self.used) else { return true };
            first(level);
            self.used += 1;
        }
    }
}
