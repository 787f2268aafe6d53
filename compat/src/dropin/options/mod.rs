//! duplicity's command line.
//!
//! FORMAT §16.1. Options come anywhere; a value is glued on with `=`, is the next argument, or for short options stands
//! right behind the letter. Long options may be abbreviated as long as they stay unambiguous, and so may commands.

mod action;
mod table;
mod value;

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use self::table::{Class, OPTIONS, Spec};
use super::log::Level;
use super::select::Rule;
use crate::export::VOLUME_SIZE;
use crate::name::Prefixes;
use crate::time::Time;

/// A command line that makes no sense, or asks for what is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// What duplicity itself finds.
    #[error("{0}")]
    Wrong(String),
    /// An abbreviation of several options, which its library for arguments refuses.
    #[error("{0}")]
    Ambiguous(String),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// An increment if there is something to build on, else a full backup.
    Backup(BackupKind, PathBuf, String),
    /// Write the files of a time.
    Restore(String, PathBuf),
    /// Compare the files of a time with the source.
    Verify(String, PathBuf),
    /// Tell what chains and sets there are.
    CollectionStatus(String),
    /// List the files of a time.
    ListCurrentFiles(String),
    /// Remove what belongs to no complete backup.
    Cleanup(String),
    /// Remove chains that ended before a time.
    RemoveOlderThan(Time, String),
    /// Remove chains before the last so many.
    RemoveAllButNFull(u32, String),
    /// Remove the increments of chains before the last so many.
    RemoveAllIncOfButNFull(u32, String),
}

/// What kind of backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupKind {
    /// Whatever is possible.
    Auto,
    /// A full one.
    Full,
    /// An increment, or nothing.
    Incremental,
}

impl Action {
    /// The archive's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        match self {
            Self::Backup(_, _, url)
            | Self::Restore(url, _)
            | Self::Verify(url, _)
            | Self::CollectionStatus(url)
            | Self::ListCurrentFiles(url)
            | Self::Cleanup(url)
            | Self::RemoveOlderThan(_, url)
            | Self::RemoveAllButNFull(_, url)
            | Self::RemoveAllIncOfButNFull(_, url) => url,
        }
    }

    /// The command's name in `collection-status` and statistics.
    #[must_use]
    pub fn is_backup(&self) -> bool {
        matches!(self, Self::Backup(..))
    }
}

/// A command line that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// What to do; `None` where only help or the version is wanted.
    pub action: Option<Action>,
    /// How.
    pub options: Options,
    /// What to say before anything else: options that are accepted and do nothing, or are no longer current.
    pub warnings: Vec<String>,
    /// The action was not named.
    pub implied: bool,
}

