//! Key slots: the root secret wrapped for one password, and a note on the slot for those who hold the root secret.

use minicbor::Decoder;

use super::ObjectKind;
use super::cbor::{self, required};
use super::config::timestamp;
use super::object::{FormatError, HEADER_LEN, Header};
use crate::crypto::password::{Cost, stretch};
use crate::crypto::sealed::{self, NONCE_LEN};
use crate::crypto::{KEY_LEN, Key, TAG_LEN, random_bytes, same_secret};
use crate::entry::Timestamp;
use crate::id::RepoId;

/// Offset of the stretching parameters: kind of slot (u32), memory in KiB, passes, lanes.
const PARAMETERS: usize = HEADER_LEN;
const SALT: usize = PARAMETERS + 16;
const COMMITMENT: usize = SALT + 32;
const BUNDLE: usize = COMMITMENT + 32;
const NOTE: usize = BUNDLE + KEY_LEN + TAG_LEN;
const NOTE_LEN: usize = 512;
/// Every password slot has this size.
pub const SLOT_LEN: usize = NOTE + NONCE_LEN + NOTE_LEN + TAG_LEN;
/// Kind of slot: password through Argon2id.
const KIND_PASSWORD: u32 = 1;

/// What people want to know of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// When it was made.
    pub created: Timestamp,
    /// Who made it, on which machine.
    pub origin: String,
    /// A name given by the user.
    pub label: String,
}

/// Wraps `root` for `password`.
pub fn seal(repo: RepoId, root: &Key, meta: &Key, password: &[u8], cost: Cost, note: &Note) -> Result<Vec<u8>, FormatError> {
    let header = Header { kind: ObjectKind::KeySlot, repo, epoch: 0, nonce: random_bytes() };
    let salt: [u8; 32] = random_bytes();
    let stretched = stretch(password, &salt, cost).map_err(|e| FormatError::Malformed(e.to_string()))?;
    let mut out = header.to_bytes().to_vec();
    for n in [KIND_PASSWORD, cost.memory, cost.passes, cost.lanes] {
        out.extend_from_slice(&n.to_le_bytes());
    }
    out.extend_from_slice(&salt);
    out.extend_from_slice(&stretched.commitment);
    let bundle = sealed::seal(&stretched.key, &header.nonce, &out, &root.0);
    out.extend_from_slice(&bundle);
    let mut text = cbor::encode(|e| {
        e.map(3)?.u8(0)?.array(2)?.i64(note.created.seconds)?.u32(note.created.nanos)?;
        e.u8(1)?.str(clip(&note.origin))?.u8(2)?.str(clip(&note.label))?;
        Ok(())
    });
    text.resize(NOTE_LEN, 0);
    let nonce: [u8; NONCE_LEN] = random_bytes();
    let sealed_note = sealed::seal(meta, &nonce, &out, &text);
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&sealed_note);
    Ok(out)
}

/// At most 200 bytes of a text, cut at a character's border.
fn clip(text: &str) -> &str {
    text.get(..text.floor_char_boundary(200)).unwrap_or_default()
}

/// Unwraps the root secret. `Ok(None)` means that the password does not belong to this slot.
pub fn open(repo: RepoId, password: &[u8], bytes: &[u8]) -> Result<Option<Key>, FormatError> {
    let cost = parse_cost(repo, bytes)?;
    let field = |from: usize, to: usize| bytes.get(from..to).unwrap_or_default();
    let salt = field(SALT, COMMITMENT).try_into().map_err(|_| FormatError::Size(bytes.len()))?;
    let stretched = stretch(password, salt, cost).map_err(|e| FormatError::Malformed(e.to_string()))?;
    if !same_secret(&stretched.commitment, field(COMMITMENT, BUNDLE)) {
        return Ok(None);
    }
    let nonce = Header::parse(bytes, ObjectKind::KeySlot)?.nonce;
    let root =
        sealed::open(&stretched.key, &nonce, field(0, BUNDLE), field(BUNDLE, NOTE)).map_err(|_| FormatError::NotAuthentic)?;
    let root = root.try_into().map_err(|_| FormatError::NotAuthentic)?;
    Ok(Some(Key::from_bytes(root)))
}

/// Reads the note with the repository's metadata key; fails for a slot that wraps another root secret.
pub fn read_note(repo: RepoId, meta: &Key, bytes: &[u8]) -> Result<(Note, Cost), FormatError> {
    let cost = parse_cost(repo, bytes)?;
    let (head, rest) = bytes.split_at_checked(NOTE).ok_or(FormatError::Size(bytes.len()))?;
    let (nonce, sealed_note) = rest.split_first_chunk::<NONCE_LEN>().ok_or(FormatError::Size(bytes.len()))?;
    let text = sealed::open(meta, nonce, head, sealed_note).map_err(|_| FormatError::NotAuthentic)?;
    let (mut created, mut origin, mut label) = (None, None, None);
    cbor::map(&mut Decoder::new(&text), |field, d| {
        match field {
            0 => created = Some(timestamp(d)?),
            1 => origin = Some(d.str()?.to_owned()),
            2 => label = Some(d.str()?.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let note = Note { created: required(created, 0)?, origin: required(origin, 1)?, label: required(label, 2)? };
    Ok((note, cost))
}

fn parse_cost(repo: RepoId, bytes: &[u8]) -> Result<Cost, FormatError> {
    if Header::parse(bytes, ObjectKind::KeySlot)?.repo != repo {
        return Err(FormatError::Repository);
    }
    let word = |i: usize| {
        let at = PARAMETERS + i * 4;
        u32::from_le_bytes(bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).unwrap_or_default())
    };
    if bytes.len() < SALT || word(0) != KIND_PASSWORD {
        return Err(if bytes.len() < SALT { FormatError::Size(bytes.len()) } else { FormatError::Reserved });
    }
    if bytes.len() != SLOT_LEN {
        return Err(FormatError::Size(bytes.len()));
    }
    Ok(Cost { memory: word(1), passes: word(2), lanes: word(3) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory: 64, passes: 1, lanes: 1 };

    #[test]
    fn round_trip_wrong_password_flips_and_prefixes() {
        let (repo, root, meta) = (RepoId([1; 16]), Key::from_bytes([2; 32]), Key::from_bytes([3; 32]));
        let note = Note { label: "é".repeat(300), ..Note::default() };
        let good = seal(repo, &root, &meta, b"secret", CHEAP, &note).expect("seals");
        assert_eq!(good.len(), SLOT_LEN);
        assert_eq!(open(repo, b"secret", &good).expect("opens").expect("right password").0, [2; 32]);
        assert!(open(repo, b"Secret", &good).expect("readable").is_none());
        assert_eq!(read_note(repo, &meta, &good).expect("note").0.label, "é".repeat(100));
        for len in 0..good.len() {
            assert!(open(repo, b"secret", &good[..len]).is_err());
        }
        for bit in 0..BUNDLE.max(NOTE) * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(open(repo, b"secret", &bad), Ok(Some(_))), "bit {bit}");
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read_note(repo, &meta, &bad).is_err(), "bit {bit}");
        }
    }
}
