//! A regular file being restored.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, ftruncate, openat, renameat};
use rustix::io::{Errno, pwrite};

use super::error::{Context, DestError, Warnings, conflict};
use super::parents::Parent;
use super::{Destination, apply, remove, temporary_name};
use crate::entry::{Metadata, Xattrs};
use crate::fs::meta::Stat;
use crate::path::EntryPath;

const CREATE: OFlags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const AGAIN: OFlags = OFlags::WRONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// A file that was begun, closed or not: what [`Destination::open_again`] needs to go on with it.
#[derive(Clone, Debug)]
pub struct FileHandle {
    path: EntryPath,
    temporary: Option<CString>,
    device: u64,
    inode: u64,
}

/// A file that was begun, open for writing. Nothing happens when it is dropped: the file stays as it is, and can be
/// opened again.
pub struct DestFile {
    path: EntryPath,
    fd: OwnedFd,
    parent: Arc<Parent>,
    name: CString,
    /// Its name until it is finished, if another file has its own.
    temporary: Option<CString>,
}

impl Destination {
    /// Begins a new regular file, empty. `meta` is what it is going to have; nobody can read it who could not then.
    ///
    /// Where something is to be replaced, the file has a name like `.restore-*.tmp` until it is finished, and what it
    /// replaces stays until then.
    pub fn create_file(&self, path: &EntryPath, meta: &Metadata) -> Result<DestFile, DestError> {
        let action = "cannot create";
        let (parent, name) = self.parent(path)?;
        let mode = self.first_mode(&parent, meta);
        let (fd, temporary) = match openat(&parent.fd, &name, CREATE, mode) {
            Ok(fd) => (fd, None),
            // A symlink in the way exists, too: nothing is followed here.
            Err(Errno::EXIST) => {
                self.check_replaceable(path, &parent, &name)?;
                let temporary = temporary_name();
                (openat(&parent.fd, &temporary, CREATE, mode).at(path, action)?, Some(temporary))
            }
            Err(error) => return Err(error).at(path, action),
        };
        Ok(DestFile { path: path.clone(), fd, parent, name, temporary })
    }

    /// Opens a file again that was begun here. Fails if something else has taken its place.
    pub fn open_again(&self, handle: &FileHandle) -> Result<DestFile, DestError> {
        let path = &handle.path;
        let (parent, name) = self.parent(path)?;
        let fd =
            openat(&parent.fd, handle.temporary.as_ref().unwrap_or(&name), AGAIN, Mode::empty()).at(path, "cannot open again")?;
        let stat = Stat::of(&fd).at(path, "cannot examine")?;
        if (stat.device(), stat.inode()) != (handle.device, handle.inode) {
            return Err(conflict(path, "another file"));
        }
        Ok(DestFile { path: path.clone(), fd, parent, name, temporary: handle.temporary.clone() })
    }

    /// Fails unless what is at `name` may be replaced.
    pub(super) fn check_replaceable(&self, path: &EntryPath, parent: &Parent, name: &CString) -> Result<(), DestError> {
        let what = match Stat::at(&parent.fd, name) {
            Ok(stat) => stat.file_type(),
            // Gone again.
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error).at(path, "cannot examine"),
        };
        match what {
            FileType::Directory => Err(conflict(path, "a directory")),
            _ if self.options.replace => Ok(()),
            FileType::Symlink => Err(conflict(path, "a symlink")),
            _ => Err(conflict(path, "an existing file")),
        }
    }

    /// The final mode, which saves a call, where that lets nobody in too early.
    fn first_mode(&self, parent: &Parent, meta: &Metadata) -> Mode {
        let own = (meta.owner.uid, meta.owner.gid) == (self.uid, self.gid);
        let shared = if own && !parent.gives_acl { meta.mode & 0o777 } else { 0 };
        Mode::from_raw_mode(shared | 0o600)
    }

    /// The file is complete: sets its length, metadata and attributes, and gives it its name. What could not be set is
    /// in the warnings. To be called once per file, after all writes.
    pub fn finish_file(&self, file: DestFile, size: u64, meta: &Metadata, xattrs: &Xattrs) -> Result<Warnings, DestError> {
        let DestFile { path, fd, parent, name, temporary } = file;
        let stat = Stat::of(&fd).at(&path, "cannot examine")?;
        if stat.size() != size {
            ftruncate(&fd, size).at(&path, "cannot set length")?;
        }
        let mut setting = self.setting(apply::Handle::Open(&fd), &stat);
        setting.remove_acls = parent.gives_acl;
        let warnings = setting.apply(meta, xattrs);
        if let Some(temporary) = temporary {
            let renamed = renameat(&parent.fd, &temporary, &parent.fd, &name);
            if renamed.is_err() {
                remove(&parent.fd, &temporary);
            }
            renamed.at(&path, "cannot replace")?;
        }
        Ok(warnings)
    }
}

impl DestFile {
    /// Writes all of `data` at `offset`. What no write touches reads as zeros and takes no space.
    pub fn write_at(&self, mut offset: u64, mut data: &[u8]) -> Result<(), DestError> {
        while !data.is_empty() {
            match pwrite(&self.fd, data, offset) {
                Ok(0) => return Err(Errno::IO).at(&self.path, "cannot write"),
                Ok(count) => {
                    data = &data[count..];
                    offset += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).at(&self.path, "cannot write"),
            }
        }
        Ok(())
    }

    /// Makes what was written last through a crash.
    pub fn sync(&self) -> Result<(), DestError> {
        rustix::fs::fsync(&self.fd).at(&self.path, "cannot sync")
    }

    /// What it takes to open the file again, on any thread.
    pub fn handle(&self) -> Result<FileHandle, DestError> {
        let stat = Stat::of(&self.fd).at(&self.path, "cannot examine")?;
        Ok(FileHandle { path: self.path.clone(), temporary: self.temporary.clone(), device: stat.device(), inode: stat.inode() })
    }

    /// Removes the unfinished file; what it was to replace stays.
    pub fn discard(self) {
        remove(&self.parent.fd, self.temporary.as_ref().unwrap_or(&self.name));
    }
}
