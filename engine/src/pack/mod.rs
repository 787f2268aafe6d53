//! Packs in memory: building one frame by frame, and opening the parts of a stored one.
//!
//! Knows nothing of stores, indexes or compression levels.

mod read;
mod write;

pub use read::{open_directory, open_frame, read_directory};
pub use write::{OpenPack, SealedPack};
