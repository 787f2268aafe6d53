//! Whatever rclone speaks, by the system's program and with its own configuration.

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use compat::store::{StoreErrorKind, StoredFile};
use zeroize::Zeroizing;

use crate::MAX_FILES;
use crate::error::Failure;
use crate::helper::{self, Ended, Helper, PipeReader};
use crate::location::RcloneRemote;
use crate::options::Options;
use crate::remote::{Protocol, Started};
use crate::spool::{STDIN_PATH, Spool};

const CONNECTIONS: usize = 4;
const MAX_LISTING: u64 = 64 * 1024 * 1024;

pub(crate) struct Rclone {
    program: PathBuf,
    /// `remote:path`, without parameters.
    remote: String,
    /// The parameters: in arguments all users of the machine could read them, and rclone repeats them in its messages.
    environment: Vec<(String, Zeroizing<String>)>,
    connect_timeout: Duration,
    pause: Duration,
    connections: usize,
    /// Whether a file is renamed when it is whole, once known.
    renames: OnceLock<bool>,
}

impl std::fmt::Debug for Rclone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rclone").field("remote", &self.remote).finish_non_exhaustive()
    }
}

impl Rclone {
    pub(crate) fn new(remote: &RcloneRemote, options: &Options) -> Self {
        let backend = remote.name.strip_prefix(':');
        // A remote made up on the spot is one that is configured by variables alone.
        let name = if backend.is_some() { "deduplicity" } else { remote.name.as_str() };
        let kind = backend.map(|kind| ("type".to_owned(), Zeroizing::new(kind.to_owned())));
        let variable = |key: &str| format!("RCLONE_CONFIG_{}_{}", name.to_uppercase(), key.to_uppercase().replace('-', "_"));
        let settings = kind.into_iter().chain(remote.parameters.iter().cloned());
        Self {
            program: options.programs.rclone.clone(),
            remote: format!("{name}:{}", trim_slashes(&remote.path)),
            environment: settings.map(|(key, value)| (variable(&key), value)).collect(),
            connect_timeout: options.connect_timeout,
            pause: options.pause,
            connections: options.connections_or(CONNECTIONS),
            renames: OnceLock::new(),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--ask-password=false", "--retries=1", "--low-level-retries=3", "--stats=0", "--log-level=ERROR"]);
        command.arg(format!("--contimeout={}s", self.connect_timeout.as_secs().max(1)));
        command.arg(format!("--timeout={}s", self.pause.as_secs().max(1)));
        command.envs(self.environment.iter().map(|(name, value)| (name, value.as_str())));
        command
    }

    /// Runs it to its end, however long that takes: it keeps to its own time limit.
    fn run(&self, arguments: &[&str], input: Stdio, missing: StoreErrorKind) -> Result<Vec<u8>, Failure> {
        let mut command = self.command();
        command.args(arguments);
        let (output, ended) = helper::run_with(&mut command, input, helper::NO_LIMIT, MAX_LISTING)?;
        if ended.code == Some(0) { Ok(output) } else { Err(failure(&ended, missing)) }
    }

    /// In buckets an object appears at once, and a rename would copy it. Where the remote cannot rename, rclone would fetch the
    /// file and send it again.
    fn renames(&self) -> Result<bool, Failure> {
        if let Some(known) = self.renames.get() {
            return Ok(*known);
        }
        let output = self.run(&["backend", "features", "--", &self.remote], Stdio::null(), StoreErrorKind::NoStore)?;
        Ok(*self.renames.get_or_init(|| is_renamed(&output)))
    }

    /// A remote's root has no slash before the name.
    fn path_of(&self, name: &str) -> String {
        let slash = if self.remote.ends_with([':', '/']) { "" } else { "/" };
        format!("{}{slash}{name}", self.remote)
    }
}

impl Protocol for Rclone {
    fn concurrency(&self) -> usize {
        self.connections
    }

    fn list(&self) -> Result<Vec<StoredFile>, Failure> {
        let mut command = self.command();
        command.args(["lsjson", "--files-only", "--no-mimetype", "--no-modtime", "--", &self.remote]);
        let (output, ended) = helper::run(&mut command, b"", self.pause.saturating_mul(5), MAX_LISTING)?;
        if ended.code != Some(0) {
            return Err(failure(&ended, StoreErrorKind::NoStore));
        }
        files(&output)
    }

