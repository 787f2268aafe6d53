//! Whole archives.

use super::*;

/// Every healthy fixture: all times, all entries.
#[test]
fn every_time_of_every_archive_is_what_stock_restores() {
    let Some(dir) = fixtures() else { return };
    let mut wrong = Vec::new();
    let mut names: Vec<String> = std::fs::read_dir(dir.join("public"))
        .expect("fixtures")
        .map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8"))
        .filter(|name| dir.join("public").join(name).join("info.json").is_file())
        .filter(|name| !name.starts_with("dmg-") && !name.starts_with("partial-") && !name.contains("nonutf8"))
        .collect();
    names.sort();
    assert!(names.len() > 25, "{names:?}");
    for name in &names {
        let fixture = Fixture::open(name).expect("a fixture");
        let world = World::new();
        let outcomes = world.import(&fixture.archive());
        let problems = world.problems();
        let verified = outcomes.iter().all(|o| o.verified.is_some());
        if !problems.is_empty() || !verified {
            wrong.push(format!("{name}: verified {verified}, {problems:?}"));
        }
        let snapshots = world.snapshots();
        for time in fixture.times() {
            let epoch = time["epoch"].as_i64().expect("a time");
            let Some(record) = snapshots.iter().find(|r| r.snapshot.time.seconds == epoch) else {
                wrong.push(format!("{name}: no snapshot of {epoch}"));
                continue;
            };
            let differences = differences(&world.tree(record), &comparable(&fixture.truth(&time)));
            wrong.extend(differences.into_iter().take(5).map(|d| format!("{name} at {epoch}: {d}")));
        }
        let again = world.import(&fixture.archive());
        if !again.iter().all(|o| matches!(o.result, SetResult::Present(_))) || world.snapshots().len() != snapshots.len() {
            wrong.push(format!("{name}: importing again does something"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
