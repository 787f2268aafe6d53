//! Signatures that are right or wrong, by keys that are valid, expired, revoked or unknown.

use super::super::{Keyring, PgpErrorKind, Report, SignatureStatus};
use super::hostile::seal;
use super::real_gpg::Home;
use super::{keyring, open};

const SIGNER: &str = "%no-protection
Key-Type: EDDSA
Key-Curve: ed25519
Key-Usage: sign
Name-Email: signer@test.invalid
";
const THEN: &str = "20200601T120000";

/// A home with a signing key of the year 2020, which ends when `expiry` says.
fn home(expiry: &str) -> Option<Home> {
    let home = Home::new()?;
    let parameters = format!("{SIGNER}Expire-Date: {expiry}\n%commit\n");
    home.gpg(&["--faked-system-time", "20200101T120000", "--generate-key"], parameters.as_bytes());
    Some(home)
}

/// Signed in 2020, then encrypted with pass phrase "p".
fn signed_then(home: &Home) -> Vec<u8> {
    let options = ["--faked-system-time", THEN, "--compress-algo", "none", "-u", "signer@test.invalid", "--sign"];
    home.gpg(&options, b"content of old")
}

fn with_public_keys(home: &Home) -> Keyring {
    let mut keyring = keyring(&["p"]);
    keyring.add_keys(&home.gpg(&["--export"], b""), "public").expect("keys");
    keyring
}

fn status(report: &Report) -> SignatureStatus {
    let [signature] = &report.signatures[..] else { panic!("one signature, not {:?}", report.signatures) };
    signature.status.clone()
}

/// Reported, and refused where a signature is required.
fn refused(report: &Report, signer: &str) -> String {
    let PgpErrorKind::NotSignedBy { found, .. } = report.require_signature(signer).expect_err("must be refused").kind else {
        panic!("another kind");
    };
    found
}

#[test]
fn valid_keys_sign() {
    let Some(home) = home("0") else { return };
    let (content, report) = open(&with_public_keys(&home), &seal(&signed_then(&home))).expect("opens");
    assert_eq!((&content[..], status(&report)), (&b"content of old"[..], SignatureStatus::Good));
    report.require_signature(&home.fingerprints("signer@test.invalid")[0]).expect("good");
}

#[test]
fn expired_keys_are_reported() {
    let Some(home) = home("2020-12-31") else { return };
    let (content, report) = open(&with_public_keys(&home), &seal(&signed_then(&home))).expect("opens");
    assert_eq!(content, b"content of old");
    assert!(matches!(status(&report), SignatureStatus::KeyInvalid(_)), "{report:?}");
    assert!(refused(&report, &home.fingerprints("signer@test.invalid")[0]).contains("valid no more"));
}

#[test]
fn revoked_keys_are_reported() {
    let Some(home) = home("0") else { return };
    let file = seal(&signed_then(&home));
    let fingerprint = home.fingerprints("signer@test.invalid").remove(0);
    let revocation = std::fs::read_to_string(home.path().join(format!("openpgp-revocs.d/{fingerprint}.rev"))).expect("file");
    home.gpg(&["--import"], revocation.replace(":-----BEGIN", "-----BEGIN").as_bytes());
    let (_, report) = open(&with_public_keys(&home), &file).expect("opens");
    assert!(matches!(status(&report), SignatureStatus::KeyInvalid(_) | SignatureStatus::Bad(_)), "{report:?}");
    refused(&report, &fingerprint);
}

#[test]
fn wrong_and_unknown_keys_are_reported() {
    let (Some(home), Some(other)) = (home("0"), home("0")) else { return };
    let file = seal(&signed_then(&home));
    let (wrong, right) = (other.fingerprints("signer@test.invalid"), home.fingerprints("signer@test.invalid"));
    let (_, report) = open(&with_public_keys(&home), &file).expect("opens");
    assert!(refused(&report, &wrong[0]).contains(&right[0]));
    let (_, report) = open(&with_public_keys(&other), &file).expect("opens");
    assert_eq!(status(&report), SignatureStatus::UnknownKey);
    refused(&report, &right[0]);
}

#[test]
fn altered_content_is_not_signed() {
    let Some(home) = home("0") else { return };
    let mut inner = signed_then(&home);
    let at = inner.windows(7).position(|w| w == b"content").expect("not packed");
    inner[at] = b'C';
    let (_, report) = open(&with_public_keys(&home), &seal(&inner)).expect("opens");
    assert!(matches!(status(&report), SignatureStatus::Bad(_)), "{report:?}");
    assert!(refused(&report, &home.fingerprints("signer@test.invalid")[0]).contains("is bad"));
}
