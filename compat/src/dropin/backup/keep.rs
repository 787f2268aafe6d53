//! Copies for the local cache, statistics as a file, and a target that keeps nothing.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::NamedTempFile;

use crate::dropin::cache::Cache;
use crate::dropin::context::Context;
use crate::dropin::failure::{Failure, Result, code};
use crate::dropin::log::Log;
use crate::export::file::ArchiveFile;
use crate::export::set::{Witness, file_name};
use crate::export::{ExportOptions, Mode};
use crate::name::{FileKind, SetTimes};
use crate::store::{Store, StoreError, StoreErrorKind, StoredFile, Target, Upload};
use crate::tar::terminator;

/// Keeps signatures and manifest in the cache once the set is complete.
pub(super) struct Keeper<'c> {
    cache: &'c Cache,
    log: &'c Log,
    times: SetTimes,
    signatures: GzEncoder<NamedTempFile>,
    written: u64,
}

impl<'c> Keeper<'c> {
    pub fn new(context: &'c Context, times: SetTimes) -> Result<Self> {
        let (cache, log) = (&context.cache, &*context.log);
        let failed = |e: io::Error| {
            let text = format!("cannot write in the archive directory {}: {e}", cache.folder().display());
            Failure::new(code::ARCHIVE_DIR, text)
        };
        let file = NamedTempFile::with_prefix_in(".deduplicity-", cache.folder()).map_err(failed)?;
        Ok(Self { cache, log, times, signatures: GzEncoder::new(file, Compression::fast()), written: 0 })
    }

    fn keep(&mut self, manifest: &[u8]) -> io::Result<()> {
        let zeros = usize::try_from(terminator(self.written)).unwrap_or_default();
        self.signatures.write_all(&vec![0; zeros])?;
        self.signatures.try_finish()?;
        let path = self.cache.path(FileKind::Signature, self.times, false);
        let empty = NamedTempFile::with_prefix_in(".deduplicity-", self.cache.folder())?;
        std::mem::replace(self.signatures.get_mut(), empty).persist(path).map_err(|e| e.error)?;
        let failed = |failure: Failure| io::Error::other(failure.message);
        self.cache.keep(FileKind::Manifest, self.times, &mut &*manifest).map_err(failed)
    }
}

impl Witness for Keeper<'_> {
    fn signatures(&mut self, data: &[u8]) -> io::Result<()> {
        self.written += data.len() as u64;
        self.signatures.write_all(data)
    }

    /// A cache that cannot be written makes the next run read the archive instead.
    fn complete(&mut self, manifest: &[u8]) {
        if let Err(error) = self.keep(manifest) {
            self.cache.forget(self.times);
            let folder = self.cache.folder().display();
            let text = format!("the backup is complete, but cannot be kept in the archive directory {folder}: {error}");
            self.log.warn(&text);
        }
    }
}

/// Stores the statistics of a set beside it.
pub(super) fn store_statistics(context: &Context, times: SetTimes, text: &[u8]) -> Result<()> {
    let options = ExportOptions {
        mode: Mode::Auto,
        sealing: context.sealing.clone(),
        volume_size: context.options.volume_size,
        prefixes: context.options.prefixes.clone(),
        host: None,
        source: None,
        dry_run: false,
    };
    let (name, encoding) = file_name(&options, times, FileKind::JsonStat);
    let mut file = ArchiveFile::create(&**context.target()?, name, encoding, &options.sealing)?;
    file.write(text)?;
    file.finish()?;
    context.cache.keep(FileKind::JsonStat, times, &mut &*text)
}

/// Takes files and forgets them: where only statistics are wanted.
#[derive(Debug)]
pub(super) struct Discard;

struct Nowhere;

impl Store for Discard {
    fn location(&self) -> String {
        "nowhere".to_owned()
    }

    fn concurrency(&self) -> usize {
        1
    }

    fn list(&self) -> Result<Vec<StoredFile>, StoreError> {
        Ok(Vec::new())
    }

    fn open(&self, name: &str) -> Result<Box<dyn Read + Send>, StoreError> {
        let message = "nothing was kept".to_owned();
        Err(StoreError { kind: StoreErrorKind::NotFound, location: self.location(), name: name.to_owned(), message })
    }
}

impl Target for Discard {
    fn create(&self, _: &str) -> Result<Box<dyn Upload>, StoreError> {
        Ok(Box::new(Nowhere))
    }

    fn remove(&self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Write for Nowhere {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Upload for Nowhere {
    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}
