//! Sealing of small objects: XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) with random nonces.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};

use super::Key;
use super::frames::NotAuthentic;

/// Length of a nonce in bytes.
pub const NONCE_LEN: usize = 24;

/// Encrypts `text`; the tag comes last.
#[must_use]
pub fn seal(key: &Key, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &[u8]) -> Vec<u8> {
    XChaCha20Poly1305::new((&key.0).into())
        .encrypt(nonce.into(), Payload { msg: text, aad })
        .expect("small objects are far below the cipher's limit of 2^38 bytes")
}

/// Checks and decrypts.
pub fn open(key: &Key, nonce: &[u8; NONCE_LEN], aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
    XChaCha20Poly1305::new((&key.0).into()).decrypt(nonce.into(), Payload { msg: sealed, aad }).map_err(|_| NotAuthentic)
}
