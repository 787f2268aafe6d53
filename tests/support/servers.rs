//! Real servers of file protocols for tests: on loopback, in a temporary directory, gone when dropped.

use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// User of all servers that ask for one.
pub const USER: &str = "testuser";
/// Password of that user.
pub const PASSWORD: &str = "test pass+ö";

const START_LIMIT: Duration = Duration::from_secs(30);

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    address: SocketAddr,
    process: Child,
    directory: TempDir,
}

impl Daemon {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A file among its own: configuration, keys, log.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts the program that `command` makes for a free port and a directory of its own.
    fn start(command: impl Fn(u16, &Path) -> Command) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        // Somebody may take the port between the look and the start.
        for _ in 0..3 {
            let address = unused_address();
            let log = File::create(directory.path().join("log")).expect("log file");
            let mut command = command(address.port(), directory.path());
            command.stdin(Stdio::null()).stdout(log.try_clone().expect("log file")).stderr(log).process_group(0);
            let mut process = command.spawn().expect("the server starts");
            if wait_until_ready(address, &mut process) {
                return Self { address, process, directory };
            }
            kill(&mut process);
        }
        let log = std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        panic!("the server does not start; its log:\n{log}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        kill(&mut self.process);
    }
}

/// An address where nobody listens, for now.
///
/// # Panics
///
/// If there is no port to be had.
pub fn unused_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port");
    listener.local_addr().expect("address")
}

fn wait_until_ready(address: SocketAddr, process: &mut Child) -> bool {
    let start = Instant::now();
    while start.elapsed() < START_LIMIT && matches!(process.try_wait(), Ok(None)) {
        if TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

fn kill(process: &mut Child) {
    if let Some(group) = i32::try_from(process.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = process.wait();
}

/// A program of the environment that `tests/setup.sh` makes, of the system's directories or of the search path. `None`,
/// after a word on standard error, where it is not installed.
///
/// # Panics
///
/// If it is not installed although `DEDUPLICITY_REQUIRE_SERVERS=1`.
pub fn program(name: &str) -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin");
    let search = std::env::var_os("PATH").unwrap_or_default();
    let folders = [own, "/usr/sbin".into()].into_iter().chain(std::env::split_paths(&search));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file()).or_else(|| absent(name))
}

/// Python with a module that `tests/setup.sh` installs; `None` as for a [`program`].
///
/// # Panics
///
/// As [`program`].
pub fn python(module: &str) -> Option<PathBuf> {
    let python = program("python")?;
    let mut import = Command::new(&python);
    import.arg("-c").arg(format!("import {module}")).stderr(Stdio::null());
    let found = import.status().is_ok_and(|status| status.success());
    if found { Some(python) } else { absent(&format!("Python's module {module}")) }
}

/// Says that something is missing: the test that needs it is skipped, or fails if it must run.
#[expect(clippy::print_stderr, reason = "the test harness shows it beside the test that did nothing")]
fn absent<T>(what: &str) -> Option<T> {
    let required = std::env::var("DEDUPLICITY_REQUIRE_SERVERS").is_ok_and(|v| v == "1");
    assert!(!required, "{what} is not installed; run tests/setup.sh");
    eprintln!("skipped: {what} is not installed; run tests/setup.sh");
    None
}

/// A certificate for 127.0.0.1 that signed itself, and its key, in one PEM file.
///
/// # Panics
///
/// If the program that makes it fails.
pub fn certificate(python: &Path, folder: &Path) -> PathBuf {
    let path = folder.join("certificate.pem");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("support/certificate.py");
    let status = Command::new(python).arg(script).arg(&path).status().expect("python runs");
    assert!(status.success(), "no certificate was made");
    path
}

/// OpenSSH's server. Logs in the user of the test, by the key `id` among its files; `ssh_config` there is for clients.
pub fn sshd() -> Option<Daemon> {
    let (_client, program, keygen) = (program("ssh")?, program("sshd")?, program("ssh-keygen")?);
    // Its own, for a process without privileges.
    let _ = std::fs::create_dir_all("/run/sshd");
    Some(Daemon::start(|port, folder| {
        for key in ["hostkey", "id", "wrong"] {
            let mut make = Command::new(&keygen);
            make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(key));
            if !folder.join(key).exists() {
                assert!(make.status().expect("ssh-keygen runs").success());
            }
        }
        let shown = folder.display();
        write(folder, "known_hosts", &format!("testhost {}", read(folder, "hostkey.pub")));
        let config = |key: &str| {
            format!(
                "Host *\n HostKeyAlias testhost\n IdentityFile {shown}/{key}\n IdentitiesOnly yes\n IdentityAgent none\n \
                 UserKnownHostsFile {shown}/known_hosts\n GlobalKnownHostsFile /dev/null\n StrictHostKeyChecking yes\n"
            )
        };
        write(folder, "ssh_config", &config("id"));
        write(folder, "ssh_config_wrong", &config("wrong"));
        let sshd_config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {shown}/hostkey\nAuthorizedKeysFile {shown}/id.pub\nPidFile none\n\
             UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             StrictModes no\nMaxStartups 100\nSubsystem sftp internal-sftp\n"
        );
        write(folder, "sshd_config", &sshd_config);
        let mut command = Command::new(&program);
        command.args(["-D", "-e", "-f"]).arg(folder.join("sshd_config"));
        command
    }))
}

