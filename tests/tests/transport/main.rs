//! One suite for the stores behind all of duplicity's URLs, against real servers on loopback.
#![expect(clippy::unwrap_used, reason = "all of it is a test")]

mod reading;
mod writing;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use compat::store::Store;
use deduplicity_tests::servers::{Daemon, PASSWORD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tempfile::TempDir;
use transport::Options;
use zeroize::Zeroizing;

const LARGE: usize = 3_000_000;

fn options() -> Options {
    Options { password: Some(Zeroizing::new(PASSWORD.to_owned())), ..no_password() }
}

/// Gives up sooner than people would.
fn no_password() -> Options {
    Options { attempts: 3, retry_window: Duration::from_secs(2), ..Options::default() }
}

/// What no compression makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[6]
    };
    (0..length).map(|_| next()).collect()
}

/// A folder with files of all sizes and names, and with what is no file.
struct Share {
    folder: TempDir,
    files: BTreeMap<String, Vec<u8>>,
}

impl Share {
    fn new() -> Self {
        let files = [
            ("duplicity-full.20231114T221320Z.vol1.difftar.gz", b"small".to_vec()),
            ("large.bin", noise(LARGE)),
            ("empty", Vec::new()),
            ("with  two spaces", b"spaces".to_vec()),
            ("ünï ☃.txt", b"not ASCII".to_vec()),
            ("a+b%20c#d&e;f='g'", b"what URLs and shells stumble over".to_vec()),
        ];
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("my archive");
        std::fs::create_dir_all(archive.join("sub")).unwrap();
        std::fs::write(archive.join("sub/inner"), "not of the folder").unwrap();
        let files: BTreeMap<_, _> = files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
        for (name, bytes) in &files {
            std::fs::write(archive.join(name), bytes).unwrap();
        }
        Self { folder, files }
    }

    /// What servers serve; the archive is in `my archive`, percent-encoded `my%20archive`.
    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn archive(&self) -> PathBuf {
        self.folder.path().join("my archive")
    }
}

fn read(store: &dyn Store, name: &str) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    store.open(name).map_err(std::io::Error::other)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn login(user: &str, password: &str) -> String {
    format!("{}:{}", user, utf8_percent_encode(password, NON_ALPHANUMERIC))
}

/// Runs parts of a test at once: most of their time is waiting for servers that say nothing.
fn together(parts: &[&(dyn Fn() + Sync)]) {
    std::thread::scope(|scope| {
        for part in parts {
            scope.spawn(part);
        }
    });
}

/// Options whose ssh knows nothing but the server's own files.
fn ssh_options(server: &Daemon, config: &str) -> Options {
    let arguments = vec!["-F".to_owned(), server.path(config).display().to_string()];
    Options { ssh_arguments: arguments, ..no_password() }
}
