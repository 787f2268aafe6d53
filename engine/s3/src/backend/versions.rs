//! Old versions of objects, for tests of what a lock holds: the engine never looks at them.

use aws_sdk_s3::types::VersioningConfiguration;
use engine::backend::{BackendError, ObjectKey};

use super::S3Backend;

impl S3Backend {
    /// Makes a bucket that can lock objects.
    ///
    /// # Errors
    ///
    /// As for any call.
    pub fn create_locking_bucket(&self) -> Result<(), BackendError> {
        let bucket = &self.options.bucket;
        let request = self.client.create_bucket().bucket(bucket).object_lock_enabled_for_bucket(true).send();
        self.named("", self.call(self.options.attempt_timeout, request).map(drop))?;
        let versioning = VersioningConfiguration::builder().status(aws_sdk_s3::types::BucketVersioningStatus::Enabled).build();
        let request = self.client.put_bucket_versioning().bucket(bucket).versioning_configuration(versioning).send();
        self.named("", self.call(self.options.attempt_timeout, request).map(drop))
    }

    /// Ids of all versions of an object, and whether each is a mark of deletion.
    ///
    /// # Errors
    ///
    /// As for any call.
    pub fn versions(&self, key: &ObjectKey) -> Result<Vec<(String, bool)>, BackendError> {
        let name = self.full_key(key);
        let request = self.client.list_object_versions().bucket(&self.options.bucket).prefix(&name).send();
        let answer = self.named(key.as_str(), self.call(self.options.attempt_timeout, request))?;
        let versions = answer.versions().iter().filter(|v| v.key() == Some(&name)).map(|v| (v.version_id(), false));
        let marks = answer.delete_markers().iter().filter(|m| m.key() == Some(&name)).map(|m| (m.version_id(), true));
        Ok(versions.chain(marks).filter_map(|(id, mark)| Some((id?.to_owned(), mark))).collect())
    }

    /// Deletes a version for good.
    ///
    /// # Errors
    ///
    /// `Denied` if it is locked; as for any call.
    pub fn delete_version(&self, key: &ObjectKey, id: &str) -> Result<(), BackendError> {
        let request = self.client.delete_object().bucket(&self.options.bucket).key(self.full_key(key)).version_id(id).send();
        self.named(key.as_str(), self.call(self.options.attempt_timeout, request).map(drop))
    }
}
