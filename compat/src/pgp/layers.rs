//! The layers of a message that is written: partial packets, compression, the encrypted data with its code.

use std::io::{self, Write};

use sequoia_openpgp::crypto::SessionKey;
use sequoia_openpgp::crypto::symmetric::{BlockCipherMode, Encryptor as Cfb, PaddingMode};
use sequoia_openpgp::types::SymmetricAlgorithm;
use sha1::{Digest, Sha1};

use crate::deflate::Deflate;

/// Bytes of a part of a packet whose length is not known; a power of two. gpg takes half as many.
const PART: usize = 16 << 10;
const PART_LENGTH: u8 = 0xe0 | 14;
const _: () = assert!(1 << (PART_LENGTH & 0x1f) == PART);
/// Block size of the cipher in bytes.
const BLOCK: usize = 16;
/// The only cipher that is written.
pub(super) const CIPHER: SymmetricAlgorithm = SymmetricAlgorithm::AES256;

/// A packet written part by part.
pub(super) struct Partial<W> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> Partial<W> {
    /// Writes the packet's tag.
    pub(super) fn new(mut out: W, tag: u8) -> io::Result<Self> {
        out.write_all(&[0xc0 | tag])?;
        Ok(Self { out, buffer: Vec::with_capacity(PART) })
    }

    /// Writes the last part.
    #[allow(clippy::big_endian_bytes, reason = "OpenPGP is big-endian")]
    pub(super) fn finish(mut self) -> io::Result<W> {
        let length = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX).to_be_bytes();
        self.out.write_all(&[0xff])?;
        self.out.write_all(&length)?;
        self.out.write_all(&self.buffer)?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Partial<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == PART {
            self.out.write_all(&[PART_LENGTH])?;
            self.out.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        let n = data.len().min(PART - self.buffer.len());
        self.buffer.extend_from_slice(&data[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Packet 18 of version 1: AES-256 in CFB mode, with a modification detection code.
pub(super) struct Sealing<W: Write> {
    cfb: Cfb<Partial<W>>,
    hash: Sha1,
}

impl<W: Write> Sealing<W> {
    pub(super) fn new(out: W, key: &SessionKey) -> io::Result<Self> {
        let mut body = Partial::new(out, 18)?;
        body.write_all(&[1])?;
        let cfb = Cfb::new(CIPHER, BlockCipherMode::CFB, PaddingMode::None, key, None, body).map_err(io::Error::other)?;
        let mut this = Self { cfb, hash: Sha1::new() };
        let mut prefix = [0; BLOCK + 2];
        sequoia_openpgp::crypto::random(&mut prefix[..BLOCK]).map_err(io::Error::other)?;
        prefix.copy_within(BLOCK - 2..BLOCK, BLOCK);
        this.write_all(&prefix)?;
        Ok(this)
    }

    /// Writes the code and ends the packet.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.write_all(&[0xd3, 20])?;
        let code = self.hash.finalize();
        self.cfb.write_all(&code)?;
        self.cfb.finalize().map_err(io::Error::other)?.finish()
    }
}

impl<W: Write> Write for Sealing<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.cfb.write(data)?;
        self.hash.update(&data[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Packet 8 with ZIP of indeterminate length, as gpg writes it, or nothing.
pub(super) enum Packing<W: Write> {
    Stored(W),
    Zip(Deflate<W>),
}

impl<W: Write> Packing<W> {
    pub(super) fn zip(mut out: W) -> io::Result<Self> {
        out.write_all(&[0xa3, 1])?;
        Ok(Self::Zip(Deflate::new(out)))
    }

    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::Stored(out) => Ok(out),
            Self::Zip(deflate) => deflate.finish(),
        }
    }
}

impl<W: Write> Write for Packing<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stored(out) => out.write(data),
            Self::Zip(deflate) => deflate.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
