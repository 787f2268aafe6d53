//! Packet headers and bodies: old and new format, definite, partial and indeterminate lengths.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Mutex, PoisonError};

use sequoia_openpgp::armor;

use super::armour::ArmourReader;
use super::error::{Failure, PgpErrorKind};

/// Capacity of the buffer between the file and the packets, in bytes.
const INPUT_BUFFER: usize = 64 << 10;

/// Makes any reader `Sync`, as sequoia wants them; only exclusive references ever reach it.
pub(super) struct Exclusive<R>(Mutex<R>);

impl<R> Exclusive<R> {
    pub(super) fn new(reader: R) -> Self {
        Self(Mutex::new(reader))
    }
}

impl<R: Read> Read for Exclusive<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).read(buf)
    }
}

type Source = Box<dyn Read + Send + Sync>;

/// The packet that holds content as it is.
const LITERAL: u8 = 11;
/// Largest packet that may stand beside the data, in bytes.
pub(super) const MAX_PACKET: usize = 16 << 10;

/// The file, without armour.
pub(super) struct Input {
    reader: BufReader<Source>,
    failure: Failure,
}

/// How long a body, or a piece of one, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Definite(u64),
    /// A piece; another length follows it.
    Partial(u64),
    /// To the end of the file.
    Indeterminate,
}

/// A packet's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) tag: u8,
    length: Length,
}

/// Markers, padding, and what the RFC has one ignore where it is not known (RFC 9580, 4.3).
pub(super) fn is_ignored(tag: u8) -> bool {
    matches!(tag, 10 | 21 | 40..=63)
}

impl Input {
    /// Takes armour off where there is some.
    pub(super) fn new(reader: impl Read + Send + 'static, failure: Failure) -> Result<Self, PgpErrorKind> {
        let boxed: Source = Box::new(Exclusive::new(reader));
        let mut input = Self { reader: BufReader::with_capacity(INPUT_BUFFER, boxed), failure };
        let first = loop {
            match input.reader.fill_buf() {
                Ok(bytes) => break bytes.first().copied(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(PgpErrorKind::Io(e)),
            }
        };
        match first {
            None => Err(PgpErrorKind::Truncated),
            Some(b'-' | b'\n' | b'\r') => {
                let lines = ArmourReader::new(input.reader, input.failure.clone());
                let mode = armor::ReaderMode::Tolerant(Some(armor::Kind::Message));
                let bare: Source = Box::new(armor::Reader::from_reader(Exclusive::new(lines), mode));
                Ok(Self { reader: BufReader::with_capacity(INPUT_BUFFER, bare), failure: input.failure })
            }
            Some(_) => Ok(input),
        }
    }

    /// Packets inside others. What fails in them is only in the errors.
    pub(super) fn bare(packets: Source) -> Self {
        Self { reader: BufReader::with_capacity(INPUT_BUFFER, packets), failure: Failure::default() }
    }

    /// Whether a literal packet comes next.
    pub(super) fn starts_literal(&mut self) -> io::Result<bool> {
        let first = self.reader.fill_buf()?.first();
        Ok(first.is_some_and(|ctb| ctb & 0x80 != 0 && LITERAL == if ctb & 0x40 != 0 { ctb & 0x3f } else { (ctb >> 2) & 0xf }))
    }

    /// The content of a literal packet, behind the name and the time that it carries (RFC 4880, 5.9). At most `may_follow` packets
    /// that mean nothing are passed over behind it.
    pub(super) fn into_literal(mut self, may_follow: usize) -> io::Result<Body> {
        let header = self.next_header().map_err(|kind| io::Error::new(kind.io_kind(), kind.to_string()))?;
        let mut body = self.into_body(header.ok_or(io::ErrorKind::UnexpectedEof)?);
        body.may_follow = may_follow;
        let mut start = [0; 2];
        body.read_exact(&mut start)?;
        body.read_exact(&mut [0; 255 + 4][..usize::from(start[1]) + 4])?;
        Ok(body)
    }

    /// What was not read yet.
    pub(super) fn into_reader(self) -> impl Read + Send + Sync {
        self.reader
    }

    /// The next packet's header; `None` at the end of the file.
    pub(super) fn next_header(&mut self) -> Result<Option<Header>, PgpErrorKind> {
        self.byte_or_end()?.map(|ctb| self.header(ctb)).transpose()
    }

    /// The rest of a header behind its first byte.
    fn header(&mut self, ctb: u8) -> Result<Header, PgpErrorKind> {
        if ctb & 0x80 == 0 {
            return Err(PgpErrorKind::NotOpenPgp(format!("a packet cannot start with the byte {ctb:#04x}")));
        }
        if ctb & 0x40 != 0 {
            return Ok(Header { tag: ctb & 0x3f, length: self.new_length()? });
        }
        let octets = match ctb & 3 {
            0 => 1,
            1 => 2,
            2 => 4,
            _ => return Ok(Header { tag: (ctb >> 2) & 0xf, length: Length::Indeterminate }),
        };
        Ok(Header { tag: (ctb >> 2) & 0xf, length: Length::Definite(self.number(octets)?) })
    }

    /// A whole body of at most `limit` bytes.
    pub(super) fn small_body(&mut self, header: Header, limit: usize) -> Result<Vec<u8>, PgpErrorKind> {
        let Length::Definite(length) = header.length else {
            return Err(PgpErrorKind::NotOpenPgp(format!("packet {} in pieces where that is not allowed", header.tag)));
        };
        let length = usize::try_from(length).ok().filter(|l| *l <= limit);
        let length = length.ok_or_else(|| PgpErrorKind::Bomb(format!("a packet {} of more than {limit} bytes", header.tag)))?;
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).map_err(cut_off)?;
        Ok(body)
    }

