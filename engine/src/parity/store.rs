//! A store that keeps parity beside the objects it stores.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::{Setting, inside};
use crate::backend::{Backend, BackendError, ErrorKind, ObjectKey, ObjectLock, ObjectMeta};
use crate::format::ObjectKind;
use crate::id::RepoId;
use crate::names;

/// Objects with parity inside, as much as a [`Setting`] says.
///
/// An object is stored before its parity and deleted after it, so that parity without an object means a lost object, and
/// nothing that was deleted comes back. Where storing the parity fails, the call fails though the object is stored, as if
/// the reply had been lost.
#[derive(Debug)]
pub struct ParityStore {
    inner: Arc<dyn Backend>,
    repo: RepoId,
    setting: Arc<Setting>,
}

impl ParityStore {
    /// Parity for the objects of a repository in `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>, repo: RepoId, setting: Arc<Setting>) -> Self {
        Self { inner, repo, setting }
    }

    /// Makes the parity of an object that is stored.
    fn protect(&self, key: &ObjectKey, body: &Bytes) -> Result<(), BackendError> {
        let Some(claim) = names::parse(key) else { return Ok(()) };
        let Some(percent) = self.setting.percent_for(claim.kind) else { return Ok(()) };
        let made = inside::make(self.repo, &claim, body, inside::count(body.len() as u64, percent));
        let made = made.map_err(|e| BackendError {
            kind: ErrorKind::Unsupported,
            location: self.location(),
            key: key.to_string(),
            message: format!("no parity can be made: {e}"),
        })?;
        let Some(made) = made.map(Bytes::from) else { return Ok(()) };
        if claim.kind.is_vital() {
            // After a power failure there must not be the parity alone: the object would be taken for lost.
            self.inner.barrier()?;
        }
        let parity = names::parity_of(key);
        match self.inner.create(&parity, made.clone()) {
            Err(error) if error.kind == ErrorKind::AlreadyExists && claim.id.is_some() => Ok(()),
            // Of an object that had this name before and is lost.
            Err(error) if error.kind == ErrorKind::AlreadyExists => self.inner.replace(&parity, made),
            result => result,
        }
    }
}

impl Backend for ParityStore {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn concurrency(&self) -> usize {
        self.inner.concurrency()
    }

    fn prepare(&self) -> Result<(), BackendError> {
        self.inner.prepare()
    }

    fn create(&self, key: &ObjectKey, body: Bytes) -> Result<(), BackendError> {
        self.inner.create(key, body.clone())?;
        self.protect(key, &body)
    }

    fn create_is_exclusive(&self) -> bool {
        self.inner.create_is_exclusive()
    }

    fn assume_exclusive(&self, exclusive: bool) {
        self.inner.assume_exclusive(exclusive);
    }

    fn replace(&self, key: &ObjectKey, body: Bytes) -> Result<(), BackendError> {
        self.inner.replace(key, body)
    }

    fn can_lock(&self) -> Result<bool, BackendError> {
        self.inner.can_lock()
    }

    fn create_locked(&self, key: &ObjectKey, body: Bytes, lock: &ObjectLock) -> Result<(), BackendError> {
        self.inner.create_locked(key, body.clone(), lock)?;
        self.protect(key, &body)
    }

    fn locked_until(&self, key: &ObjectKey) -> Result<Option<SystemTime>, BackendError> {
        self.inner.locked_until(key)
    }

    fn extend_lock(&self, key: &ObjectKey, lock: &ObjectLock) -> Result<(), BackendError> {
        self.inner.extend_lock(key, lock)
    }

    fn stored_at(&self, key: &ObjectKey) -> Result<Option<SystemTime>, BackendError> {
        self.inner.stored_at(key)
    }

    fn read(&self, key: &ObjectKey, max: u64) -> Result<Bytes, BackendError> {
        self.inner.read(key, max)
    }

    fn read_range(&self, key: &ObjectKey, offset: u64, length: usize) -> Result<Bytes, BackendError> {
        self.inner.read_range(key, offset, length)
    }

    fn size(&self, key: &ObjectKey) -> Result<u64, BackendError> {
        self.inner.size(key)
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectMeta)) -> Result<(), BackendError> {
        self.inner.list(prefix, each)
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), BackendError> {
        // Parity may have been switched on, unknown to this process; a key or a request that was taken back must not come
        // back by it.
        let must_go = names::parse(key).is_some_and(|claim| matches!(claim.kind, ObjectKind::KeySlot | ObjectKind::Forget));
        if must_go || self.setting.percent() > 0 && names::parse(key).is_some() {
            self.inner.delete(&names::parity_of(key))?;
            if must_go {
                self.inner.barrier()?;
            }
        }
        self.inner.delete(key)
    }

    fn barrier(&self) -> Result<(), BackendError> {
        self.inner.barrier()
    }
}
