//! Extended attributes: POSIX ACLs, capabilities and the user's own.
//!
//! Values pass as the raw bytes that the kernel uses. Symlinks and special files have no descriptor that the calls for
//! attributes accept; they are named as `/proc/self/fd/N/name`, so `/proc` has to be mounted for those.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr, lgetxattr, llistxattr, lsetxattr};
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
}

impl Place<'_> {
    fn resolve(&self) -> io::Result<Resolved<'_>> {
        match self {
            Self::Open(fd) => Ok(Resolved::Open(*fd)),
            Self::At(dir, name) => {
                let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
                path.extend_from_slice(name.to_bytes());
                Ok(Resolved::Path(CString::new(path)?))
            }
        }
    }
}

enum Resolved<'a> {
    Open(BorrowedFd<'a>),
    Path(CString),
}

impl Resolved<'_> {
    fn list(&self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Self::Open(fd) => flistxattr(fd, buffer),
            Self::Path(path) => llistxattr(path, buffer),
        }
    }

    fn get(&self, name: &CStr, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Self::Open(fd) => fgetxattr(fd, name, buffer),
            Self::Path(path) => lgetxattr(path, name, buffer),
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
    let name = CString::new(name)?;
    match place.resolve()? {
        Resolved::Open(fd) => fsetxattr(fd, &name, value, XattrFlags::empty())?,
        Resolved::Path(path) => lsetxattr(&path, &name, value, XattrFlags::empty())?,
    }
    Ok(())
}
