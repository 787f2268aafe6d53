//! Writing one backup set: its volumes, its signatures, and when all is there its manifest. While one volume goes to the target, the
//! next is made.

use std::thread::JoinHandle;

use engine::error::{Error, Result};
use engine::path::EntryPath;

use super::file::{ArchiveFile, Finished};
use super::{ExportOptions, Sealing, SetTotals};
use crate::manifest::{ChangedFile, FileAction, Manifest, Position, VolumeHash, VolumeRecord};
use crate::name::{Encoding, FileKind, FileName, SetTimes};
use crate::store::Target;
use crate::tar::{Header, padding, write_header};

/// Bytes of a piece of content; duplicity's own, and the most that a volume exceeds what is asked for.
pub(crate) const PIECE: usize = 64 << 10;
/// Bytes of paths up to which a manifest lists the changed files. Beyond, it has no list; nothing but an option of
/// `collection-status` reads that.
const MAX_LISTED: usize = 32 << 20;

/// A set being written.
pub(crate) struct SetWriter<'a> {
    target: &'a dyn Target,
    options: &'a ExportOptions,
    times: SetTimes,
    volume: Option<Volume>,
    /// The volume before it, on its way to the target.
    ending: Option<Ending>,
    records: Vec<VolumeRecord>,
    files: Option<Vec<ChangedFile>>,
    is_listing: bool,
    listed: usize,
    /// `None` once it is complete.
    signatures: Option<ArchiveFile>,
    /// Files that are, or may be, at the target, in the order in which they got there.
    done: Vec<String>,
    /// What was written.
    pub totals: SetTotals,
    scratch: Vec<u8>,
    witness: Option<Box<dyn Witness + 'a>>,
}

/// Sees what a set is made of, before it is wrapped.
pub(crate) trait Witness {
    /// The next bytes of the signature file.
    fn signatures(&mut self, data: &[u8]) -> std::io::Result<()>;

    /// The set is complete at the target, with this manifest. Whatever fails here must not undo that.
    fn complete(&mut self, manifest: &[u8]);
}

struct Volume {
    file: ArchiveFile,
    start: Position,
    end: Position,
}

struct Ending {
    start: Position,
    end: Position,
    thread: JoinHandle<Result<Finished>>,
}

impl<'a> SetWriter<'a> {
    /// Starts the set. To be seen at the target is only what is complete.
    pub fn new(target: &'a dyn Target, options: &'a ExportOptions, times: SetTimes) -> Result<Self> {
        let signatures = file(target, options, times, FileKind::Signature)?;
        Ok(Self {
            target,
            options,
            times,
            volume: None,
            ending: None,
            records: Vec::new(),
            files: Some(Vec::new()),
            is_listing: true,
            listed: 0,
            signatures: Some(signatures),
            done: Vec::new(),
            totals: SetTotals::default(),
            scratch: Vec::new(),
            witness: None,
        })
    }

    /// Has somebody see what is written.
    pub fn with_witness(mut self, witness: Box<dyn Witness + 'a>) -> Self {
        self.witness = Some(witness);
        self
    }

    /// Leaves the list of changed files out of the manifest.
    pub fn without_list(mut self) -> Self {
        self.files = Some(Vec::new());
        self.is_listing = false;
        self
    }

    /// Whether there is no member yet, and so nothing at the target.
    pub fn is_untouched(&self) -> bool {
        self.volume.is_none() && self.volumes() == 0
    }

    /// How many have been ended.
    fn volumes(&self) -> usize {
        self.records.len() + usize::from(self.ending.is_some())
    }

    /// The number of the next volume that is ended.
    fn number(&self) -> Result<u32> {
        u32::try_from(self.volumes() + 1).map_err(|_| Error::Invalid("too many volumes".into()))
    }

    /// Writes a member of a volume. A member lies in one volume; a volume that is full by now is ended before.
    /// `block` is the number of a piece that is not its path's last one.
    pub fn member(&mut self, header: &Header, data: &[u8], path: &EntryPath, block: Option<u64>) -> Result<()> {
        let limit = self.options.volume_size;
        if let Some(volume) = &mut self.volume
            && volume.file.reaches(limit, PIECE as u64)?
        {
            self.end_volume()?;
        }
        let position = Position { path: path.as_bytes().to_vec(), block };
        let mut volume = match self.volume.take() {
            Some(volume) => volume,
            None => self.start_volume(position.clone())?,
        };
        volume.end = position;
        put(&mut volume.file, header, data, &mut self.scratch)?;
        self.totals.raw_bytes += data.len() as u64;
        self.volume = Some(volume);
        Ok(())
    }

    /// Writes a member of the signature file.
    pub fn signature(&mut self, header: &Header, data: &[u8]) -> Result<()> {
        if let Some(witness) = &mut self.witness {
            let mut member = Vec::new();
            member_bytes(&mut member, header, data)?;
            witness.signatures(&member).map_err(not_witnessed)?;
        }
        match &mut self.signatures {
            Some(file) => put(file, header, data, &mut self.scratch),
            None => Err(Error::Invalid("the signatures are complete already".into())),
        }
    }

    /// Notes a regular file for the manifest's list.
    pub fn changed(&mut self, action: FileAction, path: &EntryPath) {
        self.listed = self.listed.saturating_add(path.as_bytes().len() + size_of::<ChangedFile>());
        if self.listed > MAX_LISTED {
            self.files = None;
        }
        if let Some(files) = self.files.as_mut().filter(|_| self.is_listing) {
            files.push(ChangedFile { action, path: path.as_bytes().to_vec() });
        }
    }

    fn start_volume(&mut self, start: Position) -> Result<Volume> {
        let file = file(self.target, self.options, self.times, FileKind::Volume(self.number()?))?;
        Ok(Volume { file, end: start.clone(), start })
    }

