//! Trees of files: one with everything a file can be, and a description of a tree to compare by.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, OsStr};
use std::fs::{self, File, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

/// Whether the tests run as root; much of what a file can be only root can make.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What can be seen of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    kind: u32,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    size: u64,
    device: u64,
    target: Option<PathBuf>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// First path of the same inode.
    same_as: PathBuf,
    content: u64,
}

impl Seen {
    /// Takes out what an archive of duplicity has no room for: fractions of seconds, attributes, hard links, and of links all but
    /// the text and the owner.
    pub fn forget_what_duplicity_cannot_hold(&mut self) {
        let is_link = self.target.is_some();
        self.mtime = (if is_link { 0 } else { self.mtime.0 }, 0);
        self.mode = if is_link { 0 } else { self.mode };
        self.xattrs.clear();
        self.same_as = PathBuf::new();
    }
}

/// All entries below `root`, by path.
///
/// # Panics
///
/// If something cannot be read.
pub fn describe(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let (mut out, mut inodes, mut stack) = (BTreeMap::new(), HashMap::new(), vec![root.to_owned()]);
    let mut paths = Vec::new();
    while let Some(dir) = stack.pop() {
        for item in fs::read_dir(&dir).expect("readable directory") {
            let path = item.expect("readable directory").path();
            if fs::symlink_metadata(&path).expect("stat").is_dir() {
                stack.push(path.clone());
            }
            paths.push(path);
        }
    }
    paths.sort();
    for path in paths {
        let meta = fs::symlink_metadata(&path).expect("stat");
        let relative = path.strip_prefix(root).expect("below the root").to_owned();
        let kind = meta.file_type();
        let same_as = inodes.entry((meta.dev(), meta.ino())).or_insert_with(|| relative.clone()).clone();
        let seen = Seen {
            kind: meta.mode() & 0o170_000,
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            size: if kind.is_file() { meta.size() } else { 0 },
            device: if kind.is_char_device() || kind.is_block_device() { meta.rdev() } else { 0 },
            target: kind.is_symlink().then(|| fs::read_link(&path).expect("link")),
            xattrs: xattrs(&path),
            same_as,
            content: if kind.is_file() { hash(&path) } else { 0 },
        };
        out.insert(relative, seen);
    }
    out
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let names = names[..length].split(|b| *b == 0).filter(|n| !n.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).expect("attribute");
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect()
}

/// FNV-1a over the content; enough to notice any difference by accident.
fn hash(path: &Path) -> u64 {
    let file = File::open(path).expect("open");
    let (mut at, mut state, mut buffer) = (0, 0xcbf2_9ce4_8422_2325_u64, vec![0; 1 << 20]);
    loop {
        let n = file.read_at(&mut buffer, at).expect("read");
        if n == 0 {
            return state;
        }
        for word in buffer[..n].chunks(8) {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            state = (state ^ u64::from_le_bytes(bytes)).wrapping_mul(0x0100_0000_01b3).rotate_left(5);
        }
        at += n as u64;
    }
}

/// Fails with the first differences unless both trees are the same.
///
/// # Panics
///
/// If they differ.
pub fn assert_same(expected: &BTreeMap<PathBuf, Seen>, found: &BTreeMap<PathBuf, Seen>) {
    let paths = expected.keys().chain(found.keys()).collect::<std::collections::BTreeSet<_>>();
    let differing = paths.into_iter().filter(|p| expected.get(*p) != found.get(*p));
    let report: Vec<String> =
        differing.take(5).map(|p| format!("{p:?}\n  expected {:?}\n  found    {:?}", expected.get(p), found.get(p))).collect();
    assert!(report.is_empty(), "trees differ:\n{}", report.join("\n"));
}

/// Deterministic bytes that do not compress.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}

/// Makes a tree with everything a file can be, as far as this user may.
///
/// # Panics
///
/// If the file system refuses something that every Linux file system has.
pub fn make_oddities(root: &Path) {
    fs::create_dir_all(root.join("dir/empty")).expect("mkdir");
    fs::write(root.join("empty"), b"").expect("write");
    fs::write(root.join("dir/text"), b"some text\n".repeat(1000)).expect("write");
    fs::write(root.join("dir/large"), noise(1, 9_000_000)).expect("write");
    fs::write(root.join(OsStr::from_bytes(b"not \xff utf-8 \x01\n")), b"named oddly").expect("write");
    fs::hard_link(root.join("dir/text"), root.join("dir/zz-second-name")).expect("link");
    fs::hard_link(root.join("dir/large"), root.join("another-name")).expect("link");
    symlink("nowhere/at/all", root.join("dangling")).expect("symlink");
    symlink("dir", root.join("to-dir")).expect("symlink");
    make_sparse(root);
    make_deep(root);
    make_modes(root);
    make_attributes(root);
    if is_root() {
        make_special(root);
    }
    set_times(root);
}

