//! OpenPGP files with a pass phrase at hand.
#![no_main]

use std::io::Cursor;
use std::sync::LazyLock;

use compat::pgp::Keyring;
use libfuzzer_sys::fuzz_target;

static KEYRING: LazyLock<Keyring> = LazyLock::new(|| {
    let mut keyring = Keyring::new();
    keyring.add_passphrase(b"x".as_slice());
    keyring
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(stream) = KEYRING.decrypt(Cursor::new(bytes.to_vec()), "fuzz") {
        let _ = stream.finish();
    }
});
