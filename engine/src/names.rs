//! Names of objects in the store.

use std::fmt;

use crate::backend::ObjectKey;
use crate::format::ObjectKind;
pub use crate::format::epoch::EpochRole;
use crate::format::pack::SegmentName;
pub use crate::format::snapshot::SnapshotName;
use crate::id::{Epoch, ObjectId};

/// Folder of parity across objects.
const GROUPS: &str = "parity/groups";
/// Folders of objects that belong to an epoch and are named by their hash.
const BY_EPOCH: [(&str, ObjectKind); 4] = [
    ("packs", ObjectKind::Pack),
    ("index", ObjectKind::Segment),
    ("snapshots", ObjectKind::Snapshot),
    ("sessions", ObjectKind::Session),
];
/// Folders of objects that are named by their hash alone.
const FLAT: [(&str, ObjectKind); 3] =
    [("keys", ObjectKind::KeySlot), ("forget", ObjectKind::Forget), ("damaged", ObjectKind::Damage)];

fn key(name: impl fmt::Display) -> ObjectKey {
    ObjectKey::new(name.to_string()).expect("names made here follow the rules of object keys")
}

/// `config`
#[must_use]
pub fn config() -> ObjectKey {
    key("config")
}

/// `keys/<id>`
#[must_use]
pub fn slot(id: &ObjectId) -> ObjectKey {
    key(format_args!("keys/{id}"))
}

/// `packs/<E>/<id>`
#[must_use]
pub fn pack(epoch: Epoch, id: &ObjectId) -> ObjectKey {
    key(format_args!("packs/{epoch:010}/{id}"))
}

/// `index/<E>/<id>`
#[must_use]
pub fn segment(name: &SegmentName) -> ObjectKey {
    key(format_args!("index/{:010}/{}", name.epoch, name.id))
}

/// `snapshots/<E>/<id>`
#[must_use]
pub fn snapshot(name: &SnapshotName) -> ObjectKey {
    key(format_args!("snapshots/{:010}/{}", name.epoch, name.id))
}

/// `sessions/<E>/<id>`
#[must_use]
pub fn session(epoch: Epoch, id: &ObjectId) -> ObjectKey {
    key(format_args!("sessions/{epoch:010}/{id}"))
}

/// `forget/<id>`
#[must_use]
pub fn forget(id: &ObjectId) -> ObjectKey {
    key(format_args!("forget/{id}"))
}

/// `damaged/<id>`
#[must_use]
pub fn damage(id: &ObjectId) -> ObjectKey {
    key(format_args!("damaged/{id}"))
}

/// `epochs/<E>.<role>`
#[must_use]
pub fn epoch(epoch: Epoch, role: EpochRole) -> ObjectKey {
    key(format_args!("epochs/{epoch:010}.{}", role.suffix()))
}

/// `parity/<name>`: the parity inside of the object of that name.
#[must_use]
pub fn parity_of(object: &ObjectKey) -> ObjectKey {
    key(format_args!("parity/{object}"))
}

/// `parity/groups/<E>/<id>`: parity across objects.
#[must_use]
pub fn group(epoch: Epoch, id: &ObjectId) -> ObjectKey {
    key(format_args!("{GROUPS}/{epoch:010}/{id}"))
}

/// The name that an object of this kind has; none for objects that parity does not cover.
#[must_use]
pub fn protected(kind: ObjectKind, epoch: Epoch, id: &ObjectId) -> Option<ObjectKey> {
    Some(match kind {
        ObjectKind::Config => config(),
        ObjectKind::KeySlot => slot(id),
        ObjectKind::Pack => pack(epoch, id),
        ObjectKind::Segment => segment(&SegmentName { epoch, id: *id }),
        ObjectKind::Snapshot => snapshot(&SnapshotName { epoch, id: *id }),
        ObjectKind::Close => self::epoch(epoch, EpochRole::Close),
        ObjectKind::Fence => self::epoch(epoch, EpochRole::Fence),
        ObjectKind::Seal => self::epoch(epoch, EpochRole::Seal),
        ObjectKind::Done => self::epoch(epoch, EpochRole::Done),
        ObjectKind::Forget => forget(id),
        ObjectKind::Damage => damage(id),
        ObjectKind::Session | ObjectKind::Parity => return None,
    })
}

/// What a name says of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which kind of object.
    pub kind: ObjectKind,
    /// The epoch in its header; 0 for objects without one. Packs have none in theirs.
    pub epoch: Epoch,
    /// The hash of its bytes, where that is its name.
    pub id: Option<ObjectId>,
}

