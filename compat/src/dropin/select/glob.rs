//! Patterns as expressions over whole paths.
//!
//! FORMAT §15.2. A pattern becomes two expressions: one for what it covers, one for the directories on the way there.

use regex::bytes::{Regex, RegexBuilder};

use super::{SelectError, dialect};

/// A pattern that was understood.
#[derive(Debug)]
pub(super) struct Pattern {
    /// Matches at the beginning of what is covered: the path itself, and all that lies in it.
    covers: Regex,
    /// Matches a path that is covered as such, not as a part of something; only asked where only directories count.
    exact: Option<Regex>,
    /// Matches what leads to something that is covered.
    leads: Regex,
    everything: bool,
}

impl Pattern {
    /// Of a shell pattern. `fold` makes case count for nothing.
    pub fn glob(text: &[u8], fold: bool) -> Result<Self, SelectError> {
        let everything = text == b"**";
        let (text, only_dirs): (Vec<u8>, bool) = match text {
            b"/" => (b"/**".to_vec(), false),
            [rest @ .., b'/'] => (rest.to_vec(), true),
            other => (other.to_vec(), false),
        };
        let parts: Vec<&[u8]> = text.split(|b| *b == b'/').collect();
        if parts.iter().skip(1).take(parts.len().saturating_sub(2)).any(|part| part.is_empty()) {
            return Err(SelectError::Glob(String::from_utf8_lossy(&text).into_owned()));
        }
        let body = translate(&text);
        let covers = compile(&format!(r"\A(?:{body})(?:/|\n?\z)"), fold)?;
        let exact = only_dirs.then(|| compile(&format!(r"\A(?:{body})\n?\z"), fold)).transpose()?;
        let leads = compile(&format!(r"\A(?:{})\n?\z", leading(&text).join("|")), fold)?;
        Ok(Self { covers, exact, leads, everything })
    }

    /// Of a text that stands for itself.
    pub fn literal(text: &[u8], fold: bool) -> Result<Self, SelectError> {
        let text = if text.len() > 1 { text.strip_suffix(b"/").unwrap_or(text) } else { text };
        let parts: Vec<&[u8]> = text.split(|b| *b == b'/').collect();
        let leads: Vec<String> = (1..=parts.len()).map(|n| escape_all(&or_root(parts[..n].join(&b'/')))).collect();
        Ok(Self {
            covers: compile(&format!(r"\A(?:{})(?:/|\n?\z)", escape_all(text)), fold)?,
            exact: None,
            leads: compile(&format!(r"\A(?:{})\n?\z", leads.join("|")), fold)?,
            everything: false,
        })
    }

    /// Whether a path is covered.
    pub fn covers(&self, path: &[u8], is_dir: bool) -> bool {
        if self.everything {
            return true;
        }
        if !self.covers.is_match(path) {
            return false;
        }
        is_dir || !self.exact.as_ref().is_some_and(|exact| exact.is_match(path))
    }

    /// Whether something that is covered may lie below a path. Not so below a file where only a directory would be covered.
    pub fn leads(&self, path: &[u8]) -> bool {
        !self.covers.is_match(path) && self.leads.is_match(path)
    }
}

/// An expression of the user's own, found anywhere in a path.
pub(super) fn regexp(text: &[u8], fold: bool) -> Result<Regex, SelectError> {
    let text = std::str::from_utf8(text).map_err(|_| SelectError::Regexp("it is not UTF-8".to_owned()))?;
    let translated = dialect::from_python(text).map_err(|why| SelectError::Regexp(why.to_owned()))?;
    compile(&translated, fold)
}

fn compile(text: &str, fold: bool) -> Result<Regex, SelectError> {
    let built = RegexBuilder::new(text).case_insensitive(fold).dot_matches_new_line(false).build();
    built.map_err(|error| SelectError::Regexp(error.to_string().replace('\n', " ")))
}

/// A shell pattern without `ignorecase:` in front, and whether case counts for nothing in it.
pub(super) fn case(text: &[u8], fold: bool) -> (&[u8], bool) {
    const WORD: &[u8] = b"ignorecase:";
    match text.split_at_checked(WORD.len()) {
        Some((head, rest)) if head.eq_ignore_ascii_case(WORD) => (rest, true),
        _ => (text, fold),
    }
}

fn or_root(text: Vec<u8>) -> Vec<u8> {
    if text.is_empty() { b"/".to_vec() } else { text }
}

/// The leading parts of a pattern, cut at each slash, up to the first `**`.
fn leading(text: &[u8]) -> Vec<String> {
    let stars = text.windows(2).position(|pair| pair == b"**");
    let text = stars.map_or(text, |at| &text[..at + 2]);
    let parts: Vec<&[u8]> = text.split(|b| *b == b'/').collect();
    (1..=parts.len()).map(|n| translate(&or_root(parts[..n].join(&b'/')))).collect()
}

/// A pattern as an expression.
fn translate(text: &[u8]) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'*' if rest.first() == Some(&b'*') => {
                rest = &rest[1..];
                out += r"(?s-u:.)*";
            }
            b'*' => out += r"(?-u:[^/])*",
            // A character, or a byte of none.
            b'?' => out += r"(?:[^/]|(?-u:[\x80-\xff]))",
            b'[' => match class(rest) {
                Some((class, after)) => {
                    out += &class;
                    rest = after;
                }
                None => out += r"\[",
            },
            _ => {
                let end = rest.iter().position(|b| matches!(b, b'*' | b'?' | b'[')).unwrap_or(rest.len());
                let (literal, after) = rest.split_at(end);
                out += &escape_all(&[&[*first], literal].concat());
                rest = after;
            }
        }
    }
    out
}

/// What stands behind a `[`, up to its end; `None` if it has none.
fn class(text: &[u8]) -> Option<(String, &[u8])> {
    let negated = matches!(text.first(), Some(b'!' | b'^'));
    let start = usize::from(negated);
    let from = start + usize::from(text.get(start) == Some(&b']'));
    let end = from + text.get(from..)?.iter().position(|b| *b == b']')?;
    let inner = std::str::from_utf8(&text[start..end]).ok().filter(|inner| !inner.is_empty())?;
    let mut out = String::from(if negated { "[^" } else { "[" });
    for c in inner.chars() {
        match c {
            '-' => out.push('-'),
            c if c.is_alphanumeric() || !c.is_ascii() => out.push(c),
            c => out.extend(['\\', c]),
        }
    }
    Some((out + "]", &text[end + 1..]))
}

/// A text that matches itself only; bytes that are no UTF-8 included.
fn escape_all(text: &[u8]) -> String {
    let mut out = String::new();
    for chunk in text.utf8_chunks() {
        out += &regex::escape(chunk.valid());
        for byte in chunk.invalid() {
            out += &format!(r"(?-u:\x{byte:02x})");
        }
    }
    out
}
