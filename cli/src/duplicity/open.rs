//! The archive, keys and pass phrases that a command line asks for.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use compat::dropin::log::Log;
use compat::dropin::options::{Action, Options};
use compat::dropin::{Cache, Context, Failure, Result, code};
use compat::export::Sealing;

use compat::import::Archive;
use compat::pgp::{Compression, Encryption, Keyring, Recipiency, gnupg_fingerprint, gnupg_public_keys, gnupg_secret_keys};
use compat::time::Time;
use zeroize::Zeroizing;

type Phrase = Zeroizing<Vec<u8>>;

/// Opens everything; nothing of the archive is looked at yet.
pub fn context(options: Options, action: &Action, log: &Arc<Log>, cancelled: &Arc<AtomicBool>, now: Time) -> Result<Context> {
    let location = transport::parse(action.url()).map_err(|error| Failure::new(code::USER, error.to_string()))?;
    let target = transport::open_target(&location, &transport_options(&options))?;
    let gpg = Gpg::new(&options, log);
    let phrases = Phrases::new(&options, action)?;
    let mut keyring = Keyring::new();
    phrases.all().for_each(|phrase| keyring.add_passphrase(phrase.to_vec()));
    keyring.use_gnupg(gpg.home.as_deref());
    let required_signer = match (&options.sign_key, action) {
        (Some(key), Action::Restore(..) | Action::Verify(..)) if options.encryption => {
            let unknown =
                || Failure::new(code::SIGNATURE, format!("the key {key} that must have signed is not in gpg's keyring"));
            Some(gnupg_fingerprint(gpg.home.as_deref(), key).ok_or_else(unknown)?)
        }
        _ => None,
    };
    let store = Arc::clone(&target) as Arc<dyn compat::store::Store>;
    let archive = Archive { store, prefixes: options.prefixes.clone(), keyring: Arc::new(keyring), required_signer };
    let cache = Cache::new(&archive_dir(&options)?, options.name.as_deref(), action.url(), &options.prefixes);
    let sealing = if action.is_backup() { sealing(&options, &gpg, &phrases)? } else { Sealing::Plain };
    let (target, url) = (Some(target), action.url().to_owned());
    Ok(Context { options, log: Arc::clone(log), archive, target, sealing, cache, url, now, cancelled: Arc::clone(cancelled) })
}

fn transport_options(options: &Options) -> transport::Options {
    let defaults = transport::Options::from_environment();
    let password = defaults
        .password
        .clone()
        .or_else(|| variable("BACKEND_PASSWORD").and_then(|phrase| String::from_utf8(phrase.to_vec()).ok().map(Zeroizing::new)));
    transport::Options {
        password,
        s3_endpoint: options.s3_endpoint.clone(),
        s3_region: options.s3_region.clone(),
        s3_unencrypted: options.s3_unencrypted,
        s3_storage_class: options.s3_class.map(str::to_owned),
        ssh_arguments: options.ssh_options.clone(),
        ca_file: options.ca_file.clone(),
        pause: options.timeout.map_or(defaults.pause, Duration::from_secs),
        attempts: options.num_retries.unwrap_or(defaults.attempts).max(1),
        ..defaults
    }
}

/// The folder of all local caches.
fn archive_dir(options: &Options) -> Result<PathBuf> {
    if let Some(folder) = &options.archive_dir {
        return Ok(folder.clone());
    }
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    let none = || Failure::new(code::ARCHIVE_DIR, "neither HOME nor --archive-dir says where the archive directory is");
    Ok(base.ok_or_else(none)?.join("duplicity"))
}

/// How the files of a backup are wrapped.
fn sealing(options: &Options, gpg: &Gpg, phrases: &Phrases) -> Result<Sealing> {
    match (options.encryption, options.compression) {
        (false, true) => return Ok(Sealing::Gzip),
        (false, false) => return Ok(Sealing::Plain),
        _ => {}
    }
    let home = gpg.home.as_deref();
    let named = options.encrypt_keys.iter().map(|key| (key, Recipiency::Named));
    let keys: Vec<_> = named.chain(options.hidden_encrypt_keys.iter().map(|key| (key, Recipiency::Hidden))).collect();
    let mut encryption = match (keys.is_empty(), &phrases.main) {
        (false, _) => Encryption::public(),
        (true, Some(phrase)) => Encryption::symmetric(phrase),
        (true, None) => {
            let text = "no pass phrase to encrypt with: set PASSPHRASE, or give --encrypt-key or --no-encryption";
            return Err(Failure::new(code::EXCEPTION, text));
        }
    };
    for (key, recipiency) in keys {
        let added = encryption.add_recipient(&gnupg_public_keys(home, key), key, recipiency);
        added.map_err(|error| Failure::new(code::ENCRYPT_KEY, error.to_string()))?;
    }
    if let Some(key) = &options.sign_key {
        let all: Vec<&[u8]> = phrases.sign.iter().chain(&phrases.main).map(|phrase| &phrase[..]).collect();
        let exported = all.iter().map(|phrase| gnupg_secret_keys(home, key, phrase)).find(|keys| !keys.is_empty());
        let exported = exported.unwrap_or_else(|| gnupg_secret_keys(home, key, b""));
        let signs = encryption.sign_with(&exported, key, &all);
        signs.map_err(|error| Failure::new(code::SIGN_KEY, error.to_string()))?;
    }
    let compression = if options.compression && !gpg.stored { Compression::Zip } else { Compression::None };
    Ok(Sealing::OpenPgp(Box::new(encryption.compression(compression))))
}

