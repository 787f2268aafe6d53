//! Members of volumes and signature files: what their names say, and their headers as the engine's metadata.

use std::collections::HashMap;
use std::sync::Arc;

use engine::entry::{Kind, Metadata, Owner, Timestamp};
use engine::path::{EntryPath, MAX_PATH, PathError, display_bytes};

use crate::tar::{Header, TarKind};

/// Longest part of a name that an error shows, in bytes.
const MAX_SHOWN: usize = 4200;
/// Owners that are shared at a time; hostile archives may have as many as members.
const MAX_OWNERS: usize = 4096;

/// What a member stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemberKind {
    /// The complete new state.
    Snapshot,
    /// A delta against the content before; regular files only.
    Diff,
    /// The path is no more.
    Deleted,
    /// The signature of a file's complete new content; only in signature files.
    Signature,
    /// Piece of a regular file's content, counted from 1.
    SnapshotPiece(u64),
    /// Piece of a delta, counted from 1.
    DiffPiece(u64),
}

/// A member's name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it stands for.
    pub kind: MemberKind,
    /// Where in the source; empty for the root.
    pub path: EntryPath,
}

/// Why a member is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemberProblem {
    /// The name begins with none of duplicity's words.
    #[error("is no member of a duplicity archive")]
    Unknown,
    /// The path could leave the source, or no file system could hold it.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A piece without a number from 1 to 2^64 - 1.
    #[error("is a piece without a usable number")]
    Piece,
    /// A hard link: duplicity writes none.
    #[error("is a hard link")]
    HardLink,
    /// A tar type that duplicity does not know.
    #[error("has the unknown type {0:#04x}")]
    Type(u8),
    /// Content, delta or signature of something that is not a regular file.
    #[error("has content but is no regular file")]
    NotRegular,
    /// A symbolic link without a target, or with one longer than a path can be.
    #[error("is a symbolic link with an impossible target")]
    Target,
}

/// A member that is refused; what is around it is not touched by that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{}' {problem}", display_bytes(name))]
pub struct MemberError {
    /// Its raw name; cut if it is very long.
    pub name: Vec<u8>,
    /// What is wrong with it.
    pub problem: MemberProblem,
}

impl Member {
    /// Takes a member's name apart and checks that its type fits.
    pub fn parse(header: &Header) -> Result<Self, MemberError> {
        parse(header).map_err(|problem| error(header, problem))
    }
}

fn error(header: &Header, problem: MemberProblem) -> MemberError {
    MemberError { name: header.name[..header.name.len().min(MAX_SHOWN)].to_vec(), problem }
}

fn parse(header: &Header) -> Result<Member, MemberProblem> {
    let slash = header.name.iter().position(|b| *b == b'/').unwrap_or(header.name.len());
    let (word, path) = header.name.split_at(slash);
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let (kind, path) = match word {
        b"snapshot" => (MemberKind::Snapshot, path),
        b"diff" => (MemberKind::Diff, path),
        b"deleted" => (MemberKind::Deleted, path),
        b"signature" => (MemberKind::Signature, path),
        b"multivol_snapshot" => {
            let (path, number) = piece(path)?;
            (MemberKind::SnapshotPiece(number), path)
        }
        b"multivol_diff" => {
            let (path, number) = piece(path)?;
            (MemberKind::DiffPiece(number), path)
        }
        _ => return Err(MemberProblem::Unknown),
    };
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let path = if path == b"." { EntryPath::root() } else { EntryPath::new(path)? };
    match (kind, header.kind) {
        (MemberKind::Deleted, _) | (_, TarKind::Regular) => {}
        (_, TarKind::HardLink) => return Err(MemberProblem::HardLink),
        (_, TarKind::Other(code)) => return Err(MemberProblem::Type(code)),
        (MemberKind::Snapshot, _) => {}
        _ => return Err(MemberProblem::NotRegular),
    }
    Ok(Member { kind, path })
}

/// Splits a piece's number off. The path before it may itself end in digits.
fn piece(path: &[u8]) -> Result<(&[u8], u64), MemberProblem> {
    let slash = path.iter().rposition(|b| *b == b'/');
    let (path, number) = slash.map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]));
    if !number.iter().all(u8::is_ascii_digit) {
        return Err(MemberProblem::Piece);
    }
    let number = std::str::from_utf8(number).ok().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
    Ok((path, number.ok_or(MemberProblem::Piece)?))
}

