//! Epoch objects as bytes: close, fence, seal, done. `docs/format.md`, "Epochs", says what they mean.

use minicbor::Decoder;

use super::ObjectKind;
use super::cbor::{self, required};
use super::config::{self, timestamp};
use super::object::{self, FormatError};
use super::pack::SegmentName;
use super::snapshot::{SnapshotName, get_head};
use crate::crypto::Key;
use crate::entry::Timestamp;
use crate::id::{Epoch, ObjectId, RepoId};

/// Roles of epoch objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EpochRole {
    /// The epoch takes no new writers.
    Close,
    /// Writers that have not committed yet must move on.
    Fence,
    /// What counts.
    Seal,
    /// Clean-up is over.
    Done,
}

impl EpochRole {
    /// In the order in which they come up.
    pub const ALL: [Self; 4] = [Self::Close, Self::Fence, Self::Seal, Self::Done];

    /// The part of the object's name after the dot.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::Fence => "fence",
            Self::Seal => "seal",
            Self::Done => "done",
        }
    }

    /// The kind of the object.
    #[must_use]
    pub fn kind(self) -> ObjectKind {
        match self {
            Self::Close => ObjectKind::Close,
            Self::Fence => ObjectKind::Fence,
            Self::Seal => ObjectKind::Seal,
            Self::Done => ObjectKind::Done,
        }
    }
}

/// Announces that an epoch ends, and which packs may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// Random id of the maintenance run.
    pub run: [u8; 16],
    /// Packs that may be deleted: no writer of a later epoch refers to them.
    pub condemned: Vec<(Epoch, ObjectId)>,
    /// Hash of the seal before.
    pub previous: Option<ObjectId>,
}

/// Ends an epoch: names all that counts from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Hash of the seal before.
    pub previous: Option<ObjectId>,
    /// Every valid snapshot of this epoch and those before.
    pub snapshots: Vec<(Epoch, ObjectId)>,
    /// Every index segment that counts for this epoch and those before.
    pub segments: Vec<SegmentName>,
    /// Packs to be deleted.
    pub deleted: Vec<(Epoch, ObjectId)>,
    /// When it was made.
    pub time: Timestamp,
    /// Snapshots that the seal before named or that belong to this epoch, and that are left out because a request names them.
    pub forgotten: Vec<(Epoch, ObjectId)>,
    /// Until when at least the store keeps all that this seal names and needs; where objects are locked.
    pub locked: Option<Timestamp>,
}

impl Seal {
    /// Whether it says that a snapshot is valid.
    #[must_use]
    pub fn names(&self, snapshot: &SnapshotName) -> bool {
        self.snapshots.contains(&(snapshot.epoch, snapshot.id))
    }
}

fn put_names(e: &mut cbor::Out<'_>, names: impl ExactSizeIterator<Item = (Epoch, ObjectId)>) -> cbor::EncodeResult {
    e.array(names.len() as u64)?;
    for (epoch, id) in names {
        e.array(2)?.u64(epoch)?.bytes(&id.0)?;
    }
    Ok(())
}

fn put_previous(e: &mut cbor::Out<'_>, previous: Option<&ObjectId>) -> cbor::EncodeResult {
    match previous {
        Some(id) => e.bytes(&id.0)?,
        None => e.null()?,
    };
    Ok(())
}

fn get_previous(d: &mut Decoder<'_>) -> cbor::Result<Option<ObjectId>> {
    cbor::optional(d, |d| Ok(ObjectId(cbor::fixed(d)?)))
}

/// Seals a close.
pub fn seal_close(key: &Key, repo: RepoId, epoch: Epoch, close: &Close) -> Result<Vec<u8>, FormatError> {
    let body = cbor::encode(|e| {
        e.map(3)?.u8(0)?.bytes(&close.run)?;
        put_names(e.u8(1)?, close.condemned.iter().copied())?;
        put_previous(e.u8(2)?, close.previous.as_ref())
    });
    object::seal(key, ObjectKind::Close, repo, epoch, &body)
}

