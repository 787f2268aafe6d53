//! What is inside the encrypted data: compression, signatures, and the content.

use std::fmt;
use std::io::{self, Cursor, Read};
use std::sync::{Arc, LazyLock};

use sequoia_openpgp::cert::amalgamation::ValidAmalgamation;
use sequoia_openpgp::packet::Signature as SignaturePacket;
use sequoia_openpgp::parse::stream::{
    GoodChecksum, MessageLayer, MessageStructure, VerificationError, VerificationHelper, VerificationResult, Verifier,
    VerifierBuilder,
};
use sequoia_openpgp::parse::{PacketParser, Parse};
use sequoia_openpgp::policy::{AsymmetricAlgorithm, StandardPolicy};
use sequoia_openpgp::types::{HashAlgorithm, RevocationStatus};
use sequoia_openpgp::{Cert, KeyHandle, Packet};

use super::certs::Certs;
use super::container::{BUFFER, Complete, Integrity, Plain, modified};
use super::error::{Failure, PgpError, PgpErrorKind};
use super::frame::{Body, Exclusive, Input, read_full};
use crate::inflate::Inflate;

/// Compressed packets in one another; gpg writes one.
const MAX_COMPRESSION: usize = 3;
/// Packets inside the encrypted data; gpg writes one per compression and content, two per signature.
const MAX_PACKETS: usize = 64;

/// The header of a compressed packet of indeterminate length, and the number of DEFLATE.
const ZIP: [u8; 2] = [0xa3, 1];

/// How a signature was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignatureStatus {
    /// It is right, by a key that was valid when it was made and is so today.
    Good,
    /// It is right, and the key was valid when it was made by what it says itself; but the key has expired or was revoked since.
    KeyInvalid(String),
    /// It is wrong, or the key must not have made it; with the reason.
    Bad(String),
    /// The key is not there, so nothing is known.
    UnknownKey,
}

/// A signature over the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Whether it is right.
    pub status: SignatureStatus,
    /// Fingerprint of the key or subkey that signed, in upper-case hexadecimal; the id that the signature names where the key is
    /// not known; empty where it names none.
    pub key: String,
    /// Fingerprint of the primary key that it belongs to, where the key is known.
    pub primary: Option<String>,
}

/// What is known of a file that was read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How the content is protected against changes; where it is, it was not changed.
    pub integrity: Integrity,
    /// All signatures, in the order of the message.
    pub signatures: Vec<Signature>,
    name: String,
}

impl Report {
    /// An error unless there is a good signature by this key: fingerprint of the primary key or of the subkey that signed, or a
    /// long key id, in hexadecimal, with or without spaces and `0x`. Shorter ids are easily forged and match nothing.
    pub fn require_signature(&self, fingerprint: &str) -> Result<(), PgpError> {
        let digits: String = fingerprint.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_uppercase();
        let wanted = digits.strip_prefix("0X").unwrap_or(&digits);
        let matches = |key: &str| matches!(wanted.len(), 16 | 40 | 64) && key.ends_with(wanted);
        let good = |s: &&Signature| s.status == SignatureStatus::Good;
        let by = |s: &Signature| matches(&s.key) || s.primary.as_deref().is_some_and(matches);
        if self.signatures.iter().filter(good).any(by) {
            return Ok(());
        }
        let found = match self.signatures.iter().find(|s| by(s)).or(self.signatures.first()) {
            None => "it is not signed".to_owned(),
            Some(Signature { status: SignatureStatus::Good, key, .. }) => format!("it is signed by {key}"),
            Some(Signature { status: SignatureStatus::Bad(why), key, .. }) => format!("the signature by {key} is bad: {why}"),
            Some(Signature { status: SignatureStatus::KeyInvalid(why), key, .. }) => {
                format!("it is signed by {key}, which is valid no more: {why}")
            }
            Some(Signature { key, .. }) => format!("it is signed by {key}, whose public key is not there to check it"),
        };
        Err(PgpErrorKind::NotSignedBy { wanted: wanted.to_owned(), found }.of(&self.name))
    }
}

/// The content of a file as a stream.
///
/// The end comes only after everything was checked: a reader that sees an orderly end has read what was encrypted (but see
/// [`Integrity::None`]). What was read before that may be anything an attacker likes, with [`Integrity::Mdc`]; with
/// [`Integrity::Aead`] it is true content, perhaps not all. The first error is a [`PgpError`] inside the `io::Error`.
pub struct Decrypted {
    message: Message,
    integrity: Integrity,
    complete: Complete,
    failure: Failure,
    name: String,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading,
    Ended,
    Failed,
}

