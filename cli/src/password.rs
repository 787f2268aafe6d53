//! Where passwords come from. Never from an argument, and never asked for where nobody can answer.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use zeroize::Zeroizing;

use crate::args::Global;
use crate::exit::advise;

/// A password, wiped from memory when dropped.
pub type Password = Zeroizing<Vec<u8>>;

/// Longest password, and most that is read of a file or a command.
const MAX_PASSWORD: usize = 64 << 10;

/// Where to get a password from.
#[derive(Debug)]
pub enum Source {
    /// An environment variable's value.
    Value(OsString),
    /// First line of a file.
    File(PathBuf),
    /// First line that a shell command prints.
    Command(OsString),
    /// Somebody at a terminal.
    Prompt,
    /// Nowhere.
    Missing,
}

/// How often to ask at a prompt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// An existing password: the repository tells if it is wrong.
    Once,
    /// A new one.
    Twice,
}

/// What a password is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The one that opens the repository.
    Existing,
    /// One that is to be added, or to replace another.
    New,
    /// The one of an archive that is imported.
    Archive,
    /// The one of another repository.
    Other,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Existing => "password",
            Self::New => "new password",
            Self::Archive => "pass phrase of the archive",
            Self::Other => "password of the repository to copy from",
        })
    }
}

impl Source {
    /// The password of the repository.
    pub fn of_repository(global: &Global) -> Result<Self> {
        if let Some(file) = &global.password_file {
            return Ok(Self::File(file.clone()));
        }
        if let Some(command) = &global.password_command {
            return Ok(Self::Command(command.clone()));
        }
        Self::of_environment("DEDUPLICITY_PASSWORD")
    }

    /// The new password of `key add` and `key passwd`.
    pub fn of_new_password(file: Option<&Path>) -> Result<Self> {
        match file {
            Some(file) => Ok(Self::File(file.to_owned())),
            None => Self::of_environment("DEDUPLICITY_NEW_PASSWORD"),
        }
    }

    /// The password of a repository that is copied from.
    pub fn of_other(file: Option<&Path>, command: Option<&OsStr>) -> Result<Self> {
        match (file, command) {
            (Some(file), _) => Ok(Self::File(file.to_owned())),
            (None, Some(command)) => Ok(Self::Command(command.to_owned())),
            (None, None) => Self::of_environment("DEDUPLICITY_FROM_PASSWORD"),
        }
    }

    fn of_environment(name: &str) -> Result<Self> {
        let variable = |suffix: &str| std::env::var_os(format!("{name}{suffix}")).filter(|v| !v.is_empty());
        let mut found = [
            variable("").map(Self::Value),
            variable("_FILE").map(|f| Self::File(f.into())),
            variable("_COMMAND").map(Self::Command),
        ]
        .into_iter()
        .flatten();
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => bail!("more than one of {name}, {name}_FILE and {name}_COMMAND is set"),
            (Some(source), None) => Ok(source),
            (None, _) if can_ask() => Ok(Self::Prompt),
            (None, _) => Ok(Self::Missing),
        }
    }

    /// Whether somebody has to be asked, or nobody can be.
    pub fn needs_answer(&self) -> bool {
        matches!(self, Self::Prompt | Self::Missing)
    }

    /// Gets the password.
    pub fn read(self, purpose: Purpose, ask: Ask) -> Result<Password> {
        let mut password = match self {
            Self::Value(value) => Zeroizing::new(value.into_vec()),
            Self::File(file) => from_file(&file)?,
            Self::Command(command) => from_command(&command)?,
            Self::Prompt => prompt(purpose, ask)?,
            Self::Missing => {
                let hint = match purpose {
                    Purpose::Existing => {
                        "set DEDUPLICITY_PASSWORD or DEDUPLICITY_PASSWORD_FILE, or use --password-file or --password-command"
                    }
                    Purpose::Other => {
                        "set DEDUPLICITY_FROM_PASSWORD or DEDUPLICITY_FROM_PASSWORD_FILE, or use --from-password-file or \
                         --from-password-command"
                    }
                    Purpose::Archive => "set PASSPHRASE, or use --passphrase-file",
                    Purpose::New => "set DEDUPLICITY_NEW_PASSWORD or DEDUPLICITY_NEW_PASSWORD_FILE, or use --new-password-file",
                };
                return Err(advise(format!("no {purpose} given, and no terminal to ask for it"), hint));
            }
        };
        if let Some(end) = password.iter().position(|b| *b == b'\n') {
            password.truncate(end);
        }
        if password.last() == Some(&b'\r') {
            password.pop();
        }
        if password.is_empty() {
            bail!("the {purpose} is empty");
        }
        Ok(password)
    }
}

/// A pass phrase of something else than a repository: the first line of what there is.
///
/// # Errors
///
/// If it cannot be read, or is empty.
pub fn read_passphrase(source: Source) -> Result<Password> {
    source.read(Purpose::Archive, Ask::Once)
}

fn can_ask() -> bool {
    (std::io::stdin().is_terminal() || std::io::stderr().is_terminal()) && std::fs::File::open("/dev/tty").is_ok()
}

fn from_file(path: &Path) -> Result<Password> {
    use std::io::Read;
    let mut password = Zeroizing::new(Vec::with_capacity(4096));
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_PASSWORD as u64 + 1).read_to_end(&mut password))
        .with_context(|| format!("cannot read the password file {}", path.display()))?;
    if password.len() > MAX_PASSWORD {
        bail!("the password file {} is longer than {MAX_PASSWORD} bytes", path.display());
    }
    Ok(password)
}

fn from_command(command: &OsStr) -> Result<Password> {
    let output = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run the password command")?;
    if !output.status.success() {
        bail!("the password command failed ({})", output.status);
    }
    Ok(Zeroizing::new(output.stdout))
}

fn prompt(purpose: Purpose, ask: Ask) -> Result<Password> {
    let ask_for = |text: String| {
        rpassword::prompt_password(text).map(Zeroizing::new).map_err(|error| match error.kind() {
            std::io::ErrorKind::Interrupted => engine::error::Error::Interrupted.into(),
            _ => anyhow::Error::new(error).context("cannot ask for the password"),
        })
    };
    let first = ask_for(format!("{purpose}: "))?;
    if ask == Ask::Twice && *ask_for(format!("{purpose} again: "))? != *first {
        bail!("the two passwords differ");
    }
    Ok(Zeroizing::new(first.as_bytes().to_vec()))
}
