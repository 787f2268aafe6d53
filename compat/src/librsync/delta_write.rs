//! Writing deltas.

use std::io::{self, Write};

use super::delta::MAGIC;

/// Most literal bytes whose length is the opcode itself.
const MAX_SHORT: usize = 0x40;

/// Writes a delta, each command in its shortest form.
pub struct DeltaWriter<W> {
    out: W,
}

impl<W: Write> DeltaWriter<W> {
    /// Writes the magic number.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&MAGIC.to_be_bytes())?;
        Ok(Self { out })
    }

    /// New bytes. None are no command.
    pub fn literal(&mut self, data: &[u8]) -> io::Result<()> {
        self.literal_header(data.len() as u64)?;
        self.out.write_all(data)
    }

    /// Announces `length` new bytes, which the caller has to write to [`DeltaWriter::get_mut`].
    pub fn literal_header(&mut self, length: u64) -> io::Result<()> {
        match length {
            0 => Ok(()),
            short if short <= MAX_SHORT as u64 => self.out.write_all(&[length.to_be_bytes()[7]]),
            _ => {
                let (code, bytes) = (width(length), length.to_be_bytes());
                self.out.write_all(&[0x41 + code])?;
                self.out.write_all(&bytes[8 - (1 << code)..])
            }
        }
    }

    /// `length` bytes of the basis from `offset` on. No bytes are no command.
    pub fn copy(&mut self, offset: u64, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        let (i, j) = (width(offset), width(length));
        self.out.write_all(&[0x45 + 4 * i + j])?;
        self.out.write_all(&offset.to_be_bytes()[8 - (1 << i)..])?;
        self.out.write_all(&length.to_be_bytes()[8 - (1 << j)..])
    }

    /// Where literal data goes.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Writes the end mark.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0])?;
        Ok(self.out)
    }
}

/// Which of the widths 1, 2, 4 and 8 bytes a number needs, counted from 0.
fn width(n: u64) -> u8 {
    match n {
        0..=0xff => 0,
        0x100..=0xffff => 1,
        0x1_0000..=0xffff_ffff => 2,
        _ => 3,
    }
}
