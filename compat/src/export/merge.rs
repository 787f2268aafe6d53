//! Two snapshots walked side by side: what a set says of each path.

use std::cmp::Ordering;
use std::sync::Arc;

use engine::content::StoredFiles;
use engine::entry::{Entry, Kind};
use engine::error::{Error, Result};
use engine::monitor::{Counter, Monitor};
use engine::repo::Reader;

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

/// What a set is made of.
pub(super) struct Merge<'a> {
    pub reader: &'a Arc<Reader>,
    pub files: &'a Arc<StoredFiles>,
    pub monitor: &'a dyn Monitor,
    pub losses: &'a mut Losses,
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
        let same_content =
            |before: &Entry| (before.size, &before.content, &before.holes) == (after.size, &after.content, &after.holes);
        match before {
            Some(before) if header::of(before) == header::of(after) && same_content(before) => return Ok(()),
            Some(before) if before.kind == Kind::File && after.kind == Kind::File => {
                self.changed(set, before, after, same_content(before))?;
                set.totals.changed += 1;
            }
            _ if after.kind == Kind::File => {
                self.new_file(set, after)?;
                set.totals.new += 1;
            }
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

    fn new_file(&mut self, set: &mut SetWriter<'_>, entry: &Entry) -> Result<()> {
        let mut pieces = Pieces::new(set, entry, Holds::Content);
        let signature = self.read(entry, &mut |data| pieces.push(data))?;
        pieces.finish()?;
        set.changed(FileAction::New, &entry.path);
        put_signature(set, entry, &signature)
    }

    fn changed(&mut self, set: &mut SetWriter<'_>, before: &Entry, after: &Entry, same_content: bool) -> Result<()> {
        let signature = self.read(after, &mut |_| Ok(()))?;
        let mut pieces = Pieces::new(set, after, Holds::Delta);
        let mut sink = |data: &[u8]| pieces.push(data);
        if same_content {
            delta::write_copy(after.size, &mut sink)?;
        } else {
            delta::write(self.reader, self.files, before, after, &mut sink)?;
        }
        pieces.finish()?;
        set.changed(FileAction::Changed, &after.path);
        put_signature(set, after, &signature)
    }

    /// Reads a content once; returns its signature, of about twelve times the root of its size in bytes.
    fn read(&self, entry: &Entry, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Vec<u8>> {
        let mut stored = self.files.open(entry);
        let (mut maker, mut signature) = (SignatureMaker::new(SignatureFormat::of_duplicity(entry.size)), Vec::new());
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
            maker.push(&buffer[..n], &mut signature);
            each(&buffer[..n])?;
            at += n as u64;
            self.monitor.count(Counter::Bytes, n as u64);
        }
        maker.finish(&mut signature);
        Ok(signature)
    }
}

/// An error that says which file it is about.
fn of_file(entry: &Entry, error: Error) -> Error {
    match error {
        Error::Damaged { .. } | Error::MissingBlob { .. } => Error::damaged(entry.path.display(), error),
        other => other,
    }
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

fn put_signature(set: &mut SetWriter<'_>, entry: &Entry, signature: &[u8]) -> Result<()> {
    let name = header::name("signature", entry, Place::Signatures);
    set.signature(&Header { name, size: signature.len() as u64, ..header::of(entry) }, signature)
}