enum Message {
    /// One literal packet: nobody signed it.
    Literal(Body),
    Signed(Box<Verifier<'static, Checks>>),
}

impl fmt::Debug for Decrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decrypted").field("name", &self.name).field("integrity", &self.integrity).finish_non_exhaustive()
    }
}

impl Decrypted {
    pub(super) fn new(
        plain: Plain,
        integrity: Integrity,
        complete: Complete,
        failure: Failure,
        certs: Arc<Certs>,
        name: &str,
    ) -> Result<Self, PgpErrorKind> {
        let open = || -> io::Result<Message> {
            let (plain, unpacked) = unpack(plain)?;
            let mut input = Input::bare(plain);
            if input.starts_literal()? {
                return Ok(Message::Literal(input.into_literal(MAX_PACKETS)?));
            }
            let checks = Checks { certs, signatures: Vec::new(), packets: 0, unpacked, failure: failure.clone() };
            let verifier = VerifierBuilder::from_reader(input.into_reader())
                .and_then(|builder| builder.buffer_size(BUFFER).with_policy(&*POLICY, None, checks));
            Ok(Message::Signed(Box::new(verifier.map_err(|e| e.downcast().unwrap_or_else(io::Error::other))?)))
        };
        let message = open().map_err(|e| what_failed(&e, &failure, integrity))?;
        Ok(Self { message, integrity, complete, failure, name: name.to_owned(), state: State::Reading })
    }

    /// How the content is protected against changes; known from the start.
    pub fn integrity(&self) -> Integrity {
        self.integrity
    }

    /// Reads what was not read yet, and tells what is known of the whole.
    pub fn finish(mut self) -> Result<Report, PgpError> {
        let mut rest = vec![0; BUFFER];
        while self.read_checked(&mut rest)? > 0 {}
        let signatures = match &mut self.message {
            Message::Literal(_) => Vec::new(),
            Message::Signed(verifier) => std::mem::take(&mut verifier.helper_mut().signatures),
        };
        Ok(Report { integrity: self.integrity, signatures, name: self.name })
    }

    fn read_checked(&mut self, buf: &mut [u8]) -> Result<usize, PgpError> {
        match self.state {
            State::Ended => return Ok(0),
            // The library does not bear being read again.
            State::Failed => return Err(PgpErrorKind::Modified("reading it failed before".into()).of(&self.name)),
            State::Reading if buf.is_empty() => return Ok(0),
            State::Reading => {}
        }
        let read = match &mut self.message {
            Message::Literal(body) => body.read(buf),
            Message::Signed(verifier) => verifier.read(buf),
        };
        let kind = match read {
            Ok(0) if self.complete.get() => {
                self.state = State::Ended;
                return Ok(0);
            }
            Ok(0) => self.failure.take().unwrap_or_else(|| PgpErrorKind::Modified("there is more in it than one message".into())),
            Ok(n) => return Ok(n),
            Err(e) => what_failed(&e, &self.failure, self.integrity),
        };
        self.state = State::Failed;
        Err(kind.of(&self.name))
    }
}

/// What gpg and we compress mostly is one packet of indeterminate length, with DEFLATE (RFC 4880, 5.6): its content, inflated here,
/// which the library would do on one processor. Anything else as it is. Also how many compressed packets were opened.
fn unpack(mut plain: Plain) -> io::Result<(Plain, usize)> {
    let mut start = [0; ZIP.len()];
    let n = read_full(&mut plain, &mut start)?;
    if start == ZIP {
        return Ok((Box::new(Exclusive::new(Unpacked(Some(Inflate::new(plain))))), 1));
    }
    Ok((Box::new(Cursor::new(start).take(n as u64).chain(plain)), 0))
}

/// A packet of compressed data up to the end of the message.
struct Unpacked(Option<Inflate<Plain>>);

impl Read for Unpacked {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(inflate) = &mut self.0 else { return Ok(0) };
        let n = inflate.read(buf)?;
        if n > 0 || buf.is_empty() {
            return Ok(n);
        }
        // Only whoever reads to the end learns whether the container is whole.
        let more = self.0.take().map_or(Ok(0), |inflate| inflate.into_rest().read(&mut [0]))?;
        if more > 0 { Err(modified("there is more behind the compressed data")) } else { Ok(0) }
    }
}

impl Read for Decrypted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(self.read_checked(buf)?)
    }
}

/// The kind of failure behind an error of the library.
fn what_failed(e: &io::Error, failure: &Failure, integrity: Integrity) -> PgpErrorKind {
    match failure.take() {
        Some(kind) => kind,
        None if e.kind() == io::ErrorKind::UnexpectedEof && integrity == Integrity::None => PgpErrorKind::Truncated,
        None => PgpErrorKind::Modified(format!("the decrypted data is no OpenPGP message ({e})")),
    }
}

