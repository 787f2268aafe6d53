//! The arguments, as clap takes them apart. Values are checked here where a parser suffices; what they mean together is
//! decided by the commands.

mod dump;
mod duplicity;
mod export;
mod maintain;
mod tools;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use engine::codec::Level;
use engine::entry::Timestamp;
use engine::repo::HeadName;

pub use self::dump::{DumpArgs, DumpFormat};
pub use self::duplicity::{ArchiveArgs, DuplicityArgs, ImportArgs, ImportDuplicityArgs, ImportFrom, PrefixArgs};
pub use self::export::{ExportArgs, ExportDuplicityArgs, ExportTo};
pub use self::maintain::{ForgetArgs, PruneArgs, UndeleteArgs, Unused};
pub use self::tools::{CheckArgs, CopyArgs, DoctorArgs, FromArgs, RepairArgs, RepairCommand};
use crate::parse::{self, SnapshotPath};

const TOP_HELP: &str = "\
Examples:
  export DEDUPLICITY_REPOSITORY=/mnt/disk/backup DEDUPLICITY_PASSWORD_FILE=~/.backup-password
  deduplicity init
  deduplicity backup ~ --exclude .cache
  deduplicity restore latest --target /tmp/restored

The password comes from --password-file or --password-command, from DEDUPLICITY_PASSWORD or
DEDUPLICITY_PASSWORD_FILE or DEDUPLICITY_PASSWORD_COMMAND, or else from a prompt.

Exit codes: 0 done, 1 failed, 3 done but for single files, 10 no repository,
12 wrong password, 130 interrupted.";

/// Deduplicating, encrypting backups to a disk or any S3-compatible store.
#[derive(Parser, Debug)]
#[command(name = "deduplicity", version, max_term_width = 110, after_help = TOP_HELP)]
#[command(disable_help_subcommand = true, infer_subcommands = false)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Repository: PATH, s3://BUCKET/PREFIX or s3:https://HOST/BUCKET/PREFIX [env: DEDUPLICITY_REPOSITORY, _FILE]
    #[arg(short, long, global = true, value_name = "REPO", value_hint = ValueHint::AnyPath)]
    pub repo: Option<OsString>,
    /// Read the password from the first line of a file [env: DEDUPLICITY_PASSWORD_FILE]
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "password_command", value_hint = ValueHint::FilePath)]
    pub password_file: Option<PathBuf>,
    /// Take the password from what a shell command prints [env: DEDUPLICITY_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND")]
    pub password_command: Option<OsString>,
    /// Print JSON lines; docs/json.md describes them
    #[arg(long, global = true)]
    pub json: bool,
    /// Print results and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print more: notes, and with --json the progress
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Where index caches are kept [default: $XDG_CACHE_HOME/deduplicity or ~/.cache/deduplicity]
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "no_cache", value_hint = ValueHint::DirPath)]
    pub cache_dir: Option<PathBuf>,
    /// Keep the index in memory and leave no cache on disk
    #[arg(long, global = true)]
    pub no_cache: bool,
    /// Fail unless the repository has this seal, as an earlier 'backup' has printed it
    #[arg(long, global = true, value_name = "HEAD", hide_short_help = true)]
    pub expect_head: Option<HeadName>,
    /// Take the repository as it is, though it is older than this machine knows or lacks snapshots made here
    #[arg(long, global = true, hide_short_help = true)]
    pub accept_rollback: bool,
    #[command(flatten)]
    pub s3: S3Args,
}

