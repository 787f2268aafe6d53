//! Deltas: literals and copies from a basis that together make new content.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};

/// What a delta begins with.
pub(super) const MAGIC: u32 = 0x7273_0236;
/// Bytes of a delta that are read at a time.
const BUFFER: usize = 16 << 10;
/// Longest command in bytes, literal data not counted: opcode, offset, length.
const MAX_COMMAND: usize = 1 + 8 + 8;

/// The content that a delta is applied to.
pub trait Basis {
    /// Its length in bytes; always the same.
    fn len(&self) -> u64;

    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads bytes from `offset` on, at least one, as many as are at hand; 0 only at or behind the end. Called with rising
    /// offsets or any others, any number of times.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

impl Basis for &[u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let at = usize::try_from(offset).unwrap_or(usize::MAX).min(<[u8]>::len(self));
        (&self[at..]).read(buffer)
    }
}

/// Why a delta is refused. Comes wrapped in an [`io::Error`] of the kind `InvalidData`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeltaError {
    /// It does not begin with librsync's number.
    #[error("no librsync delta")]
    Magic,
    /// It ends within a command or its data.
    #[error("the delta is cut off within a command")]
    Truncated,
    /// It ends without saying so.
    #[error("the delta has no end mark")]
    NoEnd,
    /// Something follows its end.
    #[error("data behind the delta's end mark")]
    Trailing,
    /// An opcode that means nothing.
    #[error("reserved delta command {0:#04x}")]
    Reserved(u8),
    /// A literal or copy of no bytes; librsync refuses them too.
    #[error("a delta command of length 0")]
    Empty,
    /// Offset and length of a copy exceed 64 bits together.
    #[error("a copy of {length} bytes from {offset} on exceeds 64 bits")]
    CopyOverflow {
        /// Of the first byte.
        offset: u64,
        /// In bytes.
        length: u64,
    },
    /// A copy from behind the basis: it belongs to another content.
    #[error("a copy of {length} bytes from {offset} on, but the content before has only {basis}")]
    BeyondBasis {
        /// Of the first byte.
        offset: u64,
        /// In bytes.
        length: u64,
        /// Length of the basis in bytes.
        basis: u64,
    },
    /// The basis ended before the length it has.
    #[error("the content before ends early, at {0}")]
    ShortBasis(u64),
    /// More content than the caller takes.
    #[error("the delta makes more than {0} bytes")]
    TooLarge(u64),
}

/// What is being handed out.
#[derive(Clone, Copy)]
enum State {
    Begin,
    Between,
    Literal {
        left: u64,
    },
    Copy {
        offset: u64,
        left: u64,
    },
    /// The end mark was read; nothing may follow.
    Ending,
    End,
    Failed(DeltaError),
}

enum Command {
    End,
    Literal(u64),
    Copy(u64, u64),
}

/// The new content as a stream. Memory: a buffer of 16 KiB. Time: every command takes at least two bytes of the delta and one
/// call of [`Basis::read_at`], copies that follow each other seamlessly count as one.
///
/// What was handed out is right only if the end is reached without an error: a delta has no sum of its own.
pub struct DeltaReader<D, B> {
    delta: BufReader<D>,
    basis: B,
    state: State,
    /// Bytes that may still be made.
    room: u64,
    limit: u64,
}

impl<D: Read, B: Basis> DeltaReader<D, B> {
    /// `delta` has to end where the delta does. More than `limit` bytes of content are an error.
    pub fn new(delta: D, basis: B, limit: u64) -> Self {
        Self { delta: BufReader::with_capacity(BUFFER, delta), basis, state: State::Begin, room: limit, limit }
    }

    /// Gives delta and basis back.
    pub fn into_parts(self) -> (D, B) {
        (self.delta.into_inner(), self.basis)
    }

