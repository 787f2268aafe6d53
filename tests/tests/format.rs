//! The independent reader, written from `docs/format.md` alone, restores what the program wrote.

use std::path::{Path, PathBuf};
use std::process::Command;

use deduplicity_tests::env::Env;
use deduplicity_tests::tree::{assert_same, describe, make_oddities, noise};

/// A Python with the reader's libraries, from `tests/setup.sh`.
#[expect(clippy::print_stderr, reason = "the test harness shows it beside the test that did nothing")]
fn python() -> Option<PathBuf> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let python = std::env::var_os("DEDUPLICITY_PYTHON").map_or(installed, PathBuf::from);
    if python.is_file() {
        return Some(python);
    }
    let required = std::env::var("DEDUPLICITY_REQUIRE_SERVERS").is_ok_and(|v| v == "1");
    assert!(!required, "the Python reader's libraries are not installed; run tests/setup.sh");
    eprintln!("skipped: the Python reader's libraries are not installed; run tests/setup.sh");
    None
}

fn read(python: &Path, env: &Env, arguments: &[&str]) -> String {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("format/reader.py");
    let output = Command::new(python)
        .arg(reader)
        .arg(env.repository())
        .args(["--password-file", "password"])
        .args(arguments)
        .current_dir(env.path("."))
        .output()
        .expect("python starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn the_document_is_enough_to_restore() {
    let Some(python) = python() else { return };
    let env = Env::local();
    let source = env.path("src");
    make_oddities(&source);
    std::fs::write(env.path("password"), "secret").expect("write");
    env.ok(&["init"]);
    env.ok(&["backup", "src"]);
    let expected = describe(&source);

    let listed = read(&python, &env, &["snapshots"]);
    assert_eq!(listed.lines().count(), 1, "{listed}");
    read(&python, &env, &["restore", "latest", "by-index"]);
    let below = |target: &str| env.path(target).join(source.strip_prefix("/").expect("absolute"));
    assert_same(&expected, &describe(&below("by-index")));

    std::fs::remove_dir_all(env.repository().join("index")).expect("remove");
    read(&python, &env, &["restore", "--from-packs", "latest", "by-packs"]);
    assert_same(&expected, &describe(&below("by-packs")));
}

#[test]
fn the_document_is_enough_to_check_parity() {
    let Some(python) = python() else { return };
    let env = Env::local();
    std::fs::create_dir(env.path("src")).expect("mkdir");
    std::fs::write(env.path("src/big"), noise(1, 700_000)).expect("write");
    env.ok(&["init", "--parity", "30%"]);
    env.ok(&["backup", "src"]);
    env.ok(&["prune"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("format/parity.py");
    let check = || {
        let output = Command::new(&python).arg(&script).arg(env.repository()).output().expect("python starts");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned(), output.stderr)
    };
    let (good, out, err) = check();
    assert!(good, "{}", String::from_utf8_lossy(&err));
    assert!(out.contains("parity/groups/") && out.contains("parity/config") && out.lines().count() > 8, "{out}");
    let config = env.repository().join("config");
    let mut bytes = std::fs::read(&config).expect("reads");
    bytes[20] ^= 1;
    std::fs::write(&config, bytes).expect("writes");
    assert!(!check().0);
}
