//! `verify`: the files of a time, compared with the source.
//!
//! FORMAT §16.3. Without `--compare-data` only the archive is read and checked, as in duplicity; what it cannot give is a difference too.

use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use engine::entry::{Kind, SourceEntry};
use engine::path::{EntryPath, display_bytes};

use super::context::Context;
use super::failure::{Failure, Result, code};
use super::names::Names;
use super::replay::{Item, Replay, Replayed};
use super::restore::below;
use super::source::{Source, Tally, Walk};
use crate::tar::Header;
use crate::time::{Time, TimeZone};

/// Bytes that are compared at a time.
const BUFFER: usize = 128 << 10;

/// Runs the command; 1 if there are differences.
///
/// # Errors
///
/// If the source is not there, or the archive cannot be read.
pub fn run(context: &Context, source: &Path) -> Result<u8> {
    if source.symlink_metadata().is_err() {
        let text = format!("Verify directory {} does not exist", source.display());
        return Err(Failure::new(code::VERIFY_DIR_MISSING, text));
    }
    let files = Walk::new(context, source)?;
    let below = below(context)?;
    let collection = context.collection()?;
    context.say_last_full(&collection);
    let sets = context.wanted_sets(&collection)?;
    let mut verify = Verify {
        context,
        names: if context.options.numeric_owner { Names::numeric() } else { Names::load() },
        replay: Replay::new(context, &sets, &below)?,
        below,
        buffers: [vec![0; BUFFER], vec![0; BUFFER]],
        compared: 0,
        differences: 0,
    };
    verify.all(files.start(&Tally::new(context))?)?;
    let (compared, differences) = (verify.compared, verify.differences);
    context.log.notice(&format!("Verify complete: {compared} file(s) compared, {differences} difference(s) found."));
    Ok(if differences > 0 { code::GENERIC } else { 0 })
}

struct Verify<'c> {
    context: &'c Context,
    names: Names,
    replay: Replay,
    below: EntryPath,
    buffers: [Vec<u8>; 2],
    compared: u64,
    differences: u64,
}

/// What the archive has at a path.
enum Stored {
    Entry(Replayed),
    Unknown(String),
}

