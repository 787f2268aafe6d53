//! Snapshots, sessions, requests to forget and marks of damage as bytes.

use minicbor::Decoder;

use super::ObjectKind;
use super::cbor::{self, Out, required};
use super::config::timestamp;
use super::object::{self, FormatError};
use crate::crypto::Key;
use crate::entry::Timestamp;
use crate::id::{BlobId, Epoch, ObjectId, RepoId};

/// Name of a snapshot object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName {
    /// Epoch under which it is stored.
    pub epoch: Epoch,
    /// Hash of the object.
    pub id: ObjectId,
}

/// Whether a snapshot holds all that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SnapshotKind {
    /// The backup ran to its end.
    Complete = 0,
    /// Written in the middle of a long backup, to keep what is stored already; void once the backup has ended.
    Partial = 1,
}

/// Sums over all entries of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Entries of every kind.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Sizes of the regular files added up, holes included.
    pub bytes: u64,
}

/// A committed tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Time of the backup, or the time the user gave for it.
    pub time: Timestamp,
    /// When the backup began by this machine's clock; files changed since are read again by the next one.
    pub started: Timestamp,
    /// Name of the machine.
    pub host: String,
    /// Name of the user.
    pub user: String,
    /// Absolute paths that were backed up, raw bytes.
    pub paths: Vec<Vec<u8>>,
    /// The user's tags.
    pub tags: Vec<String>,
    /// Name and version of the program.
    pub program: String,
    /// Root node of the catalog; none for an empty tree.
    pub root: Option<BlobId>,
    /// Sums.
    pub totals: Totals,
    /// Whether it is whole.
    pub kind: SnapshotKind,
    /// The snapshot that was compared with to find unchanged files.
    pub parent: Option<ObjectId>,
    /// The latest seal that the writer had seen: epoch, hash of the object.
    pub head: Option<(Epoch, ObjectId)>,
    /// Random id of the writing session.
    pub session: [u8; 16],
    /// How many files could not be read or changed while they were read.
    pub problems: u64,
    /// What the snapshot was made from, where that is no file system: the importer's name of it, the same whenever the same
    /// thing is imported.
    pub origin: Option<String>,
}

/// Seals a snapshot under `epoch`.
pub fn seal(key: &Key, repo: RepoId, epoch: Epoch, s: &Snapshot) -> Result<Vec<u8>, FormatError> {
    let body = cbor::encode(|e| {
        e.map(14 + u64::from(s.origin.is_some()))?;
        put_time(e.u8(0)?, s.time)?;
        put_time(e.u8(1)?, s.started)?;
        e.u8(2)?.str(&s.host)?.u8(3)?.str(&s.user)?;
        e.u8(4)?.array(s.paths.len() as u64)?;
        for path in &s.paths {
            e.bytes(path)?;
        }
        e.u8(5)?.array(s.tags.len() as u64)?;
        for tag in &s.tags {
            e.str(tag)?;
        }
        e.u8(6)?.str(&s.program)?.u8(7)?;
        put_optional(e, s.root.as_ref().map(|r| &r.0[..]))?;
        let t = &s.totals;
        e.u8(8)?.array(4)?.u64(t.entries)?.u64(t.files)?.u64(t.directories)?.u64(t.bytes)?;
        e.u8(9)?.u8(s.kind as u8)?.u8(10)?;
        put_optional(e, s.parent.as_ref().map(|p| &p.0[..]))?;
        e.u8(11)?;
        match &s.head {
            Some((epoch, id)) => e.array(2)?.u64(*epoch)?.bytes(&id.0)?,
            None => e.null()?,
        };
        e.u8(12)?.bytes(&s.session)?.u8(13)?.u64(s.problems)?;
        if let Some(origin) = &s.origin {
            e.u8(14)?.str(origin)?;
        }
        Ok(())
    });
    object::seal(key, ObjectKind::Snapshot, repo, epoch, &body)
}

