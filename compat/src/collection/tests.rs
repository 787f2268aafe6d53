use std::fs;

use proptest::prelude::*;

use super::*;
use crate::stock::{Fixture, fixtures};
use crate::time::TimeZone;

const T: i64 = 1_700_000_000;
const DAY: i64 = 86_400;

/// Day `n` of the tests.
fn day(n: i64) -> Time {
    Time::new(T + n * DAY).expect("time")
}

fn full(n: i64) -> SetTimes {
    SetTimes::Full(day(n))
}

fn inc(start: i64, end: i64) -> SetTimes {
    SetTimes::Inc { start: day(start), end: day(end) }
}

fn file(kind: FileKind, set: SetTimes) -> String {
    FileName { kind, set, suffix: Encoding::Plain, partial: false }.long(&Prefixes::default())
}

/// All files of a set with one volume.
fn whole(set: SetTimes) -> Vec<String> {
    [FileKind::Volume(1), FileKind::Manifest, FileKind::Signature].map(|kind| file(kind, set)).to_vec()
}

fn volume(set: SetTimes) -> Vec<String> {
    vec![file(FileKind::Volume(1), set)]
}

fn collect(names: impl IntoIterator<Item = Vec<String>>) -> Collection {
    let files = names.into_iter().flatten().map(|name| StoredFile { name, size: None });
    let files: Vec<_> = files.collect();
    let reversed = files.iter().rev().cloned().collect();
    let collection = Collection::new(files, &Prefixes::default());
    assert_eq!(Collection::new(reversed, &Prefixes::default()), collection, "the order of files matters");
    assert_complete(&collection);
    collection
}

/// Each set is in exactly one place.
fn assert_complete(collection: &Collection) {
    let chained = collection.chains.iter().flat_map(|chain| &chain.sets);
    let aside = [&collection.superseded, &collection.orphans, &collection.interrupted];
    let mut placed: Vec<SetTimes> = chained.chain(aside.into_iter().flatten()).map(|set| set.times()).collect();
    let mut sets: Vec<SetTimes> = collection.sets.iter().map(|set| set.times()).collect();
    placed.sort();
    sets.sort();
    assert_eq!(placed, sets);
    for chain in &collection.chains {
        assert!(chain.sets[0].is_full());
        assert!(chain.sets.windows(2).all(|pair| !pair[1].is_full() && pair[0].end_time() == pair[1].start_time()));
    }
}

fn times(sets: &[Arc<BackupSet>]) -> Vec<SetTimes> {
    sets.iter().map(|set| set.times()).collect()
}

fn chains(collection: &Collection) -> Vec<Vec<SetTimes>> {
    collection.chains().iter().map(|chain| times(chain.sets())).collect()
}

#[test]
fn chains_by_times() {
    let collection = collect([full(0), inc(0, 1), inc(1, 2), full(3), inc(3, 4), inc(7, 8)].map(whole));
    assert_eq!(chains(&collection), [vec![full(0), inc(0, 1), inc(1, 2)], vec![full(3), inc(3, 4)]]);
    assert_eq!(times(collection.orphans()), [inc(7, 8)]);
    assert!(collection.ignored().is_empty() && collection.lone_signatures().is_empty());
    let set = &collection.chains()[1].sets()[1];
    assert_eq!((set.start_time(), set.end_time(), set.is_full()), (day(3), day(4), false));
    assert!(set.manifest().is_some() && set.signature().is_some() && set.jsonstat().is_none());
    assert_eq!(set.volumes()[&1].file.name, file(FileKind::Volume(1), inc(3, 4)));
}

#[test]
fn a_later_increment_on_the_same_base_takes_the_place() {
    let collection = collect([full(0), inc(0, 1), inc(0, 2), inc(2, 3)].map(whole));
    assert_eq!(chains(&collection), [[full(0), inc(0, 2), inc(2, 3)]]);
    assert_eq!(times(collection.superseded()), [inc(0, 1)]);
    assert!(collection.orphans().is_empty());
}

