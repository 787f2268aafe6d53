//! The members of a set in order, merged with the entries of the snapshot before it: what becomes of every path.

use std::io::{self, Read};
use std::sync::Arc;

use engine::catalog::CatalogReader;
use engine::content::StoredFiles;
use engine::entry::{Entry, Kind, Metadata, SourceContent};
use engine::error::Result;
use engine::path::{EntryPath, display_bytes};

use super::content::{InMemory, MAX_CONTENT, StoredBasis, Streamed};
use super::expected::{End, Expected, Known, Range};
use super::output::{Output, Stop};
use super::pipe::{self, Writer};
use crate::librsync::{DeltaReader, is_identity};
use crate::member::{Member, MemberKind, Owners, entry_kind};
use crate::tar::Header;

/// Content up to so many bytes waits in memory, more is streamed. duplicity puts 64 KiB and more into pieces.
const SMALL: u64 = 64 << 10;
/// A last piece is shorter than this.
const FULL_PIECE: u64 = 64 << 10;

const NO_BASIS: &str = "only its changes are in this backup, and what they apply to is missing";

/// How taking in a member failed.
pub(super) enum Broken {
    /// The volume cannot be read any further.
    Volume(io::Error),
    Stop(Stop),
}

impl From<Stop> for Broken {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// The entries of the snapshot before, in order.
pub(super) struct Before<'r> {
    catalog: CatalogReader<'r>,
    next: Option<Entry>,
}

impl<'r> Before<'r> {
    pub fn new(mut catalog: CatalogReader<'r>) -> Result<Self> {
        let next = catalog.next_entry()?;
        Ok(Self { catalog, next })
    }

    /// The next entry, if its path is wanted.
    fn next_if(&mut self, wanted: impl FnOnce(&EntryPath) -> bool) -> Result<Option<Entry>> {
        if !self.next.as_ref().is_some_and(|entry| wanted(&entry.path)) {
            return Ok(None);
        }
        let next = self.catalog.next_entry()?;
        Ok(std::mem::replace(&mut self.next, next))
    }
}

/// A file whose pieces are coming.
struct Open {
    path: EntryPath,
    diff: bool,
    next: u64,
    /// Length of the last piece.
    length: u64,
    /// None where its content is not wanted.
    writer: Option<Writer>,
}

/// The merge. Paths go up strictly; each becomes an entry, is gone, or is lost.
pub(super) struct Merge<'r> {
    output: Output,
    before: Option<Before<'r>>,
    files: Arc<StoredFiles>,
    /// The last path that was decided.
    last: Option<EntryPath>,
    /// The last entry given, if nothing can lie in it.
    leaf: Option<EntryPath>,
    open: Option<Open>,
    expected: Expected,
    owners: Owners,
    /// No manifest says what there has to be: the signature file does, and this is why.
    unlisted: Option<String>,
}

impl<'r> Merge<'r> {
    pub fn new(
        output: Output,
        before: Option<Before<'r>>,
        files: Arc<StoredFiles>,
        expected: Expected,
        unlisted: Option<String>,
    ) -> Self {
        Self { output, before, files, last: None, leaf: None, open: None, expected, owners: Owners::default(), unlisted }
    }

    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Takes in a member and its data.
    pub fn member(&mut self, member: Member, header: &Header, data: &mut dyn Read) -> Result<(), Broken> {
        let piece = match member.kind {
            MemberKind::SnapshotPiece(number) | MemberKind::DiffPiece(number) => Some(number),
            _ => None,
        };
        if let Some(number) = piece {
            if self.open.as_ref().is_some_and(|open| open.path == member.path) {
                if self.continues(&member, number) {
                    return self.go_on(header.size, data);
                }
                self.break_off("its pieces are not complete and in order");
            }
            if number != 1 {
                self.close();
                if self.last.as_ref().is_none_or(|last| *last < member.path) {
                    self.decide(&member.path)?;
                    self.take_before(&member.path)?;
                    self.lost(&member.path, "its first pieces are missing");
                }
                return Ok(());
            }
        }
        self.close();
        if let Some(why) = self.unlisted.clone() {
            self.known_missing(&Range { from: None, to: End::Before(member.path.clone()) }, &why)?;
        }
        if self.last.as_ref().is_some_and(|last| *last >= member.path) {
            self.out_of_order(&member.path);
            return Ok(());
        }
        self.decide(&member.path)?;
        let before = self.take_before(&member.path)?;
        if self.leaf.as_ref().is_some_and(|leaf| member.path.is_within(leaf)) && member.kind != MemberKind::Deleted {
            self.lost(&member.path, "what it lies in is no directory");
            return Ok(());
        }
        match member.kind {
            MemberKind::Deleted => {
                if before.is_none() {
                    self.output.monitor.note(format!("/{}: deleted, but it was not there before", member.path.display()));
                }
                Ok(())
            }
            MemberKind::Snapshot | MemberKind::SnapshotPiece(_) => self.snapshot(member.path, header, piece.is_some(), data),
            MemberKind::Diff | MemberKind::DiffPiece(_) => match before {
                Some(basis) if basis.kind == Kind::File => self.diff(member.path, header, piece.is_some(), basis, data),
                Some(_) => {
                    self.lost(&member.path, "its changes apply to a file, and it was none before");
                    Ok(())
                }
                None => {
                    self.lost(&member.path, NO_BASIS);
                    Ok(())
                }
            },
            MemberKind::Signature => {
                self.lost(&member.path, "a signature where content belongs");
                Ok(())
            }
        }
    }

