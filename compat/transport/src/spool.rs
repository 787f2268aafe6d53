//! Files that wait on this machine to be put: unnamed, complete, and read as often as need be.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::process::Stdio;

use crate::error::Failure;

/// The path of standard input by which a program opens a file that has no name; it must follow links.
pub(crate) const STDIN_PATH: &str = "/proc/self/fd/0";

/// A file being written.
#[derive(Debug)]
pub(crate) struct Spooling(BufWriter<File>);

impl Spooling {
    pub(crate) fn start() -> Result<Self, Failure> {
        let file = tempfile::tempfile().map_err(|e| Failure::local(&e))?;
        Ok(Self(BufWriter::with_capacity(128 << 10, file)))
    }

    pub(crate) fn finish(self) -> Result<Spool, Failure> {
        let file = self.0.into_inner().map_err(|e| Failure::local(e.error()))?;
        let size = file.metadata().map_err(|e| Failure::local(&e))?.len();
        Ok(Spool { file, size })
    }
}

impl Write for Spooling {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A file that is complete.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    size: u64,
}

impl Spool {
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// From its start.
    pub(crate) fn reader(&self) -> SpoolReader<'_> {
        SpoolReader { spool: self, position: 0 }
    }

    /// For a program that opens it by [`STDIN_PATH`].
    pub(crate) fn stdin(&self) -> Result<Stdio, Failure> {
        Ok(self.file.try_clone().map_err(|e| Failure::local(&e))?.into())
    }
}

/// Its failures are no server's: nothing gets better by sending again.
#[derive(Debug)]
pub(crate) struct SpoolReader<'a> {
    spool: &'a Spool,
    position: u64,
}

impl Read for SpoolReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.spool.file.read_at(buffer, self.position) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::local(&error).into()),
                Ok(0) if !buffer.is_empty() && self.position < self.spool.size => {
                    return Err(Failure::local(&io::ErrorKind::UnexpectedEof.into()).into());
                }
                Ok(n) => {
                    self.position = self.position.saturating_add(n as u64);
                    return Ok(n);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_often_as_need_be() {
        let mut spooling = Spooling::start().unwrap();
        spooling.write_all(&[7; 300_000]).unwrap();
        let spool = spooling.finish().unwrap();
        assert_eq!(spool.size(), 300_000);
        for _ in 0..2 {
            let mut bytes = Vec::new();
            spool.reader().read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, [7; 300_000]);
        }
        spool.file().set_len(10).unwrap();
        let error = spool.reader().read_to_end(&mut Vec::new()).unwrap_err();
        assert!(!Failure::from(error).is_temporary());
    }
}
