//! What rules ask of a path.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What rules ask of the attributes of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Whether it is a regular file.
    pub is_file: bool,
    /// Whether it is a device.
    pub is_device: bool,
    /// When its contents were changed, in seconds since 1970.
    pub mtime: i64,
    /// The number of its file system; `None` if that is not known.
    pub file_system: Option<u64>,
}

/// A path that is asked about.
pub trait Candidate {
    /// Whether it is a directory.
    fn is_dir(&self) -> bool;
    /// Its attributes, a link not followed; `None` if they cannot be had.
    fn attributes(&self) -> Option<Attributes>;
    /// Whether a directory has an entry of this name.
    fn holds(&self, name: &[u8]) -> bool;
}

/// A path of this machine.
pub struct Local<'p> {
    /// Where it is.
    pub path: &'p Path,
    /// Whether it is a directory.
    pub is_dir: bool,
}

impl Candidate for Local<'_> {
    fn is_dir(&self) -> bool {
        self.is_dir
    }

    fn attributes(&self) -> Option<Attributes> {
        std::fs::symlink_metadata(self.path).ok().as_ref().map(Attributes::from)
    }

    /// A path is no name: joined, an absolute one would lead out of every directory.
    fn holds(&self, name: &[u8]) -> bool {
        if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
            return false;
        }
        let name = OsStr::from_bytes(name);
        match self.path.join(name).symlink_metadata() {
            Ok(_) => true,
            // A directory that may be listed but not entered.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                std::fs::read_dir(self.path).is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name() == name))
            }
            Err(_) => false,
        }
    }
}

impl From<&Metadata> for Attributes {
    fn from(found: &Metadata) -> Self {
        let kind = found.file_type();
        Self {
            is_file: kind.is_file(),
            is_device: kind.is_char_device() || kind.is_block_device(),
            mtime: found.mtime(),
            file_system: Some(found.dev()),
        }
    }
}
