//! Pass phrases to keys: string-to-key specifiers, with the common hashes at the speed of the processor.

use sequoia_openpgp::crypto::{Password, S2K, SessionKey};
use sequoia_openpgp::types::HashAlgorithm;
use sha1::Sha1;
use sha2::digest::{Digest, Output};
use sha2::{Sha224, Sha256, Sha384, Sha512};

use super::error::PgpErrorKind;

/// Most memory that an Argon2 specifier may ask for, as a power of two of KiB: 64 MiB. GnuPG writes none at all.
const MAX_ARGON2_MEMORY: u8 = 16;
/// Most passes that an Argon2 specifier may ask for.
const MAX_ARGON2_PASSES: u8 = 16;
/// About as many bytes are hashed at once.
const STRETCH_BLOCK: usize = 16 << 10;

/// Takes bytes off the front of a packet's body.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], PgpErrorKind> {
        let (front, rest) = self.0.split_at_checked(n).ok_or_else(too_short)?;
        self.0 = rest;
        Ok(front)
    }

    pub(super) fn byte(&mut self) -> Result<u8, PgpErrorKind> {
        self.take(1)?.first().copied().ok_or_else(too_short)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PgpErrorKind> {
        self.take(N)?.try_into().map_err(|_| too_short())
    }
}

fn too_short() -> PgpErrorKind {
    PgpErrorKind::Modified("a packet is shorter than its fields".into())
}

/// The specifier at the front of `fields`.
pub(super) fn parse(fields: &mut Fields<'_>) -> Result<S2K, PgpErrorKind> {
    #[allow(deprecated, reason = "old archives use them")]
    Ok(match fields.byte()? {
        0 => S2K::Simple { hash: fields.byte()?.into() },
        1 => S2K::Salted { hash: fields.byte()?.into(), salt: fields.array()? },
        3 => {
            let (hash, salt, count) = (fields.byte()?.into(), fields.array()?, fields.byte()?);
            S2K::Iterated { hash, salt, hash_bytes: (16 + u32::from(count & 15)) << ((count >> 4) + 6) }
        }
        4 => {
            let (salt, t, p, m) = (fields.array()?, fields.byte()?, fields.byte()?, fields.byte()?);
            if m > MAX_ARGON2_MEMORY || t > MAX_ARGON2_PASSES {
                return Err(PgpErrorKind::Bomb(format!("key stretching that needs 2^{m} KiB of memory, {t} times")));
            }
            S2K::Argon2 { salt, t, p, m }
        }
        other => return Err(PgpErrorKind::Unsupported(format!("key stretching of type {other}"))),
    })
}

/// A key of `key_size` bytes from a pass phrase.
pub(super) fn derive(s2k: &S2K, password: &Password, key_size: usize) -> Result<SessionKey, PgpErrorKind> {
    if let S2K::Iterated { hash, salt, hash_bytes } = s2k {
        let stretch = match hash {
            HashAlgorithm::SHA1 => Some(iterated::<Sha1> as fn(&[u8], &[u8], u32, &mut [u8])),
            HashAlgorithm::SHA224 => Some(iterated::<Sha224> as _),
            HashAlgorithm::SHA256 => Some(iterated::<Sha256> as _),
            HashAlgorithm::SHA384 => Some(iterated::<Sha384> as _),
            HashAlgorithm::SHA512 => Some(iterated::<Sha512> as _),
            _ => None,
        };
        if let Some(stretch) = stretch {
            let mut key = SessionKey::from(vec![0; key_size]);
            password.map(|phrase| stretch(salt, phrase, *hash_bytes, &mut key));
            return Ok(key);
        }
    }
    s2k.derive_key(password, key_size).map_err(|e| PgpErrorKind::Unsupported(format!("key stretching: {e}")))
}

/// RFC 9580 section 3.7.1.3. The salt and pass phrase are hashed at least once, whatever `count` says.
fn iterated<D: Digest>(salt: &[u8], phrase: &[u8], count: u32, key: &mut [u8]) {
    let unit = salt.len() + phrase.len();
    let times = (STRETCH_BLOCK / unit).max(1);
    let mut block = SessionKey::from(vec![0; times * unit]);
    for piece in block.chunks_exact_mut(unit) {
        piece[..salt.len()].copy_from_slice(salt);
        piece[salt.len()..].copy_from_slice(phrase);
    }
    let total = usize::try_from(count).unwrap_or(usize::MAX).max(unit);
    for (zeros, part) in key.chunks_mut(<D as Digest>::output_size()).enumerate() {
        let mut hash = D::new();
        hash.update(vec![0; zeros]);
        let mut left = total;
        while left > 0 {
            let n = left.min(block.len());
            hash.update(&block[..n]);
            left -= n;
        }
        let digest: Output<D> = hash.finalize();
        part.copy_from_slice(&digest[..part.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn argon2_is_bounded() {
        let spec = [4, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 1, 4, 31];
        assert!(matches!(parse(&mut Fields(&spec)), Err(PgpErrorKind::Bomb(_))));
        assert!(matches!(parse(&mut Fields(&spec[..9])), Err(PgpErrorKind::Modified(_))));
    }

    #[test]
    fn largest_count_is_65_mb() {
        let spec = [3, 2, 1, 2, 3, 4, 5, 6, 7, 8, 255];
        assert!(matches!(parse(&mut Fields(&spec)), Ok(S2K::Iterated { hash_bytes: 0x03e0_0000, .. })));
    }

    proptest! {
        #[test]
        fn derives_what_the_library_derives(phrase in proptest::collection::vec(any::<u8>(), 0..300), salt: [u8; 8],
            count in 0u8..64, hash in prop_oneof![Just(2u8), Just(8), Just(9), Just(10), Just(11)], size in prop_oneof![Just(16usize), Just(24), Just(32)]) {
            let mut spec = vec![3, hash];
            spec.extend(salt);
            spec.push(count);
            let s2k = parse(&mut Fields(&spec)).expect("valid");
            let password = Password::from(phrase);
            let (ours, theirs) = (derive(&s2k, &password, size).expect("ours"), s2k.derive_key(&password, size).expect("theirs"));
            prop_assert!(ours == theirs);
        }
    }
}
