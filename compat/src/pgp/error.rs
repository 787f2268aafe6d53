//! What can go wrong with an OpenPGP file, in kinds that a caller can match on.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// A file that cannot be decrypted, or not to its end.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {kind}")]
pub struct PgpError {
    /// The name that was given with the file.
    pub name: String,
    /// What kind of failure, with its details.
    #[source]
    pub kind: PgpErrorKind,
}

/// Kinds of failure that a caller treats differently.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PgpErrorKind {
    /// No pass phrase opens the file, or none was given.
    #[error("{}", wrong_passphrase(*.tried))]
    WrongPassphrase {
        /// How many pass phrases were tried.
        tried: usize,
    },
    /// A secret key for the file is there, but none of the pass phrases unlocks it.
    #[error("the secret key {key} stays locked: {}", wrong_passphrase(*.tried))]
    LockedKey {
        /// The key, as hexadecimal id.
        key: String,
        /// How many pass phrases were tried.
        tried: usize,
    },
    /// The file is encrypted to keys of which no secret part is there.
    #[error("no secret key for it; it is encrypted to {}: export one of these from where it is and give the file", wanted_keys(.wanted))]
    NoSecretKey {
        /// Ids of the recipients' keys, in hexadecimal, as far as the file names them.
        wanted: Vec<String>,
    },
    /// The file ends before the message does.
    #[error("the file is cut off: fetch it again, or use another copy")]
    Truncated,
    /// This is no OpenPGP message, or not an encrypted one.
    #[error("not an encrypted OpenPGP message: {0}")]
    NotOpenPgp(String),
    /// The content is not what was encrypted.
    #[error("damaged or tampered with: {0}; use another copy of the file")]
    Modified(String),
    /// Something that this program cannot read; gpg may.
    #[error("{0} is not supported; decrypt the file with gpg")]
    Unsupported(String),
    /// The message asks for more memory or work than any honest one does.
    #[error("refused: {0}")]
    Bomb(String),
    /// gpg, or the agent behind it, failed.
    #[error("gpg did not give the session key: {0}")]
    Agent(String),
    /// The file is not signed by the key that was asked for.
    #[error("no good signature by {wanted}; {found}")]
    NotSignedBy {
        /// The key that was asked for.
        wanted: String,
        /// What there is instead, as a clause.
        found: String,
    },
    /// A key that is to encrypt or sign cannot; the name is what it was called by.
    #[error("this key cannot be used: {0}")]
    NoUsableKey(String),
    /// Reading the file failed.
    #[error("cannot read: {0}")]
    Io(#[source] io::Error),
}

impl PgpErrorKind {
    /// With the file's name.
    pub(super) fn of(self, name: &str) -> PgpError {
        PgpError { name: name.to_owned(), kind: self }
    }

    /// The kind of `io::Error` that stands for this one.
    pub(super) fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Truncated => io::ErrorKind::UnexpectedEof,
            Self::Io(e) => e.kind(),
            Self::Unsupported(_) => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::InvalidData,
        }
    }
}

impl From<PgpError> for io::Error {
    fn from(e: PgpError) -> Self {
        io::Error::new(e.kind.io_kind(), e)
    }
}

fn wrong_passphrase(tried: usize) -> String {
    match tried {
        0 => "a pass phrase is needed and none was given: set PASSPHRASE".into(),
        1 => "the pass phrase does not open it; if other parts of the archive have another one, give both".into(),
        n => format!("none of the {n} pass phrases opens it"),
    }
}

fn wanted_keys(wanted: &[String]) -> String {
    if wanted.is_empty() { "recipients that it does not name".into() } else { wanted.join(", ") }
}

/// The first failure of a stack of readers. Libraries in between wrap, copy or drop errors; this keeps what it really was.
#[derive(Clone, Debug, Default)]
pub(super) struct Failure(Arc<Mutex<Option<PgpErrorKind>>>);

impl Failure {
    /// Keeps `kind` unless there is an earlier one, and returns an error for the reader's caller.
    pub(super) fn record(&self, kind: PgpErrorKind) -> io::Error {
        let answer = io::Error::new(kind.io_kind(), kind.to_string());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(kind);
        answer
    }

    pub(super) fn take(&self) -> Option<PgpErrorKind> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
