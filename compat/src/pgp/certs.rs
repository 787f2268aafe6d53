//! Public certificates, to check signatures with.

use std::collections::HashSet;
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};

use sequoia_openpgp::cert::{Cert, CertParser};
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::{KeyHandle, Result};

use super::gpg::Gnupg;

/// What is known, and gpg to ask for more.
#[derive(Debug, Default)]
pub(super) struct Certs {
    known: RwLock<Vec<Cert>>,
    asked: Mutex<HashSet<String>>,
    pub(super) gnupg: OnceLock<Gnupg>,
}

impl Certs {
    pub(super) fn add(&self, cert: Cert) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).push(cert);
    }

    /// The certificates that hold any of these keys. Each unknown key is asked for once.
    pub(super) fn find(&self, ids: &[KeyHandle]) -> Vec<Cert> {
        let mut found: Vec<Cert> = Vec::new();
        for id in ids {
            let mut here = self.with_key(id);
            if here.is_empty() && self.fetch(id) {
                here = self.with_key(id);
            }
            found.extend(here);
        }
        found.sort_by_key(Cert::fingerprint);
        found.dedup_by_key(|cert| cert.fingerprint());
        found
    }

    fn with_key(&self, id: &KeyHandle) -> Vec<Cert> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter(|cert| cert.keys().any(|ka| ka.key().key_handle().aliases(id))).cloned().collect()
    }

    fn fetch(&self, id: &KeyHandle) -> bool {
        let Some(gnupg) = self.gnupg.get() else { return false };
        let id = format!("{id:X}");
        // Held while gpg runs, so that others that want the same key find it.
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.insert(id.clone()) {
            let exported = gnupg.export(&id);
            let certs = CertParser::from_bytes(&exported).into_iter().flatten().filter_map(Result::ok);
            certs.for_each(|cert| self.add(cert));
        }
        true
    }
}
