//! The source merged with what the archive has: what is new, changed or gone becomes a member.
//!
//! FORMAT §12.2 and §12.3.

use std::cmp::Ordering;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::entry::{Content as Stored, Entry, Kind, OpenFile, SourceEntry};
use engine::error::Error;

use super::plan::Base;
use super::stats::Statistics;
use crate::dropin::context::{Content, Context};
use crate::dropin::failure::{Failure, Result, code};
use crate::dropin::log::{Level, code as stanza, quoted};
use crate::dropin::names::Names;
use crate::dropin::source::{Source, Tally};
use crate::export::SetTotals;
use crate::export::header::{self, Place};
use crate::export::pieces::{Holds, Pieces};
use crate::export::set::SetWriter;
use crate::librsync::{KnownBlocks, SignatureFormat, SignatureMaker, make_delta};
use crate::manifest::FileAction;
use crate::sigtar::{Merged, SigtarEntry};
use crate::tar::{Header, TarKind};

/// Bytes that are read at a time.
const BUFFER: usize = 256 << 10;

type Baseline = Merged<BufReader<Content>>;

/// A set being written from the source.
pub(super) struct Writer<'a, 'c> {
    context: &'c Context,
    set: SetWriter<'a>,
    statistics: &'c mut Statistics,
    tally: &'c Arc<Tally>,
    source: PathBuf,
    names: Names,
    buffer: Vec<u8>,
}

impl<'a, 'c> Writer<'a, 'c> {
    pub fn new(
        context: &'c Context,
        set: SetWriter<'a>,
        statistics: &'c mut Statistics,
        tally: &'c Arc<Tally>,
        source: &Path,
    ) -> Self {
        let names = if context.options.numeric_owner { Names::numeric() } else { Names::load() };
        Self { context, set, statistics, tally, source: source.to_owned(), names, buffer: vec![0; BUFFER] }
    }

    /// Writes all. `None` if nothing has changed and nothing is to be written then.
    pub fn all(mut self, mut files: Source, base: Option<&Base>) -> Result<Option<SetTotals>> {
        match self.merge(&mut files, base) {
            Ok(()) if self.context.options.skip_if_no_change && base.is_some() && self.set.is_untouched() => Ok(None),
            Ok(()) => Ok(Some(self.set.finish()?)),
            Err(failure) => {
                let aborted = self.set.abort(Error::Invalid(failure.message));
                Err(Failure::new(failure.code, aborted.to_string()))
            }
        }
    }

