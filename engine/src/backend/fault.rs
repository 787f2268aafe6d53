//! A store that fails on demand, for tests: the faults are declared, the calls recorded.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{Backend, BackendError, ErrorKind, ObjectKey, ObjectLock, ObjectMeta};
use crate::monitor::lock;

/// A method of [`Backend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// All of them (only in rules and questions).
    Any,
    /// [`Backend::prepare`].
    Prepare,
    /// [`Backend::create`].
    Create,
    /// [`Backend::replace`].
    Replace,
    /// [`Backend::read`].
    Read,
    /// [`Backend::read_range`].
    ReadRange,
    /// [`Backend::size`].
    Size,
    /// [`Backend::list`].
    List,
    /// [`Backend::delete`].
    Delete,
    /// [`Backend::barrier`].
    Barrier,
    /// [`Backend::locked_until`] and [`Backend::extend_lock`].
    Lock,
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Fails, and nothing is done.
    Error(ErrorKind),
    /// It is done, and fails all the same.
    LostReply(ErrorKind),
    /// Takes this much longer.
    Delay(Duration),
    /// One bit of byte `n` (modulo the length) of what is read, or of what is stored, is turned round.
    Flip(usize),
    /// What is read, or what is stored, ends after `n` bytes; a list after `n` names, without an error.
    Cut(usize),
}

/// When something goes wrong.
#[derive(Clone, Debug)]
pub struct Rule {
    method: Method,
    fault: Fault,
    key: String,
    skip: usize,
    times: usize,
}

impl Rule {
    /// Every call of `method`.
    #[must_use]
    pub fn new(method: Method, fault: Fault) -> Self {
        Self { method, fault, key: String::new(), skip: 0, times: usize::MAX }
    }

    /// Only calls whose key or prefix contains `part`.
    #[must_use]
    pub fn key(mut self, part: &str) -> Self {
        self.key = part.to_owned();
        self
    }

    /// Lets the first `calls` that match pass.
    #[must_use]
    pub fn skip(mut self, calls: usize) -> Self {
        self.skip = calls;
        self
    }

    /// Strikes no more than `times`.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Whether to strike now; counts.
    fn strikes(&mut self, method: Method, key: &str) -> bool {
        if self.times == 0 || !matches!(self.method, m if m == Method::Any || m == method) || !key.contains(&self.key) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.times -= 1;
        true
    }
}

/// A store over another one that fails as its [`Rule`]s say. The first rule that strikes decides.
#[derive(Debug)]
pub struct FaultBackend {
    inner: Arc<dyn Backend>,
    rules: Mutex<Vec<Rule>>,
    calls: Mutex<Vec<(Method, String)>>,
    latency: Mutex<Duration>,
}

impl FaultBackend {
    /// Without faults yet.
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self { inner, rules: Mutex::default(), calls: Mutex::default(), latency: Mutex::default() }
    }

    /// Adds a rule after the others.
    pub fn inject(&self, rule: Rule) {
        lock(&self.rules).push(rule);
    }

    /// Takes all rules away.
    pub fn heal(&self) {
        lock(&self.rules).clear();
    }

    /// Makes every call take this much longer.
    pub fn set_latency(&self, latency: Duration) {
        *lock(&self.latency) = latency;
    }

    /// All calls so far, with the key or the prefix.
    pub fn calls(&self) -> Vec<(Method, String)> {
        lock(&self.calls).clone()
    }

    /// Number of calls of one method so far.
    pub fn calls_of(&self, method: Method) -> usize {
        lock(&self.calls).iter().filter(|(m, _)| method == Method::Any || *m == method).count()
    }

    /// Forgets the calls so far.
    pub fn forget_calls(&self) {
        lock(&self.calls).clear();
    }

    /// Records a call, waits, and tells what goes wrong.
    fn begin(&self, method: Method, key: &str) -> Option<Fault> {
        lock(&self.calls).push((method, key.to_owned()));
        let latency = *lock(&self.latency);
        let fault = lock(&self.rules).iter_mut().find_map(|r| r.strikes(method, key).then(|| r.fault.clone()));
        let extra = if let Some(Fault::Delay(delay)) = fault { delay } else { Duration::ZERO };
        thread::sleep(latency + extra);
        fault
    }

    fn fail<T>(&self, kind: ErrorKind, key: &str) -> Result<T, BackendError> {
        let message = "injected fault".to_owned();
        Err(BackendError { kind, location: self.location(), key: key.to_owned(), message })
    }

    /// A call without bytes.
    fn call<T>(&self, method: Method, key: &str, call: impl FnOnce() -> Result<T, BackendError>) -> Result<T, BackendError> {
        match self.begin(method, key) {
            Some(Fault::Error(kind)) => self.fail(kind, key),
            Some(Fault::LostReply(kind)) => call().and_then(|_| self.fail(kind, key)),
            _ => call(),
        }
    }

    /// A call that gives bytes.
    fn read_call(
        &self,
        method: Method,
        key: &ObjectKey,
        call: impl FnOnce() -> Result<Bytes, BackendError>,
    ) -> Result<Bytes, BackendError> {
        match self.begin(method, key.as_str()) {
            Some(Fault::Error(kind) | Fault::LostReply(kind)) => self.fail(kind, key.as_str()),
            Some(fault) => call().map(|bytes| damage(&bytes, &fault)),
            None => call(),
        }
    }
}

