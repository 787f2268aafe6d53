//! Repeats calls to a store that may well succeed later.
//!
//! Knows no store: [`BackendError::is_temporary`] and the kind of error decide.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::{Backend, BackendError, ErrorKind, ObjectKey, ObjectLock, ObjectMeta};

/// So many attempts are made however long the earlier ones took.
const SURE_ATTEMPTS: u32 = 3;

/// How often and how long to repeat a call.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Wait before the first repetition; doubles each time. Between half and the whole of it is waited.
    pub first_wait: Duration,
    /// Longest wait between two attempts.
    pub longest_wait: Duration,
    /// No attempt begins later than this after the first one began, but the second and the third one: a single large
    /// transfer that hung may have taken longer.
    pub total: Duration,
    /// Most attempts after `Throttled` and `Timeout`.
    pub attempts: u32,
    /// Most attempts after `Other`, which waiting mends less often.
    pub attempts_other: u32,
    /// Most attempts after `Corrupt`: a broken answer may come whole the next time, a damaged object will not.
    pub attempts_corrupt: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            first_wait: Duration::from_millis(200),
            longest_wait: Duration::from_secs(30),
            total: Duration::from_secs(15 * 60),
            attempts: 100,
            attempts_other: 8,
            attempts_corrupt: 3,
        }
    }
}

impl RetryPolicy {
    fn attempts_after(&self, kind: ErrorKind) -> u32 {
        match kind {
            ErrorKind::Corrupt => self.attempts_corrupt,
            ErrorKind::Other => self.attempts_other,
            _ => self.attempts,
        }
    }

    /// The wait before attempt `attempt` + 1.
    fn wait(&self, attempt: u32) -> Duration {
        let full = self.first_wait.saturating_mul(1 << (attempt - 1).min(20)).min(self.longest_wait);
        // Without randomness all waits are whole, which is no more than impolite.
        let spread = getrandom::u32().map_or(1.0, |r| f64::from(r) / f64::from(u32::MAX));
        full.mul_f64(0.5 + spread / 2.0)
    }
}

/// A store whose calls are repeated while they fail for reasons that may pass.
///
/// A repeated `create` that meets its own object (the reply of an earlier attempt was lost) succeeds. A listing is
/// held in memory until it is complete, so that a repetition reports nothing twice.
pub struct Retry {
    inner: Arc<dyn Backend>,
    policy: RetryPolicy,
    cancelled: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl std::fmt::Debug for Retry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retry").field("inner", &self.inner).field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Retry {
    /// Repeats the calls of `inner`.
    pub fn new(inner: Arc<dyn Backend>, policy: RetryPolicy) -> Self {
        Self { inner, policy, cancelled: Arc::new(|| false) }
    }

    /// Gives up waiting, with the last error, once `cancelled` says so. Asked ten times a second.
    #[must_use]
    pub fn cancelled_by(mut self, cancelled: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.cancelled = Arc::new(cancelled);
        self
    }

    /// Calls until success, an error that will not pass, or the limits of the policy. `call` is told whether it is a
    /// repetition.
    fn repeat<T>(&self, mut call: impl FnMut(bool) -> Result<T, BackendError>) -> Result<T, BackendError> {
        let start = Instant::now();
        let mut attempt = 1;
        loop {
            let error = match call(attempt > 1) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let wait = self.policy.wait(attempt);
            let goes_on = error.is_temporary()
                && attempt < self.policy.attempts_after(error.kind)
                && (attempt < SURE_ATTEMPTS || start.elapsed() + wait <= self.policy.total)
                && self.sleep(wait);
            if !goes_on {
                return Err(match attempt {
                    1 => error,
                    n => BackendError { message: format!("{} (gave up after {n} attempts)", error.message), ..error },
                });
            }
            attempt += 1;
        }
    }