    /// A member that cannot be understood. What was there under its path before is not what is there now.
    pub fn bad_member(&mut self, name: &[u8], why: &str) -> Result<(), Stop> {
        self.close();
        let path = name.splitn(2, |b| *b == b'/').nth(1).map(|path| path.strip_suffix(b"/").unwrap_or(path));
        match path.and_then(|path| EntryPath::new(path).ok()) {
            Some(path) if self.last.as_ref().is_none_or(|last| *last < path) => {
                self.decide(&path)?;
                self.take_before(&path)?;
                self.lost(&path, why);
            }
            _ => self.output.lost(display_bytes(name), why),
        }
        Ok(())
    }

    /// A part of the set is missing. What is known to have been in it is lost, or can be told without it.
    pub fn gap(&mut self, range: &Range, why: &str) -> Result<(), Stop> {
        self.close_before_gap(range, why);
        self.known_missing(range, why)?;
        if let Some(reason) = self.expected.failure() {
            let what = format!("{why}; {reason}, so that changes in it are unknown");
            self.doubt(range, &what)?;
        }
        Ok(())
    }

    /// What the signature file knows of a part that is not there.
    fn known_missing(&mut self, range: &Range, why: &str) -> Result<(), Stop> {
        while let Some(known) = self.expected.next_in(range, self.last.as_ref()) {
            self.decide(known.path())?;
            self.take_before(known.path())?;
            match known {
                Known::Deleted(_) => {}
                Known::File(path) => self.lost(&path, why),
                Known::Other(path, kind, meta) => self.give(path, kind, meta, 0, SourceContent::None)?,
            }
        }
        Ok(())
    }

    /// Gives up a file whose other pieces are missing.
    pub fn break_off(&mut self, why: &str) {
        if let Some(Open { writer: Some(writer), .. }) = self.open.take() {
            writer.fail(why);
        }
    }

    /// The set is over: all that comes after is as it was.
    pub fn finish(mut self) -> Result<Output, Stop> {
        if let Some(why) = self.unlisted.take() {
            // duplicity's last piece is shorter than the others.
            if self.open.as_ref().is_some_and(|open| open.length >= FULL_PIECE) {
                self.break_off(&format!("its last pieces are missing, and {why}"));
            }
            self.close();
            self.known_missing(&Range { from: None, to: End::Last }, &why)?;
        }
        self.close();
        while let Some(entry) = self.next_before(|_| true)? {
            self.unchanged(entry)?;
        }
        Ok(self.output)
    }

    fn continues(&self, member: &Member, number: u64) -> bool {
        let diff = matches!(member.kind, MemberKind::DiffPiece(_));
        self.open.as_ref().is_some_and(|open| open.path == member.path && open.diff == diff && open.next == number)
    }

    fn go_on(&mut self, size: u64, data: &mut dyn Read) -> Result<(), Broken> {
        let Some(open) = &mut self.open else { return Ok(()) };
        (open.next, open.length) = (open.next.saturating_add(1), size);
        let Some(writer) = &mut open.writer else { return Ok(()) };
        if let Err(error) = writer.copy(data) {
            self.break_off(&error.to_string());
            return Err(Broken::Volume(error));
        }
        Ok(())
    }

    /// The pieces are complete as far as anyone knows.
    fn close(&mut self) {
        if let Some(Open { writer: Some(writer), .. }) = self.open.take() {
            writer.finish();
        }
    }

    /// A file whose pieces may go on in the gap is not whole.
    fn close_before_gap(&mut self, range: &Range, why: &str) {
        let Some(open) = self.open.take() else { return };
        let goes_on = match &range.from {
            Some(from) => *from == open.path,
            None => open.length >= FULL_PIECE,
        };
        match open.writer {
            Some(writer) if goes_on => writer.fail(why),
            Some(writer) => writer.finish(),
            None => {}
        }
    }

    fn out_of_order(&mut self, path: &EntryPath) {
        if self.last.as_ref() == Some(path) {
            self.output.monitor.note(format!("/{}: a second time in one backup; the first counts", path.display()));
        } else {
            self.output
                .lost(format!("/{}", path.display()), "out of order in the backup, as names are that duplicity has garbled");
        }
    }

    /// All before `path` is as it was.
    fn decide(&mut self, path: &EntryPath) -> Result<(), Stop> {
        while let Some(entry) = self.next_before(|p| p < path)? {
            self.unchanged(entry)?;
        }
        self.last = Some(path.clone());
        Ok(())
    }

