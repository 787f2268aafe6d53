//! What can go wrong with one entry of a restore.

use std::io;

use rustix::io::Errno;

use crate::monitor::Problem;
use crate::path::EntryPath;

/// What could not be set on an entry that was otherwise restored.
pub type Warnings = Vec<String>;

/// Why an entry was not restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DestError {
    /// Something is in the way: an entry that may not be replaced, or a symlink in place of a directory.
    #[error("{path}: {what} is in the way")]
    Conflict {
        /// The entry, relative to the target.
        path: String,
        /// What is there.
        what: &'static str,
    },
    /// The system refused.
    #[error("{path}: {action}: {source}")]
    Io {
        /// The entry, relative to the target.
        path: String,
        /// What was tried, as "cannot ...".
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl DestError {
    /// Whether the file system is full, so that there is no use in going on.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// Whether the entry, or a directory above it, does not exist.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl From<DestError> for Problem {
    fn from(error: DestError) -> Self {
        match error {
            DestError::Conflict { path, what } => Self { subject: path, message: format!("{what} is in the way") },
            DestError::Io { path, action, source } => Self { subject: path, message: format!("{action}: {source}") },
        }
    }
}

pub fn conflict(path: &EntryPath, what: &'static str) -> DestError {
    DestError::Conflict { path: path.display(), what }
}

/// Adds what was tried to the system's answer.
pub trait Context<T> {
    fn at(self, path: &EntryPath, action: &'static str) -> Result<T, DestError>;
}

impl<T> Context<T> for rustix::io::Result<T> {
    fn at(self, path: &EntryPath, action: &'static str) -> Result<T, DestError> {
        self.map_err(|errno| match errno {
            Errno::LOOP => conflict(path, "a symlink"),
            Errno::NOTDIR => conflict(path, "something that is no directory"),
            errno => DestError::Io { path: path.display(), action, source: errno.into() },
        })
    }
}
