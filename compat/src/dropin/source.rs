//! The files of this machine that a selection leaves, in order, with paths below the source.

use std::collections::{BTreeSet, VecDeque};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use engine::entry::{EntrySource, Kind, SourceEntry};
use engine::fs::{PathFilter, WalkOptions, WalkSource};
use engine::monitor::{Counter, Monitor, Problem};
use engine::path::{EntryPath, display_bytes};

use super::context::Context;
use super::failure::{Failure, Result, code};
use super::log::{Level, Log, code as stanza, quoted};
use super::select::{Local, Selection, Verdict, canonical_path};

/// Bytes of names that are remembered of what the walk could not look at; beyond, nothing is sure to be gone.
const MAX_DOUBTS: usize = 1 << 20;

/// The walk of a source.
pub(super) struct Source {
    walk: WalkSource,
    base: EntryPath,
    filter: Arc<Filter>,
    /// Directories that are given only if something in them is.
    deferred: Vec<SourceEntry>,
    ready: VecDeque<SourceEntry>,
}

/// Leaves out what the selection excludes.
struct Filter {
    selection: Selection,
    /// Absolute path of the source.
    root: PathBuf,
}

impl Filter {
    fn judge(&self, absolute: &[u8], is_dir: bool) -> Verdict {
        let path = Path::new(std::ffi::OsStr::from_bytes(absolute));
        match path.strip_prefix(&self.root) {
            Ok(relative) if !relative.as_os_str().is_empty() => {
                self.selection.judge(relative.as_os_str().as_bytes(), &Local { path, is_dir })
            }
            _ => Verdict::Include,
        }
    }
}

impl PathFilter for Filter {
    fn excluded(&self, absolute_path: &[u8], is_dir: bool) -> bool {
        match self.judge(absolute_path, is_dir) {
            Verdict::Include => false,
            Verdict::Scan => !is_dir,
            Verdict::Exclude => true,
        }
    }
}

/// Says what a walk has to say, and counts what could not be read.
pub(super) struct Tally {
    log: Arc<Log>,
    cancelled: Arc<std::sync::atomic::AtomicBool>,
    errors: AtomicU64,
    doubts: Mutex<Doubts>,
}

/// What the walk could not look at, by absolute path as it is shown.
#[derive(Default)]
struct Doubts {
    paths: BTreeSet<String>,
    size: usize,
    too_many: bool,
}

impl Doubts {
    /// Whether this is the first that is too much.
    fn add(&mut self, path: &str) -> bool {
        self.size = self.size.saturating_add(path.len() + size_of::<String>());
        if self.too_many {
            return false;
        }
        if self.size <= MAX_DOUBTS {
            self.paths.insert(path.to_owned());
            return false;
        }
        self.paths.clear();
        self.too_many = true;
        true
    }

    fn covers(&self, path: &str) -> bool {
        let above = path.match_indices('/').map(|(at, _)| &path[..at.max(1)]);
        self.too_many || (!self.paths.is_empty() && above.chain([path]).any(|part| self.paths.contains(part)))
    }
}

impl Tally {
    pub fn new(context: &Context) -> Arc<Self> {
        let (log, cancelled) = (Arc::clone(&context.log), Arc::clone(&context.cancelled));
        Arc::new(Self { log, cancelled, errors: AtomicU64::new(0), doubts: Mutex::default() })
    }

    /// Files that could not be read so far.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Whether a file that the walk has not given, by its [`Source::shown`] path, may be there all the same: it, or a directory
    /// above, could not be looked at.
    pub fn is_doubtful(&self, shown: &str) -> bool {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner).covers(shown)
    }

    /// A file cannot be read.
    pub fn error(&self, path: &[u8], text: &str) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.log.say(Level::WARNING, stanza::CANNOT_READ, &quoted(path), text);
    }
}

