//! Three SeaweedFS servers on loopback that keep every object twice, and that can be killed one by one.
//!
//! Their names of objects are in one Redis that all of them share. Without it each server keeps its own and tells the others
//! later: listings then lag, which no maintenance can live with (`docs/design.md`, what a store must promise).

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use engine_s3::S3Backend;

use crate::seaweed::{ACCESS_KEY, SECRET_KEY, Seaweed, find_program, free_ports, kill, wait_until_ready};

/// How many servers there are.
pub const NODES: usize = 3;

/// The servers; killed when dropped.
#[derive(Debug)]
pub struct Cluster {
    program: PathBuf,
    /// The first of each server's ports: S3, master, volume, filer.
    ports: [u16; NODES],
    processes: Mutex<Vec<Child>>,
    names: Child,
    // Dropped after the servers were killed.
    directory: tempfile::TempDir,
}

impl Cluster {
    /// Starts all; `None`, after a word on standard error, where `weed` or `redis-server` is not installed.
    ///
    /// # Panics
    ///
    /// If one does not start, or `weed` is not installed although `DEDUPLICITY_REQUIRE_SERVERS=1`.
    #[expect(clippy::print_stderr, reason = "the test harness shows it beside the test that did nothing")]
    pub fn start() -> Option<Self> {
        let program = find_program()?;
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: redis-server is not installed");
            return None;
        }
        let directory = tempfile::tempdir().expect("temporary directory");
        let identity = format!(
            r#"{{"identities":[{{"name":"test","credentials":[{{"accessKey":"{ACCESS_KEY}","secretKey":"{SECRET_KEY}"}}],
            "actions":["Admin","Read","Write","List","Tagging"]}}]}}"#
        );
        std::fs::write(directory.path().join("s3.json"), identity).expect("configuration");
        let names_port = free_ports();
        let names = keep_names(directory.path(), names_port);
        let settings = directory.path().join(".seaweedfs");
        std::fs::create_dir(&settings).expect("configuration");
        let store = format!("[redis2]\nenabled = true\naddress = \"127.0.0.1:{names_port}\"\ndatabase = 0\n");
        std::fs::write(settings.join("filer.toml"), store).expect("configuration");
        let ports = [(); NODES].map(|()| free_ports());
        let cluster = Self { program, ports, processes: Mutex::default(), names, directory };
        let processes = (0..NODES).map(|node| cluster.spawn(node)).collect();
        *cluster.lock() = processes;
        (0..NODES).for_each(|node| cluster.wait(node));
        Some(cluster)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Child>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a server listens for S3.
    pub fn address(&self, node: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[node]))
    }

    /// Makes a bucket.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn make_bucket(&self, name: &str) {
        let backend = S3Backend::open(Seaweed::options(self.address(0), name, "")).expect("client");
        // A server that answers may still be looking for the others.
        let made = (0..50).any(|_| {
            let made = backend.create_bucket().is_ok();
            if !made {
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
            made
        });
        assert!(made, "no bucket can be made");
    }

    /// Kills a server as a power cut does.
    pub fn kill(&self, node: usize) {
        kill(&mut self.lock()[node]);
    }

    /// Starts a killed server again and waits until it answers.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn restart(&self, node: usize) {
        let process = self.spawn(node);
        self.lock()[node] = process;
        self.wait(node);
    }

    fn wait(&self, node: usize) {
        let ready = wait_until_ready(self.address(node), &mut self.lock()[node]);
        let log = std::fs::read_to_string(self.directory.path().join(format!("log{node}"))).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(20).collect();
        assert!(ready, "weed does not start; the end of its log, last line first:\n{}", tail.join("\n"));
    }

    fn spawn(&self, node: usize) -> Child {
        let data = self.directory.path().join(format!("data{node}"));
        std::fs::create_dir_all(&data).expect("data directory");
        let log = self.directory.path().join(format!("log{node}"));
        let log = File::options().append(true).create(true).open(log).expect("log file");
        let peers: Vec<String> = self.ports.iter().map(|port| format!("127.0.0.1:{}", port + 1)).collect();
        let mut command = Command::new(&self.program);
        command
            .env("HOME", self.directory.path())
            .args(["-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-rack=r1", "-dataCenter=dc1"])
            .arg(format!("-dir={}", data.display()))
            // Told to its makers otherwise.
            .arg("-master.telemetry=false")
            .arg(format!("-master.peers={}", peers.join(",")))
            // Two copies, on different servers of a rack.
            .args(["-master.defaultReplication=001", "-master.electionTimeout=1s", "-master.heartbeatInterval=100ms"])
            .args(["-master.volumeSizeLimitMB=256", "-volume.max=0", "-volume.preStopSeconds=0", "-filer", "-s3"])
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"])
            .arg(format!("-s3.config={}", self.directory.path().join("s3.json").display()));
        for (offset, service) in (0..).zip(["s3", "master", "volume", "filer"]) {
            command.arg(format!("-{service}.port={}", self.ports[node] + offset));
        }
        command.current_dir(&data).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("log file")).stderr(log).process_group(0);
        command.spawn().expect("start weed")
    }
}

/// A database in memory; every change is in its journal before the answer.
fn keep_names(directory: &Path, port: u16) -> Child {
    let log = File::create(directory.join("names.log")).expect("log file");
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--port", &port.to_string()]);
    command.arg("--dir").arg(directory).stdin(Stdio::null()).stdout(log.try_clone().expect("log file")).stderr(log);
    command.process_group(0).spawn().expect("start redis-server")
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.lock().iter_mut().for_each(kill);
        kill(&mut self.names);
    }
}
