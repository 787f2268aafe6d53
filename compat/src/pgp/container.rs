//! The encrypted data itself: packet 18 with its modification detection code, packet 20 with AEAD chunks, packet 9 with nothing.

use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sequoia_openpgp::crypto::symmetric::Decryptor;
use sequoia_openpgp::types::SymmetricAlgorithm;
use sha1::{Digest, Sha1};

use super::aead::{Aead, AeadReader};
use super::error::{Failure, PgpErrorKind};
use super::esk::{Candidate, cfb, cfb_reader};
use super::frame::{Body, Header, Input, read_full};

/// Capacity of each buffer between two layers, in bytes.
pub(super) const BUFFER: usize = 64 << 10;
/// The modification detection code at the end: a packet header of two bytes and a SHA-1.
const MDC: usize = 22;
/// The head that is read before a key is known: the prefix of the longest block size and some bytes of the first packet.
const HEAD: usize = 32;

pub(super) type Plain = Box<dyn Read + Send + Sync>;

/// How the content is protected against changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Integrity {
    /// A modification detection code (packet 18); checked at the end of the message.
    Mdc,
    /// Authenticated encryption (packet 20); each chunk checked before any of it is given out, the length at the end.
    Aead,
    /// None at all (packet 9, in very old archives): whoever can write to the archive can change the content, and nothing here
    /// shows it. Worth a warning; a good signature or the manifest's hash over the file makes up for it.
    None,
}

/// Set once the container was read to its end and found whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Complete(Arc<AtomicBool>);

impl Complete {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

enum Format {
    Bare,
    Mdc,
    Aead(Aead),
}

/// An encrypted data packet, its head read, waiting for a key.
pub(super) struct Sealed {
    format: Format,
    head: Vec<u8>,
    body: Body,
    failure: Failure,
}

impl Sealed {
    pub(super) fn read(header: Header, input: Input, failure: Failure) -> Result<Self, PgpErrorKind> {
        let mut body = input.into_body(header);
        let read = Self::read_head(header.tag, &mut body);
        let (format, head) = read.map_err(|e| match failure.take() {
            Some(kind) => kind,
            None if e.kind() == io::ErrorKind::UnexpectedEof => PgpErrorKind::Modified("the encrypted data is too short".into()),
            None => e.downcast().unwrap_or_else(PgpErrorKind::Io),
        })?;
        Ok(Self { format, head, body, failure })
    }

    fn read_head(tag: u8, body: &mut Body) -> io::Result<(Format, Vec<u8>)> {
        let format = match tag {
            9 => Format::Bare,
            18 => {
                let mut version = [0];
                body.read_exact(&mut version)?;
                match version[0] {
                    1 => Format::Mdc,
                    2 => return Err(unsupported("the encrypted data packet of version 2")),
                    _ => return Err(modified("the encrypted data has an unknown version")),
                }
            }
            _ => Format::Aead(Aead::read(body)?),
        };
        let head = match &format {
            Format::Aead(aead) => aead.fill(body, Vec::new())?,
            _ => {
                let mut head = vec![0; HEAD];
                let filled = read_full(body, &mut head)?;
                head.truncate(filled);
                head
            }
        };
        Ok((format, head))
    }

    pub(super) fn integrity(&self) -> Integrity {
        match self.format {
            Format::Bare => Integrity::None,
            Format::Mdc => Integrity::Mdc,
            Format::Aead(_) => Integrity::Aead,
        }
    }

    /// Whether the key opens the head. Wrong keys pass once in 2^16 or more rarely; for AEAD never.
    pub(super) fn accepts(&self, candidate: &Candidate) -> bool {
        match &self.format {
            Format::Aead(aead) => aead.accepts(candidate, &self.head),
            Format::Mdc => candidate.algo.is_some_and(|algo| self.check_prefix(algo, candidate, false)),
            Format::Bare => candidate.algo.is_some_and(|algo| self.check_prefix(algo, candidate, true)),
        }
    }

    /// The random prefix ends with two bytes repeated, and a packet of a message follows it.
    fn check_prefix(&self, algo: SymmetricAlgorithm, candidate: &Candidate, resync: bool) -> bool {
        let Ok(block) = algo.block_size() else { return false };
        if self.head.len() < block + 4 || algo.key_size().ok() != Some(candidate.key.len()) {
            return false;
        }
        let Some(plain) = cfb(algo, &candidate.key, None, &self.head) else { return false };
        if plain[block - 2..block] != plain[block..block + 2] {
            return false;
        }
        if !resync {
            return starts_a_message(&plain[block + 2..]);
        }
        let (iv, rest) = (&self.head[2..block + 2], &self.head[block + 2..]);
        cfb(algo, &candidate.key, Some(iv), rest).is_some_and(|plain| starts_a_message(&plain))
    }

