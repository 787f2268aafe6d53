//! Files that are read.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use compat::store::{Store, StoreError, StoreErrorKind};
use deduplicity_tests::cut::Cutter;
use deduplicity_tests::seaweed::{ACCESS_KEY, SECRET_KEY, Seaweed};
use deduplicity_tests::servers::{self, Daemon, PASSWORD, USER};
use transport::Options;
use zeroize::Zeroizing;

use crate::{Share, login, no_password, options, read, ssh_options, together};

/// Longest wait for word of a server that is not there.
const PATIENCE: Duration = Duration::from_secs(20);

fn open(url: &str, options: &Options) -> Arc<dyn Store> {
    let location = transport::parse(url).unwrap_or_else(|e| panic!("{url}: {e}"));
    transport::open(&location, options).unwrap_or_else(|e| panic!("{url}: {e}"))
}

/// Lists and reads everything, alone and several at once; before a listing and after it.
fn reads_all(url: &str, options: &Options, share: &Share) {
    let store = open(url, options);
    assert_eq!(read(&*store, "empty").unwrap(), b"", "{url}: before a listing");
    assert!(!store.location().contains(PASSWORD), "{}", store.location());
    let mut listed: Vec<_> =
        store.list().unwrap_or_else(|e| panic!("{url}: {e}")).into_iter().map(|f| (f.name, f.size)).collect();
    listed.sort();
    let expected: Vec<_> = share.files.iter().map(|(name, bytes)| (name.clone(), Some(bytes.len() as u64))).collect();
    assert_eq!(listed, expected, "{url}");
    for (name, bytes) in &share.files {
        let got = read(&*store, name).unwrap_or_else(|e| panic!("{url}: {name}: {e}"));
        assert!(got == *bytes, "{url}: {name} differs");
    }
    std::thread::scope(|scope| {
        for _ in 0..store.concurrency().clamp(2, 8) {
            scope.spawn(|| assert!(read(&*store, "large.bin").unwrap() == share.files["large.bin"], "{url}"));
        }
    });
    // One that is left in the middle harms none of the others.
    store.open("large.bin").unwrap().read_exact(&mut [0; 1000]).unwrap();
    assert!(read(&*store, "large.bin").unwrap() == share.files["large.bin"], "{url}");
    for name in ["missing", "sub", "sub/inner", "../my archive/empty", ""] {
        let error = store.open(name).map(drop).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::NotFound, "{url}: {name}: {error}");
    }
}

/// A spelling of the folder that leads to the same files.
fn is_the_same(url: &str, options: &Options, share: &Share) {
    let store = open(url, options);
    let names: BTreeSet<_> = store.list().unwrap_or_else(|e| panic!("{url}: {e}")).into_iter().map(|file| file.name).collect();
    assert_eq!(names, share.files.keys().cloned().collect(), "{url}");
    let name = "with  two spaces";
    assert_eq!(read(&*store, name).unwrap_or_else(|e| panic!("{url}: {e}")), share.files[name], "{url}");
}

/// The way from one folder to another with nothing but names and `..`.
fn relative(from: &Path, to: &Path) -> String {
    let up = from.canonicalize().unwrap().components().count() - 1;
    format!("{}{}", "../".repeat(up), to.canonicalize().unwrap().strip_prefix("/").unwrap().display())
}

/// The user's home, as a server of ssh has it.
fn home() -> PathBuf {
    let own = rustix::process::getuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let fields =
        users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields.len() > 5 && fields[2] == own);
    fields.map_or_else(|| std::env::var_os("HOME").unwrap().into(), |fields| fields[5].into())
}

/// The listing fails in one line without secrets, within the time that a person waits.
fn fails(url: &str, options: &Options, kind: StoreErrorKind) -> StoreError {
    let start = Instant::now();
    let error = open(url, options).list().expect_err(url);
    let text = error.to_string();
    assert_eq!(error.kind, kind, "{url}: {text}");
    assert!(start.elapsed() < PATIENCE, "{url}: {:?}: {text}", start.elapsed());
    assert!(!text.contains('\n') && !text.contains(PASSWORD) && !text.contains("wrong-secret"), "{text}");
    assert!(text.len() < 500, "{text}");
    error
}

