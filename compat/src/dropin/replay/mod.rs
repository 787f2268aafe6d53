//! The state of a time, replayed: the members of all sets of a chain merged by path.
//!
//! FORMAT §6.3 and §11. Of each path the last complete state counts, and the deltas behind it. Only one entry is looked at at a
//! time; a delta's basis lies in memory up to 1 MiB, and in a temporary file beyond.

mod set;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use engine::entry::Kind;
use engine::path::EntryPath;
use tempfile::SpooledTempFile;

use self::set::{Lost, Pieces, SetReader};
use super::context::Context;
use super::failure::{Failure, Result, code};
use crate::collection::BackupSet;
use crate::import::fetch::{Opener, Wanted};
use crate::librsync::{Basis, DeltaError, DeltaReader};
use crate::manifest::{FileList, Position};
use crate::member::{MemberKind, entry_kind};
use crate::name::Encoding;
use crate::tar::Header;

/// Bytes of a basis that are kept in memory.
const IN_MEMORY: usize = 1 << 20;
/// Most volumes that are decoded at a time.
const WINDOW: usize = 12;
/// A file cannot be longer.
const MAX_CONTENT: u64 = i64::MAX as u64;

/// A path as it was at the time.
#[derive(Clone, Debug)]
pub(super) struct Replayed {
    pub path: EntryPath,
    pub kind: Kind,
    /// Its metadata; the size is that of a member.
    pub header: Header,
    /// Sets that its content comes from: the last complete state, then deltas.
    sequence: Vec<usize>,
}

/// The next thing in a replay.
pub(super) enum Item {
    Entry(Replayed),
    /// A path whose state cannot be told; why.
    Lost(EntryPath, String),
}

/// A chain being replayed.
pub(super) struct Replay {
    sets: Vec<SetReader>,
    heads: BinaryHeap<Reverse<(EntryPath, usize)>>,
    /// Sets with members of the current path.
    current: Vec<usize>,
    path: EntryPath,
}

/// A volume that is read for a replay.
pub(super) fn volumes(context: &Context, set: &BackupSet, below: &EntryPath) -> Result<Vec<Wanted>> {
    let (manifest, trusted) = context.manifest(set, FileList::Skip)?;
    let mut wanted = Vec::new();
    for (number, record) in manifest.volumes() {
        if !concerns(&record.start, &record.end, below) {
            continue;
        }
        let Some(file) = set.volumes().get(&number) else {
            let text = format!("volume {number} of the {} is not there", set.times());
            if context.options.ignore_errors {
                context.log.warn(&text);
                continue;
            }
            return Err(Failure::new(code::GENERIC, text));
        };
        if record.hash.is_none() {
            return Err(Failure::new(
                code::EXCEPTION,
                format!("the manifest of the {} has no hash of volume {number}", set.times()),
            ));
        }
        let must_be_signed = context.options.sign_key.is_some() && context.options.encryption;
        if must_be_signed && file.encoding != Encoding::OpenPgp {
            return Err(Failure::new(code::SIGNATURE, format!("{}: Volume was not signed", file.file.name)));
        }
        wanted.push(Wanted { hash: record.hash.clone(), hash_is_trusted: trusted, ..Wanted::unlisted(file) });
    }
    Ok(wanted)
}

/// Whether something at or below a path can lie between two positions.
fn concerns(start: &Position, end: &Position, below: &EntryPath) -> bool {
    if below.is_root() {
        return true;
    }
    let depth = below.components().count();
    let head: Vec<&[u8]> = start.path.split(|b| *b == b'/').filter(|part| !part.is_empty()).take(depth).collect();
    let compare = engine::path::compare_bytes;
    compare(&head.join(&b'/'), below.as_bytes()).is_le() && compare(below.as_bytes(), &end.path).is_le()
}

impl Replay {
    /// Begins to read the sets of a chain. Where only what is at or below a path is wanted, only the volumes that can have it are
    /// read.
    pub fn new(context: &Context, sets: &[Arc<BackupSet>], below: &EntryPath) -> Result<Self> {
        let opener = Arc::new(Opener::new(&context.archive));
        let window = (WINDOW / sets.len().max(1)).clamp(1, 3);
        let wanted = sets.iter().map(|set| volumes(context, set, below)).collect::<Result<Vec<_>>>()?;
        let (ignore, log) = (context.options.ignore_errors, &context.log);
        let open = |volumes| SetReader::new(&opener, volumes, window, ignore, Arc::clone(log));
        let sets = wanted.into_iter().map(open).collect::<Result<Vec<_>>>()?;
        let (heads, current) = (BinaryHeap::new(), (0..sets.len()).collect());
        let mut this = Self { sets, heads, current, path: EntryPath::root() };
        this.refill();
        Ok(this)
    }

    fn refill(&mut self) {
        for index in self.current.drain(..) {
            if let Some(head) = self.sets[index].head() {
                self.heads.push(Reverse((head.member.path.clone(), index)));
            }
        }
    }

