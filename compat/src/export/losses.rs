//! What an archive of duplicity cannot hold.

use std::fmt;

use engine::entry::{Entry, Kind};
use engine::path::EntryPath;

/// Paths that are named for each kind.
const EXAMPLES: usize = 10;

/// A kind of thing that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// That a file has other names: each becomes a file of its own.
    HardLink,
    /// Extended attributes, access lists and capabilities among them.
    Xattrs,
    /// That a file has holes: they become zeros.
    Hole,
    /// A time before 1970: it becomes the beginning of 1970.
    EarlyTime,
    /// Fractions of seconds.
    Fraction,
    /// A device whose number is too large: it is left out.
    Device,
    /// A directory that the snapshot has contents of, but not itself: it gets usual attributes.
    Directory,
}

impl Loss {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::HardLink, Self::Xattrs, Self::Hole, Self::EarlyTime, Self::Fraction, Self::Device, Self::Directory];

    /// A short name, for programs.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::HardLink => "hard_links",
            Self::Xattrs => "xattrs",
            Self::Hole => "holes",
            Self::EarlyTime => "times_before_1970",
            Self::Fraction => "fractions_of_seconds",
            Self::Device => "devices_left_out",
            Self::Directory => "directories_made_up",
        }
    }
}

/// What happens to the entries concerned, as words after their number.
impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HardLink => "names of hard-linked files are stored as files of their own",
            Self::Xattrs => "entries lose their extended attributes",
            Self::Hole => "sparse files are stored with zeros in place of their holes",
            Self::EarlyTime => "modification times before 1970 become 1970",
            Self::Fraction => "modification times lose their fraction of a second",
            Self::Device => "device nodes with numbers above 2097151 are left out",
            Self::Directory => "directories are missing in the snapshot and get the mode 755 and the owner 0",
        })
    }
}

/// How often something was lost, and where first.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    kinds: [(u64, Vec<String>); Loss::ALL.len()],
}

impl Losses {
    /// The kinds that occurred: how often, and the first paths.
    pub fn iter(&self) -> impl Iterator<Item = (Loss, u64, &[String])> {
        let kinds = Loss::ALL.into_iter().zip(&self.kinds);
        kinds.filter(|(_, (count, _))| *count > 0).map(|(loss, (count, paths))| (loss, *count, &paths[..]))
    }

    pub(super) fn add(&mut self, loss: Loss, path: &EntryPath) {
        let (count, paths) = &mut self.kinds[loss as usize];
        *count += 1;
        if paths.len() < EXAMPLES {
            paths.push(if path.is_root() { ".".to_owned() } else { path.display() });
        }
    }

    pub(super) fn look_at(&mut self, entry: &Entry) {
        let (meta, path) = (&entry.meta, &entry.path);
        let found = [
            (Loss::HardLink, meta.links > 1 && entry.kind != Kind::Directory),
            (Loss::Xattrs, !entry.xattrs.is_empty()),
            (Loss::Hole, !entry.holes.is_empty()),
            (Loss::EarlyTime, meta.mtime.seconds < 0),
            // Of links neither duplicity nor anyone else restores times.
            (Loss::Fraction, meta.mtime.nanos > 0 && meta.mtime.seconds >= 0 && !matches!(entry.kind, Kind::Symlink(_))),
        ];
        found.into_iter().filter(|(_, is_lost)| *is_lost).for_each(|(loss, _)| self.add(loss, path));
    }
}
