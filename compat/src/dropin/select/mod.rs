//! Which files of a source belong to a backup: rules in order, the first that decides counts.
//!
//! FORMAT §15. Paths are compared as text: the source as it was given, a slash, and the path below it; those of an archive as
//! they are listed.

mod candidate;
mod dialect;
mod filelist;
mod glob;

#[cfg(test)]
mod tests;

use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use regex::bytes::Regex;

pub use self::candidate::{Attributes, Candidate, Local};
use self::glob::Pattern;

/// An option of the selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `--include`, `--exclude`.
    Pattern {
        /// Which of the two.
        include: bool,
        /// What is meant depends on the filter.
        pattern: Vec<u8>,
    },
    /// `--include-regexp`, `--exclude-regexp`.
    Regexp {
        /// Which of the two.
        include: bool,
        /// The expression.
        pattern: Vec<u8>,
    },
    /// `--include-filelist`, `--exclude-filelist`.
    Filelist {
        /// What lines without a sign mean.
        include: bool,
        /// `None`: the standard input.
        file: Option<PathBuf>,
    },
    /// `--exclude-if-present`.
    IfPresent(Vec<u8>),
    /// `--exclude-device-files`.
    DeviceFiles,
    /// `--exclude-other-filesystems`.
    OtherFilesystems,
    /// `--exclude-older-than`, in seconds since 1970.
    OlderThan(i64),
    /// `--filter-*`: how patterns behind it are meant.
    Filter(Filter),
}

/// How patterns are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// As shell patterns.
    Globbing,
    /// As they stand.
    Literal,
    /// As regular expressions.
    Regexp,
    /// Upper and lower case are the same.
    IgnoreCase,
    /// They are not.
    StrictCase,
}

/// Why a selection makes no sense.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// An empty part in a pattern.
    #[error("the pattern '{0}' has two slashes in a row")]
    Glob(String),
    /// An expression that is none.
    #[error("not a regular expression that can be used: {0}")]
    Regexp(String),
    /// A pattern that can match nothing in the source.
    #[error(
        "the pattern '{pattern}' can match nothing in the source '{source_dir}': patterns begin with the source as it is given, \
         or with a wildcard"
    )]
    Prefix {
        /// The pattern.
        pattern: String,
        /// The source.
        source_dir: String,
    },
    /// A pattern for a restore that no path of an archive has.
    #[error(
        "the pattern '{0}' can match nothing in an archive: patterns of a restore are relative to the archive's root, as \
         list-current-files prints paths, without '.' and '..'"
    )]
    Archive(String),
    /// A rule that asks for more than an archive knows.
    #[error("{0} cannot be used with restore")]
    NotForRestore(&'static str),
    /// A list that cannot be read.
    #[error("cannot read the file list {file}: {error}")]
    Filelist {
        /// Its name.
        file: String,
        /// What happened.
        error: std::io::Error,
    },
    /// A last rule that only includes.
    #[error("the last rule of the selection includes files; without a rule that excludes behind it, it has no effect")]
    Redundant,
    /// A filter without patterns behind it.
    #[error("the last --filter option has no pattern behind it")]
    TrailingFilter,
    /// Filters that say what is so anyway.
    #[error("patterns are shell patterns and mind upper and lower case anyway: these --filter options have no effect")]
    RedundantFilter,
}

impl SelectError {
    /// duplicity's exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Prefix { .. } | Self::Archive(_) => 14,
            Self::Glob(_) => 15,
            Self::Redundant => 16,
            Self::Filelist { .. } | Self::NotForRestore(_) => 23,
            // To duplicity, an accident.
            Self::Regexp(_) => 30,
            Self::RedundantFilter => 70,
            Self::TrailingFilter => 71,
        }
    }
}

/// What becomes of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is stored.
    Include,
    /// A directory that is stored if something in it is.
    Scan,
    /// It is left out, with all that is in it.
    Exclude,
}

#[derive(Debug)]
enum Judge {
    Pattern { include: bool, pattern: Pattern },
    Regexp { include: bool, regex: Regex },
    IfPresent(Vec<u8>),
    DeviceFiles,
    OtherFilesystems(Option<u64>),
    OlderThan(i64),
}

/// The rules of a source, or of an archive.
#[derive(Debug)]
pub struct Selection {
    /// The source as it was given, without what counts for nothing; `None` for an archive.
    base: Option<Vec<u8>>,
    judges: Vec<Judge>,
}

