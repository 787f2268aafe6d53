//! A place where duplicity's command line is used, by stock duplicity and by our program.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::env::{Env, Run};
use crate::tree::{self, describe, noise};

/// Stock duplicities; none, with a word about it, where they are absent.
#[allow(clippy::print_stdout, reason = "says why nothing was tested")]
pub fn stock() -> Vec<PathBuf> {
    let runs = |program: &PathBuf| {
        let status = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let given = match std::env::var("DEDUPLICITY_STOCK") {
        Ok(given) => given.split(':').map(PathBuf::from).collect(),
        Err(_) => beside_the_tests(),
    };
    let found: Vec<PathBuf> = given.into_iter().filter(runs).collect();
    if found.is_empty() {
        println!("skipped: stock duplicity is not installed (tests/setup.sh does it), and DEDUPLICITY_STOCK names none");
    }
    found
}

/// What `tests/setup.sh` has installed, else what is on the path.
fn beside_the_tests() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/stock");
    let versions = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = versions.map(|entry| entry.path().join("bin/duplicity")).collect();
    found.sort();
    if found.is_empty() { vec!["duplicity".into()] } else { found }
}

/// A place to work in, and how to call whoever is to work there.
pub struct Place {
    /// Where our program runs.
    pub env: Env,
    /// Variables of the environment.
    pub variables: Vec<(&'static str, String)>,
}

impl Place {
    /// An empty one, with the pass phrase `secret`.
    ///
    /// # Panics
    ///
    /// If there is no temporary directory to be had.
    pub fn empty() -> Self {
        let env = Env::local();
        fs::create_dir(env.path("home")).expect("a home");
        Self { env, variables: vec![("PASSPHRASE", "secret".into()), ("LANG", "C.UTF-8".into())] }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.env.path(name)
    }

    /// The URL of a folder in it.
    pub fn url(&self, name: &str) -> String {
        format!("file://{}", self.path(name).display())
    }

    /// Our program.
    pub fn ours(&self, line: &str) -> Run {
        self.by(None, line)
    }

    /// Our program with the arguments of a line, ready to start.
    pub fn command(&self, line: &str) -> Command {
        let mut command = self.env.command(&["duplicity"]);
        command.envs(self.variables.iter().map(|(k, v)| (k, v))).args(line.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Stock, or ours where `program` is none.
    pub fn by(&self, program: Option<&Path>, line: &str) -> Run {
        self.call(program, line.split_whitespace())
    }

    /// The same with arguments that may hold anything.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn call<S: AsRef<OsStr>>(&self, program: Option<&Path>, arguments: impl IntoIterator<Item = S>) -> Run {
        let Some(program) = program else { return self.run(self.env.command(&["duplicity"]), arguments) };
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.path("home")).env("TZ", "UTC").current_dir(self.path(""));
        self.run(command, arguments)
    }

    fn run<S: AsRef<OsStr>>(&self, mut command: Command, arguments: impl IntoIterator<Item = S>) -> Run {
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env("PATH", path).envs(self.variables.iter().map(|(k, v)| (k, v))).stdin(Stdio::null());
        let output = command.args(arguments).output().expect("it starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Run { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The same; it must succeed. Returns its standard output.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn ok(&self, program: Option<&Path>, line: &str) -> String {
        let run = self.by(program, line);
        assert_eq!(run.code, 0, "{program:?} {line}:\n{}{}", run.out, run.err);
        run.out
    }

    /// Names in a folder.
    ///
    /// # Panics
    ///
    /// If there is no such folder.
    pub fn files(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(name)).expect("a folder");
        let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// What the archive in `archive` restores to.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn restored(&self, program: Option<&Path>, options: &str) -> BTreeMap<PathBuf, tree::Seen> {
        let _ = fs::remove_dir_all(self.path("restored"));
        self.ok(program, &format!("restore {options} {} restored", self.url("archive")));
        seconds(describe(&self.path("restored")))
    }
}

/// duplicity keeps whole seconds, and of links only the text; hard links become files.
pub fn seconds(mut tree: BTreeMap<PathBuf, tree::Seen>) -> BTreeMap<PathBuf, tree::Seen> {
    for seen in tree.values_mut() {
        seen.forget_what_duplicity_cannot_hold();
    }
    tree
}

/// A tree in its first state.
pub fn make_tree(root: &Path) {
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
    fs::write(root.join(OsStr::from_bytes(b"n\xff \n")), "odd").expect("a file");
    symlink("../nowhere", root.join("a/link")).expect("a link");
    fs::set_permissions(root.join("a/small"), fs::Permissions::from_mode(0o640)).expect("a mode");
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_000);
    let file = fs::File::options().write(true).open(root.join("big")).expect("a file");
    file.set_modified(old).expect("a time");
}

/// The same tree after changes of all kinds.
pub fn change_tree(root: &Path) {
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
pub fn next_second() {
    std::thread::sleep(std::time::Duration::from_millis(1100));
}
