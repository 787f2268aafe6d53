//! The bytes of every object of a repository, and nothing else. `docs/format.md` is the specification.

pub mod cbor;
pub mod config;
pub mod epoch;
pub mod list;
pub mod node;
pub mod object;
pub mod pack;
pub mod parity;
pub mod segment;
pub mod slot;
pub mod snapshot;

/// First bytes of every object. The high bit, the CR LF and the LF show damage by a text-mode transfer.
pub const MAGIC: [u8; 8] = *b"\x89ddup\r\n\n";

/// The format version this program writes.
pub const VERSION: u8 = 1;

/// The byte after magic and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ObjectKind {
    /// `config`
    Config = 1,
    /// `keys/<id>`
    KeySlot = 2,
    /// `packs/<E>/<id>`
    Pack = 3,
    /// `index/<E>/<id>`
    Segment = 4,
    /// `snapshots/<E>/<id>`
    Snapshot = 5,
    /// `epochs/<E>.close`
    Close = 6,
    /// `epochs/<E>.fence`
    Fence = 7,
    /// `epochs/<E>.seal`
    Seal = 8,
    /// `epochs/<E>.done`
    Done = 9,
    /// `forget/<id>`
    Forget = 10,
    /// `sessions/<E>/<id>`
    Session = 11,
    /// `damaged/<id>`
    Damage = 12,
    /// `parity/…`
    Parity = 13,
}

impl ObjectKind {
    /// Whether nothing can be read, or nothing more be written, once a single object of this kind is damaged: such always have
    /// parity.
    #[must_use]
    pub fn is_vital(self) -> bool {
        matches!(self, Self::Config | Self::KeySlot | Self::Close | Self::Seal)
    }

    /// The kind that a byte stands for.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Config,
            2 => Self::KeySlot,
            3 => Self::Pack,
            4 => Self::Segment,
            5 => Self::Snapshot,
            6 => Self::Close,
            7 => Self::Fence,
            8 => Self::Seal,
            9 => Self::Done,
            10 => Self::Forget,
            11 => Self::Session,
            12 => Self::Damage,
            13 => Self::Parity,
            _ => return None,
        })
    }
}

/// The next size in the Padmé series (Nikitin et al., PoPETS 2019(4)): at most 12 % above `length`, and below 3.2 % from
/// 16 MiB on; leaks O(log log length) bits of it.
#[must_use]
pub fn padme(length: u64) -> u64 {
    if length < 2 {
        return length;
    }
    let exponent = u64::from(length.ilog2());
    let significant = u64::from(exponent.max(1).ilog2()) + 1;
    let low_bits = exponent.saturating_sub(significant);
    let mask = (1_u64 << low_bits) - 1;
    length.saturating_add(mask) & !mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn padme_vectors() {
        assert_eq!(padme(9), 10);
        assert_eq!(padme(4097), 4352);
        assert_eq!(padme(1 << 24), 1 << 24);
        assert_eq!(padme((1 << 24) + 1), (1 << 24) + (1 << 19));
    }

    proptest! {
        #[test]
        fn padme_is_a_small_step_up(n in 2_u64..1 << 40) {
            let p = padme(n);
            prop_assert!(p >= n);
            prop_assert!((p - n) * 100 <= n * 12);
            prop_assert_eq!(padme(p), p);
        }
    }
}
