//! Locks on what snapshots need: extended by maintenance before they end. What is to be deleted is left to run out.

use std::time::{Duration, SystemTime};

use crate::backend::{Backend, ErrorKind, ObjectKey, ObjectLock};
use crate::entry::Timestamp;
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::protocol::View;
use crate::repo::{Repository, SnapshotName, lock_from_now, names, parallel};

fn time(time: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(u64::try_from(time.seconds).unwrap_or(0), time.nanos)
}

/// Until when at least the store keeps all that the view's snapshots need; `None` where nothing is locked.
///
/// What is stored is locked for the whole time, so what came after the last extension is locked for longer.
#[must_use]
pub fn guaranteed_until(repo: &Repository, view: &View) -> Option<SystemTime> {
    let retention = repo.config().retention?;
    Some(view.locked.map_or_else(|| time(repo.config().created) + retention.time(), time))
}

/// Whether locks are to be extended: when less than half of the time is left.
pub(super) fn is_due(repo: &Repository, view: &View, now: SystemTime) -> bool {
    let until = guaranteed_until(repo, view);
    repo.config().retention.zip(until).is_some_and(|(retention, until)| until < now + retention.time() / 2)
}

/// For each of the snapshots, until when the store keeps it and all it needs, as the store itself says of the snapshot.
///
/// # Errors
///
/// What the store returns.
pub fn locked_until(repo: &Repository, view: &View, snapshots: &[SnapshotName]) -> Result<Vec<Option<SystemTime>>> {
    let Some(guaranteed) = guaranteed_until(repo, view) else { return Ok(vec![None; snapshots.len()]) };
    let backend = repo.backend();
    let asked = parallel::map(backend.concurrency(), snapshots, |name| match backend.locked_until(&names::snapshot(name)) {
        Ok(until) => Ok(until.map(|until| until.min(guaranteed))),
        Err(e) if e.kind == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    });
    asked.into_iter().collect()
}

/// Locks these objects anew, and with them the config, all keys and all seals, with their parity; until when.
pub(super) fn extend(repo: &Repository, objects: Vec<ObjectKey>, monitor: &dyn Monitor) -> Result<Option<Timestamp>> {
    let Some(retention) = repo.config().retention else { return Ok(None) };
    monitor.stage("extending locks");
    let (lock, mut all) = (lock_from_now(retention), objects);
    all.extend([names::config(), names::parity_of(&names::config())]);
    for folder in ["keys/", "epochs/", "parity/keys/", "parity/epochs/"] {
        repo.backend().list(folder, &mut |meta| all.push(meta.key))?;
    }
    let done = parallel::map(repo.backend().concurrency(), &all, |key| {
        if monitor.cancelled() { Err(Error::Interrupted) } else { extend_one(&**repo.backend(), key, &lock) }
    });
    done.into_iter().collect::<Result<()>>()?;
    Ok(Some(lock.until.into()))
}

fn extend_one(backend: &dyn Backend, key: &ObjectKey, lock: &ObjectLock) -> Result<()> {
    match backend.extend_lock(key, lock) {
        // Whether something needed is gone is not for locks to find out.
        Err(e) if e.kind == ErrorKind::NotFound => Ok(()),
        // A machine whose clock is ahead has locked it for longer; stores keep whole seconds.
        Err(e) if e.kind == ErrorKind::Denied => {
            let until = backend.locked_until(key)?;
            if until.is_some_and(|until| until + Duration::from_secs(1) >= lock.until) { Ok(()) } else { Err(e.into()) }
        }
        outcome => Ok(outcome?),
    }
}
