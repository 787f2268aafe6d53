//! Encryption as gpg 2.2 does it for duplicity: to a pass phrase or to public keys, signed or not.

use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use sequoia_openpgp::cert::{Cert, CertParser};
use sequoia_openpgp::crypto::{KeyPair, Password, S2K, SessionKey, hash};
use sequoia_openpgp::packet::key::{PublicParts, SecretParts, UnspecifiedRole};
use sequoia_openpgp::packet::one_pass_sig::OnePassSig3;
use sequoia_openpgp::packet::pkesk::PKESK3;
use sequoia_openpgp::packet::signature::SignatureBuilder;
use sequoia_openpgp::packet::skesk::SKESK4;
use sequoia_openpgp::packet::{Key, PKESK, Packet, SKESK};
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::serialize::SerializeInto;
use sequoia_openpgp::types::{HashAlgorithm, SignatureType};

use super::error::{PgpError, PgpErrorKind};
use super::gpg::Gnupg;
use super::layers::{CIPHER, Packing, Partial, Sealing};
use super::message::POLICY;
use super::s2k;

/// Bytes that a pass phrase is stretched over: the most that the format can say, as gpg takes it.
const STRETCH: u32 = 0x03e0_0000;
/// Of signatures.
const DIGEST: HashAlgorithm = HashAlgorithm::SHA512;

type Secret = Key<SecretParts, UnspecifiedRole>;

/// Whether content is compressed before it is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compression {
    /// With ZIP, level 6.
    #[default]
    Zip,
    /// Not at all.
    None,
}

/// To whom files are encrypted, and by whom they are signed. The same for any number of files and threads; each file gets
/// a session key, or salt, of its own.
#[derive(Clone)]
pub struct Encryption {
    to: To,
    signer: Option<KeyPair>,
    compression: Compression,
}

#[derive(Clone)]
enum To {
    Passphrase(Password),
    Keys(Vec<Recipient>),
}

#[derive(Clone)]
struct Recipient {
    key: Key<PublicParts, UnspecifiedRole>,
    hidden: bool,
}

/// Whether a file tells that it is encrypted to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipiency {
    /// It names the key.
    Named,
    /// It names none; whoever opens it has to try their keys (`--hidden-recipient`).
    Hidden,
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let to = match &self.to {
            To::Passphrase(_) => "a pass phrase".to_owned(),
            To::Keys(keys) => format!("{} keys", keys.len()),
        };
        let signer = self.signer.as_ref().map(|pair| format!("{:X}", pair.public().fingerprint()));
        f.debug_struct("Encryption").field("to", &to).field("signer", &signer).finish_non_exhaustive()
    }
}

impl Encryption {
    /// To whoever knows the pass phrase.
    #[must_use]
    pub fn symmetric(passphrase: &[u8]) -> Self {
        Self { to: To::Passphrase(Password::from(passphrase)), signer: None, compression: Compression::default() }
    }

    /// To public keys; without at least one no file can be encrypted.
    #[must_use]
    pub fn public() -> Self {
        Self { to: To::Keys(Vec::new()), signer: None, compression: Compression::default() }
    }

    /// With or without compression.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Adds a recipient out of exported keys (armoured or not): `wanted` is the end of a fingerprint or key id, of the
    /// certificate or of one of its keys, or a part of a user id. Of a certificate with several keys for encryption, the newest
    /// one that is valid is taken, unless `wanted` names another.
    ///
    /// # Errors
    ///
    /// [`PgpErrorKind::NoUsableKey`] if nothing fits, or what fits is expired, revoked or not for encryption; also if this
    /// encrypts to a pass phrase.
    pub fn add_recipient(&mut self, exported: &[u8], wanted: &str, recipiency: Recipiency) -> Result<(), PgpError> {
        let To::Keys(recipients) = &mut self.to else {
            return Err(unusable(wanted, "the archive is encrypted to a pass phrase"));
        };
        let mut why = "there is no such key";
        for cert in certs(exported, wanted)? {
            let Ok(valid) = cert.with_policy(&*POLICY, None) else { continue };
            let keys = valid.keys().supported().alive().revoked(false);
            let keys = keys.for_storage_encryption().for_transport_encryption();
            let keys = keys.map(|ka| ka.key().clone().role_into_unspecified());
            if let Some(key) = newest(keys.collect(), wanted) {
                recipients.push(Recipient { key, hidden: recipiency == Recipiency::Hidden });
                return Ok(());
            }
            why = "it has no part for encryption that is valid today";
        }
        Err(unusable(wanted, why))
    }

