//! Decrypts a file as `gpg --decrypt` does, to compare speeds: `decrypt FILE PASSPHRASE > CONTENT`.

use std::error::Error;
use std::fs::File;
use std::io;

use compat::pgp::Keyring;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(passphrase)) = (args.next(), args.next()) else {
        return Err("usage: decrypt FILE PASSPHRASE > CONTENT".into());
    };
    let mut keyring = Keyring::new();
    keyring.add_passphrase(passphrase.into_bytes());
    let mut content = keyring.decrypt(File::open(&path)?, &path)?;
    io::copy(&mut content, &mut io::stdout().lock())?;
    content.finish()?;
    Ok(())
}
