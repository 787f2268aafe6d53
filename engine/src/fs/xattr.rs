//! Extended attributes: POSIX ACLs, capabilities and the user's own.
//!
//! Values pass as the raw bytes that the kernel uses. Symlinks and special files have no descriptor that the calls for
//! attributes accept; they are named as `/proc/self/fd/N/name`, so `/proc` has to be mounted for those.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{
    XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, getxattr, lgetxattr, listxattr, llistxattr, lremovexattr,
    lsetxattr, removexattr, setxattr,
};
use rustix::io::Errno;

use crate::entry::{MAX_XATTR_VALUE, MAX_XATTRS, Xattrs};

/// Longest list of names in bytes (Linux `XATTR_LIST_MAX`).
const MAX_LIST: usize = 65536;

/// What attributes are read from or written to.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// An open file or directory.
    Open(BorrowedFd<'a>),
    /// A name in a directory; symlinks are not followed.
    At(BorrowedFd<'a>, &'a CStr),
    /// Whatever a descriptor stands for that was opened only as a place.
    Behind(BorrowedFd<'a>),
}

impl<'a> Place<'a> {
    fn resolve(self) -> io::Result<Resolved<'a>> {
        let path = |fd: BorrowedFd<'_>| format!("/proc/self/fd/{}", fd.as_raw_fd()).into_bytes();
        Ok(match self {
            Self::Open(fd) => Resolved::Open(fd),
            Self::At(dir, name) => {
                let mut path = path(dir);
                path.push(b'/');
                path.extend_from_slice(name.to_bytes());
                Resolved::Link(CString::new(path)?)
            }
            Self::Behind(fd) => Resolved::Target(CString::new(path(fd))?),
        })
    }
}

enum Resolved<'a> {
    Open(BorrowedFd<'a>),
    /// A path whose last component is not followed.
    Link(CString),
    /// A path that is followed, once: behind `/proc` there is a file and not another path.
    Target(CString),
}

impl Resolved<'_> {
    fn list(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Self::Open(fd) => flistxattr(fd, buffer),
            Self::Link(path) => llistxattr(path, buffer),
            Self::Target(path) => listxattr(path, buffer),
        }
    }

    fn get(&self, name: &CStr, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Self::Open(fd) => fgetxattr(fd, name, buffer),
            Self::Link(path) => lgetxattr(path, name, buffer),
            Self::Target(path) => getxattr(path, name, buffer),
        }
    }
}

/// All attributes, sorted by name; none where the file system has none. Fails if they exceed [`MAX_XATTRS`].
pub(super) fn read(place: Place<'_>) -> io::Result<Xattrs> {
    let place = place.resolve()?;
    let mut small = [0; 256];
    let names = match place.list(&mut small) {
        Ok(0) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        Ok(length) => small[..length].to_vec(),
        Err(Errno::RANGE) => grow(MAX_LIST, |buffer| place.list(buffer))?,
        Err(error) => return Err(error.into()),
    };
    let mut xattrs = Vec::new();
    let mut total = 0;
    for name in names.split_inclusive(|b| *b == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok()) {
        let value = match place.get(name, &mut small) {
            Ok(length) => small[..length].to_vec(),
            Err(Errno::RANGE) => grow(MAX_XATTR_VALUE, |buffer| place.get(name, buffer))?,
            // Removed meanwhile, or of a kind that is listed but cannot be read.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => continue,
            Err(error) => return Err(error.into()),
        };
        total += name.to_bytes().len() + value.len();
        if total > MAX_XATTRS {
            return Err(io::Error::other("more than 1 MiB of extended attributes"));
        }
        xattrs.push((name.to_bytes().to_vec(), value));
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}

fn grow(most: usize, call: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; most];
    let length = call(&mut buffer)?;
    buffer.truncate(length);
    buffer.shrink_to_fit();
    Ok(buffer)
}

/// Sets one attribute.
pub(super) fn write(place: Place<'_>, name: &[u8], value: &[u8]) -> io::Result<()> {
    let (name, flags) = (CString::new(name)?, XattrFlags::empty());
    match place.resolve()? {
        Resolved::Open(fd) => fsetxattr(fd, &name, value, flags)?,
        Resolved::Link(path) => lsetxattr(&path, &name, value, flags)?,
        Resolved::Target(path) => setxattr(&path, &name, value, flags)?,
    }
    Ok(())
}

/// Removes one attribute.
pub(super) fn remove(place: Place<'_>, name: &[u8]) -> io::Result<()> {
    let name = CString::new(name)?;
    match place.resolve()? {
        Resolved::Open(fd) => fremovexattr(fd, &name)?,
        Resolved::Link(path) => lremovexattr(&path, &name)?,
        Resolved::Target(path) => removexattr(&path, &name)?,
    }
    Ok(())
}
