//! Signatures: a weak and a strong sum for every block of a content.

use std::io::{self, ErrorKind, Read};

use fast_rsync::{Signature, SignatureOptions};

use super::sums::{Strong, StrongSum, Weak, WeakSum};

/// Longest block that is believed, in bytes: the one that duplicity takes for a file of 2^60 bytes.
const MAX_BLOCK: u32 = 1 << 30;
/// Bytes of the sums that are kept before they are handed on.
const BATCH: usize = 16 << 10;
/// Bytes before the first block's sums.
const HEADER: usize = 12;
/// Longest weak and strong sum of a block together, in bytes.
const MAX_SUMS: usize = 4 + 32;

/// Why something is no signature.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The signature's bytes cannot be read.
    #[error("cannot read the signature: {0}")]
    Io(#[source] io::Error),
    /// It begins with none of librsync's numbers.
    #[error("no librsync signature (begins with {0:#010x})")]
    Magic(u32),
    /// A block length of 0 or more than 2^30 bytes.
    #[error("a signature with blocks of {0} bytes")]
    BlockLength(u32),
    /// A strong sum of no bytes or more than it has.
    #[error("a signature with strong sums of {0} bytes")]
    StrongLength(u32),
    /// It ends within its header or within the sums of a block.
    #[error("the signature is cut off")]
    Truncated,
}

/// How a signature is made: the first 12 bytes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureFormat {
    weak: WeakSum,
    strong: StrongSum,
    block: u32,
    strong_length: u32,
}

impl SignatureFormat {
    /// As duplicity writes it for a file of this size in bytes: rolling sum, 8 bytes of MD4, [`block_length`].
    #[must_use]
    pub fn of_duplicity(size: u64) -> Self {
        Self { weak: WeakSum::Rollsum, strong: StrongSum::Md4, block: block_length(size), strong_length: 8 }
    }

    /// Any other. Fails for a block length outside 1 to 2^30 bytes, or a strong sum of 0 or more bytes than it has.
    pub fn new(weak: WeakSum, strong: StrongSum, block: u32, strong_length: u32) -> Result<Self, SignatureError> {
        if block == 0 || block > MAX_BLOCK {
            return Err(SignatureError::BlockLength(block));
        }
        if strong_length == 0 || strong_length > strong.length() {
            return Err(SignatureError::StrongLength(strong_length));
        }
        Ok(Self { weak, strong, block, strong_length })
    }

    /// Reads a signature's first 12 bytes.
    pub fn parse(header: &[u8; HEADER]) -> Result<Self, SignatureError> {
        let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (weak, strong) = match number(0) {
            0x7273_0136 => (WeakSum::Rollsum, StrongSum::Md4),
            0x7273_0137 => (WeakSum::Rollsum, StrongSum::Blake2),
            0x7273_0146 => (WeakSum::RabinKarp, StrongSum::Md4),
            0x7273_0147 => (WeakSum::RabinKarp, StrongSum::Blake2),
            other => return Err(SignatureError::Magic(other)),
        };
        Self::new(weak, strong, number(4), number(8))
    }

    /// Bytes of a block; the last one may be shorter.
    #[must_use]
    pub fn block(&self) -> u32 {
        self.block
    }

    /// Its weak sum.
    #[must_use]
    pub fn weak(&self) -> WeakSum {
        self.weak
    }

    /// Its strong sum.
    #[must_use]
    pub fn strong(&self) -> StrongSum {
        self.strong
    }

    /// Bytes of a strong sum.
    #[must_use]
    pub fn strong_length(&self) -> usize {
        usize::try_from(self.strong_length).unwrap_or(usize::MAX)
    }

    fn header(&self) -> [u8; HEADER] {
        let magic: u32 = match (self.weak, self.strong) {
            (WeakSum::Rollsum, StrongSum::Md4) => 0x7273_0136,
            (WeakSum::Rollsum, StrongSum::Blake2) => 0x7273_0137,
            (WeakSum::RabinKarp, StrongSum::Md4) => 0x7273_0146,
            (WeakSum::RabinKarp, StrongSum::Blake2) => 0x7273_0147,
        };
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&magic.to_be_bytes());
        header[4..8].copy_from_slice(&self.block.to_be_bytes());
        header[8..].copy_from_slice(&self.strong_length.to_be_bytes());
        header
    }
}

/// Block length that duplicity 3.0.3 and later take for a file of `size` bytes: its square root, rounded up to a multiple of
/// 512. Any length can be read by all versions.
#[must_use]
pub fn block_length(size: u64) -> u32 {
    let root = u32::try_from(size.isqrt()).unwrap_or(u32::MAX);
    root.max(1).checked_next_multiple_of(512).unwrap_or(MAX_BLOCK).min(MAX_BLOCK)
}

/// Makes a signature of content that passes by.
pub struct SignatureMaker {
    format: SignatureFormat,
    weak: Weak,
    strong: Strong,
    /// Bytes of the current block so far.
    filled: u32,
    has_begun: bool,
}

impl SignatureMaker {
    /// Nothing of the content has passed yet.
    #[must_use]
    pub fn new(format: SignatureFormat) -> Self {
        let (weak, strong) = (Weak::new(format.weak), Strong::new(format.strong));
        Self { format, weak, strong, filled: 0, has_begun: false }
    }

