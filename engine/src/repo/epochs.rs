//! The calls of the epoch protocol, on the repository's store.
//!
//! Objects that do not authenticate, and whose parity does not either, are reported and count as absent: whoever can write to the store must not be able to
//! stop writers with forged ones.

use std::collections::HashSet;
use std::sync::Mutex;

use super::Repository;
use super::names::{self, EpochRole};
use super::parallel;
use crate::backend::{BackendError, ErrorKind, ObjectKey};
use crate::error::{Error, Result};
use crate::format::epoch::{self, Close, Seal};
use crate::format::pack::SegmentName;
use crate::format::snapshot::SnapshotName;
use crate::format::{object, snapshot};
use crate::id::{Epoch, ObjectId};
use crate::monitor::{Monitor, Problem, lock};
use crate::parity;
use crate::protocol::{Folder, Marks, Name, Request, Store, Target};

/// How often requests are listed again because some are taken away meanwhile.
const MAX_ROUNDS: usize = 20;

/// [`Store`] for production: every call is over when it returns.
pub struct EpochStore<'a> {
    repo: &'a Repository,
    monitor: &'a dyn Monitor,
    /// Of the last look at the requests.
    damaged: Mutex<HashSet<Name>>,
}

impl<'a> EpochStore<'a> {
    /// The protocol's calls on `repo`; what does not authenticate goes to `monitor`.
    #[must_use]
    pub fn new(repo: &'a Repository, monitor: &'a dyn Monitor) -> Self {
        Self { repo, monitor, damaged: Mutex::default() }
    }

    /// Packs marked as damaged when the requests were read last: both are looked for in one go.
    #[must_use]
    pub fn damaged(&self) -> HashSet<Name> {
        lock(&self.damaged).clone()
    }

    fn report(&self, object: &ObjectKey, error: &object::FormatError) {
        self.monitor.problem(Problem { subject: object.to_string(), message: format!("{error}; ignored") });
    }

    fn read(&self, object: &ObjectKey) -> Result<Option<bytes::Bytes>> {
        absent_is_none(self.repo.backend().read(object, object::MAX_SIZE))
    }

    /// Reads an object and opens it; a damaged one as its parity tells it. Where that does not do either, it counts as absent.
    fn open<T>(
        &self,
        object: &ObjectKey,
        open: impl Fn(&[u8]) -> Result<T, object::FormatError>,
    ) -> Result<Option<(ObjectId, T)>> {
        let Some(bytes) = self.read(object)? else { return Ok(None) };
        let damage = match open(&bytes) {
            Ok(opened) => return Ok(Some((ObjectId::of(&bytes), opened))),
            Err(damage) => damage,
        };
        if let Some(bytes) = parity::rebuild(&**self.repo.backend(), object)?
            && let Ok(opened) = open(&bytes)
        {
            let message = format!("{damage}; its parity has the right bytes: run 'repair parity'");
            self.monitor.problem(Problem { subject: object.to_string(), message });
            return Ok(Some((ObjectId::of(&bytes), opened)));
        }
        self.report(object, &damage);
        Ok(None)
    }

    fn create(&self, object: &ObjectKey, bytes: Result<Vec<u8>, object::FormatError>) -> Result<bool> {
        let bytes = bytes.map_err(|e| Error::damaged(object, e))?;
        let backend = self.repo.backend();
        // What this object says of others must not outlive them in a crash.
        backend.barrier()?;
        match backend.create(object, bytes.into()) {
            Ok(()) => {}
            Err(e) if e.kind == ErrorKind::AlreadyExists => return Ok(false),
            Err(e) => return Err(e.into()),
        }
        backend.barrier()?;
        Ok(true)
    }

    fn list_folder(&self, folder: &str) -> Result<Vec<Name>> {
        let mut found = Vec::new();
        self.repo.backend().list(&format!("{folder}/"), &mut |meta| found.extend(names::parse_epoch_id(&meta.key, folder)))?;
        Ok(found)
    }

    /// The ids in a folder of requests.
    fn list_requests(&self, folder: &str) -> Result<Vec<ObjectId>> {
        let mut ids = Vec::new();
        self.repo.backend().list(&format!("{folder}/"), &mut |meta| ids.extend(names::parse_id(&meta.key, folder)))?;
        Ok(ids)
    }

    /// `None` if one went away between the listing and the reading.
    fn try_requests(&self) -> Result<Option<Vec<Request>>> {
        let (repo, threads) = (self.repo, self.repo.backend().concurrency());
        let mut lists = parallel::map(threads, &["forget", "damaged"], |folder| self.list_requests(folder));
        let marks = lists.pop().unwrap_or(Ok(Vec::new()))?;
        let ids = lists.pop().unwrap_or(Ok(Vec::new()))?;
        let read = parallel::map(threads, &ids, |id| self.read(&names::forget(id)));
        let mut requests = Vec::with_capacity(ids.len());
        for (id, bytes) in ids.into_iter().zip(read) {
            let Some(bytes) = bytes? else { return Ok(None) };
            match snapshot::open_forget(&repo.keys().meta, repo.id(), &bytes) {
                Ok(names) => requests.push((id, names)),
                Err(e) => self.report(&names::forget(&id), &e),
            }
        }
        let read = parallel::map(threads, &marks, |id| self.read(&names::damage(id)));
        let mut damaged = HashSet::new();
        for (id, bytes) in marks.into_iter().zip(read) {
            let Some(bytes) = bytes? else { return Ok(None) };
            match snapshot::open_damage(&repo.keys().meta, repo.id(), &bytes) {
                Ok(names) => damaged.extend(names),
                Err(e) => self.report(&names::damage(&id), &e),
            }
        }
        *lock(&self.damaged) = damaged;
        Ok(Some(requests))
    }
}