    /// The body as a stream; what is behind it must be the end of the file.
    pub(super) fn into_body(self, header: Header) -> Body {
        let (left, state) = match header.length {
            Length::Definite(n) => (n, Piece::Last),
            Length::Partial(n) => (n, Piece::More),
            Length::Indeterminate => (u64::MAX, Piece::Indeterminate),
        };
        Body { input: self, left, state, may_follow: 0 }
    }

    fn byte_or_end(&mut self) -> Result<Option<u8>, PgpErrorKind> {
        let mut byte = [0];
        loop {
            match self.reader.read(&mut byte) {
                Ok(0) => return Ok(None),
                Ok(_) => return Ok(Some(byte[0])),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(PgpErrorKind::Io(e)),
            }
        }
    }

    fn number(&mut self, octets: usize) -> Result<u64, PgpErrorKind> {
        let mut bytes = [0; 4];
        let bytes = &mut bytes[..octets];
        self.reader.read_exact(bytes).map_err(cut_off)?;
        Ok(bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    fn new_length(&mut self) -> Result<Length, PgpErrorKind> {
        let first = self.number(1)?;
        Ok(match first {
            0..192 => Length::Definite(first),
            192..224 => Length::Definite(((first - 192) << 8) + self.number(1)? + 192),
            224..255 => Length::Partial(1 << (first & 0x1f)),
            _ => Length::Definite(self.number(4)?),
        })
    }
}

fn cut_off(e: io::Error) -> PgpErrorKind {
    if e.kind() == io::ErrorKind::UnexpectedEof { PgpErrorKind::Truncated } else { PgpErrorKind::Io(e) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    More,
    Last,
    Indeterminate,
    Ended,
    Failed,
}

/// A packet's body as a stream. Ends without an error only where the body is complete and nothing follows it. The first
/// failure is in the [`Failure`] it was made with; reading again fails again.
pub(super) struct Body {
    input: Input,
    left: u64,
    state: Piece,
    /// Packets to be ignored that may come behind it.
    may_follow: usize,
}

impl Body {
    fn fail(&mut self, kind: PgpErrorKind) -> io::Error {
        self.state = Piece::Failed;
        self.input.failure.record(kind)
    }

    fn end(&mut self) -> io::Result<usize> {
        match self.pass_ignored() {
            Ok(()) => {
                self.state = Piece::Ended;
                Ok(0)
            }
            Err(kind) => Err(self.fail(kind)),
        }
    }

    fn pass_ignored(&mut self) -> Result<(), PgpErrorKind> {
        while let Some(byte) = self.input.byte_or_end()? {
            let header = if self.may_follow > 0 { Some(self.input.header(byte)?) } else { None };
            let Some(header) = header.filter(|header| is_ignored(header.tag)) else {
                return Err(PgpErrorKind::Modified("there is more data behind the message".into()));
            };
            self.may_follow -= 1;
            self.input.small_body(header, MAX_PACKET)?;
        }
        Ok(())
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        while self.left == 0 {
            match self.state {
                Piece::More => match self.input.new_length() {
                    Ok(Length::Partial(n)) => self.left = n,
                    Ok(Length::Definite(n)) => (self.left, self.state) = (n, Piece::Last),
                    Ok(Length::Indeterminate) => (self.left, self.state) = (u64::MAX, Piece::Indeterminate),
                    Err(kind) => return Err(self.fail(kind)),
                },
                Piece::Last | Piece::Indeterminate => return self.end(),
                Piece::Ended => return Ok(0),
                Piece::Failed => break,
            }
        }
        if self.state == Piece::Failed {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        match self.input.reader.read(&mut buf[..want]) {
            Ok(0) if self.state == Piece::Indeterminate => {
                (self.left, self.state) = (0, Piece::Ended);
                Ok(0)
            }
            Ok(0) => Err(self.fail(PgpErrorKind::Truncated)),
            Ok(n) => {
                self.left -= n as u64;
                Ok(n)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(e) => Err(self.fail(PgpErrorKind::Io(e))),
        }
    }
}

/// Reads until `buf` is full or the source ends; returns how much there is.
pub(super) fn read_full(reader: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match reader.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}
