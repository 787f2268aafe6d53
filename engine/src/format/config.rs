//! The `config` object: in clear, with a MAC under a key derived from the root secret.

use minicbor::Decoder;

use super::ObjectKind;
use super::cbor::{self, required};
use super::object::{FormatError, HEADER_LEN, Header};
use crate::chunker::ChunkSizes;
use crate::crypto::{Key, same_secret};
use crate::entry::Timestamp;
use crate::id::RepoId;

const MAC_LEN: usize = 32;
/// Largest config object in bytes.
pub const MAX_CONFIG: u64 = 64 << 10;
/// Sizes of packs that may be chosen, in bytes.
pub const PACK_TARGETS: std::ops::RangeInclusive<u32> = 1 << 20..=128 << 20;
/// Most parity that can be asked for, in percent.
pub const MAX_PARITY: u8 = 100;
/// Chunker id of FastCDC over a secret gear table.
pub const CHUNKER_GEAR: u32 = 1;

/// Days for which objects may be locked.
pub const RETENTION_DAYS: std::ops::RangeInclusive<u16> = 1..=3650;
/// Feature needed to write where objects are locked: a program that does not know it would store unlocked ones.
pub const FEATURE_LOCK: &str = "object-lock";

/// Who may lift a lock before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Who has a special permission.
    Governance,
    /// Nobody.
    Compliance,
}

/// How long the store is to keep objects, whoever asks to delete them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Who may lift it.
    pub mode: LockMode,
    /// Days, in [`RETENTION_DAYS`].
    pub days: u16,
}

impl Retention {
    /// The same.
    #[must_use]
    pub fn time(&self) -> std::time::Duration {
        std::time::Duration::from_secs(u64::from(self.days) * 24 * 60 * 60)
    }
}

/// What is set once, at init, for a whole repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Identity of the repository.
    pub repo: RepoId,
    /// When it was made.
    pub created: Timestamp,
    /// Sizes of chunks (chunker 1); none for a chunker that this program does not have: it can read, but not write.
    pub chunks: Option<ChunkSizes>,
    /// A pack is finished when its frames exceed this many bytes.
    pub pack_target: u32,
    /// Parity that objects get, in percent of their size; 0 is none. Seals may say otherwise later.
    pub parity: u8,
    /// Names of features without which the repository must not be read.
    pub read_features: Vec<String>,
    /// Names of features without which it must not be written to.
    pub write_features: Vec<String>,
    /// Names of features without which no maintenance may run.
    pub maintain_features: Vec<String>,
    /// How long objects are locked; not at all without.
    pub retention: Option<Retention>,
}

impl Config {
    /// The object's bytes.
    ///
    /// # Errors
    /// A config with an unknown chunker cannot be written.
    pub fn to_bytes(&self, key: &Key) -> Result<Vec<u8>, FormatError> {
        let chunks = self.chunks.ok_or(FormatError::Reserved)?;
        let header = Header { kind: ObjectKind::Config, repo: self.repo, epoch: 0, nonce: [0; 24] };
        let mut out = header.to_bytes().to_vec();
        cbor::encode_into(&mut out, |e| {
            e.map(6 + u64::from(self.parity > 0) + u64::from(self.retention.is_some()))?;
            e.u8(0)?.array(2)?.i64(self.created.seconds)?.u32(self.created.nanos)?;
            e.u8(1)?.array(4)?.u32(CHUNKER_GEAR)?.u32(chunks.min)?.u32(chunks.average)?.u32(chunks.max)?;
            e.u8(2)?.u32(self.pack_target)?;
            for (field, names) in [(3, &self.read_features), (4, &self.write_features), (5, &self.maintain_features)] {
                e.u8(field)?.array(names.len() as u64)?;
                for name in names {
                    e.str(name)?;
                }
            }
            if self.parity > 0 {
                e.u8(6)?.u8(self.parity)?;
            }
            if let Some(Retention { mode, days }) = self.retention {
                e.u8(7)?.array(2)?.u8(if mode == LockMode::Compliance { 2 } else { 1 })?.u16(days)?;
            }
            Ok(())
        });
        let mac = key.prf(&[&out]).finalize();
        out.extend_from_slice(mac.as_bytes());
        Ok(out)
    }

    /// Reads the fixed part only: which repository this is. Not authenticated yet.
    pub fn peek(bytes: &[u8]) -> Result<RepoId, FormatError> {
        Ok(Header::parse(bytes, ObjectKind::Config)?.repo)
    }

