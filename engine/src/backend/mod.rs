//! The byte store under a repository: a flat set of write-once objects.
//!
//! Knows nothing of encryption, packs or snapshots. [`suite`] holds the conformance tests that every backend and
//! every wrapper passes.

#[cfg(any(test, feature = "testing"))]
pub mod fault;
pub mod local;
#[cfg(any(test, feature = "testing"))]
pub mod mem;
pub mod retry;
#[cfg(any(test, feature = "testing"))]
pub mod suite;

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;

pub use crate::format::config::LockMode;

/// A promise of the store not to give an object up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectLock {
    /// Who may lift it.
    pub mode: LockMode,
    /// Until when; stores may keep whole seconds only.
    pub until: SystemTime,
}

/// Name of an object: `/`-separated parts of `[a-z0-9._-]`, none empty, none starting with a dot, no part longer than
/// 128 bytes, 255 bytes in all. No key is ever a prefix of another one followed by `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Checks and takes a name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        let part_ok = |part: &str| {
            !part.is_empty()
                && part.len() <= 128
                && !part.starts_with('.')
                && part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
        };
        (name.len() <= 255 && name.split('/').all(part_ok)).then_some(Self(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a listing tells about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its name.
    pub key: ObjectKey,
    /// Its size in bytes.
    pub size: u64,
}

/// Kinds of failure that a caller treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The object does not exist.
    NotFound,
    /// The store itself (directory, bucket) does not exist.
    NoStore,
    /// `create` met an existing object.
    AlreadyExists,
    /// Not permitted: credentials, file permissions, read-only file system.
    Denied,
    /// No room left, or over quota.
    NoSpace,
    /// The store asks to slow down (429, 503).
    Throttled,
    /// No answer in time, or the connection broke.
    Timeout,
    /// Fewer bytes than asked for, or an answer that makes no sense.
    Corrupt,
    /// The store cannot do this.
    Unsupported,
    /// Anything else.
    Other,
}

/// A failed call to a store.
#[derive(Debug, thiserror::Error)]
#[error("{location}{sep}{key}: {message}", sep = if key.is_empty() { "" } else { "/" })]
pub struct BackendError {
    /// What kind of failure.
    pub kind: ErrorKind,
    /// The store, as [`Backend::location`] names it.
    pub location: String,
    /// The object or prefix, empty for the store as a whole.
    pub key: String,
    /// What happened, for people.
    pub message: String,
}

impl BackendError {
    /// Whether the same call may well succeed later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self.kind, ErrorKind::Throttled | ErrorKind::Timeout | ErrorKind::Corrupt | ErrorKind::Other)
    }
}

/// A flat store of write-once objects. Object-safe, blocking, usable from any number of threads.
///
/// An object becomes visible whole or not at all, whatever happens to the writer.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Where this is, for messages; without credentials.
    fn location(&self) -> String;

    /// How many calls at once this store handles well, at least 1.
    fn concurrency(&self) -> usize;

    /// Makes the store usable (directories); no error if it already is.
    fn prepare(&self) -> Result<(), BackendError>;

    /// Stores a new object. If the name is taken: `AlreadyExists` where the store can tell, and the old object is left
    /// alone; a store that cannot tell may overwrite (see [`Backend::create_is_exclusive`]). After a call whose outcome
    /// was unknown and that was repeated, finding the very same bytes counts as success.
    fn create(&self, key: &ObjectKey, body: Bytes) -> Result<(), BackendError>;

    /// Puts the right bytes in the place of a damaged or lost object; whoever reads meanwhile gets the old object or the new
    /// one whole. Only for mending: `body` MUST be the very bytes that were once stored under this name, known by their hash
    /// or because they authenticate; or parity made anew. Nothing else is ever replaced.
    fn replace(&self, key: &ObjectKey, body: Bytes) -> Result<(), BackendError>;

    /// Whether `create` is known never to replace an object, even in a race.
    fn create_is_exclusive(&self) -> bool;

    /// Takes note of what [`crate::probe`] found out about `create`, where the store itself cannot know.
    fn assume_exclusive(&self, exclusive: bool) {
        let _ = exclusive;
    }

    /// When an object was stored by the store's clock; `None` where it does not tell. For people: nothing is decided by it.
    fn stored_at(&self, key: &ObjectKey) -> Result<Option<SystemTime>, BackendError> {
        let _ = key;
        Ok(None)
    }

    /// Whether this store can lock objects, as it is set up.
    fn can_lock(&self) -> Result<bool, BackendError> {
        Ok(false)
    }

    /// As [`Backend::create`], and nobody can destroy this object before the lock ends: what looks deleted can be brought back
    /// by the store's own means. `Unsupported` where the store cannot.
    fn create_locked(&self, key: &ObjectKey, body: Bytes, lock: &ObjectLock) -> Result<(), BackendError> {
        let _ = (body, lock);
        Err(self.no_locks(key))
    }

    /// Until when an object is locked; `None` if it is not.
    fn locked_until(&self, key: &ObjectKey) -> Result<Option<SystemTime>, BackendError> {
        let _ = key;
        Ok(None)
    }

    /// Locks an object longer. Most stores refuse (`Denied`) to lock one for less time than it is locked already.
    fn extend_lock(&self, key: &ObjectKey, lock: &ObjectLock) -> Result<(), BackendError> {
        let _ = lock;
        Err(self.no_locks(key))
    }

    /// The answer of a store without locks.
    fn no_locks(&self, key: &ObjectKey) -> BackendError {
        let message = "this store cannot lock objects".to_owned();
        BackendError { kind: ErrorKind::Unsupported, location: self.location(), key: key.to_string(), message }
    }

    /// The whole object. Fails with `Corrupt`, before fetching it all, if it is larger than `max` bytes.
    fn read(&self, key: &ObjectKey, max: u64) -> Result<Bytes, BackendError>;

    /// Exactly `length` bytes from `offset`; `Corrupt` if the object ends before that.
    fn read_range(&self, key: &ObjectKey, offset: u64, length: usize) -> Result<Bytes, BackendError>;

    /// Size of an object in bytes.
    fn size(&self, key: &ObjectKey) -> Result<u64, BackendError>;

    /// All objects whose name starts with `prefix` (`""`, or parts that end in `/`), in any order. Names that are no
    /// [`ObjectKey`] are passed over. An error is an error, never a short list. Contains every object whose `create`
    /// had returned before the call began.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectMeta)) -> Result<(), BackendError>;

    /// Removes an object; a missing one is no error.
    fn delete(&self, key: &ObjectKey) -> Result<(), BackendError>;

    /// When this returns, every object whose `create` had returned before the call survives a crash of the machine.
    fn barrier(&self) -> Result<(), BackendError>;
}
