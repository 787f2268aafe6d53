//! Archives written here, restored, verified, listed and continued by stock duplicity: those in `DEDUPLICITY_STOCK` (programs
//! separated by colons), those that `tests/setup.sh` installs, or `duplicity` on the path. Skipped, with a word about it, where there is none.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use engine::entry::Kind;

use super::*;

fn installed() -> Vec<String> {
    let runs = |program: &String| {
        let status = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let given = match std::env::var("DEDUPLICITY_STOCK") {
        Ok(given) => given.split(':').map(str::to_owned).collect(),
        Err(_) => beside_the_tests(),
    };
    let found: Vec<String> = given.into_iter().filter(runs).collect();
    if found.is_empty() {
        println!("skipped: stock duplicity is not installed (tests/setup.sh does it), and DEDUPLICITY_STOCK names none");
    }
    found
}

/// What `tests/setup.sh` has installed, else what is on the path.
fn beside_the_tests() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/.venv/stock");
    let versions = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = versions.map(|entry| entry.path().join("bin/duplicity").display().to_string()).collect();
    found.sort();
    if found.is_empty() { vec!["duplicity".into()] } else { found }
}

struct Stock<'a> {
    program: &'a str,
    home: tempfile::TempDir,
    is_encrypted: bool,
}

impl Stock<'_> {
    /// Runs a command with an empty cache; returns what it says. Has to succeed without a warning.
    fn run(&self, args: &[&str]) -> String {
        let cache = tempfile::tempdir().expect("dir");
        let mut command = Command::new(self.program);
        command.arg(args[0]).arg("--archive-dir").arg(cache.path());
        if !self.is_encrypted {
            command.arg("--no-encryption");
        }
        command.args(&args[1..]).current_dir(self.home.path()).env_clear().env("PATH", std::env::var_os("PATH").expect("PATH"));
        command.envs([("HOME", self.home.path().as_os_str()), ("LANG", "C.UTF-8".as_ref()), ("TZ", "UTC".as_ref())]);
        let output = command.env("PASSPHRASE", "p").stdin(Stdio::null()).output().expect("runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{} {args:?}: {said}", self.program);
        assert!(!said.contains("arning") && !said.contains("rror '"), "{} {args:?}: {said}", self.program);
        said
    }
}

/// What duplicity has restored, against the snapshot.
fn compare(root: &Path, tree: &[(Entry, Vec<u8>)]) {
    for (entry, bytes) in tree {
        let path = root.join(std::ffi::OsStr::from_bytes(entry.path.as_bytes()));
        let found = std::fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        match &entry.kind {
            Kind::File => assert!(std::fs::read(&path).expect("readable") == *bytes, "{}", path.display()),
            Kind::Directory => assert!(found.is_dir()),
            Kind::Symlink(target) => {
                assert_eq!(std::fs::read_link(&path).expect("a link").as_os_str().as_bytes(), &target[..]);
                continue;
            }
            _ => {}
        }
        assert_eq!(found.mode() & 0o7777, entry.meta.mode, "{}", path.display());
        assert_eq!(found.mtime(), entry.meta.mtime.seconds, "{}", path.display());
    }
}

fn accept(program: &str, world: &World, sealing: Sealing, volume_size: u64) {
    let dir = tempfile::tempdir().expect("dir");
    let is_encrypted = matches!(sealing, Sealing::OpenPgp(_));
    let choices = world.choices();
    world.export(dir.path(), &choices, &ExportOptions { volume_size, ..options(sealing) }).expect("exports");
    let stock = Stock { program, home: tempfile::tempdir().expect("dir"), is_encrypted };
    let url = format!("file://{}", dir.path().display());
    let restored = stock.home.path().join("restored");
    let target = restored.to_str().expect("UTF-8");
    for choice in &choices {
        let (time, tree) = (choice.record.snapshot.time.seconds.to_string(), world.tree(choice));
        let _ = std::fs::remove_dir_all(&restored);
        stock.run(&["restore", "-t", &time, &url, target]);
        compare(&restored, &tree);
        let said = stock.run(&["verify", "--compare-data", "-t", &time, &url, target]);
        assert!(said.contains(&format!(" {} file", tree.len())) && said.contains(" compared, 0 difference"), "{said}");
        assert!(stock.run(&["list-current-files", "-t", &time, &url]).lines().count() >= tree.len());
    }
    let status = stock.run(&["collection-status", &url]);
    assert!(status.contains("primary backup chain with matching signature chain"), "{status}");
    assert!(status.contains("No orphaned or incomplete backup sets found"), "{status}");
    // What stock restored is what the signatures say: nothing is to be stored again.
    let increment = stock.run(&["incremental", target, &url]);
    assert!(increment.contains("DeltaEntries 0"), "{increment}");
}

#[test]
fn stock_takes_it_for_its_own() {
    let programs = installed();
    let is_root = is_root();
    let Some(world) = (!programs.is_empty()).then(|| imported("v321-gz", None)).flatten() else { return };
    if !is_root {
        println!("skipped: owners and devices can be restored by root only");
        return;
    }
    let accept_all = |program: &str| {
        let encryption = Encryption::symmetric(b"p");
        accept(program, &world, Sealing::OpenPgp(Box::new(encryption)), 100_000);
        accept(program, &world, Sealing::Gzip, VOLUME_SIZE);
        accept(program, &world, Sealing::Plain, 60_000);
    };
    std::thread::scope(|scope| programs.iter().for_each(|program| drop(scope.spawn(|| accept_all(program)))));
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}
