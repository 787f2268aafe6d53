//! How a command fails: duplicity's exit codes.
//!
//! FORMAT §16.6. Scripts rely on the numbers.

use engine::error::Error;
use engine::fs::DestError;

use super::options::UsageError;
use super::select::SelectError;
use crate::import::fetch::Unusable;
use crate::pgp::{PgpError, PgpErrorKind};
use crate::store::{StoreError, StoreErrorKind};

/// Exit codes.
pub mod code {
    /// Anything that has no code of its own; differences that `verify` has found.
    pub const GENERIC: u8 = 1;
    /// The archive is of another host.
    pub const HOST: u8 = 3;
    /// The manifests here and there differ.
    pub const MANIFESTS_DIFFER: u8 = 5;
    /// The folder of the local cache cannot be used.
    pub const ARCHIVE_DIR: u8 = 9;
    /// There is something where files are to be restored to.
    pub const RESTORE_PATH_EXISTS: u8 = 11;
    /// What is to be compared is not there.
    pub const VERIFY_DIR_MISSING: u8 = 12;
    /// There is nothing that an increment could build on.
    pub const INC_WITHOUT_SIGNATURES: u8 = 17;
    /// The path is not in the backup.
    pub const PATH_NOT_FOUND: u8 = 19;
    /// Nothing was restored.
    pub const NOTHING_RESTORED: u8 = 20;
    /// A volume is not what its manifest says.
    pub const HASH: u8 = 21;
    /// A volume is not signed, or by somebody else.
    pub const SIGNATURE: u8 = 22;
    /// The command line, or another run under way.
    pub const USER: u8 = 23;
    /// Of Python's library for arguments.
    pub const ARGUMENTS: u8 = 2;
    /// The archive is not as it should be.
    pub const EXCEPTION: u8 = 30;
    /// Encryption or decryption failed.
    pub const GPG: u8 = 31;
    /// The archive is of another source.
    pub const SOURCE_MISMATCH: u8 = 42;
    /// The URL makes no sense.
    pub const URL: u8 = 8;
    /// The place of the archive cannot be used.
    pub const BACKEND: u8 = 50;
    /// It may not be used.
    pub const BACKEND_DENIED: u8 = 51;
    /// It is not there.
    pub const BACKEND_NOT_FOUND: u8 = 52;
    /// It is full.
    pub const BACKEND_FULL: u8 = 53;
    /// The key to sign with cannot be used.
    pub const SIGN_KEY: u8 = 80;
    /// A key to encrypt with cannot be used.
    pub const ENCRYPT_KEY: u8 = 81;
    /// The user asked to stop.
    pub const INTERRUPTED: u8 = 4;
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What happened, for people.
    pub message: String,
    /// What stands behind the code in the stanza.
    pub args: String,
}

/// Shorthand for results of this module.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure with a code.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), args: String::new() }
    }

    /// The same with something for programs.
    #[must_use]
    pub fn with_args(mut self, args: impl Into<String>) -> Self {
        self.args = args.into();
        self
    }
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Self {
        let code = match error {
            UsageError::Wrong(_) => code::USER,
            UsageError::Ambiguous(_) => code::ARGUMENTS,
        };
        Self::new(code, format!("CommandLineError: {error}\nEnter 'duplicity --help' for help screen."))
    }
}

impl From<SelectError> for Failure {
    fn from(error: SelectError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let number = match error.kind {
            StoreErrorKind::Denied => code::BACKEND_DENIED,
            StoreErrorKind::NotFound | StoreErrorKind::NoStore => code::BACKEND_NOT_FOUND,
            StoreErrorKind::Unusable => code::URL,
            _ if error.message.contains("No space left") => code::BACKEND_FULL,
            _ => code::BACKEND,
        };
        Self::new(number, error.to_string())
    }
}

impl From<PgpError> for Failure {
    fn from(error: PgpError) -> Self {
        let number = if matches!(error.kind, PgpErrorKind::NotSignedBy { .. }) { code::SIGNATURE } else { code::GPG };
        Self::new(number, error.to_string())
    }
}

impl From<Unusable> for Failure {
    fn from(error: Unusable) -> Self {
        match error {
            Unusable::Store(error) => error.into(),
            Unusable::OpenPgp(error) => error.into(),
            Unusable::Io(error) => error.into(),
            Unusable::Hash { .. } | Unusable::UnknownHash(_) => Self::new(code::HASH, error.to_string()),
            Unusable::Smime => Self::new(code::GPG, error.to_string()),
        }
    }
}

/// What was wrapped keeps its code.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let inner = error.get_ref();
        let number = match inner.and_then(|e| e.downcast_ref::<PgpError>()) {
            Some(PgpError { kind: PgpErrorKind::NotSignedBy { .. }, .. }) => code::SIGNATURE,
            Some(_) => code::GPG,
            None if inner.is_some_and(|e| e.is::<StoreError>()) => code::BACKEND,
            None => code::EXCEPTION,
        };
        Self::new(number, error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let number = match &error {
            Error::Interrupted => code::INTERRUPTED,
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => code::BACKEND_FULL,
            Error::Damaged { .. } => code::EXCEPTION,
            _ => code::GENERIC,
        };
        Self::new(number, error.to_string())
    }
}

impl From<DestError> for Failure {
    fn from(error: DestError) -> Self {
        Self::new(code::GENERIC, error.to_string())
    }
}
