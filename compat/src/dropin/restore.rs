//! `restore`: the files of a time, written below a folder.
//!
//! FORMAT §11 and §16.3. Trouble with one file is a warning and no failure, as in duplicity, unless what was there was to be
//! written over; trouble with the archive ends the command.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::entry::{Kind, Metadata, Owner, Timestamp};
use engine::fs::{DestOptions, Destination};
use engine::path::EntryPath;

use super::chosen::Chosen;
use super::context::Context;
use super::failure::{Failure, Result, code};
use super::log::{Level, code as stanza, quoted};
use super::names::Names;
use super::replay::{Item, Replay, Replayed, volumes};
use super::select::{Selection, canonical};
use super::verify::header_word;
use crate::tar::Header;

/// Bytes that are written at a time.
const BUFFER: usize = 256 << 10;

/// Runs the command.
///
/// # Errors
///
/// If the target is in use, the path is not in the backup, or the archive cannot be read.
pub fn run(context: &Context, target: &Path) -> Result<u8> {
    if context.options.path_to_restore.is_some() && !context.options.rules.is_empty() {
        return Err(Failure::new(code::USER, "a path to restore does not go together with a selection"));
    }
    check_target(context, target)?;
    let below = below(context)?;
    let renames = renames(context)?;
    let mut chosen = Chosen::new(Selection::of_archive(&context.options.rules, context.options.null_separator)?);
    let collection = context.collection()?;
    context.say_last_full(&collection);
    let sets = context.wanted_sets(&collection)?;
    if context.options.dry_run {
        for set in &sets {
            for volume in volumes(context, set, &below)? {
                context.log.notice(&volume.name);
            }
        }
        return Ok(0);
    }
    let mut replay = Replay::new(context, &sets, &below)?;
    let mut restore = Restore::new(context, target);
    while let Some(item) = replay.next()? {
        context.check_cancelled()?;
        match item {
            Item::Entry(entry) => {
                if !entry.path.is_within(&below) {
                    continue;
                }
                for entry in chosen.take(entry) {
                    let path = entry.path.strip(&below).unwrap_or_default();
                    restore.entry(&mut replay, &entry, &renamed(&renames, path))?;
                }
            }
            Item::Lost(path, why) if path.is_within(&below) => {
                context.warn_of(stanza::CANNOT_PROCESS, path.as_bytes(), &format!("Error '{why}' patching {}", path.display()));
            }
            Item::Lost(..) => {}
        }
    }
    restore.finish()?;
    match (restore.failed, restore.restored) {
        (failed @ 1.., _) if context.options.force => {
            let text =
                format!("Files that could not be written: {failed}. Something is in their way; the warnings above name them.");
            Err(Failure::new(code::RESTORE_PATH_EXISTS, text))
        }
        (_, 0) => Err(nothing_restored(context)),
        _ => Ok(0),
    }
}

fn nothing_restored(context: &Context) -> Failure {
    match &context.options.path_to_restore {
        Some(path) => {
            let text = format!("{} not found in archive - no files restored.", engine::path::display_bytes(path));
            Failure::new(code::PATH_NOT_FOUND, text)
        }
        None => Failure::new(code::NOTHING_RESTORED, "No files found in archive - nothing restored."),
    }
}

/// The path whose contents are wanted; the root for all.
pub(super) fn below(context: &Context) -> Result<EntryPath> {
    let given = context.options.path_to_restore.as_deref().unwrap_or_default();
    let path = canonical(given);
    let path = if path == b"." { Vec::new() } else { path };
    let wrong = |why: &dyn std::fmt::Display| {
        let text = format!("'{}' is no path in a backup: {why}", engine::path::display_bytes(given));
        Failure::new(code::USER, text)
    };
    if path.starts_with(b"/") {
        return Err(wrong(&"give it relative to the folder that was backed up"));
    }
    EntryPath::new(path).map_err(|error| wrong(&error))
}

/// The target must not be there, or be an empty folder.
fn check_target(context: &Context, target: &Path) -> Result<()> {
    let in_the_way = match std::fs::read_dir(target) {
        Ok(mut entries) => entries.next().is_some() && !context.options.force,
        Err(error) if error.kind() == io::ErrorKind::NotFound => target.symlink_metadata().is_ok(),
        Err(_) => !context.options.force,
    };
    if in_the_way {
        let text = format!("Restore destination directory {} already exists.\nWill not overwrite.", target.display());
        return Err(Failure::new(code::RESTORE_PATH_EXISTS, text));
    }
    Ok(())
}

