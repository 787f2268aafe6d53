//! Sets metadata and attributes on something that is open.
//!
//! The order matters: a change of owner clears setuid bits and capabilities, an ACL changes the mode, a mode without
//! write permission forbids attributes, and all but the last step may change times.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, chmod, chownat, fchmod, fchown, futimens, utimensat,
};
use rustix::io::Errno;

use super::error::Warnings;
use crate::entry::{Metadata, Timestamp, Xattrs};
use crate::fs::meta::Stat;
use crate::fs::xattr::{self, Place};
use crate::path::display_bytes;

const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// What to set them on.
#[derive(Clone, Copy)]
pub enum Handle<'a> {
    /// An open file or directory.
    Open(&'a OwnedFd),
    /// Anything, opened only as a place: needs `/proc` for most.
    Place(&'a OwnedFd),
}

impl Handle<'_> {
    fn proc_path(fd: &OwnedFd) -> String {
        format!("/proc/self/fd/{}", fd.as_raw_fd())
    }

    fn chown(&self, uid: Option<Uid>, gid: Option<Gid>) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => fchown(fd, uid, gid),
            Self::Place(fd) => chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    /// Sets all mode bits.
    pub fn chmod(&self, mode: Mode) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => fchmod(fd, mode),
            Self::Place(fd) => chmod(Self::proc_path(fd), mode),
        }
    }

    fn set_times(&self, times: &Timestamps) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => futimens(fd, times),
            Self::Place(fd) => utimensat(CWD, Self::proc_path(fd), times, AtFlags::empty()),
        }
    }

    fn place(&self) -> Place<'_> {
        match self {
            Self::Open(fd) => Place::Open(fd.as_fd()),
            Self::Place(fd) => Place::Behind(fd.as_fd()),
        }
    }
}

/// One entry, and how far to go.
pub struct Setting<'a> {
    pub handle: Handle<'a>,
    pub now: &'a Stat,
    /// Whether this process is root.
    pub root: bool,
    /// Whether owners and the setuid and setgid bits of files are restored.
    pub privileged: bool,
    /// Whether ACLs that are not among the attributes are removed.
    pub remove_acls: bool,
}

impl Setting<'_> {
    /// Sets all; what cannot be set becomes a warning.
    pub fn apply(&self, meta: &Metadata, xattrs: &Xattrs) -> Warnings {
        let mut warnings = Warnings::new();
        let owned = self.set_owner(meta, &mut warnings);
        self.set_xattrs(xattrs, &mut warnings);
        self.set_mode(meta, owned, !xattrs.is_empty(), &mut warnings);
        self.set_mtime(meta.mtime, &mut warnings);
        warnings
    }

    /// Whether user and group are now as wanted.
    fn set_owner(&self, meta: &Metadata, warnings: &mut Warnings) -> (bool, bool) {
        let (uid, gid) = (meta.owner.uid, meta.owner.gid);
        let (mut user, mut group) = (self.now.uid() == uid, self.now.gid() == gid);
        if (user && group) || !self.privileged {
            return (user, group);
        }
        // -1 means "no change" to the kernel and is nobody's number.
        if uid == u32::MAX || gid == u32::MAX {
            warnings.push(format!("cannot set owner: no such number: {uid}:{gid}"));
            return (user, group);
        }
        // Others than root cannot give files away, but may have more than one group.
        let new_user = (self.root && !user).then(|| Uid::from_raw(uid));
        let new_group = (!group).then(|| Gid::from_raw(gid));
        match self.handle.chown(new_user, new_group) {
            Ok(()) => {
                user |= new_user.is_some();
                group = true;
            }
            Err(Errno::PERM) if !self.root => {}
            Err(error) => warnings.push(warning("cannot set owner", error)),
        }
        (user, group)
    }

    fn set_xattrs(&self, xattrs: &Xattrs, warnings: &mut Warnings) {
        if self.remove_acls {
            for name in ACLS.into_iter().filter(|acl| xattrs.iter().all(|(name, _)| name != acl)) {
                // Mostly there is none.
                let _ = xattr::remove(self.handle.place(), name);
            }
        }
        for (name, value) in xattrs {
            if !self.privileged && (name.starts_with(b"security.") || name.starts_with(b"trusted.")) {
                warnings.push(format!("attribute {} left out", display_bytes(name)));
                continue;
            }
            if let Err(error) = xattr::write(self.handle.place(), name, value) {
                warnings.push(format!("cannot set attribute {}: {error}", display_bytes(name)));
            }
        }
    }

    fn set_mode(&self, meta: &Metadata, owned: (bool, bool), changed: bool, warnings: &mut Warnings) {
        let kind = self.now.file_type();
        if kind == FileType::Symlink {
            return;
        }
        let mut mode = meta.mode & 0o7777;
        let mut drop = 0;
        if kind != FileType::Directory && !self.privileged {
            drop |= 0o6000;
        }
        // Powers that were meant for another user or group.
        drop |= if owned.0 { 0 } else { 0o4000 };
        drop |= if owned.1 { 0 } else { 0o2000 };
        if mode & drop != 0 {
            warnings.push(format!("setuid or setgid bit left out (mode {mode:o})"));
            mode &= !drop;
        }
        // A new owner may have cleared bits, an ACL changed them.
        let chowned = (self.now.uid(), self.now.gid()) != (meta.owner.uid, meta.owner.gid);
        if mode == self.now.mode() && !changed && !chowned && !self.remove_acls {
            return;
        }
        if let Err(error) = self.handle.chmod(Mode::from_raw_mode(mode)) {
            warnings.push(warning("cannot set mode", error));
        }
    }

    fn set_mtime(&self, mtime: Timestamp, warnings: &mut Warnings) {
        if mtime.nanos > 999_999_999 {
            warnings.push(format!("time of last change left out: {} nanoseconds", mtime.nanos));
            return;
        }
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.into() },
        };
        if let Err(error) = self.handle.set_times(&times) {
            warnings.push(warning("cannot set time of last change", error));
        }
    }
}

fn warning(what: &str, error: Errno) -> String {
    format!("{what}: {}", std::io::Error::from(error))
}
