//! A directory tree as a store: the key is the path below the root.
//!
//! Knows nothing of what the objects hold, and does not shard: the caller's keys say which directory an object is in.
//! How one object gets to disk and back is in [`write`] and [`read`].

mod disk;
mod read;
mod write;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::Bytes;
use rustix::io::Errno;

#[cfg(test)]
pub(crate) use self::disk::Change;
use self::disk::Disk;
use super::{Backend, BackendError, ErrorKind, ObjectKey, ObjectMeta};
use crate::buffer::BufferPool;
use crate::monitor::lock;

/// From this size on the page cache is passed by: it would cost a copy, and nobody reads a pack right after writing it, or
/// twice from its first byte to its last. What a check reads is what the disk holds, too.
const DIRECT_FROM: usize = 1 << 20;

/// How often directories are made anew because somebody takes away empty ones at the same moment.
const PARENT_ATTEMPTS: u32 = 20;

/// Objects as files below a directory.
///
/// A file appears under its name only once its bytes are synced; the directories above it are synced by
/// [`Backend::barrier`]. Directories below the root are made on demand, the root only by [`Backend::prepare`], so that
/// a disk that is not mounted is an error and not an empty store. Names that start with `.` are never objects.
#[derive(Debug)]
pub struct LocalBackend {
    root: PathBuf,
    /// Directories with names that may not have reached the disk.
    dirty: Mutex<BTreeSet<PathBuf>>,
    /// Held by a running barrier: a second one has to wait for what the first one took over.
    syncing: Mutex<()>,
    /// The file system refused `O_DIRECT`.
    no_direct: AtomicBool,
    /// How a finished file gets its name, see [`write::Publish`].
    publish: AtomicU8,
    disk: Disk,
    /// For whole objects that are read.
    pool: Arc<BufferPool>,
}

