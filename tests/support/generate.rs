//! Random trees of files, and random changes to them.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};

use crate::random::Random;
use crate::tree::{is_root, noise};

/// Names that mean something to somebody: to shells, to patterns, to lists, to terminals, or to nobody.
const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"ab",
    b"a-b",
    b"a.b",
    b"A",
    b"with space",
    b"\xc3\xa4\xe2\x98\x83",
    b"\xff\xfe",
    b"x\ny",
    b"a\n",
    b"[br]",
    b"[",
    b"st*r",
    b"wh?t",
    b"-dash",
    b"--exclude",
    b"'q'",
    b"\"dq\"",
    b"#hash",
    b"+ plus",
    b" lead",
    b"trail ",
    b"back\\slash",
    b".hidden",
    b".nobackup",
    b"x.txt",
    b"y.txt",
    b"X.TXT",
    b"multivol_snapshot",
    b"\x01ctl",
];

/// Around the blocks of signatures, the pieces of volumes, and volumes.
const SIZES: &[usize] = &[
    0, 0, 1, 7, 100, 511, 512, 513, 1023, 2048, 2049, 10_000, 65_535, 65_536, 65_537, 100_000, 131_072, 131_073, 300_000,
    1_100_000,
];

/// A file's first time, and those that follow: 2001 to 2026.
fn time(random: &Random) -> i64 {
    1_000_000_000 + i64::try_from(random.below(790_000_000)).expect("small")
}

/// Makes a tree at `root`, which is not there yet.
///
/// # Panics
///
/// If the file system does not let it.
pub fn make_tree(random: &Random, root: &Path) {
    fs::create_dir(root).expect("a folder");
    let entries = 4 + random.below(8);
    for _ in 0..entries {
        add(random, root, 0);
    }
    if random.one_in(4) {
        let mut path = root.to_owned();
        for _ in 0..5 + random.below(12) {
            path.push("deeper-".repeat(1 + random.below(6)));
        }
        fs::create_dir_all(&path).expect("folders");
        fs::write(path.join("bottom"), "down here").expect("a file");
    }
}

/// A name; rarely a very long one.
fn name(random: &Random) -> Vec<u8> {
    if random.one_in(25) {
        return vec![b'l'; 150 + random.below(100)];
    }
    let mut name = random.pick(NAMES).to_vec();
    if random.one_in(3) {
        name.extend(random.below(10).to_string().into_bytes());
    }
    name
}

/// Adds an entry of any kind to a folder, unless its name is taken.
fn add(random: &Random, folder: &Path, depth: usize) {
    let path = folder.join(OsStr::from_bytes(&name(random)));
    if path.symlink_metadata().is_ok() {
        return;
    }
    match random.below(14) {
        0..=3 if depth < 4 => {
            fs::create_dir(&path).expect("a folder");
            for _ in 0..random.below(5) {
                add(random, &path, depth + 1);
            }
        }
        4 => symlink(OsStr::from_bytes(random.pick(NAMES)), &path).expect("a link"),
        5 => node(&path, FileType::Fifo, 0),
        6 if is_root() => node(&path, FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        7 if path.as_os_str().len() < 100 => drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket")),
        _ => {
            let length = random.pick(SIZES);
            fs::write(&path, noise(random.number(), length)).expect("a file");
        }
    }
    dress(random, &path);
}

fn node(path: &Path, kind: FileType, device: u64) {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).expect("a node");
}

/// Gives an entry a mode, an owner and a time.
fn dress(random: &Random, path: &Path) {
    let is_link = path.is_symlink();
    if is_root() && random.one_in(5) {
        let owner = Some(random.pick(&[0, 1, 1234]));
        lchown(path, owner, Some(random.pick(&[0, 2, 4321]))).expect("an owner");
    }
    if !is_link && random.one_in(2) {
        let mode = random.pick(&[0o644, 0o600, 0o755, 0o700, 0o4755, 0o2750, 0o1777]);
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    }
    set_time(random, path);
}

/// A time that the entry did not have before, to the second.
fn set_time(random: &Random, path: &Path) {
    let time = Timespec { tv_sec: time(random), tv_nsec: i64::try_from(random.below(1_000_000_000)).expect("small") };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("a time");
}

/// All paths below `root`, relative to it, sorted.
///
/// # Panics
///
/// If something cannot be listed.
pub fn paths(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.symlink_metadata().expect("an entry").is_dir() {
                folders.push(path.clone());
            }
            found.push(path.strip_prefix(root).expect("below").to_owned());
        }
    }
    found.sort();
    found
}

/// Changes a tree in up to eight places.
///
/// # Panics
///
/// If the file system does not let it.
pub fn change_tree(random: &Random, root: &Path) {
    for _ in 0..random.below(9) {
        let all = paths(root);
        if all.is_empty() || random.one_in(4) {
            add(random, root, 1);
            continue;
        }
        let path = root.join(random.pick(&all));
        let found = path.symlink_metadata().expect("an entry");
        match random.below(8) {
            0 => remove(&path),
            1 => {
                remove(&path);
                add(random, path.parent().expect("a folder"), 2);
            }
            2 => {
                let other = path.with_file_name(OsStr::from_bytes(&name(random)));
                if other.symlink_metadata().is_err() {
                    fs::rename(&path, other).expect("renamed");
                }
            }
            3 => dress(random, &path),
            4 if found.is_dir() => add(random, &path, 3),
            5 => {
                remove(&path);
                fs::create_dir(&path).expect("a folder");
                add(random, &path, 3);
            }
            _ if found.is_file() => edit(random, &path),
            _ => set_time(random, &path),
        }
    }
}

fn remove(path: &Path) {
    let is_dir = path.symlink_metadata().expect("an entry").is_dir();
    if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("removed");
}

/// Changes a file's content as programs do.
fn edit(random: &Random, path: &Path) {
    let mut content = fs::read(path).expect("a file");
    let at = random.below(content.len() + 1);
    let (seed, length) = (random.number(), random.pick(&[1, 100, 5000, 70_000]));
    match random.below(6) {
        0 => content.truncate(at),
        1 => content.extend(noise(seed, length)),
        2 => drop(content.splice(at..at, noise(seed, length))),
        3 => content = noise(seed, length),
        4 => content.rotate_left(at),
        _ => content.iter_mut().skip(at).take(3).for_each(|byte| *byte ^= 0x55),
    }
    fs::write(path, content).expect("a file");
    set_time(random, path);
}
