//! Tests of whole files: made by stock duplicity, made by the gpg at hand, and hostile ones.

mod encrypting;
mod fixtures;
mod framing;
mod hostile;
mod real_gpg;
mod signers;

use std::io::{Cursor, Read};

use super::{Keyring, PgpError, Report};
use crate::test_support::fixtures;

fn keyring(passphrases: &[&str]) -> Keyring {
    let mut keyring = Keyring::new();
    for phrase in passphrases {
        keyring.add_passphrase(phrase.as_bytes());
    }
    keyring
}

/// The content and the report, or the first error.
fn open(keyring: &Keyring, file: &[u8]) -> Result<(Vec<u8>, Report), PgpError> {
    let mut stream = keyring.decrypt(Cursor::new(file.to_vec()), "test")?;
    let mut content = Vec::new();
    if let Err(e) = stream.read_to_end(&mut content) {
        return Err(e.downcast::<PgpError>().expect("streams fail with a PgpError"));
    }
    Ok((content, stream.finish()?))
}
