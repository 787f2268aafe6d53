//! Finds out whether the server keeps to conditional writes.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use engine::backend::{Backend, BackendError, ErrorKind, ObjectKey};

use super::S3Backend;

impl S3Backend {
    /// Writes one key twice with different bodies and looks which one stays, then deletes it. The answer is
    /// remembered and from then on given by [`Backend::create_is_exclusive`].
    ///
    /// Needs the permission to delete. Tells nothing about races between servers of a cluster, or about versions.
    ///
    /// # Errors
    ///
    /// As for any call; then nothing is known.
    pub fn probe_create(&self) -> Result<bool, BackendError> {
        let random = getrandom::u64().map_err(|e| BackendError {
            kind: ErrorKind::Other,
            location: self.location(),
            key: String::new(),
            message: format!("no random numbers: {e}"),
        })?;
        let key = ObjectKey::new(format!("probe-{random:016x}")).expect("hexadecimal digits make a key");
        let found = self.probe_with(&key);
        let deleted = self.delete(&key);
        let exclusive = found?;
        deleted?;
        self.assume_exclusive(exclusive);
        Ok(exclusive)
    }

    fn probe_with(&self, key: &ObjectKey) -> Result<bool, BackendError> {
        let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
        self.create(key, first.clone())?;
        match self.create(key, second) {
            Ok(()) => Ok(false),
            Err(error) if error.kind == ErrorKind::AlreadyExists => Ok(self.read(key, 64)? == first),
            Err(error) => Err(error),
        }
    }

    /// Takes an answer from an earlier [`S3Backend::probe_create`] that was kept somewhere.
    pub fn assume_exclusive(&self, exclusive: bool) {
        self.exclusive.store(exclusive, Ordering::Relaxed);
    }
}
