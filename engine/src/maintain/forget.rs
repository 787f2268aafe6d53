//! Requests to forget snapshots, and taking them back.

use std::collections::HashSet;

use super::plan::superseded_partials;
use crate::backend::ErrorKind;
use crate::error::{Error, Result};
use crate::format::snapshot::seal_forget;
use crate::id::ObjectId;
use crate::monitor::Monitor;
use crate::protocol::{Name, View};
use crate::repo::{Repository, SnapshotName, names};

/// What became of snapshots that were to be taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undeleted {
    /// They are no longer to be forgotten.
    pub restored: Vec<SnapshotName>,
    /// A prune runs and may have decided already: only once it is over is it certain that they stay.
    pub in_doubt: bool,
}

/// Asks to forget snapshots. They disappear from lists at once; what only they need is deleted by a later prune. Until that
/// seals them away, [`undelete`] takes the request back.
///
/// # Errors
///
/// What the store returns.
pub fn forget(repo: &Repository, snapshots: &[SnapshotName]) -> Result<()> {
    if snapshots.is_empty() {
        return Ok(());
    }
    let names: Vec<Name> = snapshots.iter().map(|s| (s.epoch, s.id)).collect();
    request(repo, &names)
}

fn request(repo: &Repository, names: &[Name]) -> Result<()> {
    repo.check_writable()?;
    let bytes = seal_forget(&repo.keys().meta, repo.id(), names).map_err(|e| Error::damaged("a new request to forget", e))?;
    let id = ObjectId::of(&bytes);
    match repo.backend().create(&names::forget(&id), bytes.into()) {
        Err(e) if e.kind != ErrorKind::AlreadyExists => return Err(e.into()),
        _ => {}
    }
    Ok(repo.backend().barrier()?)
}

/// Takes requests to forget these snapshots back, as long as no prune has carried them out.
///
/// # Errors
///
/// [`Error::Snapshot`] if one of them is not there any more, or was not forgotten; what the store returns.
pub fn undelete(repo: &Repository, snapshots: &[SnapshotName], monitor: &dyn Monitor) -> Result<Undeleted> {
    let view = repo.load_view(monitor)?;
    for name in snapshots {
        if !view.forgotten.contains(name) {
            let why =
                if view.snapshots.contains(name) { "is not forgotten" } else { "is gone: a prune has carried the request out" };
            return Err(Error::Snapshot(format!("snapshot {}: {why}", name.id.short())));
        }
    }
    let wanted: HashSet<Name> = snapshots.iter().map(|s| (s.epoch, s.id)).collect();
    let mut others: Vec<Name> = Vec::new();
    let mut obsolete: Vec<ObjectId> = Vec::new();
    for (id, names) in &view.requests {
        if names.iter().any(|name| wanted.contains(name)) {
            obsolete.push(*id);
            others.extend(names.iter().filter(|name| !wanted.contains(*name)));
        }
    }
    // First what is still to be forgotten, so that nothing comes back that nobody asked for.
    if !others.is_empty() {
        others.sort_unstable();
        others.dedup();
        request(repo, &others)?;
    }
    for id in &obsolete {
        repo.backend().delete(&names::forget(id))?;
    }
    repo.backend().barrier()?;
    let after = repo.load_view(monitor)?;
    if let Some(gone) = snapshots.iter().find(|name| !after.snapshots.contains(name)) {
        return Err(Error::Snapshot(format!("snapshot {} is gone: a prune has just carried the request out", gone.id.short())));
    }
    Ok(Undeleted { restored: snapshots.to_vec(), in_doubt: after.unfinished.is_some() })
}

/// Partial snapshots of the view whose session has written a complete one: nobody needs them any more.
#[must_use]
pub fn superseded(repo: &Repository, view: &View) -> Vec<SnapshotName> {
    superseded_partials(repo, &view.snapshots)
}
