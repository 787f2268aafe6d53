//! A store in memory, for tests.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::SystemTime;

use bytes::Bytes;

use super::{Backend, BackendError, ErrorKind, ObjectKey, ObjectLock, ObjectMeta};
use crate::monitor::lock as lock_mutex;

/// Objects in a map. Exclusive creation, no latency, no failures.
#[derive(Debug, Default)]
pub struct MemBackend {
    objects: Mutex<BTreeMap<ObjectKey, Bytes>>,
    /// Of a store that can lock: until when its objects are, deleted ones included.
    locks: Option<Mutex<BTreeMap<ObjectKey, SystemTime>>>,
}

impl MemBackend {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that can lock objects. Deleted ones are gone here, as they seem to be where they are kept.
    #[must_use]
    pub fn locking() -> Self {
        Self { locks: Some(Mutex::default()), ..Self::default() }
    }

    /// Replaces or adds an object behind the engine's back, to play a damaged or hostile store.
    pub fn overwrite(&self, key: &ObjectKey, body: impl Into<Bytes>) {
        lock_mutex(&self.objects).insert(key.clone(), body.into());
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        lock_mutex(&self.objects).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn error(&self, kind: ErrorKind, key: &ObjectKey, message: &str) -> BackendError {
        BackendError { kind, location: self.location(), key: key.to_string(), message: message.to_owned() }
    }

    fn get(&self, key: &ObjectKey) -> Result<Bytes, BackendError> {
        let found = lock_mutex(&self.objects).get(key).cloned();
        found.ok_or_else(|| self.error(ErrorKind::NotFound, key, "no such object"))
    }
}

impl Backend for MemBackend {
    fn location(&self) -> String {
        "mem:".to_owned()
    }

    fn concurrency(&self) -> usize {
        4
    }

    fn prepare(&self) -> Result<(), BackendError> {
        Ok(())
    }

    fn create(&self, key: &ObjectKey, body: Bytes) -> Result<(), BackendError> {
        let mut objects = lock_mutex(&self.objects);
        if objects.contains_key(key) {
            return Err(self.error(ErrorKind::AlreadyExists, key, "already exists"));
        }
        objects.insert(key.clone(), body);
        Ok(())
    }

    fn replace(&self, key: &ObjectKey, body: Bytes) -> Result<(), BackendError> {
        self.overwrite(key, body);
        Ok(())
    }

    fn create_is_exclusive(&self) -> bool {
        true
    }

    fn can_lock(&self) -> Result<bool, BackendError> {
        Ok(self.locks.is_some())
    }

    fn create_locked(&self, key: &ObjectKey, body: Bytes, lock: &ObjectLock) -> Result<(), BackendError> {
        let Some(locks) = &self.locks else { return Err(self.no_locks(key)) };
        self.create(key, body)?;
        lock_mutex(locks).insert(key.clone(), lock.until);
        Ok(())
    }

    fn locked_until(&self, key: &ObjectKey) -> Result<Option<SystemTime>, BackendError> {
        Ok(self.locks.as_ref().and_then(|locks| lock_mutex(locks).get(key).copied()))
    }

    fn extend_lock(&self, key: &ObjectKey, lock: &ObjectLock) -> Result<(), BackendError> {
        let Some(locks) = &self.locks else { return Err(self.no_locks(key)) };
        self.get(key)?;
        let mut locks = lock_mutex(locks);
        if locks.get(key).is_some_and(|until| *until > lock.until) {
            return Err(self.error(ErrorKind::Denied, key, "locked for longer"));
        }
        locks.insert(key.clone(), lock.until);
        Ok(())
    }

    fn read(&self, key: &ObjectKey, max: u64) -> Result<Bytes, BackendError> {
        let body = self.get(key)?;
        if body.len() as u64 > max {
            return Err(self.error(ErrorKind::Corrupt, key, "larger than it may be"));
        }
        Ok(body)
    }

    fn read_range(&self, key: &ObjectKey, offset: u64, length: usize) -> Result<Bytes, BackendError> {
        let body = self.get(key)?;
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(length)?)).filter(|r| r.end <= body.len());
        range.map(|range| body.slice(range)).ok_or_else(|| self.error(ErrorKind::Corrupt, key, "too short"))
    }

    fn size(&self, key: &ObjectKey) -> Result<u64, BackendError> {
        Ok(self.get(key)?.len() as u64)
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectMeta)) -> Result<(), BackendError> {
        // Collected first: the callback may use the store.
        let found: Vec<ObjectMeta> = lock_mutex(&self.objects)
            .iter()
            .filter(|(key, _)| key.as_str().starts_with(prefix))
            .map(|(key, body)| ObjectMeta { key: key.clone(), size: body.len() as u64 })
            .collect();
        found.into_iter().for_each(each);
        Ok(())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), BackendError> {
        lock_mutex(&self.objects).remove(key);
        Ok(())
    }

    fn barrier(&self) -> Result<(), BackendError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms() {
        crate::backend::suite::run(&|| Box::new(MemBackend::new()));
    }
}
