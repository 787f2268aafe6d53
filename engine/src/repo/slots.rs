//! Key slots: any number of passwords for one root secret.

use std::collections::HashSet;

use bytes::Bytes;

use super::{Repository, names};
use crate::backend::{Backend, ErrorKind};
use crate::crypto::Keyring;
use crate::crypto::password::Cost;
use crate::error::{Error, Result};
use crate::format::object::FormatError;
use crate::format::slot::{self, Note, SLOT_LEN};
use crate::id::{ObjectId, RepoId};
use crate::parity;

/// Largest slot of any kind in bytes.
const MAX_SLOT: u64 = 64 << 10;

/// What is known of a key slot.
#[derive(Clone, Debug)]
pub struct SlotInfo {
    /// Name.
    pub id: ObjectId,
    /// Label, origin, time.
    pub note: Note,
    /// Cost of trying a password on it.
    pub cost: Cost,
    /// Whether this process opened the repository with it.
    pub current: bool,
}

/// Wraps the root secret for a password and stores the slot; reads it back, since all else depends on it.
pub(super) fn store(
    backend: &dyn Backend,
    repo: RepoId,
    keys: &Keyring,
    password: &[u8],
    cost: Cost,
    note: &Note,
) -> Result<ObjectId> {
    let bytes = slot::seal(repo, keys.root(), &keys.meta, password, cost, note).map_err(|e| Error::Invalid(e.to_string()))?;
    let id = ObjectId::of(&bytes);
    let object = names::slot(&id);
    backend.create(&object, Bytes::from(bytes))?;
    let back = backend.read(&object, SLOT_LEN as u64)?;
    if ObjectId::of(&back) != id {
        return Err(Error::damaged(&object, "does not read back as it was written"));
    }
    Ok(id)
}

/// A slot that a password opens.
pub(super) struct Unlocked {
    pub(super) slot: ObjectId,
    pub(super) keys: Keyring,
    /// The slot is damaged or lost, and its parity did it.
    pub(super) by_parity: bool,
}

/// Tries the password on every slot.
pub(super) fn unlock(backend: &dyn Backend, repo: RepoId, password: &[u8]) -> Result<Unlocked> {
    let (mut tried, mut damage, mut sound) = (0, None, HashSet::new());
    for id in list(backend, "keys")? {
        let object = names::slot(&id);
        // Not held against the hash in its name: if only the note is damaged, the password still opens the slot.
        let bytes = backend.read(&object, MAX_SLOT).map_err(Error::from);
        if bytes.as_ref().is_ok_and(|bytes| ObjectId::of(bytes) == id) {
            sound.insert(id);
        }
        match bytes.and_then(|b| slot::open(repo, password, &b).map_err(|e| skip_foreign(&object.to_string(), e))) {
            Ok(Some(root)) => return Ok(Unlocked { slot: id, keys: Keyring::new(root), by_parity: false }),
            Ok(None) => tried += 1,
            Err(Error::Invalid(_)) => {}
            Err(e) => damage = damage.or(Some(e)),
        }
    }
    if let Some((slot, keys)) = unlock_by_parity(backend, repo, password, &sound) {
        return Ok(Unlocked { slot, keys, by_parity: true });
    }
    match damage {
        Some(e) if tried == 0 => Err(e),
        _ if tried == 0 => Err(Error::damaged("keys", "no key slot is left: without one nothing can be read")),
        _ => Err(Error::WrongPassword { slots: tried }),
    }
}

/// Tries the password on slots that are damaged or lost, as their parity tells them. What fails here is no news.
fn unlock_by_parity(
    backend: &dyn Backend,
    repo: RepoId,
    password: &[u8],
    sound: &HashSet<ObjectId>,
) -> Option<(ObjectId, Keyring)> {
    let ids = list(backend, "parity/keys").ok()?;
    ids.into_iter().filter(|id| !sound.contains(id)).find_map(|id| {
        let bytes = parity::rebuild(backend, &names::slot(&id)).ok()??;
        Some((id, Keyring::new(slot::open(repo, password, &bytes).ok()??)))
    })
}

/// Slots of an earlier, broken-off init in the same place are not ours, those of other kinds not for passwords: passed over as
/// `Invalid`.
fn skip_foreign(object: &str, error: FormatError) -> Error {
    match error {
        FormatError::Repository | FormatError::Reserved => Error::Invalid(String::new()),
        e => Error::damaged(object, e),
    }
}

fn list(backend: &dyn Backend, folder: &str) -> Result<Vec<ObjectId>> {
    let mut ids = Vec::new();
    backend.list(&format!("{folder}/"), &mut |meta| ids.extend(names::parse_id(&meta.key, folder)))?;
    ids.sort_unstable();
    Ok(ids)
}

fn read(backend: &dyn Backend, id: &ObjectId) -> Result<Bytes> {
    let object = names::slot(id);
    let bytes = backend.read(&object, SLOT_LEN as u64)?;
    if ObjectId::of(&bytes) == *id {
        Ok(bytes)
    } else {
        Err(Error::damaged(&object, "its bytes do not have the hash that its name says"))
    }
}

impl Repository {
    /// All key slots of this repository.
    pub fn key_slots(&self) -> Result<Vec<SlotInfo>> {
        let mut slots = Vec::new();
        for id in list(&*self.backend, "keys")? {
            let bytes = match read(&*self.backend, &id) {
                Err(Error::Backend(e)) if e.kind == ErrorKind::NotFound => continue,
                other => other?,
            };
            match slot::read_note(self.id(), &self.keys.meta, &bytes) {
                Ok((note, cost)) => slots.push(SlotInfo { id, note, cost, current: id == self.slot }),
                Err(FormatError::Repository) => {}
                Err(e) => return Err(Error::damaged(names::slot(&id), e)),
            }
        }
        slots.sort_by_key(|s| s.note.created);
        Ok(slots)
    }

    /// Adds a password.
    pub fn add_key(&self, password: &[u8], cost: Cost, note: &Note) -> Result<ObjectId> {
        self.check_writable()?;
        let id = store(&*self.backend, self.id(), &self.keys, password, cost, note)?;
        self.backend.barrier()?;
        Ok(id)
    }

    /// Removes a password. Refuses the one in use, so that one that works is always left.
    pub fn remove_key(&self, id: &ObjectId) -> Result<()> {
        self.check_writable()?;
        if *id == self.slot {
            return Err(Error::Invalid("this is the key in use; open the repository with another one to remove it".into()));
        }
        self.backend.delete(&names::slot(id))?;
        Ok(self.backend.barrier()?)
    }

    /// Puts a new password in the place of the one in use: the new slot is stored first.
    pub fn change_password(&self, password: &[u8], cost: Cost, note: &Note) -> Result<ObjectId> {
        let id = self.add_key(password, cost, note)?;
        self.backend.delete(&names::slot(&self.slot))?;
        self.backend.barrier()?;
        Ok(id)
    }
}
