//! The standard input as a source of one file.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use engine::entry::{
    EntrySource, Hole, Kind, LazyEntry, Metadata, OpenFile, Owner, SourceContent, SourceEntry, Timestamp, UNKNOWN_SIZE, Xattrs,
};
use engine::error::{Error, Result};
use engine::path::EntryPath;

/// What a stream is read from; tests have no standard input to fill.
type Input = Box<dyn Read + Send>;

/// Hands the input out once.
pub struct StreamOnce {
    path: EntryPath,
    time: Timestamp,
    input: Arc<Mutex<Option<Input>>>,
}

impl StreamOnce {
    /// The input as a file with this path.
    pub fn new(path: EntryPath, time: Timestamp, input: impl Read + Send + 'static) -> Self {
        Self { path, time, input: Arc::new(Mutex::new(Some(Box::new(input)))) }
    }

    /// The source: directories down to the file, and the file.
    ///
    /// # Errors
    ///
    /// If the input has been read already.
    pub fn source(&self) -> Result<Box<dyn EntrySource>> {
        let gone = self.input.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        if gone {
            let why =
                "the repository's maintenance came in between, and the standard input cannot be read twice: run the backup again";
            return Err(Error::Invalid(why.to_owned()));
        }
        let mut parents: Vec<EntryPath> = std::iter::successors(self.path.parent(), EntryPath::parent).collect();
        parents.retain(|path| !path.is_root());
        let file = self.entry(self.path.clone(), Kind::File, 0o600);
        let directories = parents.into_iter().map(|path| self.entry(path, Kind::Directory, 0o755));
        Ok(Box::new(Entries(std::iter::once(file).chain(directories).collect())))
    }

    fn entry(&self, path: EntryPath, kind: Kind, mode: u32) -> SourceEntry {
        let owner =
            Owner { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw(), user: None, group: None };
        let meta = Metadata { mode, owner: Arc::new(owner), mtime: self.time, ctime: self.time, links: 1, ..Metadata::default() };
        let lazy = Stream { input: Arc::clone(&self.input), meta: meta.clone() };
        SourceEntry { path, kind, meta, size: 0, content: SourceContent::Lazy(Box::new(lazy)) }
    }
}

/// Entries in reverse order.
struct Entries(Vec<SourceEntry>);

impl EntrySource for Entries {
    fn next_entry(&mut self) -> Result<Option<SourceEntry>> {
        Ok(self.0.pop())
    }
}

struct Stream {
    input: Arc<Mutex<Option<Input>>>,
    meta: Metadata,
}

impl LazyEntry for Stream {
    fn xattrs(&self) -> io::Result<Xattrs> {
        Ok(Vec::new())
    }

    fn open(&self) -> io::Result<Box<dyn OpenFile>> {
        let input = self.input.lock().unwrap_or_else(PoisonError::into_inner).take();
        let input = input.ok_or_else(|| io::Error::other("a stream can be read only once"))?;
        Ok(Box::new(OpenStream { input, meta: self.meta.clone(), length: 0, ended: false }))
    }
}

struct OpenStream {
    input: Input,
    meta: Metadata,
    length: u64,
    ended: bool,
}

impl OpenFile for OpenStream {
    fn xattrs(&self) -> io::Result<Xattrs> {
        Ok(Vec::new())
    }

    fn stat(&self) -> io::Result<(Metadata, u64)> {
        let size = if self.ended { self.length } else { UNKNOWN_SIZE };
        Ok((self.meta.clone(), size))
    }

    fn holes(&mut self, _: u64, _: usize) -> io::Result<Vec<Hole>> {
        Ok(Vec::new())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
            match self.input.read(room) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.length += filled as u64;
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_first_and_the_content_once() {
        let path = EntryPath::new("a/b/c").expect("valid");
        let once = StreamOnce::new(path, Timestamp::default(), &b"hello"[..]);
        let mut source = once.source().expect("first");
        let mut paths = Vec::new();
        let mut last = None;
        while let Some(entry) = source.next_entry().expect("goes on") {
            paths.push((entry.path.display(), entry.kind == Kind::Directory));
            last = Some(entry);
        }
        assert_eq!(paths, [("a".into(), true), ("a/b".into(), true), ("a/b/c".into(), false)]);
        let mut file = last.expect("a file").content.lazy().expect("content").open().expect("opens");
        let mut buffer = [0; 3];
        assert_eq!(file.read(&mut buffer).expect("reads"), 3);
        assert_eq!(file.read(&mut buffer).expect("reads"), 2);
        assert_eq!(file.read(&mut buffer).expect("reads"), 0);
        assert_eq!(file.stat().expect("known by now").1, 5);
        assert!(once.source().is_err());
    }
}
