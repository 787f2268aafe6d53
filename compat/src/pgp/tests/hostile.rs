use std::fs;
use std::io::{Cursor, Read, Write};

use proptest::prelude::*;
use sequoia_openpgp::crypto::symmetric::{BlockCipherMode, Encryptor, PaddingMode};
use sequoia_openpgp::crypto::{Password, SessionKey};
use sequoia_openpgp::types::SymmetricAlgorithm;

use super::super::esk::packet;
use super::super::{Integrity, Keyring, PgpErrorKind};
use super::{fixtures, keyring, open};

pub(super) const CONTENT: &[u8] = b"Hostname test\nLocaldir /\nVolume 1:\n";

/// Packet 18 under pass phrase "p" (stretched little), around these packets.
pub(super) fn seal(inner: &[u8]) -> Vec<u8> {
    use sha1::{Digest, Sha1};
    let mut plain = [&[7; 14][..], &[1, 2, 1, 2], inner, &[0xd3, 0x14]].concat();
    plain.extend(Sha1::digest(&plain));
    [skesk(), packet(18, &[&[1], &encrypt(&plain)[..]].concat())].concat()
}

/// Packet 9, in the same way.
pub(super) fn seal_bare(inner: &[u8]) -> Vec<u8> {
    let head = encrypt(&[&[7; 14][..], &[1, 2, 1, 2]].concat());
    let rest = encrypt_with(&head[2..18], inner);
    [skesk(), packet(9, &[head, rest].concat())].concat()
}

/// AES-128, iterated SHA-1 of 1024 bytes.
pub(super) fn skesk() -> Vec<u8> {
    packet(3, &[4, 7, 3, 2, 1, 2, 3, 4, 5, 6, 7, 8, 0])
}

fn key() -> SessionKey {
    use super::super::s2k::{Fields, derive, parse};
    let s2k = parse(&mut Fields(&[3, 2, 1, 2, 3, 4, 5, 6, 7, 8, 0])).expect("specifier");
    derive(&s2k, &Password::from("p"), 16).expect("key")
}

pub(super) fn encrypt(plain: &[u8]) -> Vec<u8> {
    encrypt_with(&[0; 16], plain)
}

fn encrypt_with(iv: &[u8], plain: &[u8]) -> Vec<u8> {
    let (cipher, mode) = (SymmetricAlgorithm::AES128, BlockCipherMode::CFB);
    let mut sink = Encryptor::new(cipher, mode, PaddingMode::None, &key(), Some(iv), Vec::new()).expect("cipher");
    sink.write_all(plain).expect("encrypts");
    sink.finalize().expect("encrypts")
}

pub(super) fn literal(content: &[u8]) -> Vec<u8> {
    packet(11, &[b"b\0\0\0\0\0", content].concat())
}

fn compressed(inner: &[u8], times: usize) -> Vec<u8> {
    (0..times).fold(inner.to_vec(), |inner, _| {
        let mut deflated = vec![8 << 2 | 0x83, 1];
        let stored = u16::try_from(inner.len()).expect("small");
        // One stored block of deflate.
        deflated.push(1);
        deflated.extend(stored.to_le_bytes());
        deflated.extend((!stored).to_le_bytes());
        deflated.extend(inner);
        deflated
    })
}

pub(super) fn kind(file: &[u8]) -> PgpErrorKind {
    open(&keyring(&["p"]), file).expect_err("must be refused").kind
}

#[test]
fn what_these_tests_make_opens() {
    for (file, integrity) in [(seal(&literal(CONTENT)), Integrity::Mdc), (seal_bare(&literal(CONTENT)), Integrity::None)] {
        let (content, report) = open(&keyring(&["no", "p"]), &file).expect("opens");
        assert_eq!((content.as_slice(), report.integrity), (CONTENT, integrity));
    }
    let (content, _) = open(&keyring(&["p"]), &seal(&compressed(&literal(CONTENT), 3))).expect("opens");
    assert_eq!(content, CONTENT);
}

#[test]
fn nested_compression_is_refused() {
    for times in [4, 5, 16, 17, 200] {
        assert!(matches!(kind(&seal(&compressed(&literal(CONTENT), times))), PgpErrorKind::Bomb(_)), "{times}");
    }
}

#[test]
fn thousands_of_packets_are_refused() {
    assert!(matches!(kind(&skesk().repeat(5000)), PgpErrorKind::Bomb(_)));
    assert!(matches!(kind(&packet(1, &[3; 20]).repeat(5000)), PgpErrorKind::Bomb(_)));
    assert!(matches!(kind(&packet(3, &[0; 20_000])), PgpErrorKind::Bomb(_)));
    let one_pass = packet(4, &[3, 0, 10, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0]);
    assert!(matches!(kind(&seal(&[one_pass.repeat(5000), literal(CONTENT)].concat())), PgpErrorKind::Bomb(_)));
}

#[test]
fn useless_packets_do_not_hide_the_right_one() {
    let many = [packet(3, &[9; 30]).repeat(20), packet(1, &[3; 20]).repeat(200), seal(&literal(CONTENT))].concat();
    assert_eq!(open(&keyring(&["p"]), &many).expect("opens").0, CONTENT);
}