/// How patterns are read while rules are taken in.
struct Reading {
    filter: Filter,
    fold: bool,
    null_separator: bool,
}

impl Selection {
    /// Takes the rules for a source in. `null_separator` ends the lines of file lists with NUL.
    ///
    /// # Errors
    ///
    /// A rule that makes no sense, or a list that cannot be read.
    pub fn new(source: &Path, rules: &[Rule], null_separator: bool) -> Result<Self, SelectError> {
        let device = std::fs::metadata(source).ok().map(|found| found.dev());
        let base = canonical(source.as_os_str().as_bytes());
        Self { base: Some(base), judges: Vec::new() }.with(rules, null_separator, device)
    }

    /// Takes the rules for a restore in: they are about paths as `list-current-files` prints them.
    ///
    /// # Errors
    ///
    /// A rule that makes no sense or cannot be answered from an archive, or a list that cannot be read.
    pub fn of_archive(rules: &[Rule], null_separator: bool) -> Result<Self, SelectError> {
        let unknown = rules.iter().find_map(|rule| match rule {
            Rule::IfPresent(_) => Some("--exclude-if-present"),
            Rule::OtherFilesystems => Some("--exclude-other-filesystems"),
            _ => None,
        });
        match unknown {
            Some(option) => Err(SelectError::NotForRestore(option)),
            None => Self { base: None, judges: Vec::new() }.with(rules, null_separator, None),
        }
    }

    fn with(mut self, rules: &[Rule], null_separator: bool, device: Option<u64>) -> Result<Self, SelectError> {
        let mut reading = Reading { filter: Filter::Globbing, fold: false, null_separator };
        check_filters(rules)?;
        for rule in rules {
            self.take(rule, &mut reading, device)?;
        }
        match self.judges.last() {
            Some(Judge::Pattern { include: true, .. } | Judge::Regexp { include: true, .. }) => Err(SelectError::Redundant),
            _ => Ok(self),
        }
    }

    /// Whether there is no rule at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.judges.is_empty()
    }

    fn take(&mut self, rule: &Rule, reading: &mut Reading, device: Option<u64>) -> Result<(), SelectError> {
        match rule {
            Rule::Filter(Filter::IgnoreCase) => reading.fold = true,
            Rule::Filter(Filter::StrictCase) => reading.fold = false,
            Rule::Filter(filter) => reading.filter = *filter,
            Rule::Pattern { include, pattern } => self.pattern(*include, pattern, reading)?,
            Rule::Regexp { include, pattern } => {
                self.judges.push(Judge::Regexp { include: *include, regex: glob::regexp(pattern, reading.fold)? });
            }
            Rule::Filelist { include, file } => {
                let name = file.as_ref().map_or("on the standard input".to_owned(), |file| file.display().to_string());
                let failed = |error| SelectError::Filelist { file: name, error };
                let text = match file {
                    Some(file) => std::fs::read(file).map_err(failed)?,
                    None => {
                        let mut text = Vec::new();
                        std::io::stdin().read_to_end(&mut text).map_err(failed)?;
                        text
                    }
                };
                for (sign, line) in filelist::lines(&text, reading.null_separator) {
                    self.pattern(sign.unwrap_or(*include), &line, reading)?;
                }
            }
            // Those two come before all others.
            Rule::IfPresent(name) => self.judges.insert(0, Judge::IfPresent(name.clone())),
            Rule::DeviceFiles => self.judges.insert(0, Judge::DeviceFiles),
            Rule::OtherFilesystems => self.judges.push(Judge::OtherFilesystems(device)),
            Rule::OlderThan(time) => self.judges.push(Judge::OlderThan(*time)),
        }
        Ok(())
    }

    fn pattern(&mut self, include: bool, text: &[u8], reading: &Reading) -> Result<(), SelectError> {
        let pattern = match reading.filter {
            Filter::Regexp => {
                self.judges.push(Judge::Regexp { include, regex: glob::regexp(text, reading.fold)? });
                return Ok(());
            }
            Filter::Literal => Pattern::literal(self.within(text)?, reading.fold)?,
            _ => {
                let (text, fold) = glob::case(text, reading.fold);
                Pattern::glob(self.within(text)?, fold)?
            }
        };
        if let Some(base) = self.base.as_ref().filter(|base| !pattern.covers(base, true) && !pattern.leads(base)) {
            let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            return Err(SelectError::Prefix { pattern: show(text), source_dir: show(base) });
        }
        self.judges.push(Judge::Pattern { include, pattern });
        Ok(())
    }

    /// The text of a pattern; of one for an archive without what counts for nothing in front.
    fn within<'t>(&self, text: &'t [u8]) -> Result<&'t [u8], SelectError> {
        if self.base.is_some() {
            return Ok(text);
        }
        let mut rest = text;
        while let Some(after) = rest.strip_prefix(b"./") {
            rest = after;
        }
        let has_dots = rest.split(|b| *b == b'/').any(|part| matches!(part, b"." | b".."));
        if rest.is_empty() || rest.starts_with(b"/") || has_dots {
            return Err(SelectError::Archive(String::from_utf8_lossy(text).into_owned()));
        }
        Ok(rest)
    }

    /// The text that rules see of a path below the source, or in the archive.
    fn text(&self, relative: &[u8]) -> Vec<u8> {
        let Some(base) = &self.base else { return relative.to_vec() };
        let slash: &[u8] = if base == b"/" { b"" } else { b"/" };
        [base, slash, relative].concat()
    }

    /// What becomes of a path below the source or the archive's root, which is not that itself.
    #[must_use]
    pub fn judge(&self, relative: &[u8], candidate: &dyn Candidate) -> Verdict {
        if self.judges.is_empty() {
            return Verdict::Include;
        }
        let text = self.text(relative);
        let mut scan = false;
        for judge in &self.judges {
            match judge.opinion(&text, candidate) {
                Some(Verdict::Scan) => scan = true,
                Some(Verdict::Include) => return Verdict::Include,
                Some(Verdict::Exclude) => return if scan { Verdict::Scan } else { Verdict::Exclude },
                None => {}
            }
        }
        if scan { Verdict::Scan } else { Verdict::Include }
    }
}