/// What the options say.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named like duplicity's options")]
#[allow(clippy::struct_excessive_bools, reason = "as many as there are flags")]
pub struct Options {
    pub allow_source_mismatch: bool,
    pub archive_dir: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub compare_data: bool,
    pub compression: bool,
    pub current_time: Option<Time>,
    pub dry_run: bool,
    pub encrypt_keys: Vec<String>,
    pub encryption: bool,
    pub file_changed: Option<Vec<u8>>,
    pub force: bool,
    pub full_if_n_inc: Option<usize>,
    /// An age in seconds.
    pub full_if_older_than: Option<i64>,
    pub gpg_options: Vec<String>,
    pub help: bool,
    pub hidden_encrypt_keys: Vec<String>,
    pub ignore_errors: bool,
    pub jsonstat: bool,
    pub list_changed_files: bool,
    pub log_fd: Option<i32>,
    pub log_file: Option<PathBuf>,
    pub log_timestamp: bool,
    pub name: Option<String>,
    pub null_separator: bool,
    pub num_retries: Option<u32>,
    pub numeric_owner: bool,
    pub path_to_restore: Option<Vec<u8>>,
    pub prefixes: Prefixes,
    pub print_statistics: bool,
    /// What is restored under another name: from, to.
    pub renames: Vec<(Vec<u8>, Vec<u8>)>,
    pub restore_ownership: bool,
    /// In the order of the command line.
    pub rules: Vec<Rule>,
    pub s3_class: Option<&'static str>,
    pub s3_endpoint: Option<String>,
    pub s3_region: Option<String>,
    pub s3_unencrypted: bool,
    pub show_changes_in_set: Option<i64>,
    pub sign_key: Option<String>,
    pub skip_if_no_change: bool,
    pub ssh_options: Vec<String>,
    pub temp_dir: Option<PathBuf>,
    pub time: Option<Time>,
    /// In seconds.
    pub timeout: Option<u64>,
    pub verbosity: Level,
    pub version: bool,
    /// In bytes.
    pub volume_size: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allow_source_mismatch: false,
            archive_dir: None,
            ca_file: None,
            compare_data: false,
            compression: true,
            current_time: None,
            dry_run: false,
            encrypt_keys: Vec::new(),
            encryption: true,
            file_changed: None,
            force: false,
            full_if_n_inc: None,
            full_if_older_than: None,
            gpg_options: Vec::new(),
            help: false,
            hidden_encrypt_keys: Vec::new(),
            ignore_errors: false,
            jsonstat: false,
            list_changed_files: true,
            log_fd: None,
            log_file: None,
            log_timestamp: false,
            name: None,
            null_separator: false,
            num_retries: None,
            numeric_owner: false,
            path_to_restore: None,
            prefixes: Prefixes::default(),
            print_statistics: true,
            renames: Vec::new(),
            restore_ownership: true,
            rules: Vec::new(),
            s3_class: None,
            s3_endpoint: None,
            s3_region: None,
            s3_unencrypted: false,
            show_changes_in_set: None,
            sign_key: None,
            skip_if_no_change: false,
            ssh_options: Vec::new(),
            temp_dir: None,
            time: None,
            timeout: None,
            verbosity: Level::NOTICE,
            version: false,
            volume_size: VOLUME_SIZE,
        }
    }
}

/// Understands a command line, without the program's name. `now` is what ages count from.
///
/// # Errors
///
/// An option or command that duplicity does not know, that is not supported here, or lacks its value.
pub fn parse(args: impl IntoIterator<Item = OsString>, now: Time) -> Result<CommandLine, UsageError> {
    let mut line = CommandLine { action: None, options: Options::default(), warnings: Vec::new(), implied: false };
    let mut words = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_bytes() {
            b"--" => words.extend(args.by_ref()),
            [b'-', b'-', ..] => long(&mut line, &arg, &mut args, now)?,
            [b'-', number @ ..] if is_number(number) => words.push(arg),
            [b'-', _, ..] => short(&mut line, &arg, &mut args, now)?,
            _ => words.push(arg),
        }
    }
    if !line.options.help && !line.options.version {
        line.action = Some(action::action(&mut line, words, now)?);
        check(&line)?;
    }
    Ok(line)
}

type Rest<'a> = &'a mut dyn Iterator<Item = OsString>;

/// `--name`, `--name value` or `--name=value`.
fn long(line: &mut CommandLine, arg: &OsStr, rest: Rest<'_>, now: Time) -> Result<(), UsageError> {
    let bytes = arg.as_bytes();
    let cut = bytes.iter().position(|b| *b == b'=');
    let (name, glued) = match cut {
        Some(at) => (&bytes[..at], Some(OsString::from_vec(bytes[at + 1..].to_vec()))),
        None => (bytes, None),
    };
    let name = String::from_utf8_lossy(name);
    let spec = find(&name)?;
    let mut next = || value_after(spec.name, rest);
    let value = match (spec.values, glued) {
        (0, None) => OsString::new(),
        (0, Some(_)) => return Err(UsageError::Wrong(format!("option {} takes no value", spec.name))),
        (_, Some(value)) => value,
        (_, None) => next()?,
    };
    let second = if spec.values == 2 { next()? } else { OsString::new() };
    take(line, spec, (value, second), now)
}