/// As GnuPG, and other than today's recommendations: archives live long, and were signed with what was usual in their time.
pub(super) static POLICY: LazyLock<StandardPolicy<'static>> = LazyLock::new(|| {
    let mut policy = StandardPolicy::new();
    policy.accept_hash(HashAlgorithm::SHA1);
    policy.accept_hash(HashAlgorithm::RipeMD);
    for algo in [AsymmetricAlgorithm::RSA1024, AsymmetricAlgorithm::DSA1024, AsymmetricAlgorithm::DSA2048] {
        policy.accept_asymmetric_algo(algo);
    }
    policy.accept_packet_tag_version(sequoia_openpgp::packet::Tag::Signature, 3);
    policy
});

/// What the library asks and tells while it reads.
#[derive(Debug)]
struct Checks {
    certs: Arc<Certs>,
    signatures: Vec<Signature>,
    packets: usize,
    /// Compressed packets around what the library sees.
    unpacked: usize,
    failure: Failure,
}

impl VerificationHelper for Checks {
    fn inspect(&mut self, pp: &PacketParser<'_>) -> sequoia_openpgp::Result<()> {
        self.packets += 1;
        let depth = self.unpacked + usize::try_from(pp.recursion_depth()).unwrap_or_default();
        let bomb = match &pp.packet {
            Packet::CompressedData(_) if depth >= MAX_COMPRESSION => format!("packed more than {MAX_COMPRESSION} times over"),
            _ if self.packets > MAX_PACKETS => format!("more than {MAX_PACKETS} packets inside"),
            _ => return Ok(()),
        };
        Err(self.failure.record(PgpErrorKind::Bomb(bomb)).into())
    }

    fn get_certs(&mut self, ids: &[KeyHandle]) -> sequoia_openpgp::Result<Vec<Cert>> {
        Ok(self.certs.find(ids))
    }

    fn check(&mut self, structure: MessageStructure<'_>) -> sequoia_openpgp::Result<()> {
        for layer in structure {
            if let MessageLayer::SignatureGroup { results } = layer {
                self.signatures.extend(results.into_iter().map(judge));
            }
        }
        Ok(())
    }
}

fn judge(result: VerificationResult<'_>) -> Signature {
    let named = |sig: &SignaturePacket| sig.get_issuers().first().map(|id| format!("{id:X}")).unwrap_or_default();
    let unknown = |status, key| Signature { status, key, primary: None };
    match result {
        Ok(good) => known(status_today(&good), &good.ka.key().fingerprint(), good.ka.cert()),
        Err(VerificationError::MissingKey { sig }) => unknown(SignatureStatus::UnknownKey, named(sig)),
        Err(VerificationError::UnboundKey { sig, cert, error }) => {
            let primary = Some(format!("{:X}", cert.fingerprint()));
            Signature { status: SignatureStatus::Bad(error.to_string()), key: named(sig), primary }
        }
        Err(VerificationError::BadKey { ka, error, .. } | VerificationError::BadSignature { ka, error, .. }) => {
            known(SignatureStatus::Bad(error.to_string()), &ka.key().fingerprint(), ka.cert())
        }
        Err(VerificationError::MalformedSignature { sig, error }) => unknown(SignatureStatus::Bad(error.to_string()), named(sig)),
        Err(other) => unknown(SignatureStatus::Bad(other.to_string()), String::new()),
    }
}

/// The library asks whether the key was valid when the signature was made; whoever has an old key can make it in the past.
fn status_today(good: &GoodChecksum<'_>) -> SignatureStatus {
    let revoked = |status| matches!(status, RevocationStatus::Revoked(_));
    let today = || -> sequoia_openpgp::Result<bool> {
        let cert = good.ka.cert().with_policy(&*POLICY, None)?;
        cert.alive()?;
        let signer = cert.keys().key_handle(good.ka.key().key_handle()).next();
        let signer = signer.ok_or_else(|| io::Error::other("the key belongs to it no more"))?;
        signer.alive()?;
        Ok(!revoked(cert.revocation_status()) && !revoked(signer.revocation_status()))
    };
    match today() {
        Ok(true) => SignatureStatus::Good,
        Ok(false) => SignatureStatus::KeyInvalid("it was revoked".into()),
        Err(e) => SignatureStatus::KeyInvalid(e.to_string()),
    }
}

fn known(status: SignatureStatus, key: &sequoia_openpgp::Fingerprint, cert: &Cert) -> Signature {
    Signature { status, key: format!("{key:X}"), primary: Some(format!("{:X}", cert.fingerprint())) }
}
