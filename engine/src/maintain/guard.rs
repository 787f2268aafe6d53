//! What keeps forged times and forged snapshots from steering what is forgotten.
//!
//! A snapshot's time is what its writer claims. Its epoch is not: the seals before and after it say when it must have been
//! written, by the clocks of maintenance. Whatever does not fit needs the user's word.

use std::collections::{BTreeMap, BTreeSet};

use super::policy::{Calendar, GroupBy, GroupKey, Policy};
use crate::entry::Timestamp;
use crate::error::Result;
use crate::id::Epoch;
use crate::monitor::Monitor;
use crate::protocol::{self, Store, View};
use crate::repo::{EpochStore, Repository, now, parallel};
use crate::snapshot::SnapshotRecord;

const HOUR: i64 = 60 * 60;
/// Snapshots younger than this are not dropped without the user's word.
const YOUNG: i64 = 48 * HOUR;
/// How far ahead of the seal that names it the time of a snapshot may be.
const AHEAD: i64 = HOUR;
/// How long before the epoch in which it was committed a backup may have begun.
const LONG_BACKUP: i64 = 14 * 24 * HOUR;
/// So many new snapshots of a group are no burst, however few there were before.
const FEW: usize = 8;
/// More new snapshots a day than so many times the usual are a burst.
const BURST: i64 = 4;

/// When epochs were sealed, by the clocks of maintenance.
#[derive(Clone, Debug)]
pub struct Guard {
    now: Timestamp,
    created: Timestamp,
    seals: BTreeMap<Epoch, Timestamp>,
    last: Option<Epoch>,
}

/// What is done with a snapshot.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The snapshot.
    pub record: SnapshotRecord,
    /// Why it is kept; it is dropped if there is no reason.
    pub reasons: Vec<String>,
}

/// What is done with a group of snapshots, the newest first.
#[derive(Clone, Debug)]
pub struct GroupVerdict {
    /// What they have in common.
    pub key: GroupKey,
    /// One a snapshot.
    pub verdicts: Vec<Verdict>,
    /// Why nothing of this group may be dropped.
    pub refused: Vec<String>,
}

impl GroupVerdict {
    /// Snapshots to drop.
    pub fn dropped(&self) -> impl Iterator<Item = &SnapshotRecord> {
        let allowed = self.refused.is_empty();
        self.verdicts.iter().filter(move |v| allowed && v.reasons.is_empty()).map(|v| &v.record)
    }
}

impl Guard {
    /// Reads the seals that bear on these snapshots.
    ///
    /// # Errors
    ///
    /// What the store returns.
    pub fn load(repo: &Repository, view: &View, records: &[SnapshotRecord], monitor: &dyn Monitor) -> Result<Self> {
        let last = view.head.map(|(epoch, _)| epoch);
        let epochs: BTreeSet<Epoch> =
            records.iter().flat_map(|r| [r.name.epoch.checked_sub(1), Some(r.name.epoch)]).flatten().collect();
        let epochs: Vec<Epoch> = epochs.into_iter().chain(last).filter(|epoch| Some(*epoch) <= last).collect();
        let read = parallel::map(repo.backend().concurrency(), &epochs, |epoch| {
            protocol::run(EpochStore::new(repo, monitor).read_seal(*epoch))
        });
        let mut seals = BTreeMap::new();
        for (epoch, seal) in epochs.into_iter().zip(read) {
            seals.extend(seal?.map(|(_, seal)| (epoch, seal.time)));
        }
        Ok(Self { now: now(), created: repo.config().created, seals, last })
    }

    #[cfg(test)]
    pub(super) fn for_tests(now: Timestamp, created: Timestamp, seals: BTreeMap<Epoch, Timestamp>) -> Self {
        let last = seals.keys().next_back().copied();
        Self { now, created, seals, last }
    }

    /// When the snapshot was sealed; none if it is not yet.
    fn sealed(&self, record: &SnapshotRecord) -> Option<Timestamp> {
        self.seals.get(&record.name.epoch).copied().filter(|_| Some(record.name.epoch) <= self.last)
    }

    /// When the snapshot's epoch began, as far as that is known.
    fn opened(&self, record: &SnapshotRecord) -> Timestamp {
        let before = record.name.epoch.checked_sub(1).and_then(|e| self.seals.get(&e)).or_else(|| {
            let last = self.last.filter(|last| *last < record.name.epoch)?;
            self.seals.get(&last)
        });
        before.copied().unwrap_or(self.created)
    }