/// `-v 5`, `-v5`, `-hV`.
fn short(line: &mut CommandLine, arg: &OsStr, rest: Rest<'_>, now: Time) -> Result<(), UsageError> {
    let letters = &arg.as_bytes()[1..];
    for (at, letter) in letters.iter().enumerate() {
        let name = format!("-{}", char::from(*letter));
        let spec = OPTIONS.iter().find(|spec| spec.name == name).ok_or_else(|| unknown(&name))?;
        if spec.values == 0 {
            take(line, spec, Values::default(), now)?;
            continue;
        }
        let glued = &letters[at + 1..];
        let value = match glued.strip_prefix(b"=").unwrap_or(glued) {
            [] => value_after(&name, rest)?,
            value => OsString::from_vec(value.to_vec()),
        };
        return take(line, spec, (value, OsString::new()), now);
    }
    Ok(())
}

/// The next argument, as an option's value: not one that is an option itself.
fn value_after(name: &str, rest: Rest<'_>) -> Result<OsString, UsageError> {
    let value = rest.next().filter(|value| !looks_like_option(value.as_bytes()));
    value.ok_or_else(|| UsageError::Wrong(format!("option {name} wants a value")))
}

/// As Python's library for arguments sees it: a dash and more, but for negative numbers and unknown words with a space.
fn looks_like_option(arg: &[u8]) -> bool {
    let [b'-', second, ..] = arg else { return false };
    let name = arg.split(|b| *b == b'=').next().unwrap_or_default();
    let is_short = *second != b'-';
    let is_known = |spec: &Spec| match is_short {
        true => spec.name.as_bytes() == &arg[..2],
        false => arg.len() > 2 && spec.name.as_bytes().starts_with(name),
    };
    OPTIONS.iter().any(is_known) || !(is_number(&arg[1..]) || arg.contains(&b' '))
}

/// What follows the dash of a negative number; no option is named so.
fn is_number(text: &[u8]) -> bool {
    let is_digits = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
    match text.split(|b| *b == b'.').collect::<Vec<_>>()[..] {
        [whole] => is_digits(whole),
        [whole, part] => (whole.is_empty() || is_digits(whole)) && is_digits(part),
        _ => false,
    }
}

fn unknown(name: &str) -> UsageError {
    UsageError::Wrong(format!("no such option: {name}"))
}

/// The option of this name, or the only one that begins so.
fn find(name: &str) -> Result<&'static Spec, UsageError> {
    if let Some(spec) = OPTIONS.iter().find(|spec| spec.name == name) {
        return Ok(spec);
    }
    let mut begin = OPTIONS.iter().filter(|spec| name.len() > 2 && spec.name.starts_with(name));
    match (begin.next(), begin.next()) {
        (Some(spec), None) => Ok(spec),
        (Some(first), Some(second)) => {
            Err(UsageError::Ambiguous(format!("option {name} is ambiguous: {} or {}, or another one", first.name, second.name)))
        }
        (None, _) => Err(unknown(name)),
    }
}

fn take(line: &mut CommandLine, spec: &Spec, values: Values, now: Time) -> Result<(), UsageError> {
    let mut warn = |text: String| {
        if !line.warnings.contains(&text) {
            line.warnings.push(text);
        }
    };
    match spec.class {
        Class::Meant(key) => line.options.set(key, spec.name, values, now),
        Class::Removed(key) => {
            warn(format!("option {} is no longer in current duplicity; it works here as it did", spec.name));
            line.options.set(key, spec.name, values, now)
        }
        Class::Obsolete => {
            warn(format!("option {} is no longer in current duplicity, and is ignored", spec.name));
            Ok(())
        }
        Class::Ignored | Class::IgnoredNumber => {
            if spec.class == Class::IgnoredNumber {
                value::whole_number(spec.name, &values.0)?;
            }
            warn(format!("option {} changes nothing here, and is ignored", spec.name));
            Ok(())
        }
        Class::Refused(why) => Err(UsageError::Wrong(format!("option {} is not supported: {why}", spec.name))),
    }
}

/// The values of an option; those that it does not take are empty.
type Values = (OsString, OsString);

/// Options that do not go together.
fn check(line: &CommandLine) -> Result<(), UsageError> {
    let options = &line.options;
    if !options.encryption && (!options.encrypt_keys.is_empty() || !options.hidden_encrypt_keys.is_empty()) {
        return Err(UsageError::Wrong("--no-encryption does not go together with a key to encrypt with".to_owned()));
    }
    Ok(())
}
