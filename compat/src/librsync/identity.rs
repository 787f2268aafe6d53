//! Deltas that change nothing: what duplicity writes for a file of which only the metadata changed.

use super::delta::MAGIC;

/// Whether a delta is just one copy of all of a basis of `length` bytes. A `false` may be wrong, a `true` never is.
#[must_use]
pub fn is_identity(delta: &[u8], length: u64) -> bool {
    let Some(rest) = delta.strip_prefix(&MAGIC.to_be_bytes()) else { return false };
    match rest {
        [0] => length == 0,
        [opcode @ 0x45..=0x54, rest @ .., 0] => {
            let (offset_bytes, length_bytes) = (1 << ((opcode - 0x45) / 4), 1 << ((opcode - 0x45) % 4));
            rest.len() == offset_bytes + length_bytes
                && number(&rest[..offset_bytes]) == 0
                && number(&rest[offset_bytes..]) == length
                && length > 0
        }
        _ => false,
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::super::DeltaWriter;
    use super::*;

    #[test]
    fn only_a_copy_of_everything() {
        let delta = |commands: &[(u64, u64)]| {
            let mut writer = DeltaWriter::new(Vec::new()).expect("begins");
            for (offset, length) in commands {
                writer.copy(*offset, *length).expect("writes");
            }
            writer.finish().expect("ends")
        };
        assert!(is_identity(&delta(&[]), 0));
        for length in [1, 255, 256, 70_000, 1 << 33] {
            assert!(is_identity(&delta(&[(0, length)]), length), "{length}");
            assert!(!is_identity(&delta(&[(0, length)]), length + 1));
            assert!(!is_identity(&delta(&[(1, length)]), length));
            assert!(!is_identity(&delta(&[(0, length), (0, length)]), length));
        }
        assert!(!is_identity(b"", 0));
        assert!(!is_identity(&delta(&[])[..4], 0));
    }
}
