//! What all protocols have in common: repetition, resumption, and never a short file.

mod resuming;
#[cfg(test)]
mod tests;
mod upload;

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use compat::store::{Store, StoreError, StoreErrorKind, StoredFile, Target, UNFINISHED, Upload};

use crate::error::Failure;
use crate::options::Options;
use crate::spool::Spool;

use resuming::Resuming;

/// A protocol, one attempt at a time.
pub(crate) trait Protocol: Send + Sync + fmt::Debug {
    /// How many files at once.
    fn concurrency(&self) -> usize;

    /// Plain files of the folder.
    fn list(&self) -> Result<Vec<StoredFile>, Failure>;

    /// The file from byte `offset` on. `size` is what the listing said. A reader that the server leaves in the middle
    /// fails; it may end early without an error only if `size` is known.
    fn start(&self, name: &str, offset: u64, size: Option<u64>) -> Result<Started, Failure>;

    /// Puts a file in the place of any of that name: whole, or, if this fails, not at all. Where a protocol cannot promise that
    /// of one command, the file comes to be under the name `unfinished`, is found to be as long as it should, and is renamed.
    /// Fails with `NoStore` where the folder is missing.
    fn put(&self, file: &Spool, name: &str, unfinished: &str) -> Result<(), Failure>;

    /// Removes a file. `NotFound` and `NoStore` are as good as success.
    fn remove(&self, name: &str) -> Result<(), Failure>;

    /// Makes the folder, and those that it is in. Nothing where there are none to make.
    fn make_folder(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// Takes away what [`Protocol::put`] may have left, as far as that can be done.
    fn clear(&self, unfinished: &str) {
        let _ = unfinished;
    }
}

/// An attempt that began.
pub(crate) struct Started {
    pub reader: Box<dyn Read + Send>,
    /// Size of the whole file, if the server said it just now.
    pub size: Option<u64>,
}

/// How often and how long to try again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Wait before the first repetition; doubles each time.
    pub first_wait: Duration,
    /// Longest wait.
    pub longest_wait: Duration,
    /// Attempts at a call.
    pub call_attempts: u32,
    /// Attempts without progress within a file.
    pub attempts: u32,
    /// No repetition of a call begins later than this: an unreachable host is told of while somebody still waits.
    pub total: Duration,
    /// Resumptions of one file, whatever the progress.
    pub resumptions: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_wait: Duration::from_millis(200),
            longest_wait: Duration::from_secs(8),
            call_attempts: 5,
            attempts: 8,
            total: Duration::from_secs(10),
            resumptions: 1000,
        }
    }
}

impl Patience {
    fn wait(&self, attempt: u32) -> Duration {
        self.first_wait.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(self.longest_wait)
    }

    /// A call that is answered at once.
    fn repeat<T>(&self, call: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
        self.attempt(self.call_attempts, Some(self.total), call)
    }

    fn attempt<T>(
        &self,
        attempts: u32,
        total: Option<Duration>,
        mut call: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let start = Instant::now();
        let mut attempt = 1;
        loop {
            let failure = match call() {
                Err(failure) if failure.is_temporary() => failure,
                outcome => return outcome,
            };
            let wait = self.wait(attempt);
            if attempt >= attempts || total.is_some_and(|total| start.elapsed() + wait > total) {
                return Err(failure);
            }
            std::thread::sleep(wait);
            attempt += 1;
        }
    }
}

/// A store over a protocol.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    location: String,
    protocol: Arc<dyn Protocol>,
    patience: Patience,
    /// Of the last listing.
    sizes: Arc<Mutex<HashMap<String, u64>>>,
}

impl Remote {
    pub(crate) fn new(location: String, protocol: Arc<dyn Protocol>, options: &Options) -> Self {
        let patience = Patience { attempts: options.attempts, total: options.retry_window, ..Patience::default() };
        Self { location, protocol, patience, sizes: Arc::default() }
    }

    fn sizes(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Remote {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn concurrency(&self) -> usize {
        self.protocol.concurrency().max(1)
    }

    fn list(&self) -> Result<Vec<StoredFile>, StoreError> {
        let mut files = self.patience.repeat(|| self.protocol.list()).map_err(|f| f.at(&self.location, ""))?;
        files.retain(|file| is_plain_name(&file.name) && !file.name.starts_with(UNFINISHED));
        let sizes = files.iter().filter_map(|file| Some((file.name.clone(), file.size?))).collect();
        *self.sizes() = sizes;
        Ok(files)
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        if !is_plain_name(name) {
            return Err(Failure::not_found().at(&self.location, name));
        }
        let size = self.sizes().get(name).copied();
        let mut reader = Resuming::new(self, name, size);
        let started = self.patience.repeat(|| reader.start());
        started.map_err(|failure| failure.at(&self.location, name))?;
        Ok(Box::new(reader))
    }
}

impl Target for Remote {
    /// The file waits on this machine, unnamed, until it is complete; its size has to be known beforehand, and it may have to be
    /// sent more than once.
    fn create(&self, name: &str) -> Result<Box<dyn Upload>, StoreError> {
        upload::start(self, name).map_err(|failure| failure.at(&self.location, name))
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        if !is_plain_name(name) {
            return Ok(());
        }
        self.sizes().remove(name);
        match self.patience.repeat(|| self.protocol.remove(name)) {
            Err(failure) if !matches!(failure.kind, StoreErrorKind::NotFound | StoreErrorKind::NoStore) => {
                Err(failure.at(&self.location, name))
            }
            _ => Ok(()),
        }
    }
}

/// A name that can be in a folder and in a line of a protocol.
fn is_plain_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(|c: char| c == '/' || c.is_control())
}