    /// Signs with a secret key out of exported keys (`gpg --export-secret-keys`), unlocked with one of the pass phrases if it
    /// is locked. `wanted` as with [`Self::add_recipient`]: the key that it names if that can sign, else the newest that can.
    ///
    /// # Errors
    ///
    /// [`PgpErrorKind::NoUsableKey`] if nothing fits, is secret, may sign, or can be unlocked.
    pub fn sign_with(&mut self, exported: &[u8], wanted: &str, passphrases: &[&[u8]]) -> Result<(), PgpError> {
        let mut why = "there is no such key";
        for cert in certs(exported, wanted)? {
            let Ok(valid) = cert.with_policy(&*POLICY, None) else { continue };
            let keys = valid.keys().supported().alive().revoked(false).for_signing().secret();
            let keys = keys.map(|ka| ka.key().clone().role_into_unspecified());
            let Some(key) = newest(keys.collect::<Vec<Secret>>(), wanted) else {
                why = "it has no secret part that may sign today";
                continue;
            };
            why = "none of the pass phrases unlocks it";
            if let Some(pair) = unlock(&key, passphrases) {
                self.signer = Some(pair);
                return Ok(());
            }
        }
        Err(unusable(wanted, why))
    }

    /// Fingerprint of the key that signs, in upper-case hexadecimal.
    #[must_use]
    pub fn signer(&self) -> Option<String> {
        self.signer.as_ref().map(|pair| format!("{:X}", pair.public().fingerprint()))
    }

    /// Starts a file. What is written to the [`Encryptor`] goes encrypted to `out`. Compression runs on rayon's threads: not to be
    /// used on one of them. Memory: 11 MiB at most.
    ///
    /// # Errors
    ///
    /// Those of `out`, and if a key cannot be used after all.
    pub fn encrypt<W: Write>(&self, mut out: W) -> io::Result<Encryptor<W>> {
        let key = self.write_keys(&mut out)?;
        let sealing = Sealing::new(out, &key)?;
        let mut packing = match self.compression {
            Compression::Zip => Packing::zip(sealing)?,
            Compression::None => Packing::Stored(sealing),
        };
        let signing = match &self.signer {
            Some(pair) => Some(Signing::start(pair, &mut packing)?),
            None => None,
        };
        let mut literal = Partial::new(packing, 11)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        literal.write_all(b"b\0")?;
        literal.write_all(&number(u32::try_from(now).unwrap_or(0)))?;
        Ok(Encryptor { literal, signing })
    }

    /// Writes the packets that hold the session key, and returns that.
    fn write_keys(&self, out: &mut impl Write) -> io::Result<SessionKey> {
        let size = CIPHER.key_size().map_err(io::Error::other)?;
        match &self.to {
            To::Passphrase(passphrase) => {
                let mut salt = [0; 8];
                sequoia_openpgp::crypto::random(&mut salt).map_err(io::Error::other)?;
                let s2k = S2K::Iterated { hash: HashAlgorithm::SHA256, salt, hash_bytes: STRETCH };
                let key = s2k::derive(&s2k, passphrase, size).map_err(io::Error::other)?;
                let packet = SKESK4::new(CIPHER, s2k, None).map_err(io::Error::other)?;
                write_packet(out, &Packet::from(SKESK::from(packet)))?;
                Ok(key)
            }
            To::Keys(recipients) if recipients.is_empty() => Err(io::Error::other("encrypted to nobody")),
            To::Keys(recipients) => {
                let key = SessionKey::new(size).map_err(io::Error::other)?;
                for recipient in recipients {
                    let mut packet = PKESK3::for_recipient(CIPHER, &key, &recipient.key).map_err(io::Error::other)?;
                    if recipient.hidden {
                        packet.set_recipient(None);
                    }
                    write_packet(out, &Packet::from(PKESK::from(packet)))?;
                }
                Ok(key)
            }
        }
    }
}

/// The exported public certificates of a key that gpg knows, by anything that gpg takes for a key; `home` of `None` is gpg's own
/// choice. Empty if there is none.
#[must_use]
pub fn gnupg_public_keys(home: Option<&Path>, key: &str) -> Vec<u8> {
    Gnupg::new(home).export_any(key)
}

/// The exported secret keys, still locked, of a key that gpg knows; as [`gnupg_public_keys`]. gpg wants the pass phrase of the
/// key for this.
#[must_use]
pub fn gnupg_secret_keys(home: Option<&Path>, key: &str, passphrase: &[u8]) -> Vec<u8> {
    Gnupg::new(home).export_secret(key, passphrase)
}

fn unusable(wanted: &str, why: &str) -> PgpError {
    PgpErrorKind::NoUsableKey(why.to_owned()).of(wanted)
}

