//! Manifests that cannot be used.

use std::io;

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}{kind}", line.map(|n| format!("line {n}: ")).unwrap_or_default())]
pub struct ManifestError {
    /// The line, from 1, where there is one to name.
    pub line: Option<u64>,
    /// What is wrong.
    #[source]
    pub kind: ManifestErrorKind,
}

/// What is wrong with a manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestErrorKind {
    /// There is no volume record at all.
    #[error("no manifest, or an empty one: it names no volume")]
    NoVolumes,
    /// A volume's number cannot be one.
    #[error("'{0}' is not a volume number (1 to 4294967295)")]
    VolumeNumber(String),
    /// A volume record lacks its first or its last path, as at the end of a manifest that is cut off.
    #[error("the record of volume {number} does not name its first and last path")]
    MissingPath {
        /// The volume.
        number: u32,
    },
    /// A path with broken quoting, or none.
    #[error("'{0}' is not a well quoted path")]
    Path(String),
    /// A path longer than [`super::MAX_PATH`].
    #[error("a path is longer than {} bytes", super::MAX_PATH)]
    PathTooLong,
    /// The number of a piece is none.
    #[error("'{0}' is not the number of a piece")]
    Block(String),
    /// A hash that has not the form of its algorithm.
    #[error("'{0}' is not a hash")]
    Hash(String),
    /// More than a manifest can have, or than is kept of one.
    #[error("larger than {limit} bytes: refused")]
    TooLarge {
        /// [`super::MAX_BYTES`] or [`super::MAX_KEPT`].
        limit: u64,
    },
    /// The numbers of the volumes have a gap.
    #[error("volume {missing} is missing in it")]
    Gap {
        /// The first number that is not there.
        missing: u32,
    },
    /// The paths of a volume begin before those of the volume before end, or end before they begin.
    #[error("the paths of volume {number} overlap with others")]
    Overlap {
        /// The volume.
        number: u32,
    },
    /// The file cannot be read; of an encrypted one, or be decrypted.
    #[error("cannot read: {0}")]
    Read(#[source] io::Error),
}

impl From<ManifestErrorKind> for ManifestError {
    fn from(kind: ManifestErrorKind) -> Self {
        Self { line: None, kind }
    }
}
