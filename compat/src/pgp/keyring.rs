//! Pass phrases, secret keys and gpg: whatever may open a file.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use sequoia_openpgp::cert::CertParser;
use sequoia_openpgp::crypto::{KeyPair, Password, SessionKey};
use sequoia_openpgp::packet::Key;
use sequoia_openpgp::packet::key::{SecretParts, UnspecifiedRole};
use sequoia_openpgp::parse::Parse;

use super::certs::Certs;
use super::container::{Complete, Sealed};
use super::error::{Failure, PgpError, PgpErrorKind};
use super::esk::{Candidate, Preamble, Recipient, Skesk};
use super::frame::Input;
use super::gpg::Gnupg;
use super::message::Decrypted;
use super::s2k;

/// Stretched pass phrases that are kept; gpg takes a new salt for each file, so more than an archive's files are of no use.
const MAX_STRETCHED: usize = 8192;

/// Everything that may open files. Shared by any number of threads: nothing is locked while a pass phrase is stretched, but for
/// the secret key that it unlocks.
#[derive(Default)]
pub struct Keyring {
    passphrases: Vec<Password>,
    /// Index of the pass phrase that worked last.
    favourite: AtomicUsize,
    stretched: Mutex<HashMap<Stretch, SessionKey>>,
    secrets: Vec<Secret>,
    certs: Arc<Certs>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Stretch {
    spec: Vec<u8>,
    size: usize,
    passphrase: usize,
}

/// A secret key, unlocked when first needed; `None` inside if no pass phrase does it.
struct Secret {
    key: Key<SecretParts, UnspecifiedRole>,
    unlocked: OnceLock<Option<KeyPair>>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<String> = self.secrets.iter().map(|s| format!("{:X}", s.key.keyid())).collect();
        let passphrases = self.passphrases.len();
        f.debug_struct("Keyring").field("passphrases", &passphrases).field("secrets", &keys).finish_non_exhaustive()
    }
}

impl Keyring {
    /// An empty one: opens nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pass phrase, for symmetric files and for secret keys alike. The order is that in which they are tried.
    pub fn add_passphrase(&mut self, passphrase: impl Into<Box<[u8]>>) {
        self.passphrases.push(Password::from(passphrase.into().into_vec()));
    }

    /// Adds the keys of an exported file, armoured or not: secret ones to decrypt with, all to check signatures with. Returns how
    /// many secret keys that can decrypt it has. `name` is for messages.
    pub fn add_keys(&mut self, file: &[u8], name: &str) -> Result<usize, PgpError> {
        let not_keys = |e: &dyn fmt::Display| PgpErrorKind::NotOpenPgp(format!("no exported keys ({e})")).of(name);
        let certs: Vec<_> =
            CertParser::from_bytes(file).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(|e| not_keys(&e))?;
        if certs.is_empty() {
            return Err(not_keys(&"it is empty"));
        }
        let before = self.secrets.len();
        for cert in certs {
            let secrets = cert.keys().secret().filter(|ka| ka.key().pk_algo().for_encryption());
            self.secrets
                .extend(secrets.map(|ka| Secret { key: ka.key().clone().role_into_unspecified(), unlocked: OnceLock::new() }));
            self.certs.add(cert.strip_secret_key_material());
        }
        Ok(self.secrets.len() - before)
    }

    /// Lets the user's gpg decrypt session keys, with its agent, and give public keys. `home` of `None` is gpg's own choice. Only
    /// the first call has an effect.
    pub fn use_gnupg(&mut self, home: Option<&Path>) {
        self.certs.gnupg.get_or_init(|| Gnupg::new(home));
    }

    /// Finds the key for a file and starts to decrypt it. Reads its first bytes; with AEAD its first chunk (16 MiB at most, 4 as
    /// gpg makes them). `name` is for messages.
    ///
    /// A wrong pass phrase among several is taken for the right one about once in a million files; such a file then ends with
    /// [`PgpErrorKind::Modified`].
    pub fn decrypt(&self, reader: impl Read + Send + 'static, name: &str) -> Result<Decrypted, PgpError> {
        let failure = Failure::default();
        // What a reader below recorded is nearer to the truth than what became of it on the way up.
        self.start(reader, name, &failure).map_err(|kind| failure.take().unwrap_or(kind).of(name))
    }

    fn start(&self, reader: impl Read + Send + 'static, name: &str, failure: &Failure) -> Result<Decrypted, PgpErrorKind> {
        let mut input = Input::new(reader, failure.clone())?;
        let (preamble, header) = Preamble::read(&mut input)?;
        let sealed = Sealed::read(header, input, failure.clone())?;
        let candidate = self.find_key(preamble, &sealed)?;
        let (complete, integrity) = (Complete::default(), sealed.integrity());
        let plain = sealed.open(&candidate, &complete)?;
        Decrypted::new(plain, integrity, complete, failure.clone(), Arc::clone(&self.certs), name)
    }