fn make_sparse(root: &Path) {
    let mut file = File::create(root.join("sparse")).expect("create");
    file.write_all(&noise(2, 5000)).expect("write");
    file.seek(SeekFrom::Start(50 << 20)).expect("seek");
    file.write_all(&noise(3, 100_000)).expect("write");
    file.set_len(200 << 20).expect("truncate");
    File::create(root.join("only-a-hole")).expect("create").set_len(10 << 20).expect("truncate");
}

/// A path of about 3,900 bytes.
fn make_deep(root: &Path) {
    let name = "d".repeat(200);
    let mut dir = File::open(root).expect("open");
    for _ in 0..18 {
        rustix::fs::mkdirat(&dir, name.as_str(), Mode::from_raw_mode(0o755)).expect("mkdir");
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::RDONLY;
        dir = File::from(rustix::fs::openat(&dir, name.as_str(), flags, Mode::empty()).expect("open"));
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let mut file = File::from(rustix::fs::openat(&dir, "at the end", flags, Mode::from_raw_mode(0o600)).expect("create"));
    file.write_all(b"deep").expect("write");
}

fn make_modes(root: &Path) {
    for mode in [0o4755, 0o2755, 0o1777, 0o0600, 0o0777] {
        let path = root.join(format!("mode-{mode:o}"));
        fs::write(&path, b"x").expect("write");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("chmod");
    }
    fs::create_dir(root.join("sticky")).expect("mkdir");
    fs::set_permissions(root.join("sticky"), Permissions::from_mode(0o1777)).expect("chmod");
    fs::create_dir(root.join("setgid")).expect("mkdir");
    fs::set_permissions(root.join("setgid"), Permissions::from_mode(0o2775)).expect("chmod");
}

fn make_attributes(root: &Path) {
    let set = |path: &str, name: &str, value: &[u8]| {
        // Not every file system of a test machine has them.
        let _ = rustix::fs::setxattr(root.join(path), name, value, XattrFlags::empty());
    };
    set("dir/text", "user.comment", b"a comment");
    set("dir", "user.on-a-directory", &[0, 255, 7]);
    set("empty", "user.empty", b"");
    if is_root() {
        // POSIX ACL, version 2: owner rwx, user 1234 r--, group r-x, mask r-x, other r--.
        let mut acl = vec![2, 0, 0, 0];
        for (tag, perm, id) in
            [(1_u16, 7_u16, u32::MAX), (2, 4, 1234), (4, 5, u32::MAX), (0x10, 5, u32::MAX), (0x20, 4, u32::MAX)]
        {
            acl.extend_from_slice(&tag.to_le_bytes());
            acl.extend_from_slice(&perm.to_le_bytes());
            acl.extend_from_slice(&id.to_le_bytes());
        }
        set("mode-777", "system.posix_acl_access", &acl);
        set("dir", "system.posix_acl_default", &acl);
        // cap_net_raw+ep, revision 2.
        let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        set("mode-4755", "security.capability", &capability);
        set("dangling", "trusted.on-a-symlink", b"x");
        let _ = rustix::fs::lsetxattr(root.join("to-dir"), "trusted.on-a-symlink", b"y", XattrFlags::empty());
    }
}

fn make_special(root: &Path) {
    let node = |name: &str, kind, device| {
        let path = CString::new(root.join(name).as_os_str().as_bytes()).expect("no NUL");
        rustix::fs::mknodat(CWD, path.as_c_str(), kind, Mode::from_raw_mode(0o640), device).expect("mknod");
    };
    node("fifo", FileType::Fifo, 0);
    node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    node("loop", FileType::BlockDevice, rustix::fs::makedev(7, 99));
    std::os::unix::fs::lchown(root.join("dir/large"), Some(1234), Some(4321)).expect("chown");
    std::os::unix::fs::lchown(root.join("dangling"), Some(99), Some(98)).expect("chown");
    std::os::unix::fs::lchown(root.join("sticky"), Some(5), Some(6)).expect("chown");
}

/// Times to the nanosecond, before 1970 too; directories last, since making things in them changes theirs.
fn set_times(root: &Path) {
    let set = |path: &str, seconds: i64, nanos: i64| {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, root.join(path), &times, AtFlags::SYMLINK_NOFOLLOW).expect("utimens");
    };
    set("empty", -1_000_000_000, 999_999_999);
    set("dir/text", 1_234_567_890, 123_456_789);
    set("dangling", 1_000_000_000, 1);
    set("sticky", 500_000_000, 7);
    set("dir/empty", 4_000_000_000, 0);
    set("dir", 1_600_000_000, 42);
}
