//! Access to one listed file: its attributes and its content.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Advice, FileType, Mode, OFlags, SeekFrom, fadvise, openat, seek};
use rustix::io::{Errno, pread};

use super::dirs::Dir;
use super::meta::Stat;
use super::walk::Listing;
use super::xattr::{self, Place};
use crate::entry::{Hole, LazyEntry, Metadata, OpenFile, Owner, Xattrs};

/// Files above this size are announced to the kernel as read in order. Smaller ones it is asked for at once: with several
/// on their way, neighbours on the disk come by one request, which is most of what a cold file of a few kilobytes costs.
const ANNOUNCED: u64 = 1 << 20;

/// An entry of a listing, by index.
pub(super) struct LocalEntry {
    pub listing: Arc<Listing>,
    pub index: usize,
    pub device: u64,
    pub owner: Arc<Owner>,
    /// Whether this process may ask to leave the access time alone.
    pub no_atime: bool,
}

impl LocalEntry {
    fn dir(&self) -> io::Result<Arc<OwnedFd>> {
        Dir::fd(&self.listing.dir)
    }
}

impl LazyEntry for LocalEntry {
    fn xattrs(&self) -> io::Result<Xattrs> {
        let dir = self.dir()?;
        xattr::read(Place::At(dir.as_fd(), self.listing.name(self.index)))
    }

    fn open(&self) -> io::Result<Box<dyn OpenFile>> {
        let dir = self.dir()?;
        let name = self.listing.name(self.index);
        // Non-blocking: should a FIFO have taken the name meanwhile, the open must not wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let with_atime = || openat(&dir, name, flags, Mode::empty());
        let fd = if self.no_atime {
            match openat(&dir, name, flags | OFlags::NOATIME, Mode::empty()) {
                Err(Errno::PERM) => with_atime()?,
                result => result?,
            }
        } else {
            with_atime()?
        };
        let stat = Stat::of(&fd)?;
        // Another file that has taken the name since is as good.
        if stat.file_type() != FileType::RegularFile || stat.device() != self.device {
            return Err(io::Error::other("no longer the regular file that it was when listed"));
        }
        if stat.size() > 0 {
            let advice = if stat.size() > ANNOUNCED { Advice::Sequential } else { Advice::WillNeed };
            // Only a hint.
            let _ = fadvise(&fd, 0, None::<NonZeroU64>, advice);
        }
        let owner = Arc::clone(&self.owner);
        Ok(Box::new(LocalFile {
            fd,
            owner,
            sparse: stat.is_sparse(),
            size: stat.size(),
            holes: Vec::new().into_iter(),
            next: None,
            at: 0,
        }))
    }

    fn open_at_once(&self) -> usize {
        self.listing.dir.files_at_once()
    }
}

struct LocalFile {
    fd: OwnedFd,
    /// As listed, with names.
    owner: Arc<Owner>,
    sparse: bool,
    /// When it was opened.
    size: u64,
    /// Holes not reached yet, after `next`.
    holes: std::vec::IntoIter<Hole>,
    next: Option<Hole>,
    at: u64,
}

impl OpenFile for LocalFile {
    fn xattrs(&self) -> io::Result<Xattrs> {
        xattr::read(Place::Open(self.fd.as_fd()))
    }

    fn stat(&self) -> io::Result<(Metadata, u64)> {
        let stat = Stat::of(&self.fd)?;
        let mut meta = stat.anonymous_metadata();
        if (meta.owner.uid, meta.owner.gid) == (self.owner.uid, self.owner.gid) {
            meta.owner = Arc::clone(&self.owner);
        }
        Ok((meta, stat.size()))
    }

    fn holes(&mut self, size: u64, limit: usize) -> io::Result<Vec<Hole>> {
        let holes = if self.sparse { find_holes(&self.fd, size, limit)? } else { Vec::new() };
        self.holes = holes.clone().into_iter();
        self.next = self.holes.next();
        Ok(holes)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(hole) = self.next.filter(|hole| hole.offset == self.at) {
            self.at = hole.offset + hole.length;
            self.next = self.holes.next();
        }
        let until_hole = self.next.map_or(u64::MAX, |hole| hole.offset - self.at);
        let length = buffer.len().min(usize::try_from(until_hole).unwrap_or(usize::MAX));
        let mut filled = 0;
        while filled < length {
            match pread(&self.fd, &mut buffer[filled..length], self.at) {
                Ok(0) => break,
                Ok(count) => {
                    let wanted = length - filled;
                    filled += count;
                    self.at += count as u64;
                    // No question whether more follows: had the file grown, its times would tell.
                    // Files of the kernel have data, and no size.
                    if count < wanted && self.at >= self.size && self.size > 0 {
                        break;
                    }
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(filled)
    }
}

/// The holes within `size`: all of them, or the `limit` largest. Uses memory for `limit` holes only.
fn find_holes(fd: &OwnedFd, size: u64, limit: usize) -> io::Result<Vec<Hole>> {
    let mut largest = BinaryHeap::new();
    let mut at = 0;
    while at < size {
        let start = match seek(fd, SeekFrom::Hole(at)) {
            Ok(start) => start.max(at),
            // The file has become shorter.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        if start >= size {
            break;
        }
        let end = match seek(fd, SeekFrom::Data(start)) {
            Ok(end) => end.min(size),
            Err(Errno::NXIO) => size,
            Err(error) => return Err(error.into()),
        };
        if end > start {
            largest.push(Reverse((end - start, start)));
            if largest.len() > limit {
                largest.pop();
            }
        }
        // A writer may fill the hole between the two calls; that must not keep us here.
        at = end.max(at + 1);
    }
    let mut holes: Vec<Hole> = largest.into_iter().map(|Reverse((length, offset))| Hole { offset, length }).collect();
    holes.sort_unstable_by_key(|hole| hole.offset);
    Ok(holes)
}