    fn merge(&mut self, files: &mut Source, base: Option<&Base>) -> Result<()> {
        let sets = base.map(|base| &base.sets[..]).unwrap_or_default();
        let readers = sets.iter().map(|set| self.context.signatures(set)).collect::<Result<Vec<_>>>()?;
        let mut baseline: Baseline = Merged::new(readers);
        let damaged = |e: &dyn std::fmt::Display| Failure::new(code::EXCEPTION, format!("the archive's signatures: {e}"));
        let (mut stored, mut live) = (baseline.next().map_err(|e| damaged(&e))?, files.next()?);
        loop {
            self.context.check_cancelled()?;
            let order = match (&stored, &live) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(stored), Some(live)) => stored.path.cmp(&live.path),
            };
            match (order, &stored, live.as_ref()) {
                (Ordering::Less, Some(stored), _) => self.deleted(stored, files)?,
                (Ordering::Equal, Some(stored), Some(live)) => self.present(Some(stored), &mut baseline, live)?,
                (Ordering::Greater, _, Some(live)) => self.present(None, &mut baseline, live)?,
                _ => {}
            }
            if order.is_le() {
                stored = baseline.next().map_err(|e| damaged(&e))?;
            }
            if order.is_ge() {
                live = files.next()?;
            }
        }
    }

    /// What could not be looked at keeps its last state.
    fn deleted(&mut self, stored: &SigtarEntry, files: &Source) -> Result<()> {
        if self.tally.is_doubtful(&files.shown(&stored.path)) {
            return Ok(());
        }
        let header = header::deleted(&stored.path);
        self.set.member(&header, &[], &stored.path, None)?;
        self.set.signature(&header, &[])?;
        self.set.totals.deleted += 1;
        self.statistics.deleted += 1;
        if stored.header.kind == TarKind::Regular {
            self.set.changed(FileAction::Deleted, &stored.path);
        }
        self.say(stanza::DIFF_DELETED, "D", stored.path.as_bytes());
        Ok(())
    }

    fn say(&self, code: u32, letter: &str, path: &[u8]) {
        let name = if path.is_empty() { b"." } else { path };
        self.context.log.say(Level::INFO, code, &quoted(name), &format!("{letter} {}", engine::path::display_bytes(name)));
    }

    fn present(&mut self, stored: Option<&SigtarEntry>, baseline: &mut Baseline, live: &SourceEntry) -> Result<()> {
        let entry = entry(live);
        if !header::fits(&entry) {
            self.tally
                .error(entry.path.as_bytes(), &format!("{}: a device number that no archive can hold", entry.path.display()));
            return Ok(());
        }
        let size = self.size(live);
        self.statistics.source_files += 1;
        self.statistics.source_size += size;
        if stored.is_some_and(|stored| self.is_unchanged(stored, &entry)) {
            return Ok(());
        }
        let written = match (&entry.kind, stored) {
            (Kind::File, Some(stored)) if stored.header.kind == TarKind::Regular => self.changed(baseline, live, &entry)?,
            (Kind::File, _) => self.new_file(live, &entry)?,
            _ => self.node(&entry)?,
        };
        match written {
            Some(FileAction::New) => {
                self.statistics.new_files += 1;
                self.statistics.new_size += size;
                let is_changed = stored.is_some();
                let (code, letter) = if is_changed { (stanza::DIFF_CHANGED, "M") } else { (stanza::DIFF_NEW, "A") };
                self.say(code, letter, entry.path.as_bytes());
            }
            Some(_) => {
                self.statistics.changed += 1;
                self.statistics.changed_size += size;
                self.say(stanza::DIFF_CHANGED, "M", entry.path.as_bytes());
            }
            None => {}
        }
        Ok(())
    }

    /// As the file system tells it, also of directories and links.
    fn size(&self, live: &SourceEntry) -> u64 {
        match &live.kind {
            Kind::File => live.size,
            Kind::Symlink(target) => target.len() as u64,
            Kind::Directory => {
                use std::os::unix::ffi::OsStrExt;
                let path = self.source.join(std::ffi::OsStr::from_bytes(live.path.as_bytes()));
                path.symlink_metadata().map_or(0, |found| found.len())
            }
            _ => 0,
        }
    }

    /// Content does not count here: duplicity goes by the time of the last change.
    fn is_unchanged(&self, stored: &SigtarEntry, entry: &Entry) -> bool {
        let (before, now) = (&stored.header, header::of(entry));
        if before.kind != now.kind {
            return false;
        }
        let same_owner = (before.mode & 0o7777, self.names.owner(before)) == (now.mode, (now.uid, now.gid));
        match before.kind {
            TarKind::Symlink => before.link == now.link,
            TarKind::CharDevice | TarKind::BlockDevice => same_owner && (before.major, before.minor) == (now.major, now.minor),
            _ => same_owner && before.mtime.max(0) == now.mtime,
        }
    }

    fn node(&mut self, entry: &Entry) -> Result<Option<FileAction>> {
        let header = header::of(entry);
        let named = |place| Header { name: header::name("snapshot", entry, place), ..header.clone() };
        self.set.member(&named(Place::Volume), &[], &entry.path, None)?;
        self.set.signature(&named(Place::Signatures), &[])?;
        self.set.totals.new += 1;
        Ok(Some(FileAction::New))
    }

    /// Opens a file; `None`, with a warning, if that cannot be done.
    fn open(&self, live: &SourceEntry) -> Option<Box<dyn OpenFile>> {
        let opened = match live.content.lazy() {
            Some(lazy) => lazy.open(),
            None => Err(io::Error::other("it has no content")),
        };
        match opened {
            Ok(file) => Some(file),
            Err(error) => {
                let name = live.path.display();
                self.tally.error(live.path.as_bytes(), &format!("Error accessing possibly locked file {name}: {error}"));
                None
            }
        }
    }

    fn new_file(&mut self, live: &SourceEntry, entry: &Entry) -> Result<Option<FileAction>> {
        let Some(file) = self.open(live) else { return Ok(None) };
        let mut reading = Reading::new(file, entry, self.tally, self.context);
        let mut pieces = Pieces::new(&mut self.set, entry, Holds::Content);
        loop {
            let n = reading.fill(&mut self.buffer)?;
            if n == 0 {
                break;
            }
            pieces.push(&self.buffer[..n])?;
        }
        pieces.finish()?;
        self.set.totals.new += 1;
        self.end_file(reading, entry, FileAction::New)
    }

    fn changed(&mut self, baseline: &mut Baseline, live: &SourceEntry, entry: &Entry) -> Result<Option<FileAction>> {
        let known = KnownBlocks::read(&mut *baseline);
        let known =
            known.map_err(|e| Failure::new(code::EXCEPTION, format!("the signature of {}: {e}", entry.path.display())))?;
        let Some(known) = known else { return self.new_file(live, entry) };
        let Some(file) = self.open(live) else { return Ok(None) };
        let mut reading = Reading::new(file, entry, self.tally, self.context);
        let mut sink = Sink { pieces: Pieces::new(&mut self.set, entry, Holds::Delta), failed: None };
        let made = make_delta(&known, &mut reading, &mut sink);
        if let Some(error) = sink.failed {
            return Err(error.into());
        }
        made.map_err(|error| match error.downcast::<Failure>() {
            Ok(failure) => failure,
            Err(error) => error.into(),
        })?;
        sink.pieces.finish()?;
        self.set.totals.changed += 1;
        self.end_file(reading, entry, FileAction::Changed)
    }

    fn end_file(&mut self, reading: Reading<'_>, entry: &Entry, action: FileAction) -> Result<Option<FileAction>> {
        let has_failed = reading.has_failed;
        let signature = reading.finish();
        let name = header::name("signature", entry, Place::Signatures);
        let mut header = Header { name, size: signature.len() as u64, ..header::of(entry) };
        if has_failed {
            // Another time than its own, so that the next run reads it again.
            header.mtime = i64::from(header.mtime == 0);
        }
        self.set.signature(&header, &signature)?;
        self.set.changed(action, &entry.path);
        Ok(Some(action))
    }
}

