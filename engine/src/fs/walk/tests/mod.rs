//! Walks over real trees in temporary directories.

mod content;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use proptest::prelude::*;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, mkfifoat, openat};

use super::*;
use crate::entry::Kind;
use crate::monitor::Collector;
use crate::path::EntryPath;

fn options(root: &Path) -> WalkOptions {
    WalkOptions { roots: vec![root.to_owned()], ..WalkOptions::default() }
}

fn walk(options: WalkOptions) -> (Vec<SourceEntry>, Arc<Collector>) {
    let monitor = Arc::new(Collector::default());
    let mut source = WalkSource::with_threads(options, Arc::clone(&monitor) as _, 3).unwrap();
    let mut entries = Vec::new();
    while let Some(entry) = source.next_entry().unwrap() {
        entries.push(entry);
    }
    assert!(entries.is_sorted_by(|a, b| a.path < b.path), "not in strict order");
    (entries, monitor)
}

fn entry_path(path: &Path) -> EntryPath {
    EntryPath::new(&path.as_os_str().as_bytes()[1..]).unwrap()
}

/// Paths relative to `root`, of the entries within it and not itself.
fn below(entries: &[SourceEntry], root: &Path) -> Vec<String> {
    let root = entry_path(root);
    let inside = entries.iter().filter_map(|entry| entry.path.strip(&root));
    inside.filter(|path| !path.is_root()).map(|path| path.display()).collect()
}

fn find<'a>(entries: &'a [SourceEntry], path: &Path) -> &'a SourceEntry {
    let path = entry_path(path);
    entries.iter().find(|entry| entry.path == path).unwrap()
}

fn naive(dir: &Path, into: &mut Vec<EntryPath>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        into.push(entry_path(&entry.path()));
        if entry.file_type().unwrap().is_dir() {
            naive(&entry.path(), into);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn order_is_that_of_a_sorted_walk(paths in proptest::collection::vec("[a-c.\\-é]{1,3}(/[a-c.\\-]{1,3}){0,4}", 0..60)) {
        let temp = tempfile::tempdir().unwrap();
        for path in paths {
            // Without "..", which would leave the temporary directory.
            let Ok(path) = EntryPath::new(path) else { continue };
            let path = temp.path().join(OsStr::from_bytes(path.as_bytes()));
            let _ = fs::create_dir_all(path.parent().unwrap());
            let _ = fs::write(path, b"x");
        }
        let mut expected = Vec::new();
        naive(temp.path(), &mut expected);
        expected.sort();
        let (entries, monitor) = walk(options(temp.path()));
        let root = entry_path(temp.path());
        let found: Vec<_> = entries.iter().map(|e| e.path.clone()).filter(|p| p.is_within(&root) && *p != root).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(monitor.problems(), vec![]);
    }
}

#[test]
fn metadata_is_that_of_the_file() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("f");
    fs::write(&file, b"12345").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("no/where", temp.path().join("l")).unwrap();
    let (entries, _) = walk(options(temp.path()));
    let (entry, expected) = (find(&entries, &file), fs::metadata(&file).unwrap());
    assert_eq!((entry.kind.clone(), entry.size, entry.meta.mode), (Kind::File, 5, 0o4751));
    assert_eq!((entry.meta.inode, entry.meta.device, entry.meta.links), (expected.ino(), expected.dev(), 1));
    assert_eq!((entry.meta.mtime.seconds, i64::from(entry.meta.mtime.nanos)), (expected.mtime(), expected.mtime_nsec()));
    assert_eq!((entry.meta.owner.uid, entry.meta.owner.gid), (expected.uid(), expected.gid()));
    assert_eq!(find(&entries, &temp.path().join("l")).kind, Kind::Symlink(b"no/where".to_vec()));
}