/// Nobody listens, or whoever does says nothing.
fn notices_absence(url: impl Fn(SocketAddr) -> String + Sync, options: &Options) {
    let nobody = || {
        let error = fails(&url(servers::unused_address()), options, StoreErrorKind::Unreachable);
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    };
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let impatient = Options { pause: Duration::from_secs(1), connect_timeout: Duration::from_secs(2), ..options.clone() };
    let mute = || drop(fails(&url(silent.local_addr().unwrap()), &impatient, StoreErrorKind::Unreachable));
    together(&[&nobody, &mute]);
}

/// A file comes whole over connections that are cut in its middle; or, if they always are, fails clearly.
fn survives_cuts(server: SocketAddr, url: impl Fn(SocketAddr) -> String + Sync, options: &Options, share: &Share) {
    together(&[&|| comes_over_cuts(server, &url, options, share), &|| gives_up_on_cuts(server, &url, options)]);
}

fn comes_over_cuts(server: SocketAddr, url: &impl Fn(SocketAddr) -> String, options: &Options, share: &Share) {
    let cutter = Cutter::start(server, 1_000_000, 2);
    let store = open(&url(cutter.address()), options);
    store.list().unwrap_or_else(|e| panic!("{}: {e}", store.location()));
    let got = read(&*store, "large.bin").unwrap_or_else(|e| panic!("{}: {e}", store.location()));
    assert!(got == share.files["large.bin"], "{}: differs after {} cuts", store.location(), cutter.cuts());
    assert!(cutter.cuts() >= 2, "{}: {} cuts", store.location(), cutter.cuts());
}

fn gives_up_on_cuts(server: SocketAddr, url: &impl Fn(SocketAddr) -> String, options: &Options) {
    let cutter = Cutter::start(server, 20_000, usize::MAX);
    let store = open(&url(cutter.address()), options);
    let error = read(&*store, "large.bin").unwrap_err();
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<StoreError>()).expect("an error of the store");
    assert_eq!(inner.kind, StoreErrorKind::Unreachable, "{inner}");
}

#[test]
fn file() {
    let share = Share::new();
    let path = share.archive().display().to_string();
    reads_all(&path, &options(), &share);
    reads_all(&format!("file://{}", path.replace(' ', "%20")), &options(), &share);
    let relative = relative(&std::env::current_dir().unwrap(), &share.archive());
    is_the_same(&relative, &options(), &share);
    is_the_same(&format!("file://{}", relative.replace(' ', "%20")), &options(), &share);
    fails(&format!("file://{path}/missing"), &options(), StoreErrorKind::NoStore);
    fails(&format!("{path}/empty"), &options(), StoreErrorKind::NoStore);
}

#[test]
fn s3() {
    let share = Share::new();
    let (Some(server), Some(rclone)) = (Seaweed::start(), servers::program("rclone")) else { return };
    let bucket = server.new_bucket();
    let at = server.address();
    let status = Command::new(rclone)
        .args(["--config=/dev/null", "copy", "--s3-provider=Other", "--s3-no-check-bucket"])
        .arg(format!("--s3-endpoint=http://{at}"))
        .args(["--s3-access-key-id", ACCESS_KEY, "--s3-secret-access-key", SECRET_KEY])
        .arg(share.archive())
        .arg(format!(":s3:{bucket}/my archive/P"))
        .status()
        .unwrap();
    assert!(status.success());
    let options = Options {
        s3_region: Some("us-east-1".into()),
        s3_credentials: Some((ACCESS_KEY.into(), Zeroizing::new(SECRET_KEY.into()))),
        ..options()
    };
    let with_endpoint = Options { s3_endpoint: Some(format!("http://{at}")), ..options.clone() };
    for scheme in ["s3://", "s3:///", "boto3+s3://", "boto+s3://", "s3+http://"] {
        is_the_same(&format!("{scheme}{bucket}/my%20archive//P/"), &with_endpoint, &share);
    }
    let url = |at: SocketAddr| format!("s3://{at}/{bucket}/my%20archive/P");
    reads_all(&url(at), &options, &share);
    reads_all(&format!("s3:http://{at}/{bucket}/my archive/P"), &options, &share);
    fails(&format!("s3://{at}/no-such-bucket/P"), &options, StoreErrorKind::NoStore);
    let wrong = Options { s3_credentials: Some((ACCESS_KEY.into(), Zeroizing::new("wrong-secret".into()))), ..options.clone() };
    fails(&url(at), &wrong, StoreErrorKind::Denied);
    together(&[&|| notices_absence(url, &options), &|| survives_cuts(at, url, &options, &share)]);
}

