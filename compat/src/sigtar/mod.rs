//! Signature files (sigtars): what a backup set says about every path it touched, and the listing that a chain of them makes.
//!
//! Knows decoded streams only; where they come from and how they were encrypted is not its business.

mod list;
mod merge;

#[cfg(test)]
mod tests;

pub use list::{asctime, list_line};
pub use merge::{MergeError, Merged};

use std::io::{self, Read};

use engine::path::{EntryPath, display_bytes};

use crate::member::{Member, MemberError, MemberKind};
use crate::tar::{Header, TarError, TarReader};

/// What a signature file says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SigtarKind {
    /// A regular file; its signature is the entry's data.
    Signature,
    /// Something else than a regular file.
    Snapshot,
    /// No longer there.
    Deleted,
}

/// An entry of a signature file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigtarEntry {
    /// Where in the source.
    pub path: EntryPath,
    /// What is said about it.
    pub kind: SigtarKind,
    /// Its metadata (zeros if deleted); `size` is the length of the signature in bytes.
    pub header: Header,
}

/// Trouble with a signature file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SigtarError {
    /// The tar is damaged.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A member's name or type.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// A member that belongs into volumes.
    #[error("'{}' does not belong into a signature file", display_bytes(.0))]
    Foreign(Vec<u8>),
}

impl SigtarError {
    /// Whether nothing behind it can be read. Otherwise the next call goes on behind the entry in question.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Tar(e) if e.is_fatal())
    }
}

/// Reads the entries of one signature file in the order of their paths. The data of the current entry is read through [`Read`].
///
/// Entries that come again are passed over: resumed runs of old versions wrote a signature file's content twice.
pub struct SigtarReader<R> {
    tar: TarReader<R>,
    last: Option<EntryPath>,
    passed_over: u64,
}

impl<R: Read> SigtarReader<R> {
    /// Nothing is read yet. The stream has to be decoded, and wants a buffer.
    pub fn new(inner: R) -> Self {
        Self { tar: TarReader::new(inner), last: None, passed_over: 0 }
    }

    /// The next entry, its path greater than all before; `None` at the end.
    #[allow(clippy::should_implement_trait, reason = "an iterator could not be read from between two items")]
    pub fn next(&mut self) -> Result<Option<SigtarEntry>, SigtarError> {
        while let Some(header) = self.tar.next()? {
            let member = Member::parse(&header)?;
            let kind = match member.kind {
                MemberKind::Signature => SigtarKind::Signature,
                MemberKind::Snapshot => SigtarKind::Snapshot,
                MemberKind::Deleted => SigtarKind::Deleted,
                _ => return Err(SigtarError::Foreign(header.name)),
            };
            if self.last.as_ref().is_some_and(|last| *last >= member.path) {
                self.passed_over += 1;
                continue;
            }
            self.last = Some(member.path.clone());
            return Ok(Some(SigtarEntry { path: member.path, kind, header }));
        }
        Ok(None)
    }

    /// How many entries were passed over because their path, or a greater one, had been there.
    #[must_use]
    pub fn passed_over(&self) -> u64 {
        self.passed_over
    }
}

/// The signature of the current entry.
impl<R: Read> Read for SigtarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tar.read(buffer)
    }
}