/// Opens a close.
pub fn open_close(key: &Key, repo: RepoId, epoch: Epoch, bytes: &[u8]) -> Result<Close, FormatError> {
    let body = object::open(key, ObjectKind::Close, repo, epoch, bytes)?;
    let mut d = Decoder::new(&body);
    let (mut run, mut condemned, mut previous) = (None, None, None);
    cbor::map(&mut d, |field, d| {
        match field {
            0 => run = Some(cbor::fixed(d)?),
            1 => condemned = Some(cbor::array(d, get_head)?),
            2 => previous = get_previous(d)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    cbor::finish(&d)?;
    Ok(Close { run: required(run, 0)?, condemned: required(condemned, 1)?, previous })
}

/// Seals a seal. `parity` is the setting, in percent, that holds from now on; none leaves it to the config.
pub fn seal_seal(key: &Key, repo: RepoId, epoch: Epoch, seal: &Seal, parity: Option<u8>) -> Result<Vec<u8>, FormatError> {
    let body = cbor::encode(|e| {
        e.map(6 + u64::from(seal.locked.is_some()) + u64::from(parity.is_some()))?;
        put_previous(e.u8(0)?, seal.previous.as_ref())?;
        put_names(e.u8(1)?, seal.snapshots.iter().copied())?;
        put_names(e.u8(2)?, seal.segments.iter().map(|s| (s.epoch, s.id)))?;
        put_names(e.u8(3)?, seal.deleted.iter().copied())?;
        e.u8(4)?.array(2)?.i64(seal.time.seconds)?.u32(seal.time.nanos)?;
        put_names(e.u8(5)?, seal.forgotten.iter().copied())?;
        if let Some(locked) = seal.locked {
            e.u8(6)?.array(2)?.i64(locked.seconds)?.u32(locked.nanos)?;
        }
        if let Some(percent) = parity {
            e.u8(7)?.u8(percent)?;
        }
        Ok(())
    });
    object::seal(key, ObjectKind::Seal, repo, epoch, &body)
}

/// Opens a seal; with it the setting of parity, as [`seal_seal`] takes it.
pub fn open_seal(key: &Key, repo: RepoId, epoch: Epoch, bytes: &[u8]) -> Result<(Seal, Option<u8>), FormatError> {
    let body = object::open(key, ObjectKind::Seal, repo, epoch, bytes)?;
    let mut d = Decoder::new(&body);
    let (mut previous, mut names, mut time) = (None, [None, None, None], None);
    let (mut forgotten, mut locked, mut parity) = (Vec::new(), None, None);
    cbor::map(&mut d, |field, d| {
        match field {
            0 => previous = get_previous(d)?,
            1..=3 => names[field as usize - 1] = Some(cbor::array(d, get_head)?),
            4 => time = Some(timestamp(d)?),
            5 => forgotten = cbor::array(d, get_head)?,
            6 => locked = Some(timestamp(d)?),
            7 => parity = Some(config::parity(d)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    cbor::finish(&d)?;
    let [snapshots, segments, deleted] = names;
    let segments = required(segments, 2)?.into_iter().map(|(epoch, id)| SegmentName { epoch, id }).collect();
    let seal = Seal {
        previous,
        snapshots: required(snapshots, 1)?,
        segments,
        deleted: required(deleted, 3)?,
        time: required(time, 4)?,
        forgotten,
        locked,
    };
    Ok((seal, parity))
}

/// Seals an object without content: a fence or a done.
pub fn seal_mark(key: &Key, kind: ObjectKind, repo: RepoId, epoch: Epoch) -> Result<Vec<u8>, FormatError> {
    object::seal(key, kind, repo, epoch, &cbor::encode(|e| e.map(0).map(drop)))
}

/// Checks a fence or a done.
pub fn open_mark(key: &Key, kind: ObjectKind, repo: RepoId, epoch: Epoch, bytes: &[u8]) -> Result<(), FormatError> {
    object::open(key, kind, repo, epoch, bytes).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let (key, repo) = (Key::from_bytes([1; 32]), RepoId([2; 16]));
        let close = Close { run: [3; 16], condemned: vec![(1, ObjectId([4; 32]))], previous: None };
        assert_eq!(open_close(&key, repo, 5, &seal_close(&key, repo, 5, &close).expect("seals")).expect("opens"), close);
        let seal = Seal {
            previous: Some(ObjectId([5; 32])),
            snapshots: vec![(1, ObjectId([6; 32]))],
            segments: vec![SegmentName { epoch: 2, id: ObjectId([7; 32]) }],
            deleted: vec![],
            time: Timestamp { seconds: 8, nanos: 9 },
            forgotten: vec![(0, ObjectId([8; 32]))],
            locked: Some(Timestamp { seconds: 9, nanos: 0 }),
        };
        for parity in [None, Some(0), Some(100)] {
            let bytes = seal_seal(&key, repo, 5, &seal, parity).expect("seals");
            assert_eq!(open_seal(&key, repo, 5, &bytes).expect("opens"), (seal.clone(), parity));
        }
        let too_much = seal_seal(&key, repo, 5, &seal, Some(101)).expect("seals");
        assert!(open_seal(&key, repo, 5, &too_much).is_err());
        let fence = seal_mark(&key, ObjectKind::Fence, repo, 5).expect("seals");
        assert!(open_mark(&key, ObjectKind::Fence, repo, 5, &fence).is_ok());
        assert!(open_mark(&key, ObjectKind::Done, repo, 5, &fence).is_err());
    }
}
