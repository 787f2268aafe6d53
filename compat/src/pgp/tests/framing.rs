//! Containers and armour that are not what they should be.

use std::io::{Cursor, Read};

use sequoia_openpgp::armor::{Kind, Writer};

use super::super::esk::packet;
use super::super::{Integrity, PgpErrorKind};
use super::hostile::{CONTENT, encrypt, kind, literal, seal, seal_bare, seal_large, skesk};
use super::{keyring, open};

/// Packet 18 around content that has no modification detection code.
fn seal_without_code(inner: &[u8]) -> Vec<u8> {
    let plain = [&[7; 14][..], &[1, 2, 1, 2], inner].concat();
    [skesk(), packet(18, &[&[1], &encrypt(&plain)[..]].concat())].concat()
}

#[test]
fn a_missing_code_is_refused() {
    for content in [CONTENT.to_vec(), CONTENT.repeat(10_000), b"x".to_vec()] {
        assert!(matches!(kind(&seal_without_code(&literal(&content))), PgpErrorKind::Modified(_)), "{}", content.len());
    }
}

#[test]
fn protection_cannot_be_taken_off_unseen() {
    // The same ciphertext as a packet that has no protection, as in EFAIL. The other arrangement of blocks garbles it; what an
    // attacker could make of it nevertheless is at least reported.
    for n in 0..32 {
        let content = CONTENT.repeat(n);
        let file = seal(&literal(&content));
        let body = &file[skesk().len() + 6 + 1..];
        if let Ok((got, report)) = open(&keyring(&["p"]), &[skesk(), packet(9, body)].concat()) {
            assert!(report.integrity == Integrity::None && got != content, "{n}");
        }
    }
    let bare = seal_bare(&literal(CONTENT));
    let body = &bare[skesk().len() + 6..];
    open(&keyring(&["p"]), &[skesk(), packet(18, &[&[1], body].concat())].concat()).expect_err("and the other way");
    let (_, report) = open(&keyring(&["p"]), &bare).expect("opens");
    assert_eq!(report.integrity, Integrity::None);
}

#[test]
fn a_wrong_code_gives_no_content_to_those_who_finish_first() {
    let keyring = keyring(&["p"]);
    let mut file = seal(&literal(CONTENT));
    *file.last_mut().expect("byte") ^= 1;
    let mut got = Vec::new();
    // A short message is checked before any of it is given out.
    let failed = match keyring.decrypt(Cursor::new(file), "x") {
        Err(e) => e.kind,
        Ok(mut stream) => stream.read_to_end(&mut got).expect_err("modified").downcast::<super::PgpError>().expect("kind").kind,
    };
    assert!(matches!(failed, PgpErrorKind::Modified(_)) && got.is_empty());
    let mut long = seal_large(&CONTENT.repeat(50_000));
    let middle = long.len() / 2;
    long[middle] ^= 1;
    let failed = keyring.decrypt(Cursor::new(long), "x").expect("starts").finish().expect_err("modified");
    assert!(matches!(failed.kind, PgpErrorKind::Modified(_)));
}

#[test]
fn announced_lengths_cost_nothing() {
    let started = std::time::Instant::now();
    let ten = [7; 10];
    // A partial length of 2^30, then definite ones of 4 GiB.
    for tag in [9u8, 18, 20] {
        let partial = [&skesk()[..], &[0xc0 | tag, 224 + 30], &ten].concat();
        assert!(
            matches!(kind(&partial), PgpErrorKind::Truncated | PgpErrorKind::Modified(_) | PgpErrorKind::Unsupported(_)),
            "{tag}"
        );
        let definite = [&skesk()[..], &[0xc0 | tag, 0xff, 0xff, 0xff, 0xff, 0xff], &ten].concat();
        assert!(
            matches!(kind(&definite), PgpErrorKind::Truncated | PgpErrorKind::Modified(_) | PgpErrorKind::Unsupported(_)),
            "{tag}"
        );
    }
    for tag in [1u8, 3, 10, 21, 60] {
        assert!(matches!(kind(&[&[0xc0 | tag, 224 + 30], &ten[..]].concat()), PgpErrorKind::NotOpenPgp(_)), "{tag}");
        assert!(
            matches!(kind(&[&[0xc0 | tag, 0xff, 0xff, 0xff, 0xff, 0xff], &ten[..]].concat()), PgpErrorKind::Bomb(_)),
            "{tag}"
        );
    }
    // The same inside the container: literal data that announces a GiB.
    for length in [&[224 + 30][..], &[0xff, 0x40, 0, 0, 0]] {
        let inner = [&[0xc0 | 11], length, b"b\0\0\0\0\0", &ten].concat();
        assert!(matches!(kind(&seal(&inner)), PgpErrorKind::Modified(_)));
        let failed = kind(&seal_bare(&inner));
        assert!(matches!(failed, PgpErrorKind::Truncated | PgpErrorKind::Modified(_)), "{failed:?}");
    }
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}

