//! A folder of this machine.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::{Store, StoreError, StoreErrorKind, StoredFile, Target, UNFINISHED, Upload};

/// Files of this machine read at once.
const READERS: usize = 4;

/// A folder on this machine. What is written to it stays if the machine fails.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    readers: usize,
}

impl Folder {
    /// It need not exist yet if it is written to.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), readers: READERS }
    }

    /// Another number of files to be read at once.
    #[must_use]
    pub fn with_readers(self, readers: usize) -> Self {
        Self { readers, ..self }
    }

    fn error(&self, kind: StoreErrorKind, name: &str, message: String) -> StoreError {
        StoreError { kind, location: self.location(), name: name.to_owned(), message }
    }

    fn failed(&self, name: &str, what: &str, error: &io::Error) -> StoreError {
        self.error(StoreErrorKind::of_io(error.kind()), name, format!("{what}: {error}"))
    }

    fn missing(&self, name: &str) -> StoreError {
        self.error(StoreErrorKind::NotFound, name, "no such file".to_owned())
    }

    fn file(&self, name: &str) -> Result<File, StoreError> {
        let path = self.path_of(name).ok_or_else(|| self.missing(name))?;
        // Asked first: opening a named pipe would wait for ever.
        let opened = match fs::metadata(&path) {
            Ok(found) if !found.is_file() => return Err(self.missing(name)),
            Ok(_) => File::open(&path),
            Err(error) => Err(error),
        };
        opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.missing(name),
            _ => self.failed(name, "cannot open it", &error),
        })
    }

    /// `None` for what is no name of a file in the folder.
    fn path_of(&self, name: &str) -> Option<PathBuf> {
        let plain = !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']);
        plain.then(|| self.path.join(name))
    }
}

impl Store for Folder {
    fn location(&self) -> String {
        self.path.display().to_string()
    }

    fn concurrency(&self) -> usize {
        self.readers.max(1)
    }

    /// Links to files count as files.
    fn list(&self) -> Result<Vec<StoredFile>, StoreError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                self.error(StoreErrorKind::NoStore, "", "no such folder".to_owned())
            }
            _ => self.failed("", "cannot list the folder", &error),
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with(UNFINISHED) {
                continue;
            }
            match fs::metadata(entry.path()) {
                Ok(found) if found.is_file() => files.push(StoredFile { name, size: Some(found.len()) }),
                Ok(_) => {}
                // Removed since, or a link to nothing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.failed(&name, "cannot look at it", &error)),
            }
        }
        Ok(files)
    }

    fn open_local(&self, name: &str) -> Option<Result<File, StoreError>> {
        Some(self.file(name))
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        Ok(Box::new(Named { file: self.file(name)?, folder: self.clone(), name: name.to_owned() }))
    }
}

/// A file whose errors say which it is.
struct Named {
    file: File,
    folder: Folder,
    name: String,
}

impl Read for Named {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => io::Error::other(self.folder.failed(&self.name, "cannot read it", &error)),
        })
    }
}

impl Target for Folder {
    fn create(&self, name: &str) -> Result<Box<dyn Upload>, StoreError> {
        let Some(path) = self.path_of(name).filter(|_| !name.starts_with(UNFINISHED)) else {
            return Err(self.error(StoreErrorKind::Unusable, name, "no name for a file".to_owned()));
        };
        fs::create_dir_all(&self.path).map_err(|e| self.failed("", "cannot make the folder", &e))?;
        let file =
            NamedTempFile::with_prefix_in(UNFINISHED, &self.path).map_err(|e| self.failed(name, "cannot create it", &e))?;
        let file = BufWriter::with_capacity(128 << 10, file);
        Ok(Box::new(Unfinished { folder: self.clone(), name: name.to_owned(), path, file }))
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let Some(path) = self.path_of(name) else { return Ok(()) };
        match fs::remove_file(path) {
            Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(self.failed(name, "cannot remove it", &e))
            }
            _ => Ok(()),
        }
    }
}

struct Unfinished {
    folder: Folder,
    name: String,
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
}

impl Write for Unfinished {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.file.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Upload for Unfinished {
    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        let Self { folder, name, path, file } = *self;
        let keep = || -> io::Result<()> {
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|e| e.error)?;
            sync_folder(&folder.path)
        };
        keep().map_err(|e| folder.failed(&name, "cannot write it", &e))
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_appear_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("dir");
        let folder = Folder::new(dir.path().join("new/folder"));
        assert_eq!(folder.list().expect_err("nothing there").kind, StoreErrorKind::NoStore);
        assert_eq!(folder.list_or_nothing().expect("lists"), []);
        folder.remove("a").expect("was never there");
        let mut upload = folder.create("a").expect("creates");
        upload.write_all(b"content").expect("writes");
        assert_eq!(folder.list().expect("lists"), []);
        upload.finish().expect("finishes");
        assert_eq!(folder.list().expect("lists"), [StoredFile { name: "a".into(), size: Some(7) }]);
        folder.create("b").expect("creates").write_all(b"x").expect("writes");
        assert_eq!(fs::read_dir(&folder.path).expect("reads").count(), 1);
        folder.remove("a").expect("removes");
        folder.remove("a").expect("is gone");
        assert_eq!(folder.list().expect("lists"), []);
    }

    #[test]
    fn stays_in_the_folder() {
        let dir = tempfile::tempdir().expect("dir");
        fs::write(dir.path().join("outside"), "x").expect("writes");
        let folder = Folder::new(dir.path().join("folder"));
        for name in ["", ".", "..", "../outside", "a/b", ".deduplicity-x"] {
            assert_eq!(folder.create(name).map(drop).expect_err(name).kind, StoreErrorKind::Unusable);
            folder.remove(name).expect("nothing to remove");
        }
        assert!(dir.path().join("outside").exists());
    }
}
