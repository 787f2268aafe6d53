//! `import duplicity` and `duplicity …` as their users run them, on archives that stock duplicity made.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use deduplicity_tests::env::Env;
use deduplicity_tests::servers::{self, PASSWORD, USER};
use deduplicity_tests::tree::is_root;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

const PHRASE: &str = "fixture-sym-pass";

#[allow(clippy::print_stdout, reason = "says why nothing was tested")]
fn fixture(name: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("DEDUPLICITY_FIXTURES") {
        Some(dir) => Some(PathBuf::from(dir)),
        None => Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .map(|dir| dir.join("shared/duplicity/fixtures"))
            .find(|dir| dir.is_dir()),
    };
    if root.is_none() {
        println!("skipped: no folder shared/duplicity/fixtures above this one, and DEDUPLICITY_FIXTURES is not set");
    }
    Some(root?.join("public").join(name))
}

fn info(fixture: &Path) -> Value {
    serde_json::from_slice(&fs::read(fixture.join("info.json")).expect("info.json")).expect("JSON")
}

fn bytes(entry: &Value, field: &str) -> Vec<u8> {
    match entry[format!("{field}_hex")].as_str() {
        Some(hex) => (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect(),
        None => entry[field].as_str().expect("text").as_bytes().to_vec(),
    }
}

/// Compares a restored tree with its description, in everything that the archive holds.
fn assert_restored(root: &Path, tree: &Path) {
    let entries: Vec<Value> = serde_json::from_slice(&fs::read(tree).expect("a tree")).expect("JSON");
    let mut left: BTreeMap<PathBuf, ()> = walk(root).into_iter().map(|path| (path, ())).collect();
    for entry in entries {
        let path = root.join(OsStr::from_bytes(&bytes(&entry, "path")));
        let path = if entry["path"] == "." { root.to_owned() } else { path };
        let meta = fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        left.remove(&path);
        let kind = meta.file_type();
        let is_kind = match entry["type"].as_str().expect("a type") {
            "reg" => kind.is_file(),
            "dir" => kind.is_dir(),
            "sym" => kind.is_symlink(),
            "fifo" => kind.is_fifo(),
            "chr" => kind.is_char_device(),
            "blk" => kind.is_block_device(),
            other => panic!("unknown type {other}"),
        };
        assert!(is_kind, "{}: {kind:?}", path.display());
        assert_eq!(
            (entry["uid"].as_u64(), entry["gid"].as_u64()),
            (Some(meta.uid().into()), Some(meta.gid().into())),
            "{}",
            path.display()
        );
        if kind.is_symlink() {
            let target = fs::read_link(&path).expect("a target");
            assert_eq!(target.as_os_str().as_bytes(), bytes(&entry, "target"), "{}", path.display());
            continue;
        }
        assert_eq!(entry["mode"].as_str(), Some(&*format!("{:04o}", meta.mode() & 0o7777)), "{}", path.display());
        assert_eq!(entry["mtime"].as_i64(), Some(meta.mtime()), "{}", path.display());
        if kind.is_file() {
            assert_eq!(entry["size"].as_u64(), Some(meta.len()), "{}", path.display());
        }
    }
    assert!(left.is_empty(), "too much was restored: {:?}", left.keys());
}

fn walk(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            if fs::symlink_metadata(&path).expect("there").is_dir() {
                folders.push(path.clone());
            }
            found.push(path);
        }
    }
    found
}

/// Snapshots as the program lists them, oldest first: their times and ids.
fn snapshots(env: &Env) -> Vec<(String, String)> {
    let listed = env.ok(&["snapshots", "--json"]);
    let value = |line: &str| serde_json::from_str::<Value>(line).expect("JSON lines");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let all = listed.lines().map(value).filter(|v| v["message_type"] == "snapshot");
    all.map(|v| (text(&v["time"]), text(&v["id"]))).collect()
}

