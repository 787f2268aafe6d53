//! The backend itself: one method, one request, with what single servers get wrong.

mod lock;
mod raw;
mod upload;
#[cfg(feature = "testing")]
mod versions;

pub use raw::RawReader;

use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::StorageClass;
use bytes::{Bytes, BytesMut};
use engine::backend::{Backend, BackendError, ErrorKind, ObjectKey, ObjectLock, ObjectMeta};

use crate::client::{Connection, connect};
use crate::error::Failure;
use crate::options::S3Options;
use crate::rt::Bridge;

/// How often a conditional write is repeated while another one for the same key is under way.
const CONFLICT_ATTEMPTS: u32 = 5;

/// What a PUT may do where there is an object already.
#[derive(Clone, Copy)]
enum Put<'l> {
    /// Leave it alone.
    Create,
    /// Leave it alone; a new one is locked.
    CreateLocked(&'l ObjectLock),
    /// Replace it.
    Replace,
}

/// Objects in a bucket of any S3-compatible server.
///
/// Each call is one attempt of bounded duration: wrap it in `engine::backend::retry::Retry`. Whether a name can be
/// taken twice is not known before `engine::probe` found out: some servers ignore the condition silently.
#[derive(Debug)]
pub struct S3Backend {
    options: S3Options,
    location: String,
    client: Client,
    bridge: Bridge,
    /// The server understands `If-None-Match` on writes, or has not said otherwise.
    conditional: AtomicBool,
    /// It was seen to keep to it.
    exclusive: AtomicBool,
    /// The server did not understand the SDK's checksums.
    few_checksums: AtomicBool,
    /// Whether the storage class that was asked for was kept, once looked at.
    class_kept: OnceLock<bool>,
}

impl S3Backend {
    /// Looks up credentials, region and endpoint; asks the server nothing yet.
    ///
    /// # Errors
    ///
    /// `Other` if there are no threads to be had, `Unsupported` if there are no root certificates.
    pub fn open(options: S3Options) -> Result<Self, BackendError> {
        let named =
            |kind, message| BackendError { kind, location: format!("s3://{}", options.bucket), key: String::new(), message };
        let bridge = Bridge::new().map_err(|e| named(ErrorKind::Other, format!("cannot start threads: {e}")))?;
        let connected = bridge.run(connect(&options));
        let Connection { client, endpoint } = connected.map_err(|message| named(ErrorKind::Unsupported, message))?;
        let place = format!("{}/{}", options.bucket, options.prefix);
        let location = match endpoint {
            None => format!("s3://{}", place.trim_end_matches('/')),
            Some(url) => format!("s3:{}/{}", url.trim_end_matches('/'), place.trim_end_matches('/')),
        };
        Ok(Self {
            options,
            location,
            client,
            bridge,
            conditional: AtomicBool::new(true),
            exclusive: AtomicBool::new(false),
            few_checksums: AtomicBool::new(false),
            class_kept: OnceLock::new(),
        })
    }

    /// Whether the server kept the storage class that was asked for; `None` if none was asked for, nothing was stored
    /// yet, or it could not be found out. Some servers drop it silently.
    #[must_use]
    pub fn storage_class_kept(&self) -> Option<bool> {
        self.class_kept.get().copied()
    }

    /// Makes the bucket, unless it is there already and ours.
    ///
    /// # Errors
    ///
    /// As for any call; `Denied` or `AlreadyExists` if the name is another's.
    pub fn create_bucket(&self) -> Result<(), BackendError> {
        let request = self.client.create_bucket().bucket(&self.options.bucket).send();
        match self.call(self.options.attempt_timeout, request) {
            Err(failure) if failure.code == "BucketAlreadyOwnedByYou" => Ok(()),
            outcome => self.named("", outcome.map(drop)),
        }
    }

    fn full_key(&self, key: &ObjectKey) -> String {
        format!("{}{key}", self.options.prefix)
    }

    fn named<T>(&self, key: &str, outcome: Result<T, Failure>) -> Result<T, BackendError> {
        outcome.map_err(|failure| BackendError {
            kind: failure.kind,
            location: self.location.clone(),
            key: key.to_owned(),
            message: failure.message,
        })
    }