#[test]
fn data_around_the_message_is_refused() {
    let file = seal(&literal(CONTENT));
    assert!(matches!(kind(&[&file[..], b"x"].concat()), PgpErrorKind::Modified(_)));
    assert!(matches!(kind(&[&file[..], &file[..]].concat()), PgpErrorKind::Modified(_)));
    assert!(matches!(kind(&seal(&literal(CONTENT).repeat(2))), PgpErrorKind::Modified(_)));
    assert!(matches!(kind(&seal(b"")), PgpErrorKind::WrongPassphrase { .. }));
    assert!(matches!(kind(b""), PgpErrorKind::Truncated));
    assert!(matches!(kind(b"Hostname x"), PgpErrorKind::NotOpenPgp(_)));
    assert!(matches!(kind(&literal(CONTENT)), PgpErrorKind::NotOpenPgp(_)));
}

/// A small message of each container, with the pass phrase that opens it.
fn samples() -> Vec<(Vec<u8>, &'static str)> {
    let mut samples =
        vec![(seal(&literal(CONTENT)), "p"), (seal(&compressed(&literal(CONTENT), 1)), "p"), (seal_bare(&literal(CONTENT)), "p")];
    if let Some(root) = fixtures() {
        let manifest = "archive/duplicity-inc.20231114T221320Z.to.20231115T221320Z.manifest.gpg";
        samples.push((fs::read(root.join("public/v321-gpg24-ocb-sym").join(manifest)).expect("file"), "fixture-sym-pass"));
    }
    samples
}

#[test]
fn every_prefix_is_an_error() {
    for (file, phrase) in samples() {
        let keyring = keyring(&[phrase]);
        open(&keyring, &file).expect("opens");
        for end in 0..file.len() {
            open(&keyring, &file[..end]).expect_err("a part of it");
        }
    }
}

#[test]
fn every_flipped_bit_is_an_error_or_not_authentic() {
    for (file, phrase) in samples() {
        let keyring = keyring(&[phrase]);
        let (content, _) = open(&keyring, &file).expect("opens");
        for bit in 0..file.len() * 8 {
            // The salt at the pace of archives costs 65 MB of hashing each time: one bit of each of its bytes.
            if phrase != "p" && (7..15).contains(&(bit / 8)) && bit % 8 != 0 {
                continue;
            }
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok((got, report)) = open(&keyring, &flipped) {
                assert!(report.integrity == Integrity::None || got == content, "bit {bit}");
            }
        }
    }
}

#[test]
fn failed_streams_stay_failed() {
    let mut file = seal(&literal(CONTENT));
    *file.last_mut().expect("byte") ^= 1;
    let keyring = keyring(&["p"]);
    match keyring.decrypt(Cursor::new(file), "x") {
        Err(e) => assert!(matches!(e.kind, PgpErrorKind::Modified(_))),
        Ok(mut stream) => {
            let mut out = Vec::new();
            stream.read_to_end(&mut out).expect_err("modified");
            stream.read_to_end(&mut out).expect_err("still");
            stream.finish().expect_err("still");
        }
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), at in 0usize..200, sealed: bool) {
        let keyring = keyring(&["p"]);
        if sealed {
            // Any packets at all inside a container that is right.
            if let Ok((_, report)) = open(&keyring, &seal(&bytes)) {
                prop_assert_eq!(report.integrity, Integrity::Mdc);
            }
            return Ok(());
        }
        let mut file = seal(&literal(CONTENT));
        let at = at.min(file.len());
        file.splice(at..file.len().min(at + bytes.len()), bytes);
        if let Ok((content, _)) = open(&keyring, &file) {
            prop_assert_eq!(content, CONTENT);
        }
    }

    #[test]
    fn any_content_survives(content in proptest::collection::vec(any::<u8>(), 0..5000), chunks in proptest::collection::vec(1usize..70_000, 1..20)) {
        let many = content.repeat(chunks.len() * 3);
        let file = seal_large(&many);
        let mut stream = Keyring::decrypt(&keyring(&["p"]), Cursor::new(file), "x").expect("opens");
        let mut got: Vec<u8> = Vec::new();
        for size in chunks.iter().cycle() {
            let mut part = vec![0; *size];
            let n = stream.read(&mut part).expect("reads");
            if n == 0 {
                break;
            }
            got.extend(&part[..n]);
        }
        prop_assert!(got == many);
        prop_assert_eq!(stream.finish().expect("whole").integrity, Integrity::Mdc);
    }
}

/// As [`seal`], in partial lengths of 512 bytes.
pub(super) fn seal_large(content: &[u8]) -> Vec<u8> {
    let whole = seal(&literal(content));
    let body = &whole[skesk().len() + 6..];
    let mut file = skesk();
    file.push(0xc0 | 18);
    let pieces = body.chunks_exact(512);
    let rest = pieces.remainder();
    for piece in pieces {
        file.push(224 + 9);
        file.extend(piece);
    }
    file.push(0xff);
    file.extend(&packet(18, rest)[2..6]);
    file.extend(rest);
    file
}
