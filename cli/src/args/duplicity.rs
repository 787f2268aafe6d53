//! Arguments of the commands that read duplicity's archives.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use compat::name::Prefixes;
use engine::codec::Level;

use crate::parse;

/// What is imported.
#[derive(Args, Debug)]
pub struct ImportArgs {
    #[command(subcommand)]
    pub from: ImportFrom,
}

#[derive(Subcommand, Debug)]
pub enum ImportFrom {
    /// Import an archive of duplicity: each of its backups becomes a snapshot
    Duplicity(Box<ImportDuplicityArgs>),
}

/// How the names of an archive's files begin.
#[derive(Args, Debug)]
pub struct PrefixArgs {
    /// Only names that begin like this belong to the archive
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub file_prefix: String,
    /// The same, for volumes; follows --file-prefix
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub file_prefix_archive: String,
    /// The same, for manifests
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub file_prefix_manifest: String,
    /// The same, for signature files
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub file_prefix_signature: String,
    /// The same, for statistics
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub file_prefix_jsonstat: String,
}

impl PrefixArgs {
    /// The same for the library.
    pub fn prefixes(&self) -> Prefixes {
        Prefixes {
            all: self.file_prefix.clone(),
            archive: self.file_prefix_archive.clone(),
            manifest: self.file_prefix_manifest.clone(),
            signature: self.file_prefix_signature.clone(),
            jsonstat: self.file_prefix_jsonstat.clone(),
        }
    }
}

/// Where an archive of duplicity is, and what opens it.
#[derive(Args, Debug)]
pub struct ArchiveArgs {
    /// Where the archive is: a directory or a URL as duplicity takes it (file, s3, boto3+s3, sftp, scp, ftp, ftps, webdav,
    /// webdavs, rsync, rclone)
    #[arg(value_name = "URL", value_hint = ValueHint::AnyPath)]
    pub url: String,
    /// Read a pass phrase from the first line of a file; may be given more than once [env: PASSPHRASE]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub passphrase_file: Vec<PathBuf>,
    /// Read the pass phrase of the signing key from a file, if it is another one [env: SIGN_PASSPHRASE]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub sign_passphrase_file: Option<PathBuf>,
    /// GnuPG home directory whose agent has the secret keys [default: gpg's own]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub gnupg_home: Option<PathBuf>,
    /// Secret key as gpg --export-secret-keys writes it; may be given more than once
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub secret_key: Vec<PathBuf>,
    #[command(flatten)]
    pub prefixes: PrefixArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Every backup set becomes a snapshot with its own time, oldest first; what is imported already is
passed over, so that the same command goes on where it was interrupted and later fetches what is
new. A damaged archive gives what is intact: its snapshots are tagged 'partial', every path that is
lost is listed, and the exit code is 3.

Restored, the archive's tree lies directly in the target: deduplicity restore latest --target DIR

Examples:
  PASSPHRASE=... deduplicity import duplicity sftp://backup@nas/laptop --host laptop
  deduplicity import duplicity s3://bucket/laptop --secret-key key.asc --passphrase-file phrase --verify
  deduplicity import duplicity /mnt/old --time 2019-05-01 --dry-run")]
pub struct ImportDuplicityArgs {
    #[command(flatten)]
    pub archive: ArchiveArgs,
    /// Only the state at this time, with the backups it builds on; as duplicity takes times
    #[arg(long, value_name = "TIME", conflicts_with_all = ["chain", "all"])]
    pub time: Option<String>,
    /// Only the Nth chain (a full backup and its increments), the oldest being 1
    #[arg(long, value_name = "N", conflicts_with = "all")]
    pub chain: Option<usize>,
    /// Everything (default)
    #[arg(long)]
    pub all: bool,
    /// Name of the machine in the snapshots [default: the one in the archive]
    #[arg(long)]
    pub host: Option<String>,
    /// Tag of the snapshots; may be given more than once
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Refuse what is not signed by the key with this fingerprint
    #[arg(long, value_name = "FINGERPRINT")]
    pub require_signature: Option<String>,
    /// Compare each snapshot with the archive's own signatures
    #[arg(long)]
    pub verify: bool,
    /// Only tell what would be imported
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// off, fast, auto, or a zstd level from 1 to 19
    #[arg(long, value_parser = parse::compression, default_value = "auto")]
    pub compression: Level,
}

/// duplicity's own command line, which is understood elsewhere.
#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
#[command(after_help = "'deduplicity duplicity --help' tells more; through a link named duplicity, the word is left out.")]
pub struct DuplicityArgs {
    /// duplicity's commands and options
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    pub arguments: Vec<OsString>,
}
