//! Objects that the store is asked to keep until a time, whoever wants to delete them: S3's Object Lock.
//!
//! Everything that is needed to read a snapshot is locked as it is stored. Requests, marks and announcements are not: they
//! come and go, and nothing is lost with them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::backend::{Backend, BackendError, ErrorKind, ObjectKey, ObjectLock, ObjectMeta};
use crate::error::{Error, Result};
use crate::format::config::{RETENTION_DAYS, Retention};

/// Folders and objects whose loss would be a loss.
const LASTING: [&str; 9] =
    ["config", "keys/", "packs/", "index/", "snapshots/", "epochs/", "parity/config", "parity/keys/", "parity/epochs/"];

/// What clocks and slow requests may make a lock shorter by.
const SLACK: Duration = Duration::from_secs(15 * 60);

/// Whether an object is locked as it is stored.
pub(super) fn is_lasting(key: &ObjectKey) -> bool {
    LASTING.iter().any(|prefix| key.as_str().starts_with(prefix))
}

/// A lock from now on.
pub(crate) fn lock_from_now(retention: Retention) -> ObjectLock {
    ObjectLock { mode: retention.mode, until: SystemTime::now() + retention.time() }
}

/// A store for a new repository, if it can lock objects.
pub(super) fn begin(backend: Arc<dyn Backend>, retention: Retention) -> Result<Arc<dyn Backend>> {
    if !RETENTION_DAYS.contains(&retention.days) {
        return Err(Error::Invalid(format!("objects cannot be locked for {} days", retention.days)));
    }
    if !backend.can_lock()? {
        let place = backend.location();
        return Err(Error::Unsupported(format!(
            "{place}: this store cannot lock objects; Object Lock has to be enabled when an S3 bucket is made"
        )));
    }
    Ok(Arc::new(Locked::new(backend, retention)))
}

/// Fails unless an object that was just stored is locked: some servers take a lock and forget it.
pub(super) fn verify(backend: &dyn Backend, key: &ObjectKey, retention: Retention) -> Result<()> {
    let wanted = SystemTime::now() + retention.time() - SLACK;
    if backend.locked_until(key)?.is_some_and(|until| until >= wanted) {
        return Ok(());
    }
    let place = backend.location();
    Err(Error::Unsupported(format!("{place}: this store takes locks on objects, and does not keep them; nothing was made")))
}

/// A store that locks what lasts.
#[derive(Debug)]
pub(super) struct Locked {
    inner: Arc<dyn Backend>,
    retention: Retention,
}

impl Locked {
    pub(super) fn new(inner: Arc<dyn Backend>, retention: Retention) -> Self {
        Self { inner, retention }
    }
}

impl Backend for Locked {
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
        if !is_lasting(key) {
            return self.inner.create(key, body);
        }
        match self.inner.create_locked(key, body, &lock_from_now(self.retention)) {
            Err(error) if error.kind == ErrorKind::Unsupported => {
                let message = "this repository locks its objects, and the store cannot: 'copy' its snapshots into a repository \
                               without locks to go on here";
                Err(BackendError { message: message.into(), ..error })
            }
            outcome => outcome,
        }
    }

    fn replace(&self, key: &ObjectKey, body: Bytes) -> Result<(), BackendError> {
        self.inner.replace(key, body)?;
        if is_lasting(key) { self.inner.extend_lock(key, &lock_from_now(self.retention)) } else { Ok(()) }
    }

    fn create_is_exclusive(&self) -> bool {
        self.inner.create_is_exclusive()
    }

    fn assume_exclusive(&self, exclusive: bool) {
        self.inner.assume_exclusive(exclusive);
    }

    fn stored_at(&self, key: &ObjectKey) -> Result<Option<SystemTime>, BackendError> {
        self.inner.stored_at(key)
    }

    fn can_lock(&self) -> Result<bool, BackendError> {
        self.inner.can_lock()
    }

    fn create_locked(&self, key: &ObjectKey, body: Bytes, lock: &ObjectLock) -> Result<(), BackendError> {
        self.inner.create_locked(key, body, lock)
    }

    fn locked_until(&self, key: &ObjectKey) -> Result<Option<SystemTime>, BackendError> {
        self.inner.locked_until(key)
    }

    fn extend_lock(&self, key: &ObjectKey, lock: &ObjectLock) -> Result<(), BackendError> {
        self.inner.extend_lock(key, lock)
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
        self.inner.delete(key)
    }

    fn barrier(&self) -> Result<(), BackendError> {
        self.inner.barrier()
    }
}
