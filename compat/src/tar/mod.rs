//! Tar as duplicity writes it: pax, GNU, ustar and v7 headers, read strictly, and pax headers written as Python's `tarfile`
//! does.
//!
//! Knows headers and where data begins and ends; not what the names mean (that is [`crate::member`]). Whatever two readers
//! could understand differently is refused here: sparse members, data on members that have none, mixed extension headers.

mod error;
mod header;
mod number;
mod pax;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub use error::{NumberProblem, TarError, TarErrorKind};
pub use header::{Header, TarKind};
pub use reader::TarReader;
pub use writer::{padding, terminator, write_header};

/// Bytes of a block, the unit of everything in a tar.
pub const BLOCK: usize = 512;

/// Longest name or link target that is accepted, in bytes: a path of Linux, the word before it and a piece's number behind it.
pub const MAX_NAME: usize = 4096 + 64;

/// Largest payload of an extension header (pax records, GNU long names), in bytes.
pub const MAX_EXTENSION: u64 = 64 << 10;
