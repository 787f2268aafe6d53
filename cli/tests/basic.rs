//! The built program, run as a person would run it: cleared environment, a home of its own, exit codes, one-line errors.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A home, a repository's place and a small tree to back up.
struct Env {
    dir: TempDir,
}

/// What a run of the program gave.
struct Run {
    code: i32,
    out: Vec<u8>,
    err: String,
}

impl Env {
    fn new() -> Self {
        let env = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        fs::create_dir_all(env.path("src/sub/deep")).expect("mkdir");
        fs::write(env.path("src/hello.txt"), "hello\n").expect("write");
        fs::write(env.path("src/sub/data.bin"), b"0123456789".repeat(30_000)).expect("write");
        fs::write(env.path("src/sub/deep/x.o"), "object").expect("write");
        symlink("hello.txt", env.path("src/link")).expect("symlink");
        env
    }

    /// With a repository in it.
    fn initialized() -> Self {
        let env = Self::new();
        env.run(&["init"]).ok();
        env
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    fn src(&self) -> String {
        self.path("src").display().to_string()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_deduplicity"));
        command
            .env_clear()
            .env("HOME", self.path("home"))
            .env("TZ", "UTC")
            .env("DEDUPLICITY_REPOSITORY", self.path("repo"))
            .env("DEDUPLICITY_PASSWORD", "secret")
            .current_dir(self.dir.path())
            .args(args);
        command
    }

    #[must_use = "check the exit code"]
    fn run(&self, args: &[&str]) -> Run {
        Run::of(&mut self.command(args), b"")
    }

    #[must_use = "check the exit code"]
    fn backup(&self, more: &[&str]) -> Run {
        let src = self.src();
        self.run(&[&["backup", &src, "--host", "box"], more].concat())
    }

    /// Names and sizes of everything in the repository.
    fn repository(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        collect(&self.path("repo"), &mut found);
        found.sort();
        found
    }
}

fn collect(dir: &Path, found: &mut Vec<(PathBuf, u64)>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("an entry");
        let meta = entry.metadata().expect("metadata");
        if meta.is_dir() { collect(&entry.path(), found) } else { found.push((entry.path(), meta.len())) }
    }
}

