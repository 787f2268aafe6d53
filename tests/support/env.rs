//! The built program, run hermetically: cleared environment, a home and a repository of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A number from the environment.
pub fn variable(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

/// Runs a command to its end, or kills it after a while. `None`: it was killed.
///
/// # Panics
///
/// If it cannot be started.
pub fn run_or_kill(mut command: Command, patience: Option<Duration>) -> Option<Output> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let over = AtomicBool::new(false);
    let pid = rustix::process::Pid::from_child(&child);
    std::thread::scope(|scope| {
        if let Some(patience) = patience {
            let over = &over;
            scope.spawn(move || {
                let start = Instant::now();
                while start.elapsed() < patience && !over.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                if !over.load(Ordering::Acquire) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            });
        }
        let output = child.wait_with_output().expect("it ends");
        over.store(true, Ordering::Release);
        output.status.code().map(|_| output)
    })
}

/// The last object of a command's output with `--json`.
///
/// # Panics
///
/// If there is none.
pub fn summary(output: &Output) -> serde_json::Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().expect("output")).expect("JSON")
}

/// A temporary directory with a home in it, and where the repository is.
#[derive(Debug)]
pub struct Env {
    directory: TempDir,
    repository: String,
    variables: Vec<(String, String)>,
}

/// What a run of the program gave.
#[derive(Debug)]
#[must_use]
pub struct Run {
    /// Exit code; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Env {
    /// With a local repository, not made yet.
    ///
    /// # Panics
    ///
    /// If there is no temporary directory to be had.
    pub fn local() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let repository = directory.path().join("repo").display().to_string();
        Self { directory, repository, variables: Vec::new() }
    }

    /// With a repository in a bucket.
    ///
    /// # Panics
    ///
    /// As [`Env::local`].
    pub fn s3(endpoint: &str, bucket: &str, access_key: &str, secret_key: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let variables = vec![
            set("AWS_ENDPOINT_URL", endpoint),
            set("AWS_ACCESS_KEY_ID", access_key),
            set("AWS_SECRET_ACCESS_KEY", secret_key),
            set("AWS_REGION", "us-east-1"),
        ];
        Self { directory, repository: format!("s3://{bucket}/prefix"), variables }
    }

    /// Another machine: a directory and a home of its own, and the same repository.
    ///
    /// # Panics
    ///
    /// As [`Env::local`].
    #[must_use]
    pub fn beside(&self) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { directory, repository: self.repository.clone(), variables: self.variables.clone() }
    }

    /// A path in the temporary directory.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.directory.path().join(relative)
    }

    /// Where the program was built.
    ///
    /// # Panics
    ///
    /// If it was not.
    pub fn program() -> PathBuf {
        let own = std::env::current_exe().expect("the test's own path");
        let target = own.ancestors().nth(2).expect("tests run from target/<profile>/deps");
        let program = target.join("deduplicity");
        assert!(program.is_file(), "{} is missing: run 'cargo build --workspace' first", program.display());
        program
    }

    /// A command, ready to run.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(Self::program());
        command
            .env_clear()
            .env("HOME", self.path("home"))
            .env("TZ", "UTC")
            .env("DEDUPLICITY_REPOSITORY", &self.repository)
            .env("DEDUPLICITY_PASSWORD", "secret")
            .envs(self.variables.iter().map(|(k, v)| (k, v)))
            .current_dir(self.directory.path())
            .args(arguments);
        command
    }

    /// Runs the program.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Run {
        let Output { status, stdout, stderr } = self.command(arguments).output().expect("the program starts");
        Run {
            code: status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&stdout).into_owned(),
            err: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// Runs the program, which must succeed; returns its standard output.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn ok<S: AsRef<std::ffi::OsStr> + std::fmt::Debug>(&self, arguments: &[S]) -> String {
        let run = self.run(arguments);
        assert_eq!(run.code, 0, "{arguments:?}: {}", run.err);
        run.out
    }

    /// The local repository's directory.
    pub fn repository(&self) -> &Path {
        Path::new(&self.repository)
    }
}
