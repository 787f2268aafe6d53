//! `dump`

mod tar;
mod zip;

use std::io::{self, Read, Write};
use std::sync::Arc;

use anyhow::{Result, bail};
use engine::catalog::CatalogReader;
use engine::content::{StoredFiles, StoredReader};
use engine::entry::{Entry, Kind};
use engine::error::Error;
use engine::monitor::{Counter, Monitor, Problem};
use engine::path::EntryPath;
use engine::repo::Reader;
use engine::restore::Links;

use self::tar::Tar;
use self::zip::Zip;
use super::list;
use crate::args::{DumpArgs, DumpFormat};
use crate::context::Context;
use crate::exit::{Status, advise};
use crate::ui::Out;

/// Bytes of a file that is kept until it is written; longer ones are read twice, since nothing of a file that is damaged may be
/// in the archive.
const KEPT: u64 = 8 << 20;

/// An archive that is being written.
trait Archive {
    /// Adds an entry under a name without a slash in front or at the end. A regular file is followed by `content`, all of it.
    fn add(&mut self, name: &[u8], entry: &Entry, content: &mut dyn Read) -> io::Result<Added>;

    /// Adds another name of a file that is in the archive; `false` if the format has no such thing.
    fn link(&mut self, name: &[u8], entry: &Entry, first: &[u8]) -> io::Result<bool>;

    /// Ends the archive.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// Whether an entry is in the archive.
enum Added {
    Yes,
    /// The format cannot hold it.
    No(&'static str),
}

pub fn run(context: &Context, args: &DumpArgs) -> Result<Status> {
    if Out::is_terminal() {
        bail!(advise("an archive is nothing for a terminal", "write it to a file with '>', or pipe it into tar"));
    }
    let reader = context.reader()?;
    let record = context.find(&reader, &args.snapshot.reference, &args.filter)?;
    let out = context.ui.out();
    let mut archive: Box<dyn Archive> = match args.format {
        DumpFormat::Tar => Box::new(Tar::new(out)),
        DumpFormat::TarZst => Box::new(Tar::compressed(out)?),
        DumpFormat::Zip => Box::new(Zip::new(out)),
    };
    let base = args.snapshot.path.clone().unwrap_or_default();
    context.ui.stage("dumping");
    let mut dump = Dump { monitor: &*context.ui, files: StoredFiles::new(Arc::clone(&reader)), links: Links::default(), base };
    if !dump.write(&reader, record.snapshot.root, &mut *archive)? && !dump.base.is_root() {
        return Err(list::not_found(&record, &dump.base));
    }
    archive.finish()?;
    Ok(context.status())
}

struct Dump<'m> {
    monitor: &'m dyn Monitor,
    files: Arc<StoredFiles>,
    links: Links,
    base: EntryPath,
}

impl Dump<'_> {
    /// Writes all entries; `false` if there is none.
    fn write(&mut self, reader: &Reader, root: Option<engine::id::BlobId>, archive: &mut dyn Archive) -> Result<bool> {
        let mut catalog = CatalogReader::at(reader, root, &self.base)?;
        let mut any = false;
        while let Some(entry) = catalog.next_entry()? {
            if self.monitor.cancelled() {
                return Err(Error::Interrupted.into());
            }
            let Some(name) = self.name(&entry.path) else { break };
            any = true;
            self.entry(&name, &entry, archive)?;
            self.monitor.count(Counter::Entries, 1);
        }
        Ok(any)
    }

    /// What an entry is called in the archive; a single file by its own name.
    fn name(&self, path: &EntryPath) -> Option<Vec<u8>> {
        let relative = path.strip(&self.base)?;
        let is_base = relative.is_root() && !path.is_root();
        let own = || path.as_bytes().rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec();
        Some(if is_base { own() } else { relative.as_bytes().to_vec() })
    }

    fn entry(&mut self, name: &[u8], entry: &Entry, archive: &mut dyn Archive) -> Result<()> {
        // The directory itself, whose contents are dumped.
        let name = if entry.is_directory() && entry.path == self.base { b"." } else { name };
        if let Some(first) = self.links.first(entry).and_then(|first| self.name(&first.path))
            && archive.link(name, entry, &first)?
        {
            return Ok(());
        }
        let added = if entry.kind == Kind::File {
            let mut content = match self.content(entry) {
                Ok(content) => content,
                Err(error) if error.is_local() => {
                    self.problem(entry, format!("left out: {error}"));
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            archive.add(name, entry, &mut *content)?
        } else {
            archive.add(name, entry, &mut io::empty())?
        };
        match added {
            Added::Yes => self.links.remember(entry, 0),
            Added::No(why) => self.problem(entry, format!("left out: {why}")),
        }
        Ok(())
    }

    fn problem(&self, entry: &Entry, message: String) {
        self.monitor.problem(Problem { subject: format!("/{}", entry.path.display()), message });
    }

    /// The content, of which every byte is known to be there and right.
    fn content(&self, entry: &Entry) -> engine::error::Result<Box<dyn Read>> {
        let stored = || Stored { reader: self.files.open(entry), at: 0, size: entry.size, monitor: None };
        let mut first = Stored { monitor: Some(self.monitor), ..stored() };
        let mut kept = Vec::new();
        if entry.size <= KEPT {
            first.read_all(&mut kept)?;
            return Ok(Box::new(io::Cursor::new(kept)));
        }
        first.read_all(&mut io::sink())?;
        Ok(Box::new(stored()))
    }
}

/// A stored file, read from its start to its end.
struct Stored<'m> {
    reader: StoredReader,
    at: u64,
    size: u64,
    monitor: Option<&'m dyn Monitor>,
}

impl Stored<'_> {
    fn next(&mut self, buffer: &mut [u8]) -> engine::error::Result<usize> {
        let n = if self.at < self.size { self.reader.read_at(self.at, buffer)? } else { 0 };
        self.at += n as u64;
        if let Some(monitor) = self.monitor {
            monitor.count(Counter::Bytes, n as u64);
            if monitor.cancelled() {
                return Err(Error::Interrupted);
            }
        }
        Ok(n)
    }

    fn read_all(&mut self, out: &mut dyn Write) -> engine::error::Result<()> {
        let mut buffer = vec![0; 256 << 10];
        loop {
            let n = self.next(&mut buffer)?;
            if n == 0 {
                break;
            }
            // Into memory, or nowhere.
            let _ = out.write_all(&buffer[..n]);
        }
        if self.at == self.size { Ok(()) } else { Err(Error::damaged("a file", "is shorter than its entry says")) }
    }
}

impl Read for Stored<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.next(buffer).map_err(io::Error::other)
    }
}
