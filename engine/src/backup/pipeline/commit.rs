//! How a round ends: by a snapshot, or because maintenance has ended its epoch.

use std::sync::Arc;

use super::Coordinator;
use crate::backup::store::Nodes;
use crate::backup::{ParentView, Round};
use crate::catalog::CatalogBuilder;
use crate::error::Result;
use crate::format::epoch::EpochRole;
use crate::format::snapshot::SnapshotKind;
use crate::id::{BlobId, Epoch, ObjectId};
use crate::monitor::Problem;
use crate::protocol::{self, Commit, Store as _};
use crate::repo::{EpochStore, names};

impl Coordinator<'_> {
    /// Whether maintenance has ended a round since this one began: packs that it moved are gone then.
    pub(super) fn is_overtaken(&self) -> Result<bool> {
        let view = self.store.reader.repo().load_view(&**self.monitor)?;
        Ok(view.head != self.store.reader.view().head)
    }

    /// What is stored so far is indexed, and the next round finds it.
    pub(super) fn overtaken(&mut self) -> Result<Round> {
        self.drain_all()?;
        self.store_all()?;
        Ok(Round::Again { parent: None, lost: Vec::new() })
    }

    /// A new round, if the fence of this one's epoch stands: what was stored since would be stored again, and nothing more is
    /// to be added to that.
    pub(super) fn move_on_if_fenced(&mut self) -> Result<Option<Round>> {
        if !self.is_fenced()? {
            return Ok(None);
        }
        let root = self.root_so_far()?;
        self.session.await_seal(self.store, &**self.monitor)?;
        Ok(Some(self.again(root, self.parent_view)))
    }

    fn is_fenced(&self) -> Result<bool> {
        let reader = &self.store.reader;
        protocol::run(EpochStore::new(reader.repo(), &**self.monitor).has_mark(reader.view().epoch, EpochRole::Fence))
    }

    /// Stores all that is read so far, and its catalog.
    fn root_so_far(&mut self) -> Result<Option<BlobId>> {
        self.drain_all()?;
        let root = self.queue.catalog.clone().finish(&mut Nodes(self.store))?;
        self.store_all()?;
        Ok(root)
    }

    pub(super) fn commit_partial(&mut self) -> Result<Option<Round>> {
        let root = self.root_so_far()?;
        let tally = (self.queue.totals, self.queue.problems, SnapshotKind::Partial, self.parent_id());
        match self.session.commit(self.store, self.options, root, tally, self.monitor)? {
            Commit::Committed(name) => {
                self.session.partial_done(name, self.stored_bytes());
                // It may count by the seal, and then this round is over, too.
                self.look_for_fence = true;
                Ok(None)
            }
            Commit::Fenced(_) => Ok(Some(self.again(root, self.parent_view))),
            Commit::Lost(lost) => Ok(Some(self.without(lost)?)),
        }
    }

    fn parent_id(&self) -> Option<ObjectId> {
        self.parent_view.and_then(|p| p.id)
    }

    /// Another round that compares with what this one has read, and beyond its end with `rest`.
    fn again(&self, root: Option<BlobId>, rest: Option<&ParentView>) -> Round {
        let parent = ParentView {
            reader: Arc::clone(&self.store.reader),
            id: self.parent_id(),
            root,
            started: self.session.started,
            rest: rest.cloned().map(Box::new),
        };
        Round::Again { parent: Some(parent), lost: Vec::new() }
    }

    fn without(&self, lost: Vec<(Epoch, ObjectId)>) -> Result<Round> {
        if self.is_fenced()? {
            let number = lost.len();
            self.monitor.note(format!("maintenance has deleted {number} packs meanwhile; what they held is stored again"));
            return Ok(Round::Again { parent: None, lost });
        }
        for (epoch, id) in &lost {
            let subject = names::pack(*epoch, id).to_string();
            let message = "is missing or has the wrong size; what it held is read and stored again".into();
            self.monitor.problem(Problem { subject, message });
        }
        Ok(Round::Again { parent: None, lost })
    }

    pub(super) fn commit(&mut self, lost: u64) -> Result<Round> {
        let problems = self.queue.problems.saturating_add(lost);
        let catalog = CatalogBuilder::new(self.store.reader.repo().keys().borders.clone());
        let catalog = std::mem::replace(&mut self.queue.catalog, catalog);
        let root = catalog.finish(&mut Nodes(self.store))?;
        let mut outcome = self.outcome.clone();
        if !self.options.dry_run {
            self.monitor.stage("saving");
            self.store_all()?;
            let tally = (self.queue.totals, problems, SnapshotKind::Complete, self.parent_id());
            match self.session.commit(self.store, self.options, root, tally, self.monitor)? {
                Commit::Committed(name) => {
                    self.store.reader.repo().remember_snapshot(name, &**self.monitor);
                    outcome.snapshot = Some(name);
                }
                Commit::Fenced(_) => return Ok(self.again(root, None)),
                Commit::Lost(lost) => return self.without(lost),
            }
        }
        let load = |n: &std::sync::atomic::AtomicU64| n.load(std::sync::atomic::Ordering::Relaxed);
        let figures = &self.store.figures;
        (outcome.data_blobs, outcome.added_bytes, outcome.stored_bytes) =
            (load(&figures.data_blobs), load(&figures.added), load(&figures.stored));
        (outcome.totals, outcome.problems) = (self.queue.totals, problems);
        outcome.head = self.store.reader.view().head;
        Ok(Round::Done(Box::new(outcome)))
    }
}