#[test]
fn fulls_and_increments_of_one_second() {
    let collection = collect([full(0), inc(0, 2), full(2), inc(2, 3), inc(2, 4)].map(whole));
    assert_eq!(chains(&collection), [vec![full(0), inc(0, 2), inc(2, 4)], vec![full(2)]]);
    assert_eq!(times(collection.superseded()), [inc(2, 3)]);
    let same = [full(0), inc(0, 0), inc(0, 1)].map(whole);
    assert_eq!(chains(&collect(same)), [[full(0), inc(0, 0), inc(0, 1)]]);
}

#[test]
fn a_clock_that_was_set_back() {
    let collection = collect([full(5), inc(5, 6), inc(6, 2), inc(2, 3)].map(whole));
    assert_eq!(chains(&collection), [[full(5), inc(5, 6), inc(6, 2), inc(2, 3)]]);
    let round = [full(0), inc(0, 1), inc(1, 0)].map(whole);
    assert_eq!(chains(&collect(round)), [[full(0), inc(0, 1), inc(1, 0)]]);
    let alone = [inc(0, 1), inc(1, 0)].map(whole);
    assert_eq!(times(collect(alone).orphans()), [inc(1, 0), inc(0, 1)]);
}

#[test]
fn interrupted_runs_are_told_from_lost_manifests() {
    let collection = collect([whole(full(0)), volume(inc(0, 1)), volume(full(9))]);
    assert_eq!(chains(&collection), [[full(0)]]);
    assert_eq!(times(collection.interrupted()), [inc(0, 1), full(9)]);

    let later = collect([whole(full(0)), volume(inc(0, 1)), whole(inc(1, 2))]);
    assert_eq!(chains(&later), [[full(0), inc(0, 1), inc(1, 2)]]);
    assert!(later.chains()[0].sets()[1].manifest().is_none());

    let signed = vec![file(FileKind::Volume(1), inc(0, 1)), file(FileKind::Signature, inc(0, 1))];
    assert_eq!(chains(&collect([whole(full(0)), signed.clone()])), [[full(0), inc(0, 1)]]);
    let replaced = collect([whole(full(0)), signed, whole(inc(0, 2))]);
    assert_eq!(chains(&replaced), [[full(0), inc(0, 2)]]);
    assert_eq!(times(replaced.superseded()), [inc(0, 1)]);

    let lost = collect([volume(full(0)), whole(inc(0, 1))]);
    assert_eq!(chains(&lost), [[full(0), inc(0, 1)]]);
}

#[test]
fn one_part_in_several_files() {
    let name = |suffix| FileName { kind: FileKind::Volume(1), set: full(0), suffix, partial: false }.long(&Prefixes::default());
    let old = "duplicity-full.2023-11-14T22:13:20Z.vol1.difftar.gpg".to_owned();
    let [plain, gzip, pgp] = [Encoding::Plain, Encoding::Gzip, Encoding::OpenPgp].map(name);
    let collection = collect([vec![plain.clone(), gzip.clone(), pgp.clone(), old.clone()]]);
    let used = &collection.interrupted()[0].volumes()[&1];
    assert_eq!((&used.file.name, used.encoding), (&old, Encoding::OpenPgp));
    let ignored: Vec<_> = collection.ignored().iter().map(|i| &*i.name).collect();
    assert_eq!(
        ignored,
        [&*plain, &*pgp, &*gzip].into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    );
    assert!(collection.ignored().iter().all(|i| matches!(i.reason, IgnoredReason::Duplicate { .. })));
}

