//! What an archive holds, judged by the names of its files: backup sets, and chains of them.
//!
//! FORMAT §10 and §13. No file is opened. Stock leaves sets aside that it cannot explain, and then restores an older state
//! without a word; here each file ends in exactly one place, and what is not in a chain is listed with the reason.

mod chains;
mod stock;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use stock::{Release, StatusOptions};

use crate::name::{Encoding, FileKind, FileName, NameError, Prefixes, SetTimes, classify};
use crate::store::StoredFile;
use crate::time::Time;

/// A file of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetFile {
    /// The file.
    pub file: StoredFile,
    /// How its content is wrapped, by its name.
    pub encoding: Encoding,
}

/// What one run stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSet {
    times: SetTimes,
    volumes: BTreeMap<u32, SetFile>,
    manifest: Option<SetFile>,
    signature: Option<SetFile>,
    jsonstat: Option<SetFile>,
}

/// A full set and the increments on it, each based on the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    sets: Vec<Arc<BackupSet>>,
}

/// A signature file without a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoneSignature {
    /// The set that it would belong to.
    pub times: SetTimes,
    /// The file.
    pub file: SetFile,
}

/// A file that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: IgnoredReason,
}

/// Why a file is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IgnoredReason {
    /// Its name is not one of this archive; [`NameError::Foreign`] is no cause for concern.
    Name(NameError),
    /// Its name says that it is not finished.
    Unfinished,
    /// Another file has the same part in the same set.
    Duplicate {
        /// The one that is used.
        of: String,
    },
    /// Statistics of a set that is not there.
    NoSet,
}

impl fmt::Display for IgnoredReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(reason) => reason.fmt(f),
            Self::Unfinished => f.write_str("left unfinished by an interrupted run"),
            Self::Duplicate { of } => write!(f, "the same part of the same set as {of}"),
            Self::NoSet => f.write_str("statistics of a set that is not there"),
        }
    }
}

/// All files of an archive in their places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collection {
    /// By end time, fulls first.
    sets: Vec<Arc<BackupSet>>,
    chains: Vec<Chain>,
    superseded: Vec<Arc<BackupSet>>,
    orphans: Vec<Arc<BackupSet>>,
    interrupted: Vec<Arc<BackupSet>>,
    lone_signatures: Vec<LoneSignature>,
    ignored: Vec<Ignored>,
}

impl BackupSet {
    fn new(times: SetTimes) -> Self {
        Self { times, volumes: BTreeMap::new(), manifest: None, signature: None, jsonstat: None }
    }

    /// The times that name it.
    #[must_use]
    pub fn times(&self) -> SetTimes {
        self.times
    }

    /// The time of the set that it is based on; of a full set, its own.
    #[must_use]
    pub fn start_time(&self) -> Time {
        self.times.start()
    }

    /// The time whose state it holds.
    #[must_use]
    pub fn end_time(&self) -> Time {
        self.times.end()
    }

    /// Whether it needs no other set.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.times.is_full()
    }

    /// The volumes that are there, by number. Only the manifest tells how many there should be.
    #[must_use]
    pub fn volumes(&self) -> &BTreeMap<u32, SetFile> {
        &self.volumes
    }

    /// The manifest, which is written last: a set without one is incomplete, or has lost it.
    #[must_use]
    pub fn manifest(&self) -> Option<&SetFile> {
        self.manifest.as_ref()
    }

    /// The signatures, which are written after all volumes.
    #[must_use]
    pub fn signature(&self) -> Option<&SetFile> {
        self.signature.as_ref()
    }

    /// The statistics.
    #[must_use]
    pub fn jsonstat(&self) -> Option<&SetFile> {
        self.jsonstat.as_ref()
    }

    /// Takes a file; returns the one that was in its place.
    fn add(&mut self, kind: FileKind, file: SetFile) -> Option<SetFile> {
        match kind {
            FileKind::Volume(number) => self.volumes.insert(number, file),
            FileKind::Manifest => self.manifest.replace(file),
            FileKind::Signature => self.signature.replace(file),
            FileKind::JsonStat => self.jsonstat.replace(file),
        }
    }

    fn get(&self, kind: FileKind) -> Option<&SetFile> {
        match kind {
            FileKind::Volume(number) => self.volumes.get(&number),
            FileKind::Manifest => self.manifest.as_ref(),
            FileKind::Signature => self.signature.as_ref(),
            FileKind::JsonStat => self.jsonstat.as_ref(),
        }
    }

    /// Whether there is anything of a backup in it.
    fn has_data(&self) -> bool {
        self.manifest.is_some() || !self.volumes.is_empty()
    }
}

impl Chain {
    /// The full set, then the increments, each based on the one before. Never empty.
    ///
    /// A set in it may have no manifest: it has lost it, since its signatures or a later set prove that it was complete once.
    #[must_use]
    pub fn sets(&self) -> &[Arc<BackupSet>] {
        &self.sets
    }

    /// The sets up to the last one that has a manifest: what can be restored by what is at the target. Empty if the full one has none,
    /// since all others need it.
    #[must_use]
    pub fn whole(&self) -> &[Arc<BackupSet>] {
        let is_based = self.sets.first().is_some_and(|full| full.manifest().is_some());
        let last = self.sets.iter().rposition(|set| is_based && set.manifest().is_some());
        &self.sets[..last.map_or(0, |last| last + 1)]
    }