#[test]
fn sftp() {
    let share = Share::new();
    let Some(server) = servers::sshd() else { return };
    let options = ssh_options(&server, "ssh_config");
    let path = share.archive().display().to_string().replace(' ', "%20");
    let url = |at: SocketAddr| format!("sftp://{at}/{path}");
    reads_all(&url(server.address()), &options, &share);
    reads_all(&url(server.address()).replace("sftp:", "scp:"), &options, &share);
    // Below the home.
    let below = relative(&home(), &share.archive()).replace(' ', "%20");
    is_the_same(&format!("sftp://{}/{below}/", server.address()), &options, &share);
    fails(&format!("sftp://{}/no/such/folder", server.address()), &options, StoreErrorKind::NoStore);
    fails(&url(server.address()), &ssh_options(&server, "ssh_config_wrong"), StoreErrorKind::Denied);
    std::fs::write(server.path("known_hosts.empty"), "").unwrap();
    let mut unknown = options.clone();
    unknown.ssh_arguments.push(format!("-oUserKnownHostsFile={}", server.path("known_hosts.empty").display()));
    let error = fails(&url(server.address()), &unknown, StoreErrorKind::Denied);
    assert!(error.message.contains("Host key"), "{error}");
    together(&[&|| notices_absence(url, &options), &|| survives_cuts(server.address(), url, &options, &share)]);
}

#[test]
fn sftp_with_a_password() {
    let share = Share::new();
    let (Some(keys), Some(_)) = (servers::sshd(), servers::program("rclone")) else { return };
    let key = format!("--key={}", keys.path("hostkey").display());
    let server = servers::rclone("sftp", share.root(), &[key, "--authorized-keys=".into()]).unwrap();
    let mut options = ssh_options(&keys, "ssh_config");
    let url = format!("sftp://{USER}@{}//my%20archive", server.address());
    fails(&url, &options, StoreErrorKind::Denied);
    options.password = Some(Zeroizing::new(PASSWORD.into()));
    reads_all(&url, &options, &share);
    let (good, wrong) = (login(USER, PASSWORD), login(USER, "wrong-secret"));
    reads_all(&format!("sftp://{good}@{}//my%20archive", server.address()), &ssh_options(&keys, "ssh_config"), &share);
    fails(&format!("sftp://{wrong}@{}//my%20archive", server.address()), &options, StoreErrorKind::Denied);
}

/// FTP cuts its data connections by itself: they are others each time.
fn ftp_suite(scheme: &str, arguments: &[&str], options: &Options, share: &Share) {
    let arguments: Vec<_> = arguments.iter().map(|&a| a.to_owned()).collect();
    let Some(server) = servers::ftp(share.root(), &arguments) else { return };
    let at = server.address();
    let url = |at: SocketAddr| format!("{scheme}://{USER}@{at}/my%20archive");
    let no_password = Options { password: None, ..options.clone() };
    let (good, wrong) = (login(USER, PASSWORD), login(USER, "wrong-secret"));
    together(&[
        &|| reads_all(&url(at), options, share),
        &|| reads_all(&format!("{scheme}://{good}@{at}//my%20archive/"), &no_password, share),
        &|| drop(fails(&format!("{scheme}://{USER}@{at}/no/such"), options, StoreErrorKind::NoStore)),
        &|| drop(fails(&format!("{scheme}://{wrong}@{at}/my%20archive"), options, StoreErrorKind::Denied)),
        &|| notices_absence(url, options),
        &|| {
            let server = cutting_ftp(share, &arguments, "1000000", 2);
            let got = read(&*open(&url(server.address()), options), "large.bin").unwrap();
            assert!(got == share.files["large.bin"], "{scheme}");
        },
        &|| {
            let server = cutting_ftp(share, &arguments, "1000", usize::MAX);
            let error = read(&*open(&url(server.address()), options), "large.bin").unwrap_err();
            let inner = error.get_ref().and_then(|e| e.downcast_ref::<StoreError>()).expect("an error of the store");
            assert_eq!(inner.kind, StoreErrorKind::Unreachable, "{inner}");
        },
    ]);
}