impl Verify<'_> {
    fn all(&mut self, mut source: Source) -> Result<()> {
        let (mut stored, mut live) = (self.next_stored()?, source.next()?);
        loop {
            self.context.check_cancelled()?;
            let order = match (&stored, &live) {
                (None, None) => return Ok(()),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((path, _)), Some(live)) => path.cmp(&live.path),
            };
            self.compared += 1;
            let before = if order.is_le() { stored.take() } else { None };
            let now = if order.is_ge() { live.take() } else { None };
            let is_lost = matches!(before, Some((_, Stored::Unknown(_))));
            if is_lost || self.context.options.compare_data {
                let path = before.as_ref().map(|(path, _)| path.clone()).or_else(|| now.as_ref().map(|n| n.path.clone()));
                let path = path.unwrap_or_default();
                if let Some(text) = self.difference(&path, before.as_ref().map(|(_, s)| s), now.as_ref())? {
                    self.differences += 1;
                    self.context.log.notice(&format!("Difference found: {text}"));
                }
            }
            if order.is_le() {
                stored = self.next_stored()?;
            }
            if order.is_ge() {
                live = source.next()?;
            }
        }
    }

    fn next_stored(&mut self) -> Result<Option<(EntryPath, Stored)>> {
        while let Some(item) = self.replay.next()? {
            let (path, stored) = match item {
                Item::Entry(entry) => (entry.path.clone(), Stored::Entry(entry)),
                Item::Lost(path, why) => (path, Stored::Unknown(why)),
            };
            if let Some(path) = path.strip(&self.below) {
                return Ok(Some((path, stored)));
            }
        }
        Ok(None)
    }

    fn difference(&mut self, path: &EntryPath, stored: Option<&Stored>, live: Option<&SourceEntry>) -> Result<Option<String>> {
        let name = if path.is_root() { ".".to_owned() } else { path.display() };
        let (stored, live) = match (stored, live) {
            (Some(Stored::Unknown(why)), _) => return Ok(Some(format!("File {name} cannot be had from the archive: {why}"))),
            (None, _) => return Ok(Some(format!("New file {name}"))),
            (Some(_), None) => return Ok(Some(format!("File {name} is missing"))),
            (Some(Stored::Entry(stored)), Some(live)) => (stored, live),
        };
        if let Some(text) = self.attributes(&name, stored, live) {
            return Ok(Some(text));
        }
        if stored.kind != Kind::File {
            return Ok(None);
        }
        let opened = live.content.lazy().map(|lazy| lazy.open());
        let mut file = match opened {
            Some(Ok(file)) => file,
            Some(Err(error)) => return Ok(Some(format!("File {name} cannot be read: {error}"))),
            None => return Ok(Some(format!("File {name} cannot be read"))),
        };
        let (mut same, buffers) = (false, &mut self.buffers);
        let mut compare = |content: &mut dyn Read| -> io::Result<()> {
            same = equal(content, &mut |buffer| file.read(buffer), buffers)?;
            Ok(())
        };
        match self.replay.content(stored, &mut compare)? {
            Err(why) => Ok(Some(format!("File {name} cannot be had from the archive: {why}"))),
            Ok(()) if same => Ok(None),
            Ok(()) => Ok(Some(format!("Data for file {name} is different"))),
        }
    }

    fn attributes(&self, name: &str, stored: &Replayed, live: &SourceEntry) -> Option<String> {
        let header = &stored.header;
        match (&stored.kind, &live.kind) {
            (Kind::Symlink(wanted), Kind::Symlink(found)) => {
                let bare = |text: &[u8]| text.strip_suffix(b"/").unwrap_or(text).to_vec();
                let differs = bare(wanted) != bare(found);
                let text = format!("Symlink {name} points to {}, expected {}", display_bytes(found), display_bytes(wanted));
                return differs.then_some(text);
            }
            (wanted, found) if std::mem::discriminant(wanted) != std::mem::discriminant(found) => {
                return Some(format!("File {name} has type {}, expected {}", word(found), word(wanted)));
            }
            (Kind::CharDevice(..) | Kind::BlockDevice(..), _) if stored.kind != live.kind => {
                return Some(format!("Device numbers of {name} are different"));
            }
            _ => {}
        }
        let (owner, wanted) = (&live.meta.owner, self.names.owner(header));
        if (live.meta.mode & 0o7777, owner.uid, owner.gid) != (header.mode & 0o7777, wanted.0, wanted.1) {
            let found = format!("{}:{} {:o}", owner.uid, owner.gid, live.meta.mode & 0o7777);
            return Some(format!(
                "File {name} has permissions {found}, expected {}:{} {:o}",
                wanted.0,
                wanted.1,
                header.mode & 0o7777
            ));
        }
        let is_device = matches!(stored.kind, Kind::CharDevice(..) | Kind::BlockDevice(..));
        let (found, wanted) = (live.meta.mtime.seconds, header.mtime);
        // Times before 1970 are stored as 1970.
        if !is_device && found.max(0) != wanted.max(0) {
            return Some(format!("File {name} has mtime {}, expected {}", human(found), human(wanted)));
        }
        None
    }
}

fn human(seconds: i64) -> String {
    Time::new(seconds).map_or_else(|| seconds.to_string(), |time| time.human(&TimeZone::system()))
}

/// duplicity's words for kinds.
pub(super) fn word(kind: &Kind) -> &'static str {
    match kind {
        Kind::File => "reg",
        Kind::Directory => "dir",
        Kind::Symlink(_) => "sym",
        Kind::Fifo => "fifo",
        Kind::CharDevice(..) => "chr",
        Kind::BlockDevice(..) => "blk",
    }
}

/// The same of a header.
pub(super) fn header_word(header: &Header) -> &'static str {
    crate::member::entry_kind(header).map_or("reg", |kind| word(&kind))
}

/// Whether two contents are the same to their ends.
fn equal(
    a: &mut dyn Read,
    b: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
    [left, right]: &mut [Vec<u8>; 2],
) -> io::Result<bool> {
    loop {
        let n = fill(&mut |buffer| a.read(buffer), left)?;
        let m = fill(b, right)?;
        if left[..n] != right[..m] {
            return Ok(false);
        }
        if n < BUFFER {
            return Ok(true);
        }
    }
}

fn fill(read: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The source as `Localdir` has it.
pub(super) fn source_text(source: &Path) -> Vec<u8> {
    super::select::canonical(source.as_os_str().as_bytes())
}