/// The certificates that `wanted` may mean.
fn certs(exported: &[u8], wanted: &str) -> Result<Vec<Cert>, PgpError> {
    let all = CertParser::from_bytes(exported).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut all = all.map_err(|e| unusable(wanted, &format!("these are no exported keys ({e})")))?;
    let digits = digits(wanted);
    let user = wanted.to_lowercase();
    all.retain(|cert| match &digits {
        Some(digits) => cert.keys().any(|ka| is_named(&format!("{:X}", ka.key().fingerprint()), digits)),
        None => cert.userids().any(|u| String::from_utf8_lossy(u.userid().value()).to_lowercase().contains(&user)),
    });
    Ok(all)
}

/// The hexadecimal digits of a key id or fingerprint.
fn digits(wanted: &str) -> Option<String> {
    let bare = wanted.strip_prefix("0x").unwrap_or(wanted);
    let bare = bare.strip_suffix('!').unwrap_or(bare).replace(' ', "");
    let is_id = matches!(bare.len(), 8 | 16 | 32 | 40 | 64) && bare.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then(|| bare.to_uppercase())
}

fn is_named(fingerprint: &str, digits: &str) -> bool {
    fingerprint.ends_with(digits)
}

/// The key that is named itself, else that made last.
fn newest<P: sequoia_openpgp::packet::key::KeyParts>(
    mut keys: Vec<Key<P, UnspecifiedRole>>,
    wanted: &str,
) -> Option<Key<P, UnspecifiedRole>> {
    let digits = digits(wanted);
    let named = |key: &Key<P, UnspecifiedRole>| digits.as_ref().is_some_and(|d| is_named(&format!("{:X}", key.fingerprint()), d));
    keys.sort_by_key(|key| (named(key), key.creation_time()));
    keys.pop()
}

fn unlock(key: &Secret, passphrases: &[&[u8]]) -> Option<KeyPair> {
    if key.has_unencrypted_secret() {
        return key.clone().into_keypair().ok();
    }
    let mut unlocked = passphrases.iter().filter_map(|phrase| key.clone().decrypt_secret(&Password::from(*phrase)).ok());
    unlocked.next()?.into_keypair().ok()
}

fn write_packet(out: &mut impl Write, packet: &Packet) -> io::Result<()> {
    out.write_all(&packet.to_vec().map_err(io::Error::other)?)
}

#[allow(clippy::big_endian_bytes, reason = "OpenPGP is big-endian")]
fn number(n: u32) -> [u8; 4] {
    n.to_be_bytes()
}

/// A signature over what passes.
struct Signing {
    pair: KeyPair,
    hash: hash::Context,
}

impl Signing {
    /// Writes the packet that announces the signature.
    fn start(pair: &KeyPair, out: &mut impl Write) -> io::Result<Self> {
        let key = pair.public();
        let mut announced = OnePassSig3::new(SignatureType::Binary);
        announced.set_pk_algo(key.pk_algo());
        announced.set_hash_algo(DIGEST);
        announced.set_issuer(key.keyid());
        announced.set_last(true);
        write_packet(out, &Packet::from(announced))?;
        let hash = DIGEST.context().map_err(io::Error::other)?.for_signature(key.version());
        Ok(Self { pair: pair.clone(), hash })
    }

    fn finish(mut self, out: &mut impl Write) -> io::Result<()> {
        let signature = SignatureBuilder::new(SignatureType::Binary).sign_hash(&mut self.pair, self.hash);
        write_packet(out, &Packet::from(signature.map_err(io::Error::other)?))
    }
}

/// A file being encrypted. It is whole only after [`Self::finish`].
pub struct Encryptor<W: Write> {
    literal: Partial<Packing<Sealing<W>>>,
    signing: Option<Signing>,
}

impl<W: Write> Encryptor<W> {
    /// Bytes of content that are still to be compressed.
    pub(crate) fn pending(&self) -> u64 {
        self.literal.out.pending()
    }

    /// Waits for what is being compressed and hands it on.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        self.literal.out.drain()
    }

    /// Ends the message.
    ///
    /// # Errors
    ///
    /// Those of `out`, or if the signature cannot be made.
    pub fn finish(self) -> io::Result<W> {
        let mut packing = self.literal.finish()?;
        if let Some(signing) = self.signing {
            signing.finish(&mut packing)?;
        }
        packing.finish()?.finish()
    }
}

impl<W: Write> Write for Encryptor<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.literal.write(data)?;
        if let Some(signing) = &mut self.signing {
            signing.hash.update(&data[..n]);
        }
        Ok(n)
    }

    /// Does nothing: what is under way stays in memory until there is enough of it.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
