//! Local file systems: an ordered walk as a source of entries, and a restore destination that stays beneath its target.
//!
//! Linux only. Everything goes through directory descriptors: paths longer than `PATH_MAX` work, and a directory that
//! is swapped for a symlink meanwhile leads nowhere. Knows nothing of repositories, chunks or patterns.

mod dest;
mod dirs;
mod local;
mod meta;
mod owners;
mod walk;
mod xattr;

pub use dest::{DestError, DestFile, DestOptions, Destination, Existing, FileHandle, Warnings};
pub use walk::{PathFilter, WalkOptions, WalkSource};
