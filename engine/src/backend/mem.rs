//! A store in memory, for tests.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;

use super::{Backend, BackendError, ErrorKind, ObjectKey, ObjectMeta};
use crate::monitor::lock;

/// Objects in a map. Exclusive creation, no latency, no failures.
#[derive(Debug, Default)]
pub struct MemBackend {
    objects: Mutex<BTreeMap<ObjectKey, Bytes>>,
}

impl MemBackend {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces or adds an object behind the engine's back, to play a damaged or hostile store.
    pub fn overwrite(&self, key: &ObjectKey, body: impl Into<Bytes>) {
        lock(&self.objects).insert(key.clone(), body.into());
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        lock(&self.objects).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn error(&self, kind: ErrorKind, key: &ObjectKey, message: &str) -> BackendError {
        BackendError { kind, location: self.location(), key: key.to_string(), message: message.to_owned() }
    }

    fn get(&self, key: &ObjectKey) -> Result<Bytes, BackendError> {
        let found = lock(&self.objects).get(key).cloned();
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
        let mut objects = lock(&self.objects);
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
        let found: Vec<ObjectMeta> = lock(&self.objects)
            .iter()
            .filter(|(key, _)| key.as_str().starts_with(prefix))
            .map(|(key, body)| ObjectMeta { key: key.clone(), size: body.len() as u64 })
            .collect();
        found.into_iter().for_each(each);
        Ok(())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), BackendError> {
        lock(&self.objects).remove(key);
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