fn entry(live: &SourceEntry) -> Entry {
    Entry {
        path: live.path.clone(),
        kind: live.kind.clone(),
        meta: live.meta.clone(),
        xattrs: Vec::new(),
        size: live.size,
        content: Stored::Empty,
        holes: Vec::new(),
    }
}

/// A file being read: its signature is made on the way. A file that cannot be read to its end ends where that was noticed, with a
/// warning, as in duplicity.
struct Reading<'r> {
    file: Box<dyn OpenFile>,
    maker: SignatureMaker,
    signature: Vec<u8>,
    path: Vec<u8>,
    tally: &'r Tally,
    context: &'r Context,
    ended: bool,
    has_failed: bool,
}

impl<'r> Reading<'r> {
    fn new(file: Box<dyn OpenFile>, entry: &Entry, tally: &'r Tally, context: &'r Context) -> Self {
        let maker = SignatureMaker::new(SignatureFormat::of_duplicity(entry.size));
        let path = entry.path.as_bytes().to_vec();
        Self { file, maker, signature: Vec::new(), path, tally, context, ended: false, has_failed: false }
    }

    /// Reads until the buffer is full or the file ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.context.check_cancelled()?;
        let mut filled = 0;
        while filled < buffer.len() && !self.ended {
            match self.file.read(&mut buffer[filled..]) {
                Ok(0) => self.ended = true,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    (self.ended, self.has_failed) = (true, true);
                    let name = engine::path::display_bytes(&self.path);
                    self.tally.error(&self.path, &format!("Error reading {name}: {error}; only what could be read is stored"));
                }
            }
        }
        self.maker.push(&buffer[..filled], &mut self.signature);
        Ok(filled)
    }

    fn finish(self) -> Vec<u8> {
        let mut signature = self.signature;
        self.maker.finish(&mut signature);
        signature
    }
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill(buffer).map_err(io::Error::other)
    }
}

/// Takes a delta's bytes.
struct Sink<'s, 'a> {
    pieces: Pieces<'s, 'a>,
    failed: Option<Error>,
}

impl Write for Sink<'_, '_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self.pieces.push(data) {
            Ok(()) => Ok(data.len()),
            Err(error) => {
                let text = error.to_string();
                self.failed = Some(error);
                Err(io::Error::other(text))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
