//! Armour, looked at line by line before the library takes it off.
//!
//! The library is tolerant: it looks for armour anywhere in a text, holds lines of any length, and passes over what it does not
//! know. Here the armour must be all there is in the file, and nothing in it may be held but one line.

use std::io::{self, BufRead, Read};

use super::error::{Failure, PgpErrorKind};

/// Longest line, in bytes; as in gpg. Lines are of 64 characters usually.
const MAX_LINE: u64 = 20_000;
/// Most empty lines in front, and most headers.
const MAX_HEADERS: usize = 64;

const BEGIN: &[u8] = b"-----BEGIN PGP MESSAGE-----";
const END: &[u8] = b"-----END PGP MESSAGE-----";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Front(usize),
    Headers(usize),
    Body,
    Ended,
    Failed,
}

/// The lines of an armoured message, without its headers. The first failure is in the [`Failure`] it was made with.
pub(super) struct ArmourReader<R> {
    reader: R,
    line: Vec<u8>,
    given: usize,
    part: Part,
    failure: Failure,
}

impl<R: BufRead> ArmourReader<R> {
    pub(super) fn new(reader: R, failure: Failure) -> Self {
        Self { reader, line: Vec::new(), given: 0, part: Part::Front(0), failure }
    }

    /// Puts the next line that matters into `line`; an empty one at the end.
    fn next_line(&mut self) -> Result<(), PgpErrorKind> {
        loop {
            self.read_line()?;
            let text = without_end(&self.line);
            self.part = match self.part {
                Part::Front(n) if text.is_empty() && n < MAX_HEADERS => Part::Front(n + 1),
                Part::Front(_) if text == BEGIN => {
                    self.part = Part::Headers(0);
                    return Ok(());
                }
                Part::Front(_) => return Err(PgpErrorKind::NotOpenPgp("a text without a message".into())),
                Part::Headers(_) if text.is_empty() => {
                    self.part = Part::Body;
                    return Ok(());
                }
                Part::Headers(n) if n < MAX_HEADERS && is_header(text) => Part::Headers(n + 1),
                Part::Headers(_) => return Err(PgpErrorKind::Modified("the headers of its armour are not in order".into())),
                Part::Body if text == END => {
                    self.nothing_behind()?;
                    self.part = Part::Ended;
                    return Ok(());
                }
                Part::Body if text.iter().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(b)) => return Ok(()),
                Part::Body => return Err(PgpErrorKind::Modified("a line of its armour is none".into())),
                Part::Ended | Part::Failed => return Ok(()),
            };
        }
    }

    fn read_line(&mut self) -> Result<(), PgpErrorKind> {
        (self.given, self.line) = (0, std::mem::take(&mut self.line));
        self.line.clear();
        let n = self.reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut self.line).map_err(PgpErrorKind::Io)?;
        match self.line.last() {
            None => Err(PgpErrorKind::Truncated),
            Some(last) if *last != b'\n' && n as u64 == MAX_LINE => {
                Err(PgpErrorKind::Bomb(format!("armour with a line of {MAX_LINE} bytes")))
            }
            Some(_) => Ok(()),
        }
    }

    fn nothing_behind(&mut self) -> Result<(), PgpErrorKind> {
        loop {
            let bytes = match self.reader.fill_buf() {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(PgpErrorKind::Io(e)),
            };
            if bytes.is_empty() {
                return Ok(());
            }
            if !bytes.iter().all(|b| b" \t\r\n".contains(b)) {
                return Err(PgpErrorKind::Modified("there is more data behind the message".into()));
            }
            let n = bytes.len();
            self.reader.consume(n);
        }
    }
}

impl<R: BufRead> Read for ArmourReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.given == self.line.len() {
            match self.part {
                Part::Ended => return Ok(0),
                Part::Failed => return Err(io::ErrorKind::InvalidData.into()),
                _ => {}
            }
            if let Err(kind) = self.next_line() {
                self.part = Part::Failed;
                self.line.clear();
                return Err(self.failure.record(kind));
            }
        }
        let n = buf.len().min(self.line.len() - self.given);
        buf[..n].copy_from_slice(&self.line[self.given..self.given + n]);
        self.given += n;
        Ok(n)
    }
}

/// Without what may end a line. Other white space (form feeds, zero-width spaces) is content, and no armour has it.
fn without_end(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|b| !b" \t\r\n".contains(b)).map_or(0, |last| last + 1);
    &line[..end]
}

/// `Key: value`, as printable text. What it says is of no use to anyone: nothing protects it.
fn is_header(line: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(line) else { return false };
    let key = text.split_once(':').map_or("", |(key, _)| key);
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') && !text.chars().any(char::is_control)
}
