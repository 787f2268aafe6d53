//! From a password to a key: Argon2id (RFC 9106), version 0x13.

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroize;

use super::Key;

/// Cost of one stretching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

/// The second recommended choice of RFC 9106: 64 MiB, 3 passes, 4 lanes. About a tenth of a second on two cores, paid by
/// every command; the first choice (2 GiB) would burst any memory budget.
pub const DEFAULT_COST: Cost = Cost { memory: 64 * 1024, passes: 3, lanes: 4 };

/// Most that a reader spends on one slot: a slot is read before anything is authenticated, and a planted one must not
/// take the machine down.
pub const MAX_COST: Cost = Cost { memory: 1024 * 1024, passes: 16, lanes: 64 };

/// A slot's parameters ask for more than [`MAX_COST`], or for something Argon2 does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("password stretching of {} KiB, {} passes, {} lanes is out of range", .0.memory, .0.passes, .0.lanes)]
pub struct CostRefused(pub Cost);

/// What a password gives: a key, and a commitment that tells whether it is the right one before the key is used.
pub struct Stretched {
    /// Wraps the root secret.
    pub key: Key,
    /// Stands in the slot.
    pub commitment: [u8; 32],
}

/// Stretches a password.
pub fn stretch(password: &[u8], salt: &[u8; 32], cost: Cost) -> Result<Stretched, CostRefused> {
    if cost.memory > MAX_COST.memory || cost.passes > MAX_COST.passes || cost.lanes > MAX_COST.lanes {
        return Err(CostRefused(cost));
    }
    let params = Params::new(cost.memory, cost.passes, cost.lanes, Some(32)).map_err(|_| CostRefused(cost))?;
    let mut out = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password, salt, &mut out)
        .map_err(|_| CostRefused(cost))?;
    let mut both = [0; 64];
    Key(out).prf(&[b"key slot"]).finalize_xof().fill(&mut both);
    out.zeroize();
    let mut stretched = Stretched { key: Key([0; 32]), commitment: [0; 32] };
    stretched.key.0.copy_from_slice(&both[..32]);
    stretched.commitment.copy_from_slice(&both[32..]);
    both.zeroize();
    Ok(stretched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_absurd_costs() {
        for cost in [
            Cost { memory: 64 << 20, ..DEFAULT_COST },
            Cost { passes: 17, ..DEFAULT_COST },
            Cost { lanes: 0, ..DEFAULT_COST },
            Cost { memory: 0, ..DEFAULT_COST },
        ] {
            assert!(stretch(b"x", &[0; 32], cost).is_err(), "{cost:?}");
        }
    }
}
