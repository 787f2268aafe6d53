//! duplicity's command line, on duplicity's archives: files into an archive and back, without a repository.
//!
//! The caller understands the command line with [`options::parse`], makes a [`Context`] and calls [`run`]. What is said and how
//! a run ends is what scripts around duplicity rely on.

mod backup;
mod cache;
mod chosen;
mod context;
mod failure;
pub mod log;
mod names;
pub mod options;
mod remove;
mod replay;
mod restore;
pub mod select;
mod source;
mod status;
#[cfg(test)]
mod tests;
mod verify;

pub use cache::{Cache, Lock};
pub use context::Context;
pub use failure::{Failure, Result, code};

use options::Action;

/// Has temporary files lie in a folder. To be called once, before anything else.
pub fn use_temp_dir(folder: &std::path::Path) {
    // A second call would change nothing.
    let _ = tempfile::env::override_temp_dir(folder);
}

/// Runs a command; returns the exit code.
///
/// # Errors
///
/// With the exit code in it.
pub fn run(context: &Context, action: &Action) -> Result<u8> {
    let _lock = context.cache.lock()?;
    match action {
        Action::Restore(_, target) => restore::run(context, target),
        Action::Verify(_, source) => verify::run(context, source),
        Action::CollectionStatus(_) => status::collection_status(context),
        Action::ListCurrentFiles(_) => status::list_current_files(context),
        Action::Cleanup(_) => remove::cleanup(context),
        Action::RemoveOlderThan(time, _) => remove::older_than(context, *time),
        Action::RemoveAllButNFull(number, _) => remove::all_but_n_full(context, *number),
        Action::RemoveAllIncOfButNFull(number, _) => remove::all_inc_of_but_n_full(context, *number),
        Action::Backup(kind, source, _) => backup::run(context, *kind, source),
    }
}
