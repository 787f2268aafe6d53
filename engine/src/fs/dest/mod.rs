//! The restore destination: creates entries below a target directory and nowhere else.
//!
//! Every operation opens the parent directory beneath the target without following symlinks, and names one component
//! in it. An entry that exists is never written to: it is kept, or replaced as a whole. Safe to use from many threads,
//! also where others write to the target at the same time; what they put there may be replaced or get in the way, but
//! does not lead outside.
//!
//! Knows no plan: the caller creates directories before their contents and sets their metadata after, and decides
//! what to do with files that exist.

mod apply;
mod error;
mod file;
mod nodes;
mod parents;
#[cfg(test)]
mod tests;

use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstatvfs, mkdirat, openat, readlinkat, unlinkat};
use rustix::io::Errno;

pub use self::error::{DestError, Warnings};
pub use self::file::{DestFile, FileHandle};

use self::error::{Context, conflict};
use self::parents::{Parent, Parents};
use super::meta::Stat;
use crate::entry::{Kind, Metadata, Xattrs};
use crate::path::EntryPath;

/// Mode of directories until their metadata is set.
const UNFINISHED_DIR: Mode = Mode::RWXU;

/// How to treat the target.
#[derive(Clone, Copy, Debug, Default)]
pub struct DestOptions {
    /// Create the target directory, and those above it, if it does not exist.
    pub create: bool,
    /// Replace what is in the way of an entry, unless that is a directory. Otherwise it is a [`DestError::Conflict`].
    pub replace: bool,
    /// Restore owners, setuid and setgid bits of files, and attributes that give powers (`security.*`, `trusted.*`), as
    /// far as the system lets this process. Without, entries belong to the user, and the rest is left out with a
    /// warning.
    pub privileged: bool,
}

/// What is at a path already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// What it is. Sockets count as [`Kind::Fifo`].
    pub kind: Kind,
    /// Its metadata; the owner without names.
    pub meta: Metadata,
    /// Length of a regular file in bytes, 0 for all else.
    pub size: u64,
}

/// A directory to restore to.
pub struct Destination {
    options: DestOptions,
    target: PathBuf,
    parents: Parents,
    uid: u32,
    gid: u32,
}

impl Destination {
    /// Opens the target. Symlinks in the path of the target itself are followed: the user named it.
    pub fn open(target: &Path, options: DestOptions) -> Result<Self, DestError> {
        let fail = |action| move |source| DestError::Io { path: target.display().to_string(), action, source };
        if options.create {
            std::fs::create_dir_all(target).map_err(fail("cannot create"))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, target, flags, Mode::empty()).map_err(|e| fail("cannot open")(e.into()))?;
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Ok(Self { options, target: target.to_owned(), parents: Parents::new(root), uid, gid })
    }

