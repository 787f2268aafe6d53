//! Restores into temporary directories, some of them hostile.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{RenameFlags, XattrFlags, getxattr, mkfifoat, renameat_with, setxattr};
use tempfile::TempDir;

use super::*;
use crate::entry::{Owner, Timestamp};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn path(text: &str) -> EntryPath {
    EntryPath::new(text).unwrap()
}

fn meta(mode: u32) -> Metadata {
    let owner =
        Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw(), user: None, group: None };
    let mtime = Timestamp { seconds: 1_234_567, nanos: 89 };
    Metadata { mode, owner: Arc::new(owner), mtime, ..Metadata::default() }
}

/// `t` is the target; what lies beside it must never change.
fn set_up(replace: bool) -> (TempDir, Destination) {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("outside")).unwrap();
    fs::write(temp.path().join("outside/secret"), b"secret").unwrap();
    fs::set_permissions(temp.path().join("outside/secret"), fs::Permissions::from_mode(0o640)).unwrap();
    let options = DestOptions { create: true, replace, privileged: is_root() };
    let dest = Destination::open(&temp.path().join("t"), options).unwrap();
    (temp, dest)
}

fn assert_outside_untouched(temp: &TempDir) {
    let secret = temp.path().join("outside/secret");
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
    assert_eq!(fs::metadata(&secret).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_dir(temp.path().join("outside")).unwrap().count(), 1);
}

fn write(dest: &Destination, at: &str, data: &[u8], meta: &Metadata) -> Result<Warnings, DestError> {
    let file = dest.create_file(&path(at), meta)?;
    file.write_at(0, data)?;
    dest.finish_file(file, data.len() as u64, meta, &Vec::new())
}

#[allow(clippy::needless_pass_by_value, reason = "shorter calls")]
fn is_conflict<T>(result: Result<T, DestError>) -> bool {
    matches!(result, Err(DestError::Conflict { .. }))
}

#[test]
fn restores_files_with_metadata_whatever_the_umask() {
    let (temp, dest) = set_up(false);
    for mode in [0o644, 0o600, 0o777, 0o444, 0o000, 0o666] {
        let name = format!("f{mode:o}");
        assert_eq!(write(&dest, &name, b"data", &meta(mode)).unwrap(), Warnings::new());
        let found = fs::metadata(temp.path().join("t").join(&name)).unwrap();
        assert_eq!((found.mode() & 0o7777, found.len()), (mode, 4));
        assert_eq!((found.mtime(), found.mtime_nsec()), (1_234_567, 89));
    }
    assert!(is_conflict(write(&dest, "f644", b"new", &meta(0o644))));
    assert_eq!(fs::read(temp.path().join("t/f644")).unwrap(), b"data");
}

#[test]
fn directories_are_closed_until_their_metadata_is_set() {
    let (temp, dest) = set_up(false);
    dest.make_dir(&path("a/b/c")).unwrap();
    dest.make_dir(&path("a/b/c")).unwrap();
    let mode = |at: &str| fs::metadata(temp.path().join("t").join(at)).unwrap().mode() & 0o7777;
    assert_eq!((mode("a"), mode("a/b/c")), (0o700, 0o700));
    write(&dest, "a/b/f", b"", &meta(0o644)).unwrap();
    assert_eq!(dest.set_dir_metadata(&path("a/b"), &meta(0o1755), &Vec::new()).unwrap(), Warnings::new());
    assert_eq!(mode("a/b"), 0o1755);
    assert_eq!(fs::metadata(temp.path().join("t/a/b")).unwrap().mtime(), 1_234_567);
    dest.set_dir_metadata(&EntryPath::root(), &meta(0o750), &Vec::new()).unwrap();
    assert_eq!(mode(""), 0o750);
    assert!(is_conflict(dest.make_dir(&path("a/b/f"))));
}

