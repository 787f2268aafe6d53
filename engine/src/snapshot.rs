//! Listing snapshots and finding one by what a person types.

use crate::backend::ErrorKind;
use crate::error::{Error, Result};
use crate::format::snapshot::{Snapshot, SnapshotKind};
use crate::monitor::{Monitor, Problem};
use crate::repo::{Repository, SnapshotName, View, names, parallel};

/// A snapshot with its name.
#[derive(Clone, Debug)]
pub struct SnapshotRecord {
    /// Epoch and id.
    pub name: SnapshotName,
    /// What it says.
    pub snapshot: Snapshot,
    /// Whether a seal confirms it. Without maintenance none ever does; it is committed all the same.
    pub sealed: bool,
}

/// All snapshots that count, oldest first. Partial ones are left out where their session has written a complete one.
/// Those that are missing or cannot be read are problems for the monitor, and left out.
///
/// # Errors
///
/// What concerns the store as a whole.
pub fn list(repo: &Repository, view: &View, monitor: &dyn Monitor) -> Result<Vec<SnapshotRecord>> {
    let mut all = Vec::new();
    let read = parallel::map(repo.backend().concurrency(), &view.snapshots, |name| repo.read_snapshot(name));
    for (name, snapshot) in view.snapshots.iter().zip(read) {
        match snapshot {
            Ok(snapshot) => all.push(SnapshotRecord { name: *name, snapshot, sealed: view.sealed.contains(name) }),
            // Maintenance has carried out a request to forget it meanwhile.
            Err(Error::Backend(e)) if e.kind == ErrorKind::NotFound && !is_there(repo, name, monitor)? => {}
            Err(Error::Damaged { object, detail }) => monitor.problem(Problem { subject: object, message: detail }),
            // One that is missing or cannot be read must not hide the others.
            Err(e) if e.is_local() => {
                let message = format!("cannot be read: {e}; 'forget' with its id gives it up");
                monitor.problem(Problem { subject: names::snapshot(name).to_string(), message });
            }
            Err(e) => return Err(e),
        }
    }
    let superseded = |record: &SnapshotRecord| {
        let newer = |other: &SnapshotRecord| {
            let entries = |r: &SnapshotRecord| (r.snapshot.kind == SnapshotKind::Complete, r.snapshot.totals.entries);
            other.snapshot.session == record.snapshot.session && entries(other) > entries(record)
        };
        record.snapshot.kind == SnapshotKind::Partial && all.iter().any(newer)
    };
    let keep: Vec<bool> = all.iter().map(|r| !superseded(r)).collect();
    let mut keep = keep.into_iter();
    all.retain(|_| keep.next().unwrap_or(true));
    all.sort_by_key(|r| (r.snapshot.time, r.name.id));
    Ok(all)
}

/// Whether a snapshot still counts.
fn is_there(repo: &Repository, name: &SnapshotName, monitor: &dyn Monitor) -> Result<bool> {
    Ok(repo.load_view(monitor)?.snapshots.contains(name))
}

/// Finds a snapshot: `latest`, `latest~N` (the Nth before), or the start of an id.
pub fn resolve<'a>(all: &'a [SnapshotRecord], reference: &str) -> Result<&'a SnapshotRecord> {
    let nothing = |text: String| Err(Error::Snapshot(text));
    if let Some(rest) = reference.strip_prefix("latest") {
        let back = match rest.strip_prefix('~') {
            Some(n) => n.parse::<usize>().ok(),
            None if rest.is_empty() => Some(0),
            None => None,
        };
        let Some(back) = back else { return nothing(format!("'{reference}' is no snapshot: use an id, 'latest' or 'latest~N'")) };
        let found = all.len().checked_sub(back + 1).and_then(|i| all.get(i));
        return match found {
            Some(record) => Ok(record),
            None if all.is_empty() => nothing("there is no snapshot that matches".into()),
            None => nothing(format!("'{reference}': there are only {} snapshots that match", all.len())),
        };
    }
    if reference.is_empty() || !reference.bytes().all(|b| b.is_ascii_hexdigit()) {
        return nothing(format!("'{reference}' is no snapshot: use an id, 'latest' or 'latest~N'"));
    }
    let wanted = reference.to_ascii_lowercase();
    let mut matching = all.iter().filter(|r| r.name.id.to_string().starts_with(&wanted));
    match (matching.next(), matching.next()) {
        (Some(record), None) => Ok(record),
        (Some(_), Some(_)) => nothing(format!("'{reference}' fits more than one snapshot: give more digits")),
        _ => nothing(format!("no snapshot has an id that starts with '{reference}'; 'snapshots' lists them")),
    }
}
