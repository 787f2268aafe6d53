//! What the URL does not say.

use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

/// How to reach a store.
#[derive(Clone)]
pub struct Options {
    /// Password of ftp, webdav, rsync and ssh, where the URL names none.
    pub password: Option<Zeroizing<String>>,
    /// `http://` or `https://` URL of an S3 server; else of the environment (`AWS_ENDPOINT_URL`), else AWS.
    pub s3_endpoint: Option<String>,
    /// Region; else of the environment or the profile.
    pub s3_region: Option<String>,
    /// Profile in the AWS configuration files.
    pub s3_profile: Option<String>,
    /// Access key and secret key, instead of looking for them where AWS tools do.
    pub s3_credentials: Option<(String, Zeroizing<String>)>,
    /// Plain HTTP to a host that the URL names without saying how (`s3://HOST:PORT/BUCKET`). Loopback addresses and
    /// port 80 are spoken to in plain HTTP anyway.
    pub s3_unencrypted: bool,
    /// Storage class of new objects, in S3's words (`STANDARD_IA`, `GLACIER`, ...); the bucket's own without. Those that have to
    /// be fetched from an archive first are for volumes alone: each backup reads manifests and signatures.
    pub s3_storage_class: Option<String>,
    /// More arguments for `ssh`, such as `-oIdentityFile=...`.
    pub ssh_arguments: Vec<String>,
    /// Certificates (PEM) that are trusted by ftp and webdav besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Programs that are run.
    pub programs: Programs,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// Longest pause within an answer.
    pub pause: Duration,
    /// Attempts at a file, with growing waits between them, until one brings it forward.
    pub attempts: u32,
    /// No repetition of a listing or of a file's opening begins later than this after the first attempt.
    pub retry_window: Duration,
    /// How many files at once; 0: what suits the protocol.
    pub connections: usize,
}

/// Where helper programs are: names, which are searched for as a shell would, or paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// OpenSSH's client.
    pub ssh: PathBuf,
    /// rsync.
    pub rsync: PathBuf,
    /// rclone.
    pub rclone: PathBuf,
}

impl Default for Programs {
    fn default() -> Self {
        Self { ssh: "ssh".into(), rsync: "rsync".into(), rclone: "rclone".into() }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            password: None,
            s3_endpoint: None,
            s3_region: None,
            s3_profile: None,
            s3_credentials: None,
            s3_unencrypted: false,
            s3_storage_class: None,
            ssh_arguments: Vec::new(),
            ca_file: None,
            programs: Programs::default(),
            connect_timeout: Duration::from_secs(7),
            pause: Duration::from_secs(60),
            attempts: 8,
            retry_window: Duration::from_secs(10),
            connections: 0,
        }
    }
}

impl Options {
    /// Defaults, with the password from `FTP_PASSWORD`, as duplicity has it for all protocols.
    #[must_use]
    pub fn from_environment() -> Self {
        let password = std::env::var("FTP_PASSWORD").ok().filter(|p| !p.is_empty());
        Self { password: password.map(Zeroizing::new), ..Self::default() }
    }

    /// `wanted` connections, unless the caller said otherwise.
    pub(crate) fn connections_or(&self, wanted: usize) -> usize {
        if self.connections == 0 { wanted } else { self.connections }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Nothing secret; arguments of ssh may be.
        f.debug_struct("Options")
            .field("s3_endpoint", &self.s3_endpoint)
            .field("s3_region", &self.s3_region)
            .field("s3_profile", &self.s3_profile)
            .field("s3_storage_class", &self.s3_storage_class)
            .field("connect_timeout", &self.connect_timeout)
            .field("pause", &self.pause)
            .field("retry_window", &self.retry_window)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}