#[test]
fn directories_above_the_roots_come_once_and_alone() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path();
    for dir in ["a/x/in", "a/y", "a/other", "b"] {
        fs::create_dir_all(base.join(dir)).unwrap();
    }
    fs::write(base.join("a/file"), b"").unwrap();
    symlink("a", base.join("link")).unwrap();
    let roots = ["a/y", "a/x", "a/x/in", "a/file", "link", "missing/z"].map(|root| base.join(root)).to_vec();
    let (entries, monitor) = walk(WalkOptions { roots, ..WalkOptions::default() });
    assert_eq!(below(&entries, base), ["a", "a/file", "a/x", "a/x/in", "a/y", "link"]);
    let first: Vec<_> = base.components().skip(1).take(1).map(|c| c.as_os_str().as_bytes().to_vec()).collect();
    assert_eq!(entries[0].path.as_bytes(), first[0]);
    assert_eq!(monitor.problems().len(), 1);
    assert!(monitor.problems()[0].subject.ends_with("missing/z"));
}

#[test]
fn symlinks_above_a_root_are_followed_and_stored_as_directories() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir_all(temp.path().join("real/root")).unwrap();
    symlink("real", temp.path().join("link")).unwrap();
    let (entries, _) = walk(options(&temp.path().join("link/root")));
    assert_eq!(below(&entries, temp.path()), ["link", "link/root"]);
    assert_eq!(find(&entries, &temp.path().join("link")).kind, Kind::Directory);
    assert!(find(&entries, &temp.path().join("link")).content.lazy().unwrap().xattrs().is_ok());
}

#[test]
fn roots_that_make_no_sense_are_refused() {
    let monitor: Arc<dyn Monitor> = Arc::new(Collector::default());
    for root in ["relative", "/a/../b", "/does/not/exist"] {
        let result = WalkSource::new(options(Path::new(root)), Arc::clone(&monitor));
        assert!(matches!(result, Err(Error::Invalid(_))), "{root}");
    }
}

#[test]
fn the_root_of_the_file_system_is_the_first_entry() {
    struct All;
    impl PathFilter for All {
        fn excluded(&self, path: &[u8], _: bool) -> bool {
            assert!(path.starts_with(b"/") && path.len() > 1);
            true
        }
    }
    let (entries, _) = walk(WalkOptions { filter: Some(Arc::new(All)), ..options(Path::new("/")) });
    assert_eq!(entries.len(), 1);
    assert!(entries[0].path.is_root() && entries[0].kind == Kind::Directory);
    assert!(entries[0].content.lazy().unwrap().xattrs().is_ok());
}

#[test]
fn a_large_directory_comes_whole_and_in_order() {
    let temp = tempfile::tempdir().unwrap();
    for number in 0..10_000 {
        fs::write(temp.path().join(format!("{}", number * 7919 % 10_007)), b"").unwrap();
    }
    for number in 0..50 {
        fs::create_dir(temp.path().join(format!("5d{number}"))).unwrap();
        fs::write(temp.path().join(format!("5d{number}/in")), b"").unwrap();
    }
    let (entries, _) = walk(options(temp.path()));
    assert_eq!(below(&entries, temp.path()).len(), 10_100);
}

