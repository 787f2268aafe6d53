//! duplicity's command line on duplicity's archives: the built program, alone and against stock duplicity.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use deduplicity_tests::dropin::{Place, change_tree, make_tree, next_second, seconds};
use deduplicity_tests::tree::{self, assert_same, describe, noise};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The folder of real archives; `None`, with a word about it, where it is absent.
#[allow(clippy::print_stdout, reason = "says why nothing was tested")]
fn fixtures() -> Option<PathBuf> {
    let found = match std::env::var_os("DEDUPLICITY_FIXTURES") {
        Some(dir) => Some(PathBuf::from(dir)),
        None => {
            Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|d| d.join("shared/duplicity/fixtures")).find(|d| d.is_dir())
        }
    };
    if found.is_none() {
        println!("skipped: no folder shared/duplicity/fixtures above this one, and DEDUPLICITY_FIXTURES is not set");
    }
    found
}

#[test]
fn real_archives_are_restored_as_stock_restores_them() {
    let Some(root) = fixtures() else { return };
    if !tree::is_root() {
        println!("skipped: owners and devices can be restored by root only");
        return;
    }
    for name in [
        "v0822-gz",
        "v0822-multi-sym",
        "v0822-short-sym",
        "v321-smallvol-sym",
        "v321-prefix-sym",
        "single-file-gz",
        "resumed-full-gz-321",
        "mixed-modes",
    ] {
        let dir = root.join("public").join(name);
        let info: Value = serde_json::from_slice(&fs::read(dir.join("info.json")).expect("info")).expect("JSON");
        let mut place = Place::empty();
        if let Some(phrase) = info["passphrase"].as_str() {
            place.variables[0].1 = phrase.to_owned();
        }
        let options: Vec<&str> = ["restore_options", "extra_restore_options"]
            .iter()
            .flat_map(|f| info[*f].as_array().into_iter().flatten())
            .filter_map(Value::as_str)
            .collect();
        let url = format!("file://{}", dir.join("archive").display());
        for time in info["times"].as_array().expect("times") {
            let common = format!("-t {} {}", time["epoch"], options.join(" "));
            let _ = fs::remove_dir_all(place.path("restored")).or_else(|_| fs::remove_file(place.path("restored")));
            place.ok(None, &format!("restore {common} {url} restored"));
            compare(&place.path("restored"), &dir.join(time["tree"].as_str().expect("a tree")), name);
            let verified = place.ok(None, &format!("verify --compare-data {common} {url} restored"));
            assert!(verified.contains(" 0 difference"), "{verified}");
        }
    }
}

