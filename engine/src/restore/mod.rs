//! Restore: a snapshot, or a part of it, becomes files beneath a target directory.
//!
//! The catalog is streamed, never held: once to find out how much there is ([`survey`]), once to create directories, nodes
//! and files ([`plan`]), and again for what has to come after that: hard links and the metadata of directories
//! ([`finish`]). Files are collected into windows of bounded size, and each window is turned into ranged reads of packs
//! ([`window`]). Worker threads fetch, open and verify a frame and write all that it is needed for while it is in the
//! cache ([`write`]), so memory is bounded by the windows and by the workers' buffers.
//!
//! Nothing is written before its keyed hash was recomputed. What is damaged costs the files that need it and no others.

mod context;
mod file;
mod finish;
mod links;
mod plan;
mod select;
mod source;
mod survey;
#[cfg(test)]
mod tests;
mod verify;
mod window;
mod write;

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

pub use self::links::{First, Links};

use self::context::Context;
use self::select::Gaps;
use self::window::Limits;
use crate::catalog;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::fs::{DestOptions, Destination};
use crate::id::BlobId;
use crate::monitor::{Counter, Monitor};
use crate::path::EntryPath;
use crate::repo::Reader;

/// What to do about a file that exists in the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// Replace it.
    Always,
    /// Replace it unless size and time of last change are the snapshot's.
    IfChanged,
    /// Keep it.
    Never,
}

/// Asked about the path of each entry in the snapshot, and whether it is a directory. `true` restores the entry, and the
/// directories above it; a directory for which it is `false` is created only for what is restored beneath it.
pub type Filter = Arc<dyn Fn(&EntryPath, bool) -> bool + Send + Sync>;

/// What to restore, and how.
#[derive(Clone)]
pub struct RestoreOptions {
    /// The root: entries go to their full path beneath the target. A directory: its contents go into the target, its
    /// metadata onto it. Anything else: it goes into the target under its name.
    pub base: EntryPath,
    /// The snapshot's root entry describes the target itself, as in imports: with the root as the base, the target gets its
    /// metadata, and if the root is no directory, it takes the place of the target, which must not exist or be empty.
    pub own_root: bool,
    /// Which entries; all without one.
    pub filter: Option<Filter>,
    /// What to do about existing files.
    pub overwrite: Overwrite,
    /// Afterwards read the files again and compare them with the snapshot.
    pub verify: bool,
    /// Only count.
    pub dry_run: bool,
}

/// What a restore did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreOutcome {
    /// Entries of all kinds that were restored.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// Bytes of data in them, each hard-linked file counted once.
    pub bytes: u64,
    /// Entries left as they were because of [`RestoreOptions::overwrite`].
    pub skipped: u64,
    /// Files that were read again and are right.
    pub verified: u64,
    /// Problems reported to the monitor.
    pub problems: u64,
}

/// Restores what is under `root`, beneath `target`, which is created if it does not exist. Problems with single entries
/// go to the monitor; a file that cannot be restored in full is removed again.
///
/// # Errors
///
/// [`Error::Invalid`] if the base is not in the snapshot; [`Error::Io`] if the target cannot be used or is full;
/// [`Error::Interrupted`]; [`Error::Backend`] if the store does not answer. After all of these, running again with
/// [`Overwrite::IfChanged`] goes on where this stopped.
pub fn run(
    reader: &Arc<Reader>,
    root: Option<BlobId>,
    target: &Path,
    options: &RestoreOptions,
    monitor: &Arc<dyn Monitor>,
) -> Result<RestoreOutcome> {
    run_with(reader, root, target, options, monitor, &Limits::default())
}

fn run_with(
    reader: &Arc<Reader>,
    root: Option<BlobId>,
    target: &Path,
    options: &RestoreOptions,
    monitor: &Arc<dyn Monitor>,
    limits: &Limits,
) -> Result<RestoreOutcome> {
    let single = if options.own_root && options.base.is_root() { single_root(reader, root)? } else { None };
    let (target, root_name) = match &single {
        Some(_) => place_of_single(target, options)?,
        None => (target, EntryPath::root()),
    };
    let dest = open_target(target, options)?;
    let context = Context::new(reader, root, options, monitor, dest.as_ref()).with_root_name(root_name);
    let mut gaps = Gaps::default();
    monitor.stage("counting");
    let fresh = std::fs::read_dir(target).map_or(true, |mut dir| dir.next().is_none());
    let found = survey::run(&context, &mut gaps)?;
    let gaps = gaps.found();
    monitor.expect(Counter::Entries, found.entries);
    monitor.expect(Counter::Bytes, found.bytes);
    let Some(dest) = dest.as_ref().filter(|_| !options.dry_run) else { return Ok(context.outcome()) };
    if fresh {
        check_room(dest, found.bytes)?;
    }
    monitor.stage("restoring");
    plan::run(&context, dest, &gaps, limits)?;
    if context.has_links() {
        monitor.stage("linking");
        finish::links(&context, dest, &gaps)?;
    }
    if options.verify {
        monitor.stage("verifying");
        verify::run(&context, dest, &gaps)?;
    }
    monitor.stage("directories");
    finish::directories(&context, dest, &gaps)?;
    Ok(context.outcome())
}

/// The root entry, if it is no directory.
fn single_root(reader: &Reader, root: Option<BlobId>) -> Result<Option<Entry>> {
    Ok(catalog::lookup(reader, root, &EntryPath::root())?.filter(|entry| !entry.is_directory()))
}

/// Where the only entry goes: the directory above the target, and the target's name in it.
fn place_of_single<'t>(target: &'t Path, options: &RestoreOptions) -> Result<(&'t Path, EntryPath)> {
    let refuse = |why: &str| Err(Error::Invalid(format!("{}: {why}", target.display())));
    let name = target.file_name().and_then(|name| EntryPath::new(name.as_bytes()).ok());
    let (Some(above), Some(name)) = (target.parent(), name) else {
        return refuse("the snapshot is a single file, which needs a name of its own");
    };
    let is_dir = std::fs::symlink_metadata(target).is_ok_and(|meta| meta.is_dir());
    if is_dir && !options.dry_run && std::fs::remove_dir(target).is_err() {
        return refuse("the snapshot is a single file, and this is a directory with something in it");
    }
    Ok((if above.as_os_str().is_empty() { Path::new(".") } else { above }, name))
}

/// The target; none for a dry run to a place that does not exist.
fn open_target(target: &Path, options: &RestoreOptions) -> Result<Option<Destination>> {
    if options.dry_run && !target.exists() {
        return Ok(None);
    }
    let how = DestOptions {
        create: !options.dry_run,
        replace: options.overwrite != Overwrite::Never,
        privileged: rustix::process::geteuid().is_root(),
    };
    Destination::open(target, how).map(Some).map_err(|e| context::to_error(target, e))
}

/// Fails if the data cannot fit. Only right for an empty target: files that are replaced or kept need less.
fn check_room(dest: &Destination, needed: u64) -> Result<()> {
    // A file system that does not know has room until it turns out not to.
    let Ok(free) = dest.available() else { return Ok(()) };
    if needed <= free {
        return Ok(());
    }
    let message = format!("{needed} bytes of data to restore, but only {free} bytes are free");
    let source = std::io::Error::new(std::io::ErrorKind::StorageFull, message);
    Err(Error::Io { path: dest.target().to_owned(), action: "cannot restore", source })
}
