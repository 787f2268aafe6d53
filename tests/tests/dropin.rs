//! duplicity's command line on duplicity's archives: the built program, alone and against stock duplicity.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use deduplicity_tests::env::{Env, Run};
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

/// Stock duplicities; none, with a word about it, where they are absent.
#[allow(clippy::print_stdout, reason = "says why nothing was tested")]
fn stock() -> Vec<PathBuf> {
    let given = std::env::var("DEDUPLICITY_STOCK").unwrap_or_else(|_| "duplicity".into());
    let runs = |program: &&str| {
        let status = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let found: Vec<PathBuf> = given.split(':').filter(runs).map(PathBuf::from).collect();
    if found.is_empty() {
        println!("skipped: stock duplicity is not installed, and DEDUPLICITY_STOCK names none");
    }
    found
}

/// A place to work in, and how to call whoever is to work there.
struct Place {
    env: Env,
    variables: Vec<(&'static str, String)>,
}

impl Place {
    fn new() -> Self {
        let env = Env::local();
        fs::create_dir(env.path("home")).expect("a home");
        Self { env, variables: vec![("PASSPHRASE", "secret".into()), ("LANG", "C.UTF-8".into())] }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.env.path(name)
    }

    fn url(&self, name: &str) -> String {
        format!("file://{}", self.path(name).display())
    }

    /// Our program.
    fn ours(&self, line: &str) -> Run {
        self.run(self.env.command(&["duplicity"]), line)
    }

    /// Stock, or ours where `program` is none.
    fn by(&self, program: Option<&Path>, line: &str) -> Run {
        let Some(program) = program else { return self.ours(line) };
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.path("home")).env("TZ", "UTC").current_dir(self.path(""));
        self.run(command, line)
    }

    fn run(&self, mut command: Command, line: &str) -> Run {
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env("PATH", path).envs(self.variables.iter().map(|(k, v)| (k, v))).stdin(Stdio::null());
        let output = command.args(line.split_whitespace()).output().expect("it starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Run { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    fn ok(&self, program: Option<&Path>, line: &str) -> String {
        let run = self.by(program, line);
        assert_eq!(run.code, 0, "{program:?} {line}:\n{}{}", run.out, run.err);
        run.out
    }

    fn files(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(name)).expect("a folder");
        let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn restored(&self, program: Option<&Path>, options: &str) -> BTreeMap<PathBuf, tree::Seen> {
        let _ = fs::remove_dir_all(self.path("restored"));
        self.ok(program, &format!("restore {options} {} restored", self.url("archive")));
        seconds(describe(&self.path("restored")))
    }
}

/// duplicity keeps whole seconds, and of links only the text; hard links become files.
fn seconds(mut tree: BTreeMap<PathBuf, tree::Seen>) -> BTreeMap<PathBuf, tree::Seen> {
    for seen in tree.values_mut() {
        seen.forget_what_duplicity_cannot_hold();
    }
    tree
}

/// A tree in its first state.
fn make_tree(root: &Path) {
    for dir in ["a/deep/er", "gone", "ord", "type"] {
        fs::create_dir_all(root.join(dir)).expect("a folder");
    }
    for (name, size) in [
        ("empty", 0),
        ("a/small", 10),
        ("a/deep/piece", 65_536),
        ("big", 700_000),
        ("ord/1", 1),
        ("ord-1", 2),
        ("ord.1", 3),
        ("gone/x", 9),
    ] {
        fs::write(root.join(name), noise(size as u64, size)).expect("a file");
    }
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"n\xff \n")), "odd").expect("a file");
    symlink("../nowhere", root.join("a/link")).expect("a link");
    fs::set_permissions(root.join("a/small"), fs::Permissions::from_mode(0o640)).expect("a mode");
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_000);
    let file = fs::File::options().write(true).open(root.join("big")).expect("a file");
    file.set_modified(old).expect("a time");
}

