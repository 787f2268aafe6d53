//! What a set's signature file says of paths whose volume is missing.

use std::io::BufReader;
use std::sync::Arc;

use engine::entry::{Kind, Metadata};
use engine::path::EntryPath;

use super::fetch::{Opener, Wanted};
use crate::member::{Owners, entry_kind};
use crate::sigtar::{SigtarEntry, SigtarKind, SigtarReader};

/// A part of a set's paths in order.
#[derive(Clone, Debug)]
pub(super) struct Range {
    /// The first path that may be in it; the one that follows the last known one where this is not known.
    pub from: Option<EntryPath>,
    /// Where it ends.
    pub to: End,
}

#[derive(Clone, Debug)]
pub(super) enum End {
    /// With this path.
    With(EntryPath),
    /// Before this path.
    Before(EntryPath),
    /// With the set.
    Last,
}

impl Range {
    pub fn reaches(&self, path: &EntryPath) -> bool {
        match &self.to {
            End::With(to) => path <= to,
            End::Before(to) => path < to,
            End::Last => true,
        }
    }

    fn begins_after(&self, path: &EntryPath) -> bool {
        self.from.as_ref().is_some_and(|from| path < from)
    }
}

/// What the signature file says of a path.
pub(super) enum Known {
    Deleted(EntryPath),
    /// A regular file, whose content is elsewhere.
    File(EntryPath),
    /// Anything else; this is all there is to it.
    Other(EntryPath, Kind, Metadata),
}

impl Known {
    pub fn path(&self) -> &EntryPath {
        match self {
            Self::Deleted(path) | Self::File(path) | Self::Other(path, ..) => path,
        }
    }
}

type Content = BufReader<Box<dyn std::io::Read + Send>>;

/// The signature file of a set, opened when first needed and read once.
pub(super) struct Expected {
    state: State,
    next: Option<Known>,
    owners: Owners,
}

enum State {
    Closed { opener: Arc<Opener>, file: Wanted },
    Open(Box<SigtarReader<Content>>),
    Ended,
    Failed(String),
}

impl Expected {
    pub fn new(opener: &Arc<Opener>, file: Option<Wanted>) -> Self {
        let state = match file {
            Some(file) => State::Closed { opener: Arc::clone(opener), file },
            None => State::Failed("the signature file is missing, too".into()),
        };
        Self { state, next: None, owners: Owners::default() }
    }

    /// Why nothing more is known, if so.
    pub fn failure(&self) -> Option<&str> {
        match &self.state {
            State::Failed(why) => Some(why),
            _ => None,
        }
    }

    /// The next path within the range and behind `after`.
    pub fn next_in(&mut self, range: &Range, after: Option<&EntryPath>) -> Option<Known> {
        loop {
            let known = self.next.take().or_else(|| self.read())?;
            let path = known.path();
            if !range.reaches(path) {
                self.next = Some(known);
                return None;
            }
            if !range.begins_after(path) && after.is_none_or(|after| path > after) {
                return Some(known);
            }
        }
    }

    fn read(&mut self) -> Option<Known> {
        if let State::Closed { opener, file } = &self.state {
            self.state = match opener.open(file) {
                Ok(opened) => State::Open(Box::new(SigtarReader::new(BufReader::new(opened.content)))),
                Err(error) => State::Failed(format!("the signature file is of no use: {error}")),
            };
        }
        loop {
            let State::Open(sigtar) = &mut self.state else { return None };
            match sigtar.next() {
                Ok(Some(entry)) => return Some(self.known(entry)),
                Ok(None) => self.state = State::Ended,
                // The entry is lost with it; where it belongs nobody knows.
                Err(error) if !error.is_fatal() => self.state = State::Failed(format!("the signature file is damaged: {error}")),
                Err(error) => self.state = State::Failed(format!("the signature file cannot be read on: {error}")),
            }
        }
    }

    fn known(&mut self, entry: SigtarEntry) -> Known {
        match entry.kind {
            SigtarKind::Deleted => Known::Deleted(entry.path),
            SigtarKind::Signature => Known::File(entry.path),
            SigtarKind::Snapshot => match entry_kind(&entry.header) {
                Ok(Kind::File) | Err(_) => Known::File(entry.path),
                Ok(kind) => Known::Other(entry.path, kind, self.owners.metadata(&entry.header)),
            },
        }
    }
}
