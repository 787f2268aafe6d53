//! Keys and ciphers: derivation from the root secret, sealing of frames and of small objects, password stretching.
//!
//! Knows keys and bytes; nothing of objects' layouts, stores or passwords' origins. `docs/format.md`, "Keys".

pub mod frames;
pub mod password;
pub mod sealed;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::id::BlobId;

/// Length of every key in bytes.
pub const KEY_LEN: usize = 32;
/// Length of an authentication tag in bytes.
pub const TAG_LEN: usize = 16;

/// A 32-byte secret, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key(pub(crate) [u8; KEY_LEN]);

impl Key {
    /// Fresh from the system's random generator.
    pub fn random() -> Self {
        Self(random_bytes())
    }

    /// Takes existing key bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// Keyed BLAKE3 of `parts` one after another: a PRF, used for ids, MACs and derivation.
    #[must_use]
    pub fn prf(&self, parts: &[&[u8]]) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in parts {
            hasher.update(part);
        }
        hasher
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Bytes from the system's random generator.
///
/// # Panics
/// If the system has none; nothing in here could work then.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    getrandom::fill(&mut out).expect("the system's random generator works");
    out
}

/// Compares secrets without telling by the time taken where they differ.
#[must_use]
pub fn same_secret(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// All keys of a repository, each derived from the root secret with BLAKE3's key derivation under its own context.
#[derive(Debug)]
pub struct Keyring {
    root: Key,
    /// Addresses of blobs.
    pub id: Key,
    /// The gear table of the chunker.
    pub chunker: Key,
    /// Borders of catalog nodes.
    pub borders: Key,
    /// Packs; each has a key of its own derived from this one.
    pub data: Key,
    /// Index segments.
    pub index: Key,
    /// Snapshots, sessions, requests to forget, notes on key slots.
    pub meta: Key,
    /// Epoch objects.
    pub epochs: Key,
    /// MAC of the config object.
    pub config: Key,
}

impl Keyring {
    /// Derives all keys.
    #[must_use]
    pub fn new(root: Key) -> Self {
        let derive = |purpose: &str| {
            let context = format!("deduplicity v1 {purpose}");
            Key(blake3::derive_key(&context, &root.0))
        };
        Self {
            id: derive("blob id"),
            chunker: derive("chunker"),
            borders: derive("node borders"),
            data: derive("packs"),
            index: derive("index"),
            meta: derive("metadata"),
            epochs: derive("epochs"),
            config: derive("config"),
            root,
        }
    }

    /// The root secret, to be wrapped in a key slot.
    #[must_use]
    pub fn root(&self) -> &Key {
        &self.root
    }

    /// Address of a blob.
    #[must_use]
    pub fn blob_id(&self, plaintext: &[u8]) -> BlobId {
        BlobId(*blake3::keyed_hash(&self.id.0, plaintext).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers: a change here changes the format.
    #[test]
    fn derivation_vectors() {
        let ring = Keyring::new(Key::from_bytes([7; 32]));
        let hex = crate::id::to_hex;
        let keys = [&ring.id, &ring.chunker, &ring.borders, &ring.data, &ring.index, &ring.meta, &ring.epochs, &ring.config];
        let expected = [
            "0464657e47d2875706c3ce2738ad1b2a944fa41341cb3b5838af3b37ec50a63b",
            "15312bdfd43eb33614c3d99213eda9b00bd210a40f7ac7c5d176f767d35a77df",
            "a31ab5a57972ccc3ebdaec942b2c7f48afd1fd164415f0a5f3bf0352e8376009",
            "db0a34c6461010b079723bc1d030d61efe906ccf18315a499fb16b65001d544d",
            "fde2a7fbe6032adc71b71e6c9c6440dd8fdc757790e20e0b278fed3e5b845a2e",
            "e192c56341b3daec9ba1a1e3a6b685bad9bcb0b19e537a439d8e3b707f4d8a8f",
            "8351a7b3e6101305fdaefa2275526a448acea39aa80a208b3e3d76450c30b5b4",
            "207175b7c9daa10bb563db0040cd11860bc3266dcd16cc42fed09443f02a1f64",
        ];
        assert_eq!(keys.map(|k| hex(&k.0)), expected);
        assert_eq!(ring.blob_id(b"deduplicity").to_string(), "3caab6c0ed836be97f88f98899ab8403ee461859e858d49bdbd509ec605a4623");
    }
}
