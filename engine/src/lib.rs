//! The engine of deduplicity: content-defined chunks, each stored once, compressed and encrypted, in immutable objects.
//!
//! Layers, each using only those above it in this list: values ([`id`], [`path`], [`entry`]); encoding; the epoch
//! [`protocol`]; edges ([`backend`], [`fs`]); structures ([`index`]); the repository; the model; operations. `tests/layering.rs` checks the
//! direction. There is no tokio, no terminal and no command line in here.

pub mod backend;
pub mod backup;
pub mod buffer;
pub mod catalog;
pub mod check;
pub mod chunker;
pub mod codec;
pub mod content;
pub mod copy;
pub mod crypto;
pub mod entry;
pub mod error;
pub mod format;
pub mod fs;
pub mod id;
pub mod index;
pub mod maintain;
pub mod monitor;
pub mod names;
pub mod pack;
pub mod parallel;
pub mod parity;
pub mod path;
pub mod probe;
pub mod protocol;
pub mod repair;
pub mod repo;
pub mod restore;
pub mod snapshot;
