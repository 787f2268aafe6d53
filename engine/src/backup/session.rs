//! The writer's side of the epoch protocol around the pipeline: announcing, committing, looking for the fence.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::store::Store;
use super::{Attempt, BackupOptions};
use crate::entry::Timestamp;
use crate::error::{Error, Result};
use crate::format::epoch::Seal;
use crate::format::snapshot::{self, Session, Snapshot, SnapshotKind, Totals};
use crate::id::{BlobId, Epoch, ObjectId};
use crate::monitor::Monitor;
use crate::protocol::{self, Commit, Rules, Store as _, Writer};
use crate::repo::{EpochStore, SnapshotName, names, now};

/// A long backup saves what it has after so many bytes stored (W5).
const PARTIAL_BYTES: u64 = 64 << 30;

/// Longest wait for maintenance to seal an epoch.
const LONGEST_WAIT: Duration = Duration::from_secs(10 * 60);
/// Waits between two looks for the seal.
const WAITS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// One writer's session under one epoch.
pub(super) struct WriteSession {
    id: [u8; 16],
    pub(super) started: Timestamp,
    announcement: Option<ObjectId>,
    epoch: Epoch,
    began: Instant,
    partial_after: Duration,
    last_partial: Instant,
    stored_at_partial: u64,
    partials: Vec<SnapshotName>,
}

impl WriteSession {
    /// Announces the session; that is advice for maintenance, so failing to is no failure.
    pub(super) fn begin(store: &Store, options: &BackupOptions, attempt: Attempt) -> Self {
        let repo = store.reader.repo();
        let Attempt { session: id, partial_after } = attempt;
        let (started, epoch) = (now(), store.reader.view().epoch);
        let mut announcement = None;
        if !options.dry_run {
            let owner = format!("{}@{} pid {}", options.user, options.host, std::process::id());
            let sealed = snapshot::seal_session(&repo.keys().meta, repo.id(), epoch, &Session { id, started, owner });
            if let Ok(bytes) = sealed {
                let name = ObjectId::of(&bytes);
                let created = repo.backend().create(&names::session(epoch, &name), bytes.into());
                announcement = created.is_ok().then_some(name);
            }
        }
        let began = Instant::now();
        Self {
            id,
            started,
            announcement,
            epoch,
            began,
            partial_after,
            last_partial: began,
            stored_at_partial: 0,
            partials: Vec::new(),
        }
    }

    /// Whether it is time for a partial snapshot.
    pub(super) fn partial_is_due(&self, stored: u64) -> bool {
        self.last_partial.elapsed() >= self.partial_after || stored - self.stored_at_partial >= PARTIAL_BYTES
    }

    /// Notes that a partial snapshot was written.
    pub(super) fn partial_done(&mut self, name: SnapshotName, stored: u64) {
        self.partials.push(name);
        self.last_partial = Instant::now();
        self.stored_at_partial = stored;
    }

    /// W6 to W8. Everything the snapshot refers to must be stored and indexed.
    pub(super) fn commit(
        &self,
        store: &Store,
        options: &BackupOptions,
        root: Option<BlobId>,
        tally: (Totals, u64, SnapshotKind, Option<ObjectId>),
        monitor: &Arc<dyn Monitor>,
    ) -> Result<Commit> {
        let repo = store.reader.repo();
        let (totals, problems, kind, parent) = tally;
        repo.backend().barrier()?;
        let mut tags = options.tags.clone();
        tags.extend(options.incomplete_tag.clone().filter(|tag| problems > 0 && !options.tags.contains(tag)));
        let snapshot = Snapshot {
            time: options.time,
            started: self.started,
            host: options.host.clone(),
            user: options.user.clone(),
            paths: options.paths.clone(),
            tags,
            program: options.program.clone(),
            root,
            totals,
            kind,
            parent,
            head: store.reader.view().head,
            session: self.id,
            problems,
            origin: options.origin.clone(),
        };
        let writer = Finished { store, snapshot, epoch: self.epoch };
        match protocol::run(protocol::commit(&EpochStore::new(repo, &**monitor), &writer, self.epoch, &Rules::ALL))? {
            Commit::Fenced(name) => {
                let seal = self.await_seal(store, &**monitor)?;
                let counts = seal.is_some_and(|seal| seal.names(&name));
                Ok(if counts { Commit::Committed(name) } else { Commit::Fenced(name) })
            }
            outcome => Ok(outcome),
        }
    }

    /// Waits for the seal of the epoch, whose fence stands: what it names needs not be stored again. At most as long as this
    /// session has taken, since maintenance may have been broken off, and what is lost then is no more than that.
    pub(super) fn await_seal(&self, store: &Store, monitor: &dyn Monitor) -> Result<Option<Seal>> {
        let epochs = EpochStore::new(store.reader.repo(), monitor);
        let limit = self.began.elapsed().min(LONGEST_WAIT);
        let (began, mut wait, mut told) = (Instant::now(), WAITS.0, false);
        loop {
            if let Some((_, seal)) = protocol::run(epochs.read_seal(self.epoch))? {
                return Ok(Some(seal));
            }
            if began.elapsed() >= limit {
                return Ok(None);
            }
            if monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            if wait == WAITS.1 && !std::mem::replace(&mut told, true) {
                let most = limit.as_secs();
                monitor.note(format!("maintenance is ending epoch {}: waiting for it, {most} s at most", self.epoch));
            }
            std::thread::sleep(wait.min(limit.saturating_sub(began.elapsed())));
            wait = (wait * 2).min(WAITS.1);
        }
    }

    /// Takes the announcement back, and asks to forget the partial snapshots once there is a complete one.
    pub(super) fn end(&self, store: &Store, complete: bool) {
        let repo = store.reader.repo();
        if complete && !self.partials.is_empty() {
            let names: Vec<_> = self.partials.iter().map(|s| (s.epoch, s.id)).collect();
            if let Ok(bytes) = snapshot::seal_forget(&repo.keys().meta, repo.id(), &names) {
                // Listings leave superseded partial snapshots out anyway; without the request they only cost space.
                let id = ObjectId::of(&bytes);
                drop(repo.backend().create(&names::forget(&id), bytes.into()));
            }
        }
        if let Some(id) = &self.announcement {
            drop(repo.backend().delete(&names::session(self.epoch, id)));
        }
    }
}

/// A session whose packs and segments are stored.
struct Finished<'a> {
    store: &'a Store,
    snapshot: Snapshot,
    epoch: Epoch,
}

impl Writer for Finished<'_> {
    async fn missing_packs(&self) -> Result<Vec<(Epoch, ObjectId)>> {
        self.store.missing_packs()
    }

    async fn create_snapshot(&self) -> Result<SnapshotName> {
        let repo = self.store.reader.repo();
        let sealed = snapshot::seal(&repo.keys().meta, repo.id(), self.epoch, &self.snapshot);
        let bytes = sealed.map_err(|e| Error::damaged("the new snapshot", e))?;
        let name = SnapshotName { epoch: self.epoch, id: ObjectId::of(&bytes) };
        repo.backend().create(&names::snapshot(&name), bytes.into())?;
        repo.backend().barrier()?;
        Ok(name)
    }
}