    /// Time of the full set.
    #[must_use]
    pub fn start_time(&self) -> Time {
        self.sets.first().map_or(Time::MIN, |set| set.end_time())
    }

    /// Time of the last set.
    #[must_use]
    pub fn end_time(&self) -> Time {
        self.sets.last().map_or(Time::MIN, |set| set.end_time())
    }
}

impl Collection {
    /// Puts files in their places. The order in which they come makes no difference.
    ///
    /// Of several files with one part in one set, which stock never writes, an encrypted one is used before others, then
    /// gzip before plain, then the first by name; the others are [`ignored`](Self::ignored).
    #[must_use]
    pub fn new(mut files: Vec<StoredFile>, prefixes: &Prefixes) -> Self {
        files.sort();
        let mut sets: BTreeMap<SetTimes, BackupSet> = BTreeMap::new();
        let mut ignored = Vec::new();
        for file in files {
            match classify(&file.name, prefixes) {
                Ok(FileName { partial: true, .. }) => {
                    ignored.push(Ignored { name: file.name, reason: IgnoredReason::Unfinished });
                }
                Ok(FileName { kind, set, suffix, .. }) => {
                    let set = sets.entry(set).or_insert_with(|| BackupSet::new(set));
                    ignored.extend(put(set, kind, SetFile { file, encoding: suffix }));
                }
                Err(reason) => ignored.push(Ignored { name: file.name, reason: IgnoredReason::Name(reason) }),
            }
        }
        let mut collection = Self { ignored, ..Self::default() };
        collection.take(sets);
        chains::link(&mut collection);
        collection.ignored.sort_by(|a, b| a.name.cmp(&b.name));
        collection
    }

    /// Tells sets from signatures and statistics that have none.
    fn take(&mut self, sets: BTreeMap<SetTimes, BackupSet>) {
        for (times, set) in sets {
            if set.has_data() {
                self.sets.push(Arc::new(set));
                continue;
            }
            self.lone_signatures.extend(set.signature.map(|file| LoneSignature { times, file }));
            self.ignored.extend(set.jsonstat.map(|s| Ignored { name: s.file.name, reason: IgnoredReason::NoSet }));
        }
        self.sets.sort_by_key(|set| (set.end_time(), !set.is_full(), set.start_time()));
        self.lone_signatures.sort_by_key(|lone| (lone.times.end(), lone.times));
    }

    /// The chains, that with the oldest full set first.
    #[must_use]
    pub fn chains(&self) -> &[Chain] {
        &self.chains
    }

    /// Increments on a set of a chain in which another increment on it has their place, as one that ends later has by stock's
    /// rule. Their own state can still be had from the set that they are based on. Oldest first.
    #[must_use]
    pub fn superseded(&self) -> &[Arc<BackupSet>] {
        &self.superseded
    }

    /// Increments whose base is not there, oldest first.
    #[must_use]
    pub fn orphans(&self) -> &[Arc<BackupSet>] {
        &self.orphans
    }

    /// Volumes of interrupted runs: sets with neither manifest nor signatures, on which nothing was built. Oldest first.
    #[must_use]
    pub fn interrupted(&self) -> &[Arc<BackupSet>] {
        &self.interrupted
    }

    /// Signature files without a set, oldest first.
    #[must_use]
    pub fn lone_signatures(&self) -> &[LoneSignature] {
        &self.lone_signatures
    }

    /// Files that are not used, by name.
    #[must_use]
    pub fn ignored(&self) -> &[Ignored] {
        &self.ignored
    }

    /// All sets with volumes or a manifest, by the time that they end.
    #[must_use]
    pub fn sets(&self) -> &[Arc<BackupSet>] {
        &self.sets
    }

    /// The chain whose state stock takes for a time: that which spans it, else the latest that ended before, else the earliest.
    /// `None` if there is none at all.
    #[must_use]
    pub fn chain_at(&self, time: Time) -> Option<&Chain> {
        let spanning = self.chains.iter().rev().find(|chain| chain.start_time() <= time && time <= chain.end_time());
        let before = || self.chains.iter().filter(|chain| chain.end_time() < time).max_by_key(|chain| chain.end_time());
        spanning.or_else(before).or_else(|| self.chains.first())
    }
}

impl Chain {
    /// The sets whose replay gives the state at a time: at least the full one, and each increment that had ended by then.
    #[must_use]
    pub fn sets_at(&self, time: Time) -> &[Arc<BackupSet>] {
        let later = self.sets.iter().skip(1).position(|set| set.end_time() > time);
        &self.sets[..later.map_or(self.sets.len(), |at| at + 1)]
    }
}

/// Puts a file into a set; returns that which has to give way.
fn put(set: &mut BackupSet, kind: FileKind, file: SetFile) -> Option<Ignored> {
    let preference = |file: &SetFile| match file.encoding {
        Encoding::OpenPgp | Encoding::Smime => 0,
        Encoding::Gzip => 1,
        Encoding::Plain => 2,
    };
    let loser = match set.get(kind) {
        Some(old) if preference(old) <= preference(&file) => file,
        _ => set.add(kind, file)?,
    };
    let of = set.get(kind)?.file.name.clone();
    Some(Ignored { name: loser.file.name, reason: IgnoredReason::Duplicate { of } })
}

#[cfg(test)]
mod tests;
