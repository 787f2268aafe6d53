//! Files that are written: complete under their names, or not there.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use compat::store::{StoreError, StoreErrorKind, Target};
use deduplicity_tests::cut::Cutter;
use deduplicity_tests::seaweed::{ACCESS_KEY, SECRET_KEY, Seaweed};
use deduplicity_tests::servers::{self, Daemon, PASSWORD, USER};
use transport::Options;
use zeroize::Zeroizing;

use crate::{LARGE, Share, login, no_password, noise, options, read, ssh_options, together};

/// A folder two levels below all that there is, percent-encoded.
const NEW: &str = "new%20one/archive";

fn open(url: &str, options: &Options) -> Arc<dyn Target> {
    let location = transport::parse(url).unwrap_or_else(|e| panic!("{url}: {e}"));
    transport::open_target(&location, options).unwrap_or_else(|e| panic!("{url}: {e}"))
}

fn put(target: &dyn Target, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let mut upload = target.create(name)?;
    upload.write_all(bytes).unwrap();
    upload.finish()
}

/// What another one sees there.
fn content(url: &str, options: &Options) -> BTreeMap<String, Vec<u8>> {
    let store = open(url, options);
    let files = store.list_or_nothing().unwrap_or_else(|e| panic!("{url}: {e}"));
    let with_content = |name: String| {
        let bytes = read(&*store, &name).unwrap_or_else(|e| panic!("{url}: {name}: {e}"));
        (name, bytes)
    };
    files.into_iter().map(|file| with_content(file.name)).collect()
}

/// The whole life of an archive at `url`, where nothing is yet. `folder` is where its files are seen on this machine.
fn writes_all(url: &str, options: &Options, folder: Option<&Path>) {
    let target = open(url, options);
    target.remove("never there").unwrap_or_else(|e| panic!("{url}: {e}"));
    assert_eq!(target.list_or_nothing().unwrap_or_else(|e| panic!("{url}: {e}")), [], "{url}");
    let mut files = Share::new().files;
    // Read as parameters of a URL by wsgidav.
    files.remove("a+b%20c#d&e;f='g'");
    files.insert("a+b%20c#d&e='f'".to_owned(), b"what URLs and shells stumble over".to_vec());
    for (name, bytes) in &files {
        put(&*target, name, bytes).unwrap_or_else(|e| panic!("{url}: {e}"));
    }
    assert!(found(url, options, folder) == files, "{url}: {:?}", target.list());
    // The same object reads what it wrote.
    target.list().unwrap();
    for (name, bytes) in [("large.bin", b"shorter".to_vec()), ("empty", noise(100_000))] {
        put(&*target, name, &bytes).unwrap_or_else(|e| panic!("{url}: {e}"));
        assert!(read(&*target, name).unwrap() == bytes, "{url}: {name}");
        files.insert(name.to_owned(), bytes);
    }
    target.create("left alone").unwrap().write_all(&[1; 500_000]).unwrap();
    std::thread::scope(|scope| {
        for i in 0..3_u8 {
            let (target, name, bytes) = (&target, format!("file {i}"), vec![i; 400_000]);
            files.insert(name.clone(), bytes.clone());
            scope.spawn(move || put(&**target, &name, &bytes).unwrap_or_else(|e| panic!("{e}")));
        }
    });
    assert!(found(url, options, folder) == files, "{url}: {:?}", target.list());
    for name in ["ünï ☃.txt", "file 1", "never there", "..", "../my archive"] {
        target.remove(name).unwrap_or_else(|e| panic!("{url}: {e}"));
        files.remove(name);
    }
    let left: Vec<_> = files.keys().cloned().collect();
    let mut listed: Vec<_> = target.list().unwrap().into_iter().map(|file| file.name).collect();
    listed.sort();
    assert_eq!(listed, left, "{url}");
    for name in ["", ".", "..", "a/b", ".deduplicity-x"] {
        assert_eq!(target.create(name).map(drop).unwrap_err().kind, StoreErrorKind::Unusable, "{url}: {name:?}");
    }
    if let Some(folder) = folder {
        assert!(on_disk(folder) == files, "{url}: what is not listed");
    }
}