/// The same tree after changes of all kinds.
fn change_tree(root: &Path) {
    let mut big = fs::read(root.join("big")).expect("a file");
    big[350_000] ^= 1;
    big.extend_from_slice(b"and more");
    fs::write(root.join("big"), big).expect("a file");
    fs::remove_dir_all(root.join("gone")).expect("removed");
    fs::remove_dir_all(root.join("type")).expect("removed");
    fs::write(root.join("type"), "a file now").expect("a file");
    fs::remove_file(root.join("a/link")).expect("removed");
    fs::create_dir(root.join("a/link")).expect("a folder");
    fs::write(root.join("a/link/in"), "new").expect("a file");
    fs::set_permissions(root.join("a/small"), fs::Permissions::from_mode(0o600)).expect("a mode");
    fs::write(root.join("a/deep/piece"), "").expect("a file");
}

/// Sets have whole seconds.
fn next_second() {
    std::thread::sleep(std::time::Duration::from_millis(1100));
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
        let mut place = Place::new();
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
        let place = Place::new();
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
    let place = Place::new();
    make_tree(&place.path("src"));
    let url = place.url("archive");
    place.ok(None, &format!("full --no-encryption --volsize 1 src {url}"));
    place.ok(None, &format!("restore --no-encryption --file-to-restore a/small {url} one"));
    assert_eq!(fs::read(place.path("one")).expect("a file"), fs::read(place.path("src/a/small")).expect("a file"));
    place.ok(None, &format!("--no-encryption -r a/deep {url} some"));
    assert_same(&seconds(describe(&place.path("src/a/deep"))), &seconds(describe(&place.path("some"))));
    place.ok(None, &format!("restore --no-encryption --exclude ./a --include ./big --exclude **/ord* {url} chosen"));
    assert!(place.path("chosen/big").exists() && !place.path("chosen/a").exists() && !place.path("chosen/ord").exists());
    place.ok(None, &format!("restore --no-encryption --rename a/deep moved {url} renamed"));
    assert!(place.path("renamed/moved/piece").exists() && !place.path("renamed/a/deep").exists());
}

