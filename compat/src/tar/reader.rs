//! The stream of members.

use std::io::{self, ErrorKind, Read};

use super::error::{TarError, TarErrorKind};
use super::header::{Extensions, Header, RawHeader};
use super::pax::Pax;
use super::writer::padding;
use super::{BLOCK, MAX_EXTENSION, MAX_NAME};

/// Where a reader stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Members,
    /// Behind an all-zero header block. What follows is never looked at: duplicity pads with garbage.
    Terminated,
    /// The data just stopped, at the end of a member.
    Stopped,
    Failed,
}

/// Reads a tar member by member. Memory: one block and at most three extension headers.
///
/// The data of the member that [`TarReader::next`] returned last is read through [`Read`]; what is left of it is skipped by
/// the next call. The inner reader is read in small pieces and wants a buffer.
pub struct TarReader<R> {
    inner: R,
    /// Bytes read so far.
    position: u64,
    /// Bytes of data left in the current member, and of padding behind them.
    data: u64,
    padding: u64,
    global: Pax,
    state: State,
    /// Where the current member begins, and its name.
    start: u64,
    name: Vec<u8>,
}

impl<R: Read> TarReader<R> {
    /// Nothing is read yet.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            position: 0,
            data: 0,
            padding: 0,
            global: Pax::default(),
            state: State::Members,
            start: 0,
            name: Vec::new(),
        }
    }

    /// The next member; `None` behind the last one, that is at the first all-zero header block or where the data ends between
    /// two members. After an error that is not [`TarError::is_fatal`], the next call goes on behind the member in question.
    #[allow(clippy::should_implement_trait, reason = "an iterator could not be read from between two items")]
    pub fn next(&mut self) -> Result<Option<Header>, TarError> {
        match self.state {
            State::Members => self.try_next().inspect_err(|e| {
                if e.fatal {
                    self.state = State::Failed;
                }
            }),
            State::Terminated | State::Stopped => Ok(None),
            State::Failed => Err(self.fatal(TarErrorKind::Failed)),
        }
    }

    /// Whether the end that [`TarReader::next`] reported was an all-zero block. Otherwise the data just stopped.
    #[must_use]
    pub fn ended_by_terminator(&self) -> bool {
        self.state == State::Terminated
    }

    /// Bytes of the current member's data that were not read yet.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.data
    }

    /// Bytes of the stream consumed so far.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What is below, standing at [`TarReader::position`].
    pub fn into_inner(self) -> R {
        self.inner
    }

    fn try_next(&mut self) -> Result<Option<Header>, TarError> {
        self.skip().map_err(|kind| self.fatal(kind))?;
        self.start = self.position;
        self.name.clear();
        let mut extensions = Extensions::default();
        let mut block = [0; BLOCK];
        loop {
            let is_there = self.block(&mut block).map_err(|kind| self.fatal(kind))?;
            if !is_there || block.iter().all(|b| *b == 0) {
                if !extensions.is_empty() {
                    return Err(self.fatal(TarErrorKind::Truncated));
                }
                self.state = if is_there { State::Terminated } else { State::Stopped };
                return Ok(None);
            }
            let raw = RawHeader::new(&block).map_err(|kind| self.fatal(kind))?;
            if matches!(raw.code(), b'x' | b'g' | b'L' | b'K') {
                self.extension(&raw, &mut extensions).map_err(|kind| self.fatal(kind))?;
            } else {
                return self.member(&raw, extensions).map(Some);
            }
        }
    }

    /// A member's own header.
    fn member(&mut self, raw: &RawHeader<'_>, mut extensions: Extensions) -> Result<Header, TarError> {
        let frame = raw.frame(&extensions);
        let name = raw.name(&mut extensions);
        name[..name.len().min(MAX_NAME)].clone_into(&mut self.name);
        let frame = frame.map_err(|kind| self.fatal(kind))?;
        self.data = frame.1;
        self.padding = padding(frame.1) as u64;
        raw.finish(name, frame, extensions, &self.global).map_err(|kind| TarError { fatal: false, ..self.fatal(kind) })
    }

    /// Takes an extension header in. One of each kind per member, and pax or GNU, not both: readers differ about the rest.
    fn extension(&mut self, raw: &RawHeader<'_>, extensions: &mut Extensions) -> Result<(), TarErrorKind> {
        let is_out_of_place = match raw.code() {
            b'x' => !extensions.is_empty(),
            b'L' => extensions.pax.is_some() || extensions.long_name.is_some(),
            b'K' => extensions.pax.is_some() || extensions.long_link.is_some(),
            _ => !extensions.is_empty(),
        };
        if is_out_of_place {
            return Err(TarErrorKind::Extension("extension headers repeated or mixed"));
        }
        let payload = self.payload(raw.own_size()?)?;
        match raw.code() {
            b'x' => extensions.pax.insert(Pax::default()).parse(&payload)?,
            b'L' => extensions.long_name = Some(long_name(payload)),
            b'K' => extensions.long_link = Some(long_name(payload)),
            _ => {
                self.global.parse(&payload)?;
                if self.global.is_of_one_member() {
                    return Err(TarErrorKind::Extension("a global header that names a path or a size"));
                }
            }
        }
        Ok(())
    }

    fn payload(&mut self, size: u64) -> Result<Vec<u8>, TarErrorKind> {
        let Some(length) = usize::try_from(size).ok().filter(|_| size <= MAX_EXTENSION) else {
            return Err(TarErrorKind::ExtensionTooLarge(size));
        };
        let mut payload = vec![0; length];
        self.fill(&mut payload)?;
        let mut rest = [0; BLOCK];
        self.fill(&mut rest[..padding(size)])?;
        Ok(payload)
    }

    /// Passes over what is left of the current member.
    fn skip(&mut self) -> Result<(), TarErrorKind> {
        let left = self.data + self.padding;
        if left == 0 {
            return Ok(());
        }
        let skipped = io::copy(&mut (&mut self.inner).take(left), &mut io::sink()).map_err(TarErrorKind::Io)?;
        self.position = self.position.saturating_add(skipped);
        (self.data, self.padding) = (0, 0);
        if skipped == left { Ok(()) } else { Err(TarErrorKind::Truncated) }
    }

    /// Reads one block; `false` if the data ends before it.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarErrorKind> {
        let got = self.read_up_to(block)?;
        match got {
            0 => Ok(false),
            BLOCK => Ok(true),
            _ => Err(TarErrorKind::Truncated),
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), TarErrorKind> {
        if self.read_up_to(buffer)? == buffer.len() { Ok(()) } else { Err(TarErrorKind::Truncated) }
    }

    fn read_up_to(&mut self, buffer: &mut [u8]) -> Result<usize, TarErrorKind> {
        let mut got = 0;
        while got < buffer.len() {
            match self.inner.read(&mut buffer[got..]) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(TarErrorKind::Io(e)),
            }
        }
        self.position = self.position.saturating_add(got as u64);
        Ok(got)
    }

    fn fatal(&self, kind: TarErrorKind) -> TarError {
        TarError { kind, offset: self.start, name: self.name.clone(), fatal: true }
    }
}

/// The data of the current member. A stream that ends too early is an error that wraps a [`TarError`].
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.data).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buffer[..room])?;
        if n == 0 {
            self.state = State::Failed;
            return Err(io::Error::new(ErrorKind::UnexpectedEof, self.fatal(TarErrorKind::Truncated)));
        }
        self.data -= n as u64;
        self.position = self.position.saturating_add(n as u64);
        Ok(n)
    }
}

/// The payload of a GNU long name, without the NULs at its end.
fn long_name(mut payload: Vec<u8>) -> Vec<u8> {
    let length = payload.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
    payload.truncate(length);
    payload
}