#[test]
fn unknown_packets_are_treated_as_the_rfc_says() {
    let keyring = keyring(&["p"]);
    let ignored = [packet(10, b"PGP"), packet(21, &[0; 9]), packet(40, b"new"), packet(63, b"private")].concat();
    let around = [&ignored[..], &seal(&literal(CONTENT))].concat();
    assert_eq!(open(&keyring, &around).expect("opens").0, CONTENT);
    let inside = seal(&[literal(CONTENT), packet(60, b"private")].concat());
    assert_eq!(open(&keyring, &inside).expect("opens").0, CONTENT);
    for tag in [0u8, 5, 6, 12, 13, 16, 19, 22, 39] {
        let around = [&packet(tag, b"critical")[..], &seal(&literal(CONTENT))].concat();
        assert!(matches!(kind(&around), PgpErrorKind::NotOpenPgp(_)), "{tag}");
        let inside = seal(&[literal(CONTENT), packet(tag, b"critical")].concat());
        assert!(matches!(kind(&inside), PgpErrorKind::Modified(_)), "{tag}");
    }
}

#[test]
fn unknown_versions_are_refused_or_passed_over() {
    let message = seal(&literal(CONTENT));
    let data = &message[skesk().len()..];
    // Versions of the packets that hold keys: others may open the message.
    for version in [0u8, 1, 6, 7, 255] {
        let unknown = packet(3, &[&[version], &[9; 40][..]].concat());
        let both = [&unknown[..], &message].concat();
        assert_eq!(open(&keyring(&["p"]), &both).expect("opens").0, CONTENT);
        assert!(matches!(kind(&[&unknown[..], data].concat()), PgpErrorKind::Unsupported(_)), "{version}");
    }
    // Versions of the data.
    for (tag, version) in [(18u8, 0u8), (18, 2), (18, 3), (18, 255), (20, 0), (20, 2)] {
        let file = [skesk(), packet(tag, &[&[version], &[9; 80][..]].concat())].concat();
        assert!(matches!(kind(&file), PgpErrorKind::Unsupported(_) | PgpErrorKind::Modified(_)), "{tag} {version}");
    }
}

#[test]
fn argon2_of_terabytes_is_refused() {
    for (passes, memory) in [(1, 32), (1, 255), (255, 10)] {
        let spec = [&[4, 9, 4][..], &[5; 16], &[passes, 4, memory]].concat();
        let file = [packet(3, &spec), seal(&literal(CONTENT))[skesk().len()..].to_vec()].concat();
        assert!(matches!(kind(&file), PgpErrorKind::Bomb(_)), "{passes} {memory}");
    }
}

#[test]
fn names_in_the_message_mean_nothing() {
    let dir = tempfile::tempdir().expect("folder");
    let name = dir.path().join("../x").to_string_lossy().into_owned();
    let inner = [&[b'b', u8::try_from(name.len()).expect("short")], name.as_bytes(), &[0; 4], CONTENT].concat();
    let (content, _) = open(&keyring(&["p"]), &seal(&packet(11, &inner))).expect("opens");
    assert_eq!(content, CONTENT);
    assert!(!std::path::Path::new(&name).exists());
}

fn armoured(file: &[u8], headers: &[(&str, &str)]) -> String {
    let mut writer = Writer::with_headers(Vec::new(), Kind::Message, headers.to_vec()).expect("armour");
    std::io::Write::write_all(&mut writer, file).expect("armour");
    String::from_utf8(writer.finalize().expect("armour")).expect("text")
}

#[test]
fn armour_is_taken_off() {
    let text = armoured(&seal(&literal(CONTENT)), &[("Version", "GnuPG v1"), ("Comment", "a: b")]);
    for text in [text.clone(), text.replace('\n', "\r\n"), format!("\n\r\n{text}\n \n"), text.replace('\n', " \t\n")] {
        assert_eq!(open(&keyring(&["p"]), text.as_bytes()).expect("opens").0, CONTENT);
    }
    for end in 0..text.trim_end().len() {
        open(&keyring(&["p"]), &text.as_bytes()[..end]).expect_err("a part of it");
    }
}

#[test]
fn odd_armour_is_refused() {
    let text = armoured(&seal(&literal(CONTENT)), &[("Comment", "x")]);
    let odd = |from: &str, to: &str| {
        assert!(text.contains(from));
        kind(text.replacen(from, to, 1).as_bytes())
    };
    for injected in ["Comment: a\x0cb", "Comment: \x1b[2J", "no header", ": x", "Com ment: x", "\x0c", "Comment: \u{85}"] {
        assert!(matches!(odd("Comment: x", injected), PgpErrorKind::Modified(_)), "{injected:?}");
    }
    assert!(matches!(odd("-----END", "\x0c\n-----END"), PgpErrorKind::Modified(_)));
    assert!(matches!(odd("-----END", "Comment: y\n-----END"), PgpErrorKind::Modified(_)));
    assert!(matches!(odd("-----BEGIN PGP MESSAGE-----", "-----BEGIN PGP MESSAGE-----\x0c"), PgpErrorKind::NotOpenPgp(_)));
    assert!(matches!(odd("-----BEGIN", "\nhello\n-----BEGIN"), PgpErrorKind::NotOpenPgp(_)));
    assert!(matches!(kind(format!("{text}{text}").as_bytes()), PgpErrorKind::Modified(_)));
    assert!(matches!(kind(format!("{text}x").as_bytes()), PgpErrorKind::Modified(_)));
    let headers = "Comment: x\n".repeat(100);
    assert!(matches!(odd("Comment: x\n", &headers), PgpErrorKind::Modified(_)));
    assert!(matches!(odd("Comment: x", &format!("Comment: {}", "x".repeat(1 << 20))), PgpErrorKind::Bomb(_)));
}
