//! Names of files in an archive: what a file is, judged by its name alone.
//!
//! FORMAT §2. Only names that duplicity itself writes are accepted, to the last character; stock takes anything after the kind
//! word for the real thing, and then stumbles over copies and companions. Names that are close are told from foreign ones, so
//! that they can be reported.

use std::fmt;

use crate::time::{Time, base36};

/// Prefixes of an archive's file names, as the options `--file-prefix*` gave them. Taken literally.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixes {
    /// Of all files (`--file-prefix`), before the others.
    pub all: String,
    /// Of volumes (`--file-prefix-archive`).
    pub archive: String,
    /// Of manifests (`--file-prefix-manifest`).
    pub manifest: String,
    /// Of signature files (`--file-prefix-signature`).
    pub signature: String,
    /// Of statistics (`--file-prefix-jsonstat`).
    pub jsonstat: String,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// A volume (difftar), by its number from 1.
    Volume(u32),
    /// The manifest of a set.
    Manifest,
    /// The signatures (sigtar) of a set.
    Signature,
    /// Statistics of a run, in JSON.
    JsonStat,
}

/// The times that name a backup set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetTimes {
    /// A full backup, and when it began.
    Full(Time),
    /// An increment.
    Inc {
        /// When the set that it is based on began.
        start: Time,
        /// When it began itself. Later than `start`, unless a clock was set back.
        end: Time,
    },
}

impl SetTimes {
    /// The time of the set that this one is based on; of a full set, its own.
    #[must_use]
    pub fn start(self) -> Time {
        match self {
            Self::Full(time) => time,
            Self::Inc { start, .. } => start,
        }
    }

    /// The time whose state the set holds.
    #[must_use]
    pub fn end(self) -> Time {
        match self {
            Self::Full(time) => time,
            Self::Inc { end, .. } => end,
        }
    }

    /// Whether it needs no other set.
    #[must_use]
    pub fn is_full(self) -> bool {
        matches!(self, Self::Full(_))
    }
}

/// `full 20231114T221320Z`, `increment 20231114T221320Z to 20231115T221320Z`.
impl fmt::Display for SetTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(time) => write!(f, "full {time}"),
            Self::Inc { start, end } => write!(f, "increment {start} to {end}"),
        }
    }
}

/// How the content is wrapped, by the end of the name. Before 2015 duplicity also wrote gzip under names that end plainly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding {
    /// Not at all.
    Plain,
    /// gzip.
    Gzip,
    /// OpenPGP, encrypted.
    OpenPgp,
    /// S/MIME, by gpgsm.
    Smime,
}

/// A file name, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileName {
    /// What the file is.
    pub kind: FileKind,
    /// The set it belongs to.
    pub set: SetTimes,
    /// How its content is wrapped.
    pub suffix: Encoding,
    /// Whether the name says that the file is not finished (`.part`). Stock leaves such files in its local cache only.
    pub partial: bool,
}

/// Why a name is not that of a file of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// It has nothing to do with duplicity, or with these prefixes.
    Foreign,
    /// Recovery data beside a file, written by duplicity's par2 backends.
    Par2,
    /// A name of the archive with something after it, like `.tmp`.
    Trailing(String),
    /// The time in it cannot be read.
    Time,
    /// The volume number in it is none from 1 to 4294967295, or is written with leading zeros.
    Number,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("not a file of this archive"),
            Self::Par2 => f.write_str("recovery data of par2, not needed"),
            Self::Trailing(end) => write!(f, "a copy or remnant: the name goes on with '{}'", end.escape_debug()),
            Self::Time => f.write_str("the time in its name cannot be read"),
            Self::Number => f.write_str("the volume number in its name is not a number from 1 to 4294967295"),
        }
    }
}

/// Takes a name apart; `None` if it is not that of a file of the archive.
#[must_use]
pub fn parse(name: &str, prefixes: &Prefixes) -> Option<FileName> {
    classify(name, prefixes).ok()
}

/// Takes a name apart, or says why it is not that of a file of the archive.
///
/// # Errors
///
/// Any name that duplicity does not write with these prefixes.
pub fn classify(name: &str, prefixes: &Prefixes) -> Result<FileName, NameError> {
    let Some(name) = name.strip_prefix(&*prefixes.all) else { return Err(NameError::Foreign) };
    let mut best = NameError::Foreign;
    for prefix in [&prefixes.archive, &prefixes.manifest, &prefixes.signature, &prefixes.jsonstat] {
        let Some(rest) = name.strip_prefix(&**prefix) else { continue };
        let result = if rest.starts_with("duplicity-") { long(rest) } else { short(rest) };
        match result {
            Ok(file) if prefixes.of(file.kind) == prefix => return Ok(file),
            Ok(_) => {}
            Err(e) if best == NameError::Foreign => best = e,
            Err(_) => {}
        }
    }
    if best != NameError::Foreign && is_par2(name) { Err(NameError::Par2) } else { Err(best) }
}

impl Prefixes {
    fn of(&self, kind: FileKind) -> &String {
        match kind {
            FileKind::Volume(_) => &self.archive,
            FileKind::Manifest => &self.manifest,
            FileKind::Signature => &self.signature,
            FileKind::JsonStat => &self.jsonstat,
        }
    }
}

fn is_par2(name: &str) -> bool {
    name.len().checked_sub(5).and_then(|at| name.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(".par2"))
}

