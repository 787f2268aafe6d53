//! Failures on the way to a store, before anybody has said which store and which file.

use std::io;

use compat::store::{StoreError, StoreErrorKind};

/// Longest message that is passed on, in characters.
const MAX_MESSAGE: usize = 300;

/// A failed attempt. Travels through readers inside an [`io::Error`].
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub kind: StoreErrorKind,
    /// One line, without credentials.
    pub message: String,
}

impl Failure {
    /// Control characters of a server's words become spaces.
    pub(crate) fn new(kind: StoreErrorKind, message: impl AsRef<str>) -> Self {
        Self { kind, message: one_line(message.as_ref()) }
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StoreErrorKind::NotFound, "no such file")
    }

    pub(crate) fn unreachable(message: impl AsRef<str>) -> Self {
        Self::new(StoreErrorKind::Unreachable, message)
    }

    /// Trouble with a temporary file of this machine.
    pub(crate) fn local(error: &io::Error) -> Self {
        Self::new(StoreErrorKind::Other, format!("temporary file: {error}"))
    }

    /// What arrived is not what was sent.
    pub(crate) fn torn(found: u64, size: u64) -> Self {
        Self::unreachable(format!("only {found} of {size} bytes arrived"))
    }

    /// A server said something that it may not say.
    pub(crate) fn nonsense(message: impl AsRef<str>) -> Self {
        Self::new(StoreErrorKind::Other, format!("the server's answer makes no sense: {}", message.as_ref()))
    }

    /// Whether the same attempt may well succeed later.
    pub(crate) fn is_temporary(&self) -> bool {
        self.kind == StoreErrorKind::Unreachable
    }

    pub(crate) fn at(self, location: &str, name: &str) -> StoreError {
        StoreError { kind: self.kind, location: location.to_owned(), name: name.to_owned(), message: self.message }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if let Some(failure) = error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            return failure.clone();
        }
        use io::ErrorKind as K;
        let kind = StoreErrorKind::of_io(error.kind());
        match error.kind() {
            // What a socket's own time limit looks like.
            K::WouldBlock | K::TimedOut => Self::new(kind, "no answer in time"),
            K::UnexpectedEof => Self::new(kind, "the connection broke off"),
            _ => Self::new(kind, error.to_string()),
        }
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        Self::other(failure)
    }
}

/// What a server or a program said, fit for one line of a terminal.
pub(crate) fn one_line(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut line = clean.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = line.char_indices().nth(MAX_MESSAGE) {
        line.truncate(at);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_short_line() {
        assert_eq!(one_line(" a\r\n\u{1b}[31mb \t c"), "a [31mb c");
        assert_eq!(one_line(&"é".repeat(1000)).chars().count(), MAX_MESSAGE + 1);
    }

    #[test]
    fn failures_survive_readers() {
        let error = io::Error::from(Failure::new(StoreErrorKind::Denied, "no"));
        assert_eq!(Failure::from(error).kind, StoreErrorKind::Denied);
        assert!(Failure::from(io::Error::from(io::ErrorKind::UnexpectedEof)).is_temporary());
        assert!(!Failure::from(io::Error::from(io::ErrorKind::NotFound)).is_temporary());
    }
}
