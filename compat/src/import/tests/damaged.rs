//! Damaged archives: all that is intact arrives, all that is lost is named, and nothing wrong is there.

use super::*;

#[test]
fn show() {
    let Some(dir) = fixtures() else { return };
    let mut names: Vec<String> = std::fs::read_dir(dir.join("public"))
        .expect("fixtures")
        .map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8"))
        .filter(|name| name.starts_with("dmg-") || name.starts_with("partial-") || name.contains("nonutf8"))
        .collect();
    names.sort();
    for name in &names {
        let fixture = Fixture::open(name).expect("a fixture");
        let world = World::new();
        let outcomes = world.import(&fixture.archive());
        println!("== {name}");
        for o in &outcomes {
            let r = match &o.result {
                SetResult::Imported(b) => format!("imported {} problems", b.problems),
                other => format!("{other:?}").chars().take(150).collect(),
            };
            println!("   {} full={} {r} verified {:?}", o.time, o.full, o.verified);
        }
        for p in world.problems().iter().take(12) {
            println!("   {}: {}", p.subject, p.message);
        }
        println!("   {} problems", world.problems().len());
        let snapshots = world.snapshots();
        for time in fixture.times() {
            let epoch = time["epoch"].as_i64().expect("a time");
            let Some(record) = snapshots.iter().find(|r| r.snapshot.time.seconds == epoch) else {
                println!("   no snapshot of {epoch}");
                continue;
            };
            if time["tree"].is_null() {
                continue;
            }
            let (tree, truth) = (world.tree(record), comparable(&fixture.truth(&time)));
            let d = differences(&tree, &truth);
            let missing: Vec<_> = truth.keys().filter(|p| !tree.contains_key(*p)).collect();
            let wrong: Vec<_> = d.iter().filter(|d| !d.contains(": None, but")).collect();
            println!("   at {epoch}: {} entries, {} missing, wrong: {wrong:?}", tree.len(), missing.len());
            let problems = world.problems();
            let unnamed: Vec<_> = missing
                .iter()
                .map(|p| String::from_utf8_lossy(p).into_owned())
                .filter(|p| !problems.iter().any(|x| x.subject.trim_start_matches('/') == p))
                .collect();
            println!("      not named: {unnamed:?}");
        }
    }
}
