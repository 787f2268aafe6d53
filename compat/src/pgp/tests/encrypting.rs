//! What is encrypted here, opened by the gpg at hand and by the keyring.

use std::io::Write;

use super::super::{Compression, Encryption, Keyring, PgpErrorKind, Recipiency, SignatureStatus};
use super::real_gpg::Home;
use super::{keyring, open};

fn seal(encryption: &Encryption, content: &[u8]) -> Vec<u8> {
    let mut encryptor = encryption.encrypt(Vec::new()).expect("starts");
    // Pieces of odd sizes, so that they cross the parts of packets.
    for piece in content.chunks(10_007) {
        encryptor.write_all(piece).expect("writes");
    }
    encryptor.finish().expect("ends")
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from(i * i / 7 % 251).expect("small")).collect()
}

#[test]
fn every_length_comes_back() {
    let keyring = keyring(&["a phrase"]);
    for compression in [Compression::Zip, Compression::None] {
        let encryption = Encryption::symmetric(b"a phrase").compression(compression);
        for length in [0, 1, 511, 16_378, 16_379, 16_384, 32_768, 200_000] {
            let content = content(length);
            assert!(open(&keyring, &seal(&encryption, &content)).expect("opens").0 == content, "{length}");
        }
    }
}

#[test]
fn gpg_opens_what_a_pass_phrase_seals() {
    let Some(home) = Home::new() else { return };
    for compression in [Compression::Zip, Compression::None] {
        let sealed = seal(&Encryption::symmetric("ä phrase".as_bytes()).compression(compression), &content(100_000));
        assert!(home.gpg(&["--passphrase", "ä phrase", "--decrypt"], &sealed) == content(100_000));
        let packets = home.gpg(&["--passphrase", "ä phrase", "--list-packets"], &sealed);
        let packets = String::from_utf8_lossy(&packets).into_owned();
        assert!(packets.contains("mdc_method: 2"), "{packets}");
        assert_eq!(packets.contains(":compressed packet: algo=1"), compression == Compression::Zip, "{packets}");
    }
}

#[test]
fn gpg_opens_what_public_keys_seal() {
    let Some(home) = Home::with_keys() else { return };
    let public = home.gpg(&["--export"], b"");
    for (wanted, recipiency) in [
        ("one@test.invalid", Recipiency::Named),
        ("two@TEST", Recipiency::Hidden),
        (&home.fingerprints("two@test.invalid")[0][24..], Recipiency::Named),
        (&format!("0x{}", home.fingerprints("nist@test.invalid")[1].to_lowercase()), Recipiency::Hidden),
    ] {
        let mut encryption = Encryption::public();
        encryption.add_recipient(&public, wanted, recipiency).expect("a key");
        let sealed = seal(&encryption, &content(50_000));
        assert!(home.gpg(&["--passphrase", "keypass", "--decrypt"], &sealed) == content(50_000), "{wanted}");
        let mut keyring = Keyring::new();
        keyring.add_passphrase(&b"keypass"[..]);
        for user in ["one@", "two@", "nist@"] {
            keyring.add_keys(&home.secret(user), user).expect("keys");
        }
        assert!(open(&keyring, &sealed).expect("opens").0 == content(50_000), "{wanted}");
        let packets = home.gpg(&["--passphrase", "keypass", "--list-packets"], &sealed);
        let is_hidden = String::from_utf8_lossy(&packets).contains("keyid 0000000000000000");
        assert_eq!(is_hidden, recipiency == Recipiency::Hidden);
    }
}

#[test]
fn gpg_believes_the_signature() {
    let Some(home) = Home::with_keys() else { return };
    for (user, phrases) in [("one@test.invalid", &[][..]), ("two@test.invalid", &[&b"wrong"[..], b"keypass"])] {
        let mut encryption = Encryption::symmetric(b"p");
        encryption.sign_with(&home.secret(user), user, phrases).expect("signs");
        assert_eq!(encryption.signer().as_deref(), Some(&*home.fingerprints(user)[0]));
        let sealed = seal(&encryption, &content(70_000));
        let status = home.gpg(&["--passphrase", "p", "--status-fd", "1", "--output", "/dev/null", "--decrypt"], &sealed);
        let status = String::from_utf8_lossy(&status).into_owned();
        assert!(status.contains("GOODSIG") && status.contains("DECRYPTION_OKAY"), "{status}");
        let mut keyring = keyring(&["p"]);
        keyring.add_keys(&home.gpg(&["--export"], b""), "public").expect("keys");
        let (_, report) = open(&keyring, &sealed).expect("opens");
        assert_eq!(report.signatures[0].status, SignatureStatus::Good);
    }
}

#[test]
fn keys_that_cannot_are_refused() {
    let Some(home) = Home::with_keys() else { return };
    let (public, secret) = (home.gpg(&["--export"], b""), home.secret("two@"));
    let why = |result: Result<(), super::super::PgpError>| match result.expect_err("refused").kind {
        PgpErrorKind::NoUsableKey(why) => why,
        other => panic!("{other}"),
    };
    let mut encryption = Encryption::public();
    assert_eq!(why(encryption.add_recipient(&public, "nobody", Recipiency::Named)), "there is no such key");
    assert_eq!(why(encryption.add_recipient(&public, "0123456789ABCDEF", Recipiency::Named)), "there is no such key");
    assert!(why(encryption.sign_with(&public, "two@", &[])).starts_with("it has no secret part"));
    assert!(why(encryption.sign_with(&secret, "two@", &[b"wrong"])).starts_with("none of the pass phrases"));
    assert!(encryption.encrypt(Vec::new()).is_err());
    let mut symmetric = Encryption::symmetric(b"p");
    assert!(why(symmetric.add_recipient(&public, "two@", Recipiency::Named)).contains("pass phrase"));
}