/// What `--rename` gives other paths. What renames the root is no rename, as in duplicity.
fn renames(context: &Context) -> Result<Vec<(EntryPath, EntryPath)>> {
    let path = |given: &[u8]| {
        let path = canonical(given);
        let path = path.strip_prefix(b"/").unwrap_or(&path);
        EntryPath::new(if path == b"." { b"" } else { path }).map_err(|error| {
            let text = format!("--rename: '{}' is no path in a backup: {error}", engine::path::display_bytes(given));
            Failure::new(code::USER, text)
        })
    };
    let pairs = context.options.renames.iter().map(|(from, to)| Ok((path(from)?, path(to)?)));
    let is_rename = |pair: &Result<(EntryPath, _)>| !pair.as_ref().is_ok_and(|(from, _)| from.is_root());
    pairs.filter(is_rename).collect()
}

/// The longest path that is renamed counts, and the last that was given for it.
fn renamed(renames: &[(EntryPath, EntryPath)], path: EntryPath) -> EntryPath {
    let fitting = renames.iter().filter_map(|(from, to)| Some((from, to, path.strip(from)?)));
    let Some((_, to, rest)) = fitting.max_by_key(|(from, ..)| from.as_bytes().len()) else { return path };
    let slash: &[u8] = if to.is_root() || rest.is_root() { b"" } else { b"/" };
    EntryPath::new([to.as_bytes(), slash, rest.as_bytes()].concat()).unwrap_or(path)
}

/// Where entries go.
struct Place {
    destination: Destination,
    /// What their paths begin with there.
    prefix: EntryPath,
}

struct Restore<'c> {
    context: &'c Context,
    target: PathBuf,
    place: Option<Place>,
    /// Entries that could not be written.
    failed: u64,
    /// Directories whose contents are coming, with what they get behind them.
    open: Vec<(EntryPath, Metadata)>,
    names: Names,
    buffer: Vec<u8>,
    restored: u64,
}

impl<'c> Restore<'c> {
    fn new(context: &'c Context, target: &Path) -> Self {
        let names = if context.options.numeric_owner { Names::numeric() } else { Names::load() };
        let target = super::select::canonical_path(target);
        Self { context, target, place: None, failed: 0, open: Vec::new(), names, buffer: vec![0; BUFFER], restored: 0 }
    }

    /// The place of the first entry decides: a directory becomes the target, anything else gets its name.
    fn place(&mut self, kind: &Kind, path: &EntryPath) -> Result<()> {
        if self.place.is_some() {
            return Ok(());
        }
        let options = DestOptions { create: true, replace: self.context.options.force, privileged: true };
        let place = if *kind == Kind::Directory || !path.is_root() {
            Place { destination: Destination::open(&self.target, options)?, prefix: EntryPath::root() }
        } else {
            let parent = self.target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let name = self.target.file_name().map(|n| n.as_encoded_bytes().to_vec()).unwrap_or_default();
            let prefix =
                EntryPath::new(name).map_err(|e| Failure::new(code::GENERIC, format!("{}: {e}", self.target.display())))?;
            if self.target.is_dir() {
                // An empty folder gives way to the file; one with something in it does not.
                let _ = std::fs::remove_dir(&self.target);
            }
            Place { destination: Destination::open(parent, options)?, prefix }
        };
        self.place = Some(place);
        Ok(())
    }

    fn entry(&mut self, replay: &mut Replay, entry: &Replayed, path: &EntryPath) -> Result<()> {
        self.place(&entry.kind, path)?;
        self.close_directories(path)?;
        let context = self.context;
        let Some(place) = &self.place else { return Ok(()) };
        let at = if path.is_root() { place.prefix.clone() } else { path.clone() };
        let meta = self.metadata(&entry.header);
        if !path.is_root() {
            let (args, word) = (quoted(path.as_bytes()), header_word(&entry.header));
            let text = format!("Writing {} of type {word}", path.display());
            context.log.say(Level::INFO, stanza::PATCH_WRITING, &format!("{args} {word}"), &text);
        }
        let warnings = match &entry.kind {
            Kind::Directory => place.destination.make_dir(&at).map(|()| {
                self.open.push((at.clone(), meta));
                Vec::new()
            }),
            Kind::File => {
                return self.file(replay, entry, &at, &meta);
            }
            kind => self.with_parent(&at, || place.destination.make_node(&at, kind, &meta, &Vec::new())),
        };
        self.report(path, warnings)
    }

