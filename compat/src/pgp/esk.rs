//! The packets before the encrypted data: who may read it, and how a pass phrase opens it.

use std::io::{Cursor, Read};

use sequoia_openpgp::crypto::symmetric::{BlockCipherMode, Decryptor, UnpaddingMode};
use sequoia_openpgp::crypto::{AEADAlgorithm, S2K, SessionKey};
use sequoia_openpgp::packet::PKESK;
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::parse::buffered_reader::Generic;
use sequoia_openpgp::types::SymmetricAlgorithm;
use sequoia_openpgp::{Packet, parse::Cookie};

use super::error::PgpErrorKind;
use super::frame::{Header, Input, MAX_PACKET, is_ignored};
use super::s2k::{self, Fields};

/// How many packets may stand before the encrypted data.
const MAX_PACKETS: usize = 1024;
/// How many pass-phrase packets, and how many recipients, are tried; further ones are passed over.
const MAX_TRIED: usize = 64;
/// How many of the pass-phrase packets may use Argon2, which takes memory and seconds.
const MAX_COSTLY: usize = 4;

/// A key for the encrypted data. AEAD session keys of version-5 packets come without an algorithm: the data names it.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) algo: Option<SymmetricAlgorithm>,
    pub(super) key: SessionKey,
}

/// Whether the cipher can be used. Blowfish is left out: the library pads its keys where they have to be repeated.
fn usable(algo: SymmetricAlgorithm) -> bool {
    algo.is_supported() && algo != SymmetricAlgorithm::Blowfish
}

impl Candidate {
    /// The reason why this key is of no use, if its cipher is none that can be used.
    pub(super) fn unsupported(&self) -> Option<PgpErrorKind> {
        self.algo.filter(|algo| !usable(*algo)).map(unsupported_cipher)
    }
}

fn unsupported_cipher(algo: SymmetricAlgorithm) -> PgpErrorKind {
    PgpErrorKind::Unsupported(format!("the cipher {algo}"))
}

/// A symmetric-key encrypted session key packet, version 4 or 5.
#[derive(Debug)]
pub(super) struct Skesk {
    pub(super) algo: SymmetricAlgorithm,
    pub(super) s2k: S2K,
    /// The specifier as written, to recognise one that was stretched before.
    pub(super) spec: Vec<u8>,
    kind: SkeskKind,
}

#[derive(Debug)]
enum SkeskKind {
    /// The stretched pass phrase is the session key.
    Direct,
    /// Version 4: algorithm and key, encrypted.
    Wrapped(Vec<u8>),
    /// Version 5, of an RFC 4880bis draft: as GnuPG writes it before AEAD data.
    Aead { aead: AEADAlgorithm, nonce: Vec<u8>, esk: Vec<u8> },
}

/// The recipient packets, with their bytes for gpg.
pub(super) struct Recipient {
    pub(super) packet: PKESK,
    pub(super) bytes: Vec<u8>,
}

/// What stands before the encrypted data.
#[derive(Default)]
pub(super) struct Preamble {
    pub(super) skesks: Vec<Skesk>,
    pub(super) recipients: Vec<Recipient>,
    /// The first thing that was not understood; matters only if nothing else opens the message.
    pub(super) unsupported: Option<PgpErrorKind>,
}

impl Preamble {
    /// Reads up to the header of the encrypted data, and returns that too.
    pub(super) fn read(input: &mut Input) -> Result<(Self, Header), PgpErrorKind> {
        let mut preamble = Self::default();
        for _ in 0..MAX_PACKETS {
            let Some(header) = input.next_header()? else { return Err(PgpErrorKind::Truncated) };
            match header.tag {
                1 => preamble.add_recipient(&input.small_body(header, MAX_PACKET)?),
                3 => match Skesk::parse(&input.small_body(header, MAX_PACKET)?) {
                    Ok(skesk) => preamble.add_skesk(skesk),
                    Err(kind) => preamble.not_understood(kind),
                },
                9 | 18 | 20 => return Ok((preamble, header)),
                tag if is_ignored(tag) => drop(input.small_body(header, MAX_PACKET)?),
                8 | 11 | 4 | 2 => return Err(PgpErrorKind::NotOpenPgp("it is signed or packed, but not encrypted".into())),
                tag => return Err(PgpErrorKind::NotOpenPgp(format!("it has a packet {tag} where encrypted data belongs"))),
            }
        }
        Err(PgpErrorKind::Bomb(format!("more than {MAX_PACKETS} packets before the data")))
    }

    fn add_skesk(&mut self, skesk: Skesk) {
        let costly = |s: &&Skesk| matches!(s.s2k, S2K::Argon2 { .. });
        let enough = costly(&&skesk) && self.skesks.iter().filter(costly).count() >= MAX_COSTLY;
        if self.skesks.len() < MAX_TRIED && !enough {
            self.skesks.push(skesk);
        }
    }