/// What is there, by the shorter way.
fn found(url: &str, options: &Options, folder: Option<&Path>) -> BTreeMap<String, Vec<u8>> {
    folder.map_or_else(|| content(url, options), on_disk)
}

fn on_disk(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect()
}

/// The failure of a file that cannot be put.
fn refuses(url: &str, options: &Options, kind: StoreErrorKind) {
    let error = put(&*open(url, options), "refused", &noise(LARGE)).expect_err(url);
    let text = error.to_string();
    assert_eq!(error.kind, kind, "{url}: {text}");
    assert!(!text.contains('\n') && !text.contains(PASSWORD) && !text.contains("wrong-secret"), "{text}");
}

/// Files that are cut in their middle come whole after all; or, if they always are, are as they were before.
fn survives_cuts(server: SocketAddr, url: impl Fn(SocketAddr) -> String + Sync, options: &Options) {
    let cutter = Cutter::of_requests(server, 1_000_000, 2);
    let always = Cutter::of_requests(server, 100_000, usize::MAX);
    comes_whole_or_not_at_all(&url(server), &url(cutter.address()), &url(always.address()), options);
    assert!(cutter.cuts() >= 2, "{}: {} cuts", url(server), cutter.cuts());
    assert!(always.cuts() > 2, "{}: {} cuts", url(server), always.cuts());
}

/// Half of that, where each attempt takes its time.
fn comes_over_cuts(server: SocketAddr, url: &dyn Fn(SocketAddr) -> String, options: &Options) {
    let cutter = Cutter::of_requests(server, 1_000_000, 2);
    let bytes = noise(LARGE);
    put(&*open(&url(cutter.address()), options), "cut", &bytes).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(cutter.cuts(), 2, "{}", url(server));
    assert!(read(&*open(&url(server), options), "cut").unwrap() == bytes, "{}", url(server));
}

fn comes_whole_or_not_at_all(url: &str, cut: &str, always_cut: &str, options: &Options) {
    let (old, new) = (b"old".to_vec(), noise(LARGE));
    let target = open(url, options);
    for name in ["cut", "always cut"] {
        put(&*target, name, &old).unwrap_or_else(|e| panic!("{url}: {e}"));
    }
    let comes = || put(&*open(cut, options), "cut", &new).unwrap_or_else(|e| panic!("{cut}: {e}"));
    let never_comes = || {
        for name in ["always cut", "new"] {
            let error = put(&*open(always_cut, options), name, &new).expect_err(always_cut);
            assert_eq!(error.kind, StoreErrorKind::Unreachable, "{always_cut}: {error}");
        }
    };
    together(&[&comes, &never_comes]);
    let found = content(url, options);
    assert!(found["cut"] == new && found["always cut"] == old, "{url}");
    assert!(!found.contains_key("new"), "{url}: {:?}", found.keys());
}

#[test]
fn file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new one/archive");
    writes_all(&format!("file://{}/{NEW}", folder.path().display()), &options(), Some(&path));
    std::fs::write(folder.path().join("a file"), "").unwrap();
    let target = open(&folder.path().join("a file/archive").display().to_string(), &options());
    assert!(put(&*target, "name", b"").is_err());
    target.remove("name").unwrap();
}

