//! Content and attributes of what a walk delivers.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, Mode, XattrFlags, mkfifoat, setxattr};

use super::{find, options, walk};
use crate::entry::Hole;

#[test]
fn only_another_file_in_a_files_place_is_read() {
    let temp = tempfile::tempdir().unwrap();
    let names = ["gone", "fifo", "link", "other", "dir"];
    for name in names {
        fs::write(temp.path().join(name), b"x").unwrap();
    }
    let (entries, _) = walk(options(temp.path()));
    let keep = temp.path().join("keep");
    for name in names {
        // Kept elsewhere, so that the inode number is not used again.
        fs::create_dir_all(&keep).unwrap();
        fs::rename(temp.path().join(name), keep.join(name)).unwrap();
    }
    mkfifoat(CWD, temp.path().join("fifo"), Mode::RWXU).unwrap();
    symlink("/etc/passwd", temp.path().join("link")).unwrap();
    fs::write(temp.path().join("other"), b"y").unwrap();
    fs::create_dir(temp.path().join("dir")).unwrap();
    let open = |name| find(&entries, &temp.path().join(name)).content.lazy().unwrap().open();
    for name in ["gone", "fifo", "link", "dir"] {
        assert!(open(name).is_err(), "{name}");
    }
    // Editors replace files all the time.
    let (mut other, mut buffer) = (open("other").unwrap(), [0; 9]);
    assert_eq!((other.read(&mut buffer).unwrap(), buffer[0]), (1, b'y'));
    let inode = fs::metadata(temp.path().join("other")).unwrap().ino();
    assert_eq!(other.stat().unwrap().0.inode, inode);
}

#[test]
fn holes_are_found_and_passed_over() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("sparse");
    let file = fs::File::create(&path).unwrap();
    let block = 1 << 16;
    let data: Vec<u8> = (0..block).map(|n: u32| n.to_string().as_bytes()[0]).collect();
    for at in [1, 3, 7] {
        file.write_all_at(&data, at * u64::from(block)).unwrap();
    }
    file.set_len(u64::from(block) * 20).unwrap();
    let (entries, _) = walk(options(temp.path()));
    let entry = find(&entries, &path);
    for (limit, count) in [(100, 4), (2, 2), (0, 0)] {
        let mut open = entry.content.lazy().unwrap().open().unwrap();
        let holes: Vec<Hole> = open.holes(entry.size, limit).unwrap();
        if holes.is_empty() && limit > 0 {
            return; // A file system that knows no holes.
        }
        assert_eq!(holes.len(), count);
        let mut rebuilt = vec![0; usize::try_from(entry.size).unwrap()];
        let mut buffer = vec![0; 100_000];
        let mut at = 0;
        let mut pending = holes.iter().peekable();
        loop {
            while let Some(hole) = pending.next_if(|hole| hole.offset == at) {
                at += hole.length;
            }
            let read = open.read(&mut buffer).unwrap();
            if read == 0 {
                break;
            }
            let start = usize::try_from(at).unwrap();
            rebuilt[start..start + read].copy_from_slice(&buffer[..read]);
            at += read as u64;
        }
        assert_eq!(at, entry.size);
        assert!(rebuilt == fs::read(&path).unwrap());
    }
}

#[test]
fn attributes_of_files_and_directories() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    fs::write(&file, b"").unwrap();
    let long = vec![7; 2000];
    let set = |path: &Path, name: &str, value: &[u8]| setxattr(path, name, value, XattrFlags::empty());
    if set(&file, "user.b", b"1").is_err() {
        return; // A file system without attributes.
    }
    set(&file, "user.a", &long).unwrap();
    set(temp.path(), "user.dir", b"").unwrap();
    let (entries, _) = walk(options(temp.path()));
    let expected = vec![(b"user.a".to_vec(), long), (b"user.b".to_vec(), b"1".to_vec())];
    assert_eq!(find(&entries, &file).content.lazy().unwrap().open().unwrap().xattrs().unwrap(), expected);
    assert_eq!(find(&entries, temp.path()).content.lazy().unwrap().xattrs().unwrap(), [(b"user.dir".to_vec(), vec![])]);
}
