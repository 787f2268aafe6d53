//! Says why a command waits: a store below a [`Retry`](engine::backend::retry::Retry) that tells the user about failed
//! calls which will be made again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use engine::backend::{Backend, BackendError, ObjectKey, ObjectLock, ObjectMeta};
use engine::monitor::Monitor;

/// Between two notes.
const INTERVAL: Duration = Duration::from_secs(15);

/// A store whose temporary failures are noted, now and then.
pub struct Announce {
    inner: Arc<dyn Backend>,
    monitor: Arc<dyn Monitor>,
    last: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Announce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Announce").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Announce {
    /// Notes the failures of `inner`.
    pub fn new(inner: Arc<dyn Backend>, monitor: Arc<dyn Monitor>) -> Self {
        Self { inner, monitor, last: Mutex::default() }
    }

    fn watch<T>(&self, result: Result<T, BackendError>) -> Result<T, BackendError> {
        if let Err(error) = &result
            && error.is_temporary()
            && self.is_due()
        {
            self.monitor.note(format!("{error}; trying again"));
        }
        result
    }

    fn is_due(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|at| at.elapsed() >= INTERVAL);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

impl Backend for Announce {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn concurrency(&self) -> usize {
        self.inner.concurrency()
    }

    fn prepare(&self) -> Result<(), BackendError> {
        self.watch(self.inner.prepare())
    }

    fn create(&self, key: &ObjectKey, body: Bytes) -> Result<(), BackendError> {
        self.watch(self.inner.create(key, body))
    }

    fn replace(&self, key: &ObjectKey, body: Bytes) -> Result<(), BackendError> {
        self.watch(self.inner.replace(key, body))
    }

    fn create_is_exclusive(&self) -> bool {
        self.inner.create_is_exclusive()
    }

    fn assume_exclusive(&self, exclusive: bool) {
        self.inner.assume_exclusive(exclusive);
    }

    fn stored_at(&self, key: &ObjectKey) -> Result<Option<SystemTime>, BackendError> {
        self.watch(self.inner.stored_at(key))
    }

    fn can_lock(&self) -> Result<bool, BackendError> {
        self.watch(self.inner.can_lock())
    }

    fn create_locked(&self, key: &ObjectKey, body: Bytes, lock: &ObjectLock) -> Result<(), BackendError> {
        self.watch(self.inner.create_locked(key, body, lock))
    }

    fn locked_until(&self, key: &ObjectKey) -> Result<Option<SystemTime>, BackendError> {
        self.watch(self.inner.locked_until(key))
    }

    fn extend_lock(&self, key: &ObjectKey, lock: &ObjectLock) -> Result<(), BackendError> {
        self.watch(self.inner.extend_lock(key, lock))
    }

    fn read(&self, key: &ObjectKey, max: u64) -> Result<Bytes, BackendError> {
        self.watch(self.inner.read(key, max))
    }

    fn read_range(&self, key: &ObjectKey, offset: u64, length: usize) -> Result<Bytes, BackendError> {
        self.watch(self.inner.read_range(key, offset, length))
    }

    fn size(&self, key: &ObjectKey) -> Result<u64, BackendError> {
        self.watch(self.inner.size(key))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectMeta)) -> Result<(), BackendError> {
        self.watch(self.inner.list(prefix, each))
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), BackendError> {
        self.watch(self.inner.delete(key))
    }

    fn barrier(&self) -> Result<(), BackendError> {
        self.watch(self.inner.barrier())
    }
}
