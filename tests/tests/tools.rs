//! The commands that look after repositories, as a person runs them: copy, repair, keyless checks.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use deduplicity_tests::env::{Env, Run};
use deduplicity_tests::seaweed::{ACCESS_KEY, SECRET_KEY, Seaweed};
use deduplicity_tests::tree::{assert_same, describe, noise};
use serde_json::Value;

/// Runs with another repository to copy from.
fn copy(env: &Env, from: &Env, arguments: &[&str]) -> Run {
    let output = env
        .command(&[&["copy"], arguments].concat())
        .env("DEDUPLICITY_FROM_REPOSITORY", from.repository())
        .env("DEDUPLICITY_FROM_PASSWORD", "secret")
        .output()
        .expect("the program starts");
    Run {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn lines(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A repository of two snapshots, whose sources are still there.
fn two_snapshots() -> Env {
    let env = Env::local();
    let source = env.path("src");
    fs::create_dir_all(source.join("sub")).expect("mkdir");
    for i in 0..100_u64 {
        fs::write(source.join(format!("sub/f{i}")), noise(i, 3000)).expect("write");
    }
    fs::write(source.join("big"), noise(1000, 9_000_000)).expect("write");
    fs::hard_link(source.join("big"), source.join("big2")).expect("link");
    env.ok(&["init"]);
    env.ok(&["backup", "src", "--tag", "one", "--host", "box", "--time", "@1000"]);
    fs::write(source.join("sub/f7"), "changed").expect("write");
    env.ok(&["backup", "src", "--tag", "two", "--host", "box", "--time", "@2000"]);
    env
}

#[test]
fn copies_restore_like_the_originals() {
    let from = two_snapshots();
    let to = Env::local();
    to.ok(&["init"]);
    let run = copy(&to, &from, &["--json", "-n"]);
    assert_eq!((run.code, lines(&run.out)[0]["result"].as_str()), (0, Some("planned")), "{}", run.err);
    let run = copy(&to, &from, &["latest", "--host", "box"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("copied 1 snapshot"), "{}", run.out);
    let run = copy(&to, &from, &["--json"]);
    let results: Vec<_> = lines(&run.out).iter().map(|l| l["result"].clone()).collect();
    assert_eq!(results[..2], [Value::from("copied"), Value::from("present")], "{}", run.err);
    let strip = |env: &Env| -> Vec<Value> {
        let keep = ["time", "hostname", "username", "paths", "tags", "partial", "problems", "entries", "files", "dirs", "size"];
        let all = lines(&env.ok(&["snapshots", "--json"]));
        all.iter().map(|line| keep.iter().map(|name| line[*name].clone()).collect()).collect()
    };
    assert_eq!(strip(&from), strip(&to));
    let source = from.path("src");
    to.ok(&["restore", &format!("latest:{}", source.display()), "--target", "restored", "--verify"]);
    assert_same(&describe(&source), &describe(&to.path("restored")));
    to.ok(&["check", "--read-data"]);
    // A wrong password is told from the right repository's.
    let run = to.command(&["copy", "--from-repo"]).arg(from.repository()).env("DEDUPLICITY_FROM_PASSWORD", "wrong").output();
    assert_eq!(run.expect("starts").status.code(), Some(12));
}

#[test]
fn a_killed_copy_goes_on_and_stores_nothing_twice() {
    let Some(server) = Seaweed::shared() else { return };
    let from = Env::local();
    let source = from.path("src");
    fs::create_dir_all(&source).expect("mkdir");
    for i in 0..10_u64 {
        fs::write(source.join(format!("f{i}")), noise(i, 6_000_000)).expect("write");
    }
    from.ok(&["init"]);
    from.ok(&["backup", "src"]);
    let to = Env::s3(&format!("http://{}", server.address()), &server.new_bucket(), ACCESS_KEY, SECRET_KEY);
    to.ok(&["init"]);
    for after in [400, 900, 1500] {
        let mut child = to
            .command(&["copy", "-q"])
            .env("DEDUPLICITY_FROM_REPOSITORY", from.repository())
            .env("DEDUPLICITY_FROM_PASSWORD", "secret")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        std::thread::sleep(Duration::from_millis(after));
        child.kill().expect("SIGKILL");
        child.wait().expect("ends");
    }
    assert_eq!(copy(&to, &from, &[]).code, 0);
    to.ok(&["check", "--read-data"]);
    to.ok(&["restore", &format!("latest:{}", source.display()), "--target", "restored"]);
    assert_same(&describe(&source), &describe(&to.path("restored")));
    assert!(copy(&to, &from, &[]).out.contains("copied before: 1 snapshot"));
}
