//! Which sets are to be written, and what each builds on.

use std::collections::BTreeSet;

use engine::error::{Error, Result};
use engine::format::snapshot::Snapshot;
use engine::path::EntryPath;
use engine::snapshot::SnapshotRecord;

use super::{Choice, Mode};
use crate::collection::{BackupSet, Chain, Collection};
use crate::name::SetTimes;
use crate::time::Time;

/// A snapshot and the path in it that becomes the archive's root.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub record: SnapshotRecord,
    pub root: EntryPath,
    pub time: Time,
}

/// One of the snapshots to export.
pub(super) enum Step {
    /// The archive has it.
    Present(Part, SetTimes),
    /// It becomes a full set, or an increment on the set of another one.
    Write { part: Part, times: SetTimes, base: Option<Box<Part>> },
}

impl Part {
    /// Fails where there is no saying what the root is.
    pub fn new(choice: &Choice) -> Result<Self> {
        let snapshot = &choice.record.snapshot;
        let root = root(snapshot, choice.path.as_ref())?;
        let time = Time::new(snapshot.time.seconds);
        let time = time.ok_or_else(|| Error::Invalid("duplicity cannot have backups of before 1901 or after 2099".into()))?;
        Ok(Self { record: choice.record.clone(), root, time })
    }
}

fn root(snapshot: &Snapshot, chosen: Option<&EntryPath>) -> Result<EntryPath> {
    if let Some(path) = chosen {
        return Ok(path.clone());
    }
    let [path] = &snapshot.paths[..] else {
        let text = "the snapshot has several source paths: choose the one that becomes the archive's root, as SNAPSHOT:PATH";
        return Err(Error::Invalid(text.into()));
    };
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    EntryPath::new(parts.join(&b'/')).map_err(|e| Error::Invalid(format!("the snapshot's source path: {e}")))
}

/// Orders the snapshots and says what becomes of each. `all` are those of the repository.
pub(super) fn plan(choices: &[Choice], mode: Mode, collection: &Collection, all: &[SnapshotRecord]) -> Result<Vec<Step>> {
    let mut parts = choices.iter().map(Part::new).collect::<Result<Vec<_>>>()?;
    parts.sort_by_key(|part| part.time);
    if let Some(pair) = parts.windows(2).find(|pair| pair[0].time == pair[1].time) {
        return Err(Error::Invalid(format!("two of the snapshots are of the same second, {}: give one", pair[0].time)));
    }
    let newest = collection.sets().iter().filter(|set| is_complete(set)).map(|set| set.end_time()).max();
    let chain = collection.chains().iter().max_by_key(|chain| chain.end_time()).filter(|_| mode != Mode::Full);
    let (mut steps, mut base) = (Vec::new(), None::<Box<Part>>);
    if let Some(chain) = chain {
        let last = last_complete(chain)?;
        let times: BTreeSet<Time> = chain.sets().iter().filter(|set| is_complete(set)).map(|set| set.end_time()).collect();
        let (present, rest): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| times.contains(&part.time));
        parts = rest;
        if !parts.is_empty() {
            base = Some(Box::new(find_base(last, &present, &parts, all, choices)?));
        }
        let set = |part: &Part| chain.sets().iter().find(|set| set.end_time() == part.time).map(|set| set.times());
        steps.extend(present.into_iter().filter_map(|part| set(&part).map(|times| Step::Present(part, times))));
    } else if mode == Mode::Incremental {
        return Err(Error::Invalid("there is no backup in the archive that an increment could build on".into()));
    }
    if let Some(part) = parts.first().filter(|part| newest.is_some_and(|newest| part.time <= newest)) {
        return Err(Error::Invalid(format!(
            "the snapshot of {} is not newer than the last backup in the archive; only newer ones can be added",
            part.time
        )));
    }
    for part in parts {
        let times = base.as_ref().map_or(SetTimes::Full(part.time), |b| SetTimes::Inc { start: b.time, end: part.time });
        steps.push(Step::Write { part: part.clone(), times, base: base.replace(Box::new(part)) });
    }
    Ok(steps)
}

pub(super) fn is_complete(set: &BackupSet) -> bool {
    set.manifest().is_some() && set.signature().is_some()
}

fn last_complete(chain: &Chain) -> Result<Time> {
    let complete = chain.sets().iter().take_while(|set| is_complete(set)).last();
    let none = || Error::Invalid("the archive's last full backup is incomplete: start a new one with --full".into());
    Ok(complete.ok_or_else(none)?.end_time())
}

/// The snapshot that the last set was made of: of its second, among those given, else among those of the same machine and paths.
fn find_base(last: Time, present: &[Part], parts: &[Part], all: &[SnapshotRecord], choices: &[Choice]) -> Result<Part> {
    if let Some(part) = present.iter().find(|part| part.time == last) {
        return Ok(part.clone());
    }
    let (like, path) = match (parts.first(), choices.first()) {
        (Some(part), Some(choice)) => (&part.record.snapshot, choice.path.clone()),
        _ => return Err(Error::Invalid("nothing to export".into())),
    };
    let alike = |record: &&SnapshotRecord| {
        let snapshot = &record.snapshot;
        snapshot.time.seconds == last.epoch() && snapshot.host == like.host && snapshot.paths == like.paths
    };
    let mut found = all.iter().filter(alike);
    match (found.next(), found.next()) {
        (Some(record), None) => Part::new(&Choice { record: record.clone(), path }),
        (None, _) => Err(Error::Invalid(format!(
            "the archive's last backup is of {last}, and there is no snapshot of that second with the same host and paths: \
             give the snapshot that it was made of too, or start a new chain with --full"
        ))),
        (Some(_), Some(_)) => Err(Error::Invalid(format!(
            "several snapshots are of {last}, when the archive's last backup was made: give the one that it was made of too"
        ))),
    }
}
