//! Which snapshots to keep. Pure: no store, no clock, no time zone of its own. The rules mean what restic's mean.

use std::collections::{BTreeMap, BTreeSet};

use crate::entry::Timestamp;
use crate::format::snapshot::SnapshotKind;
use crate::repair::REPAIR_ORIGIN;
use crate::snapshot::SnapshotRecord;

/// A date and hour in some time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// Year.
    pub year: i64,
    /// Month, from 1.
    pub month: u8,
    /// Day of the month, from 1.
    pub day: u8,
    /// Hour, from 0.
    pub hour: u8,
    /// Year of the ISO week.
    pub iso_year: i64,
    /// ISO week, from 1.
    pub iso_week: u8,
}

/// A length of time by the calendar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Years.
    pub years: u32,
    /// Months.
    pub months: u32,
    /// Days.
    pub days: u32,
    /// Hours.
    pub hours: u32,
}

/// A time zone.
pub trait Calendar {
    /// Date and hour of a time.
    fn civil(&self, time: Timestamp) -> Civil;
    /// The time so long before another one.
    fn before(&self, time: Timestamp, span: Span) -> Timestamp;
}

/// Periods of which one snapshot each is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    /// No period: every snapshot has its own.
    Last,
    /// An hour of a day.
    Hourly,
    /// A day.
    Daily,
    /// An ISO week.
    Weekly,
    /// A month.
    Monthly,
    /// A year.
    Yearly,
}

impl Period {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Last, Self::Hourly, Self::Daily, Self::Weekly, Self::Monthly, Self::Yearly];

    /// In the reason why a snapshot is kept.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }

    /// Equal for times in the same period; `position` tells snapshots apart.
    fn of(self, civil: &Civil, position: usize) -> (i64, u64) {
        let (month, day) = (u64::from(civil.month), u64::from(civil.day));
        match self {
            Self::Last => (0, position as u64),
            Self::Hourly => (civil.year, (month * 100 + day) * 100 + u64::from(civil.hour)),
            Self::Daily => (civil.year, month * 100 + day),
            Self::Weekly => (civil.iso_year, u64::from(civil.iso_week)),
            Self::Monthly => (civil.year, month),
            Self::Yearly => (civil.year, 0),
        }
    }
}

/// Keep rules. A snapshot that one of them keeps is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The newest snapshot of each of so many periods; `u32::MAX`: of all.
    pub counts: BTreeMap<Period, u32>,
    /// The newest snapshot of each period that ends less than so long before the newest snapshot of the group.
    pub within: BTreeMap<Period, Span>,
    /// Snapshots that have all tags of one of these lists; an empty tag means no tags at all.
    pub tags: Vec<Vec<String>>,
}

impl Policy {
    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.values().all(|count| *count == 0) && self.within.is_empty() && self.tags.is_empty()
    }

    /// Why each snapshot of a group is kept; an empty list for those that are not. `group` is sorted, the newest first.
    #[must_use]
    pub fn apply(&self, group: &[SnapshotRecord], calendar: &dyn Calendar) -> Vec<Vec<String>> {
        let complete: Vec<usize> = (0..group.len()).filter(|i| group[*i].snapshot.kind == SnapshotKind::Complete).collect();
        let mut reasons = vec![Vec::new(); group.len()];
        for (i, record) in group.iter().enumerate() {
            // What an interrupted backup has stored is of use until there is a newer complete one.
            if record.snapshot.kind == SnapshotKind::Partial && complete.first().is_none_or(|newest| i < *newest) {
                reasons[i].push("unfinished backup".to_owned());
            }
            if self.tags.iter().any(|tags| has_tags(record, tags)) {
                reasons[i].push("has tags".to_owned());
            }
        }
        for (period, count) in &self.counts {
            thin(*period, *count, "", &complete, group, calendar, &mut reasons);
        }
        let newest = complete.first().map(|i| group[*i].snapshot.time);
        for (period, span) in &self.within {
            let from = newest.map(|newest| calendar.before(newest, *span));
            let young: Vec<usize> = complete.iter().filter(|i| Some(group[**i].snapshot.time) > from).copied().collect();
            thin(*period, u32::MAX, " within the time", &young, group, calendar, &mut reasons);
        }
        reasons
    }
}

fn is_repair(record: &SnapshotRecord) -> bool {
    record.snapshot.origin.as_ref().is_some_and(|origin| origin.starts_with(REPAIR_ORIGIN))
}

fn has_tags(record: &SnapshotRecord, tags: &[String]) -> bool {
    let own = &record.snapshot.tags;
    tags.iter().all(|tag| own.contains(tag) || tag.is_empty() && own.is_empty())
}

/// Keeps the newest snapshot of each of `count` periods; if there are fewer, the oldest one too, so that the history reaches as
/// far back as it can.
fn thin(
    period: Period,
    count: u32,
    suffix: &str,
    among: &[usize],
    group: &[SnapshotRecord],
    calendar: &dyn Calendar,
    reasons: &mut [Vec<String>],
) {
    let (mut left, mut before) = (count, None);
    for (position, i) in among.iter().enumerate() {
        if left == 0 {
            return;
        }
        let this = Some(period.of(&calendar.civil(group[*i].snapshot.time), position));
        let is_oldest = position + 1 == among.len();
        if this != before || is_oldest {
            let oldest = if this == before { "oldest " } else { "" };
            reasons[*i].push(format!("{oldest}{} snapshot{suffix}", period.name()));
            before = this;
            left -= u32::from(left != u32::MAX);
        }
    }
}

/// By what snapshots are put together before the rules are applied to each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupBy {
    /// The same host.
    pub host: bool,
    /// The same paths.
    pub paths: bool,
    /// The same tags.
    pub tags: bool,
}

impl Default for GroupBy {
    fn default() -> Self {
        Self { host: true, paths: true, tags: false }
    }
}

/// What the snapshots of a group have in common; empty where that does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupKey {
    /// Host.
    pub host: Option<String>,
    /// Paths, sorted.
    pub paths: Option<BTreeSet<Vec<u8>>>,
    /// Tags, sorted.
    pub tags: Option<BTreeSet<String>>,
}

impl GroupBy {
    fn key(self, record: &SnapshotRecord) -> GroupKey {
        let s = &record.snapshot;
        GroupKey {
            host: self.host.then(|| s.host.clone()),
            paths: self.paths.then(|| s.paths.iter().cloned().collect()),
            tags: self.tags.then(|| s.tags.iter().cloned().collect()),
        }
    }

    /// The groups, each sorted with the newest snapshot first. What a repair has left of a snapshot comes after the snapshot
    /// itself: it has the same time, and less in it.
    #[must_use]
    pub fn divide(self, all: Vec<SnapshotRecord>) -> BTreeMap<GroupKey, Vec<SnapshotRecord>> {
        let mut groups: BTreeMap<GroupKey, Vec<SnapshotRecord>> = BTreeMap::new();
        for record in all {
            groups.entry(self.key(&record)).or_default().push(record);
        }
        for group in groups.values_mut() {
            group.sort_by_key(|record| std::cmp::Reverse((record.snapshot.time, !is_repair(record), record.name)));
        }
        groups
    }
}