/// Opens a snapshot.
pub fn open(key: &Key, repo: RepoId, epoch: Epoch, bytes: &[u8]) -> Result<Snapshot, FormatError> {
    let body = object::open(key, ObjectKind::Snapshot, repo, epoch, bytes)?;
    let mut d = Decoder::new(&body);
    let (mut times, mut texts) = ([None; 2], [None, None, None]);
    let (mut paths, mut tags, mut root, mut totals, mut kind) = (None, None, None, None, None);
    let (mut parent, mut head, mut session, mut problems, mut origin) = (None, None, None, 0, None);
    cbor::map(&mut d, |field, d| {
        match field {
            0 | 1 => times[field as usize] = Some(timestamp(d)?),
            2 => texts[0] = Some(d.str()?.to_owned()),
            3 => texts[1] = Some(d.str()?.to_owned()),
            4 => paths = Some(cbor::array(d, |d| Ok(d.bytes()?.to_vec()))?),
            5 => tags = Some(cbor::array(d, |d| Ok(d.str()?.to_owned()))?),
            6 => texts[2] = Some(d.str()?.to_owned()),
            7 => root = cbor::optional(d, |d| Ok(BlobId(cbor::fixed(d)?)))?,
            8 => totals = Some(get_totals(d)?),
            9 => kind = Some(get_kind(d)?),
            10 => parent = cbor::optional(d, |d| Ok(ObjectId(cbor::fixed(d)?)))?,
            11 => head = cbor::optional(d, get_head)?,
            12 => session = Some(cbor::fixed(d)?),
            13 => problems = d.u64()?,
            14 => origin = Some(d.str()?.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    cbor::finish(&d)?;
    let ([time, started], [host, user, program]) = (times, texts);
    Ok(Snapshot {
        time: required(time, 0)?,
        started: required(started, 1)?,
        host: required(host, 2)?,
        user: required(user, 3)?,
        paths: required(paths, 4)?,
        tags: required(tags, 5)?,
        program: required(program, 6)?,
        root,
        totals: required(totals, 8)?,
        kind: required(kind, 9)?,
        parent,
        head,
        session: required(session, 12)?,
        problems,
        origin,
    })
}

fn put_time(e: &mut Out<'_>, time: Timestamp) -> cbor::EncodeResult {
    e.array(2)?.i64(time.seconds)?.u32(time.nanos)?;
    Ok(())
}

fn put_optional(e: &mut Out<'_>, bytes: Option<&[u8]>) -> cbor::EncodeResult {
    match bytes {
        Some(bytes) => e.bytes(bytes)?,
        None => e.null()?,
    };
    Ok(())
}

fn get_totals(d: &mut Decoder<'_>) -> cbor::Result<Totals> {
    match cbor::array(d, |d| Ok(d.u64()?))?.as_slice() {
        &[entries, files, directories, bytes] => Ok(Totals { entries, files, directories, bytes }),
        _ => Err(cbor::CborError::Invalid("totals are four numbers")),
    }
}

fn get_kind(d: &mut Decoder<'_>) -> cbor::Result<SnapshotKind> {
    match d.u8()? {
        0 => Ok(SnapshotKind::Complete),
        1 => Ok(SnapshotKind::Partial),
        _ => Err(cbor::CborError::Invalid("an unknown kind of snapshot: use a newer program")),
    }
}

/// Epoch and hash of a seal.
pub(super) fn get_head(d: &mut Decoder<'_>) -> cbor::Result<(Epoch, ObjectId)> {
    if d.array()? != Some(2) {
        return Err(cbor::CborError::Invalid("a name is two fields"));
    }
    Ok((d.u64()?, ObjectId(cbor::fixed(d)?)))
}

/// A writer's announcement. Advice for maintenance only; nothing depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Random id, also in the snapshots that it writes.
    pub id: [u8; 16],
    /// When it began.
    pub started: Timestamp,
    /// Who: user, machine, process.
    pub owner: String,
}

/// Seals a session's announcement.
pub fn seal_session(key: &Key, repo: RepoId, epoch: Epoch, s: &Session) -> Result<Vec<u8>, FormatError> {
    let body = cbor::encode(|e| {
        e.map(3)?.u8(0)?.bytes(&s.id)?;
        put_time(e.u8(1)?, s.started)?;
        e.u8(2)?.str(&s.owner)?;
        Ok(())
    });
    object::seal(key, ObjectKind::Session, repo, epoch, &body)
}

/// Opens a session's announcement.
pub fn open_session(key: &Key, repo: RepoId, epoch: Epoch, bytes: &[u8]) -> Result<Session, FormatError> {
    let body = object::open(key, ObjectKind::Session, repo, epoch, bytes)?;
    let mut d = Decoder::new(&body);
    let (mut id, mut started, mut owner) = (None, None, None);
    cbor::map(&mut d, |field, d| {
        match field {
            0 => id = Some(cbor::fixed(d)?),
            1 => started = Some(timestamp(d)?),
            2 => owner = Some(d.str()?.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    cbor::finish(&d)?;
    Ok(Session { id: required(id, 0)?, started: required(started, 1)?, owner: required(owner, 2)? })
}

/// Seals a request to forget snapshots: their names.
pub fn seal_forget(key: &Key, repo: RepoId, snapshots: &[(Epoch, ObjectId)]) -> Result<Vec<u8>, FormatError> {
    seal_names(key, repo, ObjectKind::Forget, snapshots)
}

/// Opens a request to forget.
pub fn open_forget(key: &Key, repo: RepoId, bytes: &[u8]) -> Result<Vec<(Epoch, ObjectId)>, FormatError> {
    open_names(key, repo, ObjectKind::Forget, bytes)
}

/// Seals a mark of damage: names of packs that nothing new may refer to.
pub fn seal_damage(key: &Key, repo: RepoId, packs: &[(Epoch, ObjectId)]) -> Result<Vec<u8>, FormatError> {
    seal_names(key, repo, ObjectKind::Damage, packs)
}

/// Opens a mark of damage.
pub fn open_damage(key: &Key, repo: RepoId, bytes: &[u8]) -> Result<Vec<(Epoch, ObjectId)>, FormatError> {
    open_names(key, repo, ObjectKind::Damage, bytes)
}

fn seal_names(key: &Key, repo: RepoId, kind: ObjectKind, names: &[(Epoch, ObjectId)]) -> Result<Vec<u8>, FormatError> {
    let body = cbor::encode(|e| {
        e.map(1)?.u8(0)?.array(names.len() as u64)?;
        for (epoch, id) in names {
            e.array(2)?.u64(*epoch)?.bytes(&id.0)?;
        }
        Ok(())
    });
    object::seal(key, kind, repo, 0, &body)
}

fn open_names(key: &Key, repo: RepoId, kind: ObjectKind, bytes: &[u8]) -> Result<Vec<(Epoch, ObjectId)>, FormatError> {
    let body = object::open(key, kind, repo, 0, bytes)?;
    let mut d = Decoder::new(&body);
    let mut names = None;
    cbor::map(&mut d, |field, d| {
        match field {
            0 => names = Some(cbor::array(d, get_head)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    cbor::finish(&d)?;
    Ok(required(names, 0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let (key, repo) = (Key::from_bytes([1; 32]), RepoId([2; 16]));
        let full = Snapshot {
            time: Timestamp { seconds: -1, nanos: 999_999_999 },
            started: Timestamp { seconds: 5, nanos: 0 },
            host: "h".into(),
            user: "u".into(),
            paths: vec![b"/home/\xff".to_vec()],
            tags: vec!["t".into()],
            program: "p".into(),
            root: Some(BlobId([3; 32])),
            totals: Totals { entries: 1, files: 2, directories: 3, bytes: u64::MAX },
            kind: SnapshotKind::Partial,
            parent: Some(ObjectId([4; 32])),
            head: Some((7, ObjectId([5; 32]))),
            session: [6; 16],
            problems: 3,
            origin: Some("o".into()),
        };
        let bare = Snapshot { root: None, parent: None, head: None, origin: None, kind: SnapshotKind::Complete, ..full.clone() };
        for snapshot in [full, bare] {
            let bytes = seal(&key, repo, 9, &snapshot).expect("seals");
            assert_eq!(open(&key, repo, 9, &bytes).expect("opens"), snapshot);
        }
        let names = vec![(3, ObjectId([9; 32]))];
        let (forget, damage) = (seal_forget(&key, repo, &names).expect("seals"), seal_damage(&key, repo, &names).expect("seals"));
        assert_eq!(open_forget(&key, repo, &forget).expect("opens"), names);
        assert_eq!(open_damage(&key, repo, &damage).expect("opens"), names);
        assert!(open_damage(&key, repo, &forget).is_err() && open_forget(&key, repo, &damage).is_err());
    }
}
