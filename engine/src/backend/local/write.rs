//! How one file gets to disk: temporary name, bytes, fsync, final name.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{DIRECT_FROM, LocalBackend};
use crate::buffer::ALIGN;

/// How a finished file gets its final name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Publish {
    /// Not tried yet on this file system.
    Unknown,
    /// `renameat2` with `RENAME_NOREPLACE`.
    NoReplace,
    /// `link`, then `unlink` (NFS, 9p, some FUSE).
    Link,
    /// A look, then a plain `rename`: two writers may both succeed.
    Check,
}

/// What may have the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// Nothing: else the file that has it is left alone.
    New,
    /// A file that the new one replaces.
    Replace,
}

/// A step that failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// What was tried, to follow "cannot".
    pub action: &'static str,
    /// The system's answer.
    pub error: io::Error,
}

fn failure<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| Failure { action, error: error.into() }
}

/// Whether this answer means that the file system does not know the call.
fn not_known(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM | Errno::MLINK)
}

impl LocalBackend {
    /// Writes, syncs and names a new file; leaves nothing behind when it fails.
    pub(super) fn write_file(&self, path: &Path, body: &[u8], name: Name) -> Result<(), Failure> {
        let temporary = temporary_beside(path).map_err(failure("choose a temporary name"))?;
        let mut direct = !self.no_direct.load(Ordering::Relaxed) && may_go_direct(body);
        let file = match self.disk.create(&temporary, direct) {
            Err(Errno::INVAL) if direct => {
                self.no_direct.store(true, Ordering::Relaxed);
                direct = false;
                // Linux makes the file before it finds out that it cannot open it this way.
                let _ = self.disk.remove_file(&temporary);
                self.disk.create(&temporary, direct)
            }
            other => other,
        };
        let file = file.map_err(failure("make a file"))?;
        let written = self
            .write_all(&file, &temporary, body, direct)
            .map_err(failure("write"))
            .and_then(|()| self.disk.sync_file(&file, &temporary).map_err(failure("sync the file")))
            .and_then(|()| self.give_name(&temporary, path, name).map_err(failure("name the file")));
        if written.is_err() {
            // Best effort: a leftover is never taken for an object.
            let _ = self.disk.remove_file(&temporary);
        }
        written
    }

    fn write_all(&self, file: &File, path: &Path, body: &[u8], mut direct: bool) -> Result<(), Errno> {
        let mut rest = body;
        while !rest.is_empty() {
            match self.disk.write(file, path, rest) {
                Ok(0) => return Err(Errno::IO),
                Ok(written) => rest = &rest[written..],
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) if direct => {
                    // Not the alignment this file system wants, or an odd remainder of a short write.
                    if rest.len() == body.len() {
                        self.no_direct.store(true, Ordering::Relaxed);
                    }
                    let flags = rustix::fs::fcntl_getfl(file)?;
                    rustix::fs::fcntl_setfl(file, flags - OFlags::DIRECT)?;
                    direct = false;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn give_name(&self, from: &Path, to: &Path, name: Name) -> Result<(), Errno> {
        match name {
            Name::New => self.publish(from, to),
            Name::Replace => self.disk.rename(from, to),
        }
    }

    /// Gives `from` the name `to` unless that is taken (`EEXIST`), by the best way this file system knows.
    fn publish(&self, from: &Path, to: &Path) -> Result<(), Errno> {
        let known = self.publish.load(Ordering::Relaxed);
        let at_least = |way: Publish| known <= way as u8;
        if at_least(Publish::NoReplace) {
            match self.disk.rename_new(from, to) {
                Err(error) if not_known(error) => {}
                done => return self.published(Publish::NoReplace, done),
            }
        }
        if at_least(Publish::Link) {
            match self.disk.link(from, to) {
                Err(error) if not_known(error) => {}
                // Where the old name stays, it is a leftover like any other.
                Ok(()) => {
                    let _ = self.disk.remove_file(from);
                    return self.published(Publish::Link, Ok(()));
                }
                failed => return self.published(Publish::Link, failed),
            }
        }
        match rustix::fs::lstat(to) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => self.published(Publish::Check, self.disk.rename(from, to)),
            Err(error) => Err(error),
        }
    }

    fn published(&self, way: Publish, done: Result<(), Errno>) -> Result<(), Errno> {
        if matches!(done, Ok(()) | Err(Errno::EXIST)) {
            self.publish.fetch_max(way as u8, Ordering::Relaxed);
        }
        done
    }

    /// Whether a name is never given twice here; tried out with two empty files if no object was written yet.
    pub(super) fn probe_publish(&self) -> bool {
        if self.publish.load(Ordering::Relaxed) == Publish::Unknown as u8 {
            let probe = || -> io::Result<()> {
                let from = temporary_beside(&self.root.join("probe"))?;
                let to = temporary_beside(&from)?;
                self.disk.create(&from, false)?;
                let done = self.publish(&from, &to);
                let _ = self.disk.remove_file(if done.is_ok() { &to } else { &from });
                Ok(done?)
            };
            if probe().is_err() {
                return false;
            }
        }
        self.publish.load(Ordering::Relaxed) != Publish::Check as u8
    }
}

fn may_go_direct(body: &[u8]) -> bool {
    body.len() >= DIRECT_FROM && body.len().is_multiple_of(ALIGN) && body.as_ptr().addr().is_multiple_of(ALIGN)
}

/// A random name in the directory of `path` that no listing takes for an object.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let random = getrandom::u64().map_err(io::Error::other)?;
    Ok(path.with_file_name(format!(".{random:016x}.tmp")))
}