/// A restored tree against what stock restored.
fn compare(root: &Path, truth: &Path, name: &str) {
    let truth = if truth.is_file() {
        truth.to_owned()
    } else {
        truth.parent().expect("dir").join("truth").join(truth.file_name().expect("name"))
    };
    let entries: Vec<Value> = serde_json::from_slice(&fs::read(&truth).expect("a tree")).expect("JSON");
    assert!(!entries.is_empty());
    for entry in &entries {
        let raw = match entry["path_hex"].as_str() {
            Some(hex) => (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect(),
            None => entry["path"].as_str().expect("a path").as_bytes().to_vec(),
        };
        let path = if raw == b"." { root.to_owned() } else { root.join(std::ffi::OsStr::from_bytes(&raw)) };
        let found = path.symlink_metadata().unwrap_or_else(|e| panic!("{name}: {}: {e}", path.display()));
        if let Some(sum) = entry["sha256"].as_str() {
            let own: String = Sha256::digest(fs::read(&path).expect("a file")).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(own, sum, "{name}: {}", path.display());
        }
        if let Some(mode) = entry["mode"].as_str().filter(|_| !found.is_symlink()) {
            assert_eq!(format!("{:04o}", found.mode() & 0o7777), mode, "{name}: {}", path.display());
        }
        if let Some(mtime) = entry["mtime"].as_i64().filter(|_| !found.is_symlink()) {
            assert_eq!(found.mtime(), mtime, "{name}: {}", path.display());
        }
        assert_eq!(u64::from(found.uid()), entry["uid"].as_u64().unwrap_or_default(), "{name}: {}", path.display());
    }
    let count = if root.is_dir() { describe(root).len() + 1 } else { 1 };
    assert_eq!(count, entries.len(), "{name}");
}

#[test]
fn there_and_back() {
    for options in ["", "--no-encryption", "--no-encryption --no-compression", "--no-encryption --volsize 1"] {
        let place = Place::empty();
        make_tree(&place.path("src"));
        let first = seconds(describe(&place.path("src")));
        let url = place.url("archive");
        let said = place.ok(None, &format!("{options} src {url}"));
        assert!(said.contains("Last full backup date: none"), "{said}");
        assert!(said.contains("--------------[ Backup Statistics ]--------------"), "{said}");
        let time = place.files("archive").iter().find_map(|n| Some(n.split('.').nth(1)?.to_owned())).expect("a set");
        next_second();
        change_tree(&place.path("src"));
        let second = seconds(describe(&place.path("src")));
        place.ok(None, &format!("incremental {options} src {url}"));
        assert!(place.files("archive").iter().any(|name| name.starts_with("duplicity-inc.")), "{:?}", place.files("archive"));
        assert_same(&second, &place.restored(None, options));
        assert_same(&first, &place.restored(None, &format!("{options} -t {time}")));
        let verified = place.ok(None, &format!("verify --compare-data {options} {url} src"));
        assert!(verified.contains("0 difference(s) found"), "{verified}");
        next_second();
        let again = place.ok(None, &format!("inc {options} src {url}"));
        assert!(again.contains("\nDeltaEntries 0\n"), "{again}");
        let before = place.files("archive");
        next_second();
        place.ok(None, &format!("inc --skip-if-no-change {options} src {url}"));
        assert_eq!(place.files("archive"), before);
        // From an empty cache it is the same.
        fs::remove_dir_all(place.path("home/.cache")).expect("removed");
        assert!(place.ok(None, &format!("inc --dry-run {options} src {url}")).contains("\nDeltaEntries 0\n"));
        let status = place.ok(None, &format!("collection-status {url}"));
        assert!(status.contains("Number of contained backup sets: 3"), "{status}");
        let left: Vec<_> = place.files("archive").into_iter().filter(|name| !name.starts_with("duplicity-")).collect();
        assert_eq!(left, Vec::<String>::new());
    }
}

#[test]
fn parts_of_a_backup() {
    let place = Place::empty();
    make_tree(&place.path("src"));
    let url = place.url("archive");
    place.ok(None, &format!("full --no-encryption --volsize 1 src {url}"));
    place.ok(None, &format!("restore --no-encryption --file-to-restore a/small {url} one"));
    assert_eq!(fs::read(place.path("one")).expect("a file"), fs::read(place.path("src/a/small")).expect("a file"));
    place.ok(None, &format!("--no-encryption -r a/deep {url} some"));
    assert_same(&seconds(describe(&place.path("src/a/deep"))), &seconds(describe(&place.path("some"))));
    place.ok(None, &format!("restore --no-encryption --exclude ./a --include ./big --exclude ord* {url} chosen"));
    assert!(place.path("chosen/big").exists() && !place.path("chosen/a").exists() && !place.path("chosen/ord").exists());
    place.ok(None, &format!("restore --no-encryption --rename a/deep moved {url} renamed"));
    assert!(place.path("renamed/moved/piece").exists() && !place.path("renamed/a/deep").exists());
}

#[test]
fn codes_that_scripts_rely_on() {
    let place = Place::empty();
    make_tree(&place.path("src"));
    let url = place.url("archive");
    let code = |line: &str| place.ours(&line.replace("URL", &url)).code;
    assert_eq!(code("full nowhere URL"), 23);
    assert_eq!(code("inc --no-encryption src URL"), 17);
    assert_eq!(code("full --no-encryption src URL"), 0);
    assert_eq!(code("restore --no-encryption -r nothing/there URL out"), 19);
    assert_eq!(code("restore --no-encryption URL src"), 11);
    assert_eq!(code("verify --no-encryption URL nowhere"), 12);
    assert_eq!(code("bogus src URL"), 23);
    assert_eq!(code("full --no-encryption --exclude /other src URL"), 14);
    assert_eq!(code("full --no-encryption --include src/a src URL"), 16);
    assert_eq!(code("restore nonsense://x out"), 23);
    fs::create_dir(place.path("other")).expect("a folder");
    next_second();
    assert_eq!(code("inc --no-encryption other URL"), 42);
    assert_eq!(code("inc --no-encryption --allow-source-mismatch --dry-run other URL"), 0);
    fs::write(place.path("src/a/small"), "other").expect("a file");
    assert_eq!(code("verify --no-encryption URL src"), 0);
    assert_eq!(code("verify --no-encryption --compare-data URL src"), 1);
    let volume = place.files("archive").into_iter().find(|name| name.contains(".vol1.")).expect("a volume");
    let path = place.path("archive").join(volume);
    let mut bytes = fs::read(&path).expect("a volume");
    bytes[1000] ^= 1;
    fs::write(&path, bytes).expect("a volume");
    assert_eq!(code("restore --no-encryption URL out"), 21);
    fs::remove_file(&path).expect("removed");
    assert_eq!(code("restore --no-encryption URL out"), 1);
}

#[test]
fn nothing_is_removed_without_force() {
    let place = Place::empty();
    make_tree(&place.path("src"));
    let url = place.url("archive");
    for _ in 0..3 {
        place.ok(None, &format!("full --no-encryption src {url}"));
        next_second();
        place.ok(None, &format!("inc --no-encryption src {url}"));
    }
    let all = place.files("archive");
    for line in ["remove-older-than 1s", "remove-all-but-n-full 1", "remove-all-inc-of-but-n-full 1", "cleanup"] {
        place.ok(None, &format!("{line} {url}"));
        assert_eq!(place.files("archive"), all, "{line}");
    }
    place.ok(None, &format!("remove-all-inc-of-but-n-full 1 --force {url}"));
    let count = |kind: &str| place.files("archive").iter().filter(|n| n.contains(kind) && n.contains("manifest")).count();
    assert_eq!((count("full"), count("inc")), (3, 1));
    place.ok(None, &format!("remove-all-but-n-full 2 --force {url}"));
    assert_eq!((count("full"), count("inc")), (2, 1));
    place.ok(None, &format!("remove-older-than now --force {url}"));
    assert_eq!((count("full"), count("inc")), (1, 1));
    assert_same(&seconds(describe(&place.path("src"))), &place.restored(None, "--no-encryption"));
    fs::write(place.path("archive/duplicity-full.20200101T000000Z.vol1.difftar.gz"), "x").expect("a file");
    assert!(place.ok(None, &format!("cleanup {url}")).contains("20200101T000000Z.vol1"));
    place.ok(None, &format!("cleanup --force {url}"));
    assert!(place.files("archive").iter().all(|name| !name.contains("20200101")));
}

#[test]
fn a_run_that_was_killed_is_made_up_for() {
    let place = Place::empty();
    make_tree(&place.path("src"));
    let url = place.url("archive");
    place.ok(None, &format!("full --no-encryption src {url}"));
    let first = seconds(describe(&place.path("src")));
    next_second();
    change_tree(&place.path("src"));
    place.ok(None, &format!("inc --no-encryption src {url}"));
    let second = seconds(describe(&place.path("src")));
    // Killed before the manifest, and before the signatures.
    let inc = |word: &str| {
        place.files("archive").into_iter().find(|n| n.starts_with("duplicity-") && !n.contains("full") && n.contains(word))
    };
    fs::remove_file(place.path("archive").join(inc("manifest").expect("a manifest"))).expect("removed");
    fs::remove_dir_all(place.path("home/.cache")).expect("removed");
    assert_same(&first, &place.restored(None, "--no-encryption"));
    fs::remove_file(place.path("archive").join(inc("sigtar").expect("signatures"))).expect("removed");
    assert_same(&first, &place.restored(None, "--no-encryption"));
    next_second();
    place.ok(None, &format!("inc --no-encryption src {url}"));
    assert_same(&second, &place.restored(None, "--no-encryption"));
    assert!(place.ok(None, &format!("collection-status {url}")).contains("No orphaned or incomplete backup sets found."));
}

#[test]
fn killed_at_any_moment_no_restore_is_wrong() {
    let place = Place::empty();
    let (src, url) = (place.path("src"), place.url("archive"));
    fs::create_dir(&src).expect("a folder");
    let change = |round: u64| {
        for i in 0..12 {
            fs::write(src.join(format!("f{}", (i * 5 + round) % 24)), noise(round * 100 + i, 150_000)).expect("a file");
        }
    };
    let (mut complete, mut kills) = (None, 0);
    for round in 0..8 {
        change(round);
        let state = seconds(describe(&src));
        let mut run = place.command(&format!("--no-encryption --volsize 1 src {url}")).spawn().expect("it starts");
        std::thread::sleep(std::time::Duration::from_millis(20 + 61 * (round * 3 % 8)));
        // It may have ended by itself.
        let _ = run.kill();
        let ended = run.wait().expect("it ends").success();
        kills += u32::from(!ended);
        complete = if ended { Some(state.clone()) } else { complete };
        if complete.is_some() {
            let restored = place.restored(None, "--no-encryption");
            assert!(Some(&restored) == complete.as_ref() || restored == state, "round {round}: a state that never was");
        }
        next_second();
    }
    place.ok(None, &format!("--no-encryption src {url}"));
    assert_same(&seconds(describe(&src)), &place.restored(None, "--no-encryption"));
    assert!(place.ok(None, &format!("st {url}")).contains("No orphaned or incomplete backup sets found."), "{kills} kills");
}

#[test]
fn two_runs_do_not_share_a_cache() {
    let place = Place::empty();
    make_tree(&place.path("src"));
    let url = place.url("archive");
    place.ok(None, &format!("full --no-encryption --name n src {url}"));
    let lock = fs::File::options().append(true).open(place.path("home/.cache/duplicity/n/lockfile")).expect("a lock");
    rustix::fs::fcntl_lock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).expect("free");
    let run = place.ours(&format!("inc --no-encryption --name n src {url}"));
    assert_eq!(run.code, 23, "{}", run.err);
    drop(lock);
    next_second();
    place.ok(None, &format!("inc --no-encryption --name n src {url}"));
}