    fn start(&self, name: &str, offset: u64, size: Option<u64>) -> Result<Started, Failure> {
        let size = match size {
            Some(size) => Some(size),
            // `cat` of a folder would print all that is in it.
            None => self.list()?.into_iter().find(|file| file.name == name).ok_or_else(Failure::not_found)?.size,
        };
        let mut command = self.command();
        command.args(["cat", &format!("--offset={offset}"), "--", &self.path_of(name)]);
        let mut helper = Helper::spawn(&mut command, Stdio::null())?;
        let output = helper.take_stdout(self.pause.saturating_mul(2));
        let mut reader = CatReader { output, helper: Some(helper), first: Vec::new() };
        // What cannot be opened is to be known now.
        if size != Some(0) {
            reader.await_first()?;
        }
        Ok(Started { reader: Box::new(reader), size })
    }

    /// The program compares sizes and hashes itself, and makes the folder. Its own name for what is unfinished begins as the
    /// file's does: duplicity would take that for a volume.
    fn put(&self, file: &Spool, name: &str, unfinished: &str) -> Result<(), Failure> {
        let renames = self.renames()?;
        let first = self.path_of(if renames { unfinished } else { name });
        let copy = ["copyto", "--ignore-times", "--copy-links", "--", STDIN_PATH, &first];
        self.run(&copy, file.stdin()?, StoreErrorKind::NoStore)?;
        if renames {
            let rename = ["moveto", "--ignore-times", "--", &first, &self.path_of(name)];
            self.run(&rename, Stdio::null(), StoreErrorKind::NoStore)?;
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), Failure> {
        self.run(&["deletefile", "--", &self.path_of(name)], Stdio::null(), StoreErrorKind::NotFound).map(drop)
    }

    fn clear(&self, unfinished: &str) {
        if self.renames.get() == Some(&true) {
            let _ = self.remove(unfinished);
        }
    }
}

/// The root stays.
fn trim_slashes(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" if path.starts_with('/') => "/",
        trimmed => trimmed,
    }
}

/// What `rclone cat` prints; ended only once the program says that all went well.
struct CatReader {
    output: PipeReader,
    helper: Option<Helper>,
    /// Read already.
    first: Vec<u8>,
}

impl CatReader {
    fn await_first(&mut self) -> Result<(), Failure> {
        let mut buffer = vec![0; 8192];
        let n = self.next(&mut buffer)?;
        buffer.truncate(n);
        self.first = buffer;
        Ok(())
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let n = self.output.read(buffer)?;
        if n > 0 || buffer.is_empty() {
            return Ok(n);
        }
        match self.helper.take().map(Helper::finish) {
            Some(ended) if ended.code != Some(0) => Err(failure(&ended, StoreErrorKind::NotFound)),
            _ => Ok(0),
        }
    }
}

impl Read for CatReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.first.is_empty() {
            let n = self.first.len().min(buffer.len());
            buffer[..n].copy_from_slice(&self.first[..n]);
            self.first.drain(..n);
            return Ok(n);
        }
        Ok(self.next(buffer)?)
    }
}

/// By what `backend features` prints.
fn is_renamed(output: &[u8]) -> bool {
    let answer: serde_json::Value = serde_json::from_slice(output).unwrap_or_default();
    let can = |feature: &str| answer["Features"][feature].as_bool().unwrap_or(false);
    !can("BucketBased") && (can("Move") || can("Copy"))
}

/// Of `lsjson`; a size of -1 is an unknown one.
fn files(output: &[u8]) -> Result<Vec<StoredFile>, Failure> {
    let list: Vec<serde_json::Value> = serde_json::from_slice(output).map_err(|e| Failure::nonsense(e.to_string()))?;
    if list.len() > MAX_FILES {
        return Err(Failure::nonsense("a listing without end"));
    }
    list.into_iter()
        .map(|item| {
            let name = item.get("Name").and_then(|name| name.as_str());
            let name = name.ok_or_else(|| Failure::nonsense("a file without a name"))?.to_owned();
            Ok(StoredFile { name, size: item.get("Size").and_then(serde_json::Value::as_u64) })
        })
        .collect()
}

/// By the exit code (rclone's manual), and where it is not enough by the words.
fn failure(ended: &Ended, missing: StoreErrorKind) -> Failure {
    let said = own_words(&ended.said);
    let has = |words: &[&str]| words.iter().any(|w| said.contains(w));
    let status =
        |codes: &[&str]| said.split_whitespace().any(|word| codes.contains(&word.trim_matches(|c: char| !c.is_alphanumeric())));
    let refused = ["unauthorized", "forbidden", "access denied", "accessdenied", "permission denied"];
    let login =
        ["login incorrect", "unable to authenticate", "authentication failed", "signaturedoesnotmatch", "invalid password"];
    let network = [
        "connection refused",
        "no such host",
        "i/o timeout",
        "no route to host",
        "network is unreachable",
        "connection reset",
        "unexpected eof",
        "dial tcp",
        "broken pipe",
    ];
    let setup =
        ["didn't find section", "didn't find backend", "config file", "unknown flag", "unknown shorthand", "unable to decrypt"];
    let kind = if has(&login) || has(&refused) || status(&["401", "403", "530"]) {
        StoreErrorKind::Denied
    } else if has(&network) {
        StoreErrorKind::Unreachable
    } else if has(&setup) {
        StoreErrorKind::Unusable
    } else {
        match ended.code {
            Some(3 | 4) => missing,
            Some(5) | None => StoreErrorKind::Unreachable,
            Some(2) => StoreErrorKind::Unusable,
            _ if has(&["not found", "no such"]) => missing,
            _ => StoreErrorKind::Other,
        }
    };
    let line = ended.said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it failed without a word");
    Failure::new(kind, format!("rclone: {}", without_date(line)))
}

