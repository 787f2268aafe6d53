//! Entries as members of volumes and signature files.

use engine::entry::{Entry, Kind};
use engine::path::EntryPath;

use crate::tar::{Header, TarKind};

/// First number of a device that tar's fields cannot hold.
const MAX_DEVICE: u32 = 1 << 21;

/// Which file a name is for: the root directory is called differently in the two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Volume,
    Signatures,
}

/// Whether an archive can hold this.
pub(crate) fn fits(entry: &Entry) -> bool {
    match entry.kind {
        Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => major < MAX_DEVICE && minor < MAX_DEVICE,
        _ => true,
    }
}

/// The metadata of an entry as a header; name and size are still to be set.
pub(crate) fn of(entry: &Entry) -> Header {
    let owner = &entry.meta.owner;
    let text = |name: &Option<String>| name.as_ref().map(|n| n.clone().into_bytes()).unwrap_or_default();
    let (kind, link, major, minor) = match &entry.kind {
        Kind::File => (TarKind::Regular, Vec::new(), 0, 0),
        Kind::Directory => (TarKind::Directory, Vec::new(), 0, 0),
        Kind::Symlink(target) => (TarKind::Symlink, target.clone(), 0, 0),
        Kind::Fifo => (TarKind::Fifo, Vec::new(), 0, 0),
        Kind::CharDevice(major, minor) => (TarKind::CharDevice, Vec::new(), *major, *minor),
        Kind::BlockDevice(major, minor) => (TarKind::BlockDevice, Vec::new(), *major, *minor),
    };
    Header {
        name: Vec::new(),
        kind,
        mode: entry.meta.mode & 0o7777,
        uid: owner.uid,
        gid: owner.gid,
        uname: text(&owner.user),
        gname: text(&owner.group),
        mtime: entry.meta.mtime.seconds.max(0),
        size: 0,
        link,
        major,
        minor,
    }
}

/// `WORD/PATH`, for directories with a slash behind it.
pub(crate) fn name(word: &str, entry: &Entry, place: Place) -> Vec<u8> {
    let mut name = named(word, &entry.path);
    if entry.is_directory() {
        match (entry.path.is_root(), place) {
            (true, Place::Volume) => name.extend_from_slice(b"./"),
            (true, Place::Signatures) => {}
            (false, _) => name.push(b'/'),
        }
    }
    name
}

/// `WORD/PATH/NUMBER`; of the root `WORD/NUMBER`.
pub(crate) fn piece_name(word: &str, path: &EntryPath, number: u64) -> Vec<u8> {
    let mut name = named(word, path);
    if !path.is_root() {
        name.push(b'/');
    }
    name.extend_from_slice(number.to_string().as_bytes());
    name
}

/// The header of a path that is no more.
pub(crate) fn deleted(path: &EntryPath) -> Header {
    Header { name: named("deleted", path), ..Header::default() }
}

fn named(word: &str, path: &EntryPath) -> Vec<u8> {
    [word.as_bytes(), b"/", path.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::member::{Member, MemberKind, Owners, entry_kind};
    use engine::entry::{Content, Metadata, Owner, Timestamp};

    fn entry(path: &str, kind: Kind) -> Entry {
        let owner = Owner { uid: 7, gid: 8, user: Some("u".into()), group: None };
        let meta = Metadata {
            mode: 0o4751,
            owner: Arc::new(owner),
            mtime: Timestamp { seconds: 9, nanos: 5 },
            links: 1,
            ..Metadata::default()
        };
        let path = EntryPath::new(path).expect("valid");
        Entry { path, kind, meta, xattrs: vec![], size: 0, content: Content::Empty, holes: vec![] }
    }

    #[test]
    fn names() {
        let (root, dir, file) = (entry("", Kind::Directory), entry("a/b", Kind::Directory), entry("", Kind::File));
        assert_eq!(name("snapshot", &root, Place::Volume), b"snapshot/./");
        assert_eq!(name("snapshot", &root, Place::Signatures), b"snapshot/");
        assert_eq!(name("snapshot", &dir, Place::Signatures), b"snapshot/a/b/");
        assert_eq!(name("diff", &file, Place::Volume), b"diff/");
        assert_eq!(piece_name("multivol_diff", &dir.path, 12), b"multivol_diff/a/b/12");
        assert_eq!(piece_name("multivol_diff", &root.path, 1), b"multivol_diff/1");
    }

    #[test]
    fn the_import_reads_them_back() {
        for kind in [Kind::File, Kind::Directory, Kind::Fifo, Kind::Symlink(b"t\xff".to_vec()), Kind::BlockDevice(7, 200)] {
            let entry = entry("x/y", kind);
            let header = Header { name: name("snapshot", &entry, Place::Volume), ..of(&entry) };
            let member = Member::parse(&header).expect("valid");
            assert_eq!((member.kind, &member.path), (MemberKind::Snapshot, &entry.path));
            assert_eq!(entry_kind(&header).expect("valid"), entry.kind);
            let meta = Owners::default().metadata(&header);
            assert_eq!((meta.mode, &meta.owner, meta.mtime.seconds), (0o4751, &entry.meta.owner, 9));
        }
        assert_eq!(Member::parse(&deleted(&EntryPath::root())).expect("valid").kind, MemberKind::Deleted);
        assert!(!fits(&entry("d", Kind::CharDevice(1 << 21, 0))));
    }
}
