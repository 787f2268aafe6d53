//! What all protocols have in common: repetition, resumption, and never a short file.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use compat::store::{Store, StoreError, StoreErrorKind, StoredFile};

use crate::error::Failure;
use crate::options::Options;

/// A protocol, one attempt at a time.
pub(crate) trait Protocol: Send + Sync + fmt::Debug {
    /// How many files at once.
    fn concurrency(&self) -> usize;

    /// Plain files of the folder.
    fn list(&self) -> Result<Vec<StoredFile>, Failure>;

    /// The file from byte `offset` on. `size` is what the listing said. A reader that the server leaves in the middle
    /// fails; it may end early without an error only if `size` is known.
    fn start(&self, name: &str, offset: u64, size: Option<u64>) -> Result<Started, Failure>;
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

/// An attempt that brought less than this was no progress.
const PROGRESS: u64 = 64 * 1024;

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

    fn repeat<T>(&self, mut call: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
        let start = Instant::now();
        let mut attempt = 1;
        loop {
            let failure = match call() {
                Err(failure) if failure.is_temporary() => failure,
                outcome => return outcome,
            };
            let wait = self.wait(attempt);
            if attempt >= self.call_attempts || start.elapsed() + wait > self.total {
                return Err(failure);
            }
            std::thread::sleep(wait);
            attempt += 1;
        }
    }
}

/// A store over a protocol.
#[derive(Debug)]
pub(crate) struct Remote {
    location: String,
    protocol: Arc<dyn Protocol>,
    patience: Patience,
    /// Of the last listing.
    sizes: Mutex<HashMap<String, u64>>,
}

impl Remote {
    pub(crate) fn new(location: String, protocol: Arc<dyn Protocol>, options: &Options) -> Self {
        let patience = Patience { attempts: options.attempts, total: options.retry_window, ..Patience::default() };
        Self { location, protocol, patience, sizes: Mutex::default() }
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
        files.retain(|file| is_plain_name(&file.name));
        let sizes = files.iter().filter_map(|file| Some((file.name.clone(), file.size?))).collect();
        *self.sizes.lock().unwrap_or_else(PoisonError::into_inner) = sizes;
        Ok(files)
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        if !is_plain_name(name) {
            return Err(Failure::not_found().at(&self.location, name));
        }
        let size = self.sizes.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied();
        let mut reader = Resuming {
            location: self.location.clone(),
            name: name.to_owned(),
            protocol: Arc::clone(&self.protocol),
            patience: self.patience,
            size,
            position: 0,
            current: None,
            attempts: 0,
            resumptions: 0,
            progress_mark: 0,
            ended: false,
        };
        let started = self.patience.repeat(|| reader.start());
        started.map_err(|failure| failure.at(&self.location, name))?;
        Ok(Box::new(reader))
    }
}

/// A name that can be in a folder and in a line of a protocol.
fn is_plain_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(|c: char| c == '/' || c.is_control())
}

