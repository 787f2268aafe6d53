//! SIGKILL at random moments of a backup: nothing that was there is lost, and nothing that was indexed is stored again.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use deduplicity_tests::env::Env;
use deduplicity_tests::seaweed::{ACCESS_KEY, SECRET_KEY, Seaweed};
use deduplicity_tests::tree::{assert_same, describe, noise};

fn kill_and_go_on(env: &Env, kills: u32) {
    let source = env.path("src");
    fs::create_dir_all(&source).expect("mkdir");
    for i in 0..400_u64 {
        fs::write(source.join(format!("f{i}")), noise(i, 3000)).expect("write");
    }
    env.ok(&["init"]);
    env.ok(&["backup", "src"]);
    let first = describe(&source);
    for i in 0..12_u64 {
        fs::write(source.join(format!("large{i}")), noise(1000 + i, 6_000_000)).expect("write");
    }
    let start = Instant::now();
    env.ok(&["backup", "--dry-run", "src"]);
    let whole = start.elapsed() * 2;
    for i in 0..kills {
        let mut child = env.command(&["backup", "src"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        std::thread::sleep(whole.mul_f64(f64::from(i * 7 % kills) / f64::from(kills)));
        child.kill().expect("SIGKILL");
        child.wait().expect("ends");
        // A change, so that the next run has something to store even if this one got through.
        fs::write(source.join(format!("large{}", i % 12)), noise(u64::from(2000 + i), 6_000_000)).expect("write");
        env.ok(&["check", "--read-data"]);
    }
    env.ok(&["restore", &format!("latest~0:{}", source.display()), "--target", "any"]);
    env.ok(&["backup", "src"]);
    env.ok(&["check", "--read-data"]);
    env.ok(&["restore", &format!("latest:{}", source.display()), "--target", "last"]);
    assert_same(&describe(&source), &describe(&env.path("last")));
    let ids = env.ok(&["snapshots", "--json"]);
    let oldest = ids.split("\"short_id\":\"").nth(1).and_then(|rest| rest.get(..8)).expect("an id").to_owned();
    env.ok(&["restore", &format!("{oldest}:{}", source.display()), "--target", "first"]);
    assert_same(&first, &describe(&env.path("first")));
}

#[test]
fn killed_on_a_disk() {
    kill_and_go_on(&Env::local(), kills());
}

#[test]
fn killed_on_s3() {
    let Some(server) = Seaweed::shared() else { return };
    let bucket = server.new_bucket();
    kill_and_go_on(&Env::s3(&format!("http://{}", server.address()), &bucket, ACCESS_KEY, SECRET_KEY), kills());
}

/// A few in the suite; `DEDUPLICITY_KILLS=200` for the long run.
fn kills() -> u32 {
    std::env::var("DEDUPLICITY_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(8)
}

#[test]
fn an_interrupted_backup_indexes_what_it_stored() {
    let env = Env::local();
    let source = env.path("src");
    fs::create_dir_all(&source).expect("mkdir");
    for i in 0..40_u64 {
        fs::write(source.join(format!("large{i}")), noise(i, 6_000_000)).expect("write");
    }
    env.ok(&["init"]);
    let mut child = env.command(&["backup", "src"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    let packs = env.repository().join("packs");
    let deadline = Instant::now() + Duration::from_secs(60);
    let stored = || fs::read_dir(packs.join("0000000000")).map_or(0, Iterator::count);
    while stored() < 2 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("SIGINT");
    let code = child.wait().expect("ends").code();
    if code == Some(0) {
        return; // It was over before the signal came.
    }
    assert_eq!(code, Some(130));
    let before = size_of(env.repository());
    env.ok(&["backup", "src"]);
    let after = size_of(env.repository());
    assert!(after < 250_000_000, "240 MB of files: nothing is stored twice ({before} bytes, then {after})");
    env.ok(&["check", "--read-data"]);
}

fn size_of(directory: &std::path::Path) -> u64 {
    let items = fs::read_dir(directory).into_iter().flatten().flatten();
    items.map(|i| if i.path().is_dir() { size_of(&i.path()) } else { i.metadata().map_or(0, |m| m.len()) }).sum()
}
