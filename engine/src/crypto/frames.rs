//! Sealing of the frames of one pack: a key per pack, counter nonces, a commitment to the key in the header.

use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::{Key, TAG_LEN, same_secret};
use crate::id::RepoId;

/// The AEAD of a pack's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Suite {
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20Poly1305 = 1,
    /// AES-256-GCM (NIST SP 800-38D).
    Aes256Gcm = 2,
}

impl Suite {
    /// The faster one on this machine: AES-256-GCM runs at more than twice the speed of ChaCha20-Poly1305 where the
    /// processor has AES and carry-less multiplication, and far slower (and not in constant time) where it has not.
    #[must_use]
    pub fn fastest() -> Self {
        #[cfg(target_arch = "x86_64")]
        let aes = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
        #[cfg(target_arch = "aarch64")]
        let aes = std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let aes = false;
        if aes { Self::Aes256Gcm } else { Self::ChaCha20Poly1305 }
    }

    /// From its byte in a pack's header.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::ChaCha20Poly1305, Self::Aes256Gcm].into_iter().find(|s| *s as u8 == byte)
    }
}

/// Length of a pack's commitment in bytes.
pub const COMMITMENT_LEN: usize = 32;

/// Key of one pack. The salt belongs to exactly one pack, so a counter never repeats a nonce.
pub struct PackCipher {
    key: LessSafeKey,
    commitment: [u8; COMMITMENT_LEN],
}

/// A frame that does not open: damaged or forged bytes, or the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("does not authenticate")]
pub struct NotAuthentic;

impl PackCipher {
    /// Derives the key of the pack whose header, up to the commitment, is `header`.
    ///
    /// 64 bytes of keyed BLAKE3 in extended output over repository id and salt: key, then commitment key. The
    /// commitment is keyed BLAKE3 of the header, so that a pack opens under one key only.
    #[must_use]
    pub fn new(data_key: &Key, suite: Suite, repo: &RepoId, salt: &[u8; 32], header: &[u8]) -> Self {
        let mut derived = [0; 64];
        data_key.prf(&[b"pack", &repo.0, salt]).finalize_xof().fill(&mut derived);
        let (key, commit) = derived.split_at(32);
        let algorithm = match suite {
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Suite::Aes256Gcm => &AES_256_GCM,
        };
        let mut commit_key = [0; 32];
        commit_key.copy_from_slice(commit);
        let commitment = *blake3::keyed_hash(&commit_key, header).as_bytes();
        let key = UnboundKey::new(algorithm, key).expect("both algorithms take keys of 32 bytes");
        Self { key: LessSafeKey::new(key), commitment }
    }

    /// What must stand in the header after its other fields.
    #[must_use]
    pub fn commitment(&self) -> &[u8; COMMITMENT_LEN] {
        &self.commitment
    }

    /// Whether `found` is this pack's commitment.
    #[must_use]
    pub fn commits_to(&self, found: &[u8]) -> bool {
        same_secret(&self.commitment, found)
    }

    fn aad(&self, number: u64, role: u8) -> [u8; COMMITMENT_LEN + 9] {
        let mut aad = [0; COMMITMENT_LEN + 9];
        aad[..COMMITMENT_LEN].copy_from_slice(&self.commitment);
        aad[COMMITMENT_LEN..COMMITMENT_LEN + 8].copy_from_slice(&number.to_le_bytes());
        aad[COMMITMENT_LEN + 8] = role;
        aad
    }

    /// Encrypts `text` in place and returns the tag. `number` must be used once per pack.
    #[must_use]
    pub fn seal(&self, number: u64, role: u8, text: &mut [u8]) -> [u8; TAG_LEN] {
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(number), Aad::from(self.aad(number, role)), text)
            .expect("frames are far below the ciphers' limit of 2^36 bytes");
        let mut out = [0; TAG_LEN];
        out.copy_from_slice(tag.as_ref());
        out
    }

    /// Checks and decrypts `sealed` (text and tag) in place.
    pub fn open<'a>(&self, number: u64, role: u8, sealed: &'a mut [u8]) -> Result<&'a mut [u8], NotAuthentic> {
        self.key.open_in_place(nonce(number), Aad::from(self.aad(number, role)), sealed).map_err(|_| NotAuthentic)
    }
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_at_its_own_place() {
        for suite in [Suite::ChaCha20Poly1305, Suite::Aes256Gcm] {
            let key = Key::from_bytes([1; 32]);
            let cipher = PackCipher::new(&key, suite, &RepoId([2; 16]), &[3; 32], b"header");
            let mut sealed = b"text".to_vec();
            let tag = cipher.seal(5, 0, &mut sealed);
            sealed.extend_from_slice(&tag);
            assert_eq!(cipher.open(5, 0, &mut sealed.clone()).expect("opens"), b"text");
            assert_eq!(cipher.open(6, 0, &mut sealed.clone()), Err(NotAuthentic));
            assert_eq!(cipher.open(5, 1, &mut sealed.clone()), Err(NotAuthentic));
            let other = PackCipher::new(&key, suite, &RepoId([2; 16]), &[3; 32], b"other header");
            assert_eq!(other.open(5, 0, &mut sealed), Err(NotAuthentic));
        }
    }
}