    /// Runs one request within a limit.
    fn call<T, E>(&self, limit: Duration, request: impl Future<Output = Result<T, E>>) -> Result<T, Failure>
    where
        Failure: From<E>,
    {
        self.bridge.run(async {
            match tokio::time::timeout(limit, request).await {
                Ok(outcome) => outcome.map_err(Failure::from),
                Err(_) => Err(Failure::no_answer(limit.as_secs_f64())),
            }
        })
    }

    /// One PUT.
    fn put(&self, key: &ObjectKey, body: Bytes, how: Put<'_>) -> Result<(), Failure> {
        let slowest = self.options.slowest_upload.max(1);
        let limit = self.options.attempt_timeout + Duration::from_secs(body.len() as u64 / slowest);
        let mut request =
            self.client.put_object().bucket(&self.options.bucket).key(self.full_key(key)).body(ByteStream::from(body));
        if !matches!(how, Put::Replace) && self.conditional.load(Ordering::Relaxed) {
            request = request.if_none_match("*");
        }
        if let Some(class) = &self.options.storage_class {
            request = request.storage_class(StorageClass::from(class.as_str()));
        }
        if let Put::CreateLocked(lock) = how {
            request = request.object_lock_mode(lock::mode(lock.mode)).object_lock_retain_until_date(lock::time(lock.until));
        }
        let mut request = request.customize();
        if self.few_checksums.load(Ordering::Relaxed) {
            let fewer = aws_sdk_s3::config::Config::builder();
            request = request.config_override(fewer.request_checksum_calculation(RequestChecksumCalculation::WhenRequired));
        }
        self.call(limit, request.send()).map(drop)
    }

