//! Object Lock: the server keeps a version of an object until a time, whoever asks to delete it.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{ObjectLockEnabled, ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode};
use engine::backend::{LockMode, ObjectKey, ObjectLock};

use super::S3Backend;
use crate::error::Failure;

/// As a PUT says it.
pub(super) fn mode(mode: LockMode) -> ObjectLockMode {
    match mode {
        LockMode::Governance => ObjectLockMode::Governance,
        LockMode::Compliance => ObjectLockMode::Compliance,
    }
}

/// In whole seconds, which is what servers keep.
pub(super) fn time(time: SystemTime) -> DateTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    DateTime::from_secs(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

impl S3Backend {
    /// Whether the bucket was made with Object Lock.
    pub(super) fn bucket_locks(&self) -> Result<bool, Failure> {
        let request = self.client.get_object_lock_configuration().bucket(&self.options.bucket).send();
        match self.call(self.options.attempt_timeout, request) {
            Ok(answer) => {
                let enabled = answer.object_lock_configuration().and_then(|found| found.object_lock_enabled());
                Ok(enabled == Some(&ObjectLockEnabled::Enabled))
            }
            Err(failure) if failure.code == "NoSuchBucket" => Err(failure),
            // A bucket without it, or a server that has never heard of it.
            Err(failure) if matches!(failure.status, 400 | 404 | 405 | 501) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    pub(super) fn lock_of(&self, key: &ObjectKey) -> Result<Option<SystemTime>, Failure> {
        let request = self.client.head_object().bucket(&self.options.bucket).key(self.full_key(key)).send();
        let head = self.call(self.options.attempt_timeout, request)?;
        let seconds = head.object_lock_retain_until_date().and_then(|time| u64::try_from(time.secs()).ok());
        Ok(seconds.and_then(|s| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(s))))
    }

    pub(super) fn lock_longer(&self, key: &ObjectKey, lock: &ObjectLock) -> Result<(), Failure> {
        let mode = match lock.mode {
            LockMode::Governance => ObjectLockRetentionMode::Governance,
            LockMode::Compliance => ObjectLockRetentionMode::Compliance,
        };
        let retention = ObjectLockRetention::builder().mode(mode).retain_until_date(time(lock.until)).build();
        let request = self.client.put_object_retention().bucket(&self.options.bucket).key(self.full_key(key));
        self.call(self.options.attempt_timeout, request.retention(retention).send()).map(drop)
    }
}
