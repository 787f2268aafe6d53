//! The options that mean something, and the values that they set.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::{Options, UsageError};
use crate::dropin::log::Level;
use crate::dropin::select::{Filter, Rule};
use crate::time::{Time, parse_time_argument};

/// An option that means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, clippy::enum_variant_names, reason = "named like the options")]
pub(super) enum Key {
    AllowSourceMismatch,
    ArchiveDir,
    CaFile,
    CompareData,
    Compression,
    CurrentTime,
    DryRun,
    EncryptKey,
    EncryptSignKey,
    Encryption,
    Exclude,
    ExcludeDevices,
    ExcludeFilelist,
    ExcludeFilelistStdin,
    ExcludeIfPresent,
    ExcludeOlderThan,
    ExcludeOtherFilesystems,
    ExcludeRegexp,
    FileChanged,
    FilePrefix,
    FilePrefixArchive,
    FilePrefixJsonstat,
    FilePrefixManifest,
    FilePrefixSignature,
    FilterGlobbing,
    FilterIgnorecase,
    FilterLiteral,
    FilterRegexp,
    FilterStrictcase,
    Force,
    FullIfNInc,
    FullIfOlderThan,
    GpgOptions,
    Help,
    HiddenEncryptKey,
    IgnoreErrors,
    Include,
    IncludeFilelist,
    IncludeFilelistStdin,
    IncludeRegexp,
    Jsonstat,
    LogFd,
    LogFile,
    LogTimestamp,
    Name,
    NoCompression,
    NoEncryption,
    NoFilesChanged,
    NoPrintStatistics,
    NoRestoreOwnership,
    NullSeparator,
    NumRetries,
    NumericOwner,
    PathToRestore,
    PrintStatistics,
    Rename,
    RestoreOwnership,
    RetryDelay,
    S3DeepArchive,
    S3Endpoint,
    S3Glacier,
    S3GlacierIr,
    S3Ia,
    S3OnezoneIa,
    S3Region,
    S3Rrs,
    S3Unencrypted,
    ShowChangesInSet,
    SignKey,
    SkipIfNoChange,
    SshOptions,
    TempDir,
    Time,
    Timeout,
    Verbosity,
    Version,
    Volsize,
}

type Set = Result<(), UsageError>;

impl Options {
    /// Takes an option in; `value` is empty for flags.
    pub(super) fn set(&mut self, key: Key, name: &str, (value, second): (OsString, OsString), now: Time) -> Set {
        match key {
            Key::AllowSourceMismatch => self.allow_source_mismatch = true,
            Key::CompareData => self.compare_data = true,
            Key::Compression => self.compression = true,
            Key::DryRun => self.dry_run = true,
            Key::Encryption => self.encryption = true,
            Key::Force => self.force = true,
            Key::Help => self.help = true,
            Key::IgnoreErrors => self.ignore_errors = true,
            Key::Jsonstat => self.jsonstat = true,
            Key::LogTimestamp => self.log_timestamp = true,
            Key::NoCompression => self.compression = false,
            Key::NoEncryption => self.encryption = false,
            Key::NoFilesChanged => self.list_changed_files = false,
            Key::NoPrintStatistics => self.print_statistics = false,
            Key::NoRestoreOwnership => self.restore_ownership = false,
            Key::NullSeparator => self.null_separator = true,
            Key::NumericOwner => self.numeric_owner = true,
            Key::PrintStatistics => self.print_statistics = true,
            Key::RestoreOwnership => self.restore_ownership = true,
            Key::S3Unencrypted => self.s3_unencrypted = true,
            Key::SkipIfNoChange => self.skip_if_no_change = true,
            Key::Version => self.version = true,
            Key::S3DeepArchive => self.s3_class = Some("DEEP_ARCHIVE"),
            Key::S3Glacier => self.s3_class = Some("GLACIER"),
            Key::S3GlacierIr => self.s3_class = Some("GLACIER_IR"),
            Key::S3Ia => self.s3_class = Some("STANDARD_IA"),
            Key::S3OnezoneIa => self.s3_class = Some("ONEZONE_IA"),
            Key::S3Rrs => self.s3_class = Some("REDUCED_REDUNDANCY"),
            _ if self.set_rule(key, name, &value, now)? => {}
            Key::Rename => self.renames.push((value.into_encoded_bytes(), second.into_encoded_bytes())),
            Key::ArchiveDir => self.archive_dir = Some(PathBuf::from(value)),
            Key::CaFile => self.ca_file = Some(PathBuf::from(value)),
            Key::LogFile => self.log_file = Some(PathBuf::from(value)),
            Key::TempDir => self.temp_dir = Some(PathBuf::from(value)),
            Key::PathToRestore => self.path_to_restore = Some(value.as_bytes().to_vec()),
            Key::FileChanged => self.file_changed = Some(value.as_bytes().to_vec()),
            _ => return self.set_text(key, name, text(name, value)?, now),
        }
        Ok(())
    }

