//! Objects of others: any key below the prefix, written from a file, in parts if it is long.

use std::fs::File;
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_s3::config::{Builder, RequestChecksumCalculation};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, StorageClass};
use bytes::Bytes;
use engine::backend::{BackendError, ErrorKind};

use super::S3Backend;
use crate::error::Failure;

/// Size of a part, and of the largest object that is sent as one. In memory.
const PART: u64 = 16 << 20;
/// S3's own limit.
const MAX_PARTS: u64 = 10_000;

impl S3Backend {
    /// Puts the first `size` bytes of a file in the place of the object `key` (below the prefix, any UTF-8). One attempt; the
    /// object appears at once or not at all. Of `class`, else of what the options say. Holds 16 MiB of it in memory, more
    /// beyond 160 GB.
    ///
    /// # Errors
    ///
    /// As for any call; `NoStore` if there is no such bucket, `Corrupt` if the file is shorter or cannot be read.
    pub fn put_raw(&self, key: &str, file: &File, size: u64, class: Option<&str>) -> Result<(), BackendError> {
        let class = class.or(self.options.storage_class.as_deref()).map(StorageClass::from);
        let target = Upload { backend: self, key: format!("{}{key}", self.options.prefix), class };
        let outcome = match size {
            ..=PART => read(file, 0, size).and_then(|body| target.put(&body)),
            _ => target.put_in_parts(file, size),
        };
        self.named(key, outcome.and_then(|()| target.check(size)))
    }

    /// Deletes the object `key` (below the prefix, any UTF-8). That there is none is no error.
    ///
    /// # Errors
    ///
    /// As for any call.
    pub fn delete_raw(&self, key: &str) -> Result<(), BackendError> {
        let full = format!("{}{key}", self.options.prefix);
        let request = self.client.delete_object().bucket(&self.options.bucket).key(full).send();
        match self.call(self.options.attempt_timeout, request) {
            Err(failure) if failure.kind == ErrorKind::NotFound => Ok(()),
            outcome => self.named(key, outcome.map(drop)),
        }
    }
}

fn read(file: &File, offset: u64, length: u64) -> Result<Bytes, Failure> {
    let unreadable = |e: &dyn std::fmt::Display| Failure::new(ErrorKind::Corrupt, format!("cannot read what to send: {e}"));
    let mut body = vec![0; usize::try_from(length).map_err(|e| unreadable(&e))?];
    file.read_exact_at(&mut body, offset).map_err(|e| unreadable(&e))?;
    Ok(body.into())
}

/// An object being written.
struct Upload<'a> {
    backend: &'a S3Backend,
    /// With the prefix.
    key: String,
    class: Option<StorageClass>,
}

impl Upload<'_> {
    fn limit(&self, body: u64) -> Duration {
        let options = &self.backend.options;
        options.attempt_timeout + Duration::from_secs(body / options.slowest_upload.max(1))
    }

    /// Runs a request of which the server may not understand the checksums; then once more without. The signature covers the
    /// body all the same.
    fn call<T, E, F>(&self, body: u64, request: impl Fn(Builder) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, E>>,
        Failure: From<E>,
    {
        let few = &self.backend.few_checksums;
        let once = || {
            let mut change = Builder::new();
            if few.load(Ordering::Relaxed) {
                change = change.request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
            }
            self.backend.call(self.limit(body), request(change))
        };
        match once() {
            Err(failure) if failure.is_checksum_complaint() && !few.swap(true, Ordering::Relaxed) => once(),
            outcome => outcome,
        }
    }

    fn put(&self, body: &Bytes) -> Result<(), Failure> {
        let request = |change| {
            let put = self.backend.client.put_object().bucket(&self.backend.options.bucket).key(&self.key);
            let put = put.set_storage_class(self.class.clone()).body(ByteStream::from(body.clone()));
            put.customize().config_override(change).send()
        };
        self.call(body.len() as u64, request).map(drop)
    }

    fn put_in_parts(&self, file: &File, size: u64) -> Result<(), Failure> {
        let begin = |change| {
            let begin = self.backend.client.create_multipart_upload().bucket(&self.backend.options.bucket).key(&self.key);
            begin.set_storage_class(self.class.clone()).customize().config_override(change).send()
        };
        let begun = self.call(0, begin)?;
        let id = begun.upload_id().ok_or_else(|| Failure::new(ErrorKind::Corrupt, "the answer gives no upload id"))?;
        let outcome = self.parts(id, file, size).and_then(|parts| self.complete(id, parts));
        if outcome.is_err() {
            // Else its parts would be paid for until somebody looks.
            let abort = self.backend.client.abort_multipart_upload().bucket(&self.backend.options.bucket).key(&self.key);
            let _ = self.backend.call(self.limit(0), abort.upload_id(id).send());
        }
        outcome
    }

    fn parts(&self, id: &str, file: &File, size: u64) -> Result<Vec<CompletedPart>, Failure> {
        let length = PART.max(size.div_ceil(MAX_PARTS));
        let mut parts = Vec::new();
        let mut offset = 0;
        for number in 1.. {
            let body = read(file, offset, length.min(size - offset))?;
            let request = |change| {
                let part = self.backend.client.upload_part().bucket(&self.backend.options.bucket).key(&self.key);
                let part = part.upload_id(id).part_number(number).body(ByteStream::from(body.clone()));
                part.customize().config_override(change).send()
            };
            let done = self.call(body.len() as u64, request)?;
            // Some servers want the checksum again that they gave.
            let part = CompletedPart::builder().part_number(number).set_e_tag(done.e_tag);
            parts.push(part.set_checksum_crc32(done.checksum_crc32).build());
            offset += body.len() as u64;
            if offset >= size {
                break;
            }
        }
        Ok(parts)
    }

    fn complete(&self, id: &str, parts: Vec<CompletedPart>) -> Result<(), Failure> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let request = |change| {
            let complete = self.backend.client.complete_multipart_upload().bucket(&self.backend.options.bucket).key(&self.key);
            complete.upload_id(id).multipart_upload(parts.clone()).customize().config_override(change).send()
        };
        self.call(0, request).map(drop)
    }

    /// Looks whether all of it is there. Who may only write cannot look, and has the server's word.
    fn check(&self, size: u64) -> Result<(), Failure> {
        let backend = self.backend;
        let head = backend.client.head_object().bucket(&backend.options.bucket).key(&self.key).send();
        let failed = |message| Err(Failure::new(ErrorKind::Timeout, message));
        match backend.call(self.limit(0), head) {
            Ok(head) => match head.content_length().and_then(|n| u64::try_from(n).ok()) {
                Some(found) if found != size => failed(format!("only {found} of {size} bytes arrived")),
                _ => Ok(()),
            },
            Err(failure) if failure.kind == ErrorKind::NotFound => failed("what was stored is not there".to_owned()),
            Err(_) => Ok(()),
        }
    }
}