#[test]
fn deeper_than_path_max_and_back() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().as_os_str().len();
    let mut dir = openat(CWD, temp.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
    // Two bytes a level, up to the longest path there may be.
    let levels = (4095 + 1 - base - 2) / 2;
    for _ in 0..levels {
        mkdirat(&dir, "d", Mode::RWXU).unwrap();
        dir = openat(&dir, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let file = openat(&dir, "f", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
    rustix::io::write(&file, b"deep").unwrap();
    openat(&dir, "too-long", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
    let (entries, monitor) = walk(options(temp.path()));
    assert_eq!(below(&entries, temp.path()).len(), levels + 1);
    assert_eq!(monitor.problems().len(), 1, "{:?}", monitor.problems());
    let mut buffer = [0; 16];
    assert_eq!(entries.last().unwrap().content.lazy().unwrap().open().unwrap().read(&mut buffer).unwrap(), 4);
    // Stopped halfway, with results piled up in each other.
    let mut source = WalkSource::new(options(temp.path()), monitor).unwrap();
    source.next_entry().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    drop(source);
    drop(entries);
    remove_deep(temp.path());
}

/// `remove_dir_all` gives up on such depths.
pub fn remove_deep(base: &Path) {
    let top = openat(CWD, base, OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut at = 0;
    while rustix::fs::renameat(&top, "d/d", &top, format!("up{at}")).is_ok() {
        rustix::fs::unlinkat(&top, "d", rustix::fs::AtFlags::REMOVEDIR).unwrap();
        rustix::fs::renameat(&top, format!("up{at}"), &top, "d").unwrap();
        at += 1;
    }
}

#[test]
fn reopens_directories_beyond_the_number_kept_open() {
    let temp = tempfile::tempdir().unwrap();
    let open = crate::fs::dirs::OpenDirs::with_capacity(3);
    let mut dir = crate::fs::dirs::Dir::top(open).unwrap();
    let path = temp.path().join("a/b/c/d/e/f");
    fs::create_dir_all(&path).unwrap();
    let mut chain = Vec::new();
    for name in path.components().skip(1) {
        let name = CString::new(name.as_os_str().as_bytes()).unwrap();
        dir = crate::fs::dirs::Dir::child(&dir, &name, EntryPath::root());
        chain.push(Arc::clone(&dir));
    }
    for _ in 0..3 {
        for dir in &chain {
            dir.open_listing().unwrap();
        }
        assert!(chain.iter().filter(|dir| dir.is_open()).count() <= 3);
        chain.iter().rev().for_each(|dir| drop(dir.fd().unwrap()));
    }
    assert!(chain.iter().filter(|dir| dir.is_open()).count() <= 3);
}

#[test]
fn names_are_bytes() {
    let temp = tempfile::tempdir().unwrap();
    let name = OsStr::from_bytes(b"\xff\x1b[31m\n\xc3\x28");
    fs::write(temp.path().join(name), b"").unwrap();
    let (entries, _) = walk(options(temp.path()));
    assert_eq!(entries.last().unwrap().path.name(), name.as_bytes());
}

#[test]
fn sockets_are_noted_and_fifos_never_opened() {
    let temp = tempfile::tempdir().unwrap();
    let _socket = UnixListener::bind(temp.path().join("socket")).unwrap();
    mkfifoat(CWD, temp.path().join("fifo"), Mode::RWXU).unwrap();
    let (entries, monitor) = walk(options(temp.path()));
    assert_eq!(below(&entries, temp.path()), ["fifo"]);
    assert_eq!(find(&entries, &temp.path().join("fifo")).kind, Kind::Fifo);
    assert!(find(&entries, &temp.path().join("fifo")).content.lazy().unwrap().xattrs().is_ok());
    assert_eq!(monitor.notes().len(), 1);
    assert_eq!(monitor.problems(), []);
}

#[test]
fn tags_exclude_all_but_themselves() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir_all(temp.path().join("cache/deep")).unwrap();
    fs::create_dir_all(temp.path().join("normal")).unwrap();
    for file in ["cache/CACHEDIR.TAG", "cache/a", "cache/deep/b", "normal/CACHEDIR.TAG.not"] {
        fs::write(temp.path().join(file), b"").unwrap();
    }
    let exclude_if_present = vec!["CACHEDIR.TAG".into(), ".nobackup".into()];
    let (entries, _) = walk(WalkOptions { exclude_if_present, ..options(temp.path()) });
    assert_eq!(below(&entries, temp.path()), ["cache", "cache/CACHEDIR.TAG", "normal", "normal/CACHEDIR.TAG.not"]);
}

#[test]
fn filters_leave_out_with_contents() {
    struct Skip;
    impl PathFilter for Skip {
        fn excluded(&self, path: &[u8], is_dir: bool) -> bool {
            path.ends_with(b"/skip") && is_dir
        }
    }
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir_all(temp.path().join("skip/in")).unwrap();
    fs::create_dir_all(temp.path().join("a")).unwrap();
    fs::write(temp.path().join("a/skip"), b"").unwrap();
    let (entries, _) = walk(WalkOptions { filter: Some(Arc::new(Skip)), ..options(temp.path()) });
    assert_eq!(below(&entries, temp.path()), ["a", "a/skip"]);
}

#[test]
fn other_file_systems_are_stored_as_empty_mount_points() {
    let device = |path: &str| fs::metadata(path).map(|meta| meta.dev()).unwrap_or_default();
    if device("/dev/shm") == device("/dev") || device("/dev/shm") == 0 {
        return;
    }
    let marker = tempfile::tempdir_in("/dev/shm").unwrap();
    let (entries, _) = walk(WalkOptions { one_file_system: true, ..options(Path::new("/dev")) });
    let paths = below(&entries, Path::new("/dev"));
    assert!(paths.contains(&"shm".to_owned()));
    assert!(!paths.iter().any(|path| path.starts_with("shm/")));
    let (entries, _) = walk(WalkOptions { one_file_system: true, ..options(marker.path()) });
    assert!(entries.iter().any(|entry| entry.path == entry_path(marker.path())));
    // A root within another one, on its own file system.
    let roots = vec!["/dev".into(), marker.path().into()];
    let (entries, _) = walk(WalkOptions { roots, one_file_system: true, ..options(Path::new("/dev")) });
    assert!(entries.iter().any(|entry| entry.path == entry_path(marker.path())));
}

#[test]
fn trouble_with_a_directory_is_a_problem_and_the_walk_goes_on() {
    let monitor: Arc<Collector> = Arc::default();
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir_all(temp.path().join("bad/in")).unwrap();
    fs::write(temp.path().join("z"), b"").unwrap();
    let mut source = WalkSource::with_threads(options(temp.path()), Arc::clone(&monitor) as _, 0).unwrap();
    let mut seen = Vec::new();
    while let Some(entry) = source.next_entry().unwrap() {
        if entry.path.name() == b"bad" {
            fs::remove_dir_all(temp.path().join("bad")).unwrap();
        }
        seen.push(entry.path.name().to_vec());
    }
    assert_eq!(seen[seen.len() - 2..], [b"bad".to_vec(), b"z".to_vec()]);
    assert_eq!(monitor.problems().len(), 1);
    assert!(monitor.problems()[0].message.starts_with("cannot list:"));
}

#[test]
fn what_a_user_may_not_read_is_a_problem() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, file) = (temp.path().join("dir"), temp.path().join("file"));
    fs::create_dir(&dir).unwrap();
    fs::write(&file, b"x").unwrap();
    for path in [&dir, &file] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    }
    if fs::read(&file).is_ok() {
        return; // Root may read all.
    }
    let (entries, monitor) = walk(options(temp.path()));
    assert_eq!(below(&entries, temp.path()), ["dir", "file"]);
    assert_eq!(monitor.problems()[0].subject, dir.display().to_string());
    let error = find(&entries, &file).content.lazy().unwrap().open().err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
}

#[test]
fn stops_when_cancelled() {
    let temp = tempfile::tempdir().unwrap();
    for number in 0..3000 {
        fs::write(temp.path().join(number.to_string()), b"").unwrap();
    }
    let monitor: Arc<Collector> = Arc::default();
    let mut source = WalkSource::new(options(temp.path()), Arc::clone(&monitor) as _).unwrap();
    monitor.cancel();
    let mut result = source.next_entry();
    while matches!(result, Ok(Some(_))) {
        result = source.next_entry();
    }
    assert!(matches!(result, Err(Error::Interrupted)));
}