#[test]
fn s3() {
    let Some(server) = Seaweed::start() else { return };
    let (bucket, at) = (server.new_bucket(), server.address());
    let url = |at: SocketAddr| format!("s3://{at}/{bucket}/{NEW}");
    let options = Options {
        s3_region: Some("us-east-1".into()),
        s3_credentials: Some((ACCESS_KEY.into(), Zeroizing::new(SECRET_KEY.into()))),
        ..options()
    };
    writes_all(&url(at), &options, None);
    refuses(&format!("s3://{at}/no-such-bucket/P"), &options, StoreErrorKind::NoStore);
    let wrong = Options { s3_credentials: Some((ACCESS_KEY.into(), Zeroizing::new("wrong-secret".into()))), ..options.clone() };
    refuses(&url(at), &wrong, StoreErrorKind::Denied);
    survives_cuts(at, |at| format!("s3://{at}/{bucket}/cut"), &options);
    // In parts.
    let (large, place) = (noise(18 << 20), format!("s3://{at}/{bucket}/parts"));
    let cutter = Cutter::of_requests(at, 17 << 20, 2);
    put(&*open(&format!("s3://{}/{bucket}/parts", cutter.address()), &options), "large", &large).unwrap();
    assert_eq!(cutter.cuts(), 2);
    assert!(content(&place, &options) == BTreeMap::from([("large".to_owned(), large)]));
    // A class that the server does not know is its to refuse.
    let odd = Options { s3_storage_class: Some("NO_SUCH_CLASS".into()), ..options.clone() };
    refuses(&place, &odd, StoreErrorKind::Unusable);
    let rare = Options { s3_storage_class: Some("STANDARD_IA".into()), ..options };
    put(&*open(&place, &rare), "rare", b"x").unwrap();
}

#[test]
fn sftp() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = servers::sshd() else { return };
    let options = ssh_options(&server, "ssh_config");
    let at = server.address();
    let url = |at: SocketAddr| format!("sftp://{at}/{}/{NEW}", folder.path().display());
    writes_all(&url(at), &options, Some(&folder.path().join("new one/archive")));
    refuses(&url(at), &ssh_options(&server, "ssh_config_wrong"), StoreErrorKind::Denied);
    survives_cuts(at, |at| format!("sftp://{at}/{}/cut", folder.path().display()), &options);
}

#[test]
fn sftp_without_extensions() {
    let folder = tempfile::tempdir().unwrap();
    let (Some(keys), Some(_)) = (servers::sshd(), servers::program("rclone")) else { return };
    let key = format!("--key={}", keys.path("hostkey").display());
    let server = servers::rclone("sftp", folder.path(), &[key, "--authorized-keys=".into()]).unwrap();
    let options = Options { password: Some(Zeroizing::new(PASSWORD.into())), ..ssh_options(&keys, "ssh_config") };
    let path = folder.path().join("new one/archive");
    writes_all(&format!("sftp://{USER}@{}//{NEW}", server.address()), &options, Some(&path));
}

fn ftp_suite(scheme: &str, arguments: &[String], options: &Options) {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = servers::ftp(folder.path(), arguments) else { return };
    let url = |server: &Daemon, path: &str| format!("{scheme}://{USER}@{}/{path}", server.address());
    writes_all(&url(&server, NEW), options, Some(&folder.path().join("new one/archive")));
    let wrong = format!("{scheme}://{}@{}/{NEW}", login(USER, "wrong-secret"), server.address());
    refuses(&wrong, options, StoreErrorKind::Denied);
    // It cuts its data connections by itself: they are others each time.
    let cutting = |after: &str, cuts: usize| {
        let cuts = [format!("--cut-after={after}"), format!("--cuts={cuts}"), "--cut-uploads".to_owned()];
        servers::ftp(folder.path(), &[arguments, &cuts].concat()).unwrap()
    };
    let (twice, always) = (cutting("1000000", 2), cutting("1000", usize::MAX));
    comes_whole_or_not_at_all(&url(&server, "cut"), &url(&twice, "cut"), &url(&always, "cut"), options);
}

#[test]
fn ftp() {
    ftp_suite("ftp", &[], &options());
}

#[test]
fn ftp_of_another_maker() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = servers::rclone("ftp", folder.path(), &["--passive-port=30000-32000".into()]) else { return };
    let path = folder.path().join("new one/archive");
    writes_all(&format!("ftp://{USER}@{}/{NEW}", server.address()), &options(), Some(&path));
}

#[test]
fn ftps() {
    let folder = tempfile::tempdir().unwrap();
    let Some(python) = servers::python("cryptography, OpenSSL") else { return };
    let certificate = servers::certificate(&python, folder.path());
    let file = format!("--certificate={}", certificate.display());
    ftp_suite("ftps", &["--tls=explicit".into(), file], &Options { ca_file: Some(certificate), ..options() });
}

