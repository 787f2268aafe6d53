//! Parity: what is damaged or lost in the store can be computed again from what is left. The few small objects without which
//! nothing else is of use ([`ObjectKind::is_vital`]) always have some; for all others it is optional.
//!
//! Each object has parity of its own beside it ([`inside`]), which mends damaged places and brings small objects back even
//! when they are gone; [`group`]s of packs and index segments have parity across them, which brings back a whole one.
//! [`ParityStore`] makes and deletes the former with its objects, so that nothing else in the engine has to know of it.
//!
//! Knows no keys: parity is over the bytes as they are stored. What is rebuilt has the hash that the parity object tells,
//! which finds accidents and stops nobody who can write to the store.

mod code;
pub mod group;
pub mod inside;
mod object;
mod store;

use std::sync::Mutex;

use bytes::Bytes;
pub use inside::Found;
pub use store::ParityStore;

use crate::backend::{Backend, BackendError, ErrorKind, ObjectKey};
use crate::error::{Error, Result};
use crate::format::ObjectKind;
use crate::format::parity::MAX_SHARD;
use crate::id::Epoch;
use crate::monitor::lock;
use crate::names;

/// How much parity new objects get, in percent; 0 is none. The latest seal that is known says it, or else the config.
#[derive(Debug)]
pub struct Setting {
    config: u8,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sealed: Option<(Epoch, Option<u8>)>,
    chosen: Option<u8>,
}

impl Setting {
    /// What the config says.
    #[must_use]
    pub fn new(config: u8) -> Self {
        Self { config, state: Mutex::default() }
    }

    /// Percent for new objects.
    #[must_use]
    pub fn percent(&self) -> u8 {
        let chosen = lock(&self.state).chosen;
        chosen.unwrap_or_else(|| self.sealed())
    }

    /// What the latest seal that is known says, or else the config.
    #[must_use]
    pub fn sealed(&self) -> u8 {
        lock(&self.state).sealed.and_then(|(_, percent)| percent).unwrap_or(self.config)
    }

    /// Percent for new objects of a kind; the least that there can be is one shard. `None` for those that get no parity.
    #[must_use]
    pub fn percent_for(&self, kind: ObjectKind) -> Option<u8> {
        let percent = self.percent();
        let protected = kind.is_vital() || percent > 0 && kind != ObjectKind::Session;
        protected.then_some(percent)
    }

    /// Takes note of what the seal of an epoch says.
    pub fn note_seal(&self, epoch: Epoch, percent: Option<u8>) {
        let mut state = lock(&self.state);
        if state.sealed.is_none_or(|(known, _)| known <= epoch) {
            state.sealed = Some((epoch, percent));
        }
    }

    /// From now on, this process uses `percent`, and so do all others once it has sealed an epoch.
    pub fn choose(&self, percent: u8) {
        lock(&self.state).chosen = Some(percent);
    }

    /// What the next seal says; nothing if the config says it already.
    #[must_use]
    pub fn to_seal(&self) -> Option<u8> {
        Some(self.percent()).filter(|percent| *percent != self.config)
    }
}

/// What is left of an object that should have `size` bytes: they may be fewer, and zeros stand for what cannot be read.
///
/// # Errors
///
/// If the store fails; not for damage.
fn remains(backend: &dyn Backend, object: &ObjectKey, size: u64) -> Result<Vec<u8>> {
    let left = size_left(backend, object, size)?;
    read_left(backend, object, left, 0, usize::try_from(left).unwrap_or(usize::MAX))
}

/// An object by the parity inside of it; `None` if that does not do. It is what its name says if that is a hash; nothing in it
/// is authenticated.
///
/// # Errors
///
/// If the store fails.
pub fn rebuild(backend: &dyn Backend, object: &ObjectKey) -> Result<Option<Bytes>> {
    let Some(claim) = names::parse(object) else { return Ok(None) };
    let Some(found) = Found::read(backend, object, &claim)? else { return Ok(None) };
    found.rebuild(&remains(backend, object, found.member().size)?)
}

/// How much there is of an object that should have `size` bytes.
fn size_left(backend: &dyn Backend, object: &ObjectKey, size: u64) -> Result<u64> {
    match backend.size(object) {
        Ok(found) => Ok(found.min(size)),
        Err(error) => absent_or_err(error).map(|()| 0),
    }
}

/// As much of `length` bytes from `offset` as there is, where `left` bytes are there in all. Zeros stand for what cannot be
/// read.
fn read_left(backend: &dyn Backend, object: &ObjectKey, left: u64, offset: u64, length: usize) -> Result<Vec<u8>> {
    let length = usize::try_from(left.saturating_sub(offset)).unwrap_or(usize::MAX).min(length);
    if length == 0 {
        return Ok(Vec::new());
    }
    match backend.read_range(object, offset, length) {
        Ok(bytes) => return Ok(bytes.into()),
        Err(error) => absent_or_err(error)?,
    }
    // One bad place must not cost the others.
    let mut out = Vec::with_capacity(length);
    while out.len() < length {
        let some = MAX_SHARD.min(length - out.len());
        match backend.read_range(object, offset + out.len() as u64, some) {
            Ok(bytes) => out.extend_from_slice(&bytes),
            Err(error) => {
                absent_or_err(error)?;
                out.resize(out.len() + some, 0);
            }
        }
    }
    Ok(out)
}

/// Passes over an error that is about one object.
fn absent_or_err(error: BackendError) -> Result<()> {
    let error = Error::from(error);
    if error.is_local() { Ok(()) } else { Err(error) }
}

/// `None` for an object that is not there.
fn read_whole(backend: &dyn Backend, object: &ObjectKey, max: u64) -> Result<Option<Bytes>> {
    match backend.read(object, max) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