#[test]
fn symlinks_in_the_way_are_never_followed() {
    for openat2 in [true, false] {
        let (temp, mut dest) = set_up(true);
        if !openat2 {
            dest.parents = dest.parents.without_openat2();
        }
        let target = temp.path().join("t");
        symlink("../outside", target.join("dir")).unwrap();
        symlink(temp.path().join("outside"), target.join("absolute")).unwrap();
        symlink("..", target.join("up")).unwrap();
        symlink("../outside/secret", target.join("file")).unwrap();
        for parent in ["dir/x", "absolute/x", "up/x", "up/outside/x"] {
            assert!(is_conflict(write(&dest, parent, b"bad", &meta(0o644))), "{parent}");
            assert!(is_conflict(dest.make_dir(&path(parent))));
            assert!(is_conflict(dest.hard_link(&path("dir/secret"), &path("stolen"))));
            assert!(is_conflict(dest.make_node(&path(parent), &Kind::Fifo, &meta(0o644), &Vec::new())));
            assert_eq!(dest.existing(&path(parent)).unwrap(), None);
        }
        assert!(is_conflict(dest.set_dir_metadata(&path("dir"), &meta(0o777), &Vec::new())));
        assert!(is_conflict(dest.open_existing(&path("file"))));
        write(&dest, "file", b"new", &meta(0o644)).unwrap();
        assert!(fs::symlink_metadata(target.join("file")).unwrap().is_file());
        dest.make_dir(&path("dir/sub")).unwrap_err();
        dest.make_dir(&path("dir")).unwrap();
        assert!(fs::symlink_metadata(target.join("dir")).unwrap().is_dir());
        assert_outside_untouched(&temp);
    }
}

#[test]
fn without_replace_everything_stays() {
    let (temp, dest) = set_up(false);
    symlink("../outside/secret", temp.path().join("t/link")).unwrap();
    symlink("../outside", temp.path().join("t/dir")).unwrap();
    mkfifoat(CWD, temp.path().join("t/fifo"), Mode::RWXU).unwrap();
    for name in ["link", "dir", "fifo"] {
        assert!(is_conflict(write(&dest, name, b"bad", &meta(0o644))), "{name}");
        assert!(is_conflict(dest.make_dir(&path(name))));
        assert!(is_conflict(dest.make_node(&path(name), &Kind::Symlink(b"x".to_vec()), &meta(0), &Vec::new())));
    }
    assert!(is_conflict(dest.open_existing(&path("fifo"))));
    assert_outside_untouched(&temp);
}

#[test]
fn replacing_is_all_or_nothing_and_spares_other_names() {
    let (temp, dest) = set_up(true);
    let target = temp.path().join("t");
    fs::write(target.join("f"), b"old").unwrap();
    fs::hard_link(target.join("f"), target.join("other")).unwrap();
    let file = dest.create_file(&path("f"), &meta(0o600)).unwrap();
    file.write_at(0, b"new").unwrap();
    assert_eq!(fs::read(target.join("f")).unwrap(), b"old");
    let handle = file.handle().unwrap();
    drop(file);
    let file = dest.open_again(&handle).unwrap();
    file.write_at(3, b"er").unwrap();
    dest.finish_file(file, 5, &meta(0o600), &Vec::new()).unwrap();
    assert_eq!(fs::read(target.join("f")).unwrap(), b"newer");
    assert_eq!(fs::read(target.join("other")).unwrap(), b"old");
    dest.create_file(&path("f"), &meta(0o600)).unwrap().discard();
    assert_eq!(fs::read_dir(&target).unwrap().count(), 2);
    fs::create_dir(target.join("d")).unwrap();
    assert!(is_conflict(write(&dest, "d", b"", &meta(0o600))));
}

#[test]
fn a_file_that_was_swapped_is_not_opened_again() {
    let (temp, dest) = set_up(true);
    let handle = dest.create_file(&path("f"), &meta(0o600)).unwrap().handle().unwrap();
    let file = temp.path().join("t/f");
    fs::rename(&file, temp.path().join("t/kept")).unwrap();
    fs::hard_link(temp.path().join("outside/secret"), &file).unwrap();
    assert!(is_conflict(dest.open_again(&handle)));
    fs::remove_file(&file).unwrap();
    symlink("../outside/secret", &file).unwrap();
    assert!(is_conflict(dest.open_again(&handle)));
    assert_outside_untouched(&temp);
}

#[test]
fn holes_stay_holes() {
    let (temp, dest) = set_up(false);
    let file = dest.create_file(&path("s"), &meta(0o600)).unwrap();
    file.write_at(8 << 20, b"middle").unwrap();
    dest.finish_file(file, 64 << 20, &meta(0o600), &Vec::new()).unwrap();
    let found = fs::metadata(temp.path().join("t/s")).unwrap();
    assert_eq!(found.len(), 64 << 20);
    assert!(found.blocks() * 512 < 1 << 20);
    let file = dest.create_file(&path("huge"), &meta(0o600)).unwrap();
    assert!(dest.finish_file(file, u64::MAX >> 1, &meta(0o600), &Vec::new()).is_err());
    assert!(dest.available().unwrap() > 0);
}

