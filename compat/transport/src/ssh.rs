//! The system's `ssh`, as the user has set it up, but never asking anything.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use compat::store::StoreErrorKind;
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::error::Failure;
use crate::helper::Ended;
use crate::location::Server;
use crate::options::Options;

/// Answers the question for a password, and nothing else: neither for key phrases nor about unknown hosts.
const ASKPASS: &str = "#!/bin/sh\n\
    case \"$1\" in\n\
    *assword*) printf '%s\\n' \"$DEDUPLICITY_SSH_PASSWORD\" ;;\n\
    *) exit 1 ;;\n\
    esac\n";

/// How to call `ssh` for one server.
#[derive(Debug)]
pub(crate) struct Ssh {
    pub program: PathBuf,
    pub server: Server,
    arguments: Vec<String>,
    askpass: Option<Askpass>,
}

struct Askpass {
    folder: TempDir,
    password: Zeroizing<String>,
}

impl std::fmt::Debug for Askpass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Askpass").finish_non_exhaustive()
    }
}

impl Ssh {
    pub(crate) fn new(server: &Server, options: &Options) -> Result<Self, Failure> {
        let password = server.password.clone().or_else(|| options.password.clone());
        let askpass = password.map(Askpass::new).transpose()?;
        let arguments = arguments(server, options, askpass.is_some());
        Ok(Self { program: options.programs.ssh.clone(), arguments, server: server.clone(), askpass })
    }

    /// Everything before the host.
    pub(crate) fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// The password, if there is one, goes through the environment of `ssh`.
    pub(crate) fn prepare(&self, command: &mut Command) {
        match &self.askpass {
            None => {}
            Some(askpass) => {
                command
                    .env("SSH_ASKPASS", askpass.folder.path().join("askpass"))
                    .env("SSH_ASKPASS_REQUIRE", "force")
                    // Older ssh wants one.
                    .env("DISPLAY", std::env::var_os("DISPLAY").unwrap_or_else(|| ":0".into()))
                    .env("DEDUPLICITY_SSH_PASSWORD", askpass.password.as_str());
            }
        }
    }
}

impl Askpass {
    fn new(password: Zeroizing<String>) -> Result<Self, Failure> {
        let make = || {
            let folder = tempfile::Builder::new().prefix("deduplicity-ssh").tempdir()?;
            let path = folder.path().join("askpass");
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(path)?;
            file.write_all(ASKPASS.as_bytes())?;
            Ok(folder)
        };
        let folder = make()
            .map_err(|e: std::io::Error| Failure::new(StoreErrorKind::Other, format!("cannot hand a password to ssh: {e}")))?;
        Ok(Self { folder, password })
    }
}

fn arguments(server: &Server, options: &Options, password: bool) -> Vec<String> {
    let mut arguments = match password {
        false => vec!["-oBatchMode=yes".to_owned()],
        true => vec!["-oNumberOfPasswordPrompts=1".to_owned()],
    };
    arguments.extend(options.ssh_arguments.iter().cloned());
    arguments.push(format!("-oConnectTimeout={}", options.connect_timeout.max(Duration::from_secs(1)).as_secs()));
    let fixed = [
        "-oConnectionAttempts=1",
        "-oServerAliveInterval=15",
        "-oServerAliveCountMax=3",
        "-oForwardX11=no",
        "-oForwardAgent=no",
        "-oClearAllForwardings=yes",
        "-oPermitLocalCommand=no",
        "-oRequestTTY=no",
    ];
    arguments.extend(fixed.map(str::to_owned));
    if let Some(port) = server.port {
        arguments.push(format!("-p{port}"));
    }
    if let Some(user) = &server.user {
        arguments.push(format!("-l{user}"));
    }
    arguments
}

/// Why `ssh` ended, by its words; the last line of them for people.
pub(crate) fn failure(ended: &Ended) -> Failure {
    let said = ended.said.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| said.contains(w));
    let denied = ["permission denied", "host key verification failed", "authentication fail", "no more authentication methods"];
    let unusable =
        ["bad configuration option", "can't open user config", "subsystem request failed", "unknown option", "usage: ssh"];
    let kind = if has(&denied) || said.contains("host identification has changed") {
        StoreErrorKind::Denied
    } else if has(&unusable) {
        StoreErrorKind::Unusable
    } else {
        StoreErrorKind::Unreachable
    };
    let last = ended.said.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("the connection broke off");
    let hint = match kind {
        _ if said.contains("host key verification failed") => " (log in once with ssh to make the host's key known)",
        StoreErrorKind::Denied => " (check user, keys, agent and password)",
        StoreErrorKind::Unusable if said.contains("subsystem") => " (the server has no sftp)",
        _ => "",
    };
    Failure::new(kind, format!("ssh: {last}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_tell_the_kind() {
        for (said, kind) in [
            ("u@h: Permission denied (publickey).\r\n", StoreErrorKind::Denied),
            ("Host key verification failed.\r\n", StoreErrorKind::Denied),
            ("ssh: connect to host h port 22: Connection refused\r\n", StoreErrorKind::Unreachable),
            ("ssh: Could not resolve hostname h: Name or service not known\r\n", StoreErrorKind::Unreachable),
            ("subsystem request failed on channel 0\r\n", StoreErrorKind::Unusable),
            ("/c: line 1: Bad configuration option: x\r\n", StoreErrorKind::Unusable),
            ("", StoreErrorKind::Unreachable),
        ] {
            let failure = failure(&Ended { code: Some(255), said: said.to_owned() });
            assert_eq!(failure.kind, kind, "{said}");
        }
    }

    #[test]
    fn secrets_are_no_arguments() {
        let mut server = Server {
            user: Some("u".into()),
            password: Some(Zeroizing::new("hush".into())),
            host: "h".into(),
            port: Some(2),
            path: "p".into(),
        };
        let ssh = Ssh::new(&server, &Options::default()).unwrap();
        assert!(!format!("{:?} {ssh:?}", ssh.arguments()).contains("hush"));
        assert!(!ssh.arguments().iter().any(|a| a.contains("BatchMode")));
        server.password = None;
        let ssh = Ssh::new(&server, &Options::default()).unwrap();
        assert_eq!(ssh.arguments()[0], "-oBatchMode=yes");
        assert!(ssh.arguments().ends_with(&["-p2".to_owned(), "-lu".to_owned()]));
    }
}