fn cutting_ftp(share: &Share, arguments: &[String], after: &str, cuts: usize) -> Daemon {
    let cuts = [format!("--cut-after={after}"), format!("--cuts={cuts}")];
    servers::ftp(share.root(), &[arguments, &cuts].concat()).unwrap()
}

#[test]
fn ftp() {
    ftp_suite("ftp", &[], &options(), &Share::new());
}

#[test]
fn ftp_without_machine_listings() {
    let share = Share::new();
    let Some(server) = servers::ftp(share.root(), &["--no-mlsd".into()]) else { return };
    let store = open(&format!("ftp://{USER}@{}/my%20archive", server.address()), &options());
    let mut names: Vec<_> = store.list().unwrap().into_iter().map(|f| f.name).collect();
    names.sort();
    assert_eq!(names, share.files.keys().cloned().collect::<Vec<_>>());
}

#[test]
fn ftp_of_another_maker() {
    let share = Share::new();
    let Some(server) = servers::rclone("ftp", share.root(), &["--passive-port=30000-32000".into()]) else { return };
    reads_all(&format!("ftp://{USER}@{}/my%20archive", server.address()), &options(), &share);
}

#[test]
fn ftps() {
    let share = Share::new();
    let Some(python) = servers::python("cryptography, OpenSSL") else { return };
    let certificate = servers::certificate(&python, share.root());
    let trusting = Options { ca_file: Some(certificate.clone()), ..options() };
    let file = format!("--certificate={}", certificate.display());
    let suite = |tls: &str| ftp_suite("ftps", &[tls, &file], &trusting, &share);
    together(&[&|| suite("--tls=explicit"), &|| suite("--tls=implicit")]);
    let Some(server) = servers::ftp(share.root(), &["--tls=explicit".into(), file]) else { return };
    reads_all(&format!("ftpes://{USER}@{}/my%20archive", server.address()), &trusting, &share);
    let error = fails(&format!("ftps://{USER}@{}/", server.address()), &options(), StoreErrorKind::Denied);
    assert!(error.message.contains("certificate"), "{error}");
}

fn dav_suite(scheme: &str, server: &Daemon, options: &Options, share: &Share) {
    let at = server.address();
    let url = |at: SocketAddr| format!("{scheme}://{USER}@{at}/my%20archive");
    reads_all(&url(at), options, share);
    reads_all(
        &format!("{scheme}://{}@{at}/my archive/", login(USER, PASSWORD)),
        &Options { password: None, ..options.clone() },
        share,
    );
    fails(&format!("{scheme}://{USER}@{at}/no/such"), options, StoreErrorKind::NoStore);
    fails(&format!("{scheme}://{}@{at}/my%20archive", login(USER, "wrong-secret")), options, StoreErrorKind::Denied);
    together(&[&|| notices_absence(url, options), &|| survives_cuts(at, url, options, share)]);
}

#[test]
fn webdav() {
    let share = Share::new();
    let Some(server) = servers::rclone("webdav", share.root(), &[]) else { return };
    dav_suite("webdav", &server, &options(), &share);
}

#[test]
fn webdav_of_another_maker() {
    let share = Share::new();
    let Some(server) = servers::wsgidav(share.root()) else { return };
    dav_suite("webdav", &server, &options(), &share);
}

#[test]
fn webdavs() {
    let share = Share::new();
    let Some(python) = servers::python("cryptography, OpenSSL") else { return };
    let file = servers::certificate(&python, share.root());
    let arguments = [format!("--cert={}", file.display()), format!("--key={}", file.display())];
    let Some(server) = servers::rclone("webdav", share.root(), &arguments) else { return };
    dav_suite("webdavs", &server, &Options { ca_file: Some(file), ..options() }, &share);
    let error = fails(&format!("webdavs://{USER}@{}/", server.address()), &options(), StoreErrorKind::Denied);
    assert!(error.message.contains("certificate"), "{error}");
}