#[test]
fn links_and_pipes() {
    let (temp, dest) = set_up(true);
    let target = temp.path().join("t");
    let link = Kind::Symlink(b"../../etc".to_vec());
    for _ in 0..2 {
        assert_eq!(dest.make_node(&path("l"), &link, &meta(0o777), &Vec::new()).unwrap(), Warnings::new());
        assert_eq!(dest.make_node(&path("p"), &Kind::Fifo, &meta(0o640), &Vec::new()).unwrap(), Warnings::new());
        dest.hard_link(&path("l"), &path("l2")).unwrap();
    }
    assert_eq!(fs::read_link(target.join("l2")).unwrap().as_os_str(), "../../etc");
    let found = fs::symlink_metadata(target.join("l")).unwrap();
    assert_eq!((found.mtime(), found.nlink()), (1_234_567, 2));
    let pipe = fs::symlink_metadata(target.join("p")).unwrap();
    assert!(pipe.file_type().is_fifo() && pipe.mode() & 0o7777 == 0o640 && pipe.mtime() == 1_234_567);
    assert_eq!(fs::read_dir(&target).unwrap().count(), 3);
    assert_eq!(dest.existing(&path("l")).unwrap().unwrap().kind, link);
    assert_eq!(dest.existing(&path("nothing/here")).unwrap(), None);
}

#[test]
fn devices_and_owners_as_root() {
    if !is_root() {
        return;
    }
    let (temp, dest) = set_up(false);
    let mut other = meta(0o4755);
    other.owner = Arc::new(Owner { uid: 1234, gid: 4321, user: None, group: None });
    assert_eq!(write(&dest, "f", b"x", &other).unwrap(), Warnings::new());
    let found = fs::metadata(temp.path().join("t/f")).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (1234, 4321, 0o4755));
    assert!(dest.make_node(&path("l"), &Kind::Symlink(b"x".to_vec()), &other, &Vec::new()).unwrap().is_empty());
    assert_eq!(fs::symlink_metadata(temp.path().join("t/l")).unwrap().uid(), 1234);
    match dest.make_node(&path("null"), &Kind::CharDevice(1, 3), &meta(0o666), &Vec::new()) {
        Ok(warnings) => {
            assert_eq!(warnings, Warnings::new());
            assert_eq!(dest.existing(&path("null")).unwrap().unwrap().kind, Kind::CharDevice(1, 3));
        }
        // In a container.
        Err(error) => assert!(error.to_string().contains("cannot create device")),
    }
    let options = DestOptions { privileged: false, ..DestOptions::default() };
    let plain = Destination::open(&temp.path().join("t"), options).unwrap();
    let capability = vec![(b"security.capability".to_vec(), vec![1; 20])];
    let file = plain.create_file(&path("g"), &other).unwrap();
    assert_eq!(plain.finish_file(file, 0, &other, &capability).unwrap().len(), 2);
    let found = fs::metadata(temp.path().join("t/g")).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o7777), (0, 0o755));
}

#[test]
fn attributes_and_acls_round_trip_and_are_not_inherited() {
    let (temp, dest) = set_up(false);
    let target = temp.path().join("t");
    // Version 2; owner rw-, user 1234 r--, group r--, mask r--, others ---.
    let acl: Vec<u8> = [
        &[2, 0, 0, 0][..],
        &[1, 0, 6, 0, 255, 255, 255, 255],
        &[2, 0, 4, 0, 0xd2, 4, 0, 0],
        &[4, 0, 4, 0, 255, 255, 255, 255],
        &[16, 0, 4, 0, 255, 255, 255, 255],
        &[32, 0, 0, 0, 255, 255, 255, 255],
    ]
    .concat();
    let name = "system.posix_acl_access";
    if setxattr(&target, "system.posix_acl_default", &acl, XattrFlags::empty()).is_err() {
        return; // A file system without ACLs.
    }
    let xattrs = vec![(name.into(), acl.clone()), (b"user.x".to_vec(), b"1\0\xff".to_vec())];
    let file = dest.create_file(&path("with"), &meta(0o640)).unwrap();
    assert_eq!(dest.finish_file(file, 0, &meta(0o640), &xattrs).unwrap(), Warnings::new());
    let get = |at: &str, name: &str| {
        let mut buffer = vec![0; 1000];
        getxattr(target.join(at), name, &mut buffer[..]).map(|length| buffer[..length].to_vec())
    };
    assert_eq!((get("with", name).unwrap(), get("with", "user.x").unwrap()), (acl, b"1\0\xff".to_vec()));
    write(&dest, "without", b"", &meta(0o666)).unwrap();
    assert!(get("without", name).is_err());
    assert_eq!(fs::metadata(target.join("without")).unwrap().mode() & 0o7777, 0o666);
    dest.make_dir(&path("d")).unwrap();
    dest.set_dir_metadata(&path("d"), &meta(0o755), &Vec::new()).unwrap();
    assert!(get("d", name).is_err() && get("d", "system.posix_acl_default").is_err());
    let bad = vec![(b"nonsense.x".to_vec(), b"1".to_vec())];
    let file = dest.create_file(&path("bad"), &meta(0o640)).unwrap();
    assert_eq!(dest.finish_file(file, 0, &meta(0o640), &bad).unwrap().len(), 1);
}

