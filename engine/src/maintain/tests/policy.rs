//! The keep rules, and what they refuse without confirmation.

use super::super::guard::{GroupVerdict, Guard};
use super::super::policy::{Calendar, Civil, GroupBy, Period, Policy, Span};
use crate::entry::Timestamp;
use crate::format::snapshot::{Snapshot, SnapshotKind, SnapshotName, Totals};
use crate::id::{Epoch, ObjectId};
use crate::snapshot::SnapshotRecord;

const DAY: i64 = 86_400;

/// UTC, with months of 30 and years of 360 days.
struct Simple;

impl Calendar for Simple {
    fn civil(&self, time: Timestamp) -> Civil {
        let (day, hour) = (time.seconds.div_euclid(DAY), time.seconds.rem_euclid(DAY) / 3600);
        let small = |n: i64| u8::try_from(n).unwrap();
        Civil {
            year: day.div_euclid(360),
            month: small(day.rem_euclid(360) / 30 + 1),
            day: small(day.rem_euclid(30) + 1),
            hour: small(hour),
            iso_year: day.div_euclid(364),
            iso_week: small(day.rem_euclid(364) / 7 + 1),
        }
    }

    fn before(&self, time: Timestamp, span: Span) -> Timestamp {
        let days = i64::from(span.years) * 360 + i64::from(span.months) * 30 + i64::from(span.days);
        Timestamp { seconds: time.seconds - days * DAY - i64::from(span.hours) * 3600, ..time }
    }
}

fn record(epoch: Epoch, seconds: i64) -> SnapshotRecord {
    let snapshot = Snapshot {
        time: Timestamp { seconds, nanos: 0 },
        started: Timestamp { seconds, nanos: 0 },
        host: "h".into(),
        user: "u".into(),
        paths: vec![b"/".to_vec()],
        tags: vec![],
        program: "p".into(),
        root: None,
        totals: Totals::default(),
        kind: SnapshotKind::Complete,
        parent: None,
        head: None,
        session: [0; 16],
        problems: 0,
        origin: None,
    };
    SnapshotRecord { name: SnapshotName { epoch, id: ObjectId::of(&seconds.to_le_bytes()) }, snapshot, sealed: false }
}

fn counts(rules: &[(Period, u32)]) -> Policy {
    Policy { counts: rules.iter().copied().collect(), ..Policy::default() }
}

/// Days of the snapshots that are kept.
fn kept(policy: &Policy, all: &[SnapshotRecord]) -> Vec<i64> {
    let groups = GroupBy::default().divide(all.to_vec());
    let mut days = Vec::new();
    for group in groups.values() {
        let reasons = policy.apply(group, &Simple);
        days.extend(group.iter().zip(reasons).filter(|(_, r)| !r.is_empty()).map(|(r, _)| r.snapshot.time.seconds / DAY));
    }
    days
}

#[test]
fn one_of_each_period_and_the_oldest_while_there_is_room() {
    let all: Vec<SnapshotRecord> = (1000..1100).map(|day| record(0, day * DAY)).collect();
    assert_eq!(kept(&counts(&[(Period::Last, 3)]), &all), [1099, 1098, 1097]);
    // The last day of each week; day 1099 is the first of its own.
    assert_eq!(kept(&counts(&[(Period::Weekly, 3)]), &all), [1099, 1098, 1091]);
    assert_eq!(kept(&counts(&[(Period::Monthly, 2), (Period::Daily, 1)]), &all), [1099, 1079]);
    // Fewer years than asked for: the oldest snapshot stays, too.
    assert_eq!(kept(&counts(&[(Period::Yearly, 5)]), &all), [1099, 1079, 1000]);
    assert_eq!(kept(&counts(&[(Period::Last, u32::MAX)]), &all).len(), 100);
    let hourly: Vec<SnapshotRecord> = (0..8).map(|half| record(0, 1000 * DAY + half * 1800)).collect();
    assert_eq!(kept(&counts(&[(Period::Hourly, 2)]), &hourly).len(), 2);
    assert_eq!(kept(&counts(&[(Period::Daily, 1)]), &hourly).len(), 1);
}

#[test]
fn within_counts_from_the_newest_snapshot_of_the_group() {
    let all: Vec<SnapshotRecord> = (1000..1100).map(|day| record(0, day * DAY)).collect();
    let within = |period, span| Policy { within: [(period, span)].into(), ..Policy::default() };
    assert_eq!(kept(&within(Period::Last, Span { days: 3, ..Span::default() }), &all), [1099, 1098, 1097]);
    assert_eq!(kept(&within(Period::Weekly, Span { days: 10, ..Span::default() }), &all), [1099, 1098, 1091, 1090]);
    assert_eq!(kept(&within(Period::Last, Span { hours: 1, ..Span::default() }), &all), [1099]);
}