    /// The target as it was named.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Bytes that the file system of the target has room for.
    pub fn available(&self) -> Result<u64, DestError> {
        let root = EntryPath::root();
        let stat = fstatvfs(self.parents.root()).at(&root, "cannot examine the file system")?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// What is at `path`, a symlink not followed. `None` also if its parent is missing or no directory.
    pub fn existing(&self, path: &EntryPath) -> Result<Option<Existing>, DestError> {
        let action = "cannot examine";
        let (parent, name) = if path.is_root() {
            (self.parents.get(path).at(path, action)?, c".".into())
        } else {
            match self.parent(path) {
                Ok(found) => found,
                Err(error) if error.is_missing() || matches!(error, DestError::Conflict { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        };
        let stat = match Stat::at(&parent.fd, &name) {
            Err(Errno::NOENT) => return Ok(None),
            result => result.at(path, action)?,
        };
        let (major, minor) = stat.special();
        let kind = match stat.file_type() {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => {
                Kind::Symlink(readlinkat(&parent.fd, &name, Vec::new()).at(path, "cannot read symlink")?.into_bytes())
            }
            FileType::CharacterDevice => Kind::CharDevice(major, minor),
            FileType::BlockDevice => Kind::BlockDevice(major, minor),
            _ => Kind::Fifo,
        };
        let size = if kind == Kind::File { stat.size() } else { 0 };
        Ok(Some(Existing { kind, meta: stat.anonymous_metadata(), size }))
    }

    /// Opens an existing regular file for reading.
    pub fn open_existing(&self, path: &EntryPath) -> Result<File, DestError> {
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let before = Stat::at(&parent.fd, &name).at(path, "cannot examine")?;
        if before.file_type() != FileType::RegularFile {
            return Err(conflict(path, "no regular file"));
        }
        let fd = openat(&parent.fd, &name, flags, Mode::empty()).at(path, "cannot open")?;
        let stat = Stat::of(&fd).at(path, "cannot examine")?;
        if stat.file_type() != FileType::RegularFile {
            return Err(conflict(path, "no regular file"));
        }
        Ok(File::from(fd))
    }

    /// Makes a directory that only its user can enter, until [`Destination::set_dir_metadata`]; missing ones above it
    /// too. A directory that exists stays as it is, except that its owner may write to it from now on.
    pub fn make_dir(&self, path: &EntryPath) -> Result<(), DestError> {
        if path.is_root() {
            return Ok(());
        }
        let mut missing = vec![path.clone()];
        while let Some(next) = missing.last() {
            match self.make_one_dir(next) {
                Ok(()) => {
                    missing.pop();
                }
                Err(error) if error.is_missing() && missing.len() <= crate::path::MAX_DEPTH => match next.parent() {
                    Some(parent) if !parent.is_root() => missing.push(parent),
                    _ => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn make_one_dir(&self, path: &EntryPath) -> Result<(), DestError> {
        let action = "cannot create directory";
        let (parent, name) = self.parent(path)?;
        match mkdirat(&parent.fd, &name, UNFINISHED_DIR) {
            Err(Errno::EXIST) => {}
            result => return result.at(path, action),
        }
        let stat = Stat::at(&parent.fd, &name).at(path, "cannot examine")?;
        if stat.file_type() == FileType::Directory {
            let closed = stat.mode() & 0o700 != 0o700;
            if closed && self.uid != 0 && self.uid == stat.uid() {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = openat(&parent.fd, &name, flags, Mode::empty()).at(path, "cannot open directory")?;
                let mode = Mode::from_raw_mode(stat.mode() | 0o700);
                apply::Handle::Place(&fd).chmod(mode).at(path, "cannot make writable")?;
            }
            return Ok(());
        }
        if !self.options.replace {
            return Err(conflict(path, "not a directory"));
        }
        unlinkat(&parent.fd, &name, AtFlags::empty()).at(path, "cannot replace")?;
        mkdirat(&parent.fd, &name, UNFINISHED_DIR).at(path, action)
    }

    /// Sets metadata and attributes of a directory. What could not be set is in the warnings.
    pub fn set_dir_metadata(&self, path: &EntryPath, meta: &Metadata, xattrs: &Xattrs) -> Result<Warnings, DestError> {
        let fd = self.parents.open_fresh(path).at(path, "cannot open directory")?;
        let stat = Stat::of(&fd).at(path, "cannot examine")?;
        let mut setting = self.setting(apply::Handle::Open(&fd), &stat);
        setting.remove_acls = true;
        Ok(setting.apply(meta, xattrs))
    }

    fn setting<'a>(&self, handle: apply::Handle<'a>, now: &'a Stat) -> apply::Setting<'a> {
        apply::Setting { handle, now, root: self.uid == 0, privileged: self.options.privileged, remove_acls: false }
    }

    /// The parent of `path`, and the name in it.
    fn parent(&self, path: &EntryPath) -> Result<(Arc<Parent>, CString), DestError> {
        let Some(above) = path.parent() else { return Err(conflict(path, "the target itself")) };
        let parent = self.parents.get(&above).at(path, "cannot open parent directory")?;
        // An entry path holds no NUL.
        let name = CString::new(path.name()).unwrap_or_default();
        Ok((parent, name))
    }
}

/// A name that nobody else uses.
fn temporary_name() -> CString {
    let mut random = [0; 8];
    // Without random numbers names may be taken, which creating them finds out.
    let _ = getrandom::fill(&mut random);
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    CString::new(format!(".restore-{hex}.tmp")).unwrap_or_default()
}

fn remove(parent: &OwnedFd, name: &CString) {
    // Only cleans up; the error that led here is what counts.
    let _ = unlinkat(parent, name, AtFlags::empty());
}