fn dav_suite(scheme: &str, folder: &Path, server: &Daemon, options: &Options) {
    let at = server.address();
    writes_all(&format!("{scheme}://{USER}@{at}/{NEW}"), options, Some(&folder.join("new one/archive")));
    refuses(&format!("{scheme}://{}@{at}/{NEW}", login(USER, "wrong-secret")), options, StoreErrorKind::Denied);
    survives_cuts(at, |at| format!("{scheme}://{USER}@{at}/cut"), options);
}

#[test]
fn webdav() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = servers::rclone("webdav", folder.path(), &[]) else { return };
    dav_suite("webdav", folder.path(), &server, &options());
}

#[test]
fn webdav_of_another_maker() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = servers::wsgidav(folder.path()) else { return };
    dav_suite("webdav", folder.path(), &server, &options());
}

#[test]
fn webdavs() {
    let folder = tempfile::tempdir().unwrap();
    let Some(python) = servers::python("cryptography, OpenSSL") else { return };
    let file = servers::certificate(&python, folder.path());
    let arguments = [format!("--cert={}", file.display()), format!("--key={}", file.display())];
    let Some(server) = servers::rclone("webdav", folder.path(), &arguments) else { return };
    dav_suite("webdavs", folder.path(), &server, &Options { ca_file: Some(file), ..options() });
}

#[test]
fn rsync_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = servers::rsyncd(folder.path()) else { return };
    let at = server.address();
    writes_all(&format!("rsync://{USER}@{at}::/files/{NEW}"), &options(), Some(&folder.path().join("new one/archive")));
    let wrong = format!("rsync://{}@{at}::files/{NEW}", login(USER, "wrong-secret"));
    refuses(&wrong, &options(), StoreErrorKind::Denied);
    survives_cuts(at, |at| format!("rsync://{USER}@{at}::/files/cut"), &options());
}

#[test]
fn rsync_over_ssh() {
    let folder = tempfile::tempdir().unwrap();
    let (Some(server), Some(_)) = (servers::sshd(), servers::program("rsync")) else { return };
    let options = ssh_options(&server, "ssh_config");
    let at = server.address();
    let url = |at: SocketAddr, path: &str| format!("rsync://{at}/{}/{path}", folder.path().display());
    // Not all of the suite: each file is a login, and the program is the same.
    let (target, path) = (open(&url(at, NEW), &options), folder.path().join("new one/archive"));
    target.remove("never there").unwrap();
    let large = noise(LARGE);
    // What looks like a pattern is a name.
    for (name, bytes) in [("x*[y]\\?", &b"odd"[..]), ("xx[y]\\z", b""), ("xx[y]\\z", &large)] {
        put(&*target, name, bytes).unwrap_or_else(|e| panic!("{e}"));
    }
    assert_eq!(on_disk(&path).len(), 2);
    target.remove("x*[y]\\?").unwrap();
    assert!(on_disk(&path) == BTreeMap::from([("xx[y]\\z".to_owned(), large)]));
    comes_over_cuts(at, &|at| url(at, NEW), &options);
}

#[test]
fn rclone() {
    let folder = tempfile::tempdir().unwrap();
    let Some(program) = servers::program("rclone") else { return };
    let mut options = no_password();
    options.programs.rclone = program.clone();
    let path = folder.path().join("new one/archive");
    writes_all(&format!("rclone::local:{}", path.display()), &options, Some(&path));
    let Some(server) = servers::rclone("webdav", folder.path(), &[]) else { return };
    let obscured = std::process::Command::new(&program).args(["obscure", PASSWORD]).output().unwrap();
    let obscured = String::from_utf8(obscured.stdout).unwrap();
    let url =
        |at: SocketAddr| format!("rclone::webdav,url=\"http://{at}\",vendor=other,user={USER},pass={}:cut", obscured.trim());
    comes_over_cuts(server.address(), &url, &options);
}