/// Reads a file, over as many connections as it takes.
struct Resuming {
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
    fn start(&mut self) -> Result<(), Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves `0, 1, 2, ...`, and breaks off as the script says: after so many bytes of each attempt.
    #[derive(Debug)]
    struct Flaky {
        size: u64,
        tells_size: bool,
        cuts: Mutex<Vec<u64>>,
        starts: Mutex<Vec<u64>>,
        ends_quietly: bool,
    }

    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }

    impl Protocol for Flaky {
        fn concurrency(&self) -> usize {
            0
        }

        fn list(&self) -> Result<Vec<StoredFile>, Failure> {
            let named = |name: &str| StoredFile { name: name.to_owned(), size: Some(self.size) };
            Ok([named("f"), named("a\nb"), named(".."), named("x/y")].into())
        }

        fn start(&self, name: &str, offset: u64, _: Option<u64>) -> Result<Started, Failure> {
            if name != "f" {
                return Err(Failure::not_found());
            }
            self.starts.lock().unwrap().push(offset);
            let bytes: Vec<u8> = (offset..self.size).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let bytes = io::Cursor::new(bytes);
            let cut = self.cuts.lock().unwrap().pop();
            let reader: Box<dyn Read + Send> = match cut {
                None => Box::new(bytes),
                Some(n) if self.ends_quietly => Box::new(bytes.take(n)),
                Some(n) => Box::new(bytes.take(n).chain(Broken)),
            };
            Ok(Started { reader, size: self.tells_size.then_some(self.size) })
        }
    }

    fn store(size: u64, cuts: &[u64]) -> (Arc<Flaky>, Remote) {
        let flaky = Flaky {
            size,
            tells_size: true,
            cuts: Mutex::new(cuts.iter().rev().copied().collect()),
            starts: Mutex::default(),
            ends_quietly: false,
        };
        with(flaky)
    }

    fn with(flaky: Flaky) -> (Arc<Flaky>, Remote) {
        let flaky = Arc::new(flaky);
        let mut remote = Remote::new("test://".into(), flaky.clone(), &Options { attempts: 6, ..Options::default() });
        remote.patience.first_wait = Duration::from_millis(1);
        remote.patience.longest_wait = Duration::from_millis(2);
        (flaky, remote)
    }

    fn read(store: &Remote) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        store.open("f").unwrap().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn whole(size: u64) -> Vec<u8> {
        (0..size).map(|i| u8::try_from(i % 251).unwrap()).collect()
    }

    #[test]
    fn goes_on_where_it_broke_off() {
        let (flaky, store) = store(1000, &[0, 100, 50]);
        assert_eq!(read(&store).unwrap(), whole(1000));
        assert_eq!(*flaky.starts.lock().unwrap(), [0, 0, 100, 150]);
    }

    #[test]
    fn an_end_before_the_end_is_a_break() {
        let (flaky, store) = store(1000, &[100]);
        let flaky = Flaky { ends_quietly: true, cuts: Mutex::new(vec![100]), starts: Mutex::default(), ..*flaky };
        drop(store);
        let (flaky, store) = with(flaky);
        assert_eq!(read(&store).unwrap(), whole(1000));
        assert_eq!(*flaky.starts.lock().unwrap(), [0, 100]);
    }

    #[test]
    fn gives_up_without_progress_with_the_reason_inside() {
        let (flaky, store) = store(1000, &[0; 20]);
        let error = read(&store).unwrap_err();
        let inner = error.get_ref().unwrap().downcast_ref::<StoreError>().unwrap();
        assert_eq!((inner.kind, inner.name.as_str()), (StoreErrorKind::Unreachable, "f"));
        assert_eq!(flaky.starts.lock().unwrap().len(), 6);
    }

    #[test]
    fn progress_renews_patience() {
        let (_, store) = store(20 * PROGRESS, &[PROGRESS; 19]);
        assert_eq!(read(&store).unwrap(), whole(20 * PROGRESS));
    }

    #[test]
    fn a_break_after_the_last_byte_does_not_matter() {
        let (flaky, store) = store(100, &[100]);
        assert_eq!(read(&store).unwrap(), whole(100));
        assert_eq!(flaky.starts.lock().unwrap().len(), 1);
    }

    #[test]
    fn the_listing_counts() {
        let (flaky, store) = store(100, &[]);
        let names: Vec<_> = store.list().unwrap().into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["f"]);
        store.sizes.lock().unwrap().insert("f".into(), 99);
        let error = store.open("f").err().unwrap();
        assert!(error.message.contains("100 bytes now"), "{error}");
        let (_, store) = with(Flaky { tells_size: false, cuts: Mutex::default(), starts: Mutex::default(), ..*flaky });
        store.sizes.lock().unwrap().insert("f".into(), 99);
        assert!(read(&store).unwrap_err().to_string().contains("more bytes"));
    }

    #[test]
    fn odd_names_are_not_there() {
        let (flaky, store) = store(1, &[]);
        for name in ["", ".", "..", "a/b", "a\r\nDELE f", "g"] {
            assert_eq!(store.open(name).err().unwrap().kind, StoreErrorKind::NotFound, "{name:?}");
        }
        assert!(flaky.starts.lock().unwrap().is_empty());
    }
}
