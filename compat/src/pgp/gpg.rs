//! The user's own gpg: it has the session keys decrypted by its agent or card, and knows public keys.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use sequoia_openpgp::crypto::{Password, SessionKey};
use sequoia_openpgp::types::SymmetricAlgorithm;
use zeroize::Zeroize;

use super::error::PgpErrorKind;
use super::esk::{Candidate, packet};

/// A GnuPG home and the gpg that is installed.
///
/// gpg gets the recipient packets of a file and gives back the session key; it never sees the content. So whatever it can do is
/// there: agents of any version, smart cards, pinentry windows, kinds of keys that nothing else here knows.
#[derive(Clone, Debug)]
pub(super) struct Gnupg {
    home: Option<PathBuf>,
}

/// Why gpg gave no session key.
enum Refusal {
    NoSecretKey,
    Locked(String),
    Other(String),
}

impl Gnupg {
    /// `home` of `None` is gpg's own choice: `$GNUPGHOME`, or `~/.gnupg`.
    pub(super) fn new(home: Option<&Path>) -> Self {
        Self { home: home.map(Path::to_owned) }
    }

    fn command(&self) -> Command {
        let mut gpg = Command::new("gpg");
        if let Some(home) = &self.home {
            gpg.arg("--homedir").arg(home);
        }
        gpg.args(["--batch", "--no-tty", "--no-secmem-warning", "--no-auto-check-trustdb"]).env("LC_ALL", "C");
        gpg
    }

    /// The session key out of the recipient packets `pkesks`. Each pass phrase is offered to a locked key; the last try is without
    /// one, so that the agent may ask for it. `Ok(None)` means that gpg has none of the secret keys.
    pub(super) fn session_key(&self, pkesks: &[u8], passphrases: &[&Password]) -> Result<Option<Candidate>, PgpErrorKind> {
        let tries = passphrases.iter().copied().map(Some).chain([None]);
        let mut last = None;
        for phrase in tries {
            match self.try_session_key(pkesks, phrase) {
                Ok(candidate) => return Ok(Some(candidate)),
                Err(Refusal::NoSecretKey) => return Ok(None),
                Err(Refusal::Other(detail)) => return Err(PgpErrorKind::Agent(detail)),
                Err(Refusal::Locked(detail)) => last = Some(detail),
            }
        }
        Err(PgpErrorKind::Agent(last.unwrap_or_default()))
    }

    fn try_session_key(&self, pkesks: &[u8], phrase: Option<&Password>) -> Result<Candidate, Refusal> {
        // gpg looks at recipients only before data; these few bytes are no real data, so it fails after it showed the key.
        let data = packet(18, &[&[1], &[0; 40][..]].concat());
        let mut input = Vec::new();
        let mut gpg = self.command();
        if let Some(phrase) = phrase {
            gpg.args(["--pinentry-mode", "loopback", "--passphrase-fd", "0"]);
            phrase.map(|bytes| input.extend_from_slice(bytes));
            input.push(b'\n');
        }
        input.extend_from_slice(pkesks);
        input.extend_from_slice(&data);
        gpg.args(["--status-fd", "2", "--show-session-key", "--decrypt"]);
        let result = run(gpg, &input);
        input.zeroize();
        let mut output = result.map_err(Refusal::Other)?;
        let answer = read_status(&output.stderr);
        output.stderr.zeroize();
        answer
    }

    /// The public certificate of a key id or fingerprint, in hexadecimal; empty if there is none.
    pub(super) fn export(&self, key: &str) -> Vec<u8> {
        let mut gpg = self.command();
        gpg.args(["--export", "--", &format!("0x{key}")]);
        run(gpg, &[]).map(|output| output.stdout).unwrap_or_default()
    }
}

impl Gnupg {
    /// The public certificates of whatever gpg takes for the name of a key; empty if there are none.
    pub(super) fn export_any(&self, key: &str) -> Vec<u8> {
        let mut gpg = self.command();
        gpg.args(["--export", "--", key]);
        run(gpg, &[]).map(|output| output.stdout).unwrap_or_default()
    }

    /// The secret keys, still locked, of whatever gpg takes for the name of a key; empty if there are none.
    pub(super) fn export_secret(&self, key: &str, passphrase: &[u8]) -> Vec<u8> {
        let mut gpg = self.command();
        gpg.args(["--pinentry-mode", "loopback", "--passphrase-fd", "0", "--export-secret-keys", "--", key]);
        let mut input = [passphrase, b"\n"].concat();
        let exported = run(gpg, &input).map(|output| output.stdout).unwrap_or_default();
        input.zeroize();
        exported
    }
}

fn run(mut gpg: Command, input: &[u8]) -> Result<Output, String> {
    gpg.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child: Child = gpg.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => "gpg is not installed".to_owned(),
        _ => format!("cannot start gpg: {e}"),
    })?;
    let stdin = child.stdin.take();
    // A gpg that ends without reading all is judged by what it says.
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
        child.wait_with_output().map_err(|e| format!("cannot run gpg: {e}"))
    })
}

/// What the status and log lines say.
fn read_status(stderr: &[u8]) -> Result<Candidate, Refusal> {
    let mut text = String::from_utf8_lossy(stderr).into_owned();
    let key = text.lines().find_map(|l| l.strip_prefix("[GNUPG:] SESSION_KEY ")).and_then(parse_session_key);
    let status = |word: &str| text.lines().any(|l| l.strip_prefix("[GNUPG:] ").is_some_and(|l| l.starts_with(word)));
    let said = || {
        let said = text.lines().rev().filter_map(|l| l.strip_prefix("gpg: "));
        let telling = said.clone().find(|l| l.contains("public key decryption failed"));
        telling.or_else(|| said.into_iter().next()).unwrap_or("it said nothing").to_owned()
    };
    let answer = match key {
        Some(candidate) => Ok(candidate),
        None if status("NO_SECKEY") && !text.contains("public key decryption failed") => Err(Refusal::NoSecretKey),
        None if text.contains("public key decryption failed") => Err(Refusal::Locked(said())),
        None => Err(Refusal::Other(said())),
    };
    text.zeroize();
    answer
}

/// `9:` and the key in hexadecimal.
fn parse_session_key(text: &str) -> Option<Candidate> {
    let (algo, hex) = text.trim().split_once(':')?;
    let mut key = Vec::with_capacity(hex.len() / 2);
    for pair in hex.as_bytes().chunks(2) {
        key.push(u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?);
    }
    Some(Candidate { algo: Some(SymmetricAlgorithm::from(algo.parse::<u8>().ok()?)), key: SessionKey::from(key) })
}
