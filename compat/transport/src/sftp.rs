//! sftp through the system's `ssh`: the program does all that is about security, this module reads and writes files over its
//! pipes.
//!
//! A connection carries one file at a time, with many requests under way; ended ones are kept for the next file. The
//! crates for the protocol fail a whole listing over one name that is not UTF-8, and allocate what a server announces.

mod reader;
mod wire;
mod write;

use std::io::{BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use compat::store::{StoreErrorKind, StoredFile};

use crate::MAX_FILES;
use crate::error::Failure;
use crate::helper::{Helper, PipeReader, PipeWriter};
use crate::location::Server;
use crate::options::Options;
use crate::remote::{Protocol, Started};
use crate::spool::Spool;
use crate::ssh::{self, Ssh};

use reader::SftpReader;
use wire::{Attrs, Part, Reply};

/// More than servers take from one client by default.
const CONNECTIONS: usize = 4;

#[derive(Debug)]
pub(crate) struct Sftp {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ssh: Ssh,
    folder: String,
    pause: Duration,
    connections: usize,
    idle: Mutex<Vec<Session>>,
}

impl Sftp {
    pub(crate) fn new(server: &Server, options: &Options) -> Result<Self, Failure> {
        let folder = if server.path.is_empty() { ".".to_owned() } else { server.path.clone() };
        let inner = Inner {
            ssh: Ssh::new(server, options)?,
            folder,
            pause: options.pause,
            connections: options.connections_or(CONNECTIONS),
            idle: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Protocol for Sftp {
    fn concurrency(&self) -> usize {
        self.inner.connections
    }

    fn list(&self) -> Result<Vec<StoredFile>, Failure> {
        self.inner.with_session(|session| session.list(&self.inner.folder))
    }

    fn start(&self, name: &str, offset: u64, _: Option<u64>) -> Result<Started, Failure> {
        let path = self.inner.path_of(name);
        let (session, reusable) = self.inner.session()?;
        match SftpReader::open(session, &self.inner, &path, offset) {
            // One that was idle may have been cut off meanwhile.
            Err(failure) if failure.is_temporary() && reusable => {
                self.inner.idle().clear();
                SftpReader::open(Session::connect(&self.inner)?, &self.inner, &path, offset)
            }
            outcome => outcome,
        }
    }

    fn put(&self, file: &Spool, name: &str, unfinished: &str) -> Result<(), Failure> {
        let (name, unfinished) = (self.inner.path_of(name), self.inner.path_of(unfinished));
        self.inner.with_session(|session| session.put(file, &name, &unfinished))
    }

    fn remove(&self, name: &str) -> Result<(), Failure> {
        let path = self.inner.path_of(name);
        self.inner.with_session(|session| session.remove(&path))
    }

    fn make_folder(&self) -> Result<(), Failure> {
        self.inner.with_session(|session| session.make_folder(&self.inner.folder))
    }

    fn clear(&self, unfinished: &str) {
        let _ = self.remove(unfinished);
    }
}

impl Inner {
    fn path_of(&self, name: &str) -> String {
        format!("{}/{name}", self.folder.trim_end_matches('/'))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection, and whether it has been used before.
    fn session(&self) -> Result<(Session, bool), Failure> {
        let kept = self.idle().pop();
        match kept {
            Some(session) => Ok((session, true)),
            None => Ok((Session::connect(self)?, false)),
        }
    }

    fn give_back(&self, session: Session) {
        let mut idle = self.idle();
        if idle.len() < self.connections {
            idle.push(session);
        }
    }

    fn with_session<T>(&self, call: impl Fn(&mut Session) -> Result<T, Failure>) -> Result<T, Failure> {
        let (mut session, reused) = self.session()?;
        let mut outcome = call(&mut session);
        if reused && outcome.as_ref().is_err_and(Failure::is_temporary) {
            self.idle().clear();
            session = Session::connect(self)?;
            outcome = call(&mut session);
        }
        // After anything else nobody knows what is still to come over it.
        let kept = [StoreErrorKind::NotFound, StoreErrorKind::NoStore, StoreErrorKind::Denied];
        if outcome.as_ref().err().is_none_or(|failure| kept.contains(&failure.kind)) {
            self.give_back(session);
        }
        outcome
    }
}

/// A connection to the server.
#[derive(Debug)]
struct Session {
    helper: Option<Helper>,
    stdin: Option<PipeWriter>,
    stdout: BufReader<PipeReader>,
    next_id: u32,
}

impl Session {
    fn connect(inner: &Inner) -> Result<Self, Failure> {
        let mut command = Command::new(&inner.ssh.program);
        command.args(inner.ssh.arguments()).args(["-s", "--", &inner.ssh.server.host, "sftp"]);
        inner.ssh.prepare(&mut command);
        let mut helper = Helper::spawn(&mut command, Stdio::piped())?;
        let stdin = helper.take_stdin().map(|pipe| PipeWriter::new(pipe, inner.pause));
        let stdout = BufReader::with_capacity(64 * 1024, helper.take_stdout(inner.pause));
        let mut session = Self { helper: Some(helper), stdin, stdout, next_id: 0 };
        session.write(&wire::hello())?;
        match session.receive()? {
            (_, Reply::Version(version)) if version >= 3 => Ok(session),
            (_, Reply::Version(version)) => {
                Err(Failure::new(StoreErrorKind::Unusable, format!("the server speaks version {version} of sftp, 3 is needed")))
            }
            _ => Err(Failure::nonsense("no version")),
        }
    }

    fn write(&mut self, packet: &[u8]) -> Result<(), Failure> {
        let outcome = match self.stdin.as_mut() {
            Some(stdin) => stdin.write_all(packet),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        };
        outcome.map_err(|e| self.broken(e))
    }

    /// Sends a request; its number.
    fn send(&mut self, kind: u8, parts: &[Part<'_>]) -> Result<u32, Failure> {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        self.write(&wire::request(kind, id, parts))?;
        Ok(id)
    }

    /// The next answer, whichever request it is for.
    fn receive(&mut self) -> Result<(u32, Reply), Failure> {
        let mut length = [0; 4];
        self.stdout.read_exact(&mut length).map_err(|e| self.broken(e))?;
        let length = wire::packet_length(length);
        if length == 0 || length > wire::MAX_PACKET {
            return Err(Failure::nonsense(format!("a packet of {length} bytes")));
        }
        let mut packet = vec![0; length as usize];
        self.stdout.read_exact(&mut packet).map_err(|e| self.broken(e))?;
        wire::parse(&packet).ok_or_else(|| Failure::nonsense("a malformed packet"))
    }

    /// One request while no other is under way.
    fn call(&mut self, kind: u8, parts: &[Part<'_>]) -> Result<Reply, Failure> {
        let id = self.send(kind, parts)?;
        match self.receive()? {
            (found, reply) if found == id => Ok(reply),
            _ => Err(Failure::nonsense("an answer to another question")),
        }
    }

    /// The pipes ended: `ssh` has said why.
    fn broken(&mut self, error: std::io::Error) -> Failure {
        drop(self.stdin.take());
        match self.helper.take() {
            Some(helper) if error.kind() != std::io::ErrorKind::TimedOut => ssh::failure(&helper.finish()),
            _ => error.into(),
        }
    }

    fn list(&mut self, folder: &str) -> Result<Vec<StoredFile>, Failure> {
        let handle = match self.call(wire::OPENDIR, &[Part::Text(folder)])? {
            Reply::Handle(handle) => handle,
            reply => return Err(refusal(reply, StoreErrorKind::NoStore, "no such folder")),
        };
        let mut files = Vec::new();
        loop {
            match self.call(wire::READDIR, &[Part::Bytes(&handle)])? {
                Reply::Names(names) => {
                    let mut links = Vec::new();
                    for (name, attrs) in names {
                        let Ok(name) = String::from_utf8(name) else { continue };
                        match attrs.is_file() {
                            Some(true) => files.push(StoredFile { name, size: attrs.size }),
                            Some(false) if !attrs.is_link() => {}
                            _ if matches!(name.as_str(), "." | "..") => {}
                            _ => links.push(name),
                        }
                    }
                    for name in links {
                        let path = format!("{}/{name}", folder.trim_end_matches('/'));
                        if let Reply::Attrs(Attrs { size, permissions }) = self.call(wire::STAT, &[Part::Text(&path)])? {
                            let found = Attrs { size, permissions };
                            if found.is_file() != Some(false) {
                                files.push(StoredFile { name, size });
                            }
                        }
                    }
                }
                Reply::Status { code: wire::STATUS_EOF, .. } => break,
                reply => return Err(refusal(reply, StoreErrorKind::NoStore, "the folder is gone")),
            }
            if files.len() > MAX_FILES {
                return Err(Failure::nonsense("a listing without end"));
            }
        }
        self.call(wire::CLOSE, &[Part::Bytes(&handle)])?;
        Ok(files)
    }
}

/// What a server says instead of doing it.
fn refusal(reply: Reply, missing: StoreErrorKind, missing_text: &str) -> Failure {
    match reply {
        Reply::Status { code: wire::STATUS_NO_SUCH_FILE, .. } => Failure::new(missing, missing_text),
        Reply::Status { code: wire::STATUS_PERMISSION_DENIED, message } => {
            Failure::new(StoreErrorKind::Denied, if message.is_empty() { "permission denied".to_owned() } else { message })
        }
        Reply::Status { code: wire::STATUS_NO_CONNECTION | wire::STATUS_CONNECTION_LOST, message } => {
            Failure::unreachable(message)
        }
        Reply::Status { code, message } => Failure::new(StoreErrorKind::Other, format!("{message} (sftp status {code})")),
        _ => Failure::nonsense("an answer of another kind"),
    }
}
