//! What a selection leaves of an archive.
//!
//! Patterns are about paths as `list-current-files` prints them. A directory that only leads to something wanted comes with its
//! metadata, once there is something wanted in it.

use engine::entry::Kind;
use engine::path::EntryPath;

use super::replay::Replayed;
use super::select::{Attributes, Candidate, Selection, Verdict};

/// The entries that are wanted, out of all in order.
pub(super) struct Chosen {
    selection: Selection,
    /// What lies in it is left out with it.
    excluded: Option<EntryPath>,
    /// Directories on the way to what may be wanted.
    deferred: Vec<Replayed>,
}

impl Chosen {
    pub fn new(selection: Selection) -> Self {
        Self { selection, excluded: None, deferred: Vec::new() }
    }

    /// What is to be written once this entry is come to.
    pub fn take(&mut self, entry: Replayed) -> Vec<Replayed> {
        if self.selection.is_empty() {
            return vec![entry];
        }
        self.deferred.retain(|dir| entry.path.is_within(&dir.path));
        if self.excluded.as_ref().is_some_and(|dir| entry.path.is_within(dir)) {
            return Vec::new();
        }
        let is_dir = entry.kind == Kind::Directory;
        let verdict = if entry.path.is_root() { Verdict::Scan } else { self.selection.judge(entry.path.as_bytes(), &entry) };
        match verdict {
            Verdict::Include => self.deferred.drain(..).chain([entry]).collect(),
            Verdict::Scan if is_dir => {
                self.deferred.push(entry);
                Vec::new()
            }
            Verdict::Exclude if is_dir => {
                self.excluded = Some(entry.path);
                Vec::new()
            }
            Verdict::Scan | Verdict::Exclude => Vec::new(),
        }
    }
}

impl Candidate for Replayed {
    fn is_dir(&self) -> bool {
        self.kind == Kind::Directory
    }

    fn attributes(&self) -> Option<Attributes> {
        Some(Attributes {
            is_file: self.kind == Kind::File,
            is_device: matches!(self.kind, Kind::CharDevice(..) | Kind::BlockDevice(..)),
            mtime: self.header.mtime,
            file_system: None,
        })
    }

    /// Not known; [`Selection::of_archive`] takes no rule that asks.
    fn holds(&self, _: &[u8]) -> bool {
        false
    }
}
