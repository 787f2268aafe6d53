//! Two snapshots walked side by side: what a set says of each path.
//!
//! Files are read to their end before anything of them is written: of one that cannot be, the set says that it is not there.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::io::{Read as _, Seek as _, Write as _};
use std::sync::Arc;

use engine::content::StoredFiles;
use engine::entry::{Entry, Kind};
use engine::error::{Error, Result};
use engine::monitor::{Counter, Monitor, Problem};
use engine::path::EntryPath;
use engine::repo::Reader;
use tempfile::SpooledTempFile;

use super::SetTotals;
use super::delta;
use super::header::{self, Place};
use super::losses::{Loss, Losses};
use super::pieces::{Holds, Pieces};
use super::set::SetWriter;
use super::tree::Tree;
use crate::librsync::{SignatureFormat, SignatureMaker};
use crate::manifest::FileAction;
use crate::tar::Header;

/// Bytes of content that are read at a time.
const WINDOW: usize = 256 << 10;
/// Bytes of a file that is kept until it is written; longer ones are read twice.
const KEPT: u64 = 8 << 20;
/// Bytes of a delta that are in memory until it is known to be whole; more wait in a temporary file.
const SPOOLED: usize = 1 << 20;

/// What a set is made of.
pub(super) struct Merge<'a> {
    pub reader: &'a Arc<Reader>,
    pub files: &'a Arc<StoredFiles>,
    pub monitor: &'a dyn Monitor,
    pub losses: &'a mut Losses,
    /// Files that the archive does not have, since they could not be read. Grows with the damage only.
    pub unreadable: &'a mut BTreeSet<EntryPath>,
}