/// `rclone serve KIND` of a folder, with [`USER`] and [`PASSWORD`] and more arguments.
pub fn rclone(kind: &str, folder: &Path, arguments: &[String]) -> Option<Daemon> {
    let program = program("rclone")?;
    Some(Daemon::start(|port, own| {
        let mut command = Command::new(&program);
        command.args(["--config=/dev/null", "serve", kind]).arg(folder).arg(format!("--addr=127.0.0.1:{port}"));
        command.args(["--user", USER, "--pass", PASSWORD]).arg(format!("--cache-dir={}", own.display()));
        command.args(arguments);
        command
    }))
}

/// `rclone serve s3` of a folder of buckets, with a pair of keys. It replaces objects whatever is asked of it.
pub fn rclone_s3(folder: &Path, access_key: &str, secret_key: &str) -> Option<Daemon> {
    let program = program("rclone")?;
    Some(Daemon::start(|port, own| {
        let mut command = Command::new(&program);
        command.args(["--config=/dev/null", "serve", "s3"]).arg(folder).arg(format!("--addr=127.0.0.1:{port}"));
        command.arg(format!("--auth-key={access_key},{secret_key}")).arg(format!("--cache-dir={}", own.display()));
        command
    }))
}

/// pyftpdlib with a folder and more arguments for `ftp_server.py`.
pub fn ftp(folder: &Path, arguments: &[String]) -> Option<Daemon> {
    let python = python("pyftpdlib")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("support/ftp_server.py");
    Some(Daemon::start(|port, _| {
        let mut command = Command::new(&python);
        command.arg(&script).arg(format!("--port={port}")).arg("--folder").arg(folder);
        command.args(["--user", USER, "--password", PASSWORD]).args(arguments);
        command
    }))
}

/// wsgidav with a folder.
pub fn wsgidav(folder: &Path) -> Option<Daemon> {
    let program = program("wsgidav")?;
    Some(Daemon::start(|port, own| {
        let config = format!(
            "host: 127.0.0.1\nport: {port}\nserver: cheroot\nprovider_mapping: {{\"/\": \"{}\"}}\n\
             http_authenticator: {{domain_controller: null, accept_basic: true, accept_digest: false, default_to_digest: false}}\n\
             simple_dc: {{user_mapping: {{\"*\": {{\"{USER}\": {{password: \"{PASSWORD}\"}}}}}}}}\nlogging: {{enable_loggers: []}}\n",
            folder.display()
        );
        write(own, "conf.yaml", &config);
        let mut command = Command::new(&program);
        command.arg("-c").arg(own.join("conf.yaml"));
        command
    }))
}

/// rsync's daemon; the folder is the module `files`.
pub fn rsyncd(folder: &Path) -> Option<Daemon> {
    let program = program("rsync")?;
    Some(Daemon::start(|port, own| {
        let shown = own.display();
        write(own, "secrets", &format!("{USER}:{PASSWORD}\n"));
        let secrets = own.join("secrets");
        std::fs::set_permissions(&secrets, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("permissions");
        let owner = std::os::unix::fs::MetadataExt::uid(&own.metadata().expect("own folder"));
        let config = format!(
            "address = 127.0.0.1\nport = {port}\nuse chroot = no\nuid = {owner}\nlog file = {shown}/transfer.log\nmotd file = {shown}/motd\n\
             [files]\n path = {}\n read only = no\n auth users = {USER}\n secrets file = {shown}/secrets\n",
            folder.display()
        );
        write(own, "motd", "-rw-r--r-- be welcome\n");
        write(own, "rsyncd.conf", &config);
        let mut command = Command::new(&program);
        command.args(["--daemon", "--no-detach"]).arg(format!("--config={}", own.join("rsyncd.conf").display()));
        command
    }))
}

fn write(folder: &Path, name: &str, text: &str) {
    let mut file = File::create(folder.join(name)).expect("a file of the server");
    file.write_all(text.as_bytes()).expect("a file of the server");
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).expect("a file of the server")
}
