//! Paths of entries: raw bytes, relative, `/`-separated, ordered component by component.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// Longest path of an entry in bytes (Linux `PATH_MAX` without its NUL).
pub const MAX_PATH: usize = 4095;
/// Longest component in bytes (Linux `NAME_MAX`).
pub const MAX_NAME: usize = 255;
/// Most components in a path.
pub const MAX_DEPTH: usize = 2048;

/// Path of an entry below the root of a tree. Empty = the root itself.
///
/// Never starts or ends with `/`, has no empty, `.` or `..` component and no NUL: a value of this type can be joined
/// below a directory without leaving it, unless a symlink lies in the way.
#[derive(PartialEq, Eq, Hash, Default)]
pub struct EntryPath(Vec<u8>);

impl Clone for EntryPath {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }

    /// Keeps the room that is there.
    fn clone_from(&mut self, source: &Self) {
        self.0.clone_from(&source.0);
    }
}

/// Why bytes are not an [`EntryPath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// An empty component, or a leading or trailing slash.
    #[error("empty path component")]
    EmptyComponent,
    /// `.` or `..`.
    #[error("'.' or '..' as a path component")]
    DotComponent,
    /// A NUL byte.
    #[error("NUL byte in path")]
    Nul,
    /// Longer than [`MAX_PATH`], a component longer than [`MAX_NAME`], or deeper than [`MAX_DEPTH`].
    #[error("path too long or too deep")]
    TooLong,
}

impl EntryPath {
    /// The root of a tree.
    #[must_use]
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Checks and takes raw bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Ok(Self(bytes));
        }
        if bytes.len() > MAX_PATH {
            return Err(PathError::TooLong);
        }
        let mut depth = 0;
        for name in bytes.split(|b| *b == b'/') {
            check_name(name)?;
            depth += 1;
        }
        if depth > MAX_DEPTH {
            return Err(PathError::TooLong);
        }
        Ok(Self(bytes))
    }

    /// The path of `name` in this directory.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        check_name(name)?;
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        if bytes.len() > MAX_PATH {
            return Err(PathError::TooLong);
        }
        Ok(Self(bytes))
    }

    /// Raw bytes, `/`-separated.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Last component; empty for the root.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|b| *b == b'/').next().unwrap_or_default()
    }

    /// The directory that holds this entry; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.0.is_empty() {
            return None;
        }
        let cut = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(Self(self.0[..cut].to_vec()))
    }

    /// Whether this is `dir` itself or lies below it.
    #[must_use]
    pub fn is_within(&self, dir: &Self) -> bool {
        self.strip(dir).is_some()
    }

    /// This path relative to `dir`; `None` if it does not lie within.
    #[must_use]
    pub fn strip(&self, dir: &Self) -> Option<Self> {
        if dir.0.is_empty() {
            return Some(self.clone());
        }
        let rest = self.0.strip_prefix(dir.0.as_slice())?;
        match rest.first() {
            None => Some(Self::root()),
            Some(b'/') => Some(Self(rest[1..].to_vec())),
            Some(_) => None,
        }
    }

    /// Components from the top.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|c| !c.is_empty())
    }

    /// For people: bytes that are not UTF-8 are replaced, control characters escaped.
    #[must_use]
    pub fn display(&self) -> String {
        display_bytes(&self.0)
    }
}

fn check_name(name: &[u8]) -> Result<(), PathError> {
    match name {
        b"" => Err(PathError::EmptyComponent),
        b"." | b".." => Err(PathError::DotComponent),
        _ if name.len() > MAX_NAME => Err(PathError::TooLong),
        _ if name.contains(&0) => Err(PathError::Nul),
        _ if name.contains(&b'/') => Err(PathError::EmptyComponent),
        _ => Ok(()),
    }
}

/// Renders a name for a terminal: invalid UTF-8 replaced, control characters escaped, so that a file name cannot
/// send escape sequences.
#[must_use]
pub fn display_bytes(bytes: &[u8]) -> String {
    let text: Cow<'_, str> = String::from_utf8_lossy(bytes);
    if text.chars().any(char::is_control) {
        text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
    } else {
        text.into_owned()
    }
}

/// Compares raw paths component by component: `a/b` sorts before `a.b`, and a directory right before its contents.
/// Since names hold no NUL, that is byte order with `/` below every other byte.
#[must_use]
pub fn compare_bytes(a: &[u8], b: &[u8]) -> Ordering {
    match a.iter().zip(b).position(|(x, y)| x != y) {
        None => a.len().cmp(&b.len()),
        Some(at) => {
            let rank = |c: u8| if c == b'/' { 0 } else { u16::from(c) + 1 };
            rank(a[at]).cmp(&rank(b[at]))
        }
    }
}

impl Ord for EntryPath {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_bytes(&self.0, &other.0)
    }
}

impl PartialOrd for EntryPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rejects_what_could_leave_a_directory() {
        for bad in [&b"/a"[..], b"a/", b"a//b", b"..", b"a/../b", b".", b"a/./b", b"a\0b"] {
            assert!(EntryPath::new(bad).is_err(), "{bad:?}");
        }
        assert!(EntryPath::new(vec![b'a'; 256]).is_err());
        assert!(EntryPath::root().join(b"a/b").is_err());
    }

    #[test]
    fn strip_knows_component_borders() {
        let p = |s: &str| EntryPath::new(s).expect("valid");
        assert_eq!(p("a/b").strip(&p("a")), Some(p("b")));
        assert_eq!(p("ab").strip(&p("a")), None);
        assert_eq!(p("a").strip(&p("a")), Some(EntryPath::root()));
        assert_eq!(p("a").parent(), Some(EntryPath::root()));
        assert_eq!(EntryPath::root().parent(), None);
    }

    proptest! {
        #[test]
        fn order_is_by_components(a in "[a-c./]{0,8}", b in "[a-c./]{0,8}") {
            let (Ok(a), Ok(b)) = (EntryPath::new(a), EntryPath::new(b)) else { return Ok(()) };
            let by_parts = a.components().collect::<Vec<_>>().cmp(&b.components().collect::<Vec<_>>());
            prop_assert_eq!(a.cmp(&b), by_parts);
        }
    }
}
