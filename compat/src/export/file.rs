//! One file of an archive on its way: wrapped as its name says, counted and hashed.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha1::{Digest, Sha1};

use super::{Sealing, failed};
use crate::deflate::Gzip;
use crate::name::Encoding;
use crate::pgp::Encryptor;
use crate::store::{Target, Upload};
use engine::error::Result;

const RECORD: u64 = 10_240;
const BLOCK: u64 = 512;

/// A file as it goes to its target.
struct Stored {
    upload: Box<dyn Upload>,
    hash: Sha1,
    written: Arc<AtomicU64>,
}

impl Write for Stored {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.upload.write(data)?;
        self.hash.update(&data[..n]);
        self.written.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.upload.flush()
    }
}

enum Wrapped {
    Plain(Stored),
    Gzip(Box<Gzip<Stored>>),
    OpenPgp(Box<Encryptor<Stored>>),
}

/// A file of an archive being written.
pub(crate) struct ArchiveFile {
    name: String,
    location: String,
    wrapped: Wrapped,
    /// Bytes of content so far.
    content: u64,
    /// Bytes that have arrived at the target; lags behind by what compression and encryption hold back.
    written: Arc<AtomicU64>,
}

/// A file that is complete.
pub(crate) struct Finished {
    /// Of the file as stored.
    pub sha1: [u8; 20],
    /// Its size in bytes.
    pub size: u64,
}

impl ArchiveFile {
    pub fn create(target: &dyn Target, name: String, encoding: Encoding, sealing: &Sealing) -> Result<Self> {
        let upload = target.create(&name).map_err(failed)?;
        let (location, written) = (target.location(), Arc::new(AtomicU64::new(0)));
        let stored = Stored { upload, hash: Sha1::new(), written: Arc::clone(&written) };
        let wrapped = match (encoding, sealing) {
            (Encoding::OpenPgp, Sealing::OpenPgp(encryption)) => {
                let encryptor = encryption.encrypt(stored).map_err(|e| cannot_write(&location, &name, e))?;
                Wrapped::OpenPgp(Box::new(encryptor))
            }
            (Encoding::Gzip, _) => Wrapped::Gzip(Box::new(Gzip::new(stored).map_err(|e| cannot_write(&location, &name, e))?)),
            _ => Wrapped::Plain(stored),
        };
        Ok(Self { name, location, wrapped, content: 0, written })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the file reaches `limit` bytes with the next `more`. Depends on nothing but the content; up to 160 KiB of it may not
    /// be counted yet.
    pub fn reaches(&mut self, limit: u64, more: u64) -> Result<bool> {
        let written = |this: &Self| this.written.load(Ordering::Relaxed).saturating_add(more);
        let pending = match &self.wrapped {
            Wrapped::Plain(_) => 0,
            Wrapped::Gzip(out) => out.pending(),
            Wrapped::OpenPgp(out) => out.pending(),
        };
        if pending > 0 && written(self).saturating_add(pending) > limit {
            let drained = match &mut self.wrapped {
                Wrapped::Plain(_) => Ok(()),
                Wrapped::Gzip(out) => out.drain(),
                Wrapped::OpenPgp(out) => out.drain(),
            };
            drained.map_err(|e| cannot_write(&self.location, &self.name, e))?;
        }
        Ok(written(self) > limit)
    }

    pub fn write(&mut self, data: &[u8]) -> Result<()> {
        let result = match &mut self.wrapped {
            Wrapped::Plain(out) => out.write_all(data),
            Wrapped::Gzip(out) => out.write_all(data),
            Wrapped::OpenPgp(out) => out.write_all(data),
        };
        self.content += data.len() as u64;
        result.map_err(|e| cannot_write(&self.location, &self.name, e))
    }

    /// Writes the end of a tar: two blocks of zeros, and up to a whole record.
    pub fn end_tar(&mut self) -> Result<()> {
        let zeros = 2 * BLOCK + (RECORD - (self.content + 2 * BLOCK) % RECORD) % RECORD;
        self.write(&vec![0; usize::try_from(zeros).unwrap_or_default()])
    }

    pub fn finish(self) -> Result<Finished> {
        let stored = match self.wrapped {
            Wrapped::Plain(out) => Ok(out),
            Wrapped::Gzip(out) => out.finish(),
            Wrapped::OpenPgp(out) => out.finish(),
        };
        let stored = stored.map_err(|e| cannot_write(&self.location, &self.name, e))?;
        stored.upload.finish().map_err(failed)?;
        Ok(Finished { sha1: stored.hash.finalize().into(), size: self.written.load(Ordering::Relaxed) })
    }
}

fn cannot_write(location: &str, name: &str, source: io::Error) -> engine::error::Error {
    engine::error::Error::Io { path: format!("{location}/{name}").into(), action: "cannot write", source }
}
