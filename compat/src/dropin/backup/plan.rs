//! What kind of set is written, what it builds on, and what is in its way.

use std::sync::Arc;

use crate::collection::{BackupSet, Chain, Collection};
use crate::dropin::context::Context;
use crate::dropin::failure::{Failure, Result, code};
use crate::dropin::options::BackupKind;
use crate::name::{FileKind, SetTimes};

/// The sets that an increment builds on.
pub(super) struct Base {
    /// The full one and its increments.
    pub sets: Vec<Arc<BackupSet>>,
}

/// What is to be done.
pub(super) struct Plan {
    pub times: SetTimes,
    pub base: Option<Base>,
    /// What runs that were broken off have left.
    leftovers: Vec<Arc<BackupSet>>,
}

impl Plan {
    pub fn new(context: &Context, collection: &Collection, kind: BackupKind) -> Result<Self> {
        let last = collection.chains().iter().max_by_key(|chain| chain.end_time());
        let usable = last.and_then(usable);
        let is_due = kind != BackupKind::Full && is_due(context, last, usable.as_ref());
        if kind == BackupKind::Incremental && usable.is_none() && !is_due {
            let text = "Fatal Error: Unable to start incremental backup. Old signatures not found and incremental specified";
            return Err(Failure::new(code::INC_WITHOUT_SIGNATURES, text));
        }
        let base = usable.filter(|_| kind != BackupKind::Full && !is_due);
        let taken = |time| collection.sets().iter().any(|set| set.end_time() == time);
        let start = base.as_ref().and_then(|base| base.sets.last()).map(|set| set.end_time());
        let end = super::distinct_time(context, taken, start)?;
        let times = start.map_or(SetTimes::Full(end), |start| SetTimes::Inc { start, end });
        if base.is_none() && kind != BackupKind::Full && last.is_some() {
            context.log.info("No signatures to build on, or a full backup is due: making a full backup.");
        } else if base.is_none() && kind == BackupKind::Auto {
            context.log.info("No signatures found, switching to full backup.");
        }
        Ok(Self { times, base, leftovers: leftovers(collection) })
    }

    /// Removes what broken-off runs have left: newer versions of duplicity restore nothing while it is there.
    ///
    /// # Errors
    ///
    /// If the local cache has the manifest of one: then it was complete, and has lost its manifest since.
    pub fn remove_leftovers(&self, context: &Context) -> Result<()> {
        for set in &self.leftovers {
            if context.cache.open(FileKind::Manifest, set.times())?.is_some() {
                let copy = context.cache.path(FileKind::Manifest, set.times(), false);
                let text = format!(
                    "the backup {} was complete, but its manifest is gone from {}: put it back there, from the copy {} (encrypted as \
                     the volumes are), or give that backup up with 'cleanup --force'",
                    set.times(),
                    context.archive.store.location(),
                    copy.display()
                );
                return Err(Failure::new(code::EXCEPTION, text));
            }
        }
        for set in &self.leftovers {
            context.log.warn(&format!("removing what is left of a backup that was never completed: {}", set.times()));
            let files = set.volumes().values().chain(set.signature()).chain(set.jsonstat());
            context.remove(files.map(|file| &*file.file.name))?;
            context.cache.forget(set.times());
        }
        Ok(())
    }
}

/// Volumes without a manifest that nothing builds on.
fn leftovers(collection: &Collection) -> Vec<Arc<BackupSet>> {
    let at_ends = collection.chains().iter().filter_map(|chain| chain.sets().last()).filter(|set| set.manifest().is_none());
    collection.interrupted().iter().chain(at_ends).cloned().collect()
}

/// The sets of a chain that can be built on: all of it, or as in duplicity all but a last one that lacks signatures or a manifest.
fn usable(chain: &Chain) -> Option<Base> {
    let is_whole = |set: &&Arc<BackupSet>| set.manifest().is_some() && set.signature().is_some();
    let whole = chain.sets().iter().take_while(is_whole).count();
    (whole > 0 && whole + 1 >= chain.sets().len()).then(|| Base { sets: chain.sets()[..whole].to_vec() })
}

/// Whether an option wants a full backup instead. Where there is none yet, the last one is too old.
fn is_due(context: &Context, last: Option<&Chain>, base: Option<&Base>) -> bool {
    let options = &context.options;
    let full = last.and_then(|chain| chain.sets().first()).map(|set| set.end_time().epoch());
    let limit = options.full_if_older_than.map(|age| context.now.epoch().saturating_sub(age));
    let is_old = limit.is_some_and(|limit| full.unwrap_or(0) < limit);
    if is_old {
        context.log.notice("Last full backup is too old, forcing full backup");
    }
    is_old || options.full_if_n_inc.zip(base).is_some_and(|(most, base)| base.sets.len() > most)
}
