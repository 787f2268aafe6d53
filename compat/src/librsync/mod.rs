//! librsync's signatures and deltas, as streams.
//!
//! Knows bytes only. Block lengths are not limits of memory here: blocks are hashed as they pass, never kept.

#![allow(clippy::big_endian_bytes, reason = "librsync's numbers are big-endian")]

mod delta;
mod delta_make;
mod delta_write;
mod identity;
mod signature;
mod sums;

#[cfg(test)]
mod tests;

pub use delta::{Basis, DeltaError, DeltaReader};
pub use delta_make::{KnownBlocks, make_delta};
pub use delta_write::DeltaWriter;
pub use identity::is_identity;
pub use signature::{SignatureCheck, SignatureError, SignatureFormat, SignatureMaker, block_length};
pub use sums::{StrongSum, WeakSum};
