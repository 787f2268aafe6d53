//! Symlinks, named pipes, devices and hard links.

use std::ffi::{CStr, CString};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, linkat, makedev, mknodat, openat, renameat, symlinkat};
use rustix::io::Errno;

use super::error::{Context, DestError, Warnings, conflict};
use super::{Destination, apply, remove, temporary_name};
use crate::entry::{Kind, Metadata, Xattrs};
use crate::fs::meta::Stat;
use crate::path::EntryPath;

impl Destination {
    /// Makes a symlink, named pipe or device, with its metadata and attributes. Devices need root. Files and directories
    /// have functions of their own; for those this fails.
    pub fn make_node(&self, path: &EntryPath, kind: &Kind, meta: &Metadata, xattrs: &Xattrs) -> Result<Warnings, DestError> {
        let mode = Mode::RUSR | Mode::WUSR;
        let expected = match kind {
            Kind::Symlink(text) => {
                let text = CString::new(text.as_slice()).map_err(|_| Errno::INVAL).at(path, "cannot create symlink")?;
                self.place(path, "cannot create symlink", |dir, name| symlinkat(&text, dir, name))?;
                FileType::Symlink
            }
            Kind::Fifo => {
                self.place(path, "cannot create named pipe", |dir, name| mknodat(dir, name, FileType::Fifo, mode, 0))?;
                FileType::Fifo
            }
            Kind::CharDevice(major, minor) => {
                self.make_device(path, FileType::CharacterDevice, *major, *minor)?;
                FileType::CharacterDevice
            }
            Kind::BlockDevice(major, minor) => {
                self.make_device(path, FileType::BlockDevice, *major, *minor)?;
                FileType::BlockDevice
            }
            Kind::File | Kind::Directory => return Err(Errno::INVAL).at(path, "cannot create as a node"),
        };
        self.set_node_metadata(path, expected, meta, xattrs)
    }

    fn make_device(&self, path: &EntryPath, kind: FileType, major: u32, minor: u32) -> Result<(), DestError> {
        let (mode, device) = (Mode::RUSR | Mode::WUSR, makedev(major, minor));
        self.place(path, "cannot create device", |dir, name| mknodat(dir, name, kind, mode, device))
    }

    /// Makes `new` another name of `existing`, which may be anything but a directory; a symlink is not followed.
    pub fn hard_link(&self, existing: &EntryPath, new: &EntryPath) -> Result<(), DestError> {
        let (from, from_name) = self.parent(existing)?;
        self.place(new, "cannot create hard link", |dir, name| linkat(&from.fd, &from_name, dir, name, AtFlags::empty()))
    }

    /// Creates under the final name, or under another that then replaces what is there.
    fn place(
        &self,
        path: &EntryPath,
        action: &'static str,
        create: impl Fn(&std::os::fd::OwnedFd, &CStr) -> rustix::io::Result<()>,
    ) -> Result<(), DestError> {
        let (parent, name) = self.parent(path)?;
        match create(&parent.fd, &name) {
            Err(Errno::EXIST) => {}
            result => return result.at(path, action),
        }
        self.check_replaceable(path, &parent, &name)?;
        let temporary = temporary_name();
        create(&parent.fd, &temporary).at(path, action)?;
        let renamed = renameat(&parent.fd, &temporary, &parent.fd, &name);
        // After success too: a rename between two names of one file leaves both.
        remove(&parent.fd, &temporary);
        renamed.at(path, "cannot replace")
    }

    /// Through a descriptor of the node itself: a name could be a link to another file by now.
    fn set_node_metadata(
        &self,
        path: &EntryPath,
        expected: FileType,
        meta: &Metadata,
        xattrs: &Xattrs,
    ) -> Result<Warnings, DestError> {
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&parent.fd, &name, flags, Mode::empty()).at(path, "cannot examine")?;
        let stat = Stat::of(&fd).at(path, "cannot examine")?;
        if stat.file_type() != expected {
            return Err(conflict(path, "something else"));
        }
        let mut setting = self.setting(apply::Handle::Place(&fd), &stat);
        setting.remove_acls = parent.gives_acl && expected != FileType::Symlink;
        Ok(setting.apply(meta, xattrs))
    }
}