#[test]
fn an_archive_becomes_snapshots_that_restore_as_stock_would() {
    for (name, phrase) in [("v321-sym", PHRASE), ("v0822-short-sym", PHRASE), ("v123-gz", ""), ("single-file-gz", "")] {
        let Some(fixture) = fixture(name) else { return };
        let env = Env::local();
        env.ok(&["init"]);
        fs::write(env.path("phrase"), format!("{phrase}\nnot this")).expect("writes");
        let archive = fixture.join("archive").display().to_string();
        let mut arguments = vec!["import", "duplicity", &archive, "--verify", "--host", "old-host", "--tag", "old"];
        if !phrase.is_empty() {
            arguments.extend(["--passphrase-file", "phrase"]);
        }
        let out = env.ok(&arguments);
        assert!(out.contains("verified"), "{out}");
        let info = info(&fixture);
        let times = info["times"].as_array().expect("times");
        let snapshots = snapshots(&env);
        assert_eq!(snapshots.len(), times.len(), "{out}");
        for ((_, id), time) in snapshots.iter().zip(times).filter(|_| is_root()) {
            let target = env.path("restored");
            env.ok(&["restore", id, "--target", "restored"]);
            let tree = fixture.join(time["tree"].as_str().expect("a tree"));
            if target.is_dir() {
                assert_restored(&target, &tree);
                fs::remove_dir_all(&target).expect("removes");
            } else {
                let entries: Vec<Value> = serde_json::from_slice(&fs::read(tree).expect("a tree")).expect("JSON");
                assert_eq!(entries[0]["size"].as_u64(), Some(target.metadata().expect("a file").len()));
                fs::remove_file(&target).expect("removes");
            }
        }
        let again = env.ok(&arguments);
        assert!(again.contains("imported 0 backups"), "{again}");
        assert!(env.ok(&["snapshots", "--host", "old-host", "--tag", "old"]).contains(&format!("{} snapshots", times.len())));
        env.ok(&["check", "--read-data"]);
    }
}

#[test]
fn choosing_what_to_import() {
    let Some(fixture) = fixture("two-chains-sym") else { return };
    let archive = fixture.join("archive").display().to_string();
    let env = Env::local();
    env.ok(&["init"]);
    fs::write(env.path("phrase"), PHRASE).expect("writes");
    let import = |more: &[&str]| {
        let run = env.run(&[&["import", "duplicity", &archive, "--passphrase-file", "phrase"], more].concat());
        (run.code, run.out, run.err)
    };
    let (code, out, _) = import(&["--dry-run"]);
    assert_eq!((code, snapshots(&env).len()), (0, 0));
    assert!(out.contains("would import 4 backups"), "{out}");
    assert_eq!(import(&["--chain", "2"]).0, 0);
    assert_eq!(snapshots(&env).len(), 2);
    let time = info(&fixture)["times"][0]["epoch"].to_string();
    assert_eq!(import(&["--time", &time]).0, 0);
    assert_eq!(snapshots(&env).len(), 3);
    assert_eq!(import(&["--all"]).0, 0);
    assert_eq!(snapshots(&env).len(), 4);
    let (code, _, err) = import(&["--chain", "3"]);
    assert_eq!(code, 1);
    assert!(err.contains("there is no chain 3"), "{err}");
}

#[test]
fn damage_is_listed_and_sets_the_exit_code() {
    let Some(fixture) = fixture("dmg-missing-volume-plain") else { return };
    let env = Env::local();
    env.ok(&["init"]);
    let run = env.run(&["import", "duplicity", &fixture.join("archive").display().to_string()]);
    assert_eq!(run.code, 3, "{}", run.err);
    for path in ["/chown-only", "/delta-append", "/delta-mid"] {
        assert!(run.err.contains(&format!("{path}: volume 2 is missing")), "{}", run.err);
    }
    assert!(run.out.contains("PARTIAL"), "{}", run.out);
    assert!(env.ok(&["snapshots", "--tag", "partial"]).contains("2 snapshots"));
}