    /// Whether the snapshot was sealed, or by its own account made, less than 48 hours ago. Nothing younger than that is
    /// dropped unless the user confirms it.
    #[must_use]
    pub fn is_young(&self, record: &SnapshotRecord) -> bool {
        let time = self.sealed(record).unwrap_or(record.snapshot.time);
        time.seconds > self.now.seconds.saturating_sub(YOUNG)
    }

    /// Whether nobody can tell yet that the snapshot is old: it is not sealed, or since less than 48 hours.
    fn is_new(&self, record: &SnapshotRecord) -> bool {
        self.sealed(record).is_none_or(|time| time.seconds > self.now.seconds.saturating_sub(YOUNG))
    }

    /// What is wrong with the time that the snapshot claims.
    #[must_use]
    pub fn leap(&self, record: &SnapshotRecord) -> Option<String> {
        let time = record.snapshot.time.seconds;
        let id = record.name.id.short();
        let latest = self.sealed(record).unwrap_or(self.now).seconds.saturating_add(AHEAD);
        if time > latest {
            return Some(format!("snapshot {id} claims to be {} younger than it can be", human(time - latest)));
        }
        let earliest = self.opened(record).seconds.saturating_sub(LONG_BACKUP);
        (time < earliest).then(|| format!("snapshot {id} claims to be {} older than it can be", human(earliest - time)))
    }

    /// Whether far more new snapshots have come up than usual.
    fn burst(&self, group: &[Verdict]) -> Option<String> {
        let (new, old): (Vec<_>, Vec<_>) = group.iter().partition(|v| self.is_new(&v.record));
        let first = old.iter().map(|v| self.opened(&v.record).seconds).min()?;
        let last = self.last.and_then(|last| self.seals.get(&last)).map_or(self.created, |time| *time).seconds;
        let days = |seconds: i64| (seconds / (24 * HOUR)).max(1);
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let usual = count(old.len()).saturating_mul(days(self.now.seconds.saturating_sub(last).max(YOUNG))).saturating_mul(BURST);
        let found = count(new.len()).saturating_mul(days(last.saturating_sub(first)));
        (new.len() > FEW && found > usual)
            .then(|| format!("{} snapshots have come up since the last seals, far more than usual", new.len()))
    }

    /// Applies a policy to snapshots. Without the user's word (`confirmed`), young snapshots stay, and groups with times that
    /// cannot be, with a burst of new snapshots, or of which only new ones would be left, are left alone.
    #[must_use]
    pub fn decide(
        &self,
        policy: &Policy,
        by: GroupBy,
        all: Vec<SnapshotRecord>,
        calendar: &dyn Calendar,
        confirmed: bool,
    ) -> Vec<GroupVerdict> {
        by.divide(all)
            .into_iter()
            .map(|(key, group)| {
                let reasons = policy.apply(&group, calendar);
                let mut verdicts: Vec<Verdict> =
                    group.into_iter().zip(reasons).map(|(record, reasons)| Verdict { record, reasons }).collect();
                let mut refused = Vec::new();
                if verdicts.iter().all(|v| v.reasons.is_empty()) {
                    refused.push("the rules would keep none of these".to_owned());
                } else if !confirmed && verdicts.iter().any(|v| v.reasons.is_empty()) {
                    refused = self.doubts(&verdicts);
                    for verdict in verdicts.iter_mut().filter(|v| v.reasons.is_empty() && self.is_young(&v.record)) {
                        verdict.reasons.push("younger than 48 hours".to_owned());
                    }
                }
                GroupVerdict { key, verdicts, refused }
            })
            .collect()
    }

    /// What needs the user's word.
    fn doubts(&self, verdicts: &[Verdict]) -> Vec<String> {
        let mut doubts: Vec<String> = verdicts.iter().filter_map(|v| self.leap(&v.record)).collect();
        doubts.extend(self.burst(verdicts));
        let is_old = |v: &&Verdict| !self.is_new(&v.record);
        let (kept, dropped): (Vec<&Verdict>, Vec<&Verdict>) = verdicts.iter().partition(|v| !v.reasons.is_empty());
        if !kept.iter().any(is_old) && dropped.iter().any(is_old) {
            doubts.push("only snapshots would be left that were sealed less than 48 hours ago, or not yet".to_owned());
        }
        doubts
    }
}

fn human(seconds: i64) -> String {
    match seconds {
        0..7200 => format!("{} minutes", seconds / 60),
        7200..172_800 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