#[test]
fn tags_and_groups() {
    let mut all: Vec<SnapshotRecord> = (1000..1010).map(|day| record(0, day * DAY)).collect();
    all[2].snapshot.tags = vec!["a".into(), "b".into()];
    all[3].snapshot.tags = vec!["a".into()];
    let mut policy = counts(&[(Period::Last, 1)]);
    policy.tags = vec![vec!["a".into(), "b".into()]];
    assert_eq!(kept(&policy, &all), [1009, 1002]);
    policy.tags = vec![vec!["a".into()]];
    assert_eq!(kept(&policy, &all), [1009, 1003, 1002]);
    all[0].snapshot.host = "other".into();
    assert_eq!(kept(&counts(&[(Period::Last, 1)]), &all), [1009, 1000]);
    let tagged = GroupBy { host: false, paths: false, tags: true }.divide(all.clone());
    assert_eq!(tagged.values().map(Vec::len).collect::<Vec<_>>(), [8, 1, 1]);
    assert!(counts(&[(Period::Last, 0)]).is_empty());
}

#[test]
fn an_unfinished_backup_stays_until_a_newer_one_is_complete() {
    let mut all: Vec<SnapshotRecord> = (1000..1004).map(|day| record(0, day * DAY)).collect();
    all[1].snapshot.kind = SnapshotKind::Partial;
    all[3].snapshot.kind = SnapshotKind::Partial;
    assert_eq!(kept(&counts(&[(Period::Last, 1)]), &all), [1003, 1002]);
}

#[test]
fn a_repaired_copy_does_not_take_the_place_of_the_snapshot() {
    let original = record(0, 1000 * DAY);
    for id in 0..8_u8 {
        let mut copy = original.clone();
        copy.name.id = ObjectId::of(&[id]);
        copy.snapshot.origin = Some(format!("repair of {}", original.name.id));
        let groups = GroupBy::default().divide(vec![copy, original.clone()]);
        assert_eq!(groups.values().next().unwrap()[0].name, original.name);
    }
}

const NOW: i64 = 2000 * DAY;

fn guard(seals: &[(Epoch, i64)]) -> Guard {
    let at = |day: i64| Timestamp { seconds: day * DAY, nanos: 0 };
    Guard::for_tests(at(2000), at(1000), seals.iter().map(|(e, day)| (*e, at(*day))).collect())
}

fn decide(guard: &Guard, policy: &Policy, all: &[SnapshotRecord], confirmed: bool) -> GroupVerdict {
    guard.decide(policy, GroupBy::default(), all.to_vec(), &Simple, confirmed).remove(0)
}

#[test]
fn the_young_stay_without_confirmation() {
    let guard = guard(&[(0, 1990)]);
    let all = [record(0, 1980 * DAY), record(0, 1985 * DAY), record(1, 1999 * DAY), record(1, NOW - 60)];
    let policy = counts(&[(Period::Last, 1), (Period::Yearly, 9)]);
    let verdict = decide(&guard, &policy, &all, false);
    assert_eq!(verdict.refused, [""; 0]);
    assert_eq!(verdict.dropped().map(|r| r.snapshot.time.seconds / DAY).collect::<Vec<_>>(), [1985]);
    assert_eq!(decide(&guard, &policy, &all, true).dropped().count(), 2);
}

#[test]
fn times_that_cannot_be_are_refused() {
    let guard = guard(&[(0, 1980), (1, 1990)]);
    let honest = [record(0, 1970 * DAY), record(1, 1985 * DAY), record(1, 1989 * DAY), record(2, 1995 * DAY)];
    let policy = counts(&[(Period::Last, 2), (Period::Yearly, 9)]);
    assert_eq!(decide(&guard, &policy, &honest, false).refused, [""; 0]);
    // After its seal, before its epoch, in the future.
    for forged in [record(1, 1992 * DAY), record(1, 1960 * DAY), record(2, 1970 * DAY), record(2, 2001 * DAY)] {
        let all = [&honest[..], &[forged]].concat();
        let verdict = decide(&guard, &policy, &all, false);
        assert!(verdict.refused.iter().any(|r| r.contains("than it can be")), "{verdict:?}");
        assert_eq!(verdict.dropped().count(), 0);
        assert!(decide(&guard, &policy, &all, true).dropped().count() > 0);
    }
}

#[test]
fn a_burst_is_refused_and_so_is_leaving_only_the_newest() {
    let guard = guard(&[(0, 1990)]);
    let mut all: Vec<SnapshotRecord> = (1800..1990).step_by(10).map(|day| record(0, day * DAY)).collect();
    all.extend((0..50).map(|i| record(1, 1991 * DAY + i * 3600)));
    let verdict = decide(&guard, &counts(&[(Period::Last, 51)]), &all, false);
    assert!(verdict.refused.iter().any(|r| r.contains("far more than usual")), "{:?}", verdict.refused);
    let verdict = decide(&guard, &counts(&[(Period::Last, 3)]), &all[19 - 5..24], false);
    assert!(verdict.refused.iter().any(|r| r.contains("would be left")), "{:?}", verdict.refused);
}

#[test]
fn a_group_is_never_emptied() {
    let guard = guard(&[]);
    let policy = Policy { tags: vec![vec!["x".into()]], ..Policy::default() };
    for confirmed in [false, true] {
        let verdict = decide(&guard, &policy, &[record(0, 1500 * DAY)], confirmed);
        assert!(!verdict.refused.is_empty() && verdict.dropped().count() == 0);
    }
}
