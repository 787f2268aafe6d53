//! Arguments of the commands that look after stores and repositories.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use engine::check::{CheckLevel, Share};
use engine::codec::Level;

use super::FilterArgs;
use crate::parse;

#[derive(Args, Debug)]
#[command(after_help = "\
Without an option, every index segment, snapshot and catalog is read, and all that they refer to
must exist.

Examples:
  deduplicity check
  deduplicity check --read-data
  deduplicity check --read-data-subset 3/7      the third of seven parts, say on Wednesdays
  deduplicity check --read-data-subset next/30  another thirtieth each time: all of it in thirty runs
  deduplicity check --read-data-subset 2.5%     a random sample
  deduplicity check --stored-objects -r /srv/backup    on the machine that keeps it, without the password")]
pub struct CheckArgs {
    /// Read all packs, too, and decrypt and verify every blob
    #[arg(long, conflicts_with = "read_data_subset")]
    pub read_data: bool,
    /// Read a part of the packs: N/T, next/T or P%
    #[arg(long, value_name = "SUBSET", value_parser = parse::subset)]
    pub read_data_subset: Option<Share>,
    /// Without a password: read every object and compare it with the hash that its name is
    #[arg(long, conflicts_with_all = ["read_data", "read_data_subset"])]
    pub stored_objects: bool,
}

impl CheckArgs {
    /// How much to check.
    pub fn level(&self) -> CheckLevel {
        match (self.read_data_subset, self.read_data) {
            (Some(share), _) => CheckLevel::Subset(share),
            (None, true) => CheckLevel::ReadData,
            (None, false) => CheckLevel::Structure,
        }
    }
}

/// Try out what a store can be relied upon for.
#[derive(Args, Debug)]
#[command(after_help = "\
Needs no repository and no password: it stores a few objects of its own below probe/, reads, lists
and deletes them (about 130 requests, 50 MiB). Exit code 0: everything works; 3: backups work, but
something else does not; 1: the store cannot be used.

Examples:
  deduplicity doctor -r s3:https://s3.example.org/bucket/prefix
  deduplicity doctor -r /mnt/nas/backup --json")]
pub struct DoctorArgs {}

/// Another repository.
#[derive(Args, Debug)]
pub struct FromArgs {
    /// Repository to copy from; S3 options hold for both [env: DEDUPLICITY_FROM_REPOSITORY]
    #[arg(long, value_name = "REPO", value_hint = ValueHint::AnyPath)]
    pub from_repo: Option<OsString>,
    /// Read its password from the first line of a file [env: DEDUPLICITY_FROM_PASSWORD_FILE]
    #[arg(long, value_name = "FILE", conflicts_with = "from_password_command", value_hint = ValueHint::FilePath)]
    pub from_password_file: Option<PathBuf>,
    /// Take its password from what a shell command prints [env: DEDUPLICITY_FROM_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND")]
    pub from_password_command: Option<OsString>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Copies keep time, host, user, paths and tags. What has been copied before, by whatever way, is not
copied again; files that an earlier copy has are not read again. An interrupted copy goes on where
it stopped. Files that cannot be read are named and left out, and the copy is tagged 'partial'.

Examples:
  DEDUPLICITY_FROM_PASSWORD_FILE=~/.old-password deduplicity copy --from-repo /mnt/disk/backup
  deduplicity copy --from-repo s3://bucket/laptop --host laptop latest latest~7")]
pub struct CopyArgs {
    #[command(flatten)]
    pub from: FromArgs,
    /// Snapshots: starts of ids, 'latest' or 'latest~N' [default: all]
    #[arg(value_name = "SNAPSHOT")]
    pub snapshots: Vec<String>,
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Only tell what would be copied
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// off, fast, auto, or a zstd level from 1 to 19
    #[arg(long, value_parser = parse::compression, default_value = "auto")]
    pub compression: Level,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Where there is parity (keys, configuration and seals always have it), 'repair parity' comes first: it
computes what was damaged or lost, bit for bit. Else nothing is ever deleted or replaced: repair
stores again what can still be read, and names what cannot: 'repair index', 'repair packs', then back
up (what is lost is stored again wherever the files are still the same), then 'repair snapshots' for
what is lost for good.
Exit code 3 if something is lost.

Examples:
  deduplicity repair parity
  deduplicity repair parity --stored-objects -r /srv/backup    on the machine that keeps it, without the password
  deduplicity repair index
  deduplicity repair packs --dry-run
  deduplicity repair packs 3f2a 97c1            these two, as 'check' has named them
  deduplicity repair snapshots")]
pub struct RepairArgs {
    #[command(subcommand)]
    pub command: RepairCommand,
    /// Only tell what is wrong and what would be done
    #[arg(short = 'n', long, global = true)]
    pub dry_run: bool,
}

#[derive(Subcommand, Debug)]
pub enum RepairCommand {
    /// Put back damaged and lost objects as they were, by parity, and make damaged parity anew
    Parity {
        /// Without a password: all but config and epoch objects can be put back
        #[arg(long)]
        stored_objects: bool,
    },
    /// Find packs that no index segment names, and put them into the index
    Index,
    /// Store again what can be read of damaged packs, and see that nothing new refers to them
    Packs {
        /// Ids of packs, or starts of them [default: all packs are read]
        #[arg(value_name = "PACK")]
        packs: Vec<String>,
    },
    /// Write copies of damaged snapshots that leave out what is lost
    Snapshots,
}