/// In small letters, and without what is quoted: addresses and names, which may hold any word and any number.
fn own_words(said: &str) -> String {
    said.replace("\\\"", "").split('"').step_by(2).collect::<Vec<_>>().join(" ").to_lowercase()
}

/// `2026/11/25 12:00:00 CRITICAL: ...`
fn without_date(line: &str) -> &str {
    let dated = line.as_bytes().get(..20).is_some_and(|start| start[4] == b'/' && start[10] == b' ' && start[19] == b' ');
    if dated { line.get(20..).unwrap_or(line) } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_listings() {
        let found = files(br#"[{"Path":"a b","Name":"a b","Size":5,"IsDir":false},{"Name":"n","Size":-1}]"#).unwrap();
        let file = |name: &str, size| StoredFile { name: name.to_owned(), size };
        assert_eq!(found, [file("a b", Some(5)), file("n", None)]);
        assert!(files(b"[{\"Size\":1}]").is_err());
        assert!(files(b"[").is_err());
    }

    #[test]
    fn codes_and_words_tell_the_kind() {
        for (code, said, kind) in [
            (3, "2026/11/25 12:00:00 ERROR : : error listing: directory not found", StoreErrorKind::NoStore),
            (1, "2026/11/25 12:00:00 CRITICAL: Failed: didn't find section in config file (\"x\")", StoreErrorKind::Unusable),
            (1, "NewFs: couldn't connect SSH: dial tcp 127.0.0.1:1: connect: connection refused", StoreErrorKind::Unreachable),
            (1, "couldn't connect SSH: ssh: handshake failed: ssh: unable to authenticate", StoreErrorKind::Denied),
            (1, "error listing: 401 Unauthorized", StoreErrorKind::Denied),
            (1, "Propfind \"http://h:1/x\": HTTP error 403 (403): no", StoreErrorKind::Denied),
            (1, "Propfind \"http://h:40157/403 \\\"forbidden\": dial tcp 10.4.0.1:403: i/o timeout", StoreErrorKind::Unreachable),
            (1, "Propfind \"http://h:40157/x\": dial tcp h:40157: connect: connection refused", StoreErrorKind::Unreachable),
            (9, "", StoreErrorKind::Other),
        ] {
            let ended = Ended { code: Some(code), said: said.to_owned() };
            let failure = failure(&ended, StoreErrorKind::NoStore);
            assert_eq!(failure.kind, kind, "{said}");
            assert!(!failure.message.contains("2026"), "{failure}");
        }
    }

    #[test]
    fn renames_where_that_is_cheap() {
        assert!(is_renamed(br#"{"Features":{"BucketBased":false,"Move":true,"Copy":false}}"#));
        assert!(is_renamed(br#"{"Features":{"Copy":true}}"#));
        assert!(!is_renamed(br#"{"Features":{"BucketBased":true,"Copy":true}}"#));
        assert!(!is_renamed(br#"{"Features":{}}"#));
    }

    #[test]
    fn names_go_below_the_remote() {
        for (path, expected) in [("", "r:f"), ("a/", "r:a/f"), ("/a", "r:/a/f"), ("/", "r:/f")] {
            let remote = RcloneRemote { name: "r".into(), parameters: Vec::new(), path: path.into() };
            assert_eq!(Rclone::new(&remote, &Options::default()).path_of("f"), expected);
        }
    }

    #[test]
    fn parameters_are_no_arguments() {
        let parameters = vec![("pass".to_owned(), Zeroizing::new("hush".to_owned()))];
        for (name, variable) in [(":webdav", "RCLONE_CONFIG_DEDUPLICITY_PASS"), ("my-nas", "RCLONE_CONFIG_MY-NAS_PASS")] {
            let remote = RcloneRemote { name: name.into(), parameters: parameters.clone(), path: "p".into() };
            let rclone = Rclone::new(&remote, &Options::default());
            assert!(rclone.command().get_envs().any(|(n, v)| n == variable && v.is_some_and(|v| v == "hush")));
            assert!(!format!("{rclone:?} {:?}", rclone.command().get_args()).contains("hush"));
        }
    }
}
