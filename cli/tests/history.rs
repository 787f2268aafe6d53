//! A repository that is not what this machine has seen, with the built program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

struct Env {
    dir: TempDir,
}

impl Env {
    /// A repository with one backup.
    fn new() -> Self {
        let env = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        fs::create_dir(env.path("src")).expect("mkdir");
        env.ok(&["init"]);
        env.backup("first");
        env
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_deduplicity"))
            .env_clear()
            .env("HOME", self.path("home"))
            .env("DEDUPLICITY_REPOSITORY", self.path("repo"))
            .env("DEDUPLICITY_PASSWORD", "secret")
            .current_dir(self.dir.path())
            .args(args)
            .output()
            .expect("runs")
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Fails with this in its message; the advice.
    #[track_caller]
    fn fails(&self, args: &[&str], message: &str) -> String {
        let output = self.run(args);
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        let (error, hint) = text.split_once('\n').expect("a line");
        assert!(error.starts_with("deduplicity: error: ") && error.contains(message), "{text}");
        hint.to_owned()
    }

    /// Backs up what is different from all before; what the program prints.
    #[track_caller]
    fn backup(&self, content: &str) -> String {
        fs::write(self.path("src/file"), content).expect("write");
        self.ok(&["backup", "src"])
    }

    fn files(&self, folder: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect(&self.path(folder), &mut found);
        found
    }

    /// A copy of the repository, as an administrator would make it.
    fn save(&self, name: &str) {
        copy(&self.path("repo"), &self.path(name));
    }

    fn put_back(&self, name: &str) {
        fs::remove_dir_all(self.path("repo")).expect("removed");
        copy(&self.path(name), &self.path("repo"));
    }
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { collect(&path, found) } else { found.push(path) }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("mkdir");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[test]
fn an_old_copy_is_noticed_by_every_command_until_it_is_accepted() {
    let env = Env::new();
    env.ok(&["prune"]);
    env.save("old");
    env.backup("second");
    env.ok(&["prune"]);
    env.put_back("old");
    for args in [&["snapshots"][..], &["ls", "latest"], &["backup", "src"], &["prune"], &["key", "list"], &["stats"]] {
        let hint = env.fails(args, "latest seal is 0-");
        assert!(hint.starts_with("hint: ") && hint.contains("--accept-rollback"), "{hint}");
    }
    // One finding of others.
    let check = env.run(&["check"]);
    let found = String::from_utf8_lossy(&check.stderr);
    assert!(check.status.code() == Some(1) && found.contains("history: the repository's latest seal is 0-"), "{found}");
    let json = env.run(&["snapshots", "--json"]);
    let line: Value = serde_json::from_slice(&json.stderr).expect("JSON");
    assert_eq!((line["message_type"].as_str(), line["code"].as_i64()), (Some("exit_error"), Some(1)));
    // Who remembers nothing notices nothing.
    env.ok(&["snapshots", "--no-cache"]);
    env.ok(&["snapshots", "--accept-rollback"]);
    env.ok(&["snapshots"]);
    env.backup("third");
    env.ok(&["check", "--read-data"]);
}

#[test]
fn own_snapshots_are_missed_before_they_are_sealed() {
    let env = Env::new();
    let snapshot = env.files("repo/snapshots").remove(0);
    env.backup("second");
    fs::remove_file(&snapshot).expect("removed");
    env.fails(&["snapshots"], &snapshot.file_name().expect("a name").to_string_lossy());
    env.ok(&["snapshots", "--accept-rollback"]);
    assert!(env.ok(&["snapshots"]).ends_with("1 snapshot\n"));
    // One that was forgotten is missed by nobody.
    let id = env.ok(&["snapshots", "--json"]);
    let id: Value = serde_json::from_str(&id).expect("JSON");
    env.ok(&["forget", id["id"].as_str().expect("an id"), "--yes", "--prune"]);
    assert!(env.ok(&["snapshots"]).ends_with("0 snapshots\n"));
}

#[test]
fn a_head_that_was_noted_is_demanded() {
    let env = Env::new();
    assert!(!env.backup("second").contains("head "));
    env.ok(&["prune"]);
    let printed = env.backup("third");
    let head = printed.lines().find_map(|line| line.strip_prefix("head ")).expect("a head");
    assert!(head.starts_with("0-"), "{printed}");
    let shown = format!("head           {head}\n");
    assert!(env.ok(&["stats"]).ends_with(&shown));
    for round in ["fourth", "fifth"] {
        env.ok(&["snapshots", "--no-cache", "--expect-head", head]);
        env.backup(round);
        env.ok(&["prune"]);
    }
    let hint = env.fails(&["snapshots", "--no-cache", "--expect-head", "0-00000000"], "epochs/0000000000.seal: another one");
    assert!(hint.starts_with("hint: compare --expect-head"), "{hint}");
    env.fails(&["snapshots", "--no-cache", "--expect-head", "7-00000000"], "expected to have 7-00000000");
    env.fails(&["key", "list", "--no-cache", "--expect-head", "7-00000000"], "expected to have 7-00000000");
    env.fails(&["snapshots", "--expect-head", "abc"], "is no head");
}
