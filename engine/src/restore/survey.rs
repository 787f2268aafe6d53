//! How much there is to restore; and what is to be done about entries that exist.

use super::Overwrite;
use super::context::Context;
use super::links::Links;
use super::select::{Gaps, Pass, Selection, Stack};
use crate::entry::{Content, Entry, Kind};
use crate::error::Result;
use crate::fs::{DestError, Destination, Existing};

/// Sums over all that is selected.
#[derive(Default)]
pub(super) struct Found {
    /// Entries of all kinds.
    pub entries: u64,
    /// Bytes of data in files.
    pub bytes: u64,
}

/// Streams the catalog for the first time. A dry run counts what a real one would do.
pub(super) fn run(context: &Context, gaps: &mut Gaps) -> Result<Found> {
    let mut selection = Selection::new(context, Pass::First(gaps))?;
    let (mut found, mut stack, mut links) = (Found::default(), Stack::default(), Links::default());
    let dry = context.options.dry_run;
    while let Some(selected) = selection.next()? {
        stack.enter(&selected, |_| {});
        if !selected.wanted {
            continue;
        }
        stack.use_all(|_| {
            found.entries += 1;
            if dry {
                context.restored();
            }
        });
        let entry = &selected.entry;
        if entry.is_directory() {
            continue;
        }
        found.entries += 1;
        let mut bytes = stored_size(entry);
        if links.first(entry).is_some() {
            bytes = 0;
        } else {
            links.remember(entry, selected.number);
        }
        found.bytes = found.bytes.saturating_add(bytes);
        if dry {
            count(context, entry, bytes);
        }
    }
    Ok(found)
}

fn count(context: &Context, entry: &Entry, bytes: u64) {
    let decision = context.existing.map(|dest| decide(dest, context.options.overwrite, entry));
    match decision {
        Some(Ok(Decision::Unchanged | Decision::Keep)) => context.skipped(bytes),
        Some(Err(error)) => context.problem(error.into()),
        _ if entry.kind == Kind::File => context.restored_file(bytes),
        _ => context.restored(),
    }
}

/// Bytes of a file that have to be written.
pub(super) fn stored_size(entry: &Entry) -> u64 {
    if entry.content == Content::Empty { 0 } else { entry.data_size() }
}

/// What to do about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Restore it, in place of what is there.
    Restore,
    /// It is there already.
    Unchanged,
    /// Something else may be there, and stays.
    Keep,
}

/// Decides about an entry that is no directory.
pub(super) fn decide(dest: &Destination, overwrite: Overwrite, entry: &Entry) -> Result<Decision, DestError> {
    if overwrite == Overwrite::Always {
        return Ok(Decision::Restore);
    }
    Ok(match dest.existing(&entry.path)? {
        None => Decision::Restore,
        // In the way, as creating the entry will find out.
        Some(existing) if existing.kind == Kind::Directory => Decision::Restore,
        Some(_) if overwrite == Overwrite::Never => Decision::Keep,
        Some(existing) if is_same(&existing, entry) => Decision::Unchanged,
        Some(_) => Decision::Restore,
    })
}

fn is_same(existing: &Existing, entry: &Entry) -> bool {
    existing.kind == entry.kind && existing.size == entry.size && existing.meta.mtime == entry.meta.mtime
}