impl Judge {
    fn opinion(&self, text: &[u8], candidate: &dyn Candidate) -> Option<Verdict> {
        let excluded = |wanted: bool| wanted.then_some(Verdict::Exclude);
        match self {
            Self::Pattern { include: false, pattern } => excluded(pattern.covers(text, candidate.is_dir())),
            Self::Pattern { include: true, pattern } if pattern.covers(text, candidate.is_dir()) => Some(Verdict::Include),
            Self::Pattern { pattern, .. } => pattern.leads(text).then_some(Verdict::Scan),
            Self::Regexp { include, regex } => {
                let verdict = if *include { Verdict::Include } else { Verdict::Exclude };
                // To Python, `$` stands before a line feed at the end, too.
                let line = text.strip_suffix(b"\n");
                (regex.is_match(text) || line.is_some_and(|line| regex.is_match(line))).then_some(verdict)
            }
            Self::IfPresent(name) => excluded(candidate.is_dir() && candidate.holds(name)),
            Self::DeviceFiles => {
                excluded(!candidate.is_dir() && candidate.attributes().is_some_and(|attributes| attributes.is_device))
            }
            Self::OtherFilesystems(device) => {
                let found = candidate.attributes().and_then(|attributes| attributes.file_system);
                excluded(found.is_some() && found != *device)
            }
            Self::OlderThan(time) => {
                let is_old = |attributes: Attributes| attributes.is_file && attributes.mtime < *time;
                excluded(!candidate.is_dir() && candidate.attributes().is_some_and(is_old))
            }
        }
    }
}

/// Filters have to change something.
fn check_filters(rules: &[Rule]) -> Result<(), SelectError> {
    if matches!(rules.last(), Some(Rule::Filter(_))) {
        return Err(SelectError::TrailingFilter);
    }
    let mut filters = rules.iter().filter(|rule| matches!(rule, Rule::Filter(_))).peekable();
    let is_usual = |rule: &Rule| matches!(rule, Rule::Filter(Filter::Globbing | Filter::StrictCase));
    if filters.peek().is_some() && filters.all(is_usual) { Err(SelectError::RedundantFilter) } else { Ok(()) }
}

/// A path without empty parts and dots; `.` if nothing is left.
#[must_use]
pub fn canonical(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    let joined = parts.join(&b'/');
    match (path.first(), joined.is_empty()) {
        (Some(b'/'), _) => [b"/", &joined[..]].concat(),
        (_, true) => b".".to_vec(),
        _ => joined,
    }
}

/// The same as a path.
#[must_use]
pub fn canonical_path(path: &Path) -> PathBuf {
    std::ffi::OsString::from_vec(canonical(path.as_os_str().as_bytes())).into()
}
