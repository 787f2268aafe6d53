//! rsync, by the system's program: to a daemon, or over the system's `ssh`.
//!
//! The program writes no file to a pipe: each goes into a temporary folder and is read from there, whole. What a broken
//! connection left there is gone on with. On the other side the program itself sees to it that a file is whole before it has
//! its name.

mod list;
mod write;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use compat::store::{StoreErrorKind, StoredFile};
use zeroize::Zeroizing;

use crate::error::Failure;
use crate::helper::{self, Ended};
use crate::location::{RsyncRoute, Server};
use crate::options::Options;
use crate::remote::{Protocol, Started};
use crate::spool::Spool;
use crate::ssh::{self, Ssh};

const CONNECTIONS: usize = 3;
const MAX_LISTING: u64 = 256 * 1024 * 1024;
const GREETING: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) struct Rsync {
    program: PathBuf,
    server: Server,
    route: RsyncRoute,
    /// Which way it is, for `RsyncRoute::Either`.
    found: OnceLock<Way>,
    ssh: Ssh,
    secret: Secret,
    connect_timeout: Duration,
    pause: Duration,
    attempts: u32,
    connections: usize,
}

/// Not shown.
struct Secret(Option<Zeroizing<String>>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Daemon,
    Ssh,
}

impl Rsync {
    pub(crate) fn new(server: &Server, route: RsyncRoute, options: &Options) -> Result<Self, Failure> {
        Ok(Self {
            program: options.programs.rsync.clone(),
            server: server.clone(),
            route,
            found: OnceLock::new(),
            ssh: Ssh::new(server, options)?,
            secret: Secret(server.password.clone().or_else(|| options.password.clone())),
            connect_timeout: options.connect_timeout,
            pause: options.pause,
            attempts: options.attempts,
            connections: options.connections_or(CONNECTIONS),
        })
    }

    /// A daemon greets at once; whatever else is there is meant to be reached over ssh, as duplicity does.
    fn daemon_greets(&self) -> bool {
        let port = self.server.port.unwrap_or(873);
        let Ok(addresses) = (self.server.host.as_str(), port).to_socket_addrs() else { return false };
        addresses.into_iter().any(|address| {
            let greeting = || -> io::Result<bool> {
                let stream = TcpStream::connect_timeout(&address, GREETING.min(self.connect_timeout))?;
                stream.set_read_timeout(Some(GREETING))?;
                let mut start = [0; 8];
                io::Read::read_exact(&mut &stream, &mut start)?;
                Ok(start == *b"@RSYNCD:")
            };
            greeting().unwrap_or(false)
        })
    }

    fn way(&self) -> Way {
        match self.route {
            RsyncRoute::Daemon => Way::Daemon,
            RsyncRoute::Ssh => Way::Ssh,
            RsyncRoute::Either => *self.found.get_or_init(|| if self.daemon_greets() { Way::Daemon } else { Way::Ssh }),
        }
    }

    /// The program with everything but what to do, and the folder with a slash at its end.
    fn command(&self, way: Way) -> (Command, String) {
        let mut command = Command::new(&self.program);
        // Names as they are, and not shown to any shell.
        command.args(["--8-bit-output", "--no-human-readable", "--protect-args", "--no-motd"]);
        command.arg(format!("--timeout={}", self.pause.as_secs().max(1)));
        let host = self.server.host_in_url();
        let path = self.server.path.trim_end_matches('/');
        let folder = match way {
            Way::Daemon => {
                command.arg(format!("--contimeout={}", self.connect_timeout.as_secs().max(1)));
                if let Some(port) = self.server.port {
                    command.arg(format!("--port={port}"));
                }
                match &self.secret.0 {
                    Some(secret) => drop(command.env("RSYNC_PASSWORD", secret.as_str())),
                    // Else it would ask on the terminal.
                    None if std::env::var_os("RSYNC_PASSWORD").is_none() => drop(command.env("RSYNC_PASSWORD", "")),
                    None => {}
                }
                let user = self.server.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
                format!("{user}{host}::{path}/")
            }
            Way::Ssh => {
                let program = self.ssh.program.to_string_lossy();
                let words = [program.as_ref()].into_iter().chain(self.ssh.arguments().iter().map(String::as_str));
                let quoted: Vec<_> = words.map(|word| format!("'{}'", word.replace('\'', "''"))).collect();
                command.arg(format!("--rsh={}", quoted.join(" ")));
                self.ssh.prepare(&mut command);
                // An empty path is the home, and `/` would not be.
                let slash = if path.is_empty() && !self.server.path.starts_with('/') { "" } else { "/" };
                format!("{host}:{path}{slash}")
            }
        };
        (command, folder)
    }