    fn add_recipient(&mut self, body: &[u8]) {
        if self.recipients.len() >= MAX_TRIED {
            return;
        }
        let bytes = packet(1, body);
        match Packet::from_bytes(&bytes) {
            Ok(Packet::PKESK(packet)) => self.recipients.push(Recipient { packet, bytes }),
            _ => self.not_understood(PgpErrorKind::Unsupported("the kind of key it is encrypted to".into())),
        }
    }

    fn not_understood(&mut self, kind: PgpErrorKind) {
        self.unsupported.get_or_insert(kind);
    }
}

/// A packet of less than 4 GiB, in the new format, with a length of four octets.
#[allow(clippy::big_endian_bytes, reason = "OpenPGP is big-endian")]
pub(super) fn packet(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0xc0 | tag, 0xff], &length[..], body].concat()
}

impl Skesk {
    fn parse(body: &[u8]) -> Result<Self, PgpErrorKind> {
        let mut fields = Fields(body);
        let version = fields.byte()?;
        if version != 4 && version != 5 {
            return Err(PgpErrorKind::Unsupported(format!("a pass-phrase packet of version {version}")));
        }
        let algo = SymmetricAlgorithm::from(fields.byte()?);
        if !usable(algo) {
            return Err(unsupported_cipher(algo));
        }
        let aead = if version == 5 { Some(AEADAlgorithm::from(fields.byte()?)) } else { None };
        let before = fields.0;
        let s2k = s2k::parse(&mut fields)?;
        let spec = before[..before.len() - fields.0.len()].to_vec();
        let kind = match aead {
            Some(aead) => {
                let nonce = aead.nonce_size().map_err(|e| PgpErrorKind::Unsupported(e.to_string()))?;
                SkeskKind::Aead { aead, nonce: fields.take(nonce)?.to_vec(), esk: fields.0.to_vec() }
            }
            None if fields.0.is_empty() => SkeskKind::Direct,
            None => SkeskKind::Wrapped(fields.0.to_vec()),
        };
        Ok(Self { algo, s2k, spec, kind })
    }

    /// The length of the key that the pass phrase is stretched to.
    pub(super) fn key_size(&self) -> Result<usize, PgpErrorKind> {
        self.algo.key_size().map_err(|e| PgpErrorKind::Unsupported(e.to_string()))
    }

    /// The session key, given the stretched pass phrase; `None` where that is certainly the wrong one. Version 4 knows little
    /// of wrong ones: the answer has to be tried on the data.
    pub(super) fn open(&self, stretched: SessionKey) -> Option<Candidate> {
        match &self.kind {
            SkeskKind::Direct => Some(Candidate { algo: Some(self.algo), key: stretched }),
            SkeskKind::Wrapped(esk) => {
                let plain = SessionKey::from(cfb(self.algo, &stretched, None, esk)?);
                let (algo, key) = plain.split_first()?;
                let algo = SymmetricAlgorithm::from(*algo);
                (usable(algo) && algo.key_size().ok()? == key.len())
                    .then(|| Candidate { algo: Some(algo), key: key.to_vec().into() })
            }
            SkeskKind::Aead { aead, nonce, esk } => {
                let ad = [0xc3, 5, self.algo.into(), (*aead).into()];
                let mut key = SessionKey::from(vec![0; esk.len().checked_sub(aead.digest_size().ok()?)?]);
                let context = aead.context(self.algo, &stretched, &ad, nonce).ok()?;
                context.for_decryption().ok()?.decrypt_verify(&mut key, esk).ok()?;
                Some(Candidate { algo: None, key })
            }
        }
    }
}

/// A few bytes in CFB mode; `iv` of `None` is zeros.
pub(super) fn cfb(algo: SymmetricAlgorithm, key: &SessionKey, iv: Option<&[u8]>, data: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(data.len());
    cfb_reader(algo, key, iv, Cursor::new(data.to_vec()))?.read_to_end(&mut plain).ok()?;
    Some(plain)
}

/// A stream in CFB mode; `None` where cipher and key do not go together.
pub(super) fn cfb_reader(
    algo: SymmetricAlgorithm,
    key: &SessionKey,
    iv: Option<&[u8]>,
    data: impl Read + Send + Sync + 'static,
) -> Option<Decryptor<'static>> {
    if !usable(algo) || algo.key_size().ok()? != key.len() {
        return None;
    }
    let source = Generic::with_cookie(data, Some(super::container::BUFFER), Cookie::default());
    Decryptor::new(algo, BlockCipherMode::CFB, UnpaddingMode::None, key, iv, source).ok()
}