impl Run {
    #[must_use = "check the exit code"]
    fn of(command: &mut Command, input: &[u8]) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let mut stdin = child.stdin.take().expect("piped");
        // Whoever does not read it closes it.
        let _ = stdin.write_all(input);
        drop(stdin);
        let Output { status, stdout, stderr } = child.wait_with_output().expect("ends");
        Self { code: status.code().unwrap_or(-1), out: stdout, err: String::from_utf8(stderr).expect("UTF-8") }
    }

    fn text(&self) -> String {
        String::from_utf8(self.out.clone()).expect("UTF-8")
    }

    #[track_caller]
    fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", String::from_utf8_lossy(&self.out), self.err);
        self
    }

    #[track_caller]
    fn ok(self) -> Self {
        self.code(0)
    }

    /// Failed with this code, nothing on stdout, one line of error and at most one of advice.
    #[track_caller]
    fn fails(self, code: i32, message: &str) -> Self {
        let this = self.code(code);
        let lines: Vec<&str> = this.err.lines().collect();
        assert!(this.out.is_empty(), "stdout: {}", this.text());
        assert!(lines.first().is_some_and(|l| l.starts_with("deduplicity: error: ") && l.contains(message)), "{}", this.err);
        assert!(lines.len() == 1 || lines.len() == 2 && lines[1].starts_with("hint: "), "{}", this.err);
        this
    }

    fn json(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

#[test]
fn init_twice() {
    let env = Env::new();
    assert!(env.run(&["init"]).ok().text().starts_with("created repository "));
    env.run(&["init"]).fails(1, "there already is a repository");
}

#[test]
fn no_repository_and_wrong_password() {
    let env = Env::new();
    env.run(&["snapshots"]).fails(10, "no repository");
    env.backup(&[]).fails(10, "no repository");
    env.run(&["init"]).ok();
    Run::of(env.command(&["snapshots"]).env("DEDUPLICITY_PASSWORD", "wrong"), b"").fails(12, "wrong password");
    Run::of(env.command(&["snapshots"]).env_remove("DEDUPLICITY_PASSWORD"), b"").fails(1, "no password");
    Run::of(env.command(&["snapshots"]).env_remove("DEDUPLICITY_REPOSITORY"), b"").fails(1, "no repository given");
    let json = env.command(&["snapshots", "--json"]).env("DEDUPLICITY_PASSWORD", "wrong").output().expect("runs");
    let line: Value = serde_json::from_slice(&json.stderr).expect("JSON");
    assert_eq!((line["message_type"].as_str(), line["code"].as_i64()), (Some("exit_error"), Some(12)));
}

#[test]
fn passwords_come_from_files_and_commands() {
    let env = Env::initialized();
    fs::write(env.path("password"), "secret\n").expect("write");
    let file = env.path("password").display().to_string();
    let without = |args: &[&str]| {
        let mut command = env.command(args);
        command.env_remove("DEDUPLICITY_PASSWORD");
        command
    };
    Run::of(&mut without(&["snapshots", "--password-file", &file]), b"").ok();
    Run::of(&mut without(&["snapshots", "--password-command", "echo secret"]), b"").ok();
    Run::of(without(&["snapshots"]).env("DEDUPLICITY_PASSWORD_FILE", &file), b"").ok();
    Run::of(without(&["snapshots"]).env("DEDUPLICITY_PASSWORD_COMMAND", "printf secret"), b"").ok();
    Run::of(&mut without(&["snapshots", "--password-command", "exit 3"]), b"").fails(1, "password command failed");
    Run::of(&mut without(&["snapshots", "--password-file", "nowhere"]), b"").fails(1, "nowhere");
    Run::of(env.command(&["snapshots"]).env("DEDUPLICITY_PASSWORD_FILE", &file), b"").fails(1, "more than one");
}

#[test]
fn mistakes_in_arguments_are_one_line() {
    let env = Env::new();
    env.run(&["backup"]).fails(1, "required");
    env.run(&["backup", "x", "--tga", "y"]).fails(1, "--tga");
    env.run(&["restore", "latest"]).fails(1, "--target");
    env.run(&["ls", ":/x"]).fails(1, "no snapshot");
    env.run(&["backup", "src", "--time", "noon"]).fails(1, "not a time");
    env.run(&["snapshots", "-r", "sftp:host:/x"]).fails(1, "no kind of repository");
    env.run(&["backup", "src", "--exclude", "./x"]).fails(1, "begin it with /");
    assert!(env.run(&["--help"]).ok().text().contains("Examples:"));
    for command in ["init", "backup", "snapshots", "ls", "cat", "restore", "check", "stats", "key", "version", "completions"] {
        assert!(env.run(&[command, "--help"]).ok().text().contains("Example"), "{command}");
    }
    assert!(env.run(&["version"]).ok().text().starts_with("deduplicity "));
    assert!(env.run(&["completions", "bash"]).ok().text().contains("deduplicity"));
}

#[test]
fn round_trip() {
    let env = Env::initialized();
    let summary = env.backup(&["--tag", "daily"]).ok().text();
    assert!(summary.contains("Files:           3 new,     0 changed,     0 unmodified"), "{summary}");
    assert!(summary.contains("processed 3 files") && summary.contains(" saved\n"), "{summary}");
    let src = env.src();
    assert_eq!(env.run(&["cat", &format!("latest:{src}/hello.txt")]).ok().out, b"hello\n");
    let listed = env.run(&["ls", &format!("latest:{src}")]).ok().text();
    assert_eq!(listed, format!("{src}/hello.txt\n{src}/link\n{src}/sub\n"));
    let all = env.run(&["ls", "-lR", &format!("latest:{src}")]).ok().text();
    assert!(all.contains(&format!("{src}/link -> hello.txt")) && all.contains("/sub/deep/x.o\n"), "{all}");
    env.run(&["cat", &format!("latest:{src}/nothing")]).fails(1, "not in snapshot");
    env.run(&["cat", &format!("latest:{src}/sub")]).fails(1, "not a regular file");
    env.run(&["restore", "latest", "--target", "out", "--verify"]).ok();
    let restored = env.path("out").join(src.trim_start_matches('/'));
    assert_eq!(
        fs::read(restored.join("sub/data.bin")).expect("restored"),
        fs::read(env.path("src/sub/data.bin")).expect("there")
    );
    env.run(&["restore", &format!("latest:{src}/sub"), "--target", "part", "--exclude", "*.o"]).ok();
    assert!(env.path("part/data.bin").is_file() && !env.path("part/deep/x.o").exists());
    env.run(&["check", "--read-data"]).ok();
    env.run(&["check", "--read-data-subset", "1/1"]).ok();
    assert!(env.run(&["stats"]).ok().text().contains("deduplication"));
}

#[test]
fn a_second_backup_compares_with_the_first() {
    let env = Env::initialized();
    env.backup(&[]).ok();
    fs::write(env.path("src/new"), "new").expect("write");
    let summary = &env.backup(&["--json"]).ok().json()[0];
    assert_eq!(summary["message_type"], "summary");
    assert_eq!((summary["files_new"].as_u64(), summary["files_unmodified"].as_u64()), (Some(1), Some(3)));
    let forced = &env.backup(&["--json", "--force"]).ok().json()[0];
    assert_eq!(forced["files_unmodified"], 0);
    assert_eq!(forced["data_blobs"], 0);
}

#[test]
fn snapshots_are_found_and_filtered() {
    let env = Env::initialized();
    let time = |day: u32| format!("2026-01-0{day}T12:00:00Z");
    env.backup(&["--time", &time(1), "--tag", "a"]).ok();
    fs::write(env.path("src/hello.txt"), "changed\n").expect("write");
    env.backup(&["--time", &time(2), "--tag", "b", "--tag", "c"]).ok();
    let cat = |reference: &str, more: &[&str]| {
        let what = format!("{reference}:{}/hello.txt", env.src());
        env.run(&[&["cat", &what], more].concat())
    };
    assert_eq!(cat("latest", &[]).ok().out, b"changed\n");
    assert_eq!(cat("latest~1", &[]).ok().out, b"hello\n");
    assert_eq!(cat("latest", &["--tag", "a"]).ok().out, b"hello\n");
    cat("latest~2", &[]).fails(1, "only 2 snapshots");
    cat("latest", &["--host", "other"]).fails(1, "no snapshot");
    let all = env.run(&["snapshots", "--json"]).ok().json();
    assert_eq!(all.iter().map(|s| s["time"].as_str().unwrap()).collect::<Vec<_>>(), [time(1), time(2)]);
    assert_eq!(all[1]["tags"], serde_json::json!(["b", "c"]));
    let id = all[0]["short_id"].as_str().unwrap();
    assert_eq!(cat(id, &[]).ok().out, b"hello\n");
    assert_eq!(env.run(&["snapshots", "--json", "--tag", "b,c"]).ok().json().len(), 1);
    assert_eq!(env.run(&["snapshots", "--json", "--tag", "a,c"]).ok().json().len(), 0);
    assert_eq!(env.run(&["snapshots", "--json", "--path", &env.src(), "--host", "box"]).ok().json().len(), 2);
    let table = env.run(&["snapshots"]).ok().text();
    assert!(table.contains("2026-01-01 12:00:00  box") && table.ends_with("2 snapshots\n"), "{table}");
}

#[test]
fn excludes() {
    let env = Env::initialized();
    fs::create_dir(env.path("src/cache")).expect("mkdir");
    fs::write(env.path("src/cache/CACHEDIR.TAG"), "x").expect("write");
    fs::write(env.path("src/cache/big"), "x").expect("write");
    fs::write(env.path("patterns"), "# comment\ndeep/*\n!keep.txt\n").expect("write");
    fs::write(env.path("src/keep.txt"), "x").expect("write");
    let absolute = format!("/{}/hello.txt", env.src().trim_start_matches('/'));
    env.backup(&[
        "--exclude",
        "*.txt",
        "--exclude",
        &absolute,
        "--exclude-file",
        "patterns",
        "--exclude-if-present",
        "CACHEDIR.TAG",
    ])
    .ok();
    let src = env.src();
    let listed = env.run(&["ls", "-R", &format!("latest:{src}")]).ok().text();
    let names: Vec<&str> = listed.lines().filter_map(|line| line.strip_prefix(&src)).collect();
    assert_eq!(names, ["/cache", "/cache/CACHEDIR.TAG", "/keep.txt", "/link", "/sub", "/sub/data.bin", "/sub/deep"]);
}

#[test]
fn the_repository_does_not_hold_itself() {
    let env = Env::initialized();
    let dir = env.dir.path().display().to_string();
    let run = env.run(&["backup", &dir]).ok();
    assert!(run.err.contains("left out, for it is the repository"), "{}", run.err);
    let listed = env.run(&["ls", "-R", "latest"]).ok().text();
    assert!(!listed.contains("/repo") && !listed.contains(".cache/deduplicity") && listed.contains("/src/hello.txt"), "{listed}");
    env.run(&["backup", "repo/packs"]).fails(1, "lies in the repository");
}

#[test]
fn a_dry_run_changes_nothing() {
    let env = Env::initialized();
    let before = env.repository();
    assert!(env.backup(&["--dry-run"]).ok().text().contains("Would add to the repository"));
    assert_eq!(env.repository(), before);
    env.backup(&[]).ok();
    env.run(&["restore", "latest", "--target", "out", "--dry-run"]).ok();
    assert!(!env.path("out").exists());
}

#[test]
fn backup_can_make_the_repository() {
    let env = Env::new();
    env.backup(&["--init", "--dry-run"]).fails(10, "no repository");
    env.backup(&["--init"]).ok();
    env.backup(&["--init"]).ok();
    assert_eq!(env.run(&["snapshots", "--json"]).ok().json().len(), 2);
}

#[test]
fn unreadable_and_missing_files_are_problems() {
    let env = Env::initialized();
    let src = env.src();
    let run = env.run(&["backup", &src, "/nothing/here"]).code(3);
    assert!(run.err.contains("/nothing/here") && run.text().contains(" saved"), "{}", run.err);
    let run = env.run(&["backup", "/nothing/here"]).code(1);
    assert!(run.err.contains("error: there is nothing at any of the given paths"), "{}", run.err);
    // Root reads everything.
    if rustix::process::geteuid().is_root() {
        return;
    }
    fs::set_permissions(env.path("src/hello.txt"), fs::Permissions::from_mode(0o000)).expect("chmod");
    let run = env.backup(&["--json"]).code(3);
    let problem: Value = serde_json::from_str(run.err.lines().next().expect("a line")).expect("JSON");
    assert_eq!(problem["message_type"], "problem");
    assert!(problem["item"].as_str().unwrap().ends_with("src/hello.txt"));
}

#[test]
fn standard_input_as_a_file() {
    let env = Env::initialized();
    let input = b"a line of a dump\n".repeat(200_000);
    Run::of(&mut env.command(&["backup", "--stdin", "--stdin-filename", "dumps/shop.sql"]), &input).ok();
    assert_eq!(env.run(&["cat", "latest:/dumps/shop.sql"]).ok().out, input);
    env.run(&["restore", "latest", "--target", "out"]).ok();
    assert_eq!(fs::read(env.path("out/dumps/shop.sql")).expect("restored"), input);
}

#[test]
fn lists_of_paths() {
    let env = Env::initialized();
    Run::of(&mut env.command(&["backup", "--files-from", "-"]), b"src/hello.txt\0src/sub/deep\0").ok();
    let paths = &env.run(&["snapshots", "--json"]).ok().json()[0]["paths"];
    assert_eq!(*paths, serde_json::json!([format!("{}/hello.txt", env.src()), format!("{}/sub/deep", env.src())]));
    Run::of(&mut env.command(&["backup", "--files-from", "-"]), b"").fails(1, "the list of paths is empty");
}

#[test]
fn keys() {
    let env = Env::initialized();
    let list = || env.run(&["key", "list", "--json"]).ok().json();
    let with = |args: &[&str], new: &str| Run::of(env.command(args).env("DEDUPLICITY_NEW_PASSWORD", new), b"");
    with(&["key", "add", "--label", "spare"], "other").ok();
    let keys = list();
    assert_eq!(keys.len(), 2);
    let spare = keys.iter().find(|k| k["label"] == "spare").expect("there")["id"].as_str().expect("text").to_owned();
    let current = keys.iter().find(|k| k["current"] == true).expect("there")["id"].as_str().expect("text").to_owned();
    env.run(&["key", "remove", &current[..8]]).fails(1, "in use");
    env.run(&["key", "remove", "zz"]).fails(1, "no key");
    with(&["key", "passwd"], "third").ok();
    env.run(&["key", "list"]).fails(12, "wrong password");
    Run::of(env.command(&["key", "remove", &spare]).env("DEDUPLICITY_PASSWORD", "third"), b"").ok();
    Run::of(env.command(&["key", "list"]).env("DEDUPLICITY_PASSWORD", "other"), b"").fails(12, "wrong password");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let env = Env::initialized();
    for number in 0..3_000 {
        fs::write(env.path(&format!("src/{number:0100}")), "").expect("write");
    }
    env.backup(&["-q"]).ok();
    let mut child = env.command(&["ls", "-R", "latest"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn the_cache_is_private_and_can_be_done_without() {
    let env = Env::initialized();
    env.backup(&["--no-cache"]).ok();
    assert!(!env.path("home/.cache").exists());
    env.backup(&[]).ok();
    let base = env.path("home/.cache/deduplicity");
    assert!(base.join("CACHEDIR.TAG").is_file());
    let dir = fs::read_dir(&base).expect("made").map(|e| e.expect("an entry").path()).find(|p| p.is_dir()).expect("a cache");
    assert_eq!(fs::metadata(&dir).expect("there").permissions().mode() & 0o777, 0o700);
    let elsewhere = env.path("elsewhere").display().to_string();
    env.run(&["ls", "latest", "--cache-dir", &elsewhere]).ok();
    assert!(env.path("elsewhere/CACHEDIR.TAG").is_file());
}

#[test]
fn a_server_that_does_not_answer_is_mentioned_and_can_be_given_up() {
    let env = Env::new();
    let mut command = env.command(&["snapshots", "-r", "s3:http://127.0.0.1:1/bucket"]);
    command.env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "b").stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map(|line| line.expect("UTF-8"));
    let note = lines.next().expect("a note");
    assert!(note.starts_with("note: s3:http://127.0.0.1:1/bucket") && note.ends_with("; trying again"), "{note}");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("still running");
    assert_eq!(child.wait().expect("ends").code(), Some(130));
    assert_eq!(lines.collect::<Vec<_>>(), ["deduplicity: error: interrupted"]);
}
