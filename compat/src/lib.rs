//! duplicity's archives: names, manifests, tar volumes, signatures, deltas, OpenPGP, and their way into a repository.
//!
//! Uses the engine's entries, sources and snapshots; never packs, index or backends. Where an archive lies is behind
//! [`store::Store`] and [`store::Target`]; what speaks to servers is another crate. There is no tokio, no terminal and no command line in here.

pub mod collection;
mod deflate;
pub mod dropin;
pub mod export;
pub mod import;
mod inflate;
pub mod librsync;
pub mod listing;
pub mod manifest;
pub mod member;
pub mod name;
pub mod pgp;
pub mod sigtar;
pub mod store;
pub mod tar;
pub mod time;

#[cfg(test)]
mod archive_tests;
#[cfg(test)]
mod stock;
#[cfg(test)]
mod test_support;