#[test]
fn rsync_daemon() {
    let share = Share::new();
    let Some(server) = servers::rsyncd(share.root()) else { return };
    let at = server.address();
    let url = |at: SocketAddr| format!("rsync://{USER}@{at}::/files/my%20archive");
    reads_all(&url(at), &options(), &share);
    reads_all(&format!("rsync://{}@{at}/files/my%20archive", login(USER, PASSWORD)), &no_password(), &share);
    fails(&format!("rsync://{USER}@{at}::files/no/such"), &options(), StoreErrorKind::NoStore);
    fails(&format!("rsync://{USER}@{at}::no-module/x"), &options(), StoreErrorKind::NoStore);
    fails(&format!("rsync://{}@{at}::files/my%20archive", login(USER, "wrong-secret")), &options(), StoreErrorKind::Denied);
    fails(&url(at), &no_password(), StoreErrorKind::Denied);
    together(&[&|| notices_absence(url, &options()), &|| survives_cuts(at, url, &options(), &share)]);
}

#[test]
fn rsync_over_ssh() {
    let share = Share::new();
    let (Some(server), Some(_)) = (servers::sshd(), servers::program("rsync")) else { return };
    let options = ssh_options(&server, "ssh_config");
    let path = share.archive().display().to_string().replace(' ', "%20");
    let url = |at: SocketAddr| format!("rsync://{at}/{path}");
    reads_all(&url(server.address()), &options, &share);
    // Below the home, as duplicity means it: no daemon greets at that port.
    let below = relative(&home(), &share.archive()).replace(' ', "%20");
    is_the_same(&format!("rsync://{}/{below}", server.address()), &options, &share);
    fails(&format!("rsync://{}/no/such/folder", server.address()), &options, StoreErrorKind::NoStore);
    fails(&url(server.address()), &ssh_options(&server, "ssh_config_wrong"), StoreErrorKind::Denied);
    together(&[&|| notices_absence(url, &options), &|| survives_cuts(server.address(), url, &options, &share)]);
}

#[test]
fn rclone() {
    let share = Share::new();
    let Some(program) = servers::program("rclone") else { return };
    let mut options = no_password();
    options.programs.rclone = program.clone();
    reads_all(&format!("rclone::local:{}", share.archive().display()).replace("%20", "%2520"), &options, &share);
    fails(&format!("rclone::local:{}/no/such", share.root().display()), &options, StoreErrorKind::NoStore);
    fails("rclone://no-such-remote:/x", &options, StoreErrorKind::Unusable);

    let Some(server) = servers::rclone("webdav", share.root(), &[]) else { return };
    let obscure = |password: &str| {
        let out = Command::new(&program).args(["obscure", password]).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    let remote = |at: SocketAddr, pass: &str| {
        format!("rclone::webdav,url=\"http://{at}\",vendor=other,user={USER},pass={pass}:my archive")
    };
    let good = obscure(PASSWORD);
    let url = |at: SocketAddr| remote(at, &good);
    reads_all(&url(server.address()), &options, &share);
    fails(&remote(server.address(), &obscure("wrong-secret")), &options, StoreErrorKind::Denied);
    let error = fails(&url(servers::unused_address()), &options, StoreErrorKind::Unreachable);
    assert!(!error.to_string().contains(&good), "{error}");
    survives_cuts(server.address(), url, &options, &share);
}

#[test]
fn missing_programs_are_named() {
    let mut options = no_password();
    options.programs = transport::Programs { ssh: "/no/ssh".into(), rsync: "/no/rsync".into(), rclone: "/no/rclone".into() };
    for (url, package) in
        [("sftp://h/x", "openssh-client"), ("rsync://h::m/x", "package rsync"), ("rclone:r:x", "package rclone")]
    {
        let error = fails(url, &options, StoreErrorKind::Unusable);
        assert!(error.message.contains("not installed") && error.message.contains(package), "{error}");
    }
}

#[test]
fn hosts_without_a_name_are_told_of() {
    let told = |url: &str| {
        let mut options = options();
        options.s3_credentials = Some(("a".into(), Zeroizing::new("b".into())));
        let error = fails(url, &options, StoreErrorKind::Unreachable);
        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
    };
    let s3 = || told("s3:http://no-such-host.invalid/bucket/x");
    together(&[&|| told("ftp://no-such-host.invalid/x"), &|| told("webdav://no-such-host.invalid/x"), &s3]);
}