    /// PUTs until there is an answer that says something about the object, and not about how the request was put.
    fn put_adapting(&self, key: &ObjectKey, body: &Bytes, how: Put<'_>) -> Result<(), Failure> {
        let mut conflicts = 0;
        loop {
            let failure = match self.put(key, body.clone(), how) {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            if failure.is_precondition() {
                return Err(Failure::new(ErrorKind::AlreadyExists, "already exists"));
            } else if failure.is_conflict() && conflicts < CONFLICT_ATTEMPTS {
                conflicts += 1;
                std::thread::sleep(Duration::from_millis(50) * conflicts);
            } else if failure.is_not_implemented() && self.conditional.swap(false, Ordering::Relaxed) {
                // Goes on without the condition.
            } else if failure.is_checksum_complaint() && !self.few_checksums.swap(true, Ordering::Relaxed) {
                // Goes on without the checksum; the signature covers the body all the same.
            } else {
                return Err(failure);
            }
        }
    }

    /// Looks once whether the storage class of an object just written is the one asked for.
    fn check_class(&self, key: &ObjectKey) {
        let Some(wanted) = self.options.storage_class.as_deref() else { return };
        if self.class_kept.get().is_some() {
            return;
        }
        let request = self.client.head_object().bucket(&self.options.bucket).key(self.full_key(key)).send();
        if let Ok(head) = self.call(self.options.attempt_timeout, request) {
            // S3 leaves the standard class out of its answer.
            let found = head.storage_class().map_or("STANDARD", StorageClass::as_str);
            let _ = self.class_kept.set(found == wanted);
        }
    }

    /// GETs an object or `range` of it; `accept` says by the announced length whether to go on.
    fn get(
        &self,
        key: &ObjectKey,
        range: Option<String>,
        max: u64,
        accept: impl Fn(Option<u64>, Option<&str>) -> Result<(), Failure>,
    ) -> Result<Bytes, Failure> {
        let pause = self.options.attempt_timeout;
        let request = self.client.get_object().bucket(&self.options.bucket).key(self.full_key(key)).set_range(range);
        let answer = self.call(pause, request.send())?;
        let announced = answer.content_length().and_then(|n| u64::try_from(n).ok());
        accept(announced, answer.content_range())?;
        let mut body = answer.body;
        let room = usize::try_from(announced.unwrap_or(0).min(max)).unwrap_or(0);
        self.bridge.run(async {
            let mut bytes = BytesMut::with_capacity(room);
            loop {
                let Ok(piece) = tokio::time::timeout(pause, body.next()).await else {
                    return Err(Failure::no_answer(pause.as_secs_f64()));
                };
                match piece {
                    None => break,
                    Some(Ok(piece)) if (bytes.len() + piece.len()) as u64 > max => {
                        return Err(Failure::new(ErrorKind::Corrupt, format!("larger than it may be: over {max} bytes")));
                    }
                    Some(Ok(piece)) => bytes.extend_from_slice(&piece),
                    Some(Err(error)) => {
                        return Err(Failure::new(ErrorKind::Timeout, format!("the reply broke off: {error}")));
                    }
                }
            }
            match announced {
                Some(length) if length != bytes.len() as u64 => {
                    let message = format!("{} bytes came, {length} were announced", bytes.len());
                    Err(Failure::new(ErrorKind::Timeout, message))
                }
                _ => Ok(bytes.freeze()),
            }
        })
    }

    /// Whether a HEAD's bare 404 means that the bucket is missing: such an answer has no room for a code.
    fn bucket_is_missing(&self) -> bool {
        let request = self.client.head_bucket().bucket(&self.options.bucket).send();
        matches!(self.call(self.options.attempt_timeout, request), Err(failure) if failure.status == 404)
    }

    fn head_size(&self, key: &ObjectKey) -> Result<u64, Failure> {
        let request = self.client.head_object().bucket(&self.options.bucket).key(self.full_key(key)).send();
        match self.call(self.options.attempt_timeout, request) {
            Ok(head) => {
                let size = head.content_length().and_then(|n| u64::try_from(n).ok());
                size.ok_or_else(|| Failure::new(ErrorKind::Corrupt, "the answer gives no size"))
            }
            Err(failure) if failure.kind == ErrorKind::NotFound && self.bucket_is_missing() => {
                Err(Failure::new(ErrorKind::NoStore, "404 no such bucket"))
            }
            Err(failure) => Err(failure),
        }
    }

    /// One page of a listing; the token of the next one.
    fn list_page(
        &self,
        prefix: &str,
        token: Option<String>,
        each: &mut dyn FnMut(ObjectMeta),
    ) -> Result<Option<String>, Failure> {
        let request = self.client.list_objects_v2().bucket(&self.options.bucket).prefix(prefix).set_continuation_token(token);
        let page = self.call(self.options.attempt_timeout, request.send())?;
        for object in page.contents() {
            let name = object.key().filter(|name| name.starts_with(prefix));
            let Some(key) = name.and_then(|n| n.strip_prefix(&self.options.prefix)).and_then(ObjectKey::new) else {
                continue;
            };
            let size = object.size().and_then(|n| u64::try_from(n).ok());
            let size = size.ok_or_else(|| Failure::new(ErrorKind::Corrupt, "the listing gives no size"))?;
            each(ObjectMeta { key, size });
        }
        match page.next_continuation_token() {
            Some(token) => Ok(page.is_truncated().unwrap_or(true).then(|| token.to_owned())),
            None if page.is_truncated() == Some(true) => {
                Err(Failure::new(ErrorKind::Corrupt, "the listing breaks off without saying where to go on"))
            }
            None => Ok(None),
        }
    }
}

impl Backend for S3Backend {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn concurrency(&self) -> usize {
        self.options.connections.max(1)
    }

    /// Checks that the bucket is there and may be listed. Never makes it: that is not for a backup program to decide.
    fn prepare(&self) -> Result<(), BackendError> {
        let request = self.client.list_objects_v2().bucket(&self.options.bucket).prefix(&self.options.prefix);
        self.named("", self.call(self.options.attempt_timeout, request.max_keys(1).send()).map(drop))
    }

    /// A condition keeps the old object where the server honours it. Nothing is sent again here after an answer that
    /// leaves the outcome open, so `AlreadyExists` is never about this call's own object.
    fn create(&self, key: &ObjectKey, body: Bytes) -> Result<(), BackendError> {
        self.named(key.as_str(), self.put_adapting(key, &body, Put::Create))?;
        self.check_class(key);
        Ok(())
    }

    fn can_lock(&self) -> Result<bool, BackendError> {
        self.named("", self.bucket_locks())
    }

    fn create_locked(&self, key: &ObjectKey, body: Bytes, lock: &ObjectLock) -> Result<(), BackendError> {
        self.named(key.as_str(), self.put_adapting(key, &body, Put::CreateLocked(lock)))?;
        self.check_class(key);
        Ok(())
    }

