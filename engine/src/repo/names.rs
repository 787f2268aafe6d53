//! Names of objects in the store.

use std::fmt;

use crate::backend::ObjectKey;
pub use crate::format::epoch::EpochRole;
use crate::format::pack::SegmentName;
pub use crate::format::snapshot::SnapshotName;
use crate::id::{Epoch, ObjectId};

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
}
