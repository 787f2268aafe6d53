//! Damaged archives: all that is intact arrives, all that is lost is named, and nothing wrong is there.

use super::*;

/// Imports a fixture and compares: of each time, how many paths of the tree before the damage are missing (`None`: there is no
/// such snapshot). All of them must have been named, if `named`.
fn check(name: &str, expected: &[Option<usize>], named: bool) -> Option<(World, Vec<SetOutcome>)> {
    let fixture = Fixture::open(name)?;
    let world = World::new();
    let outcomes = world.import_with(&fixture.archive(), &ImportOptions { verify: false, ..options() });
    let (snapshots, problems, times) = (world.snapshots(), world.problems(), fixture.times());
    assert_eq!(times.len(), expected.len(), "{name}");
    for (time, expected) in times.iter().zip(expected) {
        let epoch = time["epoch"].as_i64().expect("a time");
        let record = snapshots.iter().find(|r| r.snapshot.time.seconds == epoch);
        assert_eq!(record.is_some(), expected.is_some(), "{name} at {epoch}");
        let Some(record) = record else { continue };
        let (tree, mut truth) = (world.tree(record), comparable(&fixture.truth(time)));
        let missing: Vec<Vec<u8>> = truth.keys().filter(|path| !tree.contains_key(*path)).cloned().collect();
        assert_eq!(Some(missing.len()), *expected, "{name} at {epoch}");
        for path in &missing {
            let subject = format!("/{}", String::from_utf8_lossy(path));
            assert!(!named || problems.iter().any(|p| p.subject == subject), "{name} at {epoch}: {subject} is not named");
            truth.remove(path);
        }
        let differences = differences(&tree, &truth);
        assert!(differences.is_empty(), "{name} at {epoch}: {differences:?}");
        let partial = record.snapshot.tags == [super::super::PARTIAL];
        assert!(partial || missing.is_empty(), "{name} at {epoch} is not marked");
    }
    let again = world.import(&fixture.archive());
    let is_settled = |o: &SetOutcome| matches!(o.result, SetResult::Present(_) | SetResult::Refused(_));
    assert!(again.iter().all(is_settled), "{name}: importing again does something");
    Some((world, outcomes))
}

#[test]
fn a_bad_volume_costs_the_files_in_it() {
    for (name, why) in [
        ("dmg-flipped-byte-sym", "SHA-1"),
        ("dmg-truncated-volume-gz", "SHA-1"),
        ("dmg-truncated-volume-sym", "SHA-1"),
        ("dmg-wrong-hash-gz", "SHA-1"),
    ] {
        let Some((world, _)) = check(name, &[Some(27), Some(20), Some(20)], true) else { return };
        assert!(world.problems().iter().any(|p| p.message.contains(why)), "{name}: {:?}", world.problems());
    }
    check("dmg-missing-volume-plain", &[Some(3), Some(3)], true);
}

#[test]
fn signatures_are_not_needed() {
    for name in ["dmg-missing-full-sig-gz", "dmg-missing-last-sig-gz"] {
        let Some((world, _)) = check(name, &[Some(0); 3], true) else { return };
        assert!(world.problems().is_empty(), "{name}: {:?}", world.problems());
    }
}

#[test]
fn without_its_manifest_a_set_is_what_its_signatures_say() {
    let Some((world, _)) = check("dmg-missing-inc-manifest-gz", &[Some(0); 3], true) else { return };
    let problems = world.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].message.contains("no manifest"), "{problems:?}");
}

#[test]
fn of_an_increment_without_its_base_comes_what_it_holds_whole() {
    let Some((world, outcomes)) = check("dmg-missing-inc-set-gz", &[Some(0), None, Some(30)], false) else { return };
    assert_eq!(outcomes.len(), 2);
    let problems = world.problems();
    assert!(problems.iter().any(|p| p.message.contains("20231115T221320Z, which it builds on, is missing")), "{problems:?}");
    assert!(problems.iter().any(|p| p.subject == "/delta-mid"), "{problems:?}");
}

#[test]
fn an_interrupted_run_gives_what_is_certain() {
    for name in ["partial-full-gz-0822", "partial-full-gz-321"] {
        let Some(fixture) = Fixture::open(name) else { return };
        let world = World::new();
        world.import_with(&fixture.archive(), &ImportOptions { verify: false, ..options() });
        let (snapshots, problems) = (world.snapshots(), world.problems());
        assert_eq!(snapshots.len(), 1, "{name}");
        assert_eq!(snapshots[0].snapshot.tags, [super::super::PARTIAL]);
        let tree = world.tree(&snapshots[0]);
        assert!(!tree.is_empty() && !tree.contains_key(&b"big"[..]), "{name}: {:?}", tree.keys());
        assert!(problems.iter().any(|p| p.subject == "/big"), "the file that is cut off is named: {problems:?}");
        assert!(problems.iter().any(|p| p.message.contains("interrupted")), "{problems:?}");
    }
    let Some((world, outcomes)) = check("partial-inc-sym-321", &[Some(0)], true) else { return };
    assert!(matches!(outcomes[1].result, SetResult::Refused(_)), "{:?}", outcomes[1]);
    assert_eq!(world.snapshots().len(), 1);
}

#[test]
fn garbled_names_are_as_stock_restores_them_and_reported() {
    let Some((world, _)) = check("v0822py37-nonutf8", &[Some(0); 4], true) else { return };
    let problems = world.problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems.iter().all(|p| p.message.contains("out of order")), "{problems:?}");
}

#[test]
fn one_volume_after_the_other_goes_missing() {
    let Some(fixture) = Fixture::open("v321-smallvol-sym") else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let files: Vec<PathBuf> =
        std::fs::read_dir(fixture.dir.join("archive")).expect("an archive").map(|e| e.expect("an entry").path()).collect();
    let place = |file: &Path| dir.path().join(file.file_name().expect("a name"));
    for file in &files {
        std::fs::copy(file, place(file)).expect("copies");
    }
    let volumes: Vec<&PathBuf> = files.iter().filter(|f| f.to_string_lossy().contains(".difftar")).collect();
    assert!(volumes.len() >= 5, "{volumes:?}");
    let times = fixture.times();
    for volume in volumes {
        std::fs::remove_file(place(volume)).expect("removes");
        let world = World::new();
        world.import_with(&fixture.archive_at(dir.path()), &ImportOptions { verify: false, ..options() });
        let problems = world.problems();
        assert!(!problems.is_empty());
        for record in world.snapshots() {
            let time = times.iter().find(|t| t["epoch"].as_i64() == Some(record.snapshot.time.seconds)).expect("a known time");
            let (tree, mut truth) = (world.tree(&record), comparable(&fixture.truth(time)));
            let missing: Vec<Vec<u8>> = truth.keys().filter(|path| !tree.contains_key(*path)).cloned().collect();
            for path in missing {
                let subject = format!("/{}", String::from_utf8_lossy(&path));
                assert!(problems.iter().any(|p| p.subject == subject), "{}: {subject} is not named", volume.display());
                truth.remove(&path);
            }
            let differences = differences(&tree, &truth);
            assert!(differences.is_empty(), "{}: {differences:?}", volume.display());
        }
        std::fs::copy(volume, place(volume)).expect("copies");
    }
}
