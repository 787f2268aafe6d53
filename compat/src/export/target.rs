//! Where an archive is written to: a flat folder of files that appear whole or not at all.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::store::{StoreError, StoreErrorKind, StoredFile};

/// Start of the names of files that are not complete. Neither duplicity nor this program takes them for a part of an archive.
const UNFINISHED: &str = ".deduplicity-";

/// A folder that files are put into. Object-safe, blocking, usable from any number of threads.
pub trait Target: Send + Sync + fmt::Debug {
    /// Where this is, for messages; without credentials.
    fn location(&self) -> String;

    /// All plain files of the folder itself, in any order; none if it does not exist yet.
    ///
    /// # Errors
    ///
    /// If it cannot be read; never a short list.
    fn list(&self) -> Result<Vec<StoredFile>, StoreError>;

    /// Starts a file; the folder is made if need be. Nothing is to be seen under `name` before [`Upload::finish`]; then it is in
    /// the place of any file of that name, and stays if the machine fails.
    ///
    /// # Errors
    ///
    /// If the file cannot be made.
    fn create(&self, name: &str) -> Result<Box<dyn Upload>, StoreError>;

    /// Removes a file. That there is none is no error.
    ///
    /// # Errors
    ///
    /// If it is still there afterwards.
    fn remove(&self, name: &str) -> Result<(), StoreError>;
}

/// A file being put into a target. Dropped before its end it leaves nothing behind.
pub trait Upload: Write + Send {
    /// Makes the file appear under its name.
    ///
    /// # Errors
    ///
    /// If it could not be written or kept.
    fn finish(self: Box<Self>) -> Result<(), StoreError>;
}

/// A folder on this machine.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// It need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn error(&self, name: &str, what: &str, error: &io::Error) -> StoreError {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => StoreErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => StoreErrorKind::Denied,
            _ => StoreErrorKind::Other,
        };
        StoreError { kind, location: self.location(), name: name.to_owned(), message: format!("{what}: {error}") }
    }
}

impl Target for Folder {
    fn location(&self) -> String {
        self.path.display().to_string()
    }

    fn list(&self) -> Result<Vec<StoredFile>, StoreError> {
        let failed = |e: io::Error| self.error("", "cannot list the folder", &e);
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed(e)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            // Names that are not UTF-8 are of no archive.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let metadata = fs::metadata(entry.path()).map_err(|e| self.error(&name, "cannot look at it", &e))?;
            if metadata.is_file() {
                files.push(StoredFile { name, size: Some(metadata.len()) });
            }
        }
        Ok(files)
    }

    fn create(&self, name: &str) -> Result<Box<dyn Upload>, StoreError> {
        fs::create_dir_all(&self.path).map_err(|e| self.error("", "cannot make the folder", &e))?;
        let file = NamedTempFile::with_prefix_in(UNFINISHED, &self.path).map_err(|e| self.error(name, "cannot create it", &e))?;
        Ok(Box::new(Unfinished { folder: self.clone(), name: name.to_owned(), file: BufWriter::with_capacity(128 << 10, file) }))
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        match fs::remove_file(self.path.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.error(name, "cannot remove it", &e)),
            _ => Ok(()),
        }
    }
}

struct Unfinished {
    folder: Folder,
    name: String,
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
        let Self { folder, name, file } = *self;
        let keep = || -> io::Result<()> {
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.as_file().sync_all()?;
            file.persist(folder.path.join(&name)).map_err(|e| e.error)?;
            sync_folder(&folder.path)
        };
        keep().map_err(|e| folder.error(&name, "cannot write it", &e))
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
        assert_eq!(folder.list().expect("lists"), []);
        let mut upload = folder.create("a").expect("creates");
        upload.write_all(b"content").expect("writes");
        assert!(folder.list().expect("lists").iter().all(|f| f.name.starts_with(UNFINISHED)));
        upload.finish().expect("finishes");
        assert_eq!(folder.list().expect("lists"), [StoredFile { name: "a".into(), size: Some(7) }]);
        folder.create("b").expect("creates").write_all(b"x").expect("writes");
        assert_eq!(folder.list().expect("lists").len(), 1);
        folder.remove("a").expect("removes");
        folder.remove("a").expect("is gone");
        assert_eq!(folder.list().expect("lists"), []);
    }
}