    /// The next path; what was not read of the one before is passed over.
    pub fn next(&mut self) -> Result<Option<Item>> {
        loop {
            for index in self.current.clone() {
                self.sets[index].pass_over(&self.path)?;
            }
            self.refill();
            let Some(Reverse((path, first))) = self.heads.pop() else { return Ok(None) };
            self.current.push(first);
            while let Some(Reverse((other, index))) = self.heads.peek()
                && *other == path
            {
                self.current.push(*index);
                self.heads.pop();
            }
            self.path.clone_from(&path);
            if let Some(item) = self.judge(path)? {
                return Ok(Some(item));
            }
        }
    }

    /// What a path is now; `None` if it is gone.
    fn judge(&mut self, path: EntryPath) -> Result<Option<Item>> {
        let head = |index: &usize| self.sets[*index].head();
        let is_diff = |index: &usize| {
            head(index).is_some_and(|head| matches!(head.member.kind, MemberKind::Diff | MemberKind::DiffPiece(_)))
        };
        let lost = |why: &str| Ok(Some(Item::Lost(path.clone(), why.to_owned())));
        let Some(base) = self.current.iter().rposition(|index| !is_diff(index)) else {
            return lost("the first state of it in the backups is a change to one that is not there");
        };
        let sequence = self.current[base..].to_vec();
        let (Some(first), Some(last)) = (head(&sequence[0]), sequence.last().and_then(head)) else { return Ok(None) };
        if first.member.kind == MemberKind::Deleted {
            return if sequence.len() == 1 { Ok(None) } else { lost("a change to something that was deleted") };
        }
        let kind = match entry_kind(&first.header) {
            Ok(kind) => kind,
            Err(error) => return lost(&error.to_string()),
        };
        if sequence.len() > 1 && kind != Kind::File {
            return lost("a change to something that is no regular file");
        }
        let header = last.header.clone();
        Ok(Some(Item::Entry(Replayed { path, kind, header, sequence })))
    }

    /// Hands the content of the current path to `to`. An error of its own is in the inner result.
    pub fn content(
        &mut self,
        entry: &Replayed,
        to: &mut dyn FnMut(&mut dyn Read) -> io::Result<()>,
    ) -> Result<Result<(), String>> {
        match self.try_content(entry, to) {
            Ok(()) => Ok(Ok(())),
            Err(error) => classify(error),
        }
    }

    fn try_content(&mut self, entry: &Replayed, to: &mut dyn FnMut(&mut dyn Read) -> io::Result<()>) -> io::Result<()> {
        let Some((first, deltas)) = entry.sequence.split_first() else { return Ok(()) };
        let mut pieces = Pieces::new(&mut self.sets[*first])?;
        let Some((last, deltas)) = deltas.split_last() else { return to(&mut pieces) };
        let mut basis = Spool::new(&mut pieces)?;
        for delta in deltas {
            let pieces = Pieces::new(&mut self.sets[*delta])?;
            basis = Spool::new(&mut DeltaReader::new(pieces, basis, MAX_CONTENT))?;
        }
        let pieces = Pieces::new(&mut self.sets[*last])?;
        to(&mut DeltaReader::new(pieces, basis, MAX_CONTENT))
    }
}

/// Tells what is wrong with one file from what ends the command.
fn classify(error: io::Error) -> Result<Result<(), String>> {
    let inner = error.get_ref();
    if inner.is_some_and(|e| e.is::<DeltaError>() || e.is::<Lost>()) {
        return Ok(Err(error.to_string()));
    }
    match error.downcast::<Failure>() {
        Ok(failure) => Err(failure),
        Err(error) => Err(error.into()),
    }
}

/// Content that is read at random.
struct Spool {
    file: SpooledTempFile,
    length: u64,
}

impl Spool {
    fn new(content: &mut dyn Read) -> io::Result<Self> {
        let mut file = tempfile::spooled_tempfile(IN_MEMORY);
        let length = io::copy(content, &mut file)?;
        Ok(Self { file, length })
    }
}

impl Basis for Spool {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_that_concern_a_path() {
        let position = |path: &str| Position { path: path.into(), block: None };
        let path = |path: &str| EntryPath::new(path).expect("valid");
        let check = |start: &str, end: &str, below: &str| concerns(&position(start), &position(end), &path(below));
        assert!(check("", "z", ""));
        assert!(check("", "b", "a/x"));
        assert!(check("a/b", "a/c", "a"));
        assert!(check("a/b", "a/c", "a/b"));
        assert!(!check("a/b", "a/c", "b"));
        assert!(!check("b", "c", "a"));
        assert!(!check("b", "c", "d"));
        assert!(check("a/b/c", "a/b/d", "a/b"));
        assert!(!check("a/b/c", "a/b/d", "a/b/e"));
    }
}