fn folder_name(folder: Folder) -> &'static str {
    match folder {
        Folder::Index => "index",
        Folder::Snapshots => "snapshots",
        Folder::Packs => "packs",
    }
}

fn absent_is_none<T>(result: Result<T, BackendError>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}

impl Store for EpochStore<'_> {
    async fn list_epochs(&self) -> Result<Marks> {
        let mut marks = Marks::new();
        self.repo.backend().list("epochs/", &mut |meta| {
            if let Some((epoch, role)) = names::parse_epoch_role(&meta.key) {
                marks.entry(epoch).or_default().insert(role);
            }
        })?;
        Ok(marks)
    }

    async fn list(&self, folders: &[Folder]) -> Result<Vec<Vec<Name>>> {
        let lists = parallel::map(self.repo.backend().concurrency(), folders, |folder| self.list_folder(folder_name(*folder)));
        lists.into_iter().collect()
    }

    async fn requests(&self) -> Result<Vec<Request>> {
        for _ in 0..MAX_ROUNDS {
            if let Some(requests) = self.try_requests()? {
                return Ok(requests);
            }
        }
        Err(Error::Invalid("requests to forget come and go; try again later".into()))
    }

    async fn read_close(&self, epoch: Epoch) -> Result<Option<Close>> {
        let open = |bytes: &[u8]| epoch::open_close(&self.repo.keys().epochs, self.repo.id(), epoch, bytes);
        Ok(self.open(&names::epoch(epoch, EpochRole::Close), open)?.map(|(_, close)| close))
    }

    async fn read_seal(&self, epoch: Epoch) -> Result<Option<(ObjectId, Seal)>> {
        let open = |bytes: &[u8]| epoch::open_seal(&self.repo.keys().epochs, self.repo.id(), epoch, bytes);
        let Some((id, (seal, parity))) = self.open(&names::epoch(epoch, EpochRole::Seal), open)? else { return Ok(None) };
        self.repo.parity().note_seal(epoch, parity);
        Ok(Some((id, seal)))
    }

    async fn has_mark(&self, epoch: Epoch, role: EpochRole) -> Result<bool> {
        let object = names::epoch(epoch, role);
        let Some(bytes) = self.read(&object)? else { return Ok(false) };
        let opened = epoch::open_mark(&self.repo.keys().epochs, role.kind(), self.repo.id(), epoch, &bytes);
        Ok(opened.inspect_err(|e| self.report(&object, e)).is_ok())
    }

    async fn create_close(&self, epoch: Epoch, close: &Close) -> Result<bool> {
        let bytes = epoch::seal_close(&self.repo.keys().epochs, self.repo.id(), epoch, close);
        self.create(&names::epoch(epoch, EpochRole::Close), bytes)
    }

    async fn create_seal(&self, epoch: Epoch, seal: &Seal) -> Result<bool> {
        let parity = self.repo.parity().to_seal();
        let bytes = epoch::seal_seal(&self.repo.keys().epochs, self.repo.id(), epoch, seal, parity);
        let id = bytes.as_ref().map(|bytes| ObjectId::of(bytes)).ok();
        let created = self.create(&names::epoch(epoch, EpochRole::Seal), bytes)?;
        if created {
            self.repo.remember_head(id.map(|id| (epoch, id)), self.monitor);
        }
        Ok(created)
    }

    async fn create_mark(&self, epoch: Epoch, role: EpochRole) -> Result<bool> {
        let bytes = epoch::seal_mark(&self.repo.keys().epochs, role.kind(), self.repo.id(), epoch);
        self.create(&names::epoch(epoch, role), bytes)
    }

    async fn delete(&self, target: &Target) -> Result<()> {
        let backend = self.repo.backend();
        match target {
            Target::Object(Folder::Index, (epoch, id)) => {
                backend.delete(&names::segment(&SegmentName { epoch: *epoch, id: *id }))?;
            }
            Target::Object(Folder::Snapshots, (epoch, id)) => {
                backend.delete(&names::snapshot(&SnapshotName { epoch: *epoch, id: *id }))?;
            }
            Target::Object(Folder::Packs, (epoch, id)) => backend.delete(&names::pack(*epoch, id))?,
            Target::Request(id) => backend.delete(&names::forget(id))?,
            Target::Sessions(epoch) => {
                for (e, id) in self.list_folder("sessions")?.into_iter().filter(|(e, _)| e <= epoch) {
                    backend.delete(&names::session(e, &id))?;
                }
            }
        }
        Ok(())
    }
}
