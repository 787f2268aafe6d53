//! The commands: each puts the engine's operations together and prints what came of it.

pub mod backup;
pub mod check;
pub mod copy;
pub mod doctor;
pub mod dump;
pub mod export;
pub mod forget;
pub mod import;
pub mod init;
pub mod key;
pub mod list;
pub mod prune;
pub mod repair;
pub mod restore;
pub mod stats;
pub mod undelete;
