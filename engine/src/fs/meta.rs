//! What the kernel says about a file, as the values of [`crate::entry`].

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp, makedev, statx};

use crate::entry::{Metadata, Owner, Timestamp};

/// The result of one `statx`.
#[derive(Clone, Copy)]
pub(super) struct Stat(Statx);

impl Stat {
    /// Of `name` in `dir`; symlinks are not followed and automounts not triggered.
    pub fn at(dir: impl AsFd, name: &CStr) -> rustix::io::Result<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        statx(dir, name, flags, StatxFlags::BASIC_STATS).map(Self)
    }

    /// Of an open file.
    pub fn of(fd: impl AsFd) -> rustix::io::Result<Self> {
        statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map(Self)
    }

    pub fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.0.stx_mode.into())
    }

    pub fn size(&self) -> u64 {
        self.0.stx_size
    }

    /// Whether fewer blocks are allocated than the size needs.
    pub fn is_sparse(&self) -> bool {
        self.0.stx_blocks.saturating_mul(512) < self.0.stx_size
    }

    pub fn device(&self) -> u64 {
        makedev(self.0.stx_dev_major, self.0.stx_dev_minor)
    }

    pub fn inode(&self) -> u64 {
        self.0.stx_ino
    }

    /// Major and minor number of a device node.
    pub fn special(&self) -> (u32, u32) {
        (self.0.stx_rdev_major, self.0.stx_rdev_minor)
    }

    pub fn uid(&self) -> u32 {
        self.0.stx_uid
    }

    pub fn gid(&self) -> u32 {
        self.0.stx_gid
    }

    pub fn mode(&self) -> u32 {
        u32::from(self.0.stx_mode) & 0o7777
    }

    pub fn metadata(&self, owner: Arc<Owner>) -> Metadata {
        Metadata {
            mode: self.mode(),
            owner,
            mtime: timestamp(self.0.stx_mtime),
            ctime: timestamp(self.0.stx_ctime),
            device: self.device(),
            inode: self.inode(),
            links: self.0.stx_nlink.into(),
        }
    }

    /// [`Stat::metadata`] with the owner's numbers only.
    pub fn anonymous_metadata(&self) -> Metadata {
        self.metadata(Arc::new(Owner { uid: self.uid(), gid: self.gid(), user: None, group: None }))
    }
}

fn timestamp(time: StatxTimestamp) -> Timestamp {
    Timestamp { seconds: time.tv_sec, nanos: time.tv_nsec }
}
