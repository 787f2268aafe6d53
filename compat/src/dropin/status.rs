//! `collection-status` and `list-current-files`.
//!
//! FORMAT §16.3 and §16.4.

use engine::path::EntryPath;

use super::context::Context;
use super::failure::{Failure, Result, code};
use super::log::{Level, code as stanza, quoted};
use super::verify::header_word;
use crate::collection::{BackupSet, Collection, Release, StatusOptions};
use crate::manifest::{FileAction, FileList};
use crate::name::Encoding;
use crate::sigtar::{Merged, list_line};
use crate::time::{Time, TimeZone};

/// What stock says behind `Connecting with backend:`.
const BACKEND: &str = "BackendWrapper";

/// Runs `collection-status`.
///
/// # Errors
///
/// If the archive cannot be listed, or what an option asks for cannot be read.
pub fn collection_status(context: &Context) -> Result<u8> {
    let collection = context.collection()?;
    if let Some(number) = context.options.show_changes_in_set {
        context.say_last_full(&collection);
        return changes_in_set(context, &collection, number);
    }
    if let Some(path) = &context.options.file_changed {
        context.say_last_full(&collection);
        return file_changed(context, &collection, path);
    }
    let zone = TimeZone::system();
    let archive_dir = context.cache.folder().display().to_string();
    let options = StatusOptions { release: Release::V3_2, backend: BACKEND, archive_dir: &archive_dir, zone: &zone };
    for warning in collection.stock_warnings(Release::V3_2) {
        context.log.warn(&warning);
    }
    let text = collection.status(&options);
    let text = text.strip_suffix("Duplicity backup complete.\n").unwrap_or(&text);
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    context.log.notice(first);
    let text = rest.trim_end_matches('\n');
    context.log.result(stanza::COLLECTION_STATUS, &for_programs(&collection, &archive_dir), text.as_bytes());
    Ok(0)
}

/// The state as front ends read it: a line for each chain and, indented, each of its sets.
fn for_programs(collection: &Collection, archive_dir: &str) -> String {
    let mut text = format!("\nbackend {BACKEND}\narchive-dir {archive_dir}\n");
    let newest = collection.chains().iter().map(|chain| chain.end_time()).max();
    for chain in collection.chains() {
        let is_signed = chain.sets().iter().all(|set| set.signature().is_some());
        let is_primary = Some(chain.end_time()) == newest && is_signed;
        text += if is_primary { "chain-complete\n" } else { "chain-no-sig\n" };
        chain.sets().iter().for_each(|set| text += &set_line(set));
    }
    let orphans = collection.orphans();
    text += &format!("orphaned-sets-num {}\n", orphans.len());
    orphans.iter().for_each(|set| text += &set_line(set));
    let incomplete: Vec<_> = collection.sets().iter().filter(|set| set.manifest().is_none()).collect();
    text += &format!("incomplete-sets-num {}", incomplete.len());
    incomplete.iter().for_each(|set| text += &format!("\n{}", set_line(set).trim_end()));
    text
}

fn set_line(set: &BackupSet) -> String {
    let kind = if set.is_full() { "full" } else { "inc" };
    let first = set.manifest().or_else(|| set.volumes().values().next());
    let is_encrypted = first.is_some_and(|file| matches!(file.encoding, Encoding::OpenPgp | Encoding::Smime));
    let word = if is_encrypted { "enc" } else { "noenc" };
    format!(" {kind} {} {} {word}\n", set.end_time(), set.volumes().len())
}

/// Warns of sets that no chain has: duplicity would restore an older state without a word.
pub(super) fn warn_of_leftovers(context: &Context, collection: &Collection) {
    let named =
        |sets: &[std::sync::Arc<BackupSet>]| sets.iter().map(|set| set.times().to_string()).collect::<Vec<_>>().join(", ");
    if !collection.orphans().is_empty() {
        let text =
            format!("backups that belong to no chain, since what they build on is missing: {}", named(collection.orphans()));
        context.log.say(Level::WARNING, stanza::ORPHANED_BACKUP, "", &text);
    }
    if !collection.interrupted().is_empty() {
        let text = format!("backups that were never completed: {}", named(collection.interrupted()));
        context.log.say(Level::WARNING, stanza::INCOMPLETE_BACKUP, "", &text);
    }
}

