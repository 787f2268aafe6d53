//! Messages made by the gpg at hand, in homes of their own. All are skipped, with a word about it, where there is no gpg.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::super::{Integrity, Keyring, PgpErrorKind, SignatureStatus};
use super::{keyring, open};

/// Two keys: one of curves without a pass phrase, one of RSA with the pass phrase "keypass".
const KEYS: &str = "%no-protection
Key-Type: EDDSA
Key-Curve: ed25519
Key-Usage: sign
Subkey-Type: ECDH
Subkey-Curve: cv25519
Subkey-Usage: encrypt
Name-Email: one@test.invalid
Expire-Date: 0
%commit
%no-protection
Key-Type: ECDSA
Key-Curve: nistp256
Key-Usage: sign
Subkey-Type: ECDH
Subkey-Curve: nistp384
Subkey-Usage: encrypt
Name-Email: nist@test.invalid
Expire-Date: 0
%commit
";
const LOCKED: &str = "Key-Type: RSA
Key-Length: 2048
Key-Usage: sign
Subkey-Type: RSA
Subkey-Length: 2048
Subkey-Usage: encrypt
Name-Email: two@test.invalid
Expire-Date: 0
Passphrase: keypass
%commit
";

/// A GnuPG home; its agent ends with it. The path has to be short: sockets are in it.
pub(super) struct Home(TempDir);

impl Home {
    pub(super) fn new() -> Option<Self> {
        if Command::new("gpg").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("skipped: gpg is not installed");
            return None;
        }
        let home = Self(tempfile::Builder::new().prefix("g").tempdir_in("/tmp").expect("home"));
        std::fs::write(home.path().join("gpg-agent.conf"), "allow-loopback-pinentry\npinentry-program /bin/false\n")
            .expect("conf");
        Some(home)
    }

    pub(super) fn with_keys() -> Option<Self> {
        let home = Self::new()?;
        home.gpg(&["--generate-key"], KEYS.as_bytes());
        home.gpg(&["--generate-key"], LOCKED.as_bytes());
        Some(home)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn gpg(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let mut gpg = Command::new("gpg")
            .args(["--batch", "-q", "--pinentry-mode", "loopback", "--trust-model", "always", "--homedir"])
            .arg(self.path())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("gpg");
        let mut stdin = gpg.stdin.take().expect("stdin");
        let output = std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input));
            gpg.wait_with_output().expect("gpg")
        });
        assert!(output.status.success(), "gpg {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    pub(super) fn secret(&self, user: &str) -> Vec<u8> {
        self.gpg(&["--passphrase", "keypass", "--export-secret-keys", user], b"")
    }

    pub(super) fn fingerprints(&self, user: &str) -> Vec<String> {
        let listed = String::from_utf8(self.gpg(&["--with-colons", "--list-keys", user], b"")).expect("text");
        listed.lines().filter(|l| l.starts_with("fpr:")).filter_map(|l| l.split(':').nth(9)).map(str::to_owned).collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").arg("--homedir").arg(self.path()).args(["--kill", "all"]).status();
    }
}

fn content() -> Vec<u8> {
    let lines = (0..40_000u32).map(|i| format!("line {i} {}\n", i.wrapping_mul(2_654_435_761)));
    lines.collect::<String>().into_bytes()
}

#[test]
fn all_ciphers_and_compressions() {
    let Some(home) = Home::new() else { return };
    let (content, keyring) = (content(), keyring(&["wrong", "secret"]));
    let ciphers = ["3DES", "CAST5", "AES", "AES192", "AES256", "TWOFISH", "CAMELLIA128", "CAMELLIA192", "CAMELLIA256", "IDEA"];
    let packing = ["none", "zip", "zlib", "bzip2"];
    let digests = ["SHA1", "SHA256", "SHA512", "RIPEMD160"];
    for (i, cipher) in ciphers.iter().enumerate() {
        let (pack, digest) = (packing[i % packing.len()], digests[i % digests.len()]);
        let options = ["--s2k-count", "65536", "--cipher-algo", cipher, "--compress-algo", pack, "--s2k-digest-algo", digest];
        let how = ["--passphrase", "secret", "--force-mdc", "--symmetric"];
        let file = home.gpg(&[&options[..], &how].concat(), &content);
        let (got, report) = open(&keyring, &file).unwrap_or_else(|e| panic!("{cipher} {pack}: {e}"));
        assert!(got == content && report.integrity == Integrity::Mdc, "{cipher} {pack}");
    }
    let file = home.gpg(&["--passphrase", "secret", "--cipher-algo", "BLOWFISH", "--symmetric"], &content);
    assert!(matches!(open(&keyring, &file).expect_err("unusable").kind, PgpErrorKind::Unsupported(_)));
    for level in ["0", "1", "3"] {
        let file = home.gpg(&["--s2k-mode", level, "--armor", "--passphrase", "secret", "--symmetric"], &content);
        assert!(open(&keyring, &file).expect("opens").0 == content, "key stretching {level}, armoured");
    }
}