    /// Checks the MAC and reads.
    pub fn parse(key: &Key, bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() as u64 > MAX_CONFIG {
            return Err(FormatError::Size(bytes.len()));
        }
        let header = Header::parse(bytes, ObjectKind::Config)?;
        let size = FormatError::Size(bytes.len());
        let Some(border) = bytes.len().checked_sub(MAC_LEN).filter(|n| *n >= HEADER_LEN) else { return Err(size) };
        let (text, mac) = bytes.split_at(border);
        if !same_secret(key.prf(&[text]).finalize().as_bytes(), mac) {
            return Err(FormatError::NotAuthentic);
        }
        let (mut created, mut chunks, mut target, mut features) = (None, None, None, [None, None, None]);
        let (mut percent, mut lock) = (0, None);
        let mut d = Decoder::new(text.get(HEADER_LEN..).unwrap_or_default());
        cbor::map(&mut d, |field, d| {
            match field {
                0 => created = Some(timestamp(d)?),
                1 => chunks = Some(chunker(d)?),
                2 => target = Some(d.u32()?),
                3..=5 => features[field as usize - 3] = Some(cbor::array(d, |d| Ok(d.str()?.to_owned()))?),
                6 => percent = parity(d)?,
                7 => lock = Some(retention(d)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        cbor::finish(&d)?;
        let [read, write, maintain] = features;
        let pack_target = required(target, 2)?;
        if !PACK_TARGETS.contains(&pack_target) {
            return Err(FormatError::Malformed("impossible pack size".into()));
        }
        Ok(Self {
            repo: header.repo,
            created: required(created, 0)?,
            chunks: required(chunks, 1)?,
            pack_target,
            parity: percent,
            read_features: required(read, 3)?,
            write_features: required(write, 4)?,
            maintain_features: required(maintain, 5)?,
            retention: lock,
        })
    }
}

fn chunker(d: &mut Decoder<'_>) -> cbor::Result<Option<ChunkSizes>> {
    let count = d.array()?.ok_or(cbor::CborError::Invalid("arrays have a definite length"))?;
    if count == 0 || d.u32()? != CHUNKER_GEAR {
        for _ in 1..count {
            d.skip()?;
        }
        return Ok(None);
    }
    let sizes = ChunkSizes { min: d.u32()?, average: d.u32()?, max: d.u32()? };
    if count == 4 && sizes.are_valid() { Ok(Some(sizes)) } else { Err(cbor::CborError::Invalid("impossible chunk sizes")) }
}

/// A share in percent.
pub(super) fn parity(d: &mut Decoder<'_>) -> cbor::Result<u8> {
    let percent = d.u8()?;
    if percent <= MAX_PARITY { Ok(percent) } else { Err(cbor::CborError::Invalid("more than 100 % of parity")) }
}

fn retention(d: &mut Decoder<'_>) -> cbor::Result<Retention> {
    let bad = cbor::CborError::Invalid("impossible retention");
    if d.array()? != Some(2) {
        return Err(bad);
    }
    let mode = match d.u8()? {
        1 => LockMode::Governance,
        2 => LockMode::Compliance,
        _ => return Err(bad),
    };
    let days = d.u16()?;
    if RETENTION_DAYS.contains(&days) { Ok(Retention { mode, days }) } else { Err(bad) }
}

/// Seconds and nanoseconds.
pub(super) fn timestamp(d: &mut Decoder<'_>) -> cbor::Result<Timestamp> {
    match d.array()? {
        Some(2) => checked_timestamp(d.i64()?, d.u32()?),
        _ => Err(cbor::CborError::Invalid("a time is two numbers")),
    }
}

/// Refuses impossible nanoseconds.
pub(super) fn checked_timestamp(seconds: i64, nanos: u32) -> cbor::Result<Timestamp> {
    if nanos < 1_000_000_000 {
        Ok(Timestamp { seconds, nanos })
    } else {
        Err(cbor::CborError::Invalid("nanoseconds out of range"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_flips_and_prefixes() {
        let key = Key::from_bytes([4; 32]);
        let config = Config {
            repo: RepoId([5; 16]),
            created: Timestamp { seconds: -5, nanos: 7 },
            chunks: Some(crate::chunker::DEFAULT_SIZES),
            pack_target: 16 << 20,
            parity: 7,
            read_features: vec![],
            write_features: vec!["x".into()],
            maintain_features: vec![],
            retention: Some(Retention { mode: LockMode::Compliance, days: 30 }),
        };
        let good = config.to_bytes(&key).expect("encodes");
        assert_eq!(Config::parse(&key, &good).expect("parses"), config);
        for len in 0..good.len() {
            assert!(Config::parse(&key, &good[..len]).is_err());
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Config::parse(&key, &bad).is_err(), "bit {bit}");
        }
    }
}
