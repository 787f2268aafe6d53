//! Objects of others: any key below the prefix, read only.

use std::io::{self, Read};
use std::sync::Arc;

use aws_sdk_s3::primitives::ByteStream;
use bytes::{Buf, Bytes};
use engine::backend::{BackendError, ErrorKind};

use super::S3Backend;
use crate::error::Failure;

impl S3Backend {
    /// Reports key and size of all objects directly below the prefix, without it, in no certain order. Other than
    /// `Backend::list` this takes any key that is UTF-8. One attempt; what was reported before an error counts for
    /// nothing.
    ///
    /// # Errors
    ///
    /// As for any call; `NoStore` if there is no such bucket.
    pub fn list_raw(&self, each: &mut dyn FnMut(&str, u64)) -> Result<(), BackendError> {
        let mut token: Option<String> = None;
        loop {
            let next = self.named("", self.list_raw_page(token.clone(), each))?;
            match next {
                None => return Ok(()),
                Some(_) if next == token => {
                    return self.named("", Err(Failure::new(ErrorKind::Corrupt, "the listing runs in a circle")));
                }
                Some(_) => token = next,
            }
        }
    }

    fn list_raw_page(&self, token: Option<String>, each: &mut dyn FnMut(&str, u64)) -> Result<Option<String>, Failure> {
        let prefix = &self.options.prefix;
        let request = self.client.list_objects_v2().bucket(&self.options.bucket).prefix(prefix).delimiter("/");
        let page = self.call(self.options.attempt_timeout, request.set_continuation_token(token).send())?;
        for object in page.contents() {
            let Some(name) = object.key().and_then(|key| key.strip_prefix(prefix.as_str())) else { continue };
            if name.is_empty() || name.contains('/') {
                continue;
            }
            let size = object.size().and_then(|n| u64::try_from(n).ok());
            each(name, size.ok_or_else(|| Failure::new(ErrorKind::Corrupt, "the listing gives no size"))?);
        }
        match page.next_continuation_token() {
            Some(token) => Ok(page.is_truncated().unwrap_or(true).then(|| token.to_owned())),
            None if page.is_truncated() == Some(true) => {
                Err(Failure::new(ErrorKind::Corrupt, "the listing breaks off without saying where to go on"))
            }
            None => Ok(None),
        }
    }

    /// Begins to read the object `key` (below the prefix, any UTF-8) from byte `offset` on. One attempt: a reply that
    /// breaks off fails the reader, which never just ends early.
    ///
    /// # Errors
    ///
    /// As for any call; `Corrupt` if the object ends before `offset`.
    pub fn read_raw(self: &Arc<Self>, key: &str, offset: u64) -> Result<RawReader, BackendError> {
        self.named(key, self.start_raw(key, offset))
    }

    fn start_raw(self: &Arc<Self>, key: &str, offset: u64) -> Result<RawReader, Failure> {
        let full = format!("{}{key}", self.options.prefix);
        let range = (offset > 0).then(|| format!("bytes={offset}-"));
        let request = self.client.get_object().bucket(&self.options.bucket).key(full).set_range(range);
        let answer = self.call(self.options.attempt_timeout, request.send())?;
        let length = answer.content_length().and_then(|n| u64::try_from(n).ok());
        let length = length.ok_or_else(|| Failure::new(ErrorKind::Corrupt, "the answer gives no size"))?;
        let right = answer.content_range().is_some_and(|range| range.starts_with(&format!("bytes {offset}-")));
        if offset > 0 && !right {
            return Err(Failure::new(ErrorKind::Corrupt, "this server ignores ranges"));
        }
        let size = offset.checked_add(length).ok_or_else(|| Failure::new(ErrorKind::Corrupt, "sizes beyond all bounds"))?;
        Ok(RawReader { backend: Arc::clone(self), body: answer.body, piece: Bytes::new(), left: length, size })
    }
}

/// An object as a stream.
#[derive(Debug)]
pub struct RawReader {
    backend: Arc<S3Backend>,
    body: ByteStream,
    /// What came and was not read yet.
    piece: Bytes,
    /// What is still to come, `piece` not counted.
    left: u64,
    size: u64,
}

impl RawReader {
    /// Size of the whole object in bytes, wherever the reader began.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Read for RawReader {
    /// Fails with `TimedOut`, `ConnectionReset` or `InvalidData`.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.piece.is_empty() {
            let pause = self.backend.options.attempt_timeout;
            let body = &mut self.body;
            let next = self.backend.bridge.run(async { tokio::time::timeout(pause, body.next()).await });
            self.piece = match next {
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(Some(Err(error))) => return Err(io::Error::new(io::ErrorKind::ConnectionReset, error)),
                Ok(None) if self.left > 0 => return Err(io::ErrorKind::ConnectionReset.into()),
                Ok(None) => return Ok(0),
                Ok(Some(Ok(piece))) => piece,
            };
            let left = self.left.checked_sub(self.piece.len() as u64);
            self.left = left.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "more came than was announced"))?;
        }
        let n = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}
