//! `dump` as its users run it: what tar and Python's zipfile make of it.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use deduplicity_tests::env::Env;
use deduplicity_tests::tree::{assert_same, describe, is_root, make_oddities, noise};

/// Runs the program with its output in a file; returns the exit code and what it said.
fn dump(env: &Env, arguments: &[&str], file: &str) -> (i32, String) {
    let out = File::create(env.path(file)).expect("create");
    let output = env.command(arguments).stdout(out).output().expect("the program starts");
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn tar(env: &Env, arguments: &[&str]) {
    let status = Command::new("tar").args(arguments).current_dir(env.path(".")).stdin(Stdio::null()).status().expect("tar");
    assert!(status.success(), "tar {arguments:?}");
}

#[test]
fn tar_restores_everything() {
    let env = Env::local();
    let source = env.path("src");
    make_oddities(&source);
    env.ok(&["backup", "--init", "src"]);
    let at = format!("latest:{}", source.display());
    let (code, said) = dump(&env, &["dump", &at], "all.tar");
    assert_eq!(code, 0, "{said}");
    fs::create_dir(env.path("out")).expect("mkdir");
    let mut how = vec!["-x", "-p", "-f", "all.tar", "-C", "out", "--numeric-owner", "--delay-directory-restore"];
    how.extend(["--xattrs", "--xattrs-include=*", "--sparse"]);
    tar(&env, &how);
    let (mut expected, mut found) = (describe(&source), describe(&env.path("out")));
    if !is_root() {
        // Of others only root can make them.
        expected.retain(|path, _| !path.ends_with("null") && !path.ends_with("loop"));
        found.retain(|path, _| !path.ends_with("null") && !path.ends_with("loop"));
    }
    assert_same(&expected, &found);

    let (code, said) = dump(&env, &["dump", &at, "--format", "tar.zst"], "all.tar.zst");
    assert_eq!(code, 0, "{said}");
    let zst = fs::read(env.path("all.tar.zst")).expect("read");
    assert_eq!(&zst[..4], &0xfd2f_b528_u32.to_le_bytes());
    assert!(zst.len() < 11_000_000, "holes are not 200 MB of output: {}", zst.len());
}

#[test]
fn a_single_file_and_full_paths() {
    let env = Env::local();
    fs::create_dir(env.path("src")).expect("mkdir");
    fs::write(env.path("src/one"), noise(5, 10_000_000)).expect("write");
    env.ok(&["backup", "--init", "src"]);
    let file = format!("latest:{}", env.path("src/one").display());
    assert_eq!(dump(&env, &["dump", &file], "one.tar").0, 0);
    tar(&env, &["-x", "-f", "one.tar"]);
    assert!(fs::read(env.path("one")).expect("read") == noise(5, 10_000_000));
    assert_eq!(dump(&env, &["dump", "latest"], "whole.tar").0, 0);
    fs::create_dir(env.path("whole")).expect("mkdir");
    tar(&env, &["-x", "-f", "whole.tar", "-C", "whole"]);
    let below = env.path("whole").join(env.path("src").strip_prefix("/").expect("absolute"));
    assert_same(&describe(&env.path("src")), &describe(&below));
    let (code, said) = dump(&env, &["dump", "latest:/not/there"], "none");
    assert!(code == 1 && said.contains("/not/there: not in snapshot"), "{said}");
}

#[test]
fn zip_holds_what_it_can_and_names_the_rest() {
    let env = Env::local();
    let source = env.path("src");
    make_oddities(&source);
    env.ok(&["backup", "--init", "src"]);
    let at = format!("latest:{}", source.display());
    let (code, said) = dump(&env, &["dump", &at, "--format", "zip"], "all.zip");
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("not UTF-8"), "{said}");
    assert_eq!(said.contains("no such kind of file"), is_root(), "{said}");
    let script = "import sys, zipfile\n\
        z = zipfile.ZipFile(sys.argv[1])\n\
        assert z.testzip() is None\n\
        assert z.read('dir/text') == open(sys.argv[2] + '/dir/text', 'rb').read()\n\
        assert z.read('another-name') == open(sys.argv[2] + '/dir/large', 'rb').read()\n\
        info = z.getinfo('dangling')\n\
        assert info.external_attr >> 28 == 10 and z.read(info) == b'nowhere/at/all', info\n\
        assert z.getinfo('mode-600').external_attr >> 16 == 0o100600\n\
        assert z.getinfo('dir/text').date_time == (2009, 2, 13, 23, 31, 30)\n\
        assert z.getinfo('dir/empty/').is_dir()\n";
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(env.path("all.zip")).arg(&source);
    assert!(python.status().expect("Python 3").success());
}

#[test]
fn a_damaged_file_is_left_out_and_named() {
    let env = Env::local();
    fs::create_dir(env.path("src")).expect("mkdir");
    fs::write(env.path("src/a-small"), b"still here").expect("write");
    fs::write(env.path("src/large"), noise(6, 40_000_000)).expect("write");
    env.ok(&["backup", "--init", "src"]);
    let mut packs: Vec<_> = walk(&env.repository().join("packs"));
    packs.sort_by_key(|path| fs::metadata(path).expect("stat").len());
    fs::remove_file(packs.last().expect("packs")).expect("remove");
    let at = format!("latest:{}", env.path("src").display());
    let (code, said) = dump(&env, &["dump", &at], "rest.tar");
    assert!(code == 3 && said.contains("large") && said.contains("left out"), "{code} {said}");
    fs::create_dir(env.path("out")).expect("mkdir");
    tar(&env, &["-x", "-f", "rest.tar", "-C", "out"]);
    assert!(!env.path("out/large").exists());
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("entry").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
