use std::io;

use engine::path::display_bytes;

/// What is wrong with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberProblem {
    /// Neither octal, nor base-256, nor (in pax records) decimal.
    #[error("is no number")]
    Malformed,
    /// Below zero where that makes no sense.
    #[error("is negative")]
    Negative,
    /// More than the field can mean.
    #[error("is too large")]
    Overflow,
}

/// Kinds of failure of a tar.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarErrorKind {
    /// What lies below failed: a store, a decompressor, a decryption.
    #[error("cannot read: {0}")]
    Io(#[source] io::Error),
    /// The data ends within a member.
    #[error("ends within a member")]
    Truncated,
    /// The header's checksum does not fit it: damaged, or no tar.
    #[error("wrong header checksum")]
    Checksum,
    /// A number of a header or pax record.
    #[error("{field} {problem}")]
    Number {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: NumberProblem,
    },
    /// A pax header that does not follow its grammar.
    #[error("malformed pax header: {0}")]
    Pax(&'static str),
    /// Extension headers in an order or number that readers understand differently.
    #[error("{0}")]
    Extension(&'static str),
    /// An extension header larger than [`super::MAX_EXTENSION`], in bytes.
    #[error("an extension header of {0} bytes")]
    ExtensionTooLarge(u64),
    /// A sparse member.
    #[error("sparse members are not duplicity's")]
    Sparse,
    /// Data announced for a kind of member that has none, in bytes.
    #[error("{0} bytes of data for a member that can have none")]
    UnexpectedData(u64),
    /// A NUL byte within a name or link target.
    #[error("NUL byte in a name")]
    Nul,
    /// Asked for more after an error that was fatal.
    #[error("cannot be read on after an earlier error")]
    Failed,
    /// A name or link target longer than [`super::MAX_NAME`].
    #[error("a name of {0} bytes")]
    NameTooLong(usize),
}

/// A tar that cannot be read, or one member of it that is refused.
#[derive(Debug, thiserror::Error)]
#[error("tar member {}at byte {offset}: {kind}", if name.is_empty() { String::new() } else { format!("'{}' ", display_bytes(name)) })]
pub struct TarError {
    /// What is wrong.
    #[source]
    pub kind: TarErrorKind,
    /// Where in the tar stream the member's first header lies, in bytes.
    pub offset: u64,
    /// The member's name, as far as known; cut to [`super::MAX_NAME`] bytes.
    pub name: Vec<u8>,
    pub(super) fatal: bool,
}

impl TarError {
    /// Whether nothing behind it can be read. Otherwise only this member is lost: the next call of
    /// [`super::TarReader::next`] goes on behind it.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.fatal
    }
}
