//! A stream of bytes from one thread to another.

use std::io::{self, Read};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

/// Bytes of a piece; a sender copies into pieces of this size.
pub(crate) const PIECE: usize = 64 << 10;
/// Pieces on their way at most.
const PIECES: usize = 16;

enum Piece {
    Data(Vec<u8>),
    End,
    Failed(Arc<str>),
}

/// Makes both ends. At most 1 MiB is on its way.
pub(crate) fn pipe() -> (Writer, Reader) {
    let (tx, rx) = bounded(PIECES);
    (Writer { tx, lost: false }, Reader { rx, piece: Vec::new(), at: 0, end: None })
}

/// The end that is written to. Dropped without [`Writer::finish`], the reader fails.
pub(crate) struct Writer {
    tx: Sender<Piece>,
    lost: bool,
}

impl Writer {
    /// Copies all of `from`; its errors are the caller's. A reader that is gone is no error: the rest is not copied then.
    pub fn copy(&mut self, from: &mut dyn Read) -> io::Result<u64> {
        let mut copied = 0;
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            (&mut *from).take(PIECE as u64).read_to_end(&mut piece)?;
            if piece.is_empty() {
                return Ok(copied);
            }
            copied += piece.len() as u64;
            self.put(Piece::Data(piece));
        }
    }

    /// That was all.
    pub fn finish(mut self) {
        self.put(Piece::End);
    }

    /// There is no more, and what there was is worth nothing.
    pub fn fail(mut self, why: &str) {
        self.put(Piece::Failed(why.into()));
    }

    fn put(&mut self, piece: Piece) {
        self.lost = self.lost || self.tx.send(piece).is_err();
    }

    /// Whether nobody reads any more.
    pub fn is_lost(&self) -> bool {
        self.lost
    }
}

/// The end that is read from.
pub(crate) struct Reader {
    rx: Receiver<Piece>,
    piece: Vec<u8>,
    at: usize,
    /// How it ended.
    end: Option<Result<(), Arc<str>>>,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.piece.get(self.at..).unwrap_or_default();
            if !left.is_empty() || buffer.is_empty() {
                let n = left.len().min(buffer.len());
                if let (Some(to), Some(from)) = (buffer.get_mut(..n), left.get(..n)) {
                    to.copy_from_slice(from);
                }
                self.at += n;
                return Ok(n);
            }
            match &self.end {
                Some(Ok(())) => return Ok(0),
                Some(Err(why)) => return Err(io::Error::other(why.to_string())),
                None => match self.rx.recv() {
                    Ok(Piece::Data(piece)) => (self.piece, self.at) = (piece, 0),
                    Ok(Piece::End) => self.end = Some(Ok(())),
                    Ok(Piece::Failed(why)) => self.end = Some(Err(why)),
                    Err(_) => self.end = Some(Err("reading the archive was given up".into())),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(write: impl FnOnce(Writer) + Send + 'static) -> (Vec<u8>, io::Result<usize>) {
        let (writer, mut reader) = pipe();
        let thread = std::thread::spawn(move || write(writer));
        let mut got = Vec::new();
        let result = reader.read_to_end(&mut got);
        thread.join().expect("no panic");
        (got, result)
    }

    #[test]
    fn bytes_come_through_in_order() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let sent = bytes.clone();
        let (got, result) = through(move |mut writer| {
            writer.copy(&mut &sent[..1_000_001]).expect("copies");
            writer.copy(&mut &sent[1_000_001..]).expect("copies");
            writer.finish();
        });
        assert!(result.is_ok());
        assert!(got == bytes);
    }

    #[test]
    fn only_a_finished_stream_ends_well() {
        let (got, result) = through(|mut writer| {
            writer.copy(&mut &b"abc"[..]).expect("copies");
        });
        assert_eq!(got, b"abc");
        assert!(result.is_err(), "dropped");
        let (_, result) = through(|writer| writer.fail("volume 3 is missing"));
        assert_eq!(result.expect_err("failed").to_string(), "volume 3 is missing");
    }

    #[test]
    fn a_reader_that_leaves_stops_nobody() {
        let (mut writer, reader) = pipe();
        drop(reader);
        assert_eq!(writer.copy(&mut io::repeat(7).take(5_000_000)).expect("copies"), 5_000_000);
        assert!(writer.is_lost());
        writer.finish();
    }
}