    fn step(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.state {
                State::Begin => {
                    let mut magic = [0; 4];
                    self.delta.read_exact(&mut magic).map_err(|e| cut(e, DeltaError::Magic))?;
                    if u32::from_be_bytes(magic) != MAGIC {
                        return Err(refused(DeltaError::Magic));
                    }
                    self.state = State::Between;
                }
                State::Between => self.state = self.next_state()?,
                State::Literal { left } => return self.literal(left, buffer),
                State::Copy { offset, left } => return self.copy(offset, left, buffer),
                State::Ending if self.delta.read(&mut [0])? > 0 => return Err(refused(DeltaError::Trailing)),
                State::Ending => self.state = State::End,
                State::End => return Ok(0),
                State::Failed(e) => return Err(refused(e)),
            }
        }
    }

    fn next_state(&mut self) -> io::Result<State> {
        match self.command()? {
            Command::End => Ok(State::Ending),
            Command::Literal(left) => {
                self.claim(left)?;
                Ok(State::Literal { left })
            }
            Command::Copy(offset, left) => {
                self.check_copy(offset, left)?;
                self.claim(left)?;
                let left = self.merge_copies(offset, left)?;
                Ok(State::Copy { offset, left })
            }
        }
    }

    fn command(&mut self) -> io::Result<Command> {
        let mut opcode = [0];
        self.delta.read_exact(&mut opcode).map_err(|e| cut(e, DeltaError::NoEnd))?;
        let mut parameters = [0; MAX_COMMAND - 1];
        let length = parameter_bytes(opcode[0]).ok_or_else(|| refused(DeltaError::Reserved(opcode[0])))?;
        self.delta.read_exact(&mut parameters[..length]).map_err(|e| cut(e, DeltaError::Truncated))?;
        parse(opcode[0], &parameters[..length]).map_err(refused)
    }

    fn check_copy(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset.checked_add(length).ok_or_else(|| refused(DeltaError::CopyOverflow { offset, length }))?;
        let basis = self.basis.len();
        if end > basis { Err(refused(DeltaError::BeyondBasis { offset, length, basis })) } else { Ok(()) }
    }

    fn claim(&mut self, bytes: u64) -> io::Result<()> {
        self.room = self.room.checked_sub(bytes).ok_or_else(|| refused(DeltaError::TooLarge(self.limit)))?;
        Ok(())
    }

    /// Takes the copies that go on where this one ends, as far as they are in the buffer already.
    fn merge_copies(&mut self, offset: u64, mut length: u64) -> io::Result<u64> {
        loop {
            let ahead = self.delta.buffer();
            let Some((opcode, rest)) = ahead.split_first() else { return Ok(length) };
            let Some(parameters) = parameter_bytes(*opcode).and_then(|n| rest.get(..n)) else { return Ok(length) };
            let Ok(Command::Copy(next, more)) = parse(*opcode, parameters) else { return Ok(length) };
            if next != offset + length {
                return Ok(length);
            }
            let taken = 1 + parameters.len();
            self.check_copy(next, more)?;
            self.claim(more)?;
            self.delta.consume(taken);
            length += more;
        }
    }

    fn literal(&mut self, left: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.delta.read(&mut buffer[..room])?;
        if n == 0 {
            return Err(refused(DeltaError::Truncated));
        }
        let left = left - n as u64;
        self.state = if left == 0 { State::Between } else { State::Literal { left } };
        Ok(n)
    }

    fn copy(&mut self, offset: u64, left: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.basis.read_at(offset, &mut buffer[..room])?.min(room);
        if n == 0 {
            return Err(refused(DeltaError::ShortBasis(offset)));
        }
        let (offset, left) = (offset + n as u64, left - n as u64);
        self.state = if left == 0 { State::Between } else { State::Copy { offset, left } };
        Ok(n)
    }
}

impl<D: Read, B: Basis> Read for DeltaReader<D, B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.step(buffer).inspect_err(|e| {
            // A refusal comes again with the next call; whatever else went wrong may not.
            if let Some(why) = e.get_ref().and_then(|inner| inner.downcast_ref::<DeltaError>()) {
                self.state = State::Failed(*why);
            }
        })
    }
}

/// Bytes of offset and length behind an opcode; `None` for one that means nothing.
fn parameter_bytes(opcode: u8) -> Option<usize> {
    match opcode {
        0..=0x40 => Some(0),
        0x41..=0x44 => Some(1 << (opcode - 0x41)),
        0x45..=0x54 => Some((1 << ((opcode - 0x45) / 4)) + (1 << ((opcode - 0x45) % 4))),
        _ => None,
    }
}

fn parse(opcode: u8, parameters: &[u8]) -> Result<Command, DeltaError> {
    let number = |bytes: &[u8]| bytes.iter().fold(0u64, |n, b| (n << 8) | u64::from(*b));
    let command = match opcode {
        0 => Command::End,
        1..=0x40 => Command::Literal(u64::from(opcode)),
        0x41..=0x44 => Command::Literal(number(parameters)),
        0x45..=0x54 => {
            let (offset, length) = parameters.split_at(1 << ((opcode - 0x45) / 4));
            Command::Copy(number(offset), number(length))
        }
        _ => return Err(DeltaError::Reserved(opcode)),
    };
    match command {
        Command::Literal(0) | Command::Copy(_, 0) => Err(DeltaError::Empty),
        command => Ok(command),
    }
}

fn refused(e: DeltaError) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, e)
}

/// An end of the delta's bytes; a reader below that failed keeps its own error.
fn cut(e: io::Error, why: DeltaError) -> io::Error {
    if e.kind() == ErrorKind::UnexpectedEof && e.get_ref().is_none_or(|inner| !inner.is::<crate::tar::TarError>()) {
        refused(why)
    } else {
        e
    }
}