#[test]
fn what_is_ignored_has_a_reason() {
    let strange = [
        "duplicity-full.20231114T221320Z.vol4294967296.difftar",
        "duplicity-full.20231114T221320Z.manifest.tmp",
        "duplicity-full.20231114T221320Z.manifest.part",
        "duplicity-full.20231114T221320Z.vol1.difftar.par2",
        "duplicity-full.20991114T221320Z.jsonstat",
        "photo.jpg",
    ];
    let collection = collect([whole(full(0)), strange.map(str::to_owned).to_vec()]);
    let reasons: BTreeMap<_, _> = collection.ignored().iter().map(|i| (&*i.name, i.reason.clone())).collect();
    let wanted = [
        IgnoredReason::Name(NameError::Number),
        IgnoredReason::Name(NameError::Trailing(".tmp".into())),
        IgnoredReason::Unfinished,
        IgnoredReason::Name(NameError::Par2),
        IgnoredReason::NoSet,
        IgnoredReason::Name(NameError::Foreign),
    ];
    assert_eq!(reasons, strange.into_iter().zip(wanted).collect());
    let numbers: Vec<u32> = collection.sets()[0].volumes().keys().copied().collect();
    assert_eq!(numbers, [1]);
}

#[test]
fn huge_numbers_cost_nothing() {
    let set = full(0);
    let collection = collect([vec![file(FileKind::Volume(u32::MAX), set), file(FileKind::Manifest, set)]]);
    assert_eq!(collection.chains()[0].sets()[0].volumes().keys().copied().collect::<Vec<_>>(), [u32::MAX]);
}

#[test]
fn sets_for_a_time() {
    let collection = collect([full(0), inc(0, 1), full(4), inc(4, 6)].map(whole));
    let at = |n| collection.chain_at(day(n)).map(|chain| times(chain.sets_at(day(n)))).expect("chain");
    assert_eq!(at(-1), [full(0)]);
    assert_eq!(at(0), [full(0)]);
    assert_eq!(at(1), [full(0), inc(0, 1)]);
    assert_eq!(at(3), [full(0), inc(0, 1)]);
    assert_eq!(at(5), [full(4)]);
    assert_eq!(at(9), [full(4), inc(4, 6)]);
    assert!(collect([]).chain_at(day(0)).is_none());
}

#[test]
fn many_chains_take_no_longer_each() {
    let count = 20_000;
    let second = |n: i64| Time::new(T + n).expect("time");
    let fulls = (0..count).map(|n| SetTimes::Full(second(n)));
    // All end where a later one starts: the worst for a search through chains.
    let joined = (0..count).map(|n| SetTimes::Inc { start: second(n), end: second(count) });
    let after = (1..count).map(|n| SetTimes::Inc { start: second(count), end: second(count + n) });
    let sets = fulls.chain(joined).chain(after).map(whole);
    let begun = std::time::Instant::now();
    let collection = collect(sets);
    assert_eq!(collection.chains().len(), 20_000);
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}

/// Sets of the archive; times that it was complete at; fixtures whose sets are damaged on purpose.
#[test]
fn sets_of_every_archive() {
    for fixture in fixtures() {
        let collection = Collection::new(fixture.files(), &fixture.prefixes());
        assert_complete(&collection);
        let wanted: Vec<i64> =
            fixture.info["times"].as_array().expect("times").iter().map(|t| t["epoch"].as_i64().expect("epoch")).collect();
        let chained = collection.chains().iter().flat_map(|chain| chain.sets());
        let mut found: Vec<i64> = chained.map(|set| set.end_time().epoch()).collect();
        let missing_set = fixture.name == "dmg-missing-inc-set-gz";
        if missing_set {
            assert_eq!(times(collection.orphans()), [inc(1, 2)]);
            found.extend([day(1).epoch(), day(2).epoch()]);
        }
        assert_eq!(found, wanted, "{}", fixture.name);
        assert_eq!(collection.chains().len(), expected_chains(&fixture), "{}", fixture.name);
        assert_eq!(collection.interrupted().len(), usize::from(fixture.name.starts_with("partial-")), "{}", fixture.name);
        assert!(collection.superseded().is_empty() && collection.ignored().is_empty(), "{}", fixture.name);
        assert!(missing_set || collection.orphans().is_empty(), "{}", fixture.name);
    }
}

fn expected_chains(fixture: &Fixture) -> usize {
    match &*fixture.name {
        "two-chains-sym" => 2,
        "partial-full-gz-0822" | "partial-full-gz-321" => 0,
        _ => 1,
    }
}

