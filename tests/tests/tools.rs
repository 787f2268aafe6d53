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

/// The repository's objects of a kind.
fn objects(env: &Env, folder: &str) -> Vec<std::path::PathBuf> {
    let (mut found, mut left) = (Vec::new(), vec![env.repository().join(folder)]);
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).expect("lists").map(|item| item.expect("item").path()));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn flip(path: &std::path::Path, at: usize) {
    let mut bytes = fs::read(path).expect("reads");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("writes");
}

#[test]
fn a_damaged_repository_is_repaired_and_healed() {
    let env = two_snapshots();
    let source = env.path("src");
    for segment in objects(&env, "index") {
        fs::remove_file(segment).expect("removes");
    }
    assert_eq!(env.run(&["check"]).code, 1);
    assert!(env.ok(&["repair", "index"]).contains("added to the index: "));
    env.ok(&["check", "--read-data"]);
    let packs = objects(&env, "packs");
    let largest = packs.iter().max_by_key(|p| p.metadata().expect("size").len()).expect("a pack");
    flip(largest, 5000);
    let id = largest.file_name().expect("name").to_string_lossy().into_owned();
    let run = env.run(&["repair", "packs", &id[..12], "--dry-run", "--json"]);
    assert_eq!((run.code, lines(&run.out)[0]["damaged_packs"].as_u64()), (3, Some(1)), "{}", run.err);
    let run = env.run(&["repair", "packs"]);
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.out.contains("1 damaged, 0 missing") && run.out.contains("lost: "), "{}", run.out);
    assert_eq!(env.run(&["check"]).code, 1);
    env.ok(&["backup", "src", "--host", "box"]);
    env.ok(&["check", "--read-data"]);
    assert!(env.ok(&["repair", "snapshots"]).contains("nothing to repair"));
    env.ok(&["restore", &format!("latest:{}", source.display()), "--target", "restored", "--verify"]);
    assert_same(&describe(&source), &describe(&env.path("restored")));
}

#[test]
fn what_is_lost_for_good_is_left_out_of_a_copy() {
    let env = two_snapshots();
    let packs = objects(&env, "packs");
    let largest = packs.iter().max_by_key(|p| p.metadata().expect("size").len()).expect("a pack");
    fs::remove_file(largest).expect("removes");
    let run = env.run(&["repair", "snapshots", "--json"]);
    assert_eq!(run.code, 3, "{}", run.err);
    let repairs = lines(&run.out)[0]["repairs"].as_array().expect("a list").clone();
    assert_eq!(repairs.len(), 2, "{}", run.out);
    let ids = env.ok(&["snapshots", "--tag", "repaired", "--json"]);
    assert_eq!(lines(&ids).len(), 2);
    for repair in &repairs {
        let id = repair["repaired_id"].as_str().expect("an id");
        env.ok(&["restore", id, "--target", &id[..8]]);
    }
    assert_eq!(lines(&env.ok(&["snapshots", "--json"])).len(), 4, "nothing was deleted");
}

#[test]
fn objects_are_checked_without_a_password() {
    let env = two_snapshots();
    let keyless = |env: &Env| {
        let output =
            env.command(&["check", "--stored-objects", "--json"]).env_remove("DEDUPLICITY_PASSWORD").output().expect("starts");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, out, err) = keyless(&env);
    assert_eq!(code, Some(0), "{err}");
    let whole = lines(&out).remove(0);
    assert_eq!((whole["errors"].as_u64(), whole["other_objects"].as_u64()), (Some(0), Some(0)));
    assert_eq!(whole["objects"].as_u64(), Some(objects(&env, "").len() as u64));
    for folder in ["packs", "index", "snapshots", "keys"] {
        let path = objects(&env, folder).remove(0);
        let good = fs::read(&path).expect("reads");
        flip(&path, good.len() - 100);
        let (code, _, err) = keyless(&env);
        let name = path.file_name().expect("name").to_string_lossy().into_owned();
        assert!(code == Some(1) && err.contains(&name), "{folder}: {err}");
        fs::write(&path, &good[..good.len() - 1]).expect("writes");
        assert_eq!(keyless(&env).0, Some(1));
        fs::write(&path, good).expect("writes");
    }
    flip(&env.repository().join("config"), 3);
    assert_eq!(keyless(&env).0, Some(1));
}