    /// Cheap ways first, asking others last.
    fn find_key(&self, preamble: Preamble, sealed: &Sealed) -> Result<Candidate, PgpErrorKind> {
        let (named, hidden): (Vec<_>, Vec<_>) = preamble.recipients.iter().partition(|r| r.packet.recipient().is_some());
        let (mut locked, mut unsupported) = (None, preamble.unsupported);
        if let Some(candidate) = self.try_secrets(&named, sealed, &mut locked, &mut unsupported) {
            return Ok(candidate);
        }
        if let Some(candidate) = self.try_passphrases(&preamble.skesks, sealed, &mut unsupported)? {
            return Ok(candidate);
        }
        if let Some(candidate) = self.try_secrets(&hidden, sealed, &mut locked, &mut unsupported) {
            return Ok(candidate);
        }
        if let Some(candidate) = self.try_gnupg(&preamble.recipients, sealed)? {
            return Ok(candidate);
        }
        let tried = self.passphrases.len();
        if let Some(key) = locked {
            return Err(PgpErrorKind::LockedKey { key, tried });
        }
        if let Some(kind) = unsupported {
            return Err(kind);
        }
        if !preamble.skesks.is_empty() && (tried > 0 || preamble.recipients.is_empty()) {
            return Err(PgpErrorKind::WrongPassphrase { tried });
        }
        let wanted = named.iter().filter_map(|r| r.packet.recipient()).map(|id| format!("{id:X}")).collect();
        if preamble.recipients.is_empty() {
            return Err(PgpErrorKind::NotOpenPgp("nothing in it says how it was encrypted".into()));
        }
        Err(PgpErrorKind::NoSecretKey { wanted })
    }

    fn try_secrets(
        &self,
        recipients: &[&Recipient],
        sealed: &Sealed,
        locked: &mut Option<String>,
        unsupported: &mut Option<PgpErrorKind>,
    ) -> Option<Candidate> {
        for recipient in recipients {
            let wanted = recipient.packet.recipient();
            for secret in self.secrets.iter().filter(|s| wanted.as_ref().is_none_or(|id| s.key.key_handle().aliases(id))) {
                let Some(pair) = secret.unlocked.get_or_init(|| self.unlock(&secret.key)) else {
                    locked.get_or_insert_with(|| format!("{:X}", secret.key.keyid()));
                    continue;
                };
                let opened = recipient.packet.decrypt(&mut pair.clone(), None);
                let Some(candidate) = opened.map(|(algo, key)| Candidate { algo, key }) else { continue };
                if candidate.algo.is_some() && sealed.accepts(&candidate) {
                    return Some(candidate);
                }
                *unsupported = unsupported.take().or(candidate.unsupported());
            }
        }
        None
    }

    fn unlock(&self, key: &Key<SecretParts, UnspecifiedRole>) -> Option<KeyPair> {
        if key.has_unencrypted_secret() {
            return key.clone().into_keypair().ok();
        }
        self.in_order().find_map(|i| key.clone().decrypt_secret(&self.passphrases[i]).ok()?.into_keypair().ok())
    }

    /// Indexes of the pass phrases, the one that worked last in front.
    fn in_order(&self) -> impl Iterator<Item = usize> + use<'_> {
        let favourite = self.favourite.load(Ordering::Relaxed);
        let others = (0..self.passphrases.len()).filter(move |i| *i != favourite);
        std::iter::once(favourite).filter(|i| *i < self.passphrases.len()).chain(others)
    }

    fn try_passphrases(
        &self,
        skesks: &[Skesk],
        sealed: &Sealed,
        unsupported: &mut Option<PgpErrorKind>,
    ) -> Result<Option<Candidate>, PgpErrorKind> {
        for passphrase in self.in_order() {
            for skesk in skesks {
                let stretched = match self.stretch(skesk, passphrase) {
                    Ok(key) => key,
                    Err(kind) => {
                        unsupported.get_or_insert(kind);
                        continue;
                    }
                };
                if let Some(candidate) = skesk.open(stretched).filter(|c| sealed.accepts(c)) {
                    self.favourite.store(passphrase, Ordering::Relaxed);
                    return Ok(Some(candidate));
                }
            }
        }
        Ok(None)
    }

    fn stretch(&self, skesk: &Skesk, passphrase: usize) -> Result<SessionKey, PgpErrorKind> {
        let stretch = Stretch { spec: skesk.spec.clone(), size: skesk.key_size()?, passphrase };
        let cache = || self.stretched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = cache().get(&stretch) {
            return Ok(key.clone());
        }
        let key = s2k::derive(&skesk.s2k, &self.passphrases[passphrase], stretch.size)?;
        let mut cache = cache();
        if cache.len() >= MAX_STRETCHED {
            cache.clear();
        }
        cache.insert(stretch, key.clone());
        Ok(key)
    }

    fn try_gnupg(&self, recipients: &[Recipient], sealed: &Sealed) -> Result<Option<Candidate>, PgpErrorKind> {
        let Some(gnupg) = self.certs.gnupg.get().filter(|_| !recipients.is_empty()) else { return Ok(None) };
        let pkesks: Vec<u8> = recipients.iter().flat_map(|r| r.bytes.iter().copied()).collect();
        let passphrases: Vec<&Password> = self.in_order().map(|i| &self.passphrases[i]).collect();
        let Some(candidate) = gnupg.session_key(&pkesks, &passphrases)? else { return Ok(None) };
        if sealed.accepts(&candidate) {
            return Ok(Some(candidate));
        }
        Err(candidate.unsupported().unwrap_or_else(|| PgpErrorKind::Modified("the session key does not fit the data".into())))
    }
}