fn changes_in_set(context: &Context, collection: &Collection, number: i64) -> Result<u8> {
    let none = || Failure::new(code::USER, format!("there is no backup set {number} in the last chain"));
    let chain = collection.chains().iter().max_by_key(|chain| chain.end_time()).ok_or_else(none)?;
    let sets = chain.sets();
    // 0 is the last one, -1 that before.
    let from_end = usize::try_from(number.unsigned_abs()).unwrap_or(usize::MAX);
    let index = sets.len().checked_sub(1).and_then(|last| last.checked_sub(from_end)).ok_or_else(none)?;
    let set = &sets[index];
    let (manifest, _) = context.manifest(set, FileList::Keep)?;
    let files = manifest.files.unwrap_or_default();
    let mut text = format!(
        "-------------------------\n Backup set time: {}\nTotal number of changes: {}\nFile:  Type of file change:\n",
        set.end_time().human(&TimeZone::system()),
        files.len()
    );
    for file in files {
        text += &format!("{}  {}\n", engine::path::display_bytes(&file.path), action(file.action));
    }
    context.log.result(stanza::COLLECTION_STATUS, "", (text + "-------------------------").as_bytes());
    Ok(0)
}

fn action(action: FileAction) -> &'static str {
    match action {
        FileAction::New => "new",
        FileAction::Changed => "changed",
        FileAction::Deleted => "deleted",
    }
}

fn file_changed(context: &Context, collection: &Collection, path: &[u8]) -> Result<u8> {
    let rows = |set: &std::sync::Arc<BackupSet>| -> Result<Option<String>> {
        let (manifest, _) = context.manifest(set, FileList::Keep)?;
        let found = manifest.files.unwrap_or_default().into_iter().find(|file| file.path == path);
        let kind = if set.is_full() { "Full" } else { "Incremental" };
        let time = set.end_time().human(&TimeZone::system());
        Ok(found.map(|file| format!("{kind:>20}   {time:>30}   {:>20}\n", action(file.action))))
    };
    let sets = collection.chains().iter().flat_map(|chain| chain.sets());
    let rows: Vec<String> = sets.map(rows).filter_map(Result::transpose).collect::<Result<_>>()?;
    let text = format!(
        "-------------------------\nFile: {}\nTotal number of backup: {}\n{:>20}   {:>30}   {:>20}\n{}-------------------------",
        engine::path::display_bytes(path),
        rows.len(),
        "Type of backup set:",
        "Time:",
        "Type of file change:",
        rows.concat()
    );
    context.log.result(stanza::COLLECTION_STATUS, "", text.as_bytes());
    Ok(0)
}

/// Runs `list-current-files`.
///
/// # Errors
///
/// If there is no backup, or signatures are missing or damaged.
pub fn list_current_files(context: &Context) -> Result<u8> {
    let collection = context.collection()?;
    context.say_last_full(&collection);
    let sets = context.wanted_sets(&collection)?;
    let readers = sets.iter().map(|set| context.signatures(set)).collect::<Result<Vec<_>>>()?;
    let (mut merged, zone) = (Merged::new(readers), TimeZone::system());
    let damaged = |error: &dyn std::fmt::Display| Failure::new(code::EXCEPTION, format!("a signature file: {error}"));
    while let Some(entry) = merged.next().map_err(|e| damaged(&e))? {
        context.check_cancelled()?;
        let mtime = entry.header.mtime.max(0);
        let time = Time::new(mtime).map_or_else(|| mtime.to_string(), |time| time.to_string());
        let args = format!("{time} {} {}", quoted(name(&entry.path)), header_word(&entry.header));
        let line = list_line(mtime, &entry.path, &zone);
        context.log.result(
            stanza::FILE_LIST,
            &args,
            line.strip_suffix(
                b"
",
            )
            .unwrap_or(&line),
        );
    }
    Ok(0)
}

fn name(path: &EntryPath) -> &[u8] {
    if path.is_root() { b"." } else { path.as_bytes() }
}