/// What kind of entry a member describes. Not to be asked of [`MemberKind::Deleted`], whose header is all zeros.
pub fn entry_kind(header: &Header) -> Result<Kind, MemberError> {
    match header.kind {
        TarKind::Regular => Ok(Kind::File),
        TarKind::Directory => Ok(Kind::Directory),
        TarKind::Symlink if header.link.is_empty() || header.link.len() > MAX_PATH => Err(error(header, MemberProblem::Target)),
        TarKind::Symlink => Ok(Kind::Symlink(header.link.clone())),
        TarKind::Fifo => Ok(Kind::Fifo),
        TarKind::CharDevice => Ok(Kind::CharDevice(header.major, header.minor)),
        TarKind::BlockDevice => Ok(Kind::BlockDevice(header.major, header.minor)),
        TarKind::HardLink => Err(error(header, MemberProblem::HardLink)),
        TarKind::Other(code) => Err(error(header, MemberProblem::Type(code))),
    }
}

/// Turns headers into metadata; owners that occur again are shared.
#[derive(Debug, Default)]
pub struct Owners {
    known: HashMap<Owner, Arc<Owner>>,
}

impl Owners {
    /// The metadata of a member. Times before 1970 become 1970, as in all that duplicity restores; the archive has neither
    /// fractions of seconds, nor change times, nor hard links. Owner names that are not UTF-8 are left out.
    pub fn metadata(&mut self, header: &Header) -> Metadata {
        let mtime = Timestamp { seconds: header.mtime.max(0), nanos: 0 };
        Metadata { mode: header.mode & 0o7777, owner: self.owner(header), mtime, links: 1, ..Metadata::default() }
    }