/// `duplicity-full.T.vol1.difftar.gz` and its like.
fn long(name: &str) -> Result<FileName, NameError> {
    let heads = [
        ("duplicity-full.", true, false),
        ("duplicity-inc.", false, false),
        ("duplicity-full-signatures.", true, true),
        ("duplicity-new-signatures.", false, true),
    ];
    let found = heads.into_iter().find_map(|(head, full, signatures)| Some((name.strip_prefix(head)?, full, signatures)));
    let Some((rest, full, signatures)) = found else { return Err(NameError::Foreign) };
    let (first, rest) = Time::scan(rest).ok_or(NameError::Time)?;
    let (set, rest) = if full {
        (SetTimes::Full(first), rest)
    } else {
        let (end, rest) = rest.strip_prefix(".to.").and_then(Time::scan).ok_or(NameError::Time)?;
        (SetTimes::Inc { start: first, end }, rest)
    };
    let (word, rest) = field(rest).ok_or(NameError::Time)?;
    let (kind, rest) = match (word, signatures) {
        ("sigtar", true) => (FileKind::Signature, rest),
        ("manifest", false) => (FileKind::Manifest, rest),
        ("jsonstat", false) => (FileKind::JsonStat, rest),
        (_, true) => return Err(NameError::Foreign),
        (_, false) => {
            let number = word.strip_prefix("vol").ok_or(NameError::Foreign)?;
            let Some(("difftar", rest)) = field(rest) else { return Err(NameError::Foreign) };
            let decimal = number.bytes().all(|b| b.is_ascii_digit());
            (volume(number, number.parse().ok().filter(|_| decimal))?, rest)
        }
    };
    with_suffix(kind, set, rest, ".part")
}

/// `df.B.1.dt.g` and its like.
fn short(name: &str) -> Result<FileName, NameError> {
    short_parts(name).ok_or(NameError::Foreign)?
}

/// `None` for a name that has nothing to do with these forms.
fn short_parts(name: &str) -> Option<Result<FileName, NameError>> {
    let (head, rest) = name.split_at(name.find('.')?);
    let (first, mut rest) = field(rest)?;
    base36(first)?;
    let mut set = Time::parse_base36(first).map(SetTimes::Full);
    if matches!(head, "di" | "dns" | "dist") {
        let (end, after) = field(rest)?;
        base36(end)?;
        let times = (Time::parse_base36(first), Time::parse_base36(end));
        set = if let (Some(start), Some(end)) = times { Some(SetTimes::Inc { start, end }) } else { None };
        rest = after;
    }
    let (word, rest) = field(rest)?;
    let (kind, rest) = match (head, word) {
        ("df" | "di", number) if let Some(("dt", rest)) = field(rest) => match volume(number, base36(number)) {
            Ok(kind) => (kind, rest),
            Err(e) => return Some(Err(e)),
        },
        ("df" | "di", "m") => (FileKind::Manifest, rest),
        ("dfs" | "dns", "st") => (FileKind::Signature, rest),
        ("dfst" | "dist", "jst") => (FileKind::JsonStat, rest),
        _ => return None,
    };
    Some(set.ok_or(NameError::Time).and_then(|set| with_suffix(kind, set, rest, ".p")))
}

/// Splits `.word` off, up to the next dot.
fn field(rest: &str) -> Option<(&str, &str)> {
    let rest = rest.strip_prefix('.')?;
    Some(rest.split_at(rest.find('.').unwrap_or(rest.len())))
}

fn volume(text: &str, number: Option<u64>) -> Result<FileKind, NameError> {
    match number.map(u32::try_from) {
        Some(Ok(number)) if !text.starts_with('0') => Ok(FileKind::Volume(number)),
        _ => Err(NameError::Number),
    }
}

fn with_suffix(kind: FileKind, set: SetTimes, end: &str, unfinished: &str) -> Result<FileName, NameError> {
    let (partial, end) = match end.strip_prefix(unfinished) {
        Some(rest) if rest.is_empty() || rest.starts_with('.') => (true, rest),
        _ => (false, end),
    };
    let suffix = match end {
        "" => Encoding::Plain,
        ".gz" | ".z" => Encoding::Gzip,
        ".gpg" | ".g" => Encoding::OpenPgp,
        ".p7m" => Encoding::Smime,
        _ if end.starts_with('.') => return Err(NameError::Trailing(end.to_owned())),
        _ => return Err(NameError::Foreign),
    };
    Ok(FileName { kind, set, suffix, partial })
}

impl FileName {
    /// The long name, as all versions write it by default.
    #[must_use]
    pub fn long(&self, prefixes: &Prefixes) -> String {
        let head = match (self.kind, self.set) {
            (FileKind::Signature, SetTimes::Full(time)) => format!("duplicity-full-signatures.{time}"),
            (FileKind::Signature, SetTimes::Inc { start, end }) => format!("duplicity-new-signatures.{start}.to.{end}"),
            (_, SetTimes::Full(time)) => format!("duplicity-full.{time}"),
            (_, SetTimes::Inc { start, end }) => format!("duplicity-inc.{start}.to.{end}"),
        };
        let word = match self.kind {
            FileKind::Volume(number) => format!("vol{number}.difftar"),
            FileKind::Manifest => "manifest".to_owned(),
            FileKind::Signature => "sigtar".to_owned(),
            FileKind::JsonStat => "jsonstat".to_owned(),
        };
        let part = if self.partial { ".part" } else { "" };
        let suffix = match self.suffix {
            Encoding::Plain => "",
            Encoding::Gzip => ".gz",
            Encoding::OpenPgp => ".gpg",
            Encoding::Smime => ".p7m",
        };
        format!("{}{}{head}.{word}{part}{suffix}", prefixes.all, prefixes.of(self.kind))
    }
}

#[cfg(test)]
#[path = "name/tests.rs"]
mod tests;
