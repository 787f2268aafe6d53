//! Whether a snapshot is what the archive's last set was made of: an increment on anything else would restore to garbage.

use std::sync::Arc;

use engine::entry::Entry;
use engine::error::{Error, Result};

use super::header;
use super::tree::Tree;
use crate::collection::BackupSet;
use crate::import::Archive;
use crate::listing;
use crate::sigtar::{Merged, SigtarEntry};

/// Compares paths, types and metadata of a tree with what the signature files of the sets say.
pub(super) fn check(archive: &Archive, sets: &[Arc<BackupSet>], mut tree: Tree<'_>) -> Result<()> {
    let cannot = |e: &dyn std::fmt::Display| {
        Error::Invalid(format!(
            "cannot compare the archive's last backup with the snapshot that it was made of ({e}): \
             give what opens its signature files, or start a new chain with --full"
        ))
    };
    let readers = sets.iter().map(|set| listing::signatures(archive, set)).collect::<Result<Vec<_>>>().map_err(|e| cannot(&e))?;
    let mut merged = Merged::new(readers);
    loop {
        let stored = merged.next().map_err(|e| cannot(&e))?;
        let entry = tree.take()?;
        match (stored, entry) {
            (None, None) => return Ok(()),
            (Some(stored), Some(entry)) if is_same(&stored, &entry) => {}
            (stored, entry) => {
                let path = [stored.map(|s| s.path), entry.map(|e| e.path)].into_iter().flatten().min().unwrap_or_default();
                return Err(Error::Invalid(format!(
                    "the archive's last backup was not made of the snapshot of its time: '{}' is not the same in both; \
                     give the right snapshot and path, or start a new chain with --full",
                    path.display()
                )));
            }
        }
    }
}

/// Names of owners are left out, since they may have been looked up elsewhere; of links neither mode nor time counts.
fn is_same(stored: &SigtarEntry, entry: &Entry) -> bool {
    let (a, b) = (&stored.header, header::of(entry));
    let is_link = matches!(entry.kind, engine::entry::Kind::Symlink(_));
    let same_device = (a.major, a.minor) == (b.major, b.minor);
    stored.path == entry.path
        && (a.kind, a.uid, a.gid) == (b.kind, b.uid, b.gid)
        && (same_device && a.link == b.link)
        && (is_link || (a.mode, a.mtime.max(0)) == (b.mode, b.mtime))
}