#[test]
fn stanzas_for_programs() {
    let place = Place::empty();
    make_tree(&place.path("src"));
    let url = place.url("archive");
    place.ok(None, &format!("full --no-encryption -v5 --log-file log src {url}"));
    let log = fs::read_to_string(place.path("log")).expect("a log");
    for stanza in ["INFO 4 'a/small'\n. A a/small\n\n", "NOTICE 1\n. --------------[ Backup Statistics ]--------------\n"] {
        assert!(log.contains(stanza), "{log}");
    }
    place.ok(None, &format!("st --log-file status {url}"));
    let status = fs::read_to_string(place.path("status")).expect("a log");
    assert!(
        status.contains("\nINFO 3 \nbackend BackendWrapper\narchive-dir ") && status.contains("\nchain-complete\n full "),
        "{status}"
    );
    place.ok(None, &format!("ls --no-encryption --log-file files {url}"));
    let files = fs::read(place.path("files")).expect("a log");
    assert!(String::from_utf8_lossy(&files).contains("'a/deep' dir\n. "));
    assert_eq!(place.ours(&format!("restore --no-encryption -r nothing --log-file error {url} out")).code, 19);
    assert!(fs::read_to_string(place.path("error")).expect("a log").contains("\nERROR 19\n"));
    assert!(place.ours("--version").out.starts_with("duplicity 3."));
}
