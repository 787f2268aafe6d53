//! Arguments of `dump`.

use clap::{Args, ValueEnum};

use super::FilterArgs;
use crate::parse::{self, SnapshotPath};

/// What kind of archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DumpFormat {
    /// pax, as every tar reads it, with extended attributes
    #[value(name = "tar")]
    Tar,
    /// The same, compressed with zstd
    #[value(name = "tar.zst")]
    TarZst,
    /// Files, directories and symbolic links, with their permissions and times
    #[value(name = "zip")]
    Zip,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Without a path, entries have their full path in the archive; with one, they are named relative
to PATH. What a format cannot hold is named, and the exit code is 3.

Examples:
  deduplicity dump latest:/home/ada | tar -x -C /tmp/ada
  deduplicity dump latest --format tar.zst > all.tar.zst
  deduplicity dump 3f2a:/srv/photos --format zip > photos.zip")]
pub struct DumpArgs {
    /// Snapshot, and where in it
    #[arg(value_name = "SNAPSHOT[:PATH]", value_parser = parse::SnapshotPathParser)]
    pub snapshot: SnapshotPath,
    /// Kind of archive
    #[arg(long, value_enum, default_value = "tar")]
    pub format: DumpFormat,
    #[command(flatten)]
    pub filter: FilterArgs,
}