/// How to talk to an S3 server. What is not given comes from the AWS environment variables and configuration files.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "S3 options")]
pub struct S3Args {
    /// URL of the server, for others than AWS
    #[arg(long, global = true, value_name = "URL", hide_short_help = true)]
    pub s3_endpoint: Option<String>,
    /// Region
    #[arg(long, global = true, value_name = "REGION", hide_short_help = true)]
    pub s3_region: Option<String>,
    /// Profile in the AWS configuration files
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub s3_profile: Option<String>,
    /// Put the bucket into the path (default with an endpoint of one's own)
    #[arg(long, global = true, conflicts_with = "s3_virtual_host", hide_short_help = true)]
    pub s3_path_style: bool,
    /// Put the bucket into the host name (default with AWS)
    #[arg(long, global = true, hide_short_help = true)]
    pub s3_virtual_host: bool,
    /// Storage class of new objects, such as STANDARD_IA
    #[arg(long, global = true, value_name = "CLASS", hide_short_help = true)]
    pub s3_storage_class: Option<String>,
    /// Requests at the same time
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512), hide_short_help = true)]
    pub s3_connections: Option<u16>,
    /// Seconds without an answer after which a request is tried again
    #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600), hide_short_help = true)]
    pub s3_timeout: Option<u32>,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a new repository
    Init(InitArgs),
    /// Back up files and directories
    Backup(Box<BackupArgs>),
    /// List snapshots
    Snapshots(FilterArgs),
    /// List what a snapshot holds
    Ls(LsArgs),
    /// Print a file of a snapshot
    Cat(CatArgs),
    /// Write a snapshot, or a part of it, to standard output as a tar or zip archive
    Dump(DumpArgs),
    /// Restore a snapshot or a part of it
    Restore(RestoreArgs),
    /// Forget snapshots: those given, or all that no rule keeps
    Forget(Box<ForgetArgs>),
    /// Take back what was forgotten and is not pruned yet
    Undelete(UndeleteArgs),
    /// Delete what no snapshot needs
    Prune(PruneArgs),
    /// Check that the repository is whole
    Check(CheckArgs),
    /// Save what can be saved of a damaged repository
    Repair(RepairArgs),
    /// Copy snapshots from another repository
    Copy(Box<CopyArgs>),
    /// Try out what a store can be relied upon for
    Doctor(DoctorArgs),
    /// Import archives of other programs
    Import(ImportArgs),
    /// Export snapshots as archives of other programs
    Export(ExportArgs),
    /// Work on archives of duplicity with duplicity's own command line
    Duplicity(DuplicityArgs),
    /// Tell how much the repository holds and what deduplication and compression save
    #[command(after_help = "Example:\n  deduplicity stats --json")]
    Stats,
    /// List, add, remove and change passwords
    Key(KeyArgs),
    /// Print the version
    #[command(after_help = "Example:\n  deduplicity version")]
    Version,
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  deduplicity completions bash > ~/.local/share/bash-completion/completions/deduplicity")]
    Completions {
        /// Shell
        shell: clap_complete::Shell,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  deduplicity init -r /mnt/disk/backup
  deduplicity init -r /mnt/disk/backup --parity 5%
  deduplicity init -r s3:https://s3.example.org/bucket/prefix --label 'laptop'
  deduplicity init -r s3://bucket/prefix --lock-retention 30 --lock-mode compliance")]
pub struct InitArgs {
    /// Name of the first password, as 'key list' shows it
    #[arg(long, default_value = "")]
    pub label: String,
    /// Store so much parity with everything, from 1% to 100%, so that 'repair parity' can mend damage
    #[arg(long, value_name = "P%", value_parser = parse::parity)]
    pub parity: Option<u8>,
    /// Have the store keep every object for so many days, whoever asks to delete it; S3 with Object Lock
    #[arg(long, value_name = "DAYS", num_args = 0..=1, default_missing_value = "30")]
    pub lock_retention: Option<u16>,
    /// Who may lift a lock early
    #[arg(long, value_enum, requires = "lock_retention", default_value = "governance")]
    pub lock_mode: LockModeArg,
    /// Lock even for less than 14 or more than 365 days
    #[arg(long, requires = "lock_retention")]
    pub yes: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LockModeArg {
    /// Those with the permission to bypass it
    Governance,
    /// Nobody
    Compliance,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Patterns are gitignore's: * and ? within a name, ** across names, [a-z], a trailing / for
directories only, a leading ! to take something back. With a leading / a pattern is an absolute
path, otherwise it fits at any depth. The last pattern that fits decides.

Examples:
  deduplicity backup ~ /etc --tag daily
  deduplicity backup / --one-file-system --exclude-if-present CACHEDIR.TAG --exclude /tmp --exclude '*.o'
  find /data -name '*.raw' -print0 | deduplicity backup --files-from -
  pg_dump shop | deduplicity backup --stdin --stdin-filename shop.sql")]
pub struct BackupArgs {
    /// What to back up
    #[arg(value_name = "PATH", required_unless_present_any = ["files_from", "stdin"], value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// Make the repository first if there is none
    #[arg(long)]
    pub init: bool,
    /// Tag of the snapshot; may be given more than once
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Name of this machine in the snapshot [default: its host name]
    #[arg(long)]
    pub host: Option<String>,
    /// Time of the snapshot: RFC 3339 or @EPOCH [default: now]
    #[arg(long, value_parser = parse::time, allow_hyphen_values = true)]
    pub time: Option<Timestamp>,
    /// Leave out what fits a pattern; may be given more than once
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    pub exclude: Vec<String>,
    /// Leave out what fits a pattern in this file, one to a line
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub exclude_file: Vec<PathBuf>,
    /// Leave out the contents of directories that hold something with this name
    #[arg(long, value_name = "NAME")]
    pub exclude_if_present: Vec<OsString>,
    /// Stay on the file systems of the given paths
    #[arg(short = 'x', long)]
    pub one_file_system: bool,
    /// Back up the paths in this file, one to a line, or NUL-separated; - is the standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub files_from: Vec<PathBuf>,
    /// Back up what comes in on the standard input, as one file
    #[arg(long, requires = "stdin_filename", conflicts_with_all = ["paths", "files_from"])]
    pub stdin: bool,
    /// Name of that file
    #[arg(long, value_name = "NAME", requires = "stdin")]
    pub stdin_filename: Option<OsString>,
    /// Read all files, changed or not
    #[arg(short, long)]
    pub force: bool,
    /// Only tell what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// off, fast, auto, or a zstd level from 1 to 19
    #[arg(long, value_parser = parse::compression, default_value = "auto")]
    pub compression: Level,
}

/// Which snapshots are meant.
#[derive(Args, Debug, Default)]
#[command(after_help = "\
Examples:
  deduplicity snapshots
  deduplicity snapshots --host laptop --tag daily --json")]
pub struct FilterArgs {
    /// Only snapshots of this machine; may be given more than once
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
    /// Only snapshots with this tag, or with all of TAG,TAG; may be given more than once
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Only snapshots of this path; given more than once, of all of them
    #[arg(long = "path", value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
SNAPSHOT is the start of an id, 'latest', or 'latest~N' for the Nth before; --host, --tag and
--path say of which snapshots. :PATH is the path as it was backed up.

Examples:
  deduplicity ls latest:/home/ada
  deduplicity ls latest~1:/etc -lR")]
pub struct LsArgs {
    /// Snapshot, and where in it
    #[arg(value_name = "SNAPSHOT[:PATH]", value_parser = parse::SnapshotPathParser)]
    pub snapshot: SnapshotPath,
    /// With mode, owner, size and time
    #[arg(short, long)]
    pub long: bool,
    /// With the contents of directories
    #[arg(short = 'R', long)]
    pub recursive: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  deduplicity cat latest:/etc/fstab")]
pub struct CatArgs {
    /// Snapshot, and the file in it
    #[arg(value_name = "SNAPSHOT:PATH", value_parser = parse::SnapshotPathParser)]
    pub snapshot: SnapshotPath,
    #[command(flatten)]
    pub filter: FilterArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum OverwriteArg {
    /// Replace what is there
    Always,
    /// Replace files that differ in size or time
    IfChanged,
    /// Leave alone what is there
    Never,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Without a path, what was backed up appears below DIR under its full path; with one, the contents
of PATH appear in DIR.

Examples:
  deduplicity restore latest --target /tmp/restored
  deduplicity restore latest:/home/ada/letters --target ~/letters --verify
  deduplicity restore 3f2a --target / --include /etc --overwrite if-changed --dry-run")]
pub struct RestoreArgs {
    /// Snapshot, and where in it
    #[arg(value_name = "SNAPSHOT[:PATH]", value_parser = parse::SnapshotPathParser)]
    pub snapshot: SnapshotPath,
    /// Directory to restore into
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub target: PathBuf,
    /// Restore only what fits a pattern, with all that is in it; may be given more than once
    #[arg(short, long, value_name = "PATTERN", allow_hyphen_values = true)]
    pub include: Vec<String>,
    /// Do not restore what fits a pattern; may be given more than once
    #[arg(short, long, value_name = "PATTERN", allow_hyphen_values = true)]
    pub exclude: Vec<String>,
    /// What to do about files that exist
    #[arg(long, value_enum, default_value = "always")]
    pub overwrite: OverwriteArg,
    /// Read the files again afterwards and compare
    #[arg(long)]
    pub verify: bool,
    /// Only tell what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  deduplicity key list
  deduplicity key add --label 'desk drawer' --new-password-file /media/usb/password
  deduplicity key passwd")]
pub struct KeyArgs {
    #[command(subcommand)]
    pub command: KeyCommand,
}

#[derive(Subcommand, Debug)]
pub enum KeyCommand {
    /// List the passwords
    List,
    /// Add a password
    Add(NewKeyArgs),
    /// Remove a password
    Remove {
        /// Id of the key, or the start of it, as 'key list' shows it
        id: String,
    },
    /// Replace the password in use by another one
    Passwd(NewKeyArgs),
}

#[derive(Args, Debug)]
pub struct NewKeyArgs {
    /// Read the new password from a file [env: DEDUPLICITY_NEW_PASSWORD, DEDUPLICITY_NEW_PASSWORD_FILE]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub new_password_file: Option<PathBuf>,
    /// Name of the new password, as 'key list' shows it
    #[arg(long)]
    pub label: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_belongs_together() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|_| ());
        for good in [
            "deduplicity backup a b -x -n --time @5 --compression 19 --exclude !x",
            "deduplicity backup --stdin --stdin-filename x",
            "deduplicity backup --files-from -",
            "deduplicity -r x ls latest~2:/a -lR --json",
            "deduplicity check --read-data-subset 1/2",
            "deduplicity forget 3f2a -n",
            "deduplicity forget --keep-last unlimited --keep-within-daily 1y2m --keep-tag a,b --group-by host,tags --prune --now",
            "deduplicity prune --max-unused 2.5% --max-repack-size 5G",
            "deduplicity prune --max-unused unlimited -n",
        ] {
            assert!(parse(good).is_ok(), "{good}: {:?}", parse(good));
        }
        for bad in [
            "deduplicity",
            "deduplicity backup",
            "deduplicity backup --stdin",
            "deduplicity backup a --stdin --stdin-filename x",
            "deduplicity backup a --compression 20",
            "deduplicity check --read-data --read-data-subset 1/2",
            "deduplicity check --read-data-subset 3/2",
            "deduplicity restore latest",
            "deduplicity backup a -q -v",
            "deduplicity forget 3f2a --keep-last 3",
            "deduplicity forget --keep-last -1",
            "deduplicity forget --keep-within 3",
            "deduplicity forget --group-by hosts",
            "deduplicity prune --max-unused 101%",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
