//! Manifests: which volumes a set consists of, what paths each holds, and the hash of its file.
//!
//! FORMAT §7. This module knows the text only: not where it lies, and nothing of encryption. A hash protects against
//! accidents; only OpenPGP says who wrote a manifest.

mod error;
mod quote;
mod read;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::{self, Write};

use engine::path::compare_bytes;

pub use error::{ManifestError, ManifestErrorKind};
pub use quote::{quote, unquote};
pub use read::{FileList, MAX_BYTES, MAX_KEPT, MAX_PATH};

/// A manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Name of the host that was backed up.
    pub host: Option<Vec<u8>>,
    /// The folder that was backed up, as its user gave it.
    pub source: Option<Vec<u8>>,
    /// Volume records in the order of the text. A resumed run leaves several with one number: see [`Manifest::volumes`].
    pub records: Vec<VolumeRecord>,
    /// The changed regular files, if there is such a list and it was asked for.
    pub files: Option<Vec<ChangedFile>>,
}

/// What a manifest says of one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRecord {
    /// The volume's number, from 1.
    pub number: u32,
    /// Its first member.
    pub start: Position,
    /// Its last member.
    pub end: Position,
    /// Hash of the volume's file as stored; archives of some writers have none.
    pub hash: Option<VolumeHash>,
}

/// A member of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Raw path below the source; empty for the source itself.
    pub path: Vec<u8>,
    /// Number of the piece, from 1, for a piece of a file that is not its last one.
    pub block: Option<u64>,
}

/// Hash of a volume's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeHash {
    /// SHA-1, which all versions write.
    Sha1([u8; 20]),
    /// MD5, which all versions can check.
    Md5([u8; 16]),
    /// One that no version can check.
    Other {
        /// As the manifest names it.
        algorithm: String,
        /// As it stands in the manifest.
        digest: String,
    },
}

/// A regular file that a set changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedFile {
    /// What became of it.
    pub action: FileAction,
    /// Raw path below the source; empty for the source itself.
    pub path: Vec<u8>,
}

/// What became of a regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileAction {
    /// It is stored whole.
    New,
    /// It is stored as a delta.
    Changed,
    /// It is gone.
    Deleted,
}

impl FileAction {
    const ALL: [Self; 3] = [Self::New, Self::Changed, Self::Deleted];

    fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
        }
    }
}

impl Manifest {
    /// From the whole text, with its list of files.
    ///
    /// # Errors
    ///
    /// The text is no manifest, damaged, or larger than [`MAX_KEPT`] bytes.
    pub fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        Self::read(text, FileList::Keep)
    }

    /// The volumes that count: of several records with one number the last one, and none above the last record's number (what
    /// lies above is from before an interruption).
    #[must_use]
    pub fn volumes(&self) -> BTreeMap<u32, &VolumeRecord> {
        let mut volumes: BTreeMap<u32, &VolumeRecord> = self.records.iter().map(|record| (record.number, record)).collect();
        if let Some(last) = self.records.last() {
            volumes.retain(|number, _| *number <= last.number);
        }
        volumes
    }

    /// Whether the volumes that count are numbered without a gap from 1, and the paths of each begin where those before end.
    /// Stock does not look; what fails here was not written by it.
    ///
    /// # Errors
    ///
    /// [`ManifestErrorKind::Gap`] or [`ManifestErrorKind::Overlap`].
    pub fn check(&self) -> Result<(), ManifestError> {
        let mut previous: Option<&VolumeRecord> = None;
        for (number, volume) in self.volumes() {
            let (expected, end) = previous.map_or((1, None), |p| (p.number.saturating_add(1), Some(&p.end)));
            if number != expected {
                return Err(ManifestErrorKind::Gap { missing: expected }.into());
            }
            if volume.start.is_after(&volume.end) || end.is_some_and(|end| !volume.start.follows(end)) {
                return Err(ManifestErrorKind::Overlap { number }.into());
            }
            previous = Some(volume);
        }
        Ok(())
    }

    /// Writes the text, byte for byte as stock does. Hashes other than SHA-1 make an archive that stock may refuse.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        if let Some(host) = self.host.as_ref().filter(|host| !host.is_empty()) {
            line(out, "Hostname ", host)?;
        }
        if let Some(source) = &self.source {
            line(out, "Localdir ", &quote(source))?;
        }
        for record in &self.records {
            writeln!(out, "Volume {}:", record.number)?;
            record.start.write(out, "    StartingPath   ")?;
            record.end.write(out, "    EndingPath     ")?;
            match &record.hash {
                Some(VolumeHash::Sha1(digest)) => writeln!(out, "    Hash SHA1 {}", hex(digest))?,
                Some(VolumeHash::Md5(digest)) => writeln!(out, "    Hash MD5 {}", hex(digest))?,
                Some(VolumeHash::Other { algorithm, digest }) => writeln!(out, "    Hash {algorithm} {digest}")?,
                None => {}
            }
        }
        if let Some(files) = &self.files {
            writeln!(out, "Filelist {}", files.len())?;
            for file in files {
                line(out, &format!("    {:<7}  ", file.action.word()), &path_text(&file.path))?;
            }
        }
        Ok(())
    }
}

impl Position {
    fn write(&self, out: &mut impl Write, label: &str) -> io::Result<()> {
        let mut text = path_text(&self.path);
        match self.block {
            Some(block) => text.extend_from_slice(format!(" {block}").as_bytes()),
            None => text.extend_from_slice(b"  "),
        }
        line(out, label, &text)
    }

    /// Pieces without a number are the last ones, or single.
    fn is_after(&self, other: &Self) -> bool {
        match compare_bytes(&self.path, &other.path) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => matches!((self.block, other.block), (Some(a), Some(b)) if a > b),
        }
    }

    /// Whether this can be the next after `other`. Of two positions within one path only numbers are compared.
    fn follows(&self, other: &Self) -> bool {
        match compare_bytes(&self.path, &other.path) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => !matches!((self.block, other.block), (Some(a), Some(b)) if a <= b),
        }
    }
}

fn line(out: &mut impl Write, label: &str, text: &[u8]) -> io::Result<()> {
    out.write_all(label.as_bytes())?;
    out.write_all(text)?;
    out.write_all(b"\n")
}

fn path_text(path: &[u8]) -> Vec<u8> {
    if path.is_empty() { b".".to_vec() } else { quote(path) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests;
