//! A bad network: an HTTP/1.1 proxy on loopback that does harm to single requests.
//!
//! Knows just enough HTTP for S3: bodies by length, replies by length or in chunks. The `Host` header passes untouched,
//! so signatures stay valid. Each request gets a connection of its own to the server.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Harm done to a request.
#[derive(Clone, Debug)]
pub enum Harm {
    /// Passed on this much later.
    Delay(Duration),
    /// Answered with this status and S3 code, not passed on.
    Status(u16, &'static str),
    /// Connection reset, not passed on.
    Reset,
    /// No answer for so long, then a reset; not passed on.
    Hang(Duration),
    /// Done by the server, but the client sees a reset.
    LostReply,
    /// The reply's body ends with a reset after so many bytes.
    CutReply(usize),
    /// One bit of this byte of the reply's body is turned round.
    FlipReply(usize),
    /// One bit of this byte of the request's body is turned round.
    FlipRequest(usize),
}

/// Which requests are harmed, and how.
#[derive(Clone, Debug)]
pub struct Rule {
    method: &'static str,
    path: String,
    skip: usize,
    times: usize,
    harm: Harm,
}

impl Rule {
    /// All requests of a method (`""`: of any).
    pub fn new(method: &'static str, harm: Harm) -> Self {
        Self { method, path: String::new(), skip: 0, times: usize::MAX, harm }
    }

    /// Only where path and query contain `part`.
    #[must_use]
    pub fn path(self, part: &str) -> Self {
        Self { path: part.to_owned(), ..self }
    }

    /// The first `skip` that match pass.
    #[must_use]
    pub fn skip(self, skip: usize) -> Self {
        Self { skip, ..self }
    }

    /// No more than `times`.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    fn strikes(&mut self, method: &str, path: &str) -> bool {
        let matches = (self.method.is_empty() || self.method == method) && path.contains(&self.path);
        if !matches || self.times == 0 {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.times -= 1;
        true
    }
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    rules: Mutex<Vec<Rule>>,
    requests: Mutex<Vec<String>>,
    /// Bytes per second for all connections together, both ways; 0: no limit.
    rate: AtomicU64,
    /// When the line is free again.
    free_at: Mutex<Instant>,
    stop: AtomicBool,
}

/// A running proxy; takes no more connections once dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Starts one before `server`.
    ///
    /// # Panics
    ///
    /// If there is no port to be had.
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let address = listener.local_addr().expect("address");
        let shared = Arc::new(Shared {
            server,
            rules: Mutex::default(),
            requests: Mutex::default(),
            rate: AtomicU64::new(0),
            free_at: Mutex::new(Instant::now()),
            stop: AtomicBool::new(false),
        });
        let state = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if state.stop.load(Ordering::Relaxed) {
                    break;
                }
                let state = Arc::clone(&state);
                thread::spawn(move || state.serve(&client));
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a rule; the first that strikes decides.
    pub fn inject(&self, rule: Rule) {
        lock(&self.shared.rules).push(rule);
    }

    /// Takes all rules away.
    pub fn heal(&self) {
        lock(&self.shared.rules).clear();
    }