    fn end_volume(&mut self) -> Result<()> {
        let Some(Volume { mut file, start, end }) = self.volume.take() else { return Ok(()) };
        file.end_tar()?;
        self.wait_for_volume()?;
        self.done.push(file.name().to_owned());
        let thread = std::thread::Builder::new().name("volume".into()).spawn(move || file.finish());
        let thread = thread.map_err(|e| Error::Invalid(format!("cannot start a thread: {e}")))?;
        self.ending = Some(Ending { start, end, thread });
        Ok(())
    }

    fn wait_for_volume(&mut self) -> Result<()> {
        let Some(Ending { start, end, thread }) = self.ending.take() else { return Ok(()) };
        let finished = thread.join().map_err(|_| Error::Invalid("the thread that ends a volume has failed".into()))??;
        self.records.push(VolumeRecord { number: self.number()?, start, end, hash: Some(VolumeHash::Sha1(finished.sha1)) });
        self.totals.volumes += 1;
        self.totals.stored_bytes += finished.size;
        self.totals.volume_bytes += finished.size;
        Ok(())
    }

    /// Ends the set: a set without changes gets one volume without members. The manifest comes last, so that it means that all
    /// is there.
    pub fn finish(mut self) -> Result<SetTotals> {
        match self.end() {
            Ok(()) => Ok(self.totals),
            Err(e) => Err(self.abort(e)),
        }
    }

    fn end(&mut self) -> Result<()> {
        if self.is_untouched() {
            self.volume = Some(self.start_volume(Position::default())?);
        }
        self.end_volume()?;
        self.wait_for_volume()?;
        if let Some(mut signatures) = self.signatures.take() {
            signatures.end_tar()?;
            self.totals.stored_bytes += self.finish_file(signatures)?.size;
        }
        let manifest = Manifest {
            host: self.options.host.as_ref().map(|host| host.clone().into_bytes()),
            source: self.options.source.clone(),
            records: std::mem::take(&mut self.records),
            files: self.files.take(),
        };
        let mut text = Vec::new();
        manifest.write(&mut text).map_err(|e| Error::Invalid(e.to_string()))?;
        let mut file = file(self.target, self.options, self.times, FileKind::Manifest)?;
        file.write(&text)?;
        self.totals.stored_bytes += self.finish_file(file)?.size;
        if let Some(witness) = &mut self.witness {
            witness.complete(&text);
        }
        Ok(())
    }

    /// Has a file appear at the target. One whose end fails may be there nevertheless, if only the answer was lost.
    fn finish_file(&mut self, file: ArchiveFile) -> Result<Finished> {
        self.done.push(file.name().to_owned());
        file.finish()
    }

    /// Takes back what is at the target: volumes without a manifest keep newer versions of duplicity from restoring anything.
    /// The manifest goes first, and while it may be there, so does all that it names: a backup that looks complete is complete.
    /// Returns the error that led to this.
    pub fn abort(mut self, error: Error) -> Error {
        // Whether it gets there makes no difference, but it must not get there later.
        if let Some(ending) = self.ending.take() {
            let _ = ending.thread.join();
        }
        let (manifest, _) = file_name(self.options, self.times, FileKind::Manifest);
        let mut left = Vec::new();
        for name in self.done.iter().rev() {
            let Err(why) = self.target.remove(name) else { continue };
            if *name == manifest {
                return Error::Invalid(format!(
                    "{error}; the backup's manifest may be there and could not be removed ({why}), so that all files of the \
                     backup were left: if {manifest} is there, the backup is complete"
                ));
            }
            left.push(name.as_str());
        }
        if left.is_empty() {
            return error;
        }
        Error::Invalid(format!("{error}; these files of an incomplete backup could not be removed: {}", left.join(", ")))
    }
}

/// The name of a file of a set.
pub(crate) fn file_name(options: &ExportOptions, set: SetTimes, kind: FileKind) -> (String, Encoding) {
    let suffix = match (&options.sealing, kind) {
        (Sealing::OpenPgp(_), _) => Encoding::OpenPgp,
        (Sealing::Gzip, FileKind::Manifest) | (Sealing::Plain, _) => Encoding::Plain,
        (Sealing::Gzip, _) => Encoding::Gzip,
    };
    (FileName { kind, set, suffix, partial: false }.long(&options.prefixes), suffix)
}

fn file(target: &dyn Target, options: &ExportOptions, set: SetTimes, kind: FileKind) -> Result<ArchiveFile> {
    let (name, encoding) = file_name(options, set, kind);
    ArchiveFile::create(target, name, encoding, &options.sealing)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn not_witnessed(error: std::io::Error) -> Error {
    Error::Invalid(format!("cannot write to the local cache: {error}"))
}

/// A member as it lies in a tar.
fn member_bytes(out: &mut Vec<u8>, header: &Header, data: &[u8]) -> Result<()> {
    write_header(out, header).map_err(|e| Error::Invalid(format!("{}: {e}", EntryName(&header.name))))?;
    out.extend_from_slice(data);
    out.resize(out.len() + padding(data.len() as u64), 0);
    Ok(())
}

fn put(file: &mut ArchiveFile, header: &Header, data: &[u8], scratch: &mut Vec<u8>) -> Result<()> {
    scratch.clear();
    write_header(scratch, header).map_err(|e| Error::Invalid(format!("{}: {e}", EntryName(&header.name))))?;
    file.write(scratch)?;
    file.write(data)?;
    file.write(&[0; 512][..padding(data.len() as u64)])
}

struct EntryName<'a>(&'a [u8]);

impl std::fmt::Display for EntryName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&engine::path::display_bytes(self.0))
    }
}
