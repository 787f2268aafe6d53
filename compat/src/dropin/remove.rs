//! The commands that remove: `cleanup` and `remove-*`. Without `--force` they only say what they would do.
//!
//! FORMAT §16.3.

use std::sync::Arc;

use super::context::Context;
use super::failure::Result;
use crate::collection::{BackupSet, Chain, Collection, IgnoredReason, SetFile};
use crate::time::{Time, TimeZone};

/// `cleanup`: what belongs to no complete backup.
///
/// # Errors
///
/// If the archive cannot be listed, or a file not removed.
pub fn cleanup(context: &Context) -> Result<u8> {
    let collection = context.collection()?;
    context.say_last_full(&collection);
    let sets = collection.orphans().iter().chain(collection.interrupted());
    let incomplete: Vec<_> = sets.chain(unfinished(&collection)).collect();
    let mut names: Vec<&str> = incomplete.iter().flat_map(|set| files(set)).map(|file| &*file.file.name).collect();
    names.extend(collection.lone_signatures().iter().map(|lone| &*lone.file.file.name));
    names.extend(collection.ignored().iter().filter(|i| i.reason == IgnoredReason::NoSet).map(|i| &*i.name));
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        context.log.notice("No extraneous files found, nothing deleted in cleanup.");
        return Ok(0);
    }
    let list = names.join("\n");
    if !context.options.force {
        let text = format!(
            "Found the following file(s) to delete:\n{list}\nRun duplicity again with the --force option to actually delete."
        );
        context.log.notice(&text);
        return Ok(0);
    }
    context.log.notice(&format!("Deleting these file(s) from backend:\n{list}"));
    if !context.options.dry_run {
        context.remove(names)?;
        for set in incomplete {
            context.cache.forget(set.times());
        }
        collection.lone_signatures().iter().for_each(|lone| context.cache.forget_signature(lone.times));
    }
    Ok(0)
}

/// Sets at the end of a chain that have lost their manifest, or never had one: no version can use them.
fn unfinished(collection: &Collection) -> impl Iterator<Item = &Arc<BackupSet>> {
    collection.chains().iter().flat_map(|chain| {
        let whole = chain.sets().iter().take_while(|set| set.manifest().is_some()).count();
        &chain.sets()[whole..]
    })
}

/// All files of a set, in the order in which they are removed: whatever a run leaves that is broken off is incomplete, or whole.
fn files(set: &BackupSet) -> impl Iterator<Item = &SetFile> {
    set.manifest().into_iter().chain(set.volumes().values()).chain(set.signature()).chain(set.jsonstat())
}

/// `remove-older-than`: chains that ended before a time.
///
/// # Errors
///
/// As [`cleanup`].
pub fn older_than(context: &Context, time: Time) -> Result<u8> {
    let collection = context.collection()?;
    context.say_last_full(&collection);
    remove_chains(context, &collection, time, "remove-older-than")
}

/// `remove-all-but-n-full`: chains before the last `number`.
///
/// # Errors
///
/// As [`cleanup`].
pub fn all_but_n_full(context: &Context, number: u32) -> Result<u8> {
    let collection = context.collection()?;
    context.say_last_full(&collection);
    match nth_last_full(&collection, number) {
        Some(time) => remove_chains(context, &collection, time, "remove-all-but-n-full"),
        None => nothing(context),
    }
}

/// `remove-all-inc-of-but-n-full`: increments of chains before the last `number`.
///
/// # Errors
///
/// As [`cleanup`].
pub fn all_inc_of_but_n_full(context: &Context, number: u32) -> Result<u8> {
    let collection = context.collection()?;
    context.say_last_full(&collection);
    let Some(time) = nth_last_full(&collection, number) else { return nothing(context) };
    let old = usable(&collection).filter(|(chain, _)| chain.start_time() < time).map(|(chain, _)| chain);
    let sets: Vec<_> = old.flat_map(|chain| chain.sets().iter().skip(1)).cloned().collect();
    if sets.is_empty() {
        return nothing(context);
    }
    delete(context, &sets, "remove-all-inc-of-but-n-full")
}

/// The chains that can be restored, and until when. A full backup that was broken off between its signatures and its manifest
/// is a chain by its files, but must not count for one: all good ones would be removed for it. It is left to `cleanup`.
fn usable(collection: &Collection) -> impl Iterator<Item = (&Chain, Time)> {
    collection.chains().iter().filter_map(|chain| Some((chain, chain.whole().last()?.end_time())))
}

/// The time of the `number`-th full backup from the end; `None` if there are not so many.
fn nth_last_full(collection: &Collection, number: u32) -> Option<Time> {
    let mut fulls: Vec<Time> = usable(collection).map(|(chain, _)| chain.start_time()).collect();
    fulls.sort_unstable();
    let index = fulls.len().checked_sub(usize::try_from(number).unwrap_or(usize::MAX))?;
    fulls.get(index).copied()
}

fn nothing(context: &Context) -> Result<u8> {
    context.log.notice("No old backup sets found, nothing deleted.");
    Ok(0)
}

fn remove_chains(context: &Context, collection: &Collection, time: Time, command: &str) -> Result<u8> {
    // The chain that goes on is kept, however old it is.
    let newest = usable(collection).map(|(_, end)| end).max();
    let (old, kept): (Vec<_>, Vec<_>) = usable(collection).partition(|(_, end)| *end < time && Some(*end) != newest);
    let needed: Vec<Time> =
        kept.iter().flat_map(|(chain, _)| chain.whole()).map(|set| set.end_time()).filter(|t| *t < time).collect();
    if command == "remove-older-than" && !needed.is_empty() {
        let times = times(&needed);
        let text =
            format!("There are backup set(s) at time(s):\n{times}\nWhich can't be deleted because newer sets depend on them.");
        context.log.notice(&text);
    }
    let old: Vec<_> = old.iter().flat_map(|(chain, _)| chain.sets()).cloned().collect();
    let orphans = collection.superseded().iter().filter(|set| old.iter().any(|o| o.end_time() == set.start_time())).cloned();
    let all: Vec<_> = orphans.chain(old.iter().cloned()).collect();
    if all.is_empty() { nothing(context) } else { delete(context, &all, command) }
}

fn times(times: &[Time]) -> String {
    times.iter().map(|time| time.human(&TimeZone::system())).collect::<Vec<_>>().join("\n")
}

/// Removes sets, the newest first, so that none is ever left without what it builds on.
fn delete(context: &Context, sets: &[Arc<BackupSet>], command: &str) -> Result<u8> {
    let mut sets = sets.to_vec();
    sets.sort_by_key(|set| set.end_time());
    let list = times(&sets.iter().map(|set| set.end_time()).collect::<Vec<_>>());
    if !context.options.force {
        context.log.notice(&format!("Need to use '{command} --force' to actually delete."));
        let text = format!(
            "Found old backup chain(s) at the following time:\n{list}\nRerun command with --force option to actually delete."
        );
        context.log.notice(&text);
        return Ok(0);
    }
    context.log.notice(&format!("Deleting backup chain(s) at time:\n{list}"));
    if context.options.dry_run {
        return Ok(0);
    }
    for set in sets.iter().rev() {
        context.remove(files(set).map(|file| &*file.file.name))?;
        context.cache.forget(set.times());
    }
    Ok(0)
}