#[test]
fn what_does_not_work_is_said_in_one_line() {
    let Some(fixture) = fixture("v224-sym") else { return };
    let archive = fixture.join("archive").display().to_string();
    let env = Env::local();
    env.ok(&["init"]);
    fs::write(env.path("phrase"), "wrong").expect("writes");
    for (arguments, expected) in [
        (&["import", "duplicity", &archive][..], "a pass phrase is needed"),
        (&["import", "duplicity", &archive, "--passphrase-file", "phrase"], "the pass phrase does not open it"),
        (&["import", "duplicity", "/no/such/folder"], "no such folder"),
        (&["import", "duplicity", "nonsense://x/y"], "nonsense"),
    ] {
        let run = env.run(arguments);
        assert_eq!(run.code, 1, "{arguments:?}: {}", run.err);
        assert!(run.err.contains(expected), "{arguments:?}: {}", run.err);
        assert_eq!(run.err.lines().filter(|line| line.contains("error")).count(), 1, "{}", run.err);
    }
    assert_eq!(snapshots(&env).len(), 0);
}

#[test]
fn duplicitys_own_listings() {
    let Some(fixture) = fixture("v123-gz") else { return };
    let archive = format!("file://{}", fixture.join("archive").display());
    let env = Env::local();
    let times = info(&fixture)["times"].as_array().expect("times").clone();
    for time in &times {
        let listed = env.ok(&["duplicity", "list-current-files", &archive, "--time", &time["epoch"].to_string()]);
        let stock = fs::read(fixture.join(time["list"].as_str().expect("a list"))).expect("a list");
        let is_entry = |line: &&str| line.len() > 24 && line.as_bytes()[13] == b':';
        let stock = String::from_utf8_lossy(&stock).into_owned();
        assert_eq!(listed.lines().filter(is_entry).collect::<Vec<_>>(), stock.lines().filter(is_entry).collect::<Vec<_>>());
    }
    let status = env.ok(&["duplicity", "collection-status", &archive]);
    assert!(status.contains("Number of contained backup sets: 4"), "{status}");
    assert!(status.contains("No orphaned or incomplete backup sets found."), "{status}");
}

#[test]
fn from_a_server() {
    let Some(fixture) = fixture("v321-sym") else { return };
    let Some(server) = servers::wsgidav(&fixture) else { return };
    let env = Env::local();
    env.ok(&["init"]);
    fs::write(env.path("phrase"), PHRASE).expect("writes");
    let at = server.address();
    let password = utf8_percent_encode(PASSWORD, NON_ALPHANUMERIC).to_string();
    let url = |user: &str| format!("webdav://{user}:{password}@{at}/archive");
    env.ok(&["import", "duplicity", &url(USER), "--passphrase-file", "phrase"]);
    assert_eq!(snapshots(&env).len(), 4);
    let run = env.run(&["import", "duplicity", &url("somebody"), "--passphrase-file", "phrase"]);
    assert_eq!(run.code, 1, "{}", run.err);
    assert!(!run.err.contains(PASSWORD) && !run.err.contains(&password), "a password in a message: {}", run.err);
}

#[test]
fn killed_it_goes_on() {
    let Some(fixture) = fixture("v0822-multi-sym") else { return };
    let archive = fixture.join("archive").display().to_string();
    let arguments = ["import", "duplicity", &archive, "--passphrase-file", "phrase"];
    let undisturbed = Env::local();
    undisturbed.ok(&["init"]);
    fs::write(undisturbed.path("phrase"), PHRASE).expect("writes");
    let start = Instant::now();
    undisturbed.ok(&arguments);
    let whole = start.elapsed();
    let env = Env::local();
    env.ok(&["init"]);
    fs::write(env.path("phrase"), PHRASE).expect("writes");
    for step in 0..8 {
        let mut child = env.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        std::thread::sleep(whole.mul_f64(f64::from(step) / 8.0).max(Duration::from_millis(1)));
        child.kill().expect("SIGKILL");
        child.wait().expect("ends");
        env.ok(&["check", "--read-data"]);
    }
    env.ok(&arguments);
    let trees = |env: &Env| -> Vec<String> {
        let ids = snapshots(env).into_iter().map(|(_, id)| id);
        ids.map(|id| env.ok(&["ls", "-lR", &id])).collect()
    };
    assert_eq!(trees(&env), trees(&undisturbed));
}
