//! What can go wrong, in kinds that a caller can match on.

use std::path::PathBuf;

use crate::backend::{BackendError, ErrorKind};

/// Shorthand for results of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that ends an operation. Problems with single files are not errors: see [`crate::monitor::Problem`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// There is no repository at this place.
    #[error("no repository at {location} (no config object); create one with 'init'")]
    NoRepository {
        /// Where was looked.
        location: String,
    },
    /// There already is one.
    #[error("there already is a repository at {location}")]
    RepositoryExists {
        /// Where.
        location: String,
    },
    /// No key slot opens with the given password.
    #[error("wrong password: none of the {slots} key slots opens with it")]
    WrongPassword {
        /// Slots that were tried.
        slots: usize,
    },
    /// An object is damaged, truncated, forged, or belongs elsewhere.
    #[error("{object}: {detail}")]
    Damaged {
        /// Name of the object.
        object: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The repository needs something that this program does not have.
    #[error("{0}")]
    Unsupported(String),
    /// Nothing answers to this snapshot reference, or too many do.
    #[error("{0}")]
    Snapshot(String),
    /// A blob that something refers to is in no pack that can be used.
    #[error("blob {id} is missing: no usable pack holds it (needed by {needed_by})")]
    MissingBlob {
        /// Hexadecimal id.
        id: String,
        /// What referred to it.
        needed_by: String,
    },
    /// A local file operation failed and nothing can go on without it.
    #[error("{path}: {action}: {source}", path = path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as "cannot ...".
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The local index cache failed in a way that rebuilding cannot mend.
    #[error("local index cache: {0}")]
    Cache(String),
    /// A request that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The store is not what it was: rolled back, forked, or deprived of snapshots that no seal names yet.
    #[error("{0}")]
    Rollback(String),
    /// The repository does not have the seal that the caller expects of it.
    #[error("{0}")]
    UnexpectedHead(String),
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Whether other objects may well be readable after this error: it is about one of them, and not about the store.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::MissingBlob { .. } | Self::Damaged { .. } => true,
            Self::Backend(e) => !matches!(e.kind, ErrorKind::Throttled | ErrorKind::Timeout | ErrorKind::NoStore),
            _ => false,
        }
    }

    /// An object that cannot be believed.
    #[allow(clippy::needless_pass_by_value, reason = "callers pass values and references alike")]
    pub fn damaged(object: impl ToString, detail: impl ToString) -> Self {
        Self::Damaged { object: object.to_string(), detail: detail.to_string() }
    }
}
