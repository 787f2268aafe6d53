//! What comes after the files: hard links, and the metadata of directories, children before parents.

use super::Overwrite;
use super::context::Context;
use super::links::{First, Links};
use super::select::{Expected, Level, Pass, Selection, Stack};
use crate::entry::{Entry, Kind};
use crate::error::Result;
use crate::fs::{DestError, Destination};

/// Calls `each` for every entry that is not a directory and could be reached, with what it is another name of.
pub(super) fn for_each(
    context: &Context,
    gaps: &Expected,
    mut each: impl FnMut(u64, Entry, Option<First>) -> Result<()>,
) -> Result<()> {
    let mut selection = Selection::new(context, Pass::Later(gaps))?;
    let (mut stack, mut links) = (Stack::default(), Links::default());
    while let Some(selected) = selection.next()? {
        stack.enter(&selected, |_| {});
        let reached = selected.wanted && stack.use_all(|level| level.blocked = is_blocked(context, level));
        if !reached || selected.entry.is_directory() {
            continue;
        }
        let first = links.first(&selected.entry);
        if first.is_none() && !context.kept.has(selected.number) {
            links.remember(&selected.entry, selected.number);
        }
        each(selected.number, selected.entry, first)?;
    }
    Ok(())
}

fn is_blocked(context: &Context, level: &Level) -> bool {
    level.number.is_some_and(|number| context.failed.has(number))
}

/// Makes the links to what was restored as a file.
pub(super) fn links(context: &Context, dest: &Destination, gaps: &Expected) -> Result<()> {
    for_each(context, gaps, |number, entry, first| {
        let Some(first) = first else { return Ok(()) };
        if context.failed.has(first.number) {
            let message = format!("another name of {}, which could not be restored", first.path.display());
            context.fail(number, &entry.path, message);
            return Ok(());
        }
        match link(context, dest, &entry, &first) {
            Ok(true) if entry.kind == Kind::File => context.restored_file(0),
            Ok(true) => context.restored(),
            Ok(false) => {
                context.kept.set(number);
                context.skipped(0);
            }
            Err(e) => context.refused(dest, number, e),
        }
        Ok(())
    })
}

/// Returns whether something was done.
fn link(context: &Context, dest: &Destination, entry: &Entry, first: &First) -> Result<bool, DestError> {
    if context.options.overwrite != Overwrite::Always
        && let Some(existing) = dest.existing(&entry.path)?
        && existing.kind != Kind::Directory
    {
        let target = dest.existing(&first.path)?;
        let inode = |e: &crate::fs::Existing| (e.meta.device, e.meta.inode);
        if context.options.overwrite == Overwrite::Never || target.as_ref().map(inode) == Some(inode(&existing)) {
            return Ok(false);
        }
    }
    dest.hard_link(&first.path, &entry.path)?;
    Ok(true)
}

/// Sets the metadata of all directories that something was restored to.
pub(super) fn directories(context: &Context, dest: &Destination, gaps: &Expected) -> Result<()> {
    let set = |level: Level| {
        let target_itself = level.path.is_root() && context.options.base.is_root() && !context.options.own_root;
        let Some((meta, xattrs)) = level.meta.filter(|_| !level.blocked && !target_itself) else { return };
        match dest.set_dir_metadata(&level.path, &meta, &xattrs) {
            Ok(warnings) => context.warn(&level.path, warnings),
            Err(e) => context.problem(e.into()),
        }
    };
    let mut selection = Selection::new(context, Pass::Later(gaps))?;
    let mut stack = Stack::default();
    while let Some(selected) = selection.next()? {
        stack.enter(&selected, set);
        if selected.wanted {
            stack.use_all(|level| level.blocked = is_blocked(context, level));
        }
    }
    stack.finish(set);
    Ok(())
}
