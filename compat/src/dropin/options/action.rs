//! The words of a command line: the command, or what the order of the others implies.

use std::ffi::{OsStr, OsString};

use super::{Action, BackupKind, CommandLine, UsageError, value};
use crate::time::Time;

/// Commands and their short names.
const COMMANDS: &[(&str, &[&str])] = &[
    ("backup", &["bu"]),
    ("full", &["fb"]),
    ("incremental", &["ib", "inc", "incr"]),
    ("restore", &["rb"]),
    ("verify", &["vb"]),
    ("collection-status", &["st"]),
    ("list-current-files", &["ls"]),
    ("cleanup", &["cl"]),
    ("remove-older-than", &["ro"]),
    ("remove-all-but-n-full", &["ra"]),
    ("remove-all-inc-of-but-n-full", &["ri"]),
];

/// Whether an argument is the URL of an archive.
fn is_url(arg: &OsStr) -> bool {
    let text = arg.to_string_lossy();
    let scheme = text.split(':').next().unwrap_or_default();
    let is_scheme = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    let rest = text.get(scheme.len()..).unwrap_or_default();
    !scheme.is_empty() && is_scheme && (rest.starts_with("://") || (scheme == "rclone" && rest.starts_with(':')))
}

fn is_command(word: &str) -> bool {
    COMMANDS.iter().any(|(name, short)| *name == word || short.contains(&word))
}

/// The command that a word means; the second value says whether it means several.
fn command(word: &OsStr) -> (Option<&'static str>, bool) {
    let Some(word) = word.to_str().filter(|word| !word.is_empty()) else { return (None, false) };
    let exact = COMMANDS.iter().find(|(name, short)| *name == word || short.contains(&word));
    if let Some((name, _)) = exact {
        return (Some(name), false);
    }
    let mut begin = COMMANDS.iter().filter(|(name, _)| name.starts_with(word));
    match (begin.next(), begin.next()) {
        (Some((name, _)), None) => (Some(name), false),
        (Some(_), Some(_)) => (None, true),
        (None, _) => (None, false),
    }
}

/// What the words of a command line say to do.
pub(super) fn action(line: &mut CommandLine, words: Vec<OsString>, now: Time) -> Result<Action, UsageError> {
    let missing = || UsageError::Wrong("Missing or invalid explicit or implicit action.".to_owned());
    let named = words.first().filter(|word| !is_url(word)).map_or((None, false), |word| command(word));
    // A command that is written out is one, whatever folders there are; an abbreviated one may be a folder.
    let is_exact = words.first().and_then(|word| word.to_str()).is_some_and(is_command);
    let implied = words.len() == 2 && is_url(&words[0]) != is_url(&words[1]) && !is_exact;
    if implied {
        line.implied = true;
        let [first, second] = <[OsString; 2]>::try_from(words).map_err(|_| missing())?;
        return Ok(if is_url(&second) && !(named.0.is_some() && is_single(named.0)) {
            Action::Backup(BackupKind::Auto, first.into(), url(second)?)
        } else if is_url(&second) {
            line.implied = false;
            single(named.0.unwrap_or_default(), url(second)?)?
        } else {
            Action::Restore(url(first)?, second.into())
        });
    }
    let Some(command) = named.0 else {
        return Err(match (words.first(), named.1) {
            (Some(word), true) => UsageError::Wrong(format!("command '{}' is ambiguous", word.to_string_lossy())),
            _ => missing(),
        });
    };
    let mut words = words.into_iter().skip(1);
    let mut next = |what: &str| words.next().ok_or_else(|| UsageError::Wrong(format!("{command}: no {what} given")));
    let action = match command {
        "backup" => Action::Backup(BackupKind::Auto, next("source directory")?.into(), url(next("URL")?)?),
        "full" => Action::Backup(BackupKind::Full, next("source directory")?.into(), url(next("URL")?)?),
        "incremental" => Action::Backup(BackupKind::Incremental, next("source directory")?.into(), url(next("URL")?)?),
        "restore" => Action::Restore(url(next("URL")?)?, next("directory")?.into()),
        "verify" => Action::Verify(url(next("URL")?)?, next("directory")?.into()),
        "remove-older-than" => {
            let time = next("time")?;
            Action::RemoveOlderThan(value::time(command, &time.to_string_lossy(), now)?, url(next("URL")?)?)
        }
        "remove-all-but-n-full" => Action::RemoveAllButNFull(count(&next("number")?)?, url(next("URL")?)?),
        "remove-all-inc-of-but-n-full" => Action::RemoveAllIncOfButNFull(count(&next("number")?)?, url(next("URL")?)?),
        command => single(command, url(next("URL")?)?)?,
    };
    match words.next() {
        Some(word) => Err(UsageError::Wrong(format!("{command}: '{}' is one argument too many", word.to_string_lossy()))),
        None => Ok(action),
    }
}

fn is_single(command: Option<&str>) -> bool {
    matches!(command, Some("collection-status" | "list-current-files" | "cleanup"))
}

fn single(command: &str, url: String) -> Result<Action, UsageError> {
    match command {
        "collection-status" => Ok(Action::CollectionStatus(url)),
        "list-current-files" => Ok(Action::ListCurrentFiles(url)),
        "cleanup" => Ok(Action::Cleanup(url)),
        _ => Err(UsageError::Wrong(format!("{command}: too few arguments"))),
    }
}

fn url(word: OsString) -> Result<String, UsageError> {
    let text = word.into_string().map_err(|_| UsageError::Wrong("the URL is not UTF-8".to_owned()))?;
    if is_url(OsStr::new(&text)) {
        Ok(text)
    } else {
        Err(UsageError::Wrong(format!("'{text}' is no URL of an archive; a folder is file:///FOLDER")))
    }
}

fn count(word: &OsStr) -> Result<u32, UsageError> {
    let number = word.to_str().and_then(|text| text.parse().ok()).filter(|n| *n > 0);
    number.ok_or_else(|| UsageError::Wrong(format!("'{}' is no number of backups above 0", word.to_string_lossy())))
}