    fn next_before(&mut self, wanted: impl FnOnce(&EntryPath) -> bool) -> Result<Option<Entry>, Stop> {
        self.before.as_mut().map_or(Ok(None), |before| before.next_if(wanted)).map_err(Stop::Failed)
    }

    fn take_before(&mut self, path: &EntryPath) -> Result<Option<Entry>, Stop> {
        self.next_before(|p| p == path)
    }

    fn unchanged(&mut self, entry: Entry) -> Result<(), Stop> {
        if self.leaf.as_ref().is_some_and(|leaf| entry.path.is_within(leaf)) {
            // What it lay in has become something else.
            return Ok(());
        }
        let meta = entry.meta.clone();
        self.stored(entry, meta)
    }

    /// An entry with content as before.
    fn stored(&mut self, entry: Entry, meta: Metadata) -> Result<(), Stop> {
        let content = SourceContent::Stored(Box::new(self.files.stored(&entry, meta.clone())));
        let content = if entry.kind == Kind::File { content } else { SourceContent::None };
        self.give(entry.path, entry.kind, meta, entry.size, content)
    }

    fn give(&mut self, path: EntryPath, kind: Kind, meta: Metadata, size: u64, content: SourceContent) -> Result<(), Stop> {
        self.leaf = (kind != Kind::Directory).then(|| path.clone());
        self.output.entry(path, kind, meta, size, content)
    }

    fn lost(&self, path: &EntryPath, why: &str) {
        self.output.lost(format!("/{}", path.display()), why);
    }

    fn snapshot(&mut self, path: EntryPath, header: &Header, piece: bool, data: &mut dyn Read) -> Result<(), Broken> {
        let kind = match entry_kind(header) {
            Ok(kind) => kind,
            Err(error) => {
                self.lost(&path, &error.to_string());
                return Ok(());
            }
        };
        let (meta, size) = (self.owners.metadata(header), header.size);
        if kind != Kind::File {
            return Ok(self.give(path, kind, meta, 0, SourceContent::None)?);
        }
        if piece || size > SMALL {
            let (writer, reader) = pipe::pipe();
            let content = Streamed::new(Box::new(reader), meta.clone());
            self.give(path.clone(), kind, meta, size, SourceContent::Stream(Box::new(content)))?;
            return self.begin(path, false, piece, writer, size, data);
        }
        let permit = self.output.room(usize::try_from(size).unwrap_or(usize::MAX))?;
        let bytes = self.read_small(&path, data)?;
        let content = InMemory::new(bytes, meta.clone(), permit);
        Ok(self.give(path, kind, meta, size, SourceContent::Lazy(Box::new(content)))?)
    }

    fn diff(&mut self, path: EntryPath, header: &Header, piece: bool, basis: Entry, data: &mut dyn Read) -> Result<(), Broken> {
        let (meta, size) = (self.owners.metadata(header), header.size);
        if piece || size > SMALL {
            let (writer, reader) = pipe::pipe();
            let applied = DeltaReader::new(reader, StoredBasis::new(&self.files, &basis), MAX_CONTENT);
            let content = Streamed::new(Box::new(applied), meta.clone());
            self.give(path.clone(), Kind::File, meta, basis.size, SourceContent::Stream(Box::new(content)))?;
            return self.begin(path, true, piece, writer, size, data);
        }
        let permit = self.output.room(usize::try_from(size).unwrap_or(usize::MAX))?;
        let delta = self.read_small(&path, data)?;
        if is_identity(&delta, basis.size) {
            return Ok(self.stored(basis, meta)?);
        }
        let expected = basis.size;
        let content = InMemory::delta(delta, &self.files, basis, meta.clone(), permit);
        Ok(self.give(path, Kind::File, meta, expected, SourceContent::Lazy(Box::new(content)))?)
    }

    /// Streams the first piece, or all of a file that is in one.
    fn begin(
        &mut self,
        path: EntryPath,
        diff: bool,
        piece: bool,
        writer: Writer,
        size: u64,
        data: &mut dyn Read,
    ) -> Result<(), Broken> {
        self.open = Some(Open { path, diff, next: 1, length: 0, writer: Some(writer) });
        self.go_on(size, data)?;
        if !piece {
            self.close();
        }
        Ok(())
    }

    fn read_small(&self, path: &EntryPath, data: &mut dyn Read) -> Result<Vec<u8>, Broken> {
        let mut bytes = Vec::new();
        match data.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => {
                self.lost(path, &error.to_string());
                Err(Broken::Volume(error))
            }
        }
    }

    /// Nobody knows what changed here: what was there before cannot be believed.
    fn doubt(&mut self, range: &Range, why: &str) -> Result<(), Stop> {
        if let Some(from) = &range.from {
            while let Some(entry) = self.next_before(|p| p < from)? {
                self.unchanged(entry)?;
            }
        }
        while let Some(entry) = self.next_before(|p| range.reaches(p))? {
            self.lost(&entry.path, why);
            self.last = Some(entry.path);
        }
        Ok(())
    }
}