impl Monitor for Tally {
    fn count(&self, _: Counter, _: u64) {}
    fn expect(&self, _: Counter, _: u64) {}
    fn stage(&self, _: &'static str) {}
    /// The walk says this before it gives what comes after the path in order.
    fn problem(&self, problem: Problem) {
        if self.doubts.lock().unwrap_or_else(PoisonError::into_inner).add(&problem.subject) {
            self.log.warn("too much could not be examined: no file is recorded as deleted from here on");
        }
        self.error(problem.subject.as_bytes(), &format!("Error accessing {}: {}", problem.subject, problem.message));
    }
    fn note(&self, text: String) {
        self.log.info(&text);
    }
    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// A walk that has not begun.
pub(super) struct Walk {
    selection: Selection,
    root: PathBuf,
}

impl Walk {
    /// Understands the rules. A source that is a symlink is one, not followed, as in duplicity.
    pub fn new(context: &Context, source: &Path) -> Result<Self> {
        let selection = Selection::new(source, &context.options.rules, context.options.null_separator)?;
        let root = absolute(source).map_err(|e| Failure::new(code::USER, format!("{}: {e}", source.display())))?;
        Ok(Self { selection, root })
    }

    /// Begins.
    pub fn start(self, tally: &Arc<Tally>) -> Result<Source> {
        let Self { selection, root } = self;
        let below = root.as_os_str().as_bytes().strip_prefix(b"/").unwrap_or_default();
        let base = EntryPath::new(below).map_err(|e| Failure::new(code::USER, format!("{}: {e}", root.display())))?;
        let filter = Arc::new(Filter { selection, root: root.clone() });
        let asked = (!filter.selection.is_empty()).then(|| Arc::clone(&filter) as Arc<dyn PathFilter>);
        let options = WalkOptions { roots: vec![root], one_file_system: false, exclude_if_present: Vec::new(), filter: asked };
        let walk = WalkSource::new(options, Arc::clone(tally) as Arc<dyn Monitor>)?;
        Ok(Source { walk, base, filter, deferred: Vec::new(), ready: VecDeque::new() })
    }
}

impl Source {
    /// The absolute path of a file of the source, as problems of the walk show it.
    pub fn shown(&self, path: &EntryPath) -> String {
        let separator = if self.base.is_root() || path.is_root() { "" } else { "/" };
        format!("/{}{separator}{}", display_bytes(self.base.as_bytes()), display_bytes(path.as_bytes()))
    }

    /// The next file, its path relative to the source.
    pub fn next(&mut self) -> Result<Option<SourceEntry>> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(Some(entry));
            }
            let Some(mut entry) = self.walk.next_entry()? else { return Ok(None) };
            let Some(path) = entry.path.strip(&self.base) else { continue };
            let absolute = [b"/", entry.path.as_bytes()].concat();
            entry.path = path;
            self.deferred.retain(|dir| entry.path.is_within(&dir.path));
            let is_dir = entry.kind == Kind::Directory;
            if is_dir && !self.filter.selection.is_empty() && self.filter.judge(&absolute, true) == Verdict::Scan {
                self.deferred.push(entry);
                continue;
            }
            self.ready.extend(self.deferred.drain(..));
            self.ready.push_back(entry);
        }
    }
}

/// The absolute path of a source, without following it if it is a symlink.
fn absolute(source: &Path) -> std::io::Result<PathBuf> {
    let path = canonical_path(source);
    let has_parents = path.components().any(|part| part == std::path::Component::ParentDir);
    if has_parents || path == Path::new(".") {
        return path.canonicalize();
    }
    let absolute = std::path::absolute(&path)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => Ok(absolute),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubts_cover_what_lies_below() {
        let mut doubts = Doubts::default();
        assert!(!doubts.covers("/a"));
        doubts.add("/a/b");
        for (path, is_covered) in [("/a/b", true), ("/a/b/c/d", true), ("/a", false), ("/a/bc", false), ("/a/b.c", false)] {
            assert_eq!(doubts.covers(path), is_covered, "{path}");
        }
        doubts.add("/");
        assert!(doubts.covers("/x"));
        let mut doubts = Doubts::default();
        let told = (0..20_000).filter(|number| doubts.add(&format!("/{number:0>64}"))).count();
        assert_eq!(told, 1);
        assert!(doubts.paths.is_empty() && doubts.covers("/anything"));
    }
}