/// What `--gpg-options` says, as far as that concerns anything here.
pub struct Gpg {
    /// Its home; `None`: of the environment.
    pub home: Option<PathBuf>,
    /// Nothing is to be compressed.
    pub stored: bool,
}

impl Gpg {
    fn new(options: &Options, log: &Log) -> Self {
        let mut gpg = Self { home: None, stored: false };
        let words: Vec<&str> = options.gpg_options.iter().flat_map(|text| text.split_whitespace()).collect();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            match name {
                "--homedir" => gpg.home = value.or_else(|| words.next()).map(PathBuf::from),
                "--compress-algo" | "--compression-algo" | "--compress-level" | "-z" => {
                    let value = value.or_else(|| words.next()).unwrap_or_default();
                    gpg.stored = matches!(&*value.to_ascii_lowercase(), "none" | "uncompressed" | "0");
                }
                _ if !name.starts_with('-') => {}
                _ => log.warn(&format!("gpg's option {name} changes nothing here, and is ignored")),
            }
        }
        gpg
    }
}

/// Pass phrases of the environment, or of somebody at a terminal.
struct Phrases {
    main: Option<Phrase>,
    sign: Option<Phrase>,
}

impl Phrases {
    fn new(options: &Options, action: &Action) -> Result<Self> {
        let mut phrases = Self { main: variable("PASSPHRASE"), sign: variable("SIGN_PASSPHRASE") };
        let reads = matches!(action, Action::Restore(..) | Action::Verify(..) | Action::ListCurrentFiles(_));
        if reads && options.encryption && phrases.main.is_none() && std::env::var_os("PASSPHRASE").is_none() && can_ask() {
            // None given: a key may open the archive without one.
            phrases.main = Some(ask("GnuPG passphrase for decryption: ")?).filter(|phrase| !phrase.is_empty());
        }
        let is_symmetric = options.encrypt_keys.is_empty() && options.hidden_encrypt_keys.is_empty();
        if action.is_backup() && options.encryption && is_symmetric && phrases.main.is_none() && can_ask() {
            phrases.main = Some(new_phrase(&mut ask)?);
        }
        Ok(phrases)
    }

    fn all(&self) -> impl Iterator<Item = &Phrase> {
        self.main.iter().chain(&self.sign)
    }
}

/// A pass phrase to encrypt with, asked for twice. Never an empty one: that would protect nothing.
fn new_phrase(ask: &mut dyn FnMut(&str) -> Result<Phrase>) -> Result<Phrase> {
    let first = ask("GnuPG passphrase: ")?;
    if first.is_empty() {
        return Err(Failure::new(code::USER, "Cannot use empty passphrase with symmetric encryption!"));
    }
    if *first != *ask("Retype passphrase to confirm: ")? {
        return Err(Failure::new(code::USER, "First and second passphrases do not match!"));
    }
    Ok(first)
}

fn variable(name: &str) -> Option<Phrase> {
    use std::os::unix::ffi::OsStringExt;
    std::env::var_os(name).filter(|value| !value.is_empty()).map(|value| Zeroizing::new(value.into_vec()))
}

fn can_ask() -> bool {
    std::io::stdin().is_terminal() && Path::new("/dev/tty").exists()
}

fn ask(prompt: &str) -> Result<Phrase> {
    let answer = rpassword::prompt_password(prompt).map(Zeroizing::new);
    let answer = answer.map_err(|error| Failure::new(code::EXCEPTION, format!("cannot ask for the pass phrase: {error}")))?;
    Ok(Zeroizing::new(answer.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_pass_phrase_is_no_pass_phrase() {
        let answer = |answers: [&str; 2]| {
            let mut answers = answers.into_iter();
            new_phrase(&mut |_| Ok(Zeroizing::new(answers.next().unwrap_or_default().as_bytes().to_vec())))
        };
        assert_eq!(answer(["", ""]).expect_err("empty").code, code::USER);
        assert_eq!(answer(["a", "b"]).expect_err("different").code, code::USER);
        assert_eq!(**answer(["a", "a"]).expect("the same"), *b"a");
    }
}
