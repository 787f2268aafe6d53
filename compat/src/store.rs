//! The place where an archive lies: a flat folder of files.
//!
//! A [`Store`] is read, a [`Target`] is written to as well. What implements them for servers is another crate's; [`Folder`] is
//! one of this machine.

mod folder;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};

pub use folder::Folder;

/// Start of the names of files that are not complete. Neither duplicity nor this program takes them for a part of an archive, and
/// no store lists them.
pub const UNFINISHED: &str = ".deduplicity-";

/// A file of the folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredFile {
    /// Its name, without any folder.
    pub name: String,
    /// Its size in bytes; some servers do not tell.
    pub size: Option<u64>,
}

/// Kinds of failure that a caller treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The file does not exist.
    NotFound,
    /// The folder, bucket or host does not exist.
    NoStore,
    /// Credentials or permissions.
    Denied,
    /// No answer in time, or the connection broke: the same call may well succeed later.
    Unreachable,
    /// The URL or an option makes no sense, or a program that is needed is not installed.
    Unusable,
    /// Anything else.
    Other,
}

impl StoreErrorKind {
    /// What an error of a file or of a connection amounts to.
    #[must_use]
    pub fn of_io(kind: io::ErrorKind) -> Self {
        use io::ErrorKind as K;
        match kind {
            K::NotFound => Self::NotFound,
            K::PermissionDenied => Self::Denied,
            K::ConnectionRefused
            | K::ConnectionReset
            | K::ConnectionAborted
            | K::NotConnected
            | K::BrokenPipe
            | K::TimedOut
            | K::WouldBlock
            | K::UnexpectedEof
            | K::HostUnreachable
            | K::NetworkUnreachable
            | K::NetworkDown => Self::Unreachable,
            _ => Self::Other,
        }
    }
}

/// A failed call to a store.
#[derive(Debug, thiserror::Error)]
#[error("{location}{sep}{name}: {message}", sep = if name.is_empty() { "" } else { "/" })]
pub struct StoreError {
    /// What kind of failure.
    pub kind: StoreErrorKind,
    /// The store, without credentials.
    pub location: String,
    /// The file; empty for the store as a whole.
    pub name: String,
    /// What happened, for people.
    pub message: String,
}

/// A folder of files. Object-safe, blocking, usable from any number of threads.
pub trait Store: Send + Sync + fmt::Debug {
    /// Where this is, for messages; without credentials.
    fn location(&self) -> String;

    /// How many files at once this store reads well, at least 1.
    fn concurrency(&self) -> usize;

    /// All plain files of the folder itself, in any order. Names that are not UTF-8 are passed over, and so is what is
    /// [`UNFINISHED`]. An error is an error, never a short list; a folder that does not exist is one, `NoStore`.
    fn list(&self) -> Result<Vec<StoredFile>, StoreError>;

    /// The file itself, where it lies on this machine: then nothing need be copied for it to be read twice. `None` where it
    /// does not.
    fn open_local(&self, name: &str) -> Option<Result<File, StoreError>> {
        let _ = name;
        None
    }

    /// The content of a file as a stream. A connection that breaks midway is taken up again where that is possible; where
    /// not, the reader fails with an `io::Error` that wraps a [`StoreError`], and never just ends early.
    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError>;
}

/// A store that is written to as well. Object-safe, blocking, usable from any number of threads.
pub trait Target: Store {
    /// Starts a file; the folder is made if need be. Nothing is to be seen under `name` before [`Upload::finish`]; then it is in
    /// the place of any file of that name.
    ///
    /// # Errors
    ///
    /// If the file cannot be made.
    fn create(&self, name: &str) -> Result<Box<dyn Upload>, StoreError>;

    /// Removes a file. That there is none, or no folder, is no error.
    ///
    /// # Errors
    ///
    /// If it may still be there afterwards.
    fn remove(&self, name: &str) -> Result<(), StoreError>;

    /// What [`Store::list`] lists; nothing if the folder does not exist yet.
    ///
    /// # Errors
    ///
    /// As for [`Store::list`].
    fn list_or_nothing(&self) -> Result<Vec<StoredFile>, StoreError> {
        match self.list() {
            Err(error) if error.kind == StoreErrorKind::NoStore => Ok(Vec::new()),
            outcome => outcome,
        }
    }
}

/// A file being put into a target. Dropped before its end it leaves nothing behind.
pub trait Upload: Write + Send {
    /// Makes the file appear under its name: whole, or, if this fails, as it was before or not at all.
    ///
    /// # Errors
    ///
    /// If it could not be written or kept.
    fn finish(self: Box<Self>) -> Result<(), StoreError>;
}
