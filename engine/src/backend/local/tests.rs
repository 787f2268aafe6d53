use std::os::unix::fs::PermissionsExt;

use rustix::fs::Mode;

use super::*;

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name).unwrap()
}

fn store() -> (tempfile::TempDir, LocalBackend) {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalBackend::new(directory.path().join("repo"));
    store.prepare().unwrap();
    (directory, store)
}

/// A body whose address is a multiple of 4096, plus `shift`.
fn body_at(shift: usize, length: usize) -> Bytes {
    let bytes = Bytes::from((0..=250_u8).cycle().take(length + shift + 4096).collect::<Vec<_>>());
    let start = bytes.as_ptr().align_offset(4096) + shift;
    bytes.slice(start..start + length)
}

#[test]
fn conforms() {
    let directory = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicUsize::new(0);
    crate::backend::suite::run(&|| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Box::new(LocalBackend::new(directory.path().join(format!("a/{n}"))))
    });
}

#[test]
fn conforms_with_every_way_of_naming() {
    for way in [write::Publish::Link, write::Publish::Check] {
        let (_directory, store) = store();
        store.publish.store(way as u8, std::sync::atomic::Ordering::Relaxed);
        store.create(&key("a/b"), Bytes::from_static(b"1")).unwrap();
        let error = store.create(&key("a/b"), Bytes::from_static(b"2")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::AlreadyExists);
        assert_eq!(&store.read(&key("a/b"), 9).unwrap()[..], b"1");
        assert_eq!(store.create_is_exclusive(), way == write::Publish::Link);
        assert_eq!(fs::read_dir(store.root.join("a")).unwrap().count(), 1, "a temporary file was left");
    }
}

#[test]
fn large_bodies_of_any_alignment_arrive() {
    let (_directory, store) = store();
    for (name, shift, length) in
        [("direct", 0, 3 << 20), ("shifted", 64, 2 << 20), ("ragged", 0, (2 << 20) + 1), ("small", 0, 4096)]
    {
        let body = body_at(shift, length);
        store.create(&key(name), body.clone()).unwrap();
        assert!(store.read(&key(name), length as u64).unwrap() == body, "{name}");
    }
}

#[test]
fn listing_passes_over_what_is_no_object() {
    let (_directory, store) = store();
    store.create(&key("packs/00/ok"), Bytes::from_static(b"1")).unwrap();
    let packs = store.root.join("packs/00");
    for foreign in [".0123.tmp", "UPPER", "with space", ".hidden", "lost+found"] {
        fs::write(packs.join(foreign), b"x").unwrap();
    }
    fs::create_dir(packs.join("lost+Found")).unwrap();
    fs::write(packs.join("lost+Found/a"), b"x").unwrap();
    std::os::unix::fs::symlink("/nowhere", packs.join("dangling")).unwrap();
    std::os::unix::fs::symlink(".", packs.join("loop.")).unwrap();
    let mut names = Vec::new();
    // The loop ends where the names become too long to be keys, or where the system has had enough.
    let listed = store.list("", &mut |meta| names.push(meta.key.to_string()));
    assert!(listed.is_err() || names.iter().all(|name| name.ends_with("/ok")), "{names:?}");
    fs::remove_file(packs.join("loop.")).unwrap();
    names.clear();
    store.list("", &mut |meta| names.push(meta.key.to_string())).unwrap();
    assert_eq!(names, ["packs/00/ok"]);
}

#[test]
fn bad_prefixes_lead_nowhere() {
    let (_directory, store) = store();
    for prefix in ["../", "/", "a", "a//", "./"] {
        assert_eq!(store.list(prefix, &mut |_| ()).unwrap_err().kind, ErrorKind::Unsupported, "{prefix}");
    }
}

#[test]
fn a_missing_root_is_no_empty_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalBackend::new(directory.path().join("not/there"));
    let kinds = [
        store.list("", &mut |_| ()).unwrap_err().kind,
        store.list("packs/", &mut |_| ()).unwrap_err().kind,
        store.read(&key("config"), 9).unwrap_err().kind,
        store.read_range(&key("config"), 0, 1).unwrap_err().kind,
        store.size(&key("config")).unwrap_err().kind,
        store.delete(&key("config")).unwrap_err().kind,
        store.create(&key("config"), Bytes::new()).unwrap_err().kind,
    ];
    assert_eq!(kinds, [ErrorKind::NoStore; 7]);
    assert!(!directory.path().join("not").exists());
    store.prepare().unwrap();
    assert_eq!(fs::metadata(&store.root).unwrap().permissions().mode() & 0o777, 0o700);
    store.prepare().unwrap();
    store.create(&key("config"), Bytes::new()).unwrap();
}