    fn list_by(&self, way: Way) -> Result<Vec<StoredFile>, Failure> {
        let (mut command, folder) = self.command(way);
        command.args(["--list-only", "--dirs", "--", &folder]);
        let (output, ended) = helper::run(&mut command, b"", self.pause.saturating_mul(2), MAX_LISTING)?;
        if ended.code != Some(0) {
            return Err(failure(&ended, way, StoreErrorKind::NoStore));
        }
        list::files(&output)
    }

    /// One attempt to bring the file, or what is missing of it, into `target`.
    fn fetch(&self, way: Way, name: &str, target: &str) -> Result<(), Failure> {
        let (mut command, folder) = self.command(way);
        command.arg("--append");
        // A name that looks like a pattern goes in by a list, in which nothing is special. Daemons of rsync 3.5 that do
        // not change their root take no lists for folders of a module, so all others go in as they are.
        let input = if name.contains(['*', '?', '[', ']', '\\']) {
            command.args(["--from0", "--files-from=-", "--", &folder, target]);
            format!("{name}\0")
        } else {
            command.args(["--", &format!("{folder}{name}"), target]);
            String::new()
        };
        let (_, ended) = helper::run(&mut command, input.as_bytes(), helper::NO_LIMIT, MAX_LISTING)?;
        match ended.code {
            Some(0) => Ok(()),
            _ => Err(failure(&ended, way, StoreErrorKind::NotFound)),
        }
    }
}

impl Protocol for Rsync {
    fn concurrency(&self) -> usize {
        self.connections
    }

    fn list(&self) -> Result<Vec<StoredFile>, Failure> {
        let way = self.way();
        match self.list_by(way) {
            // Without a port a daemon that greets need not be what was meant.
            Err(failure)
                if failure.kind == StoreErrorKind::NoStore
                    && way == Way::Daemon
                    && self.route == RsyncRoute::Either
                    && self.server.port.is_none() =>
            {
                self.list_by(Way::Ssh).map_err(|_| failure)
            }
            outcome => outcome,
        }
    }

    fn start(&self, name: &str, offset: u64, size: Option<u64>) -> Result<Started, Failure> {
        let size = match size {
            Some(size) => size,
            None => {
                let listed = self.list()?.into_iter().find(|file| file.name == name).ok_or_else(Failure::not_found)?;
                listed.size.ok_or_else(|| Failure::nonsense("a file without a size"))?
            }
        };
        let folder = tempfile::Builder::new().prefix("deduplicity-rsync").tempdir().map_err(|e| Failure::local(&e))?;
        let target = folder.path().to_str().ok_or_else(|| Failure::local(&io::ErrorKind::InvalidFilename.into()))?;
        let path = folder.path().join(name);
        let length = || path.metadata().map_or(0, |found| found.len());
        let mut fruitless = 0;
        loop {
            let before = length();
            let failure = match self.fetch(self.way(), name, target) {
                Ok(()) => break,
                Err(failure) => failure,
            };
            fruitless = if length() > before { 0 } else { fruitless + 1 };
            if !failure.is_temporary() || fruitless >= self.attempts {
                return Err(failure);
            }
            std::thread::sleep(Duration::from_millis(200) * (1 << fruitless.min(5)));
        }
        let mut file = File::open(&path).map_err(|e| Failure::local(&e))?;
        let got = file.metadata().map_err(|e| Failure::local(&e))?.len();
        if got != size {
            let message = format!("it has {got} bytes now, and had {size} before: it was changed meanwhile");
            return Err(Failure::new(StoreErrorKind::Other, message));
        }
        file.seek(SeekFrom::Start(offset)).map_err(|e| Failure::local(&e))?;
        // The folder goes; the open file stays.
        Ok(Started { reader: Box::new(file), size: Some(size) })
    }

    fn put(&self, file: &Spool, name: &str, _: &str) -> Result<(), Failure> {
        self.send(file, name)
    }

    fn remove(&self, name: &str) -> Result<(), Failure> {
        self.delete(name)
    }

    fn make_folder(&self) -> Result<(), Failure> {
        self.send_folder()
    }
}

