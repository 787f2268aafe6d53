//! Forgetting, taking back and pruning with the built program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

struct Env {
    dir: TempDir,
}

fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            // xorshift32
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[1]
        })
        .collect()
}

fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry"));
    entries.map(|e| if e.path().is_dir() { size(&e.path()) } else { e.metadata().expect("metadata").len() }).sum()
}

impl Env {
    /// Three backups of a tree of which most changes.
    fn new() -> Self {
        let env = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        fs::create_dir(env.path("src")).expect("mkdir");
        env.ok(&["init"]);
        fs::write(env.path("src/stays"), noise(1, 300_000)).expect("write");
        for round in 0..3 {
            fs::write(env.path("src/changes"), noise(round + 10, 2_000_000)).expect("write");
            env.ok(&["backup", "src", "--host", "box"]);
        }
        env
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_deduplicity"))
            .env_clear()
            .env("HOME", self.path("home"))
            .env("TZ", "UTC")
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
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    #[track_caller]
    fn fails(&self, args: &[&str], message: &str) {
        let output = self.run(args);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        assert!(text.contains(message), "{text}");
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Vec<Value> {
        self.ok(args).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn ids(&self) -> Vec<String> {
        self.json(&["snapshots", "--json"]).iter().map(|s| s["id"].as_str().expect("text").to_owned()).collect()
    }

    /// The latest snapshot restores to what is there, and a check of all data finds nothing.
    #[track_caller]
    fn assert_whole(&self) {
        let target = self.dir.path().join("out");
        fs::remove_dir_all(&target).unwrap_or_default();
        self.ok(&["restore", &format!("latest:{}", self.path("src").display()), "--target", "out", "--verify"]);
        for name in ["stays", "changes"] {
            assert_eq!(fs::read(target.join(name)).expect("restored"), fs::read(self.path("src").join(name)).expect("there"));
        }
        self.ok(&["check", "--read-data"]);
    }
}

#[test]
fn forget_and_prune_shrink_the_repository_and_keep_the_rest() {
    let env = Env::new();
    let (before, packs) = (env.ids(), size(&env.path("repo/packs")));
    // Young snapshots need the user's word.
    let text = env.ok(&["forget", "--keep-last", "1", "--prune"]);
    assert!(text.contains("younger than 48 hours") && text.contains("3 kept, 0 forgotten"), "{text}");
    assert_eq!(env.ids(), before);
    let planned = env.ok(&["forget", "--keep-last", "1", "--yes", "--dry-run"]);
    assert!(planned.contains("last snapshot") && planned.contains("2 would be forgotten"), "{planned}");
    assert_eq!(env.ids(), before);
    let done = env.json(&["forget", "--keep-last", "1", "--yes", "--prune", "--max-unused", "0%", "--json"]);
    assert_eq!((&done[0]["command"], &done[1]["command"]), (&"forget".into(), &"prune".into()));
    assert_eq!(done[0]["groups"][0]["keep"][0]["reasons"][0], "last snapshot");
    assert_eq!(done[0]["snapshots_forgotten"].as_array().expect("an array").len(), 2);
    assert!(done[1]["deleted"]["packs"].as_u64() > Some(0) && done[1]["sealed_epoch"].is_u64(), "{done:?}");
    assert_eq!(env.ids(), before[2..]);
    let after = size(&env.path("repo/packs"));
    assert!(after < packs / 3 * 2, "{after} of {packs}");
    env.assert_whole();
    assert!(env.ok(&["prune"]).contains("nothing to do"));
    // The next backup builds on what is there.
    let next = &env.json(&["backup", "src", "--host", "box", "--json"])[0];
    assert_eq!((&next["files_unmodified"], &next["data_blobs"]), (&2.into(), &0.into()));
    env.assert_whole();
}

#[test]
fn undelete_takes_back_what_is_not_pruned_yet() {
    let env = Env::new();
    let ids = env.ids();
    env.fails(&["forget", &ids[0]], "younger than 48 hours");
    env.ok(&["forget", &ids[0][..10], &ids[1], "--yes"]);
    assert_eq!(env.ids(), ids[2..]);
    assert!(env.ok(&["undelete"]).contains("2 snapshots can be taken back"));
    assert!(env.ok(&["undelete", &ids[1]]).contains("took back 1 snapshot"));
    assert_eq!(env.ids(), ids[1..]);
    env.fails(&["undelete", "latest"], "by their ids");
    env.ok(&["prune", "--max-unused", "0%"]);
    env.fails(&["undelete", &ids[0]], "no snapshot");
    assert_eq!(env.ids(), ids[1..]);
    env.assert_whole();
}

#[test]
fn forget_by_name_keeps_to_the_filter_and_says_what_it_forgot() {
    let env = Env::new();
    let ids = env.ids();
    env.ok(&["backup", "src", "--host", "other"]);
    env.fails(&["forget", "latest", "--host", "box"], "--yes");
    env.fails(&["forget", &ids[0][..3], "--yes"], "at least 4 digits");
    env.fails(&["forget", &ids[0], "--host", "other", "--yes"], "no snapshot");
    let planned = env.ok(&["forget", "latest", "--host", "box", "--yes", "--dry-run"]);
    assert!(planned.contains(&format!("would forget {}", &ids[2][..8])) && planned.contains("host box"), "{planned}");
    let text = env.ok(&["forget", "latest", "--host", "box", "--yes"]);
    assert!(text.contains(&format!("forgot {}", &ids[2][..8])) && text.contains("forgot 1 snapshot"), "{text}");
    let left = env.ids();
    assert_eq!((&left[..2], left.len()), (&ids[..2], 3));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let env = Env::new();
    env.fails(&["forget"], "no snapshots and no rules");
    env.fails(&["forget", "--keep-last", "0"], "no snapshots and no rules");
    env.fails(&["forget", "--keep-tag", "none", "--yes"], "would keep none");
    env.fails(&["forget", "nothing"], "no snapshot");
    // Times that the epoch does not allow.
    env.ok(&["prune"]);
    env.ok(&["backup", "src", "--host", "box", "--time", "2001-01-01T00:00:00Z"]);
    env.fails(&["forget", "--keep-yearly", "5"], "older than it can be");
    assert_eq!(env.ids().len(), 4);
    let text = env.ok(&["forget", "--keep-yearly", "5", "--yes", "--dry-run"]);
    assert!(text.contains("2 kept, 2 would be forgotten"), "{text}");
    let plan = env.ok(&["prune", "--dry-run"]);
    assert!(plan.contains("to delete:") && plan.contains("dry run"), "{plan}");
    for command in ["forget", "prune", "undelete"] {
        assert!(env.ok(&[command, "--help"]).contains("Example"), "{command}");
    }
}