    /// Limits the bytes per second of all connections together.
    pub fn set_rate(&self, bytes_per_second: u64) {
        self.shared.rate.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Number of requests so far that begin with `start`, such as `"PUT /bucket/"`.
    pub fn count(&self, start: &str) -> usize {
        lock(&self.shared.requests).iter().filter(|r| r.starts_with(start)).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// A request or a reply.
struct Message {
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Shared {
    fn serve(&self, client: &TcpStream) {
        let mut input = BufReader::new(client);
        while !self.stop.load(Ordering::Relaxed) {
            match self.one_request(&mut input, client) {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => {
                    // Closed without a word: a reset.
                    let _ = rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO));
                    return;
                }
            }
        }
    }

    /// Whether another one may follow.
    fn one_request(&self, input: &mut BufReader<&TcpStream>, mut client: &TcpStream) -> io::Result<bool> {
        let Some(mut request) = read_head(input)? else { return Ok(false) };
        let line = String::from_utf8_lossy(&request.head).lines().next().unwrap_or_default().to_owned();
        let (method, path) = line.split_once(' ').unwrap_or_default();
        lock(&self.requests).push(line.clone());
        let harm = lock(&self.rules).iter_mut().find_map(|r| r.strikes(method, path).then(|| r.harm.clone()));
        match harm {
            Some(Harm::Delay(delay)) => thread::sleep(delay),
            Some(Harm::Hang(time)) => {
                thread::sleep(time);
                return Err(io::ErrorKind::TimedOut.into());
            }
            Some(Harm::Reset) => return Err(io::ErrorKind::ConnectionReset.into()),
            _ => {}
        }
        if header(&request.head, "expect").is_some() {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            let text = String::from_utf8_lossy(&request.head).into_owned();
            let kept = text.split_inclusive("\r\n").filter(|l| !l.to_ascii_lowercase().starts_with("expect:"));
            request.head = kept.collect::<String>().into_bytes();
        }
        read_body(input, &mut request, false)?;
        self.take_time(request.body.len());
        if let Some(Harm::Status(status, code)) = harm {
            let body = if method == "HEAD" { String::new() } else { error_body(code) };
            let length = body.len();
            write!(
                client,
                "HTTP/1.1 {status} Harmed\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\n\r\n{body}"
            )?;
            return Ok(true);
        }
        if let Some(Harm::FlipRequest(at)) = harm {
            flip(&mut request.body, at);
        }
        let mut reply = self.forward(&request, method)?;
        self.take_time(reply.body.len());
        match harm {
            Some(Harm::LostReply) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(Harm::CutReply(length)) => {
                reply.body.truncate(length);
                client.write_all(&reply.head)?;
                client.write_all(&reply.body)?;
                client.flush()?;
                // Long enough for the client to read what it is meant to get: a reset throws away what is not read.
                thread::sleep(Duration::from_millis(50));
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Some(Harm::FlipReply(at)) => flip(&mut reply.body, at),
            _ => {}
        }
        client.write_all(&reply.head)?;
        client.write_all(&reply.body)?;
        let closes = |head: &[u8]| header(head, "connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        Ok(!closes(&request.head) && !closes(&reply.head))
    }

    fn forward(&self, request: &Message, method: &str) -> io::Result<Message> {
        let mut server = TcpStream::connect(self.server)?;
        server.set_nodelay(true)?;
        server.write_all(&request.head)?;
        server.write_all(&request.body)?;
        let mut input = BufReader::new(&server);
        loop {
            let mut reply = read_head(&mut input)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let status = reply.head.get(9..12).unwrap_or_default().to_vec();
            if status.starts_with(b"1") {
                continue;
            }
            if method != "HEAD" && status != b"204" && status != b"304" {
                read_body(&mut input, &mut reply, true)?;
            }
            return Ok(reply);
        }
    }

    /// Waits as long as so many bytes take on a line that all connections share.
    fn take_time(&self, bytes: usize) {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return;
        }
        let end = {
            let mut free_at = lock(&self.free_at);
            let micros = bytes as u64 * 1_000_000 / rate;
            *free_at = (*free_at).max(Instant::now()) + Duration::from_micros(micros);
            *free_at
        };
        thread::sleep(end.saturating_duration_since(Instant::now()));
    }
}

fn flip(body: &mut [u8], at: usize) {
    if let Some(byte) = body.get_mut(at) {
        *byte ^= 1;
    }
}

fn error_body(code: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>harmed</Message></Error>")
}

/// Up to the empty line; `None` at the end of the connection.
fn read_head(input: &mut impl BufRead) -> io::Result<Option<Message>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if input.read_until(b'\n', &mut head)? == 0 {
            return if head.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
    Ok(Some(Message { head, body: Vec::new() }))
}

fn header(head: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(head);
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}

/// The body as it stands on the wire, chunk sizes included.
fn read_body(input: &mut impl BufRead, message: &mut Message, until_end: bool) -> io::Result<()> {
    let body = &mut message.body;
    if let Some(length) = header(&message.head, "content-length").and_then(|v| v.parse::<u64>().ok()) {
        let got = input.take(length).read_to_end(body)?;
        return if got as u64 == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
    }
    if header(&message.head, "transfer-encoding").is_none() {
        return if until_end { input.read_to_end(body).map(drop) } else { Ok(()) };
    }
    loop {
        let start = body.len();
        input.read_until(b'\n', body)?;
        let line = String::from_utf8_lossy(&body[start..]).into_owned();
        let size = line.trim().split(';').next().and_then(|s| u64::from_str_radix(s, 16).ok());
        let size = size.ok_or(io::ErrorKind::InvalidData)?;
        input.take(size + 2).read_to_end(body)?;
        if size == 0 {
            return Ok(());
        }
    }
}