/// By the exit code (rsync(1)), and where it is not enough by the words.
fn failure(ended: &Ended, way: Way, missing: StoreErrorKind) -> Failure {
    let said = ended.said.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| said.contains(w));
    let no_program = has(&["rsync: command not found", "rsync: not found", "failed to exec ssh"]) || ended.code == Some(127);
    // The other side's words say more than the summary at the end.
    let mut lines = ended.said.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines.clone().find(|l| l.starts_with("@ERROR") || l.starts_with("rsync: ")).or_else(|| lines.next());
    let silent = match ended.code {
        Some(code) => format!("rsync failed with code {code} and without a word"),
        None => "rsync was ended and said nothing".to_owned(),
    };
    let line = line.unwrap_or(&silent);
    let kind = if has(&["auth failed", "access denied"]) {
        StoreErrorKind::Denied
    } else if has(&["unknown module", "chdir failed", "chroot failed"]) {
        StoreErrorKind::NoStore
    } else if has(&["failed to exec ssh"]) {
        return Failure::new(StoreErrorKind::Unusable, "the program ssh is not installed: install the package openssh-client");
    } else if no_program {
        return Failure::new(StoreErrorKind::Unusable, "the program rsync is not installed on the server");
    } else if way == Way::Ssh && ended.code == Some(255) {
        return ssh::failure(ended);
    } else if has(&["change_dir"]) && has(&["no such file", "not a directory"]) {
        StoreErrorKind::NoStore
    } else if has(&["no such file", "file has vanished"]) {
        missing
    } else if has(&["permission denied"]) {
        StoreErrorKind::Denied
    } else {
        match ended.code {
            Some(1 | 2 | 4 | 6) => StoreErrorKind::Unusable,
            Some(10 | 12 | 20 | 30 | 35 | 255) | None => StoreErrorKind::Unreachable,
            _ => StoreErrorKind::Other,
        }
    };
    let hint = if said.contains("auth failed") { " (check user and password)" } else { "" };
    Failure::new(kind, format!("{line}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_words_tell_the_kind() {
        let change_dir = "rsync: [sender] change_dir \"/x\" (in files) failed: No such file or directory (2)";
        for (code, said, kind) in [
            (5, "@ERROR: auth failed on module files\nrsync error: error starting (code 5)", StoreErrorKind::Denied),
            (5, "@ERROR: Unknown module 'x'", StoreErrorKind::NoStore),
            (23, change_dir, StoreErrorKind::NoStore),
            (23, "rsync: [sender] link_stat \"/f\" (in files) failed: No such file or directory (2)", StoreErrorKind::NotFound),
            (10, "rsync: failed to connect to h (::1): Connection refused (111)", StoreErrorKind::Unreachable),
            (12, "rsync: connection unexpectedly closed (0 bytes received so far)", StoreErrorKind::Unreachable),
            (35, "rsync error: timeout waiting for daemon connection (code 35)", StoreErrorKind::Unreachable),
            (11, "rsync: write failed: No space left on device (28)", StoreErrorKind::Other),
            (127, "bash: rsync: command not found", StoreErrorKind::Unusable),
        ] {
            let ended = Ended { code: Some(code), said: said.to_owned() };
            assert_eq!(failure(&ended, Way::Daemon, StoreErrorKind::NotFound).kind, kind, "{said}");
        }
        let ended = Ended { code: Some(255), said: "u@h: Permission denied (publickey).".to_owned() };
        assert_eq!(failure(&ended, Way::Ssh, StoreErrorKind::NotFound).kind, StoreErrorKind::Denied);
    }

    #[test]
    fn secrets_are_no_arguments() {
        let server = Server {
            user: Some("u".into()),
            password: Some(Zeroizing::new("hush".into())),
            host: "::1".into(),
            port: Some(2),
            path: "m/p/".into(),
        };
        let rsync = Rsync::new(&server, RsyncRoute::Daemon, &Options::default()).unwrap();
        let (command, folder) = rsync.command(Way::Daemon);
        assert_eq!(folder, "u@[::1]::m/p/");
        assert!(!command.get_args().any(|a| a.to_string_lossy().contains("hush")));
        assert!(!format!("{rsync:?}").contains("hush"));
        let (command, folder) = rsync.command(Way::Ssh);
        assert_eq!(folder, "[::1]:m/p/");
        assert!(!command.get_args().any(|a| a.to_string_lossy().contains("hush")));
    }
}
