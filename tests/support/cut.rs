//! A bad network for any protocol over one TCP connection: connections that end in the middle of what goes one way.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    /// What the client sends is cut, not what it gets.
    requests: bool,
    /// Bytes that pass.
    after: usize,
    /// Connections still to be cut.
    left: AtomicUsize,
    cuts: AtomicUsize,
    stop: AtomicBool,
}

/// Passes connections on and resets the first so many of those over which a server, or a client, sends more than so much.
#[derive(Debug)]
pub struct Cutter {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Cutter {
    /// Before `server`: lets `after` bytes of its answers pass, `times` times.
    ///
    /// # Panics
    ///
    /// If there is no port to be had.
    pub fn start(server: SocketAddr, after: usize, times: usize) -> Self {
        Self::start_for(server, false, after, times)
    }

    /// As [`Cutter::start`], for what clients send.
    ///
    /// # Panics
    ///
    /// If there is no port to be had.
    pub fn of_requests(server: SocketAddr, after: usize, times: usize) -> Self {
        Self::start_for(server, true, after, times)
    }

    fn start_for(server: SocketAddr, requests: bool, after: usize, times: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let address = listener.local_addr().expect("address");
        let (left, cuts, stop) = (AtomicUsize::new(times), AtomicUsize::new(0), AtomicBool::new(false));
        let shared = Arc::new(Shared { server, requests, after, left, cuts, stop });
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

    /// How many connections were cut.
    pub fn cuts(&self) -> usize {
        self.shared.cuts.load(Ordering::Relaxed)
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, client: &TcpStream) {
        let Ok(server) = TcpStream::connect(self.server) else { return };
        let (from, to) = if self.requests { (client, &server) } else { (&server, client) };
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = std::io::copy(&mut &*to, &mut &*from);
                let _ = from.shutdown(Shutdown::Write);
            });
            if self.pass(from, to) {
                let _ = to.shutdown(Shutdown::Write);
            } else {
                self.cuts.fetch_add(1, Ordering::Relaxed);
                // Long enough for the client to read what it is meant to get: a reset throws away what is not read.
                thread::sleep(Duration::from_millis(50));
                let _ = rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO));
                let _ = client.shutdown(Shutdown::Both);
                let _ = server.shutdown(Shutdown::Both);
            }
        });
    }

    /// Passes on what comes; false where it is to be cut.
    fn pass(&self, mut from: &TcpStream, mut to: &TcpStream) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        let mut passed = 0;
        let mut mine = false;
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            mine = mine || (passed + n > self.after && self.take_one());
            if mine {
                let _ = to.write_all(&buffer[..self.after.saturating_sub(passed)]);
                return false;
            }
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
            passed += n;
        }
        true
    }

    fn take_one(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}
