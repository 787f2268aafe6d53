//! What this machine remembers of a repository: the latest seal it has seen, and those of its own snapshots that no seal
//! names yet. A small text file beside the index cache, one line a fact, replaced as a whole.
//!
//! Knows nothing of what follows from it: see [`super::history`].

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::SnapshotName;
use crate::error::{Error, Result};
use crate::id::{Epoch, ObjectId};

/// First line of the file.
const TITLE: &str = "deduplicity pin 1";
/// Bytes that are read at most; a line has 85, and a machine has few snapshots that no seal names.
const MAX_SIZE: u64 = 16 << 20;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pin {
    /// The latest seal.
    pub head: Option<(Epoch, ObjectId)>,
    /// Own snapshots that were reported, and that no seal was seen to name.
    pub own: BTreeSet<SnapshotName>,
}

impl Pin {
    fn to_text(&self) -> String {
        let mut text = format!("{TITLE}\n");
        let heads = self.head.iter().map(|(epoch, id)| ("head", *epoch, id));
        for (word, epoch, id) in heads.chain(self.own.iter().map(|name| ("own", name.epoch, &name.id))) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{word} {epoch} {id}");
        }
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let mut pin = (lines.next() == Some(TITLE)).then(Self::default)?;
        for line in lines {
            let mut words = line.split(' ');
            let (word, epoch) = (words.next()?, words.next()?.parse().ok()?);
            let id = ObjectId::from_hex(words.next()?).filter(|_| words.next().is_none())?;
            match word {
                "head" if pin.head.is_none() => pin.head = Some((epoch, id)),
                "own" => drop(pin.own.insert(SnapshotName { epoch, id })),
                _ => return None,
            }
        }
        Some(pin)
    }
}

/// Where a [`Pin`] is kept.
#[derive(Clone, Debug)]
pub(super) struct PinFile {
    dir: PathBuf,
}

impl PinFile {
    /// In a directory that is there.
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.dir.join("pin")
    }

    /// What is remembered; nothing if there is no file.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if it cannot be read or understood: guessing would be as good as not looking.
    pub(super) fn load(&self) -> Result<Pin> {
        let path = self.path();
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut text = String::new();
        let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(&path);
        match opened.and_then(|file| file.take(MAX_SIZE).read_to_string(&mut text)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Pin::default()),
            Err(source) => return Err(Error::Io { path, action: "cannot read what is known of the repository", source }),
            Ok(_) => {}
        }
        Pin::parse(&text).ok_or_else(|| {
            let path = path.display();
            Error::Invalid(format!("{path}: damaged; delete it to take the repository as it is now for right"))
        })
    }

    /// Changes what is remembered, so that a crash leaves the old or the new.
    ///
    /// # Errors
    ///
    /// As [`Self::load`], and if the file cannot be written.
    pub(super) fn update(&self, change: impl FnOnce(&mut Pin)) -> Result<()> {
        let failed = |action| move |source| Error::Io { path: self.path(), action, source };
        let dir = File::open(&self.dir).map_err(failed("cannot open the directory of"))?;
        // Some file systems have no locks. Two programs that end in the same moment may then forget one snapshot of two.
        let _ = flock(&dir, FlockOperation::LockExclusive);
        let old = self.load()?;
        let mut new = old.clone();
        change(&mut new);
        if new == old {
            return Ok(());
        }
        self.replace(&dir, &new.to_text()).map_err(failed("cannot write what is known of the repository"))
    }

    fn replace(&self, dir: &File, text: &str) -> io::Result<()> {
        let temporary = self.dir.join("pin.tmp");
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, self.path())?;
        dir.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_read_back_and_nothing_else_does() {
        let own = [3, 1].map(|n| SnapshotName { epoch: n, id: ObjectId([7; 32]) });
        for pin in [Pin::default(), Pin { head: Some((9, ObjectId([1; 32]))), own: own.into() }] {
            let text = pin.to_text();
            assert_eq!(Pin::parse(&text), Some(pin));
            for cut in 0..text.len() {
                let whole_lines = text[..cut].ends_with('\n');
                assert_eq!(Pin::parse(&text[..cut]).is_some(), whole_lines, "{cut}");
            }
        }
        for bad in ["", "deduplicity pin 2\n", "deduplicity pin 1\nhead 1 x\n", "deduplicity pin 1\nhead x 00\n"] {
            assert_eq!(Pin::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_damaged_file_is_no_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = PinFile::new(dir.path());
        assert_eq!(file.load().unwrap(), Pin::default());
        file.update(|pin| pin.head = Some((1, ObjectId([1; 32])))).unwrap();
        assert_eq!(file.load().unwrap().head, Some((1, ObjectId([1; 32]))));
        fs::write(file.path(), "").unwrap();
        assert!(file.load().unwrap_err().to_string().contains("delete it"));
        assert!(file.update(|_| {}).is_err());
    }
}
