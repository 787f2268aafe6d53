//! The calls by which a store changes its file system, and no others. Tests record them, to make of the record whatever a
//! power failure may leave; otherwise they are the plain calls.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
#[cfg(test)]
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

#[cfg(test)]
use crate::monitor::lock;

/// A call that was made and did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "only tests keep a record"))]
pub(crate) enum Change {
    /// A new directory.
    MakeDirectory(PathBuf),
    /// A new, empty file.
    Create(PathBuf),
    /// Bytes at the end of a file.
    Write(PathBuf, Vec<u8>),
    /// The content of a file is on the disk.
    SyncFile(PathBuf),
    /// A file has another name instead.
    Rename(PathBuf, PathBuf),
    /// A file has another name as well.
    Link(PathBuf, PathBuf),
    /// A name is gone.
    RemoveFile(PathBuf),
    /// An empty directory is gone.
    RemoveDirectory(PathBuf),
    /// The names in a directory are on the disk.
    SyncDirectory(PathBuf),
}

/// The file system.
#[derive(Debug, Default)]
pub(super) struct Disk {
    #[cfg(test)]
    pub(super) record: Option<Arc<Mutex<Vec<Change>>>>,
}

impl Disk {
    /// Makes a call, one at a time where a record is kept: its order is the order in which things happened.
    #[cfg(test)]
    fn run<T, E>(&self, call: impl FnOnce() -> Result<T, E>, change: impl FnOnce(&T) -> Change) -> Result<T, E> {
        let Some(record) = &self.record else { return call() };
        let mut record = lock(record);
        let done = call()?;
        record.push(change(&done));
        Ok(done)
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, reason = "the record is in tests only")]
    fn run<T, E>(&self, call: impl FnOnce() -> Result<T, E>, _: impl FnOnce(&T) -> Change) -> Result<T, E> {
        call()
    }

    /// Makes a directory that only its owner may enter.
    pub(super) fn make_directory(&self, path: &Path) -> io::Result<()> {
        self.run(|| DirBuilder::new().mode(0o700).create(path), |()| Change::MakeDirectory(path.to_owned()))
    }

    /// Makes a file, past the page cache if `direct`.
    pub(super) fn create(&self, path: &Path, direct: bool) -> Result<File, Errno> {
        let mut flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        flags.set(OFlags::DIRECT, direct);
        let open = || rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map(File::from);
        self.run(open, |_| Change::Create(path.to_owned()))
    }

    /// Writes to the end of a file that was made here; returns how many of the bytes.
    pub(super) fn write(&self, file: &File, path: &Path, bytes: &[u8]) -> Result<usize, Errno> {
        let change = |written: &usize| Change::Write(path.to_owned(), bytes.get(..*written).unwrap_or(bytes).to_vec());
        self.run(|| rustix::io::write(file, bytes), change)
    }

    /// Waits until the content of a file is on the disk.
    pub(super) fn sync_file(&self, file: &File, path: &Path) -> io::Result<()> {
        self.run(|| file.sync_all(), |()| Change::SyncFile(path.to_owned()))
    }

    /// Renames, unless the new name is taken (`EEXIST`).
    pub(super) fn rename_new(&self, from: &Path, to: &Path) -> Result<(), Errno> {
        let rename = || rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE);
        self.run(rename, |()| Change::Rename(from.to_owned(), to.to_owned()))
    }

    /// Renames.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), Errno> {
        self.run(|| rustix::fs::rename(from, to), |()| Change::Rename(from.to_owned(), to.to_owned()))
    }

    /// Gives a file another name as well, unless that is taken (`EEXIST`).
    pub(super) fn link(&self, from: &Path, to: &Path) -> Result<(), Errno> {
        let link = || rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty());
        self.run(link, |()| Change::Link(from.to_owned(), to.to_owned()))
    }

    /// Takes a name away.
    pub(super) fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.run(|| fs::remove_file(path), |()| Change::RemoveFile(path.to_owned()))
    }

    /// Takes an empty directory away.
    pub(super) fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.run(|| fs::remove_dir(path), |()| Change::RemoveDirectory(path.to_owned()))
    }

    /// Makes the names in a directory durable, as far as its file system can: some cannot sync a directory at all.
    pub(super) fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let sync = || match File::open(path).and_then(|directory| directory.sync_all()) {
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
            outcome => outcome,
        };
        self.run(sync, |()| Change::SyncDirectory(path.to_owned()))
    }
}
