//! A file that is read, over as many connections as it takes.

use std::io::{self, Read};
use std::sync::Arc;

use compat::store::StoreErrorKind;

use super::{Patience, Protocol, Remote};
use crate::error::Failure;

/// An attempt that brought less than this was no progress.
pub(super) const PROGRESS: u64 = 64 * 1024;

pub(super) struct Resuming {
    location: String,
    name: String,
    protocol: Arc<dyn Protocol>,
    patience: Patience,
    size: Option<u64>,
    position: u64,
    current: Option<Box<dyn Read + Send>>,
    /// Since there was progress.
    attempts: u32,
    resumptions: u32,
    /// Position at which the attempts were counted from.
    progress_mark: u64,
    ended: bool,
}

impl Resuming {
    /// Not started yet.
    pub(super) fn new(remote: &Remote, name: &str, size: Option<u64>) -> Self {
        Self {
            location: remote.location.clone(),
            name: name.to_owned(),
            protocol: Arc::clone(&remote.protocol),
            patience: remote.patience,
            size,
            position: 0,
            current: None,
            attempts: 0,
            resumptions: 0,
            progress_mark: 0,
            ended: false,
        }
    }

    pub(super) fn start(&mut self) -> Result<(), Failure> {
        let started = self.protocol.start(&self.name, self.position, self.size)?;
        match (self.size, started.size) {
            (Some(known), Some(said)) if known != said => {
                let message = format!("it has {said} bytes now, and had {known} before: it was changed meanwhile");
                return Err(Failure::new(StoreErrorKind::Other, message));
            }
            (None, said) => self.size = said,
            _ => {}
        }
        self.current = Some(started.reader);
        Ok(())
    }

    /// One step; `Ok(None)` if nothing came and the next step may fare better.
    fn step(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Failure> {
        let Some(current) = self.current.as_mut() else {
            self.start()?;
            return Ok(None);
        };
        let outcome = current.read(buffer);
        let at_end = self.size == Some(self.position);
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            // All that there is has come; how the connection ends does not matter.
            Ok(0) | Err(_) if at_end => Ok(Some(0)),
            Ok(0) => match self.size {
                None => Ok(Some(0)),
                Some(size) => Err(Failure::unreachable(format!("broke off after {} of {size} bytes", self.position))),
            },
            Ok(n) => {
                self.position = self.position.saturating_add(n as u64);
                if self.size.is_some_and(|size| self.position > size) {
                    return Err(Failure::new(StoreErrorKind::Other, "more bytes come than the file has"));
                }
                Ok(Some(n))
            }
            Err(error) => Err(Failure::from(error)),
        }
    }

    /// Waits before the next attempt, or gives up with the failure.
    fn recover(&mut self, failure: Failure) -> Result<(), Failure> {
        self.current = None;
        if self.position - self.progress_mark >= PROGRESS {
            self.attempts = 0;
        }
        self.progress_mark = self.position;
        self.attempts += 1;
        self.resumptions += 1;
        if !failure.is_temporary() || self.attempts >= self.patience.attempts || self.resumptions > self.patience.resumptions {
            return Err(failure);
        }
        std::thread::sleep(self.patience.wait(self.attempts));
        Ok(())
    }
}

impl Read for Resuming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.ended {
            return Ok(0);
        }
        loop {
            let failure = match self.step(buffer) {
                Ok(None) => continue,
                Ok(Some(n)) => {
                    if n == 0 {
                        self.ended = true;
                        self.current = None;
                    }
                    return Ok(n);
                }
                Err(failure) => failure,
            };
            if let Err(failure) = self.recover(failure) {
                return Err(io::Error::other(failure.at(&self.location, &self.name)));
            }
        }
    }
}
