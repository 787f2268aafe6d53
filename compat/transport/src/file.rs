//! A folder of this machine.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use compat::store::{Store, StoreError, StoreErrorKind, StoredFile};

use crate::error::Failure;

#[derive(Debug)]
pub(crate) struct FileStore {
    folder: PathBuf,
    connections: usize,
}

impl FileStore {
    pub(crate) fn new(folder: &Path, connections: usize) -> Self {
        Self { folder: folder.to_owned(), connections }
    }

    fn failed(&self, name: &str, failure: Failure) -> StoreError {
        failure.at(&self.location(), name)
    }

    fn file(&self, name: &str) -> Result<File, StoreError> {
        if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
            return Err(self.failed(name, Failure::not_found()));
        }
        let path = self.folder.join(name);
        // Asked first: opening a named pipe would wait for ever.
        let opened = match std::fs::metadata(&path) {
            Ok(found) if !found.is_file() => return Err(self.failed(name, Failure::not_found())),
            Ok(_) => File::open(&path),
            Err(error) => Err(error),
        };
        opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.failed(name, Failure::not_found()),
            _ => self.failed(name, error.into()),
        })
    }
}

impl Store for FileStore {
    fn location(&self) -> String {
        self.folder.display().to_string()
    }

    fn concurrency(&self) -> usize {
        self.connections.max(1)
    }

    /// Links to files count as files.
    fn list(&self) -> Result<Vec<StoredFile>, StoreError> {
        let failed = |error: io::Error| {
            let missing = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
            let failure = match missing {
                true => Failure::new(StoreErrorKind::NoStore, "no such folder"),
                false => Failure::from(error),
            };
            self.failed("", failure)
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            match std::fs::metadata(entry.path()) {
                Ok(found) if found.is_file() => files.push(StoredFile { name, size: Some(found.len()) }),
                Ok(_) => {}
                // Removed since, or a link to nothing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.failed(&name, error.into())),
            }
        }
        Ok(files)
    }

    fn open_local(&self, name: &str) -> Option<Result<File, StoreError>> {
        Some(self.file(name))
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        Ok(Box::new(Named { file: self.file(name)?, location: self.location(), name: name.to_owned() }))
    }
}

/// A file whose errors say which it is.
struct Named {
    file: File,
    location: String,
    name: String,
}

impl Read for Named {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => io::Error::other(Failure::from(error).at(&self.location, &self.name)),
        })
    }
}