    fn locked_until(&self, key: &ObjectKey) -> Result<Option<SystemTime>, BackendError> {
        self.named(key.as_str(), self.lock_of(key))
    }

    fn extend_lock(&self, key: &ObjectKey, lock: &ObjectLock) -> Result<(), BackendError> {
        self.named(key.as_str(), self.lock_longer(key, lock))
    }

    fn replace(&self, key: &ObjectKey, body: Bytes) -> Result<(), BackendError> {
        self.named(key.as_str(), self.put_adapting(key, &body, Put::Replace))
    }

    fn create_is_exclusive(&self) -> bool {
        self.exclusive.load(Ordering::Relaxed) && self.conditional.load(Ordering::Relaxed)
    }

    fn assume_exclusive(&self, exclusive: bool) {
        self.exclusive.store(exclusive, Ordering::Relaxed);
    }

    fn stored_at(&self, key: &ObjectKey) -> Result<Option<SystemTime>, BackendError> {
        let request = self.client.head_object().bucket(&self.options.bucket).key(self.full_key(key)).send();
        let head = self.named(key.as_str(), self.call(self.options.attempt_timeout, request))?;
        let seconds = head.last_modified().and_then(|time| u64::try_from(time.secs()).ok());
        Ok(seconds.and_then(|s| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(s))))
    }

    fn read(&self, key: &ObjectKey, max: u64) -> Result<Bytes, BackendError> {
        let accept = |announced: Option<u64>, _: Option<&str>| match announced {
            Some(size) if size > max => {
                let message = format!("larger than it may be: {size} bytes, at most {max}");
                Err(Failure::new(ErrorKind::Corrupt, message))
            }
            _ => Ok(()),
        };
        self.named(key.as_str(), self.get(key, None, max, accept))
    }

    fn read_range(&self, key: &ObjectKey, offset: u64, length: usize) -> Result<Bytes, BackendError> {
        let wanted = length as u64;
        let short = || Failure::new(ErrorKind::Corrupt, format!("too short: {length} bytes wanted from {offset}"));
        let Some(last) = offset.checked_add(wanted).filter(|_| length > 0).map(|end| end - 1) else {
            // No header can ask for this.
            let size = self.size(key)?;
            let fits = offset.checked_add(wanted).is_some_and(|end| end <= size);
            return self.named(key.as_str(), if fits { Ok(Bytes::new()) } else { Err(short()) });
        };
        let start = format!("bytes {offset}-");
        let accept = |announced: Option<u64>, range: Option<&str>| match (announced, range) {
            (Some(n), _) if n < wanted => Err(short()),
            (Some(n), _) if n > wanted => Err(Failure::new(ErrorKind::Corrupt, "more came than was asked for")),
            (_, Some(range)) if !range.starts_with(&start) => {
                Err(Failure::new(ErrorKind::Corrupt, "another range came than was asked for"))
            }
            (_, None) if offset > 0 => Err(Failure::new(ErrorKind::Corrupt, "this server ignores ranges")),
            _ => Ok(()),
        };
        let outcome = self.get(key, Some(format!("bytes={offset}-{last}")), wanted, accept);
        self.named(key.as_str(), outcome.and_then(|b| if b.len() == length { Ok(b) } else { Err(short()) }))
    }

    fn size(&self, key: &ObjectKey) -> Result<u64, BackendError> {
        self.named(key.as_str(), self.head_size(key))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectMeta)) -> Result<(), BackendError> {
        let full = format!("{}{prefix}", self.options.prefix);
        let mut token: Option<String> = None;
        loop {
            let next = self.named(prefix, self.list_page(&full, token.clone(), each))?;
            match next {
                None => return Ok(()),
                Some(_) if next == token => {
                    return self.named(prefix, Err(Failure::new(ErrorKind::Corrupt, "the listing runs in a circle")));
                }
                Some(_) => token = next,
            }
        }
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), BackendError> {
        let request = self.client.delete_object().bucket(&self.options.bucket).key(self.full_key(key)).send();
        match self.call(self.options.attempt_timeout, request) {
            Err(failure) if failure.kind == ErrorKind::NotFound => Ok(()),
            outcome => self.named(key.as_str(), outcome.map(drop)),
        }
    }

    /// Nothing to do: an answered PUT is as durable as the server makes it.
    fn barrier(&self) -> Result<(), BackendError> {
        Ok(())
    }
}
