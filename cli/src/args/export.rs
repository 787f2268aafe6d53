//! Arguments of `export`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::{FilterArgs, PrefixArgs};

/// Where snapshots are exported to.
#[derive(Args, Debug)]
pub struct ExportArgs {
    #[command(subcommand)]
    pub to: ExportTo,
}

#[derive(Subcommand, Debug)]
pub enum ExportTo {
    /// Export snapshots as an archive that stock duplicity restores, verifies and continues
    Duplicity(Box<ExportDuplicityArgs>),
}

#[derive(Args, Debug)]
#[command(after_help = "\
The oldest snapshot becomes a full backup, the others increments on it; where the archive has
backups already, all become increments on its last one, and snapshots that it has, by their time,
are passed over. The archive's root is the snapshot's source path, or PATH. Without an
--encrypt-key the archive is encrypted with the pass phrase in PASSPHRASE.

What duplicity cannot hold (hard links, extended attributes, holes, fractions of seconds) is
counted and named.

Examples:
  PASSPHRASE=... deduplicity export duplicity latest /mnt/archive
  deduplicity export duplicity 3f2a 91c0 latest file:///mnt/archive --encrypt-key 0123ABCD01234567
  deduplicity export duplicity latest:/home/ada sftp://ada@nas//backups/ada --no-encryption --full")]
pub struct ExportDuplicityArgs {
    /// Snapshots to export, and where the archive is: a directory, or a URL as duplicity takes it
    #[arg(value_names = ["SNAPSHOT[:PATH]", "URL"], num_args = 2.., required = true, value_hint = ValueHint::AnyPath)]
    pub arguments: Vec<OsString>,
    /// Start a new chain with a full backup
    #[arg(long, conflicts_with = "incremental")]
    pub full: bool,
    /// Fail where there is no backup to build on
    #[arg(long)]
    pub incremental: bool,
    /// Encrypt to this public key: key id, fingerprint or part of the user id; may be given more than once
    #[arg(long, value_name = "KEY")]
    pub encrypt_key: Vec<String>,
    /// The same, without naming the key in the files
    #[arg(long, value_name = "KEY")]
    pub hidden_encrypt_key: Vec<String>,
    /// Sign with this key
    #[arg(long, value_name = "KEY", conflicts_with = "no_encryption")]
    pub sign_key: Option<String>,
    /// Do not encrypt
    #[arg(long, conflicts_with_all = ["encrypt_key", "hidden_encrypt_key"])]
    pub no_encryption: bool,
    /// Do not compress
    #[arg(long)]
    pub no_compression: bool,
    /// Size of volumes in MiB
    #[arg(long, value_name = "MB", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub volsize: u64,
    #[command(flatten)]
    pub prefixes: PrefixArgs,
    /// Host that duplicity may continue the archive on [default: any]
    #[arg(long, value_name = "HOST")]
    pub hostname: Option<String>,
    /// Directory that duplicity may continue the archive for [default: any]
    #[arg(long, value_name = "DIR")]
    pub localdir: Option<OsString>,
    /// GnuPG home directory that has the keys [default: gpg's own]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub gnupg_home: Option<PathBuf>,
    /// Exported keys to look into before asking gpg; secret ones to sign with; may be given more than once
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub secret_key: Vec<PathBuf>,
    /// Read the pass phrase from the first line of a file [env: PASSPHRASE]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub passphrase_file: Option<PathBuf>,
    /// Read the pass phrase of the signing key from a file, if it is another one [env: SIGN_PASSPHRASE]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub sign_passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Only tell what would be exported
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}
