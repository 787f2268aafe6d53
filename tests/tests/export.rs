//! `export duplicity` as its users run it; what stock duplicity makes of such archives is tested with the library.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use deduplicity_tests::env::Env;
use deduplicity_tests::tree::noise;

fn tree(env: &Env) -> PathBuf {
    let source = env.path("src");
    fs::create_dir_all(source.join("sub/empty")).expect("mkdir");
    fs::write(source.join("large"), noise(1, 3_000_000)).expect("write");
    fs::write(source.join("sub/text"), b"one line\n".repeat(500)).expect("write");
    std::os::unix::fs::symlink("large", source.join("link")).expect("symlink");
    source
}

/// Paths, modes, whole seconds and contents.
fn seen(root: &Path) -> Vec<(PathBuf, u32, i64, Vec<u8>)> {
    let (mut found, mut stack) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(&dir).expect("readable") {
            let path = entry.expect("readable").path();
            let meta = fs::symlink_metadata(&path).expect("stat");
            let content = if meta.is_file() { fs::read(&path).expect("readable") } else { Vec::new() };
            let time = if meta.is_symlink() { 0 } else { meta.mtime() };
            found.push((path.strip_prefix(root).expect("below").to_owned(), meta.mode(), time, content));
            if meta.is_dir() {
                stack.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_chain_grows_and_comes_back() {
    let env = Env::local();
    let source = tree(&env);
    env.ok(&["backup", "--init", "src", "--time", "@1700000000"]);
    let first = seen(&source);
    let export = ["export", "duplicity", "latest", "archive", "--no-encryption"];
    let dry = env.ok(&[&export[..], &["--dry-run"]].concat());
    assert!(dry.contains("would export 1 backup") && !env.path("archive").exists(), "{dry}");
    let said = env.ok(&export);
    assert!(said.contains("full") && said.contains("exported 1 backup "), "{said}");

    let mut large = noise(1, 3_000_000);
    large[1_000_000] ^= 1;
    fs::write(source.join("large"), large).expect("write");
    fs::remove_file(source.join("sub/text")).expect("remove");
    env.ok(&["backup", "src", "--time", "@1700001000"]);
    let second = seen(&source);
    let said = env.ok(&["export", "duplicity", "latest~1", "latest", "archive", "--no-encryption", "--json"]);
    assert!(said.contains("\"sets_exported\":1") && said.contains("\"sets_present\":1"), "{said}");
    let volume = |kind: &str| {
        let names = fs::read_dir(env.path("archive")).expect("archive").map(|e| e.expect("entry").path());
        names.filter(|p| p.to_string_lossy().contains(kind) && p.to_string_lossy().contains("difftar")).collect::<Vec<_>>()
    };
    let increment = fs::metadata(&volume("duplicity-inc.")[0]).expect("stat").len();
    assert!(increment < 100_000, "one byte changed: {increment}");

    let url = format!("file://{}", env.path("archive").display());
    let status = env.ok(&["duplicity", "collection-status", "--no-encryption", &url]);
    assert!(status.contains("Full") && status.contains("Incremental"), "{status}");
    let back = Env::local();
    back.ok(&["init"]);
    let archive = env.path("archive");
    back.ok(&["import", "duplicity", archive.to_str().expect("UTF-8"), "--verify"]);
    for (snapshot, expected) in [("latest~1", &first), ("latest", &second)] {
        back.ok(&["restore", snapshot, "--target", snapshot]);
        assert!(seen(&back.path(snapshot)) == *expected, "{snapshot}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let env = Env::local();
    tree(&env);
    env.ok(&["backup", "--init", "src", "src/sub"]);
    let refused = |arguments: &[&str], part: &str| {
        let run = env.run(&[&["export", "duplicity"], arguments].concat());
        assert!(run.code == 1 && run.err.contains(part), "{arguments:?}: {} {}", run.code, run.err);
        assert!(!env.path("archive").exists(), "{arguments:?}");
    };
    refused(&["latest", "archive", "--no-encryption"], "several source paths");
    let at = format!("latest:{}", env.path("src").display());
    refused(&[&at, "archive"], "no pass phrase and no key");
    refused(&[&at, "archive", "--no-encryption", "--incremental"], "no backup in the archive");
}

#[test]
fn a_lost_file_is_named_and_left_out() {
    let env = Env::local();
    tree(&env);
    env.ok(&["backup", "--init", "src"]);
    // The data of the large file is in the largest pack.
    let packs = fs::read_dir(env.repository().join("packs/0000000000")).expect("packs").map(|e| e.expect("entry").path());
    let largest = packs.max_by_key(|path| fs::metadata(path).expect("stat").len()).expect("a pack");
    fs::remove_file(largest).expect("remove");
    let run = env.run(&["export", "duplicity", "latest", "archive", "--no-encryption"]);
    assert!(run.code == 3 && run.err.contains("large: not exported"), "{} {}", run.code, run.err);
    let url = format!("file://{}", env.path("archive").display());
    let listed = env.ok(&["duplicity", "list-current-files", "--no-encryption", &url]);
    assert!(listed.contains("link") && !listed.lines().any(|line| line.ends_with(" large")), "{listed}");
}
