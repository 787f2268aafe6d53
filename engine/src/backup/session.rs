//! The writer's side of the epoch protocol around the pipeline: announcing, committing, looking for the fence.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::BackupOptions;
use super::store::Store;
use crate::crypto::random_bytes;
use crate::entry::Timestamp;
use crate::error::{Error, Result};
use crate::format::snapshot::{self, Session, Snapshot, SnapshotKind, Totals};
use crate::id::{BlobId, Epoch, ObjectId};
use crate::monitor::Monitor;
use crate::protocol::{self, Commit, Rules, Writer};
use crate::repo::{EpochStore, SnapshotName, names, now};

/// A long backup saves what it has this often (W5).
const PARTIAL_AFTER: Duration = Duration::from_secs(30 * 60);
/// And after so many bytes stored.
const PARTIAL_BYTES: u64 = 64 << 30;

/// One writer's session under one epoch.
pub(super) struct WriteSession {
    id: [u8; 16],
    pub(super) started: Timestamp,
    announcement: Option<ObjectId>,
    epoch: Epoch,
    last_partial: Instant,
    stored_at_partial: u64,
    partials: Vec<SnapshotName>,
}

impl WriteSession {
    /// Announces the session; that is advice for maintenance, so failing to is no failure.
    pub(super) fn begin(store: &Store, options: &BackupOptions) -> Self {
        let repo = store.reader.repo();
        let (id, started, epoch) = (random_bytes(), now(), store.reader.view().epoch);
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
        Self { id, started, announcement, epoch, last_partial: Instant::now(), stored_at_partial: 0, partials: Vec::new() }
    }

    /// Whether it is time for a partial snapshot.
    pub(super) fn partial_is_due(&self, stored: u64) -> bool {
        self.last_partial.elapsed() >= PARTIAL_AFTER || stored - self.stored_at_partial >= PARTIAL_BYTES
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
        protocol::run(protocol::commit(&EpochStore::new(repo, &**monitor), &writer, self.epoch, &Rules::ALL))
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