    /// The packets inside, as a stream that sets `complete` when it was read to its end and is whole.
    pub(super) fn open(self, candidate: &Candidate, complete: &Complete) -> Result<Plain, PgpErrorKind> {
        let (failure, complete) = (self.failure, complete.clone());
        if let Format::Aead(aead) = self.format {
            return Ok(Box::new(AeadReader::new(aead, candidate, self.head, self.body, failure, complete)));
        }
        let bad_key = || PgpErrorKind::Modified("the session key does not fit its cipher".into());
        let algo = candidate.algo.ok_or_else(bad_key)?;
        let block = algo.block_size().map_err(|e| PgpErrorKind::Unsupported(e.to_string()))?;
        if self.head.len() < block + 2 {
            return Err(PgpErrorKind::Modified("the encrypted data is shorter than its prefix".into()));
        }
        if matches!(self.format, Format::Bare) {
            let iv = self.head[2..block + 2].to_vec();
            let source = Cursor::new(self.head[block + 2..].to_vec()).chain(self.body);
            let inner = cfb_reader(algo, &candidate.key, Some(&iv), source).ok_or_else(bad_key)?;
            return Ok(Box::new(BareReader { inner, complete }));
        }
        let source = Cursor::new(self.head).chain(self.body);
        let inner = cfb_reader(algo, &candidate.key, None, source).ok_or_else(bad_key)?;
        Ok(Box::new(MdcReader::new(inner, block + 2, failure, complete)))
    }
}

/// Whether this may be the start of what gpg encrypts: a packet header of a fitting type.
fn starts_a_message(plain: &[u8]) -> bool {
    match plain {
        // Compressed, of indeterminate length: as gpg writes it.
        [0xa3, algo, ..] => *algo <= 3,
        [ctb, ..] if ctb & 0xc0 == 0xc0 => matches!(ctb & 0x3f, 2 | 4 | 8 | 10 | 11),
        [ctb, ..] if ctb & 0x80 == 0x80 => matches!((ctb >> 2) & 0xf, 2 | 4 | 8 | 10 | 11),
        _ => false,
    }
}

pub(super) fn modified(detail: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, PgpErrorKind::Modified(detail.into()))
}

pub(super) fn unsupported(detail: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, PgpErrorKind::Unsupported(detail.into()))
}

/// Packet 9.
struct BareReader {
    inner: Decryptor<'static>,
    complete: Complete,
}

impl Read for BareReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        if n == 0 && !buf.is_empty() {
            self.complete.set();
        }
        Ok(n)
    }
}

/// Packet 18, version 1. Withholds the code at the end, and gives an error in place of the end where it is wrong.
struct MdcReader {
    inner: Decryptor<'static>,
    hash: Sha1,
    buffer: Vec<u8>,
    /// What of `buffer` is still to be given out.
    ready: std::ops::Range<usize>,
    filled: usize,
    /// Bytes of the random prefix still to be dropped.
    prefix: usize,
    ended: bool,
    failure: Failure,
    complete: Complete,
}

impl MdcReader {
    fn new(inner: Decryptor<'static>, prefix: usize, failure: Failure, complete: Complete) -> Self {
        let buffer = vec![0; BUFFER + MDC];
        Self { inner, hash: Sha1::new(), buffer, ready: 0..0, filled: 0, prefix, ended: false, failure, complete }
    }

    /// Makes more of the content ready, or finds the end.
    fn refill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.ready.end..self.filled, 0);
        self.filled -= self.ready.end;
        let got = read_full(&mut self.inner, &mut self.buffer[self.filled..])?;
        self.ended = self.filled + got < self.buffer.len();
        self.filled += got;
        let end = self.filled.saturating_sub(MDC);
        self.hash.update(&self.buffer[..end]);
        let drop = self.prefix.min(end);
        self.prefix -= drop;
        self.ready = drop..end;
        if self.ended { self.check() } else { Ok(()) }
    }

    fn check(&mut self) -> io::Result<()> {
        let code = &self.buffer[self.ready.end..self.filled];
        let mut hash = self.hash.clone();
        hash.update(code.get(..2).unwrap_or_default());
        if code.len() == MDC && code[..2] == [0xd3, 0x14] && code[2..] == hash.finalize()[..] {
            self.complete.set();
            return Ok(());
        }
        self.ready = 0..0;
        Err(self.failure.record(PgpErrorKind::Modified("its modification detection code does not match".into())))
    }
}

impl Read for MdcReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.ready.is_empty() {
            if self.ended {
                return if self.complete.get() { Ok(0) } else { Err(io::ErrorKind::InvalidData.into()) };
            }
            self.refill()?;
        }
        let n = self.ready.len().min(buf.len());
        buf[..n].copy_from_slice(&self.buffer[self.ready.start..self.ready.start + n]);
        self.ready.start += n;
        Ok(n)
    }
}