    /// Waits; false if that was cancelled.
    fn sleep(&self, wait: Duration) -> bool {
        let end = Instant::now() + wait;
        loop {
            if (self.cancelled)() {
                return false;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    /// Creates; a repetition that meets these very bytes has succeeded before.
    fn create_by(
        &self,
        key: &ObjectKey,
        body: &Bytes,
        mut create: impl FnMut() -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        self.repeat(|again| match create() {
            Err(error) if error.kind == ErrorKind::AlreadyExists && again => {
                if self.holds(key, body)? {
                    Ok(())
                } else {
                    Err(error)
                }
            }
            outcome => outcome,
        })
    }

    /// Whether the object holds just these bytes.
    fn holds(&self, key: &ObjectKey, body: &Bytes) -> Result<bool, BackendError> {
        match self.repeat(|_| self.inner.read(key, body.len() as u64)) {
            Ok(found) => Ok(found == *body),
            Err(error) if matches!(error.kind, ErrorKind::Corrupt | ErrorKind::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Backend for Retry {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn concurrency(&self) -> usize {
        self.inner.concurrency()
    }

    fn prepare(&self) -> Result<(), BackendError> {
        self.repeat(|_| self.inner.prepare())
    }

    fn create(&self, key: &ObjectKey, body: Bytes) -> Result<(), BackendError> {
        self.create_by(key, &body, || self.inner.create(key, body.clone()))
    }

    fn can_lock(&self) -> Result<bool, BackendError> {
        self.repeat(|_| self.inner.can_lock())
    }

    fn create_locked(&self, key: &ObjectKey, body: Bytes, lock: &ObjectLock) -> Result<(), BackendError> {
        self.create_by(key, &body, || self.inner.create_locked(key, body.clone(), lock))
    }

    fn locked_until(&self, key: &ObjectKey) -> Result<Option<SystemTime>, BackendError> {
        self.repeat(|_| self.inner.locked_until(key))
    }

    fn extend_lock(&self, key: &ObjectKey, lock: &ObjectLock) -> Result<(), BackendError> {
        self.repeat(|_| self.inner.extend_lock(key, lock))
    }

    fn replace(&self, key: &ObjectKey, body: Bytes) -> Result<(), BackendError> {
        self.repeat(|_| self.inner.replace(key, body.clone()))
    }

    fn create_is_exclusive(&self) -> bool {
        self.inner.create_is_exclusive()
    }

    fn assume_exclusive(&self, exclusive: bool) {
        self.inner.assume_exclusive(exclusive);
    }

    fn stored_at(&self, key: &ObjectKey) -> Result<Option<SystemTime>, BackendError> {
        self.repeat(|_| self.inner.stored_at(key))
    }

    fn read(&self, key: &ObjectKey, max: u64) -> Result<Bytes, BackendError> {
        self.repeat(|_| self.inner.read(key, max))
    }

    fn read_range(&self, key: &ObjectKey, offset: u64, length: usize) -> Result<Bytes, BackendError> {
        self.repeat(|_| self.inner.read_range(key, offset, length))
    }

    fn size(&self, key: &ObjectKey) -> Result<u64, BackendError> {
        self.repeat(|_| self.inner.size(key))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectMeta)) -> Result<(), BackendError> {
        let found = self.repeat(|_| {
            let mut found = Vec::new();
            self.inner.list(prefix, &mut |meta| found.push(meta))?;
            Ok(found)
        })?;
        found.into_iter().for_each(each);
        Ok(())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), BackendError> {
        self.repeat(|_| self.inner.delete(key))
    }

    fn barrier(&self) -> Result<(), BackendError> {
        // Never repeated: after a failed fsync the kernel may call the lost data clean, and a second one succeeds.
        self.inner.barrier()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::{Fault, FaultBackend, Method, Rule};
    use super::super::mem::MemBackend;
    use super::*;

    fn quick() -> RetryPolicy {
        RetryPolicy {
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_millis(4),
            attempts: 20,
            ..RetryPolicy::default()
        }
    }

    fn faulty() -> (Arc<FaultBackend>, Retry, ObjectKey) {
        let faulty = Arc::new(FaultBackend::new(Arc::new(MemBackend::new())));
        let retry = Retry::new(faulty.clone(), quick());
        (faulty, retry, ObjectKey::new("a/b").unwrap())
    }

    #[test]
    fn conforms() {
        crate::backend::suite::run(&|| Box::new(Retry::new(Arc::new(MemBackend::new()), quick())));
    }

    #[test]
    fn outlasts_what_passes() {
        for kind in [ErrorKind::Throttled, ErrorKind::Timeout] {
            let (faulty, retry, key) = faulty();
            faulty.inject(Rule::new(Method::Any, Fault::Error(kind)).times(10));
            retry.create(&key, Bytes::from_static(b"x")).unwrap();
            assert_eq!(faulty.calls_of(Method::Create), 11);
        }
    }

    #[test]
    fn gives_up_sooner_on_what_seldom_passes() {
        for (kind, attempts) in [(ErrorKind::Other, 8), (ErrorKind::Corrupt, 3), (ErrorKind::Timeout, 20)] {
            let (faulty, retry, key) = faulty();
            faulty.inject(Rule::new(Method::Read, Fault::Error(kind)));
            let error = retry.read(&key, 9).unwrap_err();
            assert_eq!(error.kind, kind);
            assert!(error.message.ends_with(&format!("(gave up after {attempts} attempts)")), "{error}");
            assert_eq!(faulty.calls_of(Method::Read), attempts);
        }
    }

    #[test]
    fn does_not_repeat_what_stays() {
        for kind in [ErrorKind::Denied, ErrorKind::NoSpace, ErrorKind::NoStore, ErrorKind::NotFound] {
            let (faulty, retry, key) = faulty();
            faulty.inject(Rule::new(Method::Size, Fault::Error(kind)));
            assert_eq!(retry.size(&key).unwrap_err().kind, kind);
            assert_eq!(faulty.calls_of(Method::Size), 1);
        }
        let (faulty, retry, _) = faulty();
        faulty.inject(Rule::new(Method::Barrier, Fault::Error(ErrorKind::Other)));
        retry.barrier().unwrap_err();
        assert_eq!(faulty.calls_of(Method::Barrier), 1);
    }

    #[test]
    fn a_lost_reply_is_no_conflict() {
        let (faulty, retry, key) = faulty();
        faulty.inject(Rule::new(Method::Create, Fault::LostReply(ErrorKind::Timeout)).times(2));
        faulty.inject(Rule::new(Method::Read, Fault::Error(ErrorKind::Timeout)).times(1));
        retry.create(&key, Bytes::from_static(b"mine")).unwrap();
        // Without a repetition it is one, even with the same bytes.
        assert_eq!(retry.create(&key, Bytes::from_static(b"mine")).unwrap_err().kind, ErrorKind::AlreadyExists);
    }

    #[test]
    fn another_s_object_is_a_conflict_after_a_repetition_too() {
        for other in ["theirs", "longer than mine", ""] {
            let (faulty, retry, key) = faulty();
            retry.create(&key, Bytes::from(other)).unwrap();
            faulty.inject(Rule::new(Method::Create, Fault::Error(ErrorKind::Timeout)).times(1));
            let error = retry.create(&key, Bytes::from_static(b"mine")).unwrap_err();
            assert_eq!(error.kind, ErrorKind::AlreadyExists);
        }
    }

    #[test]
    fn a_listing_that_broke_off_reports_nothing_twice() {
        let (faulty, retry, key) = faulty();
        retry.create(&key, Bytes::new()).unwrap();
        faulty.inject(Rule::new(Method::List, Fault::LostReply(ErrorKind::Timeout)).times(3));
        let mut count = 0;
        retry.list("", &mut |_| count += 1).unwrap();
        assert_eq!(count, 1);
    }

    #[test]
    fn keeps_to_its_time_and_can_be_cancelled() {
        let policy = RetryPolicy { total: Duration::from_millis(50), longest_wait: Duration::from_millis(10), ..quick() };
        let (faulty, _, key) = faulty();
        faulty.inject(Rule::new(Method::Any, Fault::Error(ErrorKind::Throttled)));
        let start = Instant::now();
        let attempts = RetryPolicy { attempts: u32::MAX, ..policy };
        Retry::new(faulty.clone(), attempts).size(&key).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(5));
        faulty.forget_calls();
        let no_time = RetryPolicy { total: Duration::ZERO, ..quick() };
        Retry::new(faulty.clone(), no_time).size(&key).unwrap_err();
        assert_eq!(faulty.calls_of(Method::Size), 3);
        let cancelled = Retry::new(faulty, RetryPolicy::default()).cancelled_by(|| true);
        cancelled.size(&key).unwrap_err();
    }
}