    /// Takes the next bytes of the content and appends to `out` what of the signature is known by now: the header with the
    /// first call, then the sums of every block that is complete.
    pub fn push(&mut self, mut content: &[u8], out: &mut Vec<u8>) {
        self.begin(out);
        while !content.is_empty() {
            let now = match self.push_whole(content, out) {
                0 => self.push_some(content, out),
                whole => whole,
            };
            content = &content[now..];
        }
    }

    /// Takes all whole blocks at once, where one begins and both sums are the usual ones: MD4 is slow on one block and fast on
    /// eight. Returns how many bytes.
    fn push_whole(&self, content: &[u8], out: &mut Vec<u8>) -> usize {
        let SignatureFormat { weak, strong, block, strong_length } = self.format;
        let whole = content.len() - content.len() % usize::try_from(block).unwrap_or(usize::MAX);
        if whole == 0 || self.filled > 0 || (weak, strong) != (WeakSum::Rollsum, StrongSum::Md4) {
            return 0;
        }
        let options = SignatureOptions { block_size: block, crypto_hash_size: strong_length };
        let signature = Signature::calculate(&content[..whole], options).into_serialized();
        out.extend_from_slice(&signature[HEADER..]);
        whole
    }

    /// Appends the sums of the last, shorter block.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        self.begin(out);
        if self.filled > 0 {
            self.block(out);
        }
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !self.has_begun {
            out.extend_from_slice(&self.format.header());
            self.has_begun = true;
        }
    }

    /// Takes bytes up to the end of the block at most; returns how many.
    fn push_some(&mut self, content: &[u8], out: &mut Vec<u8>) -> usize {
        let room = usize::try_from(self.format.block - self.filled).unwrap_or(usize::MAX);
        let now = room.min(content.len());
        self.weak.update(&content[..now]);
        self.strong.update(&content[..now]);
        self.filled += u32::try_from(now).unwrap_or(u32::MAX);
        if self.filled == self.format.block {
            self.block(out);
        }
        now
    }

    fn block(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.weak.value().to_be_bytes());
        self.strong.finish_into(usize::try_from(self.format.strong_length).unwrap_or(usize::MAX), out);
        self.weak = Weak::new(self.format.weak);
        self.filled = 0;
    }
}

/// Compares content that passes by with a signature that exists. Memory: the sums of some blocks.
pub struct SignatureCheck<R> {
    expected: R,
    maker: SignatureMaker,
    /// Sums made but not compared yet.
    made: Vec<u8>,
    differs: bool,
}

impl<R: Read> SignatureCheck<R> {
    /// Reads the header of the signature.
    pub fn new(mut expected: R) -> Result<Self, SignatureError> {
        let mut header = [0; HEADER];
        if read_up_to(&mut expected, &mut header)? < HEADER {
            return Err(SignatureError::Truncated);
        }
        let mut maker = SignatureMaker::new(SignatureFormat::parse(&header)?);
        maker.has_begun = true;
        Ok(Self { expected, maker, made: Vec::with_capacity(BATCH + MAX_SUMS), differs: false })
    }

    /// How the signature is made.
    pub fn format(&self) -> SignatureFormat {
        self.maker.format
    }

    /// Takes the next bytes of the content. Returns `false` as soon as it is known to differ; more need not be fed then.
    pub fn feed(&mut self, mut content: &[u8]) -> Result<bool, SignatureError> {
        while !content.is_empty() && !self.differs {
            let now = self.maker.push_some(content, &mut self.made);
            content = &content[now..];
            if self.made.len() >= BATCH {
                self.compare()?;
            }
        }
        Ok(!self.differs)
    }

    /// The content is complete: whether it is what the signature was made of.
    pub fn finish(mut self) -> Result<bool, SignatureError> {
        if !self.differs && self.maker.filled > 0 {
            self.maker.block(&mut self.made);
        }
        if !self.differs {
            self.compare()?;
        }
        Ok(!self.differs && self.is_at_end()?)
    }

    /// Compares the sums at hand with as many of the signature; fewer there are a difference.
    fn compare(&mut self) -> Result<(), SignatureError> {
        let mut expected = [0; 4 << 10];
        let mut made = &self.made[..];
        while !made.is_empty() && !self.differs {
            let now = made.len().min(expected.len());
            let got = read_up_to(&mut self.expected, &mut expected[..now])?;
            self.differs = made[..got] != expected[..got] || got < now;
            let sums = 4 + self.maker.format.strong_length as usize;
            if got < now && !(self.made.len() - made.len() + got).is_multiple_of(sums) {
                return Err(SignatureError::Truncated);
            }
            made = &made[now..];
        }
        self.made.clear();
        Ok(())
    }

    fn is_at_end(&mut self) -> Result<bool, SignatureError> {
        Ok(read_up_to(&mut self.expected, &mut [0])? == 0)
    }
}

fn read_up_to(from: &mut impl Read, buffer: &mut [u8]) -> Result<usize, SignatureError> {
    let mut got = 0;
    while got < buffer.len() {
        match from.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(SignatureError::Io(e)),
        }
    }
    Ok(got)
}
