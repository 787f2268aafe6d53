//! FTP, passive, plain or over TLS.
//!
//! A connection carries one file at a time; ended ones are kept for the next file.

mod list;
mod session;
mod write;

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use compat::store::{StoreErrorKind, StoredFile};
use rustls::ClientConfig;
use suppaftp::{FtpError, FtpResult, Mode, RustlsConnector, RustlsFtpStream, Status, TlsConnector, TransferStream};
use zeroize::Zeroizing;

use crate::error::Failure;
use crate::location::{FtpTls, Server};
use crate::options::Options;
use crate::remote::{Protocol, Started};
use crate::spool::Spool;
use crate::tls;

use session::Session;

/// More than servers take from one client by default.
const CONNECTIONS: usize = 3;
/// A server that has not greeted by then expects TLS.
const GREETING: Duration = Duration::from_millis(2500);

type Stream = <RustlsConnector as TlsConnector>::Stream;

#[derive(Debug)]
pub(crate) struct Ftp {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    server: Server,
    user: String,
    password: Zeroizing<String>,
    tls: Option<Tls>,
    connect_timeout: Duration,
    pause: Duration,
    connections: usize,
    idle: Mutex<Vec<Session>>,
}

#[derive(Debug)]
struct Tls {
    connector: Connector,
    how: FtpTls,
    /// Found out for `FtpTls::Either`.
    found: OnceLock<(Start, u16)>,
}

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Plain,
    Explicit,
    Implicit,
}

/// suppaftp's own connector, with limits on the socket before the handshake.
#[derive(Clone, Debug)]
struct Connector {
    config: Arc<ClientConfig>,
    pause: Duration,
}

impl TlsConnector for Connector {
    type Stream = Stream;

    fn connect(&self, domain: &str, stream: TcpStream) -> FtpResult<Self::Stream> {
        set_limits(&stream, self.pause).map_err(FtpError::ConnectionError)?;
        RustlsConnector::from(Arc::clone(&self.config)).connect(domain, stream)
    }
}

fn set_limits(stream: &TcpStream, pause: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(pause))?;
    stream.set_write_timeout(Some(pause))?;
    stream.set_nodelay(true)
}