impl Merge<'_> {
    /// Writes a set: all of `new`, or what is different from `old`.
    pub fn write(mut self, mut old: Option<Tree<'_>>, mut new: Tree<'_>, mut set: SetWriter<'_>) -> Result<SetTotals> {
        match self.walk(&mut old, &mut new, &mut set) {
            Ok(()) => set.finish(),
            Err(e) => Err(set.abort(e)),
        }
    }

    fn walk(&mut self, old: &mut Option<Tree<'_>>, new: &mut Tree<'_>, set: &mut SetWriter<'_>) -> Result<()> {
        loop {
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            let order = match (old.as_ref().and_then(Tree::peek), new.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.path.cmp(&new.path),
            };
            let before = match old {
                Some(old) if order != Ordering::Greater => old.take()?,
                _ => None,
            };
            let after = if order == Ordering::Less { None } else { new.take()? };
            match (before, after) {
                (Some(before), None) if self.unreadable.remove(&before.path) => {}
                (Some(before), None) => deleted(set, &before)?,
                (before, Some(after)) => {
                    self.monitor.count(Counter::Entries, 1);
                    self.entry(set, before.as_ref(), &after)?;
                }
                (None, None) => break,
            }
        }
        new.made_up.iter().for_each(|path| self.losses.add(Loss::Directory, path));
        new.left_out.iter().for_each(|path| self.losses.add(Loss::Device, path));
        Ok(())
    }

    fn entry(&mut self, set: &mut SetWriter<'_>, before: Option<&Entry>, after: &Entry) -> Result<()> {
        let before = before.filter(|before| !self.unreadable.contains(&before.path));
        match before {
            Some(before) if header::of(before) == header::of(after) && is_same_content(before, after) => return Ok(()),
            _ if after.kind == Kind::File => self.file(set, before, after)?,
            _ => {
                let header = header::of(after);
                let named = |place| Header { name: header::name("snapshot", after, place), ..header.clone() };
                set.member(&named(Place::Volume), &[], &after.path, None)?;
                set.signature(&named(Place::Signatures), &[])?;
                set.totals.new += 1;
            }
        }
        self.losses.look_at(after);
        Ok(())
    }

    fn file(&mut self, set: &mut SetWriter<'_>, before: Option<&Entry>, after: &Entry) -> Result<()> {
        let mut content = Vec::new();
        let keep = after.size <= KEPT;
        let read = self.signature(after, &mut |data| {
            content.extend_from_slice(if keep { data } else { &[] });
            Ok(())
        });
        let signature = match read {
            Err(error) if error.is_local() => return self.lost(set, before, after, &error),
            read => read?,
        };
        self.unreadable.remove(&after.path);
        let delta = match before {
            Some(before) if before.kind == Kind::File => self.delta(before, after)?,
            _ => None,
        };
        if let Some(mut delta) = delta {
            let mut pieces = Pieces::new(set, after, Holds::Delta);
            copy(&mut delta, &mut pieces).map_err(|e| temporary(&e))??;
            pieces.finish()?;
            set.changed(FileAction::Changed, &after.path);
            set.totals.changed += 1;
        } else {
            let mut pieces = Pieces::new(set, after, Holds::Content);
            if keep {
                pieces.push(&content)?;
            } else {
                self.read(after, &mut |data| pieces.push(data))?;
            }
            pieces.finish()?;
            set.changed(FileAction::New, &after.path);
            set.totals.new += 1;
        }
        let name = header::name("signature", after, Place::Signatures);
        set.signature(&Header { name, size: signature.len() as u64, ..header::of(after) }, &signature)
    }

    /// The delta between two files; none if the old one cannot be read any more.
    fn delta(&self, before: &Entry, after: &Entry) -> Result<Option<SpooledTempFile>> {
        let mut delta = SpooledTempFile::new(SPOOLED);
        let mut sink = |data: &[u8]| delta.write_all(data).map_err(|e| temporary(&e));
        let written = if is_same_content(before, after) {
            delta::write_copy(after.size, &mut sink)
        } else {
            delta::write(self.reader, self.files, before, after, &mut sink)
        };
        match written {
            Err(error) if error.is_local() => return Ok(None),
            written => written?,
        }
        delta.rewind().map_err(|e| temporary(&e))?;
        Ok(Some(delta))
    }

    fn lost(&mut self, set: &mut SetWriter<'_>, before: Option<&Entry>, after: &Entry, error: &Error) -> Result<()> {
        let message = format!("not exported: {error}");
        self.monitor.problem(Problem { subject: after.path.display(), message });
        self.unreadable.insert(after.path.clone());
        before.map_or(Ok(()), |before| deleted(set, before))
    }

    /// Reads a content once; returns its signature, of about twelve times the root of its size in bytes.
    fn signature(&self, entry: &Entry, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Vec<u8>> {
        let (mut maker, mut signature) = (SignatureMaker::new(SignatureFormat::of_duplicity(entry.size)), Vec::new());
        self.read(entry, &mut |data| {
            maker.push(data, &mut signature);
            self.monitor.count(Counter::Bytes, data.len() as u64);
            each(data)
        })?;
        maker.finish(&mut signature);
        Ok(signature)
    }

    fn read(&self, entry: &Entry, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut stored = self.files.open(entry);
        let wanted = usize::try_from(entry.size).unwrap_or(WINDOW).min(WINDOW);
        let (mut buffer, mut at) = (vec![0; wanted], 0);
        while at < entry.size {
            if self.monitor.cancelled() {
                return Err(Error::Interrupted);
            }
            let n = stored.read_at(at, &mut buffer).map_err(|e| of_file(entry, e))?;
            if n == 0 {
                return Err(Error::damaged(entry.path.display(), "is shorter than its entry says"));
            }
            each(&buffer[..n])?;
            at += n as u64;
        }
        Ok(())
    }
}

fn is_same_content(before: &Entry, after: &Entry) -> bool {
    (before.size, &before.content, &before.holes) == (after.size, &after.content, &after.holes)
}

fn copy(from: &mut SpooledTempFile, to: &mut Pieces<'_, '_>) -> std::io::Result<Result<()>> {
    let mut buffer = vec![0; WINDOW];
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok(Ok(()));
        }
        if let Err(error) = to.push(&buffer[..n]) {
            return Ok(Err(error));
        }
    }
}

fn temporary(error: &std::io::Error) -> Error {
    Error::Invalid(format!("cannot keep a delta in a temporary file: {error}"))
}

/// An error that says which file it is about.
fn of_file(entry: &Entry, error: Error) -> Error {
    if error.is_local() { Error::damaged(entry.path.display(), error) } else { error }
}

fn deleted(set: &mut SetWriter<'_>, entry: &Entry) -> Result<()> {
    let header = header::deleted(&entry.path);
    set.member(&header, &[], &entry.path, None)?;
    set.signature(&header, &[])?;
    set.totals.deleted += 1;
    if entry.kind == Kind::File {
        set.changed(FileAction::Deleted, &entry.path);
    }
    Ok(())
}