/// Reads any name but those of parity; `None` if it does not belong to a repository.
#[must_use]
pub fn parse(name: &ObjectKey) -> Option<Claim> {
    if *name == config() {
        return Some(Claim { kind: ObjectKind::Config, epoch: 0, id: None });
    }
    if let Some((epoch, role)) = parse_epoch_role(name) {
        return Some(Claim { kind: role.kind(), epoch, id: None });
    }
    let by_epoch = BY_EPOCH.iter().find_map(|(folder, kind)| {
        let (epoch, id) = parse_epoch_id(name, folder)?;
        Some(Claim { kind: *kind, epoch, id: Some(id) })
    });
    let flat = |(folder, kind): &(&str, ObjectKind)| {
        let id = parse_id(name, folder)?;
        Some(Claim { kind: *kind, epoch: 0, id: Some(id) })
    };
    by_epoch.or_else(|| FLAT.iter().find_map(flat))
}

/// What an object below `parity/` protects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protects {
    /// One object, from within.
    Object(ObjectKey, Claim),
    /// A group of objects: the epoch and the hash of the parity's own bytes.
    Group(Epoch, ObjectId),
}

/// Reads the name of a parity object.
#[must_use]
pub fn parse_parity(name: &ObjectKey) -> Option<Protects> {
    if let Some((epoch, id)) = parse_epoch_id(name, GROUPS) {
        return Some(Protects::Group(epoch, id));
    }
    let object = ObjectKey::new(name.as_str().strip_prefix("parity/")?)?;
    let claim = parse(&object).filter(|claim| claim.kind != ObjectKind::Session)?;
    Some(Protects::Object(object, claim))
}

/// Reads the part of a name after `<folder>/`: `<E>/<id>`.
#[must_use]
pub fn parse_epoch_id(name: &ObjectKey, folder: &str) -> Option<(Epoch, ObjectId)> {
    let rest = name.as_str().strip_prefix(folder)?.strip_prefix('/')?;
    let (epoch, id) = rest.split_once('/')?;
    Some((parse_epoch(epoch)?, ObjectId::from_hex(id)?))
}

/// Reads `<folder>/<id>`.
#[must_use]
pub fn parse_id(name: &ObjectKey, folder: &str) -> Option<ObjectId> {
    ObjectId::from_hex(name.as_str().strip_prefix(folder)?.strip_prefix('/')?)
}

/// Reads `epochs/<E>.<role>`.
#[must_use]
pub fn parse_epoch_role(name: &ObjectKey) -> Option<(Epoch, EpochRole)> {
    let (epoch, suffix) = name.as_str().strip_prefix("epochs/")?.split_once('.')?;
    let role = EpochRole::ALL.into_iter().find(|role| role.suffix() == suffix)?;
    Some((parse_epoch(epoch)?, role))
}

fn parse_epoch(text: &str) -> Option<Epoch> {
    (text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let id = ObjectId([7; 32]);
        assert_eq!(parse_epoch_id(&pack(42, &id), "packs"), Some((42, id)));
        assert_eq!(parse_id(&slot(&id), "keys"), Some(id));
        assert_eq!(parse_epoch_role(&epoch(3, EpochRole::Seal)), Some((3, EpochRole::Seal)));
        assert_eq!(parse_epoch_role(&key("epochs/3.seal")), None);
        assert_eq!(parse_epoch_id(&key("packs/0000000001/xyz"), "packs"), None);
    }
    #[test]
    fn every_name_says_what_it_claims() {
        let id = ObjectId([9; 32]);
        for byte in 1..=13 {
            let Some(kind) = ObjectKind::from_byte(byte) else { panic!("kind {byte}") };
            let Some(name) = protected(kind, 7, &id) else { continue };
            let claim = parse(&name).expect("is one of the repository's");
            assert_eq!(claim.kind, kind);
            assert!(claim.id.is_none_or(|found| found == id) && (claim.epoch == 7 || claim.epoch == 0), "{claim:?}");
            assert_eq!(parse_parity(&parity_of(&name)), Some(Protects::Object(name, claim)));
        }
        assert_eq!(parse_parity(&group(3, &id)), Some(Protects::Group(3, id)));
        for other in [session(1, &id), key("probe/x"), key("parity")] {
            assert_eq!(parse_parity(&parity_of(&other)), None, "{other}");
        }
    }
}