#[test]
fn codes_that_scripts_rely_on() {
    let place = Place::new();
    make_tree(&place.path("src"));
    let url = place.url("archive");
    let code = |line: &str| place.ours(&line.replace("URL", &url)).code;
    assert_eq!(code("full nowhere URL"), 13);
    assert_eq!(code("inc --no-encryption src URL"), 17);
    assert_eq!(code("full --no-encryption src URL"), 0);
    assert_eq!(code("restore --no-encryption -r nothing/there URL out"), 19);
    assert_eq!(code("restore --no-encryption URL src"), 11);
    assert_eq!(code("verify --no-encryption URL nowhere"), 12);
    assert_eq!(code("bogus src URL"), 23);
    assert_eq!(code("full --no-encryption --exclude /other src URL"), 14);
    assert_eq!(code("full --no-encryption --include src/a src URL"), 16);
    assert_eq!(code("restore nonsense://x out"), 8);
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
    let place = Place::new();
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
    let place = Place::new();
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
fn two_runs_do_not_share_a_cache() {
    let place = Place::new();
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
    let place = Place::new();
    make_tree(&place.path("src"));
    let url = place.url("archive");
    place.ok(None, &format!("full --no-encryption -v5 --log-file log src {url}"));
    let log = fs::read_to_string(place.path("log")).expect("a log");
    for stanza in ["INFO 4 'a/small'\n. A a/small\n\n", "NOTICE 1\n. --------------[ Backup Statistics ]--------------\n"] {
        assert!(log.contains(stanza), "{log}");
    }
    place.ok(None, &format!("st --log-file status {url}"));
    assert!(fs::read_to_string(place.path("status")).expect("a log").contains("INFO 3\n"));
    assert_eq!(place.ours(&format!("restore --no-encryption -r nothing --log-file error {url} out")).code, 19);
    assert!(fs::read_to_string(place.path("error")).expect("a log").contains("\nERROR 19\n"));
    assert!(place.ours("--version").out.starts_with("duplicity 3."));
}

/// Stock reads, compares, lists and continues what we wrote, and we what stock wrote, with one local cache.
#[test]
fn stock_and_ours_take_turns() {
    for program in stock() {
        for options in ["", "--no-encryption"] {
            let place = Place::new();
            make_tree(&place.path("src"));
            let (url, program) = (place.url("archive"), program.as_path());
            let writers = [None, Some(program), None, Some(program), None];
            for (round, writer) in writers.into_iter().enumerate() {
                let said = place.ok(writer, &format!("{options} src {url}"));
                assert!(said.contains("\nErrors 0\n"), "{said}");
                let now = seconds(describe(&place.path("src")));
                for reader in [None, Some(program)] {
                    assert_same(&now, &place.restored(reader, options));
                    let verified = place.ok(reader, &format!("verify --compare-data {options} {url} src"));
                    assert!(verified.contains(" 0 difference"), "{verified}");
                }
                let entries = |text: String| {
                    text.lines().filter(|l| l.as_bytes().get(13) == Some(&b':')).map(str::to_owned).collect::<Vec<_>>()
                };
                let lists = [None, Some(program)].map(|p| entries(place.ok(p, &format!("list-current-files {options} {url}"))));
                assert_eq!(lists[0], lists[1]);
                next_second();
                match round {
                    0 => change_tree(&place.path("src")),
                    n => fs::write(place.path(&format!("src/round{n}")), noise(n as u64, 70_000)).expect("a file"),
                }
            }
            let sets = place.files("archive").iter().filter(|name| name.contains("manifest")).count();
            assert_eq!(sets, writers.len(), "{:?}", place.files("archive"));
            assert_eq!(
                place
                    .files("archive")
                    .iter()
                    .filter(|name| name.starts_with("duplicity-full.") && name.contains("manifest"))
                    .count(),
                1
            );
        }
    }
}

/// The same selections leave the same files.
#[test]
fn selections_are_stocks() {
    let Some(program) = stock().pop() else { return };
    let place = Place::new();
    let src = place.path("src");
    make_tree(&src);
    fs::write(src.join("a/deep/.nobackup"), "").expect("a file");
    let lists = ["- **/small\n+ src/a\n- **\n", "# none\nsrc/ord*\n\n- 'src/a b'\n"];
    lists.iter().enumerate().for_each(|(i, text)| fs::write(place.path(&format!("list{i}")), text).expect("a list"));
    for rules in [
        "--include src/a/deep --exclude **",
        "--include src/*/1 --exclude **",
        "--include **/piece --exclude **",
        "--exclude src/a/ --exclude src/ord?1",
        "--exclude src/[a-g]*",
        "--exclude src/[!a-g]*",
        "--include src/a/small --exclude src/a --exclude **/x",
        "--exclude-regexp .*small$ --exclude-regexp ord",
        "--exclude-if-present .nobackup",
        "--exclude-filelist list1",
        "--include-filelist list0 --exclude **/zzz",
        "--exclude ignorecase:src/BIG",
        "--exclude-older-than 2020-01-01 --exclude **/empty",
        "--include src/a/link --include src/gone --exclude src/a --exclude **",
        "--exclude-device-files --exclude-other-filesystems --exclude **/deep",
        "--include src/a/b --exclude src/zzz",
    ] {
        let listed = [None, Some(program.as_path())].map(|who| {
            let _ = fs::remove_dir_all(place.path("archive"));
            let _ = fs::remove_dir_all(place.path("home/.cache"));
            let run = place.by(who, &format!("full --no-encryption {rules} src {}", place.url("archive")));
            let names = match run.code {
                0 => place.ok(Some(&program), &format!("list-current-files --no-encryption {}", place.url("archive"))),
                _ => String::new(),
            };
            let names: Vec<String> =
                names.lines().filter(|l| l.as_bytes().get(13) == Some(&b':')).map(|l| l[25..].to_owned()).collect();
            (run.code, names)
        });
        assert_eq!(listed[0], listed[1], "{rules}");
    }
}