fn damage(bytes: &Bytes, fault: &Fault) -> Bytes {
    match fault {
        Fault::Flip(at) if !bytes.is_empty() => {
            let mut bytes = bytes.to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1;
            bytes.into()
        }
        Fault::Cut(length) => bytes.slice(..bytes.len().min(*length)),
        _ => bytes.clone(),
    }
}

impl Backend for FaultBackend {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn concurrency(&self) -> usize {
        self.inner.concurrency()
    }

    fn prepare(&self) -> Result<(), BackendError> {
        self.call(Method::Prepare, "", || self.inner.prepare())
    }

    fn create(&self, key: &ObjectKey, body: Bytes) -> Result<(), BackendError> {
        match self.begin(Method::Create, key.as_str()) {
            Some(Fault::Error(kind)) => self.fail(kind, key.as_str()),
            Some(Fault::LostReply(kind)) => self.inner.create(key, body).and_then(|()| self.fail(kind, key.as_str())),
            Some(fault) => self.inner.create(key, damage(&body, &fault)),
            None => self.inner.create(key, body),
        }
    }

    fn replace(&self, key: &ObjectKey, body: Bytes) -> Result<(), BackendError> {
        self.call(Method::Replace, key.as_str(), || self.inner.replace(key, body))
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
        self.call(Method::Create, key.as_str(), || self.inner.create_locked(key, body, lock))
    }

    fn locked_until(&self, key: &ObjectKey) -> Result<Option<SystemTime>, BackendError> {
        self.call(Method::Lock, key.as_str(), || self.inner.locked_until(key))
    }

    fn extend_lock(&self, key: &ObjectKey, lock: &ObjectLock) -> Result<(), BackendError> {
        self.call(Method::Lock, key.as_str(), || self.inner.extend_lock(key, lock))
    }

    fn read(&self, key: &ObjectKey, max: u64) -> Result<Bytes, BackendError> {
        self.read_call(Method::Read, key, || self.inner.read(key, max))
    }

    fn read_range(&self, key: &ObjectKey, offset: u64, length: usize) -> Result<Bytes, BackendError> {
        self.read_call(Method::ReadRange, key, || self.inner.read_range(key, offset, length))
    }

    fn size(&self, key: &ObjectKey) -> Result<u64, BackendError> {
        self.call(Method::Size, key.as_str(), || self.inner.size(key))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectMeta)) -> Result<(), BackendError> {
        match self.begin(Method::List, prefix) {
            Some(Fault::Error(kind)) => self.fail(kind, prefix),
            Some(Fault::LostReply(kind)) => self.inner.list(prefix, each).and_then(|()| self.fail(kind, prefix)),
            Some(Fault::Cut(mut left)) => self.inner.list(prefix, &mut |meta| {
                if left > 0 {
                    left -= 1;
                    each(meta);
                }
            }),
            _ => self.inner.list(prefix, each),
        }
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), BackendError> {
        self.call(Method::Delete, key.as_str(), || self.inner.delete(key))
    }

    fn barrier(&self) -> Result<(), BackendError> {
        self.call(Method::Barrier, "", || self.inner.barrier())
    }
}

#[cfg(test)]
mod tests {
    use super::super::mem::MemBackend;
    use super::*;

    #[test]
    fn conforms_without_faults() {
        crate::backend::suite::run(&|| Box::new(FaultBackend::new(Arc::new(MemBackend::new()))));
    }

    #[test]
    fn strikes_where_and_as_often_as_told() {
        let store = FaultBackend::new(Arc::new(MemBackend::new()));
        let key = ObjectKey::new("packs/a").unwrap();
        store.create(&key, Bytes::from_static(b"abc")).unwrap();
        store.inject(Rule::new(Method::Read, Fault::Flip(4)).key("packs/").skip(1).times(1));
        store.inject(Rule::new(Method::ReadRange, Fault::Cut(1)));
        let reads: Vec<_> = (0..3).map(|_| store.read(&key, 9).unwrap()).collect();
        assert_eq!(reads, [&b"abc"[..], b"acc", b"abc"]);
        assert_eq!(&store.read_range(&key, 0, 2).unwrap()[..], b"a");
        assert_eq!(store.calls_of(Method::Any), 5);
        assert_eq!(store.calls()[0], (Method::Create, "packs/a".to_owned()));
        store.heal();
        assert_eq!(&store.read_range(&key, 0, 2).unwrap()[..], b"ab");
    }
}