    fn owner(&mut self, header: &Header) -> Arc<Owner> {
        let name = |raw: &[u8]| std::str::from_utf8(raw).ok().filter(|n| !n.is_empty()).map(str::to_owned);
        let owner = Owner { uid: header.uid, gid: header.gid, user: name(&header.uname), group: name(&header.gname) };
        if let Some(known) = self.known.get(&owner) {
            return known.clone();
        }
        if self.known.len() >= MAX_OWNERS {
            self.known.clear();
        }
        let shared = Arc::new(owner.clone());
        self.known.insert(owner, shared.clone());
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(name: impl AsRef<[u8]>, kind: TarKind) -> Header {
        Header { name: name.as_ref().to_vec(), kind, ..Header::default() }
    }

    fn parse(name: impl AsRef<[u8]>) -> Result<(MemberKind, Vec<u8>), MemberProblem> {
        let member = Member::parse(&header(name, TarKind::Regular)).map_err(|e| e.problem)?;
        Ok((member.kind, member.path.as_bytes().to_vec()))
    }

    #[test]
    fn every_kind_of_name() {
        use MemberKind::{Deleted, Diff, DiffPiece, Signature, Snapshot, SnapshotPiece};
        for (name, kind, path) in [
            ("snapshot/a/b", Snapshot, "a/b"),
            ("snapshot/a/", Snapshot, "a"),
            ("snapshot/./", Snapshot, ""),
            ("snapshot/", Snapshot, ""),
            ("snapshot", Snapshot, ""),
            ("diff/", Diff, ""),
            ("diff/snapshot/deleted", Diff, "snapshot/deleted"),
            ("deleted/x", Deleted, "x"),
            ("signature/x", Signature, "x"),
            ("multivol_snapshot/7/1/2", SnapshotPiece(2), "7/1"),
            ("multivol_snapshot/1", SnapshotPiece(1), ""),
            ("multivol_snapshot//1", SnapshotPiece(1), ""),
            ("multivol_diff/a/18446744073709551615", DiffPiece(u64::MAX), "a"),
        ] {
            assert_eq!(parse(name), Ok((kind, path.as_bytes().to_vec())), "{name}");
        }
    }

    /// security.md, cases 1 to 3 and 16
    #[test]
    fn paths_that_could_leave_the_source() {
        for (name, problem) in [
            (&b"snapshot/../x"[..], PathError::DotComponent),
            (b"snapshot/a/..", PathError::DotComponent),
            (b"snapshot/./a", PathError::DotComponent),
            (b"snapshot//etc/passwd", PathError::EmptyComponent),
            (b"snapshot/a//b", PathError::EmptyComponent),
            (b"snapshot/a//", PathError::EmptyComponent),
            (b"deleted/..", PathError::DotComponent),
            (b"multivol_diff/../1", PathError::DotComponent),
            (b"snapshot/a\0b", PathError::Nul),
        ] {
            assert_eq!(parse(name), Err(MemberProblem::Path(problem)), "{name:?}");
        }
        let long = [b"snapshot".as_slice(), &b"/nnnnnnnn".repeat(500)].concat();
        assert_eq!(parse(long), Err(MemberProblem::Path(PathError::TooLong)));
        let error = Member::parse(&header("snapshot/../x", TarKind::Regular)).expect_err("leaves");
        assert_eq!(error.to_string(), "'snapshot/../x' '.' or '..' as a path component");
    }

    #[test]
    fn foreign_names_and_pieces_without_numbers() {
        for name in ["", "/", "/etc/passwd", "Snapshot/a", "snapshots/a", "../snapshot/a"] {
            assert_eq!(parse(name), Err(MemberProblem::Unknown), "{name}");
        }
        for name in [
            "multivol_diff/a",
            "multivol_diff/a/",
            "multivol_diff/a/0",
            "multivol_diff/a/+1",
            "multivol_diff/a/18446744073709551616",
        ] {
            assert_eq!(parse(name), Err(MemberProblem::Piece), "{name}");
        }
    }

    #[test]
    fn types_have_to_fit() {
        let problem = |name: &str, kind| Member::parse(&header(name, kind)).map_err(|e| e.problem);
        assert_eq!(problem("snapshot/a", TarKind::HardLink), Err(MemberProblem::HardLink));
        assert_eq!(problem("snapshot/a", TarKind::Other(b'7')), Err(MemberProblem::Type(b'7')));
        assert_eq!(problem("signature/a", TarKind::Directory), Err(MemberProblem::NotRegular));
        assert_eq!(problem("multivol_diff/a/1", TarKind::Symlink), Err(MemberProblem::NotRegular));
        assert!(problem("snapshot/a", TarKind::Fifo).is_ok());
        let link = Header { link: b"t".to_vec(), ..header("snapshot/a", TarKind::Symlink) };
        assert_eq!(entry_kind(&link), Ok(Kind::Symlink(b"t".to_vec())));
        for target in [Vec::new(), vec![b't'; MAX_PATH + 1]] {
            let link = Header { link: target, ..link.clone() };
            assert_eq!(entry_kind(&link).map_err(|e| e.problem), Err(MemberProblem::Target));
        }
    }

    #[test]
    fn metadata_is_what_duplicity_restores() {
        let mut owners = Owners::default();
        let header =
            Header { uid: 7, uname: b"u".to_vec(), gname: b"\xff".to_vec(), mtime: -5, ..header("snapshot/a", TarKind::Regular) };
        let (first, second) = (owners.metadata(&header), owners.metadata(&header));
        assert!(Arc::ptr_eq(&first.owner, &second.owner));
        assert_eq!(*first.owner, Owner { uid: 7, gid: 0, user: Some("u".into()), group: None });
        assert_eq!((first.mtime, first.links), (Timestamp::default(), 1));
    }

    #[test]
    fn owners_are_bounded() {
        let mut owners = Owners::default();
        for uid in 0..10_000 {
            owners.metadata(&Header { uid, ..Header::default() });
        }
        assert!(owners.known.len() <= MAX_OWNERS);
    }

    proptest! {
        #[test]
        fn any_valid_path_comes_back(path in "[a-c0-9.]{1,4}(/[a-c0-9.]{1,4}){0,4}", piece in 1u64..) {
            let Ok(path) = EntryPath::new(path) else { return Ok(()) };
            let name = [b"multivol_snapshot/", path.as_bytes(), b"/", piece.to_string().as_bytes()].concat();
            prop_assert_eq!(parse(name), Ok((MemberKind::SnapshotPiece(piece), path.as_bytes().to_vec())));
        }
    }
}