    fn set_text(&mut self, key: Key, name: &str, value: String, now: Time) -> Set {
        match key {
            Key::CurrentTime => self.current_time = Some(time(name, &value, now)?),
            Key::EncryptKey => self.encrypt_keys.push(value),
            Key::EncryptSignKey => {
                self.encrypt_keys.push(value.clone());
                self.sign_key = Some(value);
            }
            Key::HiddenEncryptKey => self.hidden_encrypt_keys.push(value),
            Key::SignKey => self.sign_key = Some(value),
            Key::GpgOptions => self.gpg_options.push(value),
            Key::FilePrefix => self.prefixes.all = value,
            Key::FilePrefixArchive => self.prefixes.archive = value,
            Key::FilePrefixJsonstat => self.prefixes.jsonstat = value,
            Key::FilePrefixManifest => self.prefixes.manifest = value,
            Key::FilePrefixSignature => self.prefixes.signature = value,
            Key::FullIfNInc => self.full_if_n_inc = Some(number(name, &value)?),
            Key::FullIfOlderThan => self.full_if_older_than = Some(now.epoch().saturating_sub(time(name, &value, now)?.epoch())),
            Key::LogFd => self.log_fd = Some(number(name, &value)?),
            Key::Name => self.name = Some(value),
            Key::NumRetries => self.num_retries = Some(number(name, &value)?),
            Key::RetryDelay => drop(seconds(name, &value)?),
            Key::Timeout => self.timeout = Some(seconds(name, &value)?),
            Key::S3Endpoint => self.s3_endpoint = Some(value),
            Key::S3Region => self.s3_region = Some(value),
            Key::ShowChangesInSet => self.show_changes_in_set = Some(number(name, &value)?),
            Key::SshOptions => self.ssh_options.extend(value.split_whitespace().map(str::to_owned)),
            Key::Time => self.time = Some(time(name, &value, now)?),
            Key::Verbosity => {
                let level = Level::parse(&value);
                self.verbosity = level.ok_or_else(|| UsageError::Wrong(format!("{name}: '{value}' is no level from 0 to 9")))?;
            }
            Key::Volsize => {
                let mib: u64 = number(name, &value)?;
                let bytes = mib.checked_mul(1 << 20).filter(|bytes| *bytes > 0);
                self.volume_size = bytes.ok_or_else(|| UsageError::Wrong(format!("{name}: {value} is no size in MiB")))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Options of the selection, whose order counts; `false` for others.
    fn set_rule(&mut self, key: Key, name: &str, value: &OsString, now: Time) -> Result<bool, UsageError> {
        let bytes = || value.as_bytes().to_vec();
        let wants_text =
            matches!(key, Key::Exclude | Key::Include | Key::ExcludeRegexp | Key::IncludeRegexp | Key::ExcludeIfPresent);
        if wants_text && value.is_empty() {
            return Err(UsageError::Wrong(format!("{name}: the value is empty")));
        }
        let filter = match key {
            Key::FilterGlobbing => Some(Filter::Globbing),
            Key::FilterLiteral => Some(Filter::Literal),
            Key::FilterRegexp => Some(Filter::Regexp),
            Key::FilterIgnorecase => Some(Filter::IgnoreCase),
            Key::FilterStrictcase => Some(Filter::StrictCase),
            _ => None,
        };
        let rule = match key {
            _ if filter.is_some() => filter.map_or(Rule::DeviceFiles, Rule::Filter),
            Key::Exclude => Rule::Pattern { include: false, pattern: bytes() },
            Key::Include => Rule::Pattern { include: true, pattern: bytes() },
            Key::ExcludeRegexp => Rule::Regexp { include: false, pattern: bytes() },
            Key::IncludeRegexp => Rule::Regexp { include: true, pattern: bytes() },
            Key::ExcludeFilelist => Rule::Filelist { include: false, file: Some(list(name, value)?) },
            Key::IncludeFilelist => Rule::Filelist { include: true, file: Some(list(name, value)?) },
            Key::ExcludeFilelistStdin => Rule::Filelist { include: false, file: None },
            Key::IncludeFilelistStdin => Rule::Filelist { include: true, file: None },
            Key::ExcludeDevices => Rule::DeviceFiles,
            Key::ExcludeIfPresent => Rule::IfPresent(bytes()),
            Key::ExcludeOtherFilesystems => Rule::OtherFilesystems,
            Key::ExcludeOlderThan => {
                let value = text(name, value.clone())?;
                Rule::OlderThan(time(name, &value, now)?.epoch())
            }
            _ => return Ok(false),
        };
        self.rules.push(rule);
        Ok(true)
    }
}

/// A list of files, which has to be there before anything else is looked at. A pipe is not opened: that can be done only once.
fn list(name: &str, value: &OsString) -> Result<PathBuf, UsageError> {
    let path = PathBuf::from(value);
    let found = std::fs::metadata(&path).and_then(|meta| if meta.is_file() { File::open(&path).map(drop) } else { Ok(()) });
    match found {
        Ok(()) => Ok(path),
        Err(error) => Err(UsageError::Wrong(format!("{name}: {}: {error}", path.display()))),
    }
}

fn text(name: &str, value: OsString) -> Result<String, UsageError> {
    value.into_string().map_err(|_| UsageError::Wrong(format!("{name}: the value is not UTF-8")))
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, UsageError> {
    value.parse().map_err(|_| UsageError::Wrong(format!("{name}: '{value}' is no whole number that fits")))
}

/// Fails unless the value of an option is a whole number.
pub(super) fn whole_number(name: &str, value: &OsString) -> Set {
    number::<i64>(name, &text(name, value.clone())?).map(drop)
}

/// Whole seconds; fractions are dropped.
fn seconds(name: &str, value: &str) -> Result<u64, UsageError> {
    number(name, value.split('.').next().unwrap_or_default())
}

/// A time, as `-t` takes it.
pub(super) fn time(name: &str, value: &str, now: Time) -> Result<Time, UsageError> {
    parse_time_argument(value, now).map_err(|error| UsageError::Wrong(format!("{name}: {error}")))
}
