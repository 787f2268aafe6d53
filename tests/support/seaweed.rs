//! A real S3 server for tests: SeaweedFS on loopback, in a temporary directory.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use engine_s3::{S3Backend, S3Options};

/// Access key of the server.
pub const ACCESS_KEY: &str = "TESTACCESSKEY0000000";
/// Secret key of the server.
pub const SECRET_KEY: &str = "testsecret0123456789testsecret0123456789";

const START_LIMIT: Duration = Duration::from_secs(30);

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Seaweed {
    address: SocketAddr,
    process: Child,
    buckets: AtomicU16,
    // Dropped after the server was killed.
    _directory: tempfile::TempDir,
}

impl Seaweed {
    /// The server that the tests of this process share while any of them holds it. `None`, after a word on standard
    /// error, where `weed` is not installed.
    ///
    /// # Panics
    ///
    /// If it does not start, or is not installed although `DEDUPLICITY_REQUIRE_SERVERS=1`.
    pub fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Seaweed>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return Some(server);
        }
        let server = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&server);
        Some(server)
    }

    /// A server of one's own; see [`Seaweed::shared`].
    ///
    /// # Panics
    ///
    /// As [`Seaweed::shared`].
    pub fn start() -> Option<Self> {
        let program = find_program()?;
        let directory = tempfile::tempdir().expect("temporary directory");
        // Somebody may take the ports between the look and the start.
        for _ in 0..3 {
            let ports = free_ports();
            let mut process = spawn(&program, directory.path(), ports);
            let address = SocketAddr::from(([127, 0, 0, 1], ports));
            if wait_until_ready(address, &mut process) {
                return Some(Self { address, process, buckets: AtomicU16::new(0), _directory: directory });
            }
            kill(&mut process);
        }
        let log = std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(20).collect();
        panic!("weed does not start; the end of its log, last line first:\n{}", tail.join("\n"));
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Options for a bucket on this server, or on a proxy before it.
    ///
    /// # Panics
    ///
    /// If the names are no good.
    pub fn options(address: SocketAddr, bucket: &str, prefix: &str) -> S3Options {
        let mut options = S3Options::new(bucket, prefix).expect("bucket and prefix");
        options.endpoint = Some(format!("http://{address}"));
        options.region = Some("us-east-1".to_owned());
        options.credentials = Some((ACCESS_KEY.to_owned(), SECRET_KEY.to_owned()));
        options
    }

    /// Makes a new bucket with Object Lock; its name.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn new_locking_bucket(&self) -> String {
        let bucket = format!("locking-{}", self.buckets.fetch_add(1, Ordering::Relaxed));
        let backend = S3Backend::open(Self::options(self.address, &bucket, "")).expect("client");
        backend.create_locking_bucket().expect("bucket");
        bucket
    }

    /// Makes a new bucket; its name.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn new_bucket(&self) -> String {
        let bucket = format!("bucket-{}", self.buckets.fetch_add(1, Ordering::Relaxed));
        let backend = S3Backend::open(Self::options(self.address, &bucket, "")).expect("client");
        backend.create_bucket().expect("bucket");
        bucket
    }
}

impl Drop for Seaweed {
    fn drop(&mut self) {
        kill(&mut self.process);
    }
}

/// `DEDUPLICITY_WEED`, the environment that `tests/setup.sh` makes, or the search path.
#[expect(clippy::print_stderr, reason = "the test harness shows it beside the test that did nothing")]
pub(crate) fn find_program() -> Option<PathBuf> {
    let local = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/weed");
    let search = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::var_os("DEDUPLICITY_WEED").map(PathBuf::from);
    let in_path = std::env::split_paths(&search).map(|d| d.join("weed")).collect::<Vec<_>>();
    let found = named.into_iter().chain([local]).chain(in_path).find(|p| p.is_file());
    if found.is_none() {
        let required = std::env::var("DEDUPLICITY_REQUIRE_SERVERS").is_ok_and(|v| v == "1");
        assert!(!required, "weed (SeaweedFS) is not installed; run tests/setup.sh");
        eprintln!("skipped: weed (SeaweedFS) is not installed; run tests/setup.sh");
    }
    found
}

/// The first of five ports in a row that are free, and so are those 10000 higher (for the server's own protocol).
pub(crate) fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 1000).unwrap_or(0) * 10;
    for _ in 0..1000 {
        let base = 10_240 + (start + NEXT.fetch_add(10, Ordering::Relaxed)) % 10_000;
        let mut all = (base..base + 5).flat_map(|p| [p, p + 10_000]);
        if all.all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return base;
        }
    }
    panic!("no free ports");
}

fn spawn(program: &Path, directory: &Path, port: u16) -> Child {
    let data = directory.join("data");
    std::fs::create_dir_all(&data).expect("data directory");
    let log = File::create(directory.join("log")).expect("log file");
    let mut command = Command::new(program);
    command
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .env("HOME", directory)
        .args(["-logtostderr=true", "mini", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
        .arg(format!("-dir={}", data.display()))
        // Told to its makers otherwise.
        .arg("-master.telemetry=false")
        .args(["-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"])
        // Else a PUT makes a missing bucket, and deleting a bucket empties it.
        .args(["-s3.autoCreateBucket=false", "-s3.allowDeleteBucketNotEmpty=false"]);
    for (offset, service) in (0..).zip(["s3", "master", "volume", "filer", "admin"]) {
        command.arg(format!("-{service}.port={}", port + offset));
    }
    command.current_dir(directory).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("log file")).stderr(log).process_group(0);
    command.spawn().expect("start weed")
}

pub(crate) fn wait_until_ready(address: SocketAddr, process: &mut Child) -> bool {
    let start = Instant::now();
    while start.elapsed() < START_LIMIT {
        if !matches!(process.try_wait(), Ok(None)) {
            return false;
        }
        if answers(address).unwrap_or(false) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

fn answers(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    Ok(head.ends_with(b" 200"))
}

/// Ends the whole group: it does not always end when asked to.
pub(crate) fn kill(process: &mut Child) {
    if let Some(group) = i32::try_from(process.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = process.wait();
}