#[test]
fn a_file_as_root_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let store = LocalBackend::new(file.path());
    assert_eq!(store.prepare().unwrap_err().kind, ErrorKind::NoStore);
    assert_eq!(store.read(&key("config"), 9).unwrap_err().kind, ErrorKind::NoStore);
    assert!(store.list("", &mut |_| ()).is_err());
}

#[test]
fn the_system_s_answers_have_their_kinds() {
    let (_directory, store) = store();
    let full = store.io_error("k", "write", &io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error()));
    assert_eq!(full.kind, ErrorKind::NoSpace);
    let quota = store.io_error("k", "write", &io::Error::from_raw_os_error(Errno::DQUOT.raw_os_error()));
    assert_eq!(quota.kind, ErrorKind::NoSpace);
    let read_only = store.io_error("k", "write", &io::Error::from_raw_os_error(Errno::ROFS.raw_os_error()));
    assert_eq!(read_only.kind, ErrorKind::Denied);
}

#[test]
fn a_directory_in_the_way_is_an_error() {
    let (_directory, store) = store();
    store.create(&key("a/b"), Bytes::new()).unwrap();
    assert_eq!(store.read(&key("a"), 9).unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(store.create(&key("a"), Bytes::new()).unwrap_err().kind, ErrorKind::AlreadyExists);
    assert!(store.create(&key("a/b/c"), Bytes::new()).is_err());
    rustix::fs::mknodat(rustix::fs::CWD, store.root.join("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    assert_eq!(store.read(&key("fifo"), 9).unwrap_err().kind, ErrorKind::Corrupt);
}

#[test]
fn a_barrier_syncs_each_directory_once() {
    let (_directory, store) = store();
    store.create(&key("packs/00/a"), Bytes::new()).unwrap();
    store.create(&key("packs/01/b"), Bytes::new()).unwrap();
    let dirty: Vec<PathBuf> = lock(&store.dirty).iter().cloned().collect();
    let want = ["", "packs", "packs/00", "packs/01"].map(|d| if d.is_empty() { store.root.clone() } else { store.root.join(d) });
    assert_eq!(dirty, want);
    store.barrier().unwrap();
    assert!(lock(&store.dirty).is_empty());
}

#[test]
fn a_failed_barrier_is_not_forgotten() {
    let (_directory, store) = store();
    store.create(&key("packs/00/a"), Bytes::new()).unwrap();
    fs::rename(store.root.join("packs"), store.root.join("gone")).unwrap();
    assert!(store.barrier().is_err());
    assert!(store.barrier().is_err());
    fs::rename(store.root.join("gone"), store.root.join("packs")).unwrap();
    store.barrier().unwrap();
}

#[test]
fn directories_go_with_their_last_file() {
    let (_directory, store) = store();
    store.create(&key("packs/00/a"), Bytes::new()).unwrap();
    store.create(&key("packs/00/b"), Bytes::new()).unwrap();
    store.delete(&key("packs/00/a")).unwrap();
    assert!(store.root.join("packs/00").is_dir());
    store.delete(&key("packs/00/b")).unwrap();
    assert!(!store.root.join("packs/00").exists() && store.root.join("packs").is_dir());
    store.barrier().unwrap();
    store.create(&key("packs/00/a"), Bytes::new()).unwrap();
    store.create(&key("c"), Bytes::new()).unwrap();
    store.delete(&key("c")).unwrap();
    store.barrier().unwrap();
    // Somebody empties the directory again and again while others write to it.
    std::thread::scope(|scope| {
        for n in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for i in 0..100 {
                    let key = key(&format!("probe/{n}-{i}"));
                    store.create(&key, Bytes::from_static(b"x")).unwrap();
                    store.delete(&key).unwrap();
                }
            });
        }
    });
}

#[test]
fn one_writer_of_many_wins_whole() {
    let (_directory, store) = store();
    let store = Arc::new(store);
    let wins = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8_u8)
            .map(|n| {
                let store = Arc::clone(&store);
                scope.spawn(move || store.create(&key("x/y/z"), vec![n; 100_000].into()).is_ok())
            })
            .collect();
        writers.into_iter().filter_map(|w| w.join().unwrap().then_some(())).count()
    });
    assert_eq!(wins, 1);
    let bytes = store.read(&key("x/y/z"), 100_000).unwrap();
    assert!(bytes.len() == 100_000 && bytes.iter().all(|b| *b == bytes[0]));
}