impl LocalBackend {
    /// A store below `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            dirty: Mutex::default(),
            syncing: Mutex::default(),
            no_direct: AtomicBool::new(false),
            publish: AtomicU8::new(write::Publish::Unknown as u8),
            disk: Disk::default(),
            pool: BufferPool::new(0),
        }
    }

    /// A store that records how it changes its file system.
    #[cfg(test)]
    pub(crate) fn recorded(root: impl Into<PathBuf>) -> (Self, Arc<Mutex<Vec<Change>>>) {
        let record = Arc::default();
        (Self { disk: Disk { record: Some(Arc::clone(&record)) }, ..Self::new(root) }, record)
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn error(&self, kind: ErrorKind, key: &str, message: impl Into<String>) -> BackendError {
        BackendError { kind, location: self.location(), key: key.to_owned(), message: message.into() }
    }

    fn io_error(&self, key: &str, action: &str, error: &io::Error) -> BackendError {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => return self.missing(key),
            io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            io::ErrorKind::NotADirectory if !self.root.is_dir() => ErrorKind::NoStore,
            io::ErrorKind::UnexpectedEof => ErrorKind::Corrupt,
            _ => ErrorKind::Other,
        };
        self.error(kind, key, format!("cannot {action}: {error}"))
    }

    /// What a missing file means: no object, or no store at all.
    fn missing(&self, key: &str) -> BackendError {
        match fs::metadata(&self.root) {
            Ok(_) => self.error(ErrorKind::NotFound, key, "no such object"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.error(ErrorKind::NoStore, "", "no such directory"),
            Err(error) => self.io_error("", "look at the directory", &error),
        }
    }

    /// Reports the objects in `directory`, whose keys start with `prefix`, and below.
    fn walk(&self, directory: &Path, prefix: &str, each: &mut dyn FnMut(ObjectMeta)) -> Result<(), BackendError> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            // Nothing has been stored there yet, or somebody tidied up; the caller checks the root.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(self.io_error(prefix, "list", &error)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| self.io_error(prefix, "list", &e))?;
            let Some(key) = entry.file_name().to_str().and_then(|name| ObjectKey::new(format!("{prefix}{name}"))) else {
                continue;
            };
            // Follows symlinks: a part of the store may lie on another disk.
            let metadata = match fs::metadata(entry.path()) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(self.io_error(key.as_str(), "look at the file", &error)),
            };
            if metadata.is_dir() {
                self.walk(&entry.path(), &format!("{key}/"), each)?;
            } else if metadata.is_file() {
                each(ObjectMeta { key, size: metadata.len() });
            }
        }
        Ok(())
    }

    /// Makes the directories between the root and the object.
    fn make_parents(&self, key: &ObjectKey) -> Result<(), BackendError> {
        if !self.root.is_dir() {
            return Err(self.missing(key.as_str()));
        }
        let mut directory = self.root.clone();
        let mut parts: Vec<&str> = key.as_str().split('/').collect();
        parts.pop();
        for part in parts {
            directory.push(part);
            match self.disk.make_directory(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(self.io_error(key.as_str(), "make the directory", &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn store(&self, key: &ObjectKey, body: &Bytes, name: write::Name) -> Result<(), BackendError> {
        let path = self.path(key);
        let mut outcome = self.write_file(&path, body, name);
        for _ in 0..PARENT_ATTEMPTS {
            if !outcome.as_ref().is_err_and(|e| e.error.kind() == io::ErrorKind::NotFound) {
                break;
            }
            self.make_parents(key)?;
            outcome = self.write_file(&path, body, name);
        }
        if outcome.as_ref().is_err_and(|e| e.error.raw_os_error() == Some(Errno::IO.raw_os_error())) {
            // After a failed fsync the kernel may call the lost pages clean, so only a new file can be believed.
            outcome = self.write_file(&path, body, name);
        }
        outcome.map_err(|failure| self.io_error(key.as_str(), failure.action, &failure.error))?;
        self.mark_dirty(&path);
        Ok(())
    }

    /// Takes away the directory that held a deleted file, if nothing else is in it. The root stays.
    fn remove_if_empty(&self, path: &Path) {
        if let Some(parent) = path.parent().filter(|parent| *parent != self.root) {
            // Mostly it is not empty, which only the attempt tells.
            let _ = self.disk.remove_directory(parent);
        }
    }

    /// Remembers for the next barrier that the directories from `path` up to the root have to be synced. All of them
    /// every time: an upper one may have been made by another thread, or by a process that did not live to sync it.
    fn mark_dirty(&self, path: &Path) {
        let mut dirty = lock(&self.dirty);
        for directory in path.ancestors().skip(1) {
            dirty.insert(directory.to_owned());
            if directory == self.root {
                break;
            }
        }
    }
}

impl Backend for LocalBackend {
    fn location(&self) -> String {
        self.root.display().to_string()
    }

    fn concurrency(&self) -> usize {
        4
    }

    fn prepare(&self) -> Result<(), BackendError> {
        let mut made = Vec::new();
        for directory in self.root.ancestors().filter(|d| *d != OsStr::new("")) {
            if directory.exists() {
                break;
            }
            made.push(directory);
        }
        for directory in made.iter().rev() {
            match self.disk.make_directory(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(self.io_error("", "make the directory", &error));
                }
                _ => {}
            }
            let parent = directory.parent().filter(|p| *p != OsStr::new("")).unwrap_or(Path::new("."));
            self.disk.sync_directory(parent).map_err(|e| self.io_error("", "sync the parent directory", &e))?;
        }
        if !self.root.is_dir() {
            return Err(self.error(ErrorKind::NoStore, "", "not a directory"));
        }
        self.disk.sync_directory(&self.root).map_err(|e| self.io_error("", "sync the directory", &e))
    }

    fn create(&self, key: &ObjectKey, body: Bytes) -> Result<(), BackendError> {
        self.store(key, &body, write::Name::New)
    }

    fn replace(&self, key: &ObjectKey, body: Bytes) -> Result<(), BackendError> {
        self.store(key, &body, write::Name::Replace)
    }

    fn create_is_exclusive(&self) -> bool {
        self.probe_publish()
    }

    fn stored_at(&self, key: &ObjectKey) -> Result<Option<SystemTime>, BackendError> {
        let modified = fs::metadata(self.path(key)).and_then(|metadata| metadata.modified());
        modified.map(Some).map_err(|e| self.io_error(key.as_str(), "look at the file", &e))
    }

    fn read(&self, key: &ObjectKey, max: u64) -> Result<Bytes, BackendError> {
        let (file, size) = self.open(key)?;
        let length = usize::try_from(size).ok().filter(|_| size <= max);
        let Some(length) = length else {
            let message = format!("larger than it may be: {size} bytes, at most {max}");
            return Err(self.error(ErrorKind::Corrupt, key.as_str(), message));
        };
        match self.read_direct(key, &file, length)? {
            Some(bytes) => Ok(bytes),
            None => self.read_exact_at(key, &file, 0, length),
        }
    }

    fn read_range(&self, key: &ObjectKey, offset: u64, length: usize) -> Result<Bytes, BackendError> {
        let (file, size) = self.open(key)?;
        if offset.checked_add(length as u64).is_none_or(|end| end > size) {
            let message = format!("too short: {length} bytes wanted from {offset}, but only {size} in all");
            return Err(self.error(ErrorKind::Corrupt, key.as_str(), message));
        }
        self.read_exact_at(key, &file, offset, length)
    }

    fn size(&self, key: &ObjectKey) -> Result<u64, BackendError> {
        match fs::metadata(self.path(key)) {
            Ok(metadata) if metadata.is_file() => Ok(metadata.len()),
            Ok(_) => Err(self.missing(key.as_str())),
            Err(error) => Err(self.io_error(key.as_str(), "look at the file", &error)),
        }
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectMeta)) -> Result<(), BackendError> {
        let directory = match prefix.strip_suffix('/').map(ObjectKey::new) {
            None if prefix.is_empty() => self.root.clone(),
            Some(Some(key)) => self.path(&key),
            _ => return Err(self.error(ErrorKind::Unsupported, prefix, "not a prefix that can be listed")),
        };
        match fs::read_dir(&self.root) {
            Ok(_) => self.walk(&directory, prefix, each),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.missing("")),
            Err(error) => Err(self.io_error("", "list", &error)),
        }
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), BackendError> {
        match self.disk.remove_file(&self.path(key)) {
            Ok(()) => {
                self.remove_if_empty(&self.path(key));
                self.mark_dirty(&self.path(key));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => match self.missing(key.as_str()) {
                missing if missing.kind == ErrorKind::NotFound => Ok(()),
                no_store => Err(no_store),
            },
            Err(error) => Err(self.io_error(key.as_str(), "delete", &error)),
        }
    }

    fn barrier(&self) -> Result<(), BackendError> {
        let _one_at_a_time = lock(&self.syncing);
        let mut todo = std::mem::take(&mut *lock(&self.dirty));
        // Deepest first, so that a name never leads to a directory whose own names are lost.
        while let Some(directory) = todo.pop_last() {
            if let Err(error) = self.disk.sync_directory(&directory) {
                // One that became empty was taken away, by whoever deleted the last file in it.
                let may_be_gone = directory != self.root && directory.parent().is_some_and(Path::is_dir);
                if error.kind() == io::ErrorKind::NotFound && may_be_gone {
                    continue;
                }
                todo.insert(directory);
                lock(&self.dirty).append(&mut todo);
                return Err(self.io_error("", "sync a directory", &error));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
