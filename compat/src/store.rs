//! The place where an archive lies: a flat folder of files, read only.

use std::fmt;
use std::fs::File;
use std::io::Read;

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

    /// All plain files of the folder itself, in any order. Names that are not UTF-8 are passed over. An error is an error, never
    /// a short list.
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
