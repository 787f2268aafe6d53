//! The local cache: manifests and signatures as duplicity keeps them, and its lock.
//!
//! FORMAT §3. Manifests lie there decrypted and without a suffix, signatures as gzip. The archive counts; what lies here only
//! saves reading it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use md5::{Digest, Md5};
use rustix::fs::{FlockOperation, fcntl_lock};

use super::failure::{Failure, Result, code};
use crate::name::{Encoding, FileKind, FileName, Prefixes, SetTimes};

/// A folder of one archive.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    prefixes: Prefixes,
}

/// Held while a command works with the cache.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "the lock goes when it is closed")] File);

impl Cache {
    /// The folder below `archive_dir` that duplicity takes for an archive: called `name`, or by the MD5 of its URL.
    #[must_use]
    pub fn new(archive_dir: &Path, name: Option<&str>, url: &str, prefixes: &Prefixes) -> Self {
        let name = match name {
            Some(name) => name.to_owned(),
            None => Md5::digest(url.as_bytes()).iter().map(|b| format!("{b:02x}")).collect(),
        };
        Self { folder: archive_dir.join(name), prefixes: prefixes.clone() }
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn failed(&self, what: &str, error: &io::Error) -> Failure {
        Failure::new(code::ARCHIVE_DIR, format!("cannot {what} in the archive directory {}: {error}", self.folder.display()))
    }

    /// Makes the folder and keeps others out.
    ///
    /// # Errors
    ///
    /// If it cannot be made, or another run is at work.
    pub fn lock(&self) -> Result<Lock> {
        let open = || -> io::Result<File> {
            fs::create_dir_all(&self.folder)?;
            OpenOptions::new().create(true).append(true).open(self.folder.join("lockfile"))
        };
        let file = open().map_err(|e| self.failed("make the lock", &e))?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock(file)),
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::AGAIN) => {
                let text = format!(
                    "Another duplicity instance is already running with this archive directory ({})",
                    self.folder.display()
                );
                Err(Failure::new(code::USER, text))
            }
            Err(error) => Err(self.failed("take the lock", &error.into())),
        }
    }

    /// The path of a file of a set. Only manifests, signatures and statistics are kept.
    #[must_use]
    pub fn path(&self, kind: FileKind, set: SetTimes, partial: bool) -> PathBuf {
        let suffix = if kind == FileKind::Manifest || partial { Encoding::Plain } else { Encoding::Gzip };
        self.folder.join(FileName { kind, set, suffix, partial }.long(&self.prefixes))
    }

    /// Opens a file of a set, if it is there.
    ///
    /// # Errors
    ///
    /// If it is there and cannot be read.
    pub fn open(&self, kind: FileKind, set: SetTimes) -> Result<Option<File>> {
        match File::open(self.path(kind, set, false)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read", &error)),
        }
    }

    /// Keeps the decoded content of a file of a set; it is there whole or not at all.
    ///
    /// # Errors
    ///
    /// If it cannot be written, or `content` fails.
    pub fn keep(&self, kind: FileKind, set: SetTimes, content: &mut dyn Read) -> Result<()> {
        let path = self.path(kind, set, false);
        let mut file =
            tempfile::NamedTempFile::with_prefix_in(".deduplicity-", &self.folder).map_err(|e| self.failed("write", &e))?;
        if kind == FileKind::Manifest {
            io::copy(content, &mut file)?;
        } else {
            let mut gzip = GzEncoder::new(&mut file, Compression::fast());
            io::copy(content, &mut gzip)?;
            gzip.finish()?;
        }
        file.flush().and_then(|()| file.persist(&path).map(drop).map_err(|e| e.error)).map_err(|e| self.failed("write", &e))
    }

    /// Forgets the files of a set, unfinished ones too.
    pub fn forget(&self, set: SetTimes) {
        for kind in [FileKind::Manifest, FileKind::Signature, FileKind::JsonStat] {
            for partial in [false, true] {
                // What is not there need not be removed; what stays is found out of date later.
                let _ = fs::remove_file(self.path(kind, set, partial));
            }
        }
    }

    /// Forgets the signatures of a set.
    pub fn forget_signature(&self, set: SetTimes) {
        let _ = fs::remove_file(self.path(FileKind::Signature, set, false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Time;

    #[test]
    fn names_are_duplicitys() {
        let cache = Cache::new(Path::new("/c"), None, "file:///tmp/dtest/arch", &Prefixes::default());
        assert_eq!(cache.folder(), Path::new("/c/0568ad07a021d97a5a2aa17af0d75a98"));
        let set = SetTimes::Full(Time::parse("20231114T221320Z").expect("a time"));
        let name = |kind, partial| cache.path(kind, set, partial).file_name().expect("a name").to_string_lossy().into_owned();
        assert_eq!(name(FileKind::Manifest, false), "duplicity-full.20231114T221320Z.manifest");
        assert_eq!(name(FileKind::Signature, false), "duplicity-full-signatures.20231114T221320Z.sigtar.gz");
        assert_eq!(name(FileKind::Manifest, true), "duplicity-full.20231114T221320Z.manifest.part");
        assert_eq!(name(FileKind::Signature, true), "duplicity-full-signatures.20231114T221320Z.sigtar.part");
    }

    #[test]
    fn what_is_kept_comes_back() {
        let dir = tempfile::tempdir().expect("dir");
        let cache = Cache::new(dir.path(), Some("n"), "x", &Prefixes::default());
        let _lock = cache.lock().expect("free");
        let set = SetTimes::Full(Time::parse("20231114T221320Z").expect("a time"));
        assert!(cache.open(FileKind::Manifest, set).expect("readable").is_none());
        cache.keep(FileKind::Manifest, set, &mut &b"text"[..]).expect("writes");
        let mut text = String::new();
        cache.open(FileKind::Manifest, set).expect("readable").expect("there").read_to_string(&mut text).expect("reads");
        assert_eq!(text, "text");
        cache.forget(set);
        assert!(cache.open(FileKind::Manifest, set).expect("readable").is_none());
    }
}