impl Ftp {
    pub(crate) fn new(server: &Server, how: FtpTls, options: &Options) -> Result<Self, Failure> {
        let tls = match how {
            FtpTls::Off => None,
            how => {
                let connector = Connector { config: tls::client(options)?, pause: options.pause };
                Some(Tls { connector, how, found: OnceLock::new() })
            }
        };
        let given = server.password.clone().or_else(|| options.password.clone());
        let anonymous = server.user.is_none();
        let inner = Inner {
            server: server.clone(),
            user: server.user.clone().unwrap_or_else(|| "anonymous".to_owned()),
            password: given.filter(|_| !anonymous).unwrap_or_else(|| Zeroizing::new("anonymous@".to_owned())),
            tls,
            connect_timeout: options.connect_timeout,
            pause: options.pause,
            connections: options.connections_or(CONNECTIONS),
            idle: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Protocol for Ftp {
    fn concurrency(&self) -> usize {
        self.inner.connections
    }

    fn list(&self) -> Result<Vec<StoredFile>, Failure> {
        self.inner.with_session(|mut session| {
            let files = session.list()?;
            self.inner.give_back(session);
            Ok(files)
        })
    }

    fn start(&self, name: &str, offset: u64, size: Option<u64>) -> Result<Started, Failure> {
        self.inner.with_session(|mut session| {
            let size = match size {
                Some(_) => None,
                None => session.size(name)?,
            };
            let offset = usize::try_from(offset).map_err(|_| Failure::nonsense("a size beyond all bounds"))?;
            session.ftp.resume_transfer(offset).map_err(|e| of(e, StoreErrorKind::NotFound))?;
            let transfer = session.ftp.retr_as_stream(name).map_err(|e| of(e, StoreErrorKind::NotFound))?;
            let reader = FtpReader { transfer: Some(transfer), session: Some(session), inner: Arc::clone(&self.inner) };
            Ok(Started { reader: Box::new(reader), size })
        })
    }

    fn put(&self, file: &Spool, name: &str, unfinished: &str) -> Result<(), Failure> {
        self.inner.with_session(|mut session| {
            session.put(file, name, unfinished)?;
            self.inner.give_back(session);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> Result<(), Failure> {
        self.inner.with_session(|mut session| {
            session.remove(name)?;
            self.inner.give_back(session);
            Ok(())
        })
    }

    fn make_folder(&self) -> Result<(), Failure> {
        Session::log_in(&self.inner)?.make_folder(&self.inner.server.path)
    }

    fn clear(&self, unfinished: &str) {
        let _ = self.remove(unfinished);
    }
}

impl Inner {
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, session: Session) {
        let mut idle = self.idle();
        if idle.len() < self.connections {
            idle.push(session);
        }
    }

    /// Servers hang up on idle connections: one that was kept is no reason to fail.
    fn with_session<T>(&self, call: impl Fn(Session) -> Result<T, Failure>) -> Result<T, Failure> {
        let kept = self.idle().pop();
        if let Some(session) = kept {
            match call(session) {
                Err(failure) if failure.is_temporary() => self.idle().clear(),
                outcome => return outcome,
            }
        }
        call(Session::connect(self)?)
    }

    fn dial(&self, port: u16) -> Result<(TcpStream, SocketAddr), Failure> {
        let addresses = (self.server.host.as_str(), port).to_socket_addrs().map_err(|e| Failure::unreachable(e.to_string()))?;
        let mut last = Failure::unreachable("the host has no address");
        for address in addresses {
            match TcpStream::connect_timeout(&address, self.connect_timeout) {
                Ok(stream) => {
                    set_limits(&stream, self.pause)?;
                    return Ok((stream, address));
                }
                Err(error) => last = Failure::unreachable(error.to_string()),
            }
        }
        Err(last)
    }

    /// A connection that is ready for the user's name.
    fn greet(&self) -> Result<RustlsFtpStream, Failure> {
        let (how, port) = self.start()?;
        let (stream, address) = self.dial(port)?;
        let failed = |e| of(e, StoreErrorKind::NoStore);
        let host = self.server.host.as_str();
        let ftp = match (how, &self.tls) {
            (Start::Explicit, Some(tls)) => {
                let ftp = RustlsFtpStream::connect_with_stream(stream).map_err(failed)?;
                ftp.into_secure(tls.connector.clone(), host).map_err(failed)?
            }
            (Start::Implicit, Some(tls)) => {
                drop(stream);
                let ftp = RustlsFtpStream::connect_secure_implicit(address, tls.connector.clone(), host);
                let mut ftp = ftp.map_err(failed)?;
                ftp.custom_command("PBSZ 0", &[Status::CommandOk]).map_err(failed)?;
                ftp.custom_command("PROT P", &[Status::CommandOk]).map_err(failed)?;
                ftp
            }
            _ => RustlsFtpStream::connect_with_stream(stream).map_err(failed)?,
        };
        let (connect_timeout, pause) = (self.connect_timeout, self.pause);
        let mut ftp = ftp.passive_stream_builder(move |address| {
            let stream = TcpStream::connect_timeout(&address, connect_timeout).map_err(FtpError::ConnectionError)?;
            set_limits(&stream, pause).map_err(FtpError::ConnectionError)?;
            Ok(stream)
        });
        // The address that a server names is of its own network at best, and anybody's at worst.
        ftp.set_passive_nat_workaround(true);
        ftp.set_mode(if address.is_ipv6() { Mode::ExtendedPassive } else { Mode::Passive });
        Ok(ftp)
    }

    /// How to begin, and at which port.
    fn start(&self) -> Result<(Start, u16), Failure> {
        let Some(tls) = &self.tls else { return Ok((Start::Plain, self.server.port.unwrap_or(21))) };
        if tls.how == FtpTls::Explicit {
            return Ok((Start::Explicit, self.server.port.unwrap_or(21)));
        }
        if let Some(found) = tls.found.get() {
            return Ok(*found);
        }
        let found = match self.server.port {
            None => match self.dial(990) {
                Ok(_) => (Start::Implicit, 990),
                Err(failure) if self.dial(21).is_err() => return Err(failure),
                Err(_) => (Start::Explicit, 21),
            },
            Some(port) => {
                let (stream, _) = self.dial(port)?;
                stream.set_read_timeout(Some(GREETING))?;
                let greeted = stream.peek(&mut [0]).is_ok_and(|n| n > 0);
                (if greeted { Start::Explicit } else { Start::Implicit }, port)
            }
        };
        Ok(*tls.found.get_or_init(|| found))
    }
}

/// A file on its way.
struct FtpReader {
    transfer: Option<TransferStream<Stream>>,
    session: Option<Session>,
    inner: Arc<Inner>,
}

impl Read for FtpReader {
    /// The end is one only once the server has said that all was sent.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(transfer) = self.transfer.as_mut() else { return Ok(0) };
        let n = transfer.read(buffer)?;
        if n > 0 || buffer.is_empty() {
            return Ok(n);
        }
        if let Some(transfer) = self.transfer.take() {
            transfer.finish().map_err(|e| of(e, StoreErrorKind::NotFound))?;
        }
        if let Some(session) = self.session.take() {
            self.inner.give_back(session);
        }
        Ok(0)
    }
}

impl Drop for FtpReader {
    fn drop(&mut self) {
        if let (Some(transfer), Some(session)) = (self.transfer.take(), &self.session) {
            let _ = session.ftp_socket_shutdown(transfer);
        }
    }
}

/// `missing` is what a 550 means.
fn of(error: FtpError, missing: StoreErrorKind) -> Failure {
    match error {
        FtpError::ConnectionError(error) => {
            let distrust = tls::is_distrust(&error.to_string());
            if distrust { Failure::new(StoreErrorKind::Denied, format!("TLS: {error}")) } else { Failure::from(error) }
        }
        FtpError::SecureError(text) => {
            let kind = if tls::is_distrust(&text) { StoreErrorKind::Denied } else { StoreErrorKind::Unreachable };
            Failure::new(kind, format!("TLS: {text}"))
        }
        FtpError::UnexpectedResponse(response) => {
            let text = String::from_utf8_lossy(&response.body).into_owned();
            Failure::new(kind_of(response.status, &text, missing), text)
        }
        FtpError::BadResponse => Failure::unreachable("the server's answer broke off or makes no sense"),
        error => Failure::new(StoreErrorKind::Other, error.to_string()),
    }
}

fn kind_of(status: Status, text: &str, missing: StoreErrorKind) -> StoreErrorKind {
    let lower = text.to_ascii_lowercase();
    let denied = ["denied", "permission", "not permitted", "not allowed"].iter().any(|w| lower.contains(w));
    match status {
        Status::InvalidCredentials | Status::NotLoggedIn | Status::StoringNeedAccount | Status::LoginNeedAccount => {
            StoreErrorKind::Denied
        }
        Status::FileUnavailable | Status::BadFilename if denied => StoreErrorKind::Denied,
        // 551 by the letter is something else, and some servers say it.
        Status::FileUnavailable | Status::BadFilename | Status::PageTypeUnknown => missing,
        Status::NotAvailable
        | Status::CannotOpenDataConnection
        | Status::TransferAborted
        | Status::RequestFileActionIgnored
        | Status::ActionAborted => StoreErrorKind::Unreachable,
        Status::BadCommand | Status::NotImplemented | Status::BadSequence | Status::NotImplementedParameter => {
            StoreErrorKind::Unusable
        }
        _ => StoreErrorKind::Other,
    }
}