#[test]
fn recipients_and_signatures() {
    let Some(home) = Home::with_keys() else { return };
    let content = content();
    let (one, two, nist) = ("one@test.invalid", "two@test.invalid", "nist@test.invalid");
    let all = home.gpg(&["-r", one, "-r", two, "-r", nist, "-e"], &content);
    let hidden = home.gpg(&["-R", one, "-R", two, "-R", nist, "-e"], &content);
    let mixed = home.gpg(&["-r", one, "--passphrase", "secret", "-c", "-e"], &content);
    let pass = ["--passphrase", "keypass"];
    let signed = home.gpg(&[&pass[..], &["-u", two, "-u", one, "-r", one, "-s", "-e"]].concat(), &content);
    for user in [one, two, nist] {
        let mut keyring = keyring(&["keypass"]);
        assert!(keyring.add_keys(&home.secret(user), user).expect("keys") > 0);
        for file in [&all, &hidden] {
            assert!(open(&keyring, file).unwrap_or_else(|e| panic!("{user}: {e}")).0 == content);
        }
    }
    let mut with_key = keyring(&[]);
    with_key.add_keys(&home.secret(one), one).expect("keys");
    for keyring in [&with_key, &keyring(&["secret"])] {
        assert!(open(keyring, &mixed).expect("opens").0 == content);
    }
    assert!(matches!(open(&keyring(&["keypass"]), &mixed).expect_err("none").kind, PgpErrorKind::WrongPassphrase { tried: 1 }));
    let PgpErrorKind::NoSecretKey { wanted } = open(&keyring(&[]), &all).expect_err("none").kind else { panic!("no key") };
    assert_eq!(wanted.len(), 3);
    // The signers: one is known by its secret key, the other not yet.
    let fingerprint = |user| home.fingerprints(user).remove(0);
    let (_, report) = open(&with_key, &signed).expect("opens");
    let status = |user| report.signatures.iter().find(|s| s.key == fingerprint(user)).map(|s| s.status.clone());
    assert_eq!((status(one), status(two)), (Some(SignatureStatus::Good), Some(SignatureStatus::UnknownKey)));
    report.require_signature(&fingerprint(one)).expect("good");
    report.require_signature(&format!("0x{}", &fingerprint(one).to_lowercase()[24..])).expect("good, by long id");
    report.require_signature(&fingerprint(one)[32..]).expect_err("short ids match nothing");
    report.require_signature(&fingerprint(two)).expect_err("not known");
    with_key.add_keys(&home.gpg(&["--armor", "--export", two], b""), two).expect("keys");
    open(&with_key, &signed).expect("opens").1.require_signature(&fingerprint(two)).expect("good");
}

#[test]
fn old_signatures_of_sha1_are_good() {
    let Some(home) = Home::with_keys() else { return };
    let options =
        ["--passphrase", "keypass", "--digest-algo", "SHA1", "-u", "two@test.invalid", "-r", "one@test.invalid", "-s", "-e"];
    let file = home.gpg(&options, b"content");
    let mut keyring = keyring(&[]);
    keyring.add_keys(&home.secret("one@test.invalid"), "one").expect("keys");
    keyring.add_keys(&home.gpg(&["--export"], b""), "public").expect("keys");
    let (_, report) = open(&keyring, &file).expect("opens");
    report.require_signature(&home.fingerprints("two@test.invalid")[0]).expect("good");
}

#[test]
fn keys_of_the_agent() {
    let Some(home) = Home::with_keys() else { return };
    let content = content();
    let options = ["--passphrase", "keypass", "-u", "two@test.invalid", "-s", "-e"];
    let encrypt = |to: &[&str]| home.gpg(&[&options[..], to].concat(), &content);
    let agent = |phrases: &[&str]| {
        let mut keyring = keyring(phrases);
        keyring.use_gnupg(Some(home.path()));
        keyring
    };
    for to in [["-r", "one@test.invalid"], ["-R", "nist@test.invalid"]] {
        let (got, report) = open(&agent(&[]), &encrypt(&to)).expect("opens");
        assert!(got == content);
        report.require_signature(&home.fingerprints("two@test.invalid")[0]).expect("by the public keys of the home");
    }
    let locked = encrypt(&["-r", "two@test.invalid"]);
    Command::new("gpgconf").arg("--homedir").arg(home.path()).args(["--kill", "gpg-agent"]).status().expect("gpgconf");
    for phrases in [&[][..], &["wrong"]] {
        let e = open(&agent(phrases), &locked).expect_err("locked");
        assert!(matches!(e.kind, PgpErrorKind::Agent(_)), "{e}");
    }
    assert!(open(&agent(&["wrong", "keypass"]), &locked).expect("opens").0 == content);
    // Now the agent remembers.
    assert!(open(&agent(&[]), &locked).expect("opens").0 == content);
    let other = Home::new().expect("gpg");
    let mut empty = Keyring::new();
    empty.use_gnupg(Some(other.path()));
    assert!(matches!(open(&empty, &locked).expect_err("none").kind, PgpErrorKind::NoSecretKey { wanted } if wanted.len() == 1));
}