#[test]
fn restores_again_into_closed_directories_as_a_user() {
    if is_root() {
        return; // Nothing is closed to root.
    }
    let (temp, dest) = set_up(true);
    let mut foreign = meta(0o4755);
    foreign.owner = Arc::default();
    for _ in 0..2 {
        dest.make_dir(&path("closed/in")).unwrap();
        assert_eq!(write(&dest, "closed/in/f", b"x", &foreign).unwrap().len(), 1);
        dest.set_dir_metadata(&path("closed/in"), &meta(0o555), &Vec::new()).unwrap();
        dest.set_dir_metadata(&path("closed"), &meta(0o555), &Vec::new()).unwrap();
    }
    assert_eq!(fs::metadata(temp.path().join("t/closed/in/f")).unwrap().mode() & 0o7777, 0o755);
    assert!(dest.make_node(&path("null"), &Kind::CharDevice(1, 3), &meta(0o666), &Vec::new()).is_err());
    dest.make_dir(&path("closed/in")).unwrap();
}

#[test]
fn odd_times_become_warnings() {
    let (_temp, dest) = set_up(false);
    let mut odd = meta(0o644);
    odd.mtime = Timestamp { seconds: i64::MAX, nanos: 0 };
    write(&dest, "far", b"", &odd).unwrap();
    odd.mtime = Timestamp { seconds: 0, nanos: 1_073_741_823 };
    assert_eq!(write(&dest, "now", b"", &odd).unwrap().len(), 1);
}

#[test]
fn the_longest_path_works() {
    for openat2 in [true, false] {
        let (temp, mut dest) = set_up(false);
        if !openat2 {
            dest.parents = dest.parents.without_openat2();
        }
        // The fallback takes a call per component, and so a while at the greatest depth.
        let deep = if openat2 { "d/".repeat(2040) } else { format!("{}/", "d".repeat(254)).repeat(16) };
        let file = format!("{deep}{}", "f".repeat(4095 - deep.len()));
        dest.make_dir(&path(deep.trim_end_matches('/'))).unwrap();
        write(&dest, &file, b"x", &meta(0o644)).unwrap();
        let found = dest.existing(&path(&file)).unwrap().unwrap();
        assert_eq!((found.kind, found.size), (Kind::File, 1));
        crate::fs::walk::remove_deep(&temp.path().join("t"));
    }
}

#[test]
fn a_racing_swap_of_the_parent_leads_nowhere() {
    for openat2 in [true, false] {
        let (temp, _) = set_up(true);
        let target = temp.path().join("t");
        fs::create_dir(target.join("dir")).unwrap();
        symlink("../outside", target.join("evil")).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let (a, b) = (target.join("dir"), target.join("evil"));
                    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
                }
            });
            let mut written = 0;
            for _ in 0..3000 {
                let options = DestOptions { replace: true, ..DestOptions::default() };
                let mut dest = Destination::open(&target, options).unwrap();
                if !openat2 {
                    dest.parents = dest.parents.without_openat2();
                }
                written += u32::from(write(&dest, "dir/secret", b"bad", &meta(0o666)).is_ok());
                let _ = dest.set_dir_metadata(&path("dir"), &meta(0o700), &Vec::new());
                let _ = dest.hard_link(&path("dir/secret"), &path("dir/link"));
            }
            stop.store(true, Ordering::Relaxed);
            assert!(written > 0);
        });
        assert_outside_untouched(&temp);
    }
}

#[test]
fn many_threads_in_many_directories() {
    let (temp, dest) = set_up(false);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let dest = &dest;
            scope.spawn(move || {
                for number in 0..200 {
                    dest.make_dir(&path(&format!("{number}"))).unwrap();
                    write(dest, &format!("{number}/{thread}"), b"x", &meta(0o644)).unwrap();
                }
            });
        }
    });
    let count = |at: &Path| fs::read_dir(at).unwrap().count();
    assert!((0..200).all(|number: u32| count(&temp.path().join("t").join(number.to_string())) == 4));
}