/// What is not the same: the folder of the cache, which the recorded text names. Nothing else.
fn compare(fixture: &Fixture, release: Release, collection: &Collection, recorded: &str, place: &str) {
    let archive_dir =
        recorded.lines().find_map(|line| line.strip_prefix("Archive dir: ")).unwrap_or_else(|| panic!("{place}: no folder"));
    let options = StatusOptions { release, backend: "BackendWrapper", archive_dir, zone: &TimeZone::UTC };
    let warnings = collection.stock_warnings(release).into_iter().map(|warning| warning + "\n");
    let text = warnings.collect::<String>() + &collection.status(&options);
    assert_eq!(text.trim_end(), recorded.trim_end(), "{}: {place}", fixture.name);
}

fn release(version: &str) -> Release {
    match version.split('.').take(2).collect::<Vec<_>>()[..] {
        ["0", _] => Release::V0_8,
        ["1" | "2", _] => Release::V1,
        ["3", "0"] => Release::V3_0,
        ["3", "2"] => Release::V3_2,
        _ => panic!("{version}"),
    }
}

/// The version that a recorded text is from: that of the last run.
fn recorded_by(fixture: &Fixture, text: &str) -> Release {
    let last = fixture.info["times"].as_array().and_then(|times| times.last()?["by"].as_str());
    let by = last.or(fixture.info["made_by"].as_str()).expect("version");
    if text.ends_with("Duplicity backup complete.\n") { Release::V3_2 } else { release(by) }
}

/// Recorded before the damage was done, so of a damaged archive only those that show in no name are compared here.
#[test]
fn status_is_that_of_stock() {
    let mut seen = 0;
    for fixture in fixtures().iter().filter(|f| !f.name.starts_with("dmg-missing-")) {
        let Ok(recorded) = fs::read_to_string(fixture.dir.join("truth/collection-status.txt")) else { continue };
        let collection = Collection::new(fixture.files(), &fixture.prefixes());
        compare(fixture, recorded_by(fixture, &recorded), &collection, &recorded, "collection-status.txt");
        seen += 1;
    }
    assert!(seen == 0 || seen > 35, "{seen}");
}

/// Of damaged and interrupted archives, by four versions each. Those with the interrupted run's own cache are left out: what lies
/// in a cache is not in the archive.
#[test]
fn status_of_damaged_archives_is_that_of_stock() {
    let mut seen = 0;
    for fixture in fixtures() {
        let Ok(text) = fs::read_to_string(fixture.dir.join("truth/transcripts.txt")) else { continue };
        let collection = Collection::new(fixture.files(), &fixture.prefixes());
        for section in text.split("### ") {
            let (head, recorded) = section.split_once('\n').unwrap_or_default();
            if head.contains(" collection-status") && !head.contains("own local cache") {
                compare(&fixture, release(head), &collection, recorded, head);
                seen += 1;
            }
        }
    }
    assert!(seen == 0 || seen > 40, "{seen}");
}

fn any_sets() -> impl Strategy<Value = Vec<Vec<String>>> {
    let set = prop_oneof![(0..6_i64).prop_map(full), (0..6_i64, 0..6_i64).prop_map(|(start, end)| inc(start, end))];
    let kinds = [FileKind::Volume(1), FileKind::Volume(2), FileKind::Manifest, FileKind::Signature, FileKind::JsonStat];
    let files = proptest::sample::subsequence(kinds.to_vec(), 0..=5);
    let part = (set, files).prop_map(|(set, kinds)| kinds.into_iter().map(|kind| file(kind, set)).collect());
    proptest::collection::vec(part, 0..14)
}

proptest! {
    #[test]
    fn any_collection_is_survived_and_whole(sets in any_sets()) {
        let collection = collect(sets);
        for release in [Release::V0_8, Release::V1, Release::V3_0, Release::V3_2] {
            let options = StatusOptions { release, backend: "b", archive_dir: "d", zone: &TimeZone::UTC };
            prop_assert!(collection.status(&options).contains("Collection Status"));
        }
        for n in -1..7 {
            prop_assert_eq!(collection.chain_at(day(n)).is_none(), collection.chains().is_empty());
        }
    }
}