    /// Tries again with the directories above, which the archive may not have.
    fn with_parent<T>(
        &self,
        at: &EntryPath,
        call: impl Fn() -> Result<T, engine::fs::DestError>,
    ) -> Result<T, engine::fs::DestError> {
        match (call(), &self.place, at.parent()) {
            (Err(error), Some(place), Some(parent)) if error.is_missing() => {
                place.destination.make_dir(&parent)?;
                call()
            }
            (outcome, ..) => outcome,
        }
    }

    fn report(&mut self, path: &EntryPath, outcome: Result<Vec<String>, engine::fs::DestError>) -> Result<()> {
        match outcome {
            Ok(warnings) => {
                self.restored += 1;
                for warning in warnings {
                    self.context.warn_of(stanza::CANNOT_PROCESS, path.as_bytes(), &format!("{}: {warning}", path.display()));
                }
                Ok(())
            }
            Err(error) if error.is_full() => Err(Failure::new(code::BACKEND_FULL, error.to_string())),
            Err(error) => {
                self.failed += 1;
                self.context.warn_of(
                    stanza::CANNOT_PROCESS,
                    path.as_bytes(),
                    &format!("Error '{error}' processing {}", path.display()),
                );
                Ok(())
            }
        }
    }

    fn file(&mut self, replay: &mut Replay, entry: &Replayed, at: &EntryPath, meta: &Metadata) -> Result<()> {
        let created = match &self.place {
            Some(place) => self.with_parent(at, || place.destination.create_file(at, meta)),
            None => return Ok(()),
        };
        let file = match created {
            Ok(file) => file,
            Err(error) => return self.report(&entry.path, Err(error)),
        };
        let (mut size, mut broken) = (0, None);
        let (buffer, context) = (&mut self.buffer, self.context);
        let mut write = |content: &mut dyn Read| -> io::Result<()> {
            loop {
                context.check_cancelled().map_err(io::Error::other)?;
                let n = fill(content, buffer)?;
                if n == 0 {
                    return Ok(());
                }
                if let Err(error) = file.write_at(size, &buffer[..n]) {
                    broken = Some(error);
                    return Ok(());
                }
                size += n as u64;
            }
        };
        let outcome = replay.content(entry, &mut write);
        // Half a file would be taken for a whole one.
        match (outcome, broken) {
            (Err(failure), _) => {
                file.discard();
                Err(failure)
            }
            (_, Some(error)) => {
                file.discard();
                self.report(&entry.path, Err(error))
            }
            (Ok(Err(why)), None) => {
                file.discard();
                let text = format!("Error '{why}' patching {}", entry.path.display());
                context.warn_of(stanza::CANNOT_PROCESS, entry.path.as_bytes(), &text);
                Ok(())
            }
            (Ok(Ok(())), None) => {
                let Some(place) = &self.place else { return Ok(()) };
                let finished = place.destination.finish_file(file, size, meta, &Vec::new());
                self.report(&entry.path, finished)
            }
        }
    }

    fn metadata(&self, header: &Header) -> Metadata {
        let (uid, gid) = match self.context.options.restore_ownership {
            true => self.names.owner(header),
            false => (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        };
        let owner = Arc::new(Owner { uid, gid, user: None, group: None });
        let mtime = Timestamp { seconds: header.mtime.max(0), nanos: 0 };
        Metadata { mode: header.mode & 0o7777, owner, mtime, links: 1, ..Metadata::default() }
    }

    /// Directories that `path` does not lie in are complete.
    fn close_directories(&mut self, path: &EntryPath) -> Result<()> {
        while let Some((dir, meta)) = self.open.pop_if(|(dir, _)| !path.is_within(dir)) {
            self.close(&dir, &meta)?;
        }
        Ok(())
    }

    fn close(&mut self, dir: &EntryPath, meta: &Metadata) -> Result<()> {
        let Some(place) = &self.place else { return Ok(()) };
        let outcome = place.destination.set_dir_metadata(dir, meta, &Vec::new());
        self.report(dir, outcome)
    }

    fn finish(&mut self) -> Result<()> {
        while let Some((dir, meta)) = self.open.pop() {
            self.close(&dir, &meta)?;
        }
        Ok(())
    }
}

/// Reads until the buffer is full or the content ends.
fn fill(content: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match content.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
